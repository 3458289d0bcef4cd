//! The sessions that this proxy holds: how long each may go on, and who else may end it.
//!
//! A session is registered with auth before it opens ([`Proxy::enter`]) and taken out when its
//! [`Seat`] is dropped. Meanwhile four tasks watch over all of them: one looks at the clock, one
//! renews leases, one hears what auth wants ended, one what compute says has stopped. An auth or a
//! compute that cannot be asked ends nothing.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::close::{self, Verdict};
use super::relay::{Ending, Meter};
use super::rights::{InForce, can_change};
use super::{Proxy, input};
use crate::auth::{AuthError, BEAT, Beat, LiveSession, Order, Pulse, SessionRecord, Wish};
use crate::compute::ComputeError;
use crate::model::{
    ConsoleKind, InstanceId, InstanceRef, PowerState, Rights, SessionId, TokenId, UnixTime, Way,
};

/// How often the clocks of sessions are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The pause before auth or compute is asked again after it could not be.
const PAUSE: Duration = Duration::from_millis(500);

/// How long the last word about a session may take; its lease ends it without.
const FAREWELL: Duration = Duration::from_secs(2);

/// Sessions in one call, so that no body grows beyond what is read.
const PORTION: usize = 500;

/// The live sessions.
#[derive(Debug, Default)]
pub(super) struct Roster {
    live: DashMap<SessionId, Arc<Live>>,
    /// Rung to renew all leases now.
    beat_now: Notify,
}

/// One live session, as all may look at it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) record: Arc<SessionRecord>,
    pub(super) meter: Arc<Meter>,
    /// How its console is reached, once it is.
    way: OnceLock<Way>,
    /// What the viewer may do by now.
    pub(super) rights: Arc<InForce>,
    gavel: Mutex<Gavel>,
}

/// What ends a session, and the session that waits for it: thousands of quiet ones are held, so it
/// is as small as can be.
#[derive(Debug, Default)]
struct Gavel {
    verdict: Option<Verdict>,
    session: Option<Waker>,
}

/// A session's place on the roster and in auth's registry; both end with it.
#[derive(Debug)]
pub(super) struct Seat {
    proxy: Arc<Proxy>,
    live: Arc<Live>,
    opened: bool,
}

impl Roster {
    /// What the viewer may do who has a session here with this token.
    pub(super) fn rights_of(&self, token: &TokenId) -> Option<Rights> {
        let mut live = self.live.iter();
        let found = live.find(|live| live.record.token == *token)?;
        Some(found.rights.get())
    }

    /// Whether a session that is idle by itself is so altogether: SPICE has a session for each
    /// channel, and the viewer types into one of them.
    fn is_idle(&self, record: &SessionRecord) -> bool {
        let is_channel = |live: &Live| {
            let (its, browser) = (&live.record.token, &live.record.browser);
            *its == record.token && *browser == record.browser
        };
        let mut live = self.live.iter();
        record.console_type.kind() != ConsoleKind::Spice
            || live.all(|live| !is_channel(&live) || live.is_idle())
    }
}

impl Live {
    fn new(record: Arc<SessionRecord>) -> Self {
        let is_input = input::of(record.console_type.kind());
        Self {
            rights: Arc::new(InForce::new(record.rights)),
            record,
            meter: Arc::new(Meter::new(is_input)),
            way: OnceLock::new(),
            gavel: Mutex::default(),
        }
    }

    /// Ends the session; the first verdict stands.
    fn end(&self, verdict: Verdict) {
        let mut gavel = self.gavel();
        if gavel.verdict.is_none() {
            gavel.verdict = Some(verdict);
            if let Some(session) = gavel.session.take() {
                session.wake();
            }
        }
    }

    fn poll_verdict(&self, cx: &Context<'_>) -> Poll<Verdict> {
        let mut gavel = self.gavel();
        if let Some(verdict) = gavel.verdict {
            return Poll::Ready(verdict);
        }
        gavel.session = Some(cx.waker().clone());
        Poll::Pending
    }

    fn gavel(&self) -> MutexGuard<'_, Gavel> {
        self.gavel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the clock has to be looked at for it.
    fn is_timed(&self) -> bool {
        let terms = &self.record.terms;
        terms.idle_timeout.is_some() || terms.max_session.is_some()
    }

    /// When the viewer last did something.
    fn last_input(&self) -> UnixTime {
        let meter = &self.meter;
        let after = meter.last_input().saturating_duration_since(meter.began());
        self.record.started.plus(after)
    }

    fn is_idle(&self) -> bool {
        let limit = self.record.terms.idle_timeout;
        limit.is_some_and(|limit| self.meter.last_input().elapsed() >= limit)
    }

    fn is_over(&self) -> bool {
        let limit = self.record.terms.max_session;
        limit.is_some_and(|limit| self.meter.began().elapsed() >= limit)
    }

    fn beat(&self) -> Beat {
        Beat {
            session: self.record.id,
            up: self.meter.up(),
            down: self.meter.down(),
            last_input: self.last_input(),
            way: self.way.get().copied(),
            rights: self.rights.get(),
        }
    }

    /// An auth that has forgotten all learns of the rights in force, not of those at the start.
    fn snapshot(&self) -> LiveSession {
        let mut record = Arc::clone(&self.record);
        let rights = self.rights.get();
        if record.rights != rights {
            Arc::make_mut(&mut record).rights = rights;
        }
        let beat = self.beat();
        LiveSession { record, beat }
    }
}

impl Seat {
    /// The session that sits here.
    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The session has begun.
    pub(super) fn open(&mut self, way: Way) {
        self.opened = true;
        let _first = self.live.way.set(way);
        // It may have come too late to be told with the others.
        if self.proxy.watch.is_closing() {
            self.live.end(Verdict::Closing);
        }
    }

    /// Whose session it is.
    pub(super) fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// Waits until somebody ends the session. One may wait at a time.
    pub(super) fn ended(&self) -> Ended {
        Ended(Arc::clone(&self.live))
    }
}

/// Waits for a session's end. Cancel-safe.
#[derive(Debug)]
pub(super) struct Ended(Arc<Live>);

impl Future for Ended {
    type Output = Ending;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        self.0.poll_verdict(cx).map(close::ending)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let id = self.live.record.id;
        let _seat = self.proxy.roster.live.remove(&id);
        let (auth, opened) = (self.proxy.auth.clone(), self.opened);
        let mut telling = Box::pin(async move {
            let told = timeout(FAREWELL, auth.end(id, opened)).await;
            if !matches!(told, Ok(Ok(()))) {
                tracing::debug!(session = %id, "auth could not be told of a session's end");
            }
        });
        // An auth in this process knows at once; else a task polls again.
        let mut nobody = Context::from_waker(Waker::noop());
        if telling.as_mut().poll(&mut nobody).is_pending() {
            self.proxy.watch.spawn_service(telling);
        }
    }
}

impl Proxy {
    /// Registers a session. Errors: as [`Client::begin`](crate::rpc::Client::begin).
    pub(super) async fn enter(self: &Arc<Self>, record: SessionRecord) -> Result<Seat, AuthError> {
        // One copy for auth, too, if it is in this process.
        let record = Arc::new(record);
        let live = Arc::new(Live::new(Arc::clone(&record)));
        // Before auth knows it, so that an order that comes at once finds it.
        let _none = self.roster.live.insert(record.id, Arc::clone(&live));
        let seat = Seat {
            proxy: Arc::clone(self),
            live,
            opened: false,
        };
        self.auth.begin(record).await?;
        Ok(seat)
    }

    /// Starts what watches over the sessions. Ends when the process closes.
    pub fn start(self: &Arc<Self>) {
        self.keep(|proxy| async move { proxy.keep_time().await });
        self.keep(|proxy| async move { proxy.keep_leases().await });
        self.keep(|proxy| async move { proxy.hear_orders().await });
        self.keep(|proxy| async move { proxy.hear_of_ends().await });
        self.watch
            .spawn_service(Arc::clone(self).end_all_at_closing());
    }

    async fn end_all_at_closing(self: Arc<Self>) {
        self.watch.closing().await;
        for live in &self.roster.live {
            live.end(Verdict::Closing);
        }
    }

    fn keep<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        task: impl FnOnce(Arc<Self>) -> F,
    ) {
        let task = task(Arc::clone(self));
        let watch = self.watch.clone();
        self.watch.spawn_service(async move {
            tokio::select! {
                () = task => {}
                () = watch.closing() => {}
            }
        });
    }

    async fn keep_time(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let _now = ticks.tick().await;
            let timed = self.roster.live.iter().filter(|live| live.is_timed());
            let timed: Vec<Arc<Live>> = timed.map(|live| Arc::clone(&live)).collect();
            for live in timed {
                if live.is_over() {
                    live.end(Verdict::Longest);
                } else if live.is_idle() && self.roster.is_idle(&live.record) {
                    live.end(Verdict::Idle);
                }
            }
        }
    }

    async fn keep_leases(&self) {
        loop {
            let _rung = timeout(BEAT, self.roster.beat_now.notified()).await.is_ok();
            let beats: Vec<Beat> = self.roster.live.iter().map(|live| live.beat()).collect();
            for portion in beats.chunks(PORTION) {
                match self.auth.beat(portion.to_vec()).await {
                    Ok(pulse) => self.feel(pulse).await,
                    Err(error) => tracing::debug!(%error, "leases could not be renewed"),
                }
            }
        }
    }

    /// An auth that was started anew learns of what lives; what was ordered meanwhile is done.
    async fn feel(&self, pulse: Pulse) {
        pulse.orders.iter().for_each(|order| self.obey(*order));
        let unknown = pulse.unknown.iter();
        let unknown = unknown.filter_map(|id| Some(self.roster.live.get(id)?.snapshot()));
        let unknown: Vec<LiveSession> = unknown.collect();
        if unknown.is_empty() {
            return;
        }
        if let Err(error) = self.auth.restore(unknown).await {
            tracing::debug!(%error, "sessions could not be registered again");
        }
    }

    async fn hear_orders(&self) {
        let mut cursor = None;
        loop {
            match self.auth.orders(cursor).await {
                Ok(news) => {
                    news.items.iter().for_each(|order| self.obey(*order));
                    cursor = Some(news.cursor);
                    if news.missed {
                        self.roster.beat_now.notify_one();
                    }
                }
                Err(_unreachable) => {
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn obey(&self, order: Order) {
        let Some(live) = self.roster.live.get(&order.session) else {
            return;
        };
        match order.wish {
            Wish::End(cause) => live.end(Verdict::Ordered(cause)),
            Wish::Rights(rights) if can_change(live.record.console_type.kind()) => {
                live.rights.set(live.record.changeable(rights));
                tracing::info!(session = %order.session, %rights, "rights changed");
                // Auth hears at once what is in force.
                self.roster.beat_now.notify_one();
            }
            Wish::Rights(_) => {}
        }
    }

    async fn hear_of_ends(self: Arc<Self>) {
        let mut cursor = None;
        loop {
            match self.compute.changes(cursor).await {
                Ok(news) => {
                    cursor = Some(news.cursor);
                    for ended in news.items.into_iter().filter(|change| change.ended) {
                        let instance = ended.instance;
                        self.keep(|proxy| async move { proxy.end_all_of(instance).await });
                    }
                }
                Err(_unreachable) => sleep(PAUSE).await,
            }
        }
    }

    /// Ends the sessions of an instance that does not run any more. Looks first: it may have moved
    /// to another host, or may be back already.
    async fn end_all_of(&self, instance: InstanceId) {
        let is_its = |live: &Live| live.record.instance == instance;
        if !self.roster.live.iter().any(|live| is_its(&live)) {
            return;
        }
        let ended = match self.compute.instance(InstanceRef::Id(instance)).await {
            Ok(instance) => instance.state == PowerState::Off,
            Err(error) => matches!(error, ComputeError::NoSuchInstance { .. }),
        };
        if ended {
            let live = self.roster.live.iter();
            live.filter(|live| is_its(live))
                .for_each(|live| live.end(Verdict::Stopped));
        }
    }
}
