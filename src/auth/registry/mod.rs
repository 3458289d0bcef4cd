//! Which sessions live, on all proxies.

mod memory;

use std::fmt;
use std::sync::Arc;

use super::session::{Beat, Cause, LiveSession, Order, Pulse, SessionRecord};
use super::{AuthError, BoxFuture};
use crate::model::{Browser, InstanceId, Rights, SessionId, TokenId, UnixTime};

pub(super) use memory::Memory;

/// What a registry answers. Errors: `Store`, besides those that are named.
pub(super) type Answer<'a, T> = BoxFuture<'a, Result<T, AuthError>>;

/// Keeps sessions under leases. Every call is cancel-safe.
pub(super) trait Registry: Send + Sync + fmt::Debug {
    /// Takes a session in, and tells which others have to go for it. Errors: `Occupied`, `Limit`.
    fn begin(&self, record: Arc<SessionRecord>, now: UnixTime) -> Answer<'_, Vec<Order>>;

    /// Takes sessions in that live already, whatever the limits say.
    fn restore(&self, sessions: Vec<LiveSession>, now: UnixTime) -> Answer<'_, ()>;

    /// Renews leases.
    fn beat(&self, beats: Vec<Beat>, now: UnixTime) -> Answer<'_, Pulse>;

    /// Takes a session out.
    fn end(&self, id: SessionId) -> Answer<'_, Option<Arc<SessionRecord>>>;

    /// One session.
    fn find(&self, id: SessionId) -> Answer<'_, Option<LiveSession>>;

    /// The sessions of an instance, or all, the oldest first.
    fn list(&self, instance: Option<InstanceId>) -> Answer<'_, Vec<LiveSession>>;

    /// Has one session ended.
    fn order(&self, id: SessionId, cause: Cause) -> Answer<'_, Option<Order>>;

    /// Has the viewer of a session have other rights, as far as they can be changed.
    fn set_rights(&self, id: SessionId, rights: Rights) -> Answer<'_, Option<Order>>;

    /// Has all sessions of a token ended.
    fn order_all(&self, token: TokenId, cause: Cause) -> Answer<'_, Vec<Order>>;

    /// Whether a session of that token lives in that browser.
    fn lives(&self, token: TokenId, browser: Browser) -> Answer<'_, bool>;

    /// Forgets sessions whose proxy has not been heard of for too long.
    fn sweep(&self, now: UnixTime) -> Answer<'_, Vec<Arc<SessionRecord>>>;
}
