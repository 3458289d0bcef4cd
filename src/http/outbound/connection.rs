use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::{Fault, Trust};
use crate::model::Host;
use crate::resolve::{dial, resolve};

/// The largest head of an answer, in bytes.
const LARGEST_HEAD: usize = 64 * 1024;

/// Whom a connection is with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Origin {
    tls: bool,
    host: Host,
    port: u16,
    authority: String,
}

/// One HTTP connection. It ends when this is dropped, whatever goes on.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) origin: Origin,
    pub(super) last_used: Instant,
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Origin {
    pub(super) fn of(url: &Url) -> Result<Self, Fault> {
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(Fault::Url),
        };
        let host = match url.host().ok_or(Fault::Url)? {
            url::Host::Domain(name) => Host::Name(name.to_owned()),
            url::Host::Ipv4(ip) => Host::Ip(ip.into()),
            url::Host::Ipv6(ip) => Host::Ip(ip.into()),
        };
        Ok(Self {
            tls,
            host,
            port: url.port_or_known_default().ok_or(Fault::Url)?,
            authority: url[url::Position::BeforeHost..url::Position::AfterPort].to_owned(),
        })
    }

    /// Host and port as the `Host` header has them.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }
}

impl Connection {
    /// Connects to the first address that answers; each has half of `limit`, so that a second one
    /// is tried before the call is over.
    pub(super) async fn open(
        origin: Origin,
        trust: &Trust,
        limit: Duration,
    ) -> Result<Self, Fault> {
        let ips = resolve(&origin.host).await?;
        let plain = dial_any(&ips, origin.port, limit / 2).await;
        let plain = plain.map_err(Fault::Connect)?;
        let stream: Box<dyn Stream> = if origin.tls {
            Box::new(trust.shake_hands(&origin.host, plain).await?)
        } else {
            Box::new(plain)
        };
        let handshake = http1::Builder::new()
            .max_buf_size(LARGEST_HEAD)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(exchange)?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a service ended early");
            }
        });
        Ok(Self {
            origin,
            last_used: Instant::now(),
            sender,
            _driver: AbortOnDropHandle::new(driver),
        })
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Fault> {
        self.sender.send_request(request).await.map_err(exchange)
    }

    /// Waits until another request can be sent; false if none ever can.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Whether the peer has closed it, as far as is known.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

fn exchange(error: hyper::Error) -> Fault {
    Fault::Exchange(error.into())
}

async fn dial_any(ips: &[IpAddr], port: u16, each: Duration) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for ip in ips {
        match timeout(each, dial(&[*ip], port)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}
