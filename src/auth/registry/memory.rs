use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Answer, Registry};
use crate::auth::AuthError;
use crate::auth::session::{
    Beat, Cause, LEASE, Limits, LiveSession, Order, Pulse, Reached, SessionRecord,
};
use crate::live::Live;
use crate::model::{
    Browser, ConsoleKind, InstanceId, Rights, SecondViewer, SessionId, TokenId, UnixTime, block_of,
};

/// Sessions in this process's memory. Lost with it; proxies then register theirs again.
#[derive(Debug)]
pub(in crate::auth) struct Memory {
    held: Mutex<Held>,
    limits: Live<Limits>,
}

#[derive(Debug, Default)]
struct Held {
    sessions: HashMap<SessionId, Kept>,
    index: HashMap<Key, HashSet<SessionId>>,
}

#[derive(Debug)]
struct Kept {
    live: LiveSession,
    /// Believed to live until then.
    lease: UnixTime,
    /// Told to end, and no longer counted.
    order: Option<Cause>,
}

impl Kept {
    /// What its proxy has not done yet.
    fn due(&self) -> Option<Order> {
        let LiveSession { record, beat } = &self.live;
        let end = self.order.map(|cause| Order::end(record.id, cause));
        let differ = beat.rights != record.rights;
        end.or_else(|| differ.then(|| Order::rights(record.id, record.rights)))
    }
}

/// What sessions are counted and found by.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Key {
    Instance(InstanceId),
    Console(InstanceId, ConsoleKind),
    Caller(Arc<str>),
    Address(IpAddr),
    Token(TokenId),
}

impl Memory {
    pub(in crate::auth) fn new(limits: Live<Limits>) -> Self {
        Self {
            held: Mutex::default(),
            limits,
        }
    }

    /// Takes a session in, and tells which others have to go for it. Errors: `Occupied`, `Limit`.
    pub(in crate::auth) fn begin(
        &self,
        record: Arc<SessionRecord>,
        now: UnixTime,
    ) -> Result<Vec<Order>, AuthError> {
        let mut held = self.lock();
        let going = held.make_room(&record, &self.limits.now())?;
        let orders = going.into_iter();
        let orders = orders.filter_map(|id| held.order(id, Cause::TakenOver));
        let orders = orders.collect();
        held.insert(first(record), now);
        Ok(orders)
    }

    /// Takes sessions in that live already, whatever the limits say.
    pub(in crate::auth) fn restore(&self, sessions: Vec<LiveSession>, now: UnixTime) {
        let mut held = self.lock();
        for session in sessions {
            held.insert(session, now);
        }
    }

    /// Renews leases.
    fn beat(&self, beats: &[Beat], now: UnixTime) -> Pulse {
        let mut held = self.lock();
        let mut pulse = Pulse::default();
        for beat in beats {
            match held.sessions.get_mut(&beat.session) {
                None => pulse.unknown.push(beat.session),
                Some(kept) => {
                    kept.live.beat = *beat;
                    kept.lease = now.plus(LEASE);
                    pulse.orders.extend(kept.due());
                }
            }
        }
        pulse
    }

    /// Takes a session out.
    fn end(&self, id: SessionId) -> Option<Arc<SessionRecord>> {
        let kept = self.lock().remove(id)?;
        Some(kept.live.record)
    }

    pub(in crate::auth) fn find(&self, id: SessionId) -> Option<LiveSession> {
        let held = self.lock();
        held.sessions.get(&id).map(|kept| kept.live.clone())
    }

    /// The sessions of an instance, or all, the oldest first.
    pub(in crate::auth) fn list(&self, instance: Option<InstanceId>) -> Vec<LiveSession> {
        let held = self.lock();
        let kept = held.sessions.values().map(|kept| &kept.live);
        let wanted = kept.filter(|live| instance.is_none_or(|id| live.record.instance == id));
        let mut sessions: Vec<LiveSession> = wanted.cloned().collect();
        drop(held);
        sessions.sort_by_key(|live| (live.record.started, live.record.id));
        sessions
    }

    /// Has one session ended.
    pub(in crate::auth) fn order(&self, id: SessionId, cause: Cause) -> Option<Order> {
        self.lock().order(id, cause)
    }

    /// Has the viewer of a session have other rights, as far as they can be changed.
    pub(in crate::auth) fn set_rights(&self, id: SessionId, rights: Rights) -> Option<Order> {
        let mut held = self.lock();
        let record = Arc::make_mut(&mut held.sessions.get_mut(&id)?.live.record);
        record.rights = record.changeable(rights);
        Some(Order::rights(id, record.rights))
    }

    /// Has all sessions of a token ended.
    pub(in crate::auth) fn order_all(&self, token: TokenId, cause: Cause) -> Vec<Order> {
        let mut held = self.lock();
        let ids = held.index.get(&Key::Token(token)).cloned();
        let ids = ids.into_iter().flatten();
        ids.filter_map(|id| held.order(id, cause)).collect()
    }

    /// Whether a session of that token lives in that browser.
    pub(in crate::auth) fn lives(&self, token: TokenId, browser: Browser) -> bool {
        let held = self.lock();
        held.of_same_browser(token, browser).next().is_some()
    }

    /// Forgets sessions whose proxy has not been heard of for too long.
    fn sweep(&self, now: UnixTime) -> Vec<Arc<SessionRecord>> {
        let mut held = self.lock();
        let mut removed = Vec::new();
        while let Some(id) = held.first_dead(now) {
            removed.extend(held.remove(id).map(|kept| kept.live.record));
        }
        removed
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Which sessions have to go for `record` to come. A browser that comes back does not stand in
    /// its own way: its old session may not have noticed yet that it is over.
    fn make_room(
        &self,
        record: &SessionRecord,
        limits: &Limits,
    ) -> Result<HashSet<SessionId>, AuthError> {
        let own: HashSet<_> = self.of_same_browser(record.token, record.browser).collect();
        if record.console_type.kind() == ConsoleKind::Spice && !own.is_empty() {
            // One more channel of the same viewer.
            return Ok(HashSet::new());
        }
        let others = self.staying(&console(record), &own);
        let mut going = HashSet::new();
        match record.terms.second_viewer {
            SecondViewer::Allow => {}
            SecondViewer::Refuse if !others.is_empty() => return Err(AuthError::Occupied),
            SecondViewer::Refuse => going.extend(&own),
            SecondViewer::TakeOver => going.extend(own.iter().chain(&others)),
        }
        if record.terms.single_use {
            going.extend(&own);
        }
        let reached = self.reached(record, limits, &going);
        if reached.is_some() {
            going.extend(&own);
        }
        let reached = reached.and_then(|_| self.reached(record, limits, &going));
        reached.map_or(Ok(going), |limit| Err(AuthError::Limit(limit)))
    }

    fn reached(
        &self,
        record: &SessionRecord,
        limits: &Limits,
        going: &HashSet<SessionId>,
    ) -> Option<Reached> {
        let full = |key: &Key, limit: Option<usize>| {
            limit.is_some_and(|limit| self.staying(key, going).len() >= limit)
        };
        let all = self.sessions.len().saturating_sub(going.len());
        if limits.all.is_some_and(|limit| all >= limit) {
            return Some(Reached::All);
        }
        if full(&Key::Instance(record.instance), limits.instance) {
            return Some(Reached::Instance);
        }
        if full(&Key::Caller(record.caller.clone()), limits.caller) {
            return Some(Reached::Caller);
        }
        let address = record.viewer.map(|ip| Key::Address(block_of(ip)));
        let address = address.filter(|key| full(key, limits.address));
        address.map(|_| Reached::Address)
    }

    /// Those under `key` that are neither among `going` nor told to end already.
    fn staying(&self, key: &Key, going: &HashSet<SessionId>) -> HashSet<SessionId> {
        let ids = self.ids(key).filter(|id| !going.contains(id));
        ids.filter(|id| !self.is_ending(*id)).collect()
    }

    fn of_same_browser(&self, token: TokenId, browser: Browser) -> impl Iterator<Item = SessionId> {
        let ids = self.ids(&Key::Token(token));
        ids.filter(move |id| {
            let kept = self.sessions.get(id);
            kept.is_some_and(|kept| kept.live.record.browser == browser)
        })
    }

    fn first_dead(&self, now: UnixTime) -> Option<SessionId> {
        let mut sessions = self.sessions.iter();
        let dead = sessions.find(|(_, kept)| kept.lease <= now);
        dead.map(|(id, _)| *id)
    }

    fn is_ending(&self, id: SessionId) -> bool {
        let kept = self.sessions.get(&id);
        kept.is_some_and(|kept| kept.order.is_some())
    }

    fn ids<'a>(&'a self, key: &Key) -> impl Iterator<Item = SessionId> + use<'a> {
        self.index.get(key).into_iter().flatten().copied()
    }

    /// Notes that a session is to end; nothing for one that is not there.
    fn order(&mut self, id: SessionId, cause: Cause) -> Option<Order> {
        let kept = self.sessions.get_mut(&id)?;
        let cause = *kept.order.get_or_insert(cause);
        Some(Order::end(id, cause))
    }

    fn insert(&mut self, live: LiveSession, now: UnixTime) {
        let id = live.record.id;
        let order = self.remove(id).and_then(|before| before.order);
        for key in keys(&live.record) {
            let _new = self.index.entry(key).or_default().insert(id);
        }
        let kept = Kept {
            live,
            lease: now.plus(LEASE),
            order,
        };
        let _none = self.sessions.insert(id, kept);
    }

    fn remove(&mut self, id: SessionId) -> Option<Kept> {
        let kept = self.sessions.remove(&id)?;
        for key in keys(&kept.live.record) {
            if let Some(ids) = self.index.get_mut(&key) {
                let _present = ids.remove(&id);
                if ids.is_empty() {
                    let _empty = self.index.remove(&key);
                }
            }
        }
        Some(kept)
    }
}

/// What memory knows, it knows at once.
fn at_once<'a, T: Send + 'a>(answer: Result<T, AuthError>) -> Answer<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Registry for Memory {
    fn begin(&self, record: Arc<SessionRecord>, now: UnixTime) -> Answer<'_, Vec<Order>> {
        at_once(self.begin(record, now))
    }

    fn restore(&self, sessions: Vec<LiveSession>, now: UnixTime) -> Answer<'_, ()> {
        self.restore(sessions, now);
        at_once(Ok(()))
    }

    fn beat(&self, beats: Vec<Beat>, now: UnixTime) -> Answer<'_, Pulse> {
        at_once(Ok(self.beat(&beats, now)))
    }

    fn end(&self, id: SessionId) -> Answer<'_, Option<Arc<SessionRecord>>> {
        at_once(Ok(self.end(id)))
    }

    fn find(&self, id: SessionId) -> Answer<'_, Option<LiveSession>> {
        at_once(Ok(self.find(id)))
    }

    fn list(&self, instance: Option<InstanceId>) -> Answer<'_, Vec<LiveSession>> {
        at_once(Ok(self.list(instance)))
    }

    fn order(&self, id: SessionId, cause: Cause) -> Answer<'_, Option<Order>> {
        at_once(Ok(self.order(id, cause)))
    }

    fn set_rights(&self, id: SessionId, rights: Rights) -> Answer<'_, Option<Order>> {
        at_once(Ok(self.set_rights(id, rights)))
    }

    fn order_all(&self, token: TokenId, cause: Cause) -> Answer<'_, Vec<Order>> {
        at_once(Ok(self.order_all(token, cause)))
    }

    fn lives(&self, token: TokenId, browser: Browser) -> Answer<'_, bool> {
        at_once(Ok(self.lives(token, browser)))
    }

    fn sweep(&self, now: UnixTime) -> Answer<'_, Vec<Arc<SessionRecord>>> {
        at_once(Ok(self.sweep(now)))
    }
}

fn first(record: Arc<SessionRecord>) -> LiveSession {
    let beat = Beat::first(&record);
    LiveSession { record, beat }
}

fn console(record: &SessionRecord) -> Key {
    Key::Console(record.instance, record.console_type.kind())
}

fn keys(record: &SessionRecord) -> impl Iterator<Item = Key> {
    let always = [
        Key::Instance(record.instance),
        console(record),
        Key::Caller(record.caller.clone()),
        Key::Token(record.token),
    ];
    let address = record.viewer.map(|ip| Key::Address(block_of(ip)));
    always.into_iter().chain(address)
}
