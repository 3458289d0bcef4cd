use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::hurry::Hurry;
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

/// How long a request may go on once the process closes.
const FAREWELL: Duration = Duration::from_secs(3);

/// Serves a door until the process closes, or leaves it to another one. A request under way then has 3 s to be answered.
pub async fn serve<S: Service>(listener: Listener, service: Arc<S>, limits: Limits, watch: Watch) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut failing = false;
    loop {
        if !watch.may_accept().await {
            return listener.leave();
        }
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, accept(&listener).await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = watch.held() => continue,
            () = watch.closing() => return,
        };
        match accepted {
            Ok(connection) => {
                failing = false;
                let task = connection.serve(Arc::clone(&service), limits, watch.clone());
                watch.spawn_connection(async move {
                    task.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Said once: out of descriptors, it would be said twenty times a second.
                if !failing {
                    tracing::warn!(%error, "accepting a connection failed");
                }
                failing = true;
                tokio::time::sleep(REST).await;
            }
        }
    }
}

enum Connection {
    Tcp(TcpStream, SocketAddr),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<Connection> {
    match listener {
        Listener::Tcp(listener) => listener
            .accept()
            .await
            .map(|(stream, peer)| Connection::Tcp(stream, peer)),
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
                // It fails only for a client that has left, which shows right after.
                let _late = stream.set_nodelay(true).is_err();
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
        .serve_connection(TokioIo::new(Hurry::new(stream)), answer)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = watch.left() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = watch.closing() => timeout(FAREWELL, connection).await.unwrap_or(Ok(())),
            }
        }
        () = watch.closing() => {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// The TCP stream below a connection that [`serve`] upgraded, and what was read from it already.
/// `None` if the client left before the answer was out, or if it is no TCP stream.
pub async fn upgraded_stream(upgrade: OnUpgrade) -> Option<(TcpStream, Bytes)> {
    let upgraded = upgrade.await.inspect_err(|error| {
        tracing::debug!(%error, "the client left before the upgrade was done");
    });
    let parts = upgraded.ok()?.downcast::<TokioIo<Hurry<TcpStream>>>();
    let Parts { io, read_buf, .. } = parts.ok()?;
    Some((io.into_inner().into_inner(), read_buf))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::super::hurry::ANSWER;
    use super::*;
    use crate::drain::Drain;

    struct Large;

    impl Service for Large {
        async fn answer(&self, _request: Request<Incoming>, _peer: Peer) -> Response<Body> {
            Response::new(Full::from(vec![0; 1 << 20]))
        }
    }

    fn limits() -> Limits {
        Limits {
            connections: 1,
            header_timeout: Duration::from_secs(10),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_and_does_not_read_is_let_go() {
        let (mut client, ours) = duplex(1024);
        let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(9);
        client.write_all(&request).await.unwrap();
        let started = Instant::now();

        serve_stream(
            ours,
            Peer::Owner,
            Arc::new(Large),
            limits(),
            Watch::default(),
        )
        .await;

        assert_eq!(started.elapsed().as_secs(), ANSWER.as_secs());
        let mut rest = Vec::new();
        let read = client.read_to_end(&mut rest).await.unwrap();
        assert!(read < 1 << 20, "{read}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_half_a_head_does_not_hold_up_the_end() {
        let (mut client, ours) = duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let drain = Drain::default();
        let serving = serve_stream(ours, Peer::Owner, Arc::new(Large), limits(), drain.watch());
        let serving = tokio::spawn(serving);
        tokio::task::yield_now().await;
        let started = Instant::now();

        drain.run(Duration::ZERO, Duration::ZERO).await;
        serving.await.unwrap();

        assert_eq!(started.elapsed().as_secs(), FAREWELL.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_half_a_head_is_let_go() {
        let (mut client, ours) = duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let started = Instant::now();

        serve_stream(
            ours,
            Peer::Owner,
            Arc::new(Large),
            limits(),
            Watch::default(),
        )
        .await;

        assert_eq!(started.elapsed().as_secs(), 10);
    }
}
