use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

use super::tunnel::{Tunnel, Wire};
use super::wire::{self, Body, LARGEST_ANSWER, LARGEST_REQUEST};
use super::{Keys, NAMES};
use crate::model::{Address, Host};
use crate::resolve::{dial, resolve};
use crate::tls::{Speech, roles_of};

/// How often a peer that says nothing is asked whether it lives, and how long it may take to say
/// so: calls to a machine that has gone without a word fail after both.
const PING: Duration = Duration::from_secs(3);

/// How long a connection is used: a renewed certificate should not wait for a restart.
const AGE: Duration = Duration::from_mins(10);

/// The way to one peer: a connection that all calls share, made when it is needed.
pub(super) struct Link {
    address: Address,
    keys: Arc<Keys>,
    patience: Duration,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    kept: Option<Kept>,
    /// When the last attempt failed, so that all who waited for it know.
    failed: Option<Instant>,
    /// Whether the log was told that nobody is there.
    told: bool,
}

#[derive(Clone)]
struct Kept {
    sender: SendRequest<Body>,
    since: Instant,
    /// What the peer may be, by its certificate.
    roles: Arc<[&'static str]>,
}

/// Why a call did not come back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// It never left, or was not looked at.
    Unsent,
    /// It may have been acted upon.
    Broken,
    /// Whoever is there is not who was called.
    Stranger,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.address).finish()
    }
}

impl Link {
    pub(super) fn new(address: Address, keys: Arc<Keys>, patience: Duration) -> Self {
        Self {
            address,
            keys,
            patience,
            slot: Mutex::default(),
        }
    }

    /// Sends a call to `role` and waits for the whole answer. One that could not leave because a
    /// kept connection was dead, or that a peer which was going did not look at, is sent once more,
    /// on a new one. Cancel-safe: the call is reset.
    pub(super) async fn call(&self, role: &str, body: Bytes) -> Result<Response<Bytes>, Fault> {
        let used = self.connection(role).await?;
        let was_kept = used.since.elapsed() > Duration::ZERO;
        match self.send(used, self.request(role, body.clone())?).await {
            Err(Fault::Unsent) if was_kept => {
                let fresh = self.connection(role).await?;
                self.send(fresh, self.request(role, body)?).await
            }
            answered => answered,
        }
    }

    fn request(&self, role: &str, body: Bytes) -> Result<Request<Body>, Fault> {
        let mut request = wire::request(&self.base(), role, body).ok_or(Fault::Unsent)?;
        if !self.is_local() {
            self.keys.sign(request.headers_mut());
        }
        Ok(request)
    }

    async fn send(&self, mut used: Kept, request: Request<Body>) -> Result<Response<Bytes>, Fault> {
        match used.sender.try_send_request(request).await {
            Ok(response) => collect(response).await,
            Err(mut error) => {
                let (peer, why) = (&self.address, chain(error.error()));
                tracing::debug!(%peer, why, "a call did not get through");
                self.forget(used.since).await;
                let unsent = error.take_message().is_some() || was_unseen(error.error());
                Err(if unsent { Fault::Unsent } else { Fault::Broken })
            }
        }
    }

    /// The connection that was kept, or a new one. Whoever waits for somebody else's attempt gets
    /// its outcome, so that a hundred callers of a dead peer wait no longer than one.
    async fn connection(&self, role: &str) -> Result<Kept, Fault> {
        let asked = Instant::now();
        let mut slot = self.slot.lock().await;
        let kept = slot.kept.as_ref().filter(|kept| kept.is_usable());
        let connection = match kept {
            Some(kept) => kept.clone(),
            None if slot.failed.is_some_and(|failed| failed >= asked) => return Err(Fault::Unsent),
            None => self.open(&mut slot).await?,
        };
        if connection.roles.contains(&role) {
            return Ok(connection);
        }
        let peer = &self.address;
        tracing::warn!(%peer, role, "the certificate of whoever is there is another role's");
        Err(Fault::Stranger)
    }

    async fn open(&self, slot: &mut MutexGuard<'_, Slot>) -> Result<Kept, Fault> {
        let attempt = timeout(self.patience, self.connect()).await;
        let late = || {
            let patience = humantime::format_duration(self.patience);
            Err(format!("no connection within {patience}"))
        };
        match attempt.unwrap_or_else(|_| late()) {
            Ok(fresh) => {
                if std::mem::take(&mut slot.told) {
                    tracing::info!(peer = %self.address, "roles there can be reached again");
                }
                slot.kept = Some(fresh.clone());
                Ok(fresh)
            }
            Err(why) => {
                if !std::mem::replace(&mut slot.told, true) {
                    tracing::warn!(peer = %self.address, why, "roles there cannot be reached");
                }
                (slot.kept, slot.failed) = (None, Some(Instant::now()));
                Err(Fault::Unsent)
            }
        }
    }

    async fn connect(&self) -> Result<Kept, String> {
        let (stream, roles) = self.dial(Speech::Calls).await?;
        let handshake = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| chain(&error))?;
        let peer = self.address.clone();
        // It ends when nobody holds a sender any more, and with its peer.
        let _driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, why = chain(&error), "a connection between roles ended early");
            }
        });
        Ok(Kept {
            sender,
            since: Instant::now(),
            roles: roles.into(),
        })
    }

    /// Asks for a stream of that name, on a connection of its own. The stream, or an answer without
    /// one. Cancel-safe: the connection is closed.
    pub(super) async fn open_stream(
        self: &Arc<Self>,
        role: &'static str,
        name: &str,
        body: Bytes,
    ) -> Result<(Response<Bytes>, Option<Tunnel>), Fault> {
        let host = self.address.to_string();
        let mut request = wire::stream_request(name, &host, body).ok_or(Fault::Unsent)?;
        if !self.is_local() {
            self.keys.sign(request.headers_mut());
        }
        let note = |why: String| {
            tracing::debug!(peer = %self.address, why, "no stream could be asked for");
            Fault::Unsent
        };
        let dialled = timeout(self.patience, self.dial(Speech::Stream)).await;
        let (wire, roles) = dialled
            .map_err(|_| note("no connection in time".to_owned()))?
            .map_err(note)?;
        if !roles.contains(&role) {
            return Err(Fault::Stranger);
        }
        self.upgrade(wire, request, role).await.map_err(|error| {
            note(chain(&error));
            Fault::Broken
        })
    }

    async fn upgrade(
        self: &Arc<Self>,
        wire: Wire,
        request: Request<Body>,
        role: &'static str,
    ) -> Result<(Response<Bytes>, Option<Tunnel>), hyper::Error> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
        // Hands the stream over once it is upgraded, and ends with it.
        let _driver = tokio::spawn(async move {
            let _ended = connection.with_upgrades().await.is_ok();
        });
        let mut response = sender.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_REQUEST).collect().await;
            let body = body.map(Collected::to_bytes).unwrap_or_default();
            return Ok((Response::from_parts(head, body), None));
        }
        let upgraded = hyper::upgrade::on(&mut response).await?;
        let (head, _body) = response.into_parts();
        let head = Response::from_parts(head, Bytes::new());
        let tunnel = upgraded
            .downcast::<TokioIo<Wire>>()
            .ok()
            .map(|parts| Tunnel::new(parts.io.into_inner(), parts.read_buf, self, role));
        Ok((head, tunnel))
    }

    async fn dial(&self, speech: Speech) -> Result<(Wire, Vec<&'static str>), String> {
        let all = NAMES.to_vec();
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                Ok((Wire::Unix(stream.map_err(|why| why.to_string())?), all))
            }
            Address::Tcp(host, port) => {
                let ips = resolve(host).await.map_err(|why| why.to_string())?;
                let plain = dial(&ips, *port).await.map_err(|why| why.to_string())?;
                let Keys::Mutual(mutual) = &*self.keys else {
                    return Ok((Wire::Tcp(plain), all));
                };
                let stream = mutual.connect(server_name(host)?, plain, speech).await?;
                let roles = roles_of(stream.get_ref().1.peer_certificates(), NAMES);
                Ok((Wire::Tls(Box::new(stream)), roles))
            }
            Address::Hypervisor => Err("a hypervisor runs no role".to_owned()),
        }
    }

    /// Lets go of a connection that has failed; a later one stays.
    async fn forget(&self, since: Instant) {
        let mut slot = self.slot.lock().await;
        if slot.kept.as_ref().is_some_and(|kept| kept.since == since) {
            slot.kept = None;
        }
    }

    fn is_local(&self) -> bool {
        !matches!(self.address, Address::Tcp(..))
    }

    /// What URLs there begin with.
    fn base(&self) -> String {
        match (&self.address, &*self.keys) {
            (Address::Tcp(..), Keys::Mutual(_)) => format!("https://{}", self.address),
            (Address::Tcp(..), _) => format!("http://{}", self.address),
            _ => "http://localhost".to_owned(),
        }
    }
}

impl Kept {
    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.since.elapsed() < AGE
    }
}

/// Whether the peer was going, and has said that it did not look at the call (RFC 9113 section 6.8).
fn was_unseen(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(<dyn Error>::downcast_ref);
    cause.is_some_and(|cause: &h2::Error| cause.is_go_away() && cause.is_remote())
}

fn server_name(host: &Host) -> Result<ServerName<'static>, String> {
    match host {
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        Host::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|_| "no name for a certificate".to_owned())
        }
    }
}

async fn collect(response: Response<Incoming>) -> Result<Response<Bytes>, Fault> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER).collect().await;
    let body = body.map_err(|error| {
        tracing::debug!(why = chain(&*error), "an answer broke off");
        Fault::Broken
    });
    Ok(Response::from_parts(head, body?.to_bytes()))
}

/// An error with its causes; hyper's own say little.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
