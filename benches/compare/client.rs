//! A WebSocket client that costs as little as possible: frames are masked before they count.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use socket2::SockRef;

use crate::backends::GREETING;

const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x96];

/// An upgraded connection whose backend has greeted.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Upgrades at `path` and reads the backend's greeting.
    pub(crate) fn connect(address: SocketAddr, path: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        // Ends with a reset, so that thousands of sessions leave no sockets in TIME_WAIT.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let mut client = Self {
            stream: BufReader::with_capacity(1 << 18, stream),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.write(request.as_bytes())?;
        client.read_response()?;
        let mut greeting = [0; GREETING.len()];
        client.read_payload(&mut greeting)?;
        ensure!(&greeting == GREETING, "no greeting came");
        Ok(client)
    }

    /// Greets the backend, which then begins.
    pub(crate) fn greet(&mut self) -> io::Result<()> {
        self.write(&frame(GREETING))
    }

    /// Writes bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// A handle for writing from another thread, and for ending the connection.
    pub(crate) fn stream(&self) -> io::Result<TcpStream> {
        self.stream.get_ref().try_clone()
    }

    /// Fills the buffer from one or several frames, each of which must fit.
    pub(crate) fn read_payload(&mut self, into: &mut [u8]) -> Result<()> {
        let mut rest = into;
        while !rest.is_empty() {
            let length = self.read_header()?;
            let (now, later) = rest
                .split_at_mut_checked(length)
                .context("a frame too long")?;
            self.stream.read_exact(now)?;
            rest = later;
        }
        Ok(())
    }

    /// Reads frames until the connection ends, in pieces of any size.
    pub(crate) fn read_stream(&mut self, mut with: impl FnMut(&[u8])) -> Result<()> {
        let mut buffer = vec![0; 1 << 18];
        loop {
            let mut left = self.read_header()?;
            while left > 0 {
                let most = left.min(buffer.len());
                let piece = buffer.get_mut(..most).unwrap_or_default();
                let count = self.stream.read(piece)?;
                ensure!(count > 0, "the connection ended inside a frame");
                with(piece.get(..count).unwrap_or_default());
                left -= count;
            }
        }
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

    fn read_response(&mut self) -> Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.bytes::<1>()?);
        }
        let status = head.split(|byte| *byte == b' ').nth(1);
        ensure!(status == Some(b"101"), "the upgrade was refused");
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// A masked binary frame.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x82];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => bytes.push(0x80 | short),
        (_, Ok(medium)) => {
            bytes.push(0x80 | 0x7e);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 0x7f);
            bytes.extend(
                u64::try_from(payload.len())
                    .unwrap_or(u64::MAX)
                    .to_be_bytes(),
            );
        }
    }
    bytes.extend(MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}
