//! The smallest HTTP/1.1 client that shows everything: one request, one connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::wait::PATIENCE;

/// A request in the making.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Adds a header; a second one of the same name is a second line.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a body of JSON, or of what should be JSON.
    pub(crate) fn json(mut self, body: &(impl ToString + ?Sized)) -> Self {
        self.body = body.to_string().into_bytes();
        self.header("Content-Type", "application/json")
    }

    /// Adds a body of another kind than JSON's, or of none.
    pub(crate) fn body(mut self, kind: Option<&str>, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        match kind {
            Some(kind) => self.header("Content-Type", kind),
            None => self,
        }
    }

    /// Sends it to `address` and reads the whole answer.
    pub(crate) fn send(&self, address: SocketAddr) -> Response {
        let mut stream = connect(address);
        stream.write_all(self.head(address).as_bytes()).unwrap();
        // a server may refuse by the head alone and close before it has read the body
        let _refused_early = stream.write_all(&self.body).is_err();
        Response::read(&mut stream, self.method == "HEAD")
    }

    /// The same to a server that may be dying: an answer that breaks off is an error.
    pub(crate) fn try_send(&self, address: SocketAddr) -> io::Result<Response> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(self.head(address).as_bytes())?;
        stream.write_all(&self.body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        if !is_whole(&answer) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Response::read(&mut &answer[..], false))
    }

    fn head(&self, address: SocketAddr) -> String {
        let own_host = |(name, _): &(String, String)| name.eq_ignore_ascii_case("host");
        let mut lines = vec![format!("{} {} HTTP/1.1", self.method, self.path)];
        lines.extend(
            self.headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}")),
        );
        if !self.headers.iter().any(own_host) {
            lines.push(format!("Host: {address}"));
        }
        lines.push(format!("Content-Length: {}", self.body.len()));
        lines.push("Connection: close\r\n\r\n".to_owned());
        lines.join("\r\n")
    }
}

impl Response {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// All headers of that name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let headers = self.headers.iter();
        let found = headers.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The same of a server that may hang up instead.
    pub(crate) fn try_read_head(stream: &mut impl Read) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.extend(byte);
        }
        Some(Self::read_head(&mut &head[..]))
    }

    /// Reads the status line and the headers, and leaves the stream just behind them.
    pub(crate) fn read_head(stream: &mut impl Read) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an HTTP response head");
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.filter_map(|line| line.split_once(':'));
        Self {
            status: status.parse().unwrap(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
            body: Vec::new(),
        }
    }

    /// Reads a whole response from a connection that carries nothing else.
    pub(crate) fn read(stream: &mut impl Read, bodiless: bool) -> Self {
        let mut response = Self::read_head(stream);
        let length = response
            .header("content-length")
            .map(|text| text.parse().unwrap());
        if bodiless || [204, 304].contains(&response.status) {
            return response;
        }
        response.body = match length {
            Some(length) => read_exactly(stream, length),
            None if response.header("transfer-encoding").is_some() => read_chunks(stream),
            None => {
                let mut body = Vec::new();
                stream.read_to_end(&mut body).unwrap();
                body
            }
        };
        response
    }
}

/// Whether these bytes are a head and as much of a body as it announces.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let mut head = &answer[..end + 4];
    let head = Response::read_head(&mut head);
    let length = head.header("content-length").unwrap_or("0");
    answer.len() == end + 4 + length.parse::<usize>().unwrap()
}

/// A connection to the product on which no read or write can hang a test.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) fn read_exactly(stream: &mut impl Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn read_chunks(stream: &mut impl Read) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        while !line.ends_with("\r\n") {
            line.push(char::from(read_exactly(stream, 1)[0]));
        }
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        body.extend(read_exactly(stream, length));
        read_exactly(stream, 2);
        if length == 0 {
            return body;
        }
    }
}
