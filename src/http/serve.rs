use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;

use super::connection::{Attendant, serve_http1, serve_tcp};
use super::door::{Door, Limits, Peer};
use super::{Accepted, Body, Listener};
use crate::drain::Watch;
use crate::workers::{Load, Workers};

/// What answers behind a door.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// Whether answering is so light that a thread which relays may do it.
    fn is_light(&self, _request: &Request<Incoming>) -> bool {
        false
    }
}

/// Connections accepted one after the other before all else on the thread has its turn.
const BATCH: u32 = 16;

/// How long accepting rests when the process has run out of descriptors.
const REST: Duration = Duration::from_millis(50);

/// Serves a door in clear text that turns nobody away, until the process closes.
pub async fn serve<S: Service>(listener: Listener, service: Arc<S>, limits: Limits, watch: Watch) {
    serve_door(listener, service, Door::plain(limits), watch).await;
}

/// Serves a door until the process closes, or leaves it to another one. A request under way then has
/// 3 s to be answered.
pub async fn serve_door<S: Service>(listener: Listener, service: Arc<S>, door: Door, watch: Watch) {
    let home = Handle::current();
    let there = door.workers.as_ref().and_then(Workers::first);
    let Some(there) = there else {
        return attend(listener, service, door, watch, home).await;
    };
    let attending = there.spawn(async move {
        match listener.adopt() {
            Ok(listener) => attend(listener, service, door, watch, home).await,
            Err(error) => tracing::error!(%error, "a door cannot be watched"),
        }
    });
    let _ended = attending.await;
}

/// Accepts connections. Those that no thread which relays has room for are served at `home`.
async fn attend<S: Service>(
    listener: Listener,
    service: Arc<S>,
    door: Door,
    watch: Watch,
    home: Handle,
) {
    let attending = Attending {
        places: Arc::new(Semaphore::new(door.limits.connections)),
        service,
        door,
        watch,
        home,
    };
    while attending.watch.may_accept().await {
        if attending.accept(&listener).await == Next::Close {
            return;
        }
    }
    listener.leave();
}

/// Somebody at a door.
struct Attending<S> {
    places: Arc<Semaphore>,
    service: Arc<S>,
    door: Door,
    watch: Watch,
    home: Handle,
}

/// What is to become of a door at which nobody is let in for now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    /// It is held, or left.
    Wait,
    Close,
}

impl<S: Service> Attending<S> {
    /// Lets in who comes, as long as the door is open.
    async fn accept(&self, listener: &Listener) -> Next {
        let (mut held, mut closing) = (pin!(self.watch.held()), pin!(self.watch.closing()));
        let (mut failing, mut rush) = (false, 0_u32);
        loop {
            rush = rush.wrapping_add(1);
            if rush.is_multiple_of(BATCH) {
                yield_now().await;
            }
            let next = async {
                let place = Arc::clone(&self.places).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                biased;
                next = next => next,
                () = &mut held => return Next::Wait,
                () = &mut closing => return Next::Close,
            };
            match accepted {
                Ok(accepted) => {
                    failing = false;
                    self.begin(accepted, place.ok());
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

    fn begin(&self, accepted: Accepted, place: Option<OwnedSemaphorePermit>) {
        let spot = Spot::of(self.door.workers.as_ref(), &self.home);
        let there = spot.there.clone();
        let (service, door, watch) = (&self.service, self.door.clone(), self.watch.clone());
        let serving = serve_one(accepted, Arc::clone(service), door, watch, spot);
        self.watch.spawn_connection_on(there.as_ref(), async move {
            serving.await;
            drop(place);
        });
    }
}

/// Where a connection is served.
struct Spot {
    /// Nowhere, if where it was accepted.
    there: Option<Handle>,
    /// Where what is heavy is answered; nowhere, if where it is served.
    home: Option<Handle>,
    _load: Option<Load>,
}

impl Spot {
    fn of(workers: Option<&Workers>, home: &Handle) -> Self {
        let desk = workers.and_then(Workers::lobby);
        let is_full = workers.is_some() && desk.is_none();
        let own = desk.is_some().then(|| home.clone());
        let (there, load) = desk.map(|desk| (desk.runtime, desk.load)).unzip();
        Self {
            there: there.flatten().or_else(|| is_full.then(|| home.clone())),
            home: own,
            _load: load,
        }
    }
}

/// Serves a connection to its end.
async fn serve_one<S: Service>(
    accepted: Accepted,
    service: Arc<S>,
    door: Door,
    watch: Watch,
    spot: Spot,
) {
    let mut attendant = Attendant {
        service,
        peer: Peer::Owner,
        secure: false,
        hsts: None,
        home: spot.home.clone(),
    };
    match accepted {
        Accepted::Tcp(stream, peer) => {
            attendant.peer = Peer::Tcp(peer);
            let stream = match spot.there {
                None => Ok(stream),
                // Watched from there from now on.
                Some(_) => stream.into_std().and_then(TcpStream::from_std),
            };
            match stream {
                Ok(stream) => serve_tcp(stream, attendant, door, watch).await,
                Err(error) => tracing::warn!(%peer, %error, "a connection cannot be watched"),
            }
        }
        Accepted::Unix(stream) => serve_http1(stream, attendant, door.limits, watch).await,
    }
}
