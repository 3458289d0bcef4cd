//! Where grants are kept, by the hash of their token.
//!
//! A store never sees a token and shows nothing that opens a console. What a store is asked for
//! is true at `now`, which the caller names: an expired grant is not there, swept or not.

pub(super) mod claim;
mod file;
mod memory;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::claim::Claim;
use super::{AuthError, BoxFuture, Entry};
use crate::model::{Browser, Grant, InstanceId, Rights, TokenHash, TokenId, UnixTime};

pub use file::BadFile;

pub(super) use file::File;
pub(super) use memory::Memory;

/// What a store answers. Errors: `Store`, besides those that are named.
pub(super) type Answer<'a, T> = BoxFuture<'a, Result<T, AuthError>>;

/// Keeps grants. Every call is cancel-safe: it is done or not done.
pub(super) trait Store: Send + Sync + fmt::Debug {
    /// Keeps `grant`, durably if the store is durable at all. Errors: `Full`.
    fn insert(&self, hash: TokenHash, grant: Arc<Grant>, now: UnixTime) -> Answer<'_, ()>;

    /// The grant, if it is valid at `now`: strictly before its expiry.
    fn get(&self, hash: TokenHash, now: UnixTime) -> Answer<'_, Option<Arc<Grant>>>;

    /// The same by the token's public name.
    fn find(&self, id: TokenId, now: UnixTime) -> Answer<'_, Option<Entry>>;

    /// Forgets a grant for good, and returns it if it was valid.
    fn remove(&self, id: TokenId, now: UnixTime) -> Answer<'_, Option<Entry>>;

    /// The valid grants of an instance, or all, the next to expire first.
    fn list(&self, instance: Option<InstanceId>, now: UnixTime) -> Answer<'_, Vec<Entry>>;

    /// Makes a single-use token a browser's own, or lets that come back. Whether that may be;
    /// nothing for a token that is not there.
    fn claim(&self, id: TokenId, attempt: Attempt, now: UnixTime) -> Answer<'_, Option<bool>>;

    /// Changes what a token opens with; nothing for one that is not there.
    fn set_rights(&self, id: TokenId, rights: Rights, now: UnixTime) -> Answer<'_, ()>;

    /// Notes that a session of a single-use token has ended, or never came about.
    fn leave(&self, id: TokenId, opened: bool, now: UnixTime) -> Answer<'_, ()>;

    /// Forgets the dead.
    fn sweep(&self, now: UnixTime) -> Answer<'_, ()>;

    /// Whether it works.
    fn ready(&self) -> Answer<'_, ()>;

    /// What goes with this process, if nobody is told.
    fn keepsakes(&self) -> Keepsakes {
        Keepsakes::default()
    }

    /// Keeps what another store of the same tokens told.
    fn inherit(&self, keepsakes: Keepsakes, now: UnixTime) -> Answer<'_, ()> {
        Box::pin(async move {
            for (hash, grant) in keepsakes.grants {
                self.insert(hash, grant, now).await?;
            }
            Ok(())
        })
    }
}

/// What a store knows that only lives in its process's memory.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Keepsakes {
    pub(super) grants: Vec<(TokenHash, Arc<Grant>)>,
    pub(super) claims: Vec<(TokenId, Claim)>,
}

/// Somebody wants to use a single-use token.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// From which browser.
    pub(super) browser: Browser,
    /// Whether a session of it lives there.
    pub(super) lives: bool,
    /// How long after its session's end a browser may come back.
    pub(super) window: Duration,
}

/// The order of lists.
pub(super) fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by_key(|entry| (entry.grant.expires, entry.id));
    entries
}

#[cfg(test)]
mod tests;
