//! The auth role: gives out tokens, keeps what they stand for, takes them back.
//!
//! Called by api (authorize, list, show, revoke) and by proxy (redeem) through
//! [`Client<Auth>`](crate::rpc::Client). A token's text leaves once, in the answer to authorize;
//! afterwards only its SHA-256 is known here. Knows no hypervisor and no HTTP.

mod store;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::drain::Watch;
use crate::model::{ConsoleType, Grant, InstanceId, Target, Token, TokenHash, TokenId, UnixTime};
use crate::rpc::{Client, Role, Unreachable};
use store::Memory;

/// How often dead tokens are swept. They are refused from their last second on, swept or not.
const SWEEP: Duration = Duration::from_secs(30);

/// The role.
#[derive(Debug)]
pub struct Auth {
    store: Memory,
}

/// A grant to be made: everything but its times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewGrant {
    /// See [`Grant::instance`].
    pub instance: InstanceId,
    /// See [`Grant::instance_name`].
    pub instance_name: String,
    /// See [`Grant::console_type`].
    pub console_type: ConsoleType,
    /// See [`Grant::target`].
    pub target: Target,
    /// See [`Grant::base`].
    pub base: Url,
    /// See [`Grant::caller`].
    pub caller: String,
    /// How long it lasts, in whole seconds.
    pub ttl: Duration,
}

/// A live token as lists show it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its public name.
    pub id: TokenId,
    /// What it stands for.
    pub grant: Grant,
}

/// What auth can be asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make a token for a grant.
    Authorize(NewGrant),
    /// What does this token stand for? It stays valid.
    Redeem(TokenHash),
    /// The live tokens, of one instance or all.
    List(Option<InstanceId>),
    /// One live token.
    Show(TokenId),
    /// Kill a token.
    Revoke(TokenId),
}

/// What auth answers, in the order of [`Request`].
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The token, this once, and its grant.
    Authorized(Token, Grant),
    /// The grant.
    Redeemed(Grant),
    /// The tokens, the next to expire first.
    Listed(Vec<Entry>),
    /// The token asked for, or just killed.
    One(Entry),
}

/// Why auth did not.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum AuthError {
    /// Never issued, revoked, or expired: one answer for all three.
    #[error("unknown or expired token")]
    Unknown,
    /// The store holds as many tokens as it may.
    #[error("there are {0} live tokens, the most that auth.max_tokens allows; try again later")]
    Full(usize),
    /// The role did not answer.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

impl Auth {
    /// A role that holds up to `max_tokens` tokens in memory, swept until `watch` closes.
    pub fn in_memory(max_tokens: usize, watch: &Watch) -> Self {
        let store = Memory::new(max_tokens);
        watch.spawn_service(sweep(store.clone(), watch.clone()));
        Self { store }
    }

    fn authorize(&self, new: NewGrant) -> Result<Reply, AuthError> {
        let issued = UnixTime::now();
        let grant = Grant {
            instance: new.instance,
            instance_name: new.instance_name,
            console_type: new.console_type,
            target: new.target,
            base: new.base,
            caller: new.caller,
            issued,
            expires: issued.plus(new.ttl),
        };
        let token = Token::generate();
        self.store.insert(token.hash(), grant.clone(), issued)?;
        Ok(Reply::Authorized(token, grant))
    }
}

impl Role for Auth {
    const NAME: &'static str = "auth";
    type Request = Request;
    type Reply = Reply;
    type Error = AuthError;

    async fn call(&self, request: Request) -> Result<Reply, AuthError> {
        let now = UnixTime::now();
        let entry = |entry: Option<Entry>| entry.map(Reply::One).ok_or(AuthError::Unknown);
        match request {
            Request::Authorize(new) => self.authorize(new),
            Request::Redeem(hash) => self
                .store
                .get(&hash, now)
                .map(Reply::Redeemed)
                .ok_or(AuthError::Unknown),
            Request::List(instance) => Ok(Reply::Listed(self.store.list(instance, now))),
            Request::Show(id) => entry(self.store.find(&id, now)),
            Request::Revoke(id) => entry(self.store.remove(&id, now)),
        }
    }
}

async fn sweep(store: Memory, watch: Watch) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = ticks.tick() => store.sweep(UnixTime::now()),
            () = watch.closing() => return,
        }
    }
}

/// What other roles see of auth. Every call is cancel-safe.
impl Client<Auth> {
    /// Makes a token. Errors: [`AuthError::Full`].
    pub async fn authorize(&self, new: NewGrant) -> Result<(Token, Grant), AuthError> {
        match self.call(Request::Authorize(new)).await? {
            Reply::Authorized(token, grant) => Ok((token, grant)),
            other => Err(mismatch(&other)),
        }
    }

    /// Exchanges a token for its grant without consuming it. Errors: [`AuthError::Unknown`].
    pub async fn redeem(&self, token: &Token) -> Result<Grant, AuthError> {
        match self.call(Request::Redeem(token.hash())).await? {
            Reply::Redeemed(grant) => Ok(grant),
            other => Err(mismatch(&other)),
        }
    }

    /// The live tokens of `instance`, or of all, the next to expire first.
    pub async fn list(&self, instance: Option<InstanceId>) -> Result<Vec<Entry>, AuthError> {
        match self.call(Request::List(instance)).await? {
            Reply::Listed(entries) => Ok(entries),
            other => Err(mismatch(&other)),
        }
    }

    /// One live token. Errors: [`AuthError::Unknown`].
    pub async fn show(&self, id: TokenId) -> Result<Entry, AuthError> {
        self.one(Request::Show(id)).await
    }

    /// Kills a token: nothing opens with it from now on. Errors: [`AuthError::Unknown`].
    pub async fn revoke(&self, id: TokenId) -> Result<Entry, AuthError> {
        self.one(Request::Revoke(id)).await
    }

    async fn one(&self, request: Request) -> Result<Entry, AuthError> {
        match self.call(request).await? {
            Reply::One(entry) => Ok(entry),
            other => Err(mismatch(&other)),
        }
    }
}

/// A reply to another question: the peer is not what it says it is.
fn mismatch(_reply: &Reply) -> AuthError {
    AuthError::Unreachable(Unreachable::Confused(Auth::NAME.to_owned()))
}

#[cfg(test)]
mod tests;
