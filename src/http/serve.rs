use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::{Body, Listener};
use crate::drain::Watch;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// Somebody who may open our Unix socket: its owner.
    Owner,
}

impl Peer {
    /// Its address, if it has one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Owner => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Owner => f.write_str("admin socket"),
        }
    }
}

/// What answers behind a door.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at one time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long a request's head may take; also how long a quiet connection is kept.
    pub header_timeout: Duration,
}

/// The largest head of a request, in bytes.
const LARGEST_HEAD: usize = 32 * 1024;

/// How long accepting rests when the process has run out of descriptors.
const REST: Duration = Duration::from_millis(50);

/// Serves a door until the process closes. A request under way then is finished.
pub async fn serve<S: Service>(listener: Listener, service: Arc<S>, limits: Limits, watch: Watch) {
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = watch.closing() => return,
        };
        match accepted {
            Ok(connection) => {
                let task = connection.serve(Arc::clone(&service), limits, watch.clone());
                watch.spawn_service(async move {
                    task.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

enum Connection {
    Tcp(tokio::net::TcpStream, SocketAddr),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<Connection> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Connection::Tcp(stream, peer))
        }
        Listener::Unix(listener, _) => listener
            .accept()
            .await
            .map(|(stream, _)| Connection::Unix(stream)),
    }
}

impl Connection {
    async fn serve<S: Service>(self, service: Arc<S>, limits: Limits, watch: Watch) {
        match self {
            Self::Tcp(stream, peer) => {
                serve_stream(stream, Peer::Tcp(peer), service, limits, watch).await;
            }
            Self::Unix(stream) => {
                serve_stream(stream, Peer::Owner, service, limits, watch).await;
            }
        }
    }
}

async fn serve_stream<S: Service>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    service: Arc<S>,
    limits: Limits,
    watch: Watch,
) {
    let answer = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, std::convert::Infallible>(service.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(LARGEST_HEAD)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = watch.closing() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}
