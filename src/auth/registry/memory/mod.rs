//! Sessions in this process's memory.

mod held;
mod room;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::held::{Held, Kept, Number};
use super::{Answer, Registry};
use crate::auth::AuthError;
use crate::auth::session::{Beat, Cause, Limits, LiveSession, Order, Pulse, SessionRecord};
use crate::live::Live;
use crate::model::{Browser, InstanceId, Rights, SessionId, TokenId, UnixTime};

/// Sessions in this process's memory. Lost with it; proxies then register theirs again.
#[derive(Debug)]
pub(in crate::auth) struct Memory {
    held: Mutex<Held>,
    limits: Live<Limits>,
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
        let orders = orders.filter_map(|number| held.order(number, Cause::TakenOver));
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
            match held.find_mut(beat.session) {
                None => pulse.unknown.push(beat.session),
                Some(kept) => {
                    kept.renew(beat, now);
                    pulse.orders.extend(kept.due());
                }
            }
        }
        pulse
    }

    /// Takes a session out.
    fn end(&self, id: SessionId) -> Option<Arc<SessionRecord>> {
        let kept = self.lock().remove(id)?;
        Some(kept.record)
    }

    pub(in crate::auth) fn find(&self, id: SessionId) -> Option<LiveSession> {
        self.lock().find(id).map(Kept::live)
    }

    /// The sessions of an instance, or all, the oldest first.
    pub(in crate::auth) fn list(&self, instance: Option<InstanceId>) -> Vec<LiveSession> {
        let held = self.lock();
        let mut sessions: Vec<LiveSession> = match instance {
            Some(instance) => held.of_instance(instance).map(Kept::live).collect(),
            None => held.all().map(Kept::live).collect(),
        };
        drop(held);
        sessions.sort_by_key(|live| (live.record.started, live.record.id));
        sessions
    }

    /// Has one session ended.
    pub(in crate::auth) fn order(&self, id: SessionId, cause: Cause) -> Option<Order> {
        let mut held = self.lock();
        let number = held.number(id)?;
        held.order(number, cause)
    }

    /// Has the viewer of a session have other rights, as far as they can be changed.
    pub(in crate::auth) fn set_rights(&self, id: SessionId, rights: Rights) -> Option<Order> {
        let mut held = self.lock();
        let record = Arc::make_mut(&mut held.find_mut(id)?.record);
        record.rights = record.changeable(rights);
        Some(Order::rights(id, record.rights))
    }

    /// Has all sessions of a token ended.
    pub(in crate::auth) fn order_all(&self, token: TokenId, cause: Cause) -> Vec<Order> {
        let mut held = self.lock();
        let numbers: Vec<Number> = held.of_token(token).collect();
        let orders = numbers.iter();
        orders
            .filter_map(|number| held.order(*number, cause))
            .collect()
    }

    /// Whether a session of that token lives in that browser.
    pub(in crate::auth) fn lives(&self, token: TokenId, browser: Browser) -> bool {
        let held = self.lock();
        held.of_viewer(token, browser).next().is_some()
    }

    /// Forgets sessions whose proxy has not been heard of for too long.
    fn sweep(&self, now: UnixTime) -> Vec<Arc<SessionRecord>> {
        let mut held = self.lock();
        let dead = held.dead(now).into_iter();
        dead.filter_map(|id| held.remove(id))
            .map(|kept| kept.record)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests;
