//! A connection that HTTP is done with.

use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::hurry::Hurry;

/// The stream below HTTP, in clear text or inside TLS.
#[derive(Debug)]
pub enum Upgraded {
    /// The socket itself.
    Tcp(TcpStream),
    /// TLS over it. Boxed: a session in clear text need not hold its size.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The stream below a connection that [`serve`](super::serve()) upgraded, and what was read from it
/// already. `None` if the client left before the answer was out, or if it is no TCP stream.
pub async fn upgraded_stream(upgrade: OnUpgrade) -> Option<(Upgraded, Bytes)> {
    let upgraded = upgrade.await.inspect_err(|error| {
        tracing::debug!(%error, "the client left before the upgrade was done");
    });
    let upgraded = match upgraded.ok()?.downcast::<TokioIo<Hurry<TcpStream>>>() {
        Ok(Parts { io, read_buf, .. }) => {
            return Some((Upgraded::Tcp(io.into_inner().into_inner()), read_buf));
        }
        Err(upgraded) => upgraded,
    };
    let parts = upgraded.downcast::<TokioIo<Hurry<TlsStream<TcpStream>>>>();
    let Parts { io, read_buf, .. } = parts.ok()?;
    let stream = Box::new(io.into_inner().into_inner());
    Some((Upgraded::Tls(stream), read_buf))
}

impl Upgraded {
    /// Has the runtime that this is called in watch the socket at the bottom, whichever did before.
    pub fn adopt(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Self::Tls(mut stream) => {
                // Borrowed by TLS: by a descriptor of its own.
                let socket = stream.get_mut().0;
                let own = socket.as_fd().try_clone_to_owned()?;
                *socket = TcpStream::from_std(own.into())?;
                Self::Tls(stream)
            }
        })
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
