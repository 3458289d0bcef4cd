//! A viewer that costs as little as possible: frames are masked before they count.
//!
//! In front of relays that know no WebSocket it sends and expects the payload alone.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::SockRef;

use crate::backends::{GREETING, NONE, TYPES, WELL};

const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x96];

/// How a relay is reached.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    /// What a WebSocket asks for; none where plain bytes are relayed.
    pub(crate) path: Option<String>,
    /// Whom to trust, where it is inside TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A connection whose backend has let it in.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<Wire>,
    framed: bool,
    /// What has not been read yet of the frame under way.
    left: usize,
}

/// What a client reads from and writes to.
#[derive(Debug)]
enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Door {
    /// In clear text.
    pub(crate) const fn plain(address: SocketAddr, path: Option<String>) -> Self {
        let tls = None;
        Self { address, path, tls }
    }

    /// Connects, upgrades, and has the backend let it in. The buffer takes this many bytes.
    fn open(&self, buffer: usize) -> Result<Client> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        // Ends with a reset, so that thousands of sessions leave no sockets in TIME_WAIT.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let mut client = Client {
            stream: BufReader::with_capacity(buffer, self.wire(stream)?),
            framed: self.path.is_some(),
            left: if self.path.is_some() { 0 } else { usize::MAX },
        };
        if let Some(path) = &self.path {
            client.upgrade(self.address, path)?;
        }
        client.enter()?;
        Ok(client)
    }

    fn wire(&self, stream: TcpStream) -> Result<Wire> {
        let Some(tls) = &self.tls else {
            return Ok(Wire::Plain(stream));
        };
        let name = ServerName::IpAddress(self.address.ip().into());
        let hands = ClientConnection::new(Arc::clone(tls), name)?;
        Ok(Wire::Tls(Box::new(StreamOwned::new(hands, stream))))
    }

    /// The same, for streams at full speed.
    pub(crate) fn open_wide(&self) -> Result<Client> {
        self.open(1 << 18)
    }

    /// The same, for single messages.
    pub(crate) fn open_narrow(&self) -> Result<Client> {
        self.open(64)
    }

    /// The bytes that carry `payload` up in one message.
    pub(crate) fn message(&self, payload: &[u8]) -> Vec<u8> {
        if self.path.is_some() {
            return frame(payload);
        }
        payload.to_vec()
    }
}

impl Client {
    fn upgrade(&mut self, address: SocketAddr, path: &str) -> Result<()> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.write(request.as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.bytes::<1>()?);
        }
        let status = head.split(|byte| *byte == b' ').nth(1);
        ensure!(status == Some(b"101"), "the upgrade was refused");
        Ok(())
    }

    /// RFB's first steps, as far as every viewer takes them.
    fn enter(&mut self) -> Result<()> {
        self.expect(GREETING)?;
        self.send(GREETING)?;
        self.expect(&TYPES)?;
        self.send(&[NONE])?;
        self.expect(&WELL)
    }

    fn expect(&mut self, what: &[u8]) -> Result<()> {
        let mut got = vec![0; what.len()];
        self.read_payload(&mut got)?;
        ensure!(got == what, "{got:?} came in place of {what:?}");
        Ok(())
    }

    /// Sends one message.
    pub(crate) fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        if self.framed {
            return self.write(&frame(payload));
        }
        self.write(payload)
    }

    /// Writes bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// A handle for ending the connection from another thread.
    pub(crate) fn stream(&self) -> io::Result<TcpStream> {
        self.socket().try_clone()
    }

    /// Whether bytes wait that were read from the socket already.
    pub(crate) fn has_more(&mut self) -> bool {
        let buffered = !self.stream.buffer().is_empty();
        buffered
            || match self.stream.get_mut() {
                Wire::Plain(_) => false,
                Wire::Tls(stream) => {
                    let state = stream.conn.process_new_packets();
                    state.is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
                }
            }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self.stream.get_ref() {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => &stream.sock,
        }
    }

    /// Fills the buffer, however the bytes were cut into frames.
    pub(crate) fn read_payload(&mut self, into: &mut [u8]) -> Result<()> {
        let mut rest = into;
        while !rest.is_empty() {
            let count = self.read_some(rest)?;
            rest = rest.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads until the connection ends, in pieces of any size.
    pub(crate) fn read_stream(&mut self, mut with: impl FnMut(&[u8])) -> Result<()> {
        let mut buffer = vec![0; 1 << 18];
        loop {
            let count = self.read_some(&mut buffer)?;
            with(buffer.get(..count).unwrap_or_default());
        }
    }

    /// Reads at least one byte of what is left of a frame, or of the next.
    fn read_some(&mut self, into: &mut [u8]) -> Result<usize> {
        while self.left == 0 {
            self.left = self.read_header()?;
        }
        let most = self.left.min(into.len());
        let count = self.stream.read(into.get_mut(..most).unwrap_or_default())?;
        ensure!(count > 0, "the connection ended");
        if self.framed {
            self.left -= count;
        }
        Ok(count)
    }

    /// The length of the next binary frame; pings are skipped, for nobody here is that quiet.
    fn read_header(&mut self) -> Result<usize> {
        loop {
            let [first, second] = self.bytes()?;
            let length = match second & 0x7f {
                0x7e => u64::from(u16::from_be_bytes(self.bytes()?)),
                0x7f => u64::from_be_bytes(self.bytes()?),
                short => u64::from(short),
            };
            let length = usize::try_from(length)?;
            match first & 0x0f {
                0 | 2 => return Ok(length),
                9 => {
                    let mut payload = vec![0; length];
                    self.stream.read_exact(&mut payload)?;
                }
                other => bail!("a frame with opcode {other} came"),
            }
        }
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A masked binary frame.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x82];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => bytes.push(0x80 | short),
        (_, Ok(medium)) => {
            bytes.push(0x80 | 0x7e);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 0x7f);
            let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
    bytes
}
