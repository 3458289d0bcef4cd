//! What a process that hands over gives to its successor: tokens that only it knows, and sessions.
//!
//! While an [`Estate`] is frozen, whoever asks this role waits. Then either all is as before, or the
//! successor's role answers in its place for as long as this process lives.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedRwLockWriteGuard;

use super::role::{Auth, Inner, Kept, Tokens};
use super::session::LiveSession;
use super::store::{BadFile, Keepsakes};
use crate::model::{Rights, TokenId, UnixTime};
use crate::rpc::Client;

/// What goes to a successor. Holds no token, only what stores hold.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Bequest {
    pub(super) keepsakes: Keepsakes,
    pub(super) sessions: Vec<LiveSession>,
    /// Rights of tokens that somebody else made, where they were changed here.
    pub(super) overruled: HashMap<TokenId, Rights>,
}

/// What this process's role knows and no other does. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Estate(pub(super) Arc<Inner>);

/// An estate that nobody changes.
#[derive(Debug)]
pub struct Frozen {
    inner: Arc<Inner>,
    tokens: OwnedRwLockWriteGuard<Tokens>,
    bequest: Bequest,
}

impl Estate {
    /// Has all calls wait, once those under way are done. A file that tokens are kept in is free to
    /// be opened then. None where everything is kept where the successor finds it.
    pub async fn freeze(&self) -> Option<Frozen> {
        let inner = Arc::clone(&self.0);
        if matches!(inner.kept, Kept::Shared) {
            return None;
        }
        let mut tokens = Arc::clone(&inner.tokens).write_owned().await;
        let keepsakes = match &*tokens {
            Tokens::Own(store) => store.keepsakes(),
            _ => Keepsakes::default(),
        };
        // Sessions in memory are always told.
        let sessions = inner.registry.list(None).await.unwrap_or_default();
        let overruled = inner.overruled().clone();
        if let Kept::File(..) = inner.kept {
            let store = std::mem::replace(&mut *tokens, Tokens::Released);
            // Its end waits for the disk.
            let _closed = tokio::task::spawn_blocking(move || drop(store)).await;
        }
        Some(Frozen {
            inner,
            tokens,
            bequest: Bequest {
                keepsakes,
                sessions,
                overruled,
            },
        })
    }
}

impl Frozen {
    /// What the successor is to know.
    pub fn bequest(&self) -> &Bequest {
        &self.bequest
    }

    /// All is as before once this is dropped, too. Errors: the file of tokens cannot be opened
    /// again, be it that somebody still has it.
    pub async fn thaw(&mut self) -> Result<(), BadFile> {
        if let Kept::File(path, limit) = &self.inner.kept {
            let store = super::store::File::open(path, *limit)?;
            let claims = Keepsakes {
                grants: Vec::new(),
                ..std::mem::take(&mut self.bequest.keepsakes)
            };
            let store: Arc<dyn super::store::Store> = Arc::new(store);
            if let Err(error) = store.inherit(claims, UnixTime::now()).await {
                tracing::warn!(%error, "who used single-use tokens is not all known");
            }
            *self.tokens = Tokens::Own(store);
        }
        Ok(())
    }

    /// From now on `heir` answers.
    pub fn give_up(mut self, heir: Client<Auth>) {
        *self.tokens = Tokens::Moved(heir);
        // Whoever waits for orders is to ask there.
        self.inner.orders.disturb();
    }
}

impl Estate {
    /// Takes in what a predecessor knew. What cannot be kept is said in the log: it costs a person
    /// another URL.
    pub async fn inherit(&self, bequest: Bequest) {
        let inner = &self.0;
        let now = UnixTime::now();
        inner.overruled().extend(bequest.overruled);
        if let Tokens::Own(store) = &*inner.tokens.read().await
            && let Err(error) = store.inherit(bequest.keepsakes, now).await
        {
            tracing::warn!(%error, "not all tokens of the process before could be taken over");
        }
        if let Err(error) = inner.registry.restore(bequest.sessions, now).await {
            tracing::debug!(%error, "sessions of the process before will show with their next beat");
        }
    }
}

impl Auth {
    /// What is to be handed over once.
    pub fn estate(&self) -> Estate {
        Estate(self.inner())
    }
}
