use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::connection::{Attendant, serve_http1, serve_tcp};
use super::door::{Door, Limits, Peer};
use super::{Body, Listener};
use crate::drain::Watch;

/// What answers behind a door.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// How long accepting rests when the process has run out of descriptors.
const REST: Duration = Duration::from_millis(50);

/// Serves a door in clear text that turns nobody away, until the process closes.
pub async fn serve<S: Service>(listener: Listener, service: Arc<S>, limits: Limits, watch: Watch) {
    serve_door(listener, service, Door::plain(limits), watch).await;
}

/// Serves a door until the process closes, or leaves it to another one. A request under way then has
/// 3 s to be answered.
pub async fn serve_door<S: Service>(listener: Listener, service: Arc<S>, door: Door, watch: Watch) {
    let places = Arc::new(Semaphore::new(door.limits.connections));
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
                let task = connection.serve(Arc::clone(&service), door.clone(), watch.clone());
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
    async fn serve<S: Service>(self, service: Arc<S>, door: Door, watch: Watch) {
        match self {
            Self::Tcp(stream, peer) => {
                serve_tcp(stream, Peer::Tcp(peer), service, door, watch).await;
            }
            Self::Unix(stream) => {
                let attendant = Attendant {
                    service,
                    peer: Peer::Owner,
                    secure: false,
                    hsts: None,
                };
                serve_http1(stream, attendant, door.limits, watch).await;
            }
        }
    }
}
