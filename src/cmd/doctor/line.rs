//! A way to the public URL: TCP, TLS where it is https, HTTP, and the frames of a WebSocket.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use url::Url;

use crate::http::{BadTrust, Trust};
use crate::model::Host;
use crate::resolve::{Unresolved, dial, resolve};

/// The longest message that a doctor takes, in bytes: a picture of a large screen.
const LARGEST: usize = 64 << 20;

const CLOSE: u8 = 8;
const PING: u8 = 9;

/// Either kind of stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why there is no way.
#[derive(Debug)]
pub(super) enum NoWay {
    Url,
    Resolve(Unresolved),
    Dial(io::Error),
    Tls(BadTrust),
    Http(hyper::Error),
}

/// Where a URL leads.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) tls: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

impl Place {
    pub(super) fn of(url: &Url) -> Option<Self> {
        let host = match url.host()? {
            url::Host::Domain(name) => Host::Name(name.to_owned()),
            url::Host::Ipv4(ip) => Host::Ip(ip.into()),
            url::Host::Ipv6(ip) => Host::Ip(ip.into()),
        };
        Some(Self {
            tls: matches!(url.scheme(), "https" | "wss"),
            host,
            port: url.port_or_known_default()?,
        })
    }

    pub(super) async fn dial(&self) -> Result<TcpStream, NoWay> {
        let ips = resolve(&self.host).await.map_err(NoWay::Resolve)?;
        dial(&ips, self.port).await.map_err(NoWay::Dial)
    }

    pub(super) async fn shake_hands(
        &self,
        trust: &Trust,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, NoWay> {
        let shaken = trust.shake_hands(&self.host, stream).await;
        shaken.map_err(NoWay::Tls)
    }

    pub(super) async fn open(&self, trust: &Trust) -> Result<Box<dyn Stream>, NoWay> {
        let stream = self.dial().await?;
        if self.tls {
            let stream = self.shake_hands(trust, stream).await?;
            return Ok(Box::new(stream));
        }
        Ok(Box::new(stream))
    }
}

/// One request, and its answer's head; the body and the stream after an upgrade come by it.
pub(super) async fn ask(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, NoWay> {
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(NoWay::Http)?;
    // Ends with the connection, at the latest with the process.
    let _driver = tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(NoWay::Http)
}

/// A WebSocket, as a client.
pub(super) struct Socket {
    stream: TokioIo<Upgraded>,
    /// Bytes of messages that nobody has read yet.
    pending: Vec<u8>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum Over {
    /// The other side closed, and said this.
    Closed { code: u16, why: String },
    /// The stream broke off, or is no WebSocket's.
    Broken(Arc<io::Error>),
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::Broken(Arc::new(error))
    }
}

impl Socket {
    pub(super) fn new(upgraded: Upgraded) -> Self {
        Self {
            stream: TokioIo::new(upgraded),
            pending: Vec::new(),
        }
    }

    /// Whether something has come that nobody has read. Waits for it.
    pub(super) async fn hear(&mut self) -> Result<(), Over> {
        while self.pending.is_empty() {
            self.message().await?;
        }
        Ok(())
    }

    /// The next `count` bytes.
    pub(super) async fn read(&mut self, count: usize) -> Result<Vec<u8>, Over> {
        if count > LARGEST {
            return Err(io::Error::other("the message is too long").into());
        }
        while self.pending.len() < count {
            self.message().await?;
        }
        let rest = self.pending.split_off(count);
        Ok(std::mem::replace(&mut self.pending, rest))
    }

    /// Sends a message of up to 125 bytes. The mask is zero: it hides nothing from anybody here.
    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<(), Over> {
        self.frame(2, payload).await
    }

    async fn frame(&mut self, opcode: u8, payload: &[u8]) -> Result<(), Over> {
        let length = u8::try_from(payload.len()).ok().filter(|it| *it < 126);
        let length = length.ok_or_else(|| io::Error::other("too long a message"))?;
        let head = [0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
        self.stream.write_all(&[&head, payload].concat()).await?;
        self.stream.flush().await?;
        Ok(())
    }

    async fn message(&mut self) -> Result<(), Over> {
        let opcode = self.stream.read_u8().await? & 0x0f;
        let length = match self.stream.read_u8().await? & 0x7f {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > LARGEST {
            return Err(io::Error::other("the frame is too long").into());
        }
        let mut payload = vec![0; length];
        let _count = self.stream.read_exact(&mut payload).await?;
        match opcode {
            CLOSE => return Err(closed(&payload)),
            PING => self.frame(10, &payload).await?,
            0..=2 => self.pending.extend(payload),
            _ => {}
        }
        Ok(())
    }
}

fn closed(payload: &[u8]) -> Over {
    let (code, why) = payload.split_first_chunk().unwrap_or((&[0, 0], &[]));
    Over::Closed {
        code: u16::from_be_bytes(*code),
        why: String::from_utf8_lossy(why).into_owned(),
    }
}
