use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::link::{Fault, Link};
use super::{Client, Keys, Role, Streams, Unreachable, Way, wire};
use crate::model::Address;

/// Calls to other processes that one role may have under way; one more finds it busy.
const CALLS: usize = 1024;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// A whole call. Longer than [`HOLD`](super::HOLD).
    pub call: Duration,
}

/// The ways to other processes. Roles at the same address share a connection.
#[derive(Debug)]
pub struct Links {
    keys: Arc<Keys>,
    timeouts: Timeouts,
    /// Gone with the last client that uses it.
    known: Vec<(Address, Weak<Link>)>,
}

/// The far way to a role: to one of several processes that answer alike.
pub struct Far<R> {
    inner: Arc<Inner>,
    role: PhantomData<fn() -> R>,
}

struct Inner {
    links: Vec<Arc<Link>>,
    /// Which of them answered last: it is asked first.
    first: AtomicUsize,
    places: Semaphore,
    limit: Duration,
}

impl Links {
    /// Nothing is connected before the first call.
    pub fn new(keys: Arc<Keys>, timeouts: Timeouts) -> Self {
        Self {
            keys,
            timeouts,
            known: Vec::new(),
        }
    }

    /// A client of the role at these addresses: of one that can be reached, and as long as that
    /// one can.
    pub fn client<R: Role>(&mut self, addresses: &[Address]) -> Client<R> {
        let links = addresses.iter().map(|address| self.link(address));
        Client::Far(Far {
            inner: Arc::new(Inner {
                links: links.collect(),
                first: AtomicUsize::new(0),
                places: Semaphore::new(CALLS),
                limit: self.timeouts.call,
            }),
            role: PhantomData,
        })
    }

    /// The way to the streams that are handed out there.
    pub fn way<S: Streams>(&mut self, address: &Address) -> Way<S> {
        Way::new(self.link(address), self.timeouts.call)
    }

    fn link(&mut self, address: &Address) -> Arc<Link> {
        self.known.retain(|(_, link)| link.strong_count() > 0);
        let known = self.known.iter().find(|(known, _)| known == address);
        if let Some(link) = known.and_then(|(_, link)| link.upgrade()) {
            return link;
        }
        let (keys, patience) = (Arc::clone(&self.keys), self.timeouts.connect);
        let link = Arc::new(Link::new(address.clone(), keys, patience));
        self.known.push((address.clone(), Arc::downgrade(&link)));
        link
    }
}

impl<R: Role> Far<R> {
    pub(super) async fn call(&self, request: R::Request) -> Result<R::Reply, R::Error> {
        let Ok(_place) = self.inner.places.try_acquire() else {
            return Err(Unreachable::Busy(R::NAME.to_owned()).into());
        };
        let Ok(body) = wire::write(&request) else {
            return Err(Unreachable::Gone(R::NAME.to_owned()).into());
        };
        wire::open::<R>(&self.exchange(body).await?)
    }

    /// Whether there is anybody. Nothing is asked of the role itself.
    pub(super) async fn reach(&self) -> Result<(), Unreachable> {
        self.exchange(Bytes::new()).await.map(drop)
    }

    async fn exchange(&self, body: Bytes) -> Result<Response<Bytes>, Unreachable> {
        let role = R::NAME.to_owned();
        match timeout(self.inner.limit, self.inner.try_all(R::NAME, body)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(Fault::Stranger)) => Err(Unreachable::Refused(role)),
            Ok(Err(Fault::Unsent | Fault::Broken)) => Err(Unreachable::Gone(role)),
            Err(_) => Err(Unreachable::Deadline(role)),
        }
    }
}

impl Inner {
    /// Goes on to the next only where nothing was sent: a call is made once.
    async fn try_all(&self, role: &str, body: Bytes) -> Result<Response<Bytes>, Fault> {
        let first = self.first.load(Ordering::Relaxed);
        let places = (0..self.links.len()).cycle().skip(first);
        let mut last = Fault::Unsent;
        for place in places.take(self.links.len()) {
            let Some(link) = self.links.get(place) else {
                continue;
            };
            match link.call(role, body.clone()).await {
                Ok(response) => {
                    self.first.store(place, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(Fault::Broken) => return Err(Fault::Broken),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }
}

impl<R> Clone for Far<R> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            role: PhantomData,
        }
    }
}

impl<R: Role> fmt::Debug for Far<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Far")
            .field(&R::NAME)
            .field(&self.inner.links)
            .finish()
    }
}
