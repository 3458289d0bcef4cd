//! Streams from one process to another: a console's bytes, on a connection of their own.
//!
//! Asked for by a request over HTTP/1.1 that is upgraded, on the same door and with the same keys
//! as calls. Not a stream of the connection that calls share: what one console sends must not wait
//! for another's window, and the relay's thread must be able to watch the socket itself.

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::link::{Fault, Link};
use super::{Unreachable, wire};

/// A stream both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// What one role hands out to others: a stream for each request.
pub trait Streams: fmt::Debug + Send + Sync + 'static {
    /// What it is called in paths.
    const NAME: &'static str;
    /// The role that hands it out.
    const ROLE: &'static str;
    /// The roles that may ask, where callers show which they are.
    const CALLERS: &'static [&'static str];
    /// Which stream is wanted.
    type Request: Serialize + DeserializeOwned + Send + 'static;
    /// What is said of it before its own bytes come; a few hundred bytes at most.
    type Opened: Serialize + DeserializeOwned + Send + 'static;
    /// Why there is none.
    type Error: Serialize + DeserializeOwned + From<Unreachable> + Send + 'static;

    /// Opens one.
    fn open(&self, request: Self::Request) -> impl Future<Output = Given<Self>> + Send;
}

/// What [`Streams::open`] gives.
pub type Given<S> = Result<(<S as Streams>::Opened, Box<dyn Duplex>), <S as Streams>::Error>;

/// The way to streams that another process hands out.
pub struct Way<S> {
    link: Arc<Link>,
    limit: Duration,
    streams: PhantomData<fn() -> S>,
}

impl<S: Streams> Way<S> {
    pub(super) fn new(link: Arc<Link>, limit: Duration) -> Self {
        Self {
            link,
            limit,
            streams: PhantomData,
        }
    }

    /// Asks for a stream. Cancel-safe: the connection is closed.
    pub async fn open(&self, request: &S::Request) -> Result<(S::Opened, Tunnel), S::Error> {
        let role = || S::ROLE.to_owned();
        let Ok(body) = wire::write(request) else {
            return Err(Unreachable::Gone(role()).into());
        };
        let opening = self.link.open_stream(S::ROLE, S::NAME, body);
        match timeout(self.limit, opening).await {
            Ok(Ok((head, Some(tunnel)))) => {
                let opened =
                    wire::opened(head.headers()).map_err(|()| wire::confused(S::ROLE, &head));
                Ok((opened?, tunnel))
            }
            Ok(Ok((refusal, None))) => Err(wire::refusal(S::ROLE, &refusal)),
            Ok(Err(Fault::Stranger)) => Err(Unreachable::Refused(role()).into()),
            Ok(Err(Fault::Unsent | Fault::Broken)) => Err(Unreachable::Gone(role()).into()),
            Err(_) => Err(Unreachable::Deadline(role()).into()),
        }
    }
}

impl<S> Clone for Way<S> {
    fn clone(&self) -> Self {
        Self {
            link: Arc::clone(&self.link),
            limit: self.limit,
            streams: PhantomData,
        }
    }
}

impl<S> fmt::Debug for Way<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Way").field(&self.link).finish()
    }
}

/// A connection to another process.
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    fn duplex(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Unix(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }

    fn adopt(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => adopt_tcp(stream),
            Self::Tls(stream) => adopt_tcp(stream.get_mut().0),
            Self::Unix(stream) => {
                let own = stream.as_fd().try_clone_to_owned()?;
                *stream = UnixStream::from_std(own.into())?;
                Ok(())
            }
        }
    }

    /// Whether its end says by itself that nothing was cut off.
    fn tells_its_end(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// By a descriptor of its own: the stream is TLS's, and stays in its place.
fn adopt_tcp(stream: &mut TcpStream) -> io::Result<()> {
    let own = stream.as_fd().try_clone_to_owned()?;
    *stream = TcpStream::from_std(own.into())?;
    Ok(())
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.duplex().poll_read(context, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.duplex().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.duplex().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.duplex().poll_shutdown(context)
    }
}

/// A stream that another process handed out. Its end is an error where that process died.
pub struct Tunnel {
    wire: Wire,
    /// What came behind the answer.
    early: Bytes,
    end: End,
}

/// What the end of the stream means.
enum End {
    /// What it says, by TLS.
    Plain,
    /// A process that dies ends its streams as if they were over: it is asked whether it lives.
    Asked(Arc<Link>, &'static str, Handle),
    Asking(AbortOnDropHandle<bool>),
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

impl Tunnel {
    pub(super) fn new(wire: Wire, early: Bytes, link: &Arc<Link>, role: &'static str) -> Self {
        let end = if wire.tells_its_end() {
            End::Plain
        } else {
            End::Asked(Arc::clone(link), role, Handle::current())
        };
        Self { wire, early, end }
    }

    /// Has the runtime that calls this watch the socket from now on.
    pub fn adopt(&mut self) -> io::Result<()> {
        self.wire.adopt()
    }

    /// The end has come: was it meant?
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let End::Asked(link, role, runtime) = &self.end {
            let (link, role) = (Arc::clone(link), *role);
            let asking = async move { link.call(role, Bytes::new()).await.is_ok() };
            self.end = End::Asking(AbortOnDropHandle::new(runtime.spawn(asking)));
        }
        let End::Asking(asking) = &mut self.end else {
            return Poll::Ready(Ok(()));
        };
        let lives = ready!(Pin::new(asking).poll(context)).unwrap_or(false);
        self.end = End::Plain;
        Poll::Ready(if lives {
            Ok(())
        } else {
            Err(io::ErrorKind::ConnectionAborted.into())
        })
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let length = this.early.len().min(into.remaining());
            into.put_slice(this.early.get(..length).unwrap_or_default());
            this.early.advance(length);
            return Poll::Ready(Ok(()));
        }
        if matches!(this.end, End::Asking(_)) {
            return this.poll_end(context);
        }
        let (before, room) = (into.filled().len(), into.remaining());
        ready!(Pin::new(&mut this.wire).poll_read(context, into))?;
        if room > 0 && into.filled().len() == before {
            return this.poll_end(context);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(context)
    }
}
