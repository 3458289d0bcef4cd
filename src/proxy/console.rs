//! Journey B: from an upgrade request to a session or a refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE, USER_AGENT,
};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Proxy;
use super::close::Refusal;
use super::entry::Entered;
use super::request::{self, BadHandshake, Client as Viewer, Handshake};
use super::roster::Seat;
use super::session::{self, Session};
use crate::audit::{Event, What};
use crate::auth::{AuthError, SessionRecord};
use crate::http::{Body, Peer, Reject, upgraded_stream};
use crate::model::{Browser, CorrelationId, Grant, Ip, SessionId, TokenId, UnixTime};
use crate::workers::{Load, Workers};

/// Refused viewers that are being told so at one time; further ones get a bare 503.
const REFUSALS: usize = 512;

/// A console that is open, and whose.
struct Opened {
    entered: Entered,
    seat: Seat,
}

/// What is known of a console that was asked for, for those who ask why it did not open.
#[derive(Debug, Default)]
struct Wanted {
    token: Option<TokenId>,
    grant: Option<Grant>,
}

/// How many may be in which state.
#[derive(Debug)]
pub(super) struct Places {
    sessions: Arc<AtomicUsize>,
    refusals: Arc<Semaphore>,
}

/// Counts as a session as long as it lives.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

/// What a session takes up among others, given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    _place: Place,
    _load: Option<Load>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            sessions: Arc::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
        }
    }
}

impl Places {
    /// A place for a session, unless there are `most` already.
    fn take(&self, most: usize) -> Option<Place> {
        let one_more = |count: usize| (count < most).then_some(count + 1);
        let taken = self
            .sessions
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.ok().map(|_| Place(Arc::clone(&self.sessions)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _before = self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Proxy {
    /// Answers a request for which [`request::wants_websocket`] holds: with 101, followed by the
    /// console or by a close frame that says why not; or, where a load balancer should act, with
    /// 503.
    pub async fn open_console(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        peer: Peer,
    ) -> Response<Body> {
        let handshake = match request::handshake(request.version(), request.headers()) {
            Ok(handshake) => handshake,
            Err(bad) => return bad_handshake(bad).into_response(),
        };
        if self.watch.is_draining() {
            let why = "this gateway is going down; try again";
            return Reject::retry("draining", why, 5).into_response();
        }
        if self.guard.is_full() {
            let why = "this gateway has as much memory as limits.memory allows";
            return Reject::retry("too-busy", why, 10).into_response();
        }
        let settings = self.settings.now();
        let viewer = request::client(peer.ip(), request.headers(), &settings.trusted_proxies);
        if let Err(wait) = self.guard.may_try(viewer.ip) {
            let why = "too many tokens from your address were unknown; wait a moment";
            return Reject::too_many(why, wait.as_secs().saturating_add(1)).into_response();
        }
        let Some(place) = self.places.take(settings.max_sessions) else {
            let why = "this gateway holds as many sessions as proxy.max_sessions allows";
            return Reject::retry("too-busy", why, 10).into_response();
        };
        let correlation = CorrelationId::generate();
        let upgrade = hyper::upgrade::on(&mut request);
        let mut wanted = Wanted::default();
        match self.open(&request, &viewer, &mut wanted).await {
            Ok(opened) => self.begin(opened, upgrade, correlation, place),
            Err(refusal) => {
                drop(place);
                if matches!(refusal, Refusal::Auth(AuthError::Unknown)) {
                    self.guard.note_failure(viewer.ip);
                }
                self.tell_of_refusal(&refusal, wanted, &viewer, correlation);
                if !self.refuse(&refusal, upgrade, correlation) {
                    return Reject::retry("too-busy", "too many refusals", 10).into_response();
                }
            }
        }
        switching_protocols(&handshake)
    }

    /// Token, origin, target, a seat: in this order, the cheap and the secret first. Tells in
    /// `wanted` what the token stands for.
    async fn open(
        self: &Arc<Self>,
        request: &Request<Incoming>,
        viewer: &Viewer,
        wanted: &mut Wanted,
    ) -> Result<Opened, Refusal> {
        let headers = request.headers();
        let token = request::token(request.uri(), headers).ok_or(Refusal::NoToken)?;
        let id = wanted.token.insert(token.hash().id()).clone();
        let grant = wanted.grant.insert(self.auth.redeem(&token).await?);
        if !self.audit.accepts() {
            return Err(Refusal::Unwritten);
        }
        let origins = &self.settings.now().allowed_origins;
        request::check_origin(headers, viewer, &grant.base, origins)?;
        grant.target = self.compute.current(grant).await?;
        let grant = &*grant;
        let browser = browser(viewer, headers);
        let record = self.record(grant, id, viewer, browser);
        let seat = self.enter(record).await?;
        let started = Instant::now();
        let entered = self.reach(grant, &grant.target).await?;
        self.metrics
            .connect_seconds
            .0
            .observe(started.elapsed().as_secs_f64());
        Ok(Opened { entered, seat })
    }

    fn record(
        &self,
        grant: &Grant,
        token: TokenId,
        viewer: &Viewer,
        browser: Browser,
    ) -> SessionRecord {
        SessionRecord {
            id: SessionId::generate(),
            token,
            instance: grant.instance,
            instance_name: grant.instance_name.clone(),
            console_type: grant.console_type,
            project: grant.project.clone(),
            host: grant.target.to_string(),
            proxy: self.settings.now().name.clone(),
            caller: grant.caller.clone(),
            viewer: viewer.ip,
            browser,
            started: UnixTime::now(),
            rights: grant.rights,
            terms: grant.terms,
        }
    }

    /// Once its 101 has left, a session goes to a thread that relays, streams and all, unless it is
    /// there.
    fn begin(&self, opened: Opened, upgrade: OnUpgrade, id: CorrelationId, place: Place) {
        let Opened { entered, seat } = opened;
        let desk = self.workers.as_ref().and_then(Workers::desk);
        let (there, load) = desk.map(|desk| (desk.runtime, desk.load)).unzip();
        let session = Session {
            seat,
            correlation: id,
            held: Held {
                _place: place,
                _load: load,
            },
        };
        let watch = self.watch.clone();
        self.watch.spawn_session(async move {
            let Some(viewer) = upgraded_stream(upgrade).await else {
                return;
            };
            match there.flatten() {
                None => session::run(session, viewer, entered).await,
                Some(there) => {
                    let moved = session::move_and_run(session, viewer, entered);
                    watch.spawn_session_on(Some(&there), moved);
                }
            }
        });
    }

    /// A line in the log, and one in the audit log.
    fn tell_of_refusal(
        &self,
        refusal: &Refusal,
        wanted: Wanted,
        viewer: &Viewer,
        correlation: CorrelationId,
    ) {
        let Wanted { token, grant } = wanted;
        let instance = grant.as_ref().map(|grant| grant.instance.to_string());
        let name = grant.as_ref().map(|grant| grant.instance_name.as_str());
        let peer = viewer.ip.map(Ip).map(tracing::field::display);
        let code = refusal.code();
        tracing::info!(%correlation, code, peer, instance, name, reason = %refusal, "console refused");
        self.audit.note(|| {
            let event = Event::new(What::Refused).correlated(correlation);
            let event = match &grant {
                Some(grant) => event.of_grant(grant),
                None => event,
            };
            Event {
                address: viewer.ip,
                token,
                code: Some(code),
                why: Some(refusal.to_string()),
                ..event
            }
        });
    }

    /// Tells the viewer why not; `false` if too many are being told already.
    fn refuse(&self, refusal: &Refusal, upgrade: OnUpgrade, correlation: CorrelationId) -> bool {
        let code = refusal.code();
        self.metrics.count_close(code);
        if code == 4001 {
            self.metrics.tokens_refused.inc();
        }
        let reason = refusal.reason(correlation);
        let Ok(place) = Arc::clone(&self.places.refusals).try_acquire_owned() else {
            return false;
        };
        self.watch.spawn_session(async move {
            session::refuse(upgrade, code, &reason).await;
            drop(place);
        });
        true
    }
}

fn browser(viewer: &Viewer, headers: &HeaderMap) -> Browser {
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
    Browser::new(viewer.ip, agent.unwrap_or_default())
}

fn bad_handshake(bad: BadHandshake) -> Reject {
    let why = bad.to_string();
    if bad == BadHandshake::Version {
        return Reject::new(StatusCode::UPGRADE_REQUIRED, "bad-handshake", why)
            .with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    Reject::new(StatusCode::BAD_REQUEST, "bad-handshake", why)
}

fn switching_protocols(handshake: &Handshake) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    let _new = headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let _new = headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&handshake.accept) {
        let _new = headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if handshake.binary {
        let _new = headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("binary"));
    }
    response
}
