//! A WebSocket client made by hand, so that it can also do what no client may.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::http::{Response, connect, read_exactly};
use super::wait::PATIENCE;

/// Opcodes of RFC 6455 section 5.2.
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x96];

/// An upgrade request in the making.
#[derive(Clone, Debug)]
pub(crate) struct Upgrade {
    path: String,
    headers: Vec<(String, String)>,
    early: Vec<u8>,
}

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct Ws {
    stream: TcpStream,
    pending: Vec<u8>,
    /// The answer to the upgrade request.
    pub(crate) response: Response,
}

/// One frame as it came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    pub(crate) last: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// How the other side closed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Closed {
    pub(crate) code: Option<u16>,
    pub(crate) reason: String,
}

impl Closed {
    /// The sentence without the correlation id it ends in, and the id.
    #[track_caller]
    pub(crate) fn sentence(&self) -> (&str, &str) {
        assert!(
            self.reason.len() <= 123,
            "{} bytes: {self:?}",
            self.reason.len()
        );
        let found = self
            .reason
            .char_indices()
            .rev()
            .find(|(_, c)| !c.is_ascii_hexdigit() && !"])".contains(*c));
        let (end, _) = found.expect("a sentence before the id");
        let (sentence, id) = self.reason.split_at(end + 1);
        let id = id.trim_end_matches([']', ')']);
        assert_eq!(id.len(), 10, "no correlation id at the end of {self:?}");
        (sentence, id)
    }
}

impl Upgrade {
    /// A correct request for `path` (with its query).
    pub(crate) fn new(path: &str) -> Self {
        let headers = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            path: path.to_owned(),
            headers: headers.map(own).into(),
            early: Vec::new(),
        }
    }

    /// Adds a header, and keeps those of the same name.
    pub(crate) fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes the headers of that name.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// Replaces the headers of that name.
    pub(crate) fn with(self, name: &str, value: &str) -> Self {
        self.without(name).and(name, value)
    }

    /// Sends these bytes in the same segment as the request.
    pub(crate) fn early(mut self, bytes: &[u8]) -> Self {
        self.early.extend(bytes);
        self
    }

    /// Sends it with `Host: address`, unless it has a `Host` of its own.
    pub(crate) fn open(self, address: SocketAddr) -> Result<Ws, Response> {
        let has_host = self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"));
        let upgrade = if has_host {
            self
        } else {
            self.with("Host", &address.to_string())
        };
        upgrade.open_as_is(address)
    }

    /// Sends it without adding anything.
    pub(crate) fn open_as_is(self, address: SocketAddr) -> Result<Ws, Response> {
        self.open_on(connect(address))
    }

    /// Opens it where connections may be turned away at any moment.
    pub(crate) fn try_ws(self, address: SocketAddr) -> Option<Ws> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&self.head(&address.to_string())).ok()?;
        let response = Response::try_read_head(&mut stream)?;
        (response.status == 101).then(|| Ws {
            stream,
            pending: Vec::new(),
            response,
        })
    }

    /// The same, for the status alone.
    pub(crate) fn try_open(self, address: SocketAddr) -> Option<u16> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&self.head(&address.to_string())).ok()?;
        Response::try_read_head(&mut stream).map(|response| response.status)
    }

    fn head(&self, host: &str) -> Vec<u8> {
        let mut text = format!("GET {} HTTP/1.1\r\nHost: {host}\r\n", self.path);
        text.extend(
            self.headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n")),
        );
        text += "\r\n";
        text.into_bytes()
    }

    /// Sends it as it is on a connection of the test's own, with some `Host`.
    pub(crate) fn open_on(self, mut stream: TcpStream) -> Result<Ws, Response> {
        let lines = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        let mut bytes = format!("GET {} HTTP/1.1\r\n", self.path);
        bytes.extend(lines);
        bytes += "\r\n";
        let mut bytes = bytes.into_bytes();
        bytes.extend(self.early);
        stream.write_all(&bytes).unwrap();
        let mut response = Response::read_head(&mut stream);
        if response.status != 101 {
            let length = response
                .header("content-length")
                .map_or(0, |text| text.parse().unwrap());
            response.body = read_exactly(&mut stream, length);
            return Err(response);
        }
        let accept = response.header("sec-websocket-accept");
        assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        Ok(Ws {
            stream,
            pending: Vec::new(),
            response,
        })
    }
}

impl Ws {
    /// A second handle, so that one thread can write while another reads.
    pub(crate) fn twin(&self) -> Self {
        Self {
            stream: self.stream.try_clone().unwrap(),
            pending: Vec::new(),
            response: self.response.clone(),
        }
    }

    /// Sends `payload` as one binary message.
    pub(crate) fn send(&mut self, payload: &[u8]) {
        self.send_raw(&frame(true, BINARY, payload));
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a close frame.
    pub(crate) fn send_close(&mut self, code: u16, reason: &str) {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(reason.as_bytes());
        self.send_raw(&frame(true, CLOSE, &payload));
    }

    /// The next frame, whatever it is.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Frame {
        let [first, second] = self.take();
        assert_eq!(first & 0x70, 0, "reserved bits are set");
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let length = match second {
            126 => u64::from(u16::from_be_bytes(self.take())),
            127 => u64::from_be_bytes(self.take()),
            short => u64::from(short),
        };
        Frame {
            last: first & 0x80 != 0,
            opcode: first & 0x0f,
            payload: read_exactly(&mut self.stream, usize::try_from(length).unwrap()),
        }
    }

    /// The next frame that is no ping.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Frame {
        loop {
            let frame = self.frame();
            if frame.opcode != PING {
                return frame;
            }
        }
    }

    /// The next `count` bytes of the stream that binary messages carry.
    #[track_caller]
    pub(crate) fn read(&mut self, count: usize) -> Vec<u8> {
        while self.pending.len() < count {
            let frame = self.answer();
            assert!(
                [BINARY, CONTINUATION].contains(&frame.opcode),
                "wanted {} bytes more, got {frame:?}",
                count - self.pending.len()
            );
            self.pending.extend(frame.payload);
        }
        self.pending.drain(..count).collect()
    }

    /// Reads up to the close frame: the bytes before it, and how it closed.
    #[track_caller]
    pub(crate) fn read_to_close(&mut self) -> (Vec<u8>, Closed) {
        loop {
            let Frame {
                opcode, payload, ..
            } = self.answer();
            match opcode {
                BINARY | CONTINUATION => self.pending.extend(payload),
                CLOSE => return (std::mem::take(&mut self.pending), closed(&payload)),
                PONG => {}
                other => panic!("unexpected opcode {other}"),
            }
        }
    }

    /// Reads up to the close frame, where nothing may come before it.
    #[track_caller]
    pub(crate) fn expect_close(&mut self) -> Closed {
        let (bytes, closed) = self.read_to_close();
        assert_eq!(bytes, b"", "bytes came before {closed:?}");
        closed
    }

    /// Whether the connection ends without another byte.
    pub(crate) fn ends(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }

    /// Ends the connection without a close frame.
    pub(crate) fn vanish(self) {
        self.stream.shutdown(Shutdown::Both).unwrap();
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("a frame");
        bytes
    }
}

/// A masked frame, as clients send them.
pub(crate) fn frame(last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(last, opcode, true, u64::try_from(payload.len()).unwrap());
    bytes.extend(MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// A frame header that announces `length` bytes in the shortest form.
pub(crate) fn header(last: bool, opcode: u8, masked: bool, length: u64) -> Vec<u8> {
    let mask = u8::from(masked) << 7;
    let mut bytes = vec![u8::from(last) << 7 | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(mask | short),
        (_, Ok(medium)) => {
            bytes.push(mask | 0x7e);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(mask | 0x7f);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}

fn closed(payload: &[u8]) -> Closed {
    let Some((code, reason)) = payload.split_first_chunk() else {
        assert_eq!(payload, b"", "a close frame of one byte");
        return Closed {
            code: None,
            reason: String::new(),
        };
    };
    Closed {
        code: Some(u16::from_be_bytes(*code)),
        reason: String::from_utf8(reason.to_vec()).unwrap(),
    }
}
