//! The sessions, and what they are counted and found by.
//!
//! Each has a number, and all tables hold numbers. What every beginning asks is counted, so that it
//! costs the same beside thousands under one key; who they are is looked up only where some of them
//! have to go.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::session::{Beat, Cause, LEASE, LiveSession, Order, SessionRecord};
use crate::model::{
    Browser, ConsoleKind, InstanceId, RandomKeys, Rights, SessionId, TokenId, UnixTime, Way,
    block_of,
};

/// Where a session is kept; another's place once it has ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Number(u32);

impl Number {
    const FIRST: Self = Self(0);
    const LAST: Self = Self(u32::MAX);

    fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Held {
    places: Vec<Option<Kept>>,
    free: Vec<Number>,
    /// Proxies of ours make the ids.
    numbers: HashMap<SessionId, Number, RandomKeys>,
    viewers: BTreeSet<(TokenId, Browser, Number)>,
    consoles: BTreeSet<(InstanceId, ConsoleKind, Number)>,
    staying: Staying,
}

/// A session, and how it goes. What its record says stands there alone.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) record: Arc<SessionRecord>,
    up: u64,
    down: u64,
    last_input: UnixTime,
    /// Believed to live until then.
    lease: UnixTime,
    way: Option<Way>,
    rights: Rights,
    /// Told to end, and no longer counted.
    order: Option<Cause>,
}

/// How many sessions are not told to end.
#[derive(Debug, Default)]
struct Staying {
    callers: Counts<Arc<str>>,
    addresses: Counts<IpAddr>,
}

/// How many there are of what. Strangers may have a say in the keys.
#[derive(Debug)]
struct Counts<K>(HashMap<K, usize>);

impl Kept {
    fn new(live: LiveSession, now: UnixTime) -> Self {
        let LiveSession { record, beat } = live;
        Self {
            record,
            up: beat.up,
            down: beat.down,
            last_input: beat.last_input,
            lease: now.plus(LEASE),
            way: beat.way,
            rights: beat.rights,
            order: None,
        }
    }

    /// As others see it.
    pub(super) fn live(&self) -> LiveSession {
        LiveSession {
            record: Arc::clone(&self.record),
            beat: Beat {
                session: self.record.id,
                up: self.up,
                down: self.down,
                last_input: self.last_input,
                way: self.way,
                rights: self.rights,
            },
        }
    }

    /// Its proxy has been heard of.
    pub(super) fn renew(&mut self, beat: &Beat, now: UnixTime) {
        self.up = beat.up;
        self.down = beat.down;
        self.last_input = beat.last_input;
        self.lease = now.plus(LEASE);
        self.way = beat.way;
        self.rights = beat.rights;
    }

    /// What its proxy has not done yet.
    pub(super) fn due(&self) -> Option<Order> {
        let record = &self.record;
        let end = self.order.map(|cause| Order::end(record.id, cause));
        let differ = self.rights != record.rights;
        end.or_else(|| differ.then(|| Order::rights(record.id, record.rights)))
    }

    /// Whether nobody has told it to end.
    pub(super) fn stays(&self) -> bool {
        self.order.is_none()
    }
}

impl Held {
    pub(super) fn count(&self) -> usize {
        self.numbers.len()
    }

    /// Those of one caller that stay.
    pub(super) fn count_of_caller(&self, caller: &str) -> usize {
        self.staying.callers.of(caller)
    }

    /// Those from one address that stay.
    pub(super) fn count_of_address(&self, viewer: IpAddr) -> usize {
        self.staying.addresses.of(&block_of(viewer))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Kept> {
        self.places.iter().flatten()
    }

    pub(super) fn of_instance(&self, instance: InstanceId) -> impl Iterator<Item = &Kept> {
        let first = (instance, ConsoleKind::Vnc, Number::FIRST);
        let last = (instance, ConsoleKind::Mks, Number::LAST);
        let found = self.consoles.range(first..=last);
        found.filter_map(|(_, _, number)| self.at(*number))
    }

    pub(super) fn of_console(
        &self,
        instance: InstanceId,
        kind: ConsoleKind,
    ) -> impl Iterator<Item = Number> {
        let (first, last) = (Number::FIRST, Number::LAST);
        let found = (instance, kind, first)..=(instance, kind, last);
        self.consoles.range(found).map(|(_, _, number)| *number)
    }

    pub(super) fn of_token(&self, token: TokenId) -> impl Iterator<Item = Number> {
        let found = self.viewers.range((token, Browser::LEAST, Number::FIRST)..);
        let found = found.take_while(move |(its, _, _)| *its == token);
        found.map(|(_, _, number)| *number)
    }

    /// Those that a token opened in one browser.
    pub(super) fn of_viewer(
        &self,
        token: TokenId,
        browser: Browser,
    ) -> impl Iterator<Item = Number> {
        let (first, last) = (Number::FIRST, Number::LAST);
        let found = (token, browser, first)..=(token, browser, last);
        self.viewers.range(found).map(|(_, _, number)| *number)
    }

    /// Those whose proxy has not been heard of for too long.
    pub(super) fn dead(&self, now: UnixTime) -> Vec<SessionId> {
        let dead = self.all().filter(|kept| kept.lease <= now);
        dead.map(|kept| kept.record.id).collect()
    }

    pub(super) fn at(&self, number: Number) -> Option<&Kept> {
        self.places.get(number.index())?.as_ref()
    }

    pub(super) fn number(&self, id: SessionId) -> Option<Number> {
        self.numbers.get(&id).copied()
    }

    pub(super) fn find(&self, id: SessionId) -> Option<&Kept> {
        self.at(self.number(id)?)
    }

    pub(super) fn find_mut(&mut self, id: SessionId) -> Option<&mut Kept> {
        let number = self.number(id)?;
        self.places.get_mut(number.index())?.as_mut()
    }

    /// Notes that a session is to end; the first cause stands.
    pub(super) fn order(&mut self, number: Number, cause: Cause) -> Option<Order> {
        let kept = self.places.get_mut(number.index())?.as_mut()?;
        if kept.stays() {
            self.staying.remove(&kept.record);
        }
        let cause = *kept.order.get_or_insert(cause);
        Some(Order::end(kept.record.id, cause))
    }

    /// Takes a session in, or takes it anew. What it was told stands.
    pub(super) fn insert(&mut self, live: LiveSession, now: UnixTime) {
        let before = self.remove(live.record.id);
        let mut kept = Kept::new(live, now);
        kept.order = before.and_then(|before| before.order);
        if kept.stays() {
            self.staying.add(&kept.record);
        }
        let record = Arc::clone(&kept.record);
        let number = self.put(kept);
        let _new = self.numbers.insert(record.id, number);
        let _new = self.viewers.insert((record.token, record.browser, number));
        let kind = record.console_type.kind();
        let _new = self.consoles.insert((record.instance, kind, number));
    }

    fn put(&mut self, kept: Kept) -> Number {
        if let Some(number) = self.free.pop()
            && let Some(place) = self.places.get_mut(number.index())
        {
            *place = Some(kept);
            return number;
        }
        // Memory ends long before numbers do.
        let number = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push(Some(kept));
        Number(number)
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Kept> {
        let number = self.numbers.remove(&id)?;
        let kept = self.places.get_mut(number.index())?.take()?;
        self.free.push(number);
        if kept.stays() {
            self.staying.remove(&kept.record);
        }
        let record = &kept.record;
        let _known = self.viewers.remove(&(record.token, record.browser, number));
        let kind = record.console_type.kind();
        let _known = self.consoles.remove(&(record.instance, kind, number));
        Some(kept)
    }
}

#[cfg(test)]
impl Held {
    /// What all tables hold: places, those of them that are free, and then what should be nothing.
    pub(super) fn sizes(&self) -> [usize; 7] {
        [
            self.places.len(),
            self.free.len(),
            self.numbers.len(),
            self.viewers.len(),
            self.consoles.len(),
            self.staying.callers.0.len(),
            self.staying.addresses.0.len(),
        ]
    }
}

impl Staying {
    fn add(&mut self, record: &SessionRecord) {
        self.callers.add(&record.caller);
        if let Some(ip) = record.viewer {
            self.addresses.add(&block_of(ip));
        }
    }

    fn remove(&mut self, record: &SessionRecord) {
        self.callers.remove(&record.caller);
        if let Some(ip) = record.viewer {
            self.addresses.remove(&block_of(ip));
        }
    }
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Counts<K> {
    fn of<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.0.get(key).copied().unwrap_or_default()
    }

    fn add(&mut self, key: &K) {
        match self.0.get_mut(key) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(key.clone(), 1)),
        }
    }

    fn remove(&mut self, key: &K) {
        match self.0.get_mut(key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.0.remove(key)),
        }
    }
}
