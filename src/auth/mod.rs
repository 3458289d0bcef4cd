//! The auth role: gives out tokens, keeps what they stand for, takes them back.
//!
//! Called by api (authorize, list, show, revoke) and by proxy (redeem) through
//! [`Client<Auth>`](crate::rpc::Client). The text of a token made here leaves once, in the answer
//! to authorize; afterwards only its SHA-256 is kept. Tokens that somebody else made are looked up
//! where they were made (`foreign`). Knows no hypervisor.

mod foreign;
mod store;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::drain::Watch;
use crate::model::{
    Binding, ConsoleType, Grant, InstanceId, Rights, Target, Token, TokenId, UnixTime,
};
use crate::rpc::{Client, Role, Unreachable};
use store::Memory;

pub use foreign::{BoxFuture, Source};

/// How often dead tokens are swept. They are refused from their last second on, swept or not.
const SWEEP: Duration = Duration::from_secs(30);

/// The role.
#[derive(Debug)]
pub struct Auth(Tokens);

/// Whose tokens are good here.
#[derive(Debug)]
enum Tokens {
    /// Those made here.
    Own(Memory),
    /// Those that somebody else makes.
    Foreign(Box<dyn Source>),
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
    /// See [`Grant::rights`].
    pub rights: Rights,
    /// See [`Grant::base`].
    pub base: Url,
    /// See [`Grant::project`].
    pub project: Option<String>,
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
    Authorize(Box<NewGrant>),
    /// What does this token stand for? It stays valid. The token itself, because some of those who
    /// make tokens want to see it; no store keeps it.
    Redeem(Token),
    /// The live tokens, of one instance or all.
    List(Option<InstanceId>),
    /// One live token.
    Show(TokenId),
    /// Kill a token.
    Revoke(TokenId),
    /// Can tokens be redeemed just now?
    Ready,
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
    /// Yes.
    Ready,
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
    /// Somebody else makes the tokens, and only there can they be listed or revoked.
    #[error("tokens are made by {0} here (auth.source); ask there")]
    Elsewhere(String),
    /// Whoever made the tokens cannot be asked. Nothing is known of this one.
    #[error("tokens cannot be checked now: {0}")]
    Source(String),
    /// The role did not answer.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

impl Auth {
    /// A role that holds up to `max_tokens` tokens in memory, swept until `watch` closes.
    pub fn in_memory(max_tokens: usize, watch: &Watch) -> Self {
        let store = Memory::new(max_tokens);
        watch.spawn_service(sweep(store.clone(), watch.clone()));
        Self(Tokens::Own(store))
    }

    /// A role that knows the tokens of `source` and makes none.
    pub fn foreign(source: Box<dyn Source>) -> Self {
        Self(Tokens::Foreign(source))
    }
}

fn authorize(store: &Memory, new: NewGrant) -> Result<Reply, AuthError> {
    let issued = UnixTime::now();
    let grant = Grant {
        instance: new.instance,
        instance_name: new.instance_name,
        console_type: new.console_type,
        target: new.target,
        binding: Binding::Instance,
        rights: new.rights,
        base: new.base,
        project: new.project,
        caller: new.caller,
        issued,
        expires: issued.plus(new.ttl),
    };
    let token = Token::generate();
    store.insert(token.hash(), grant.clone(), issued)?;
    Ok(Reply::Authorized(token, grant))
}

fn answer(store: &Memory, request: Request, now: UnixTime) -> Result<Reply, AuthError> {
    let entry = |entry: Option<Entry>| entry.map(Reply::One).ok_or(AuthError::Unknown);
    match request {
        Request::Authorize(new) => authorize(store, *new),
        Request::Redeem(token) => store
            .get(&token.hash(), now)
            .map(Reply::Redeemed)
            .ok_or(AuthError::Unknown),
        Request::List(instance) => Ok(Reply::Listed(store.list(instance, now))),
        Request::Show(id) => entry(store.find(&id, now)),
        Request::Revoke(id) => entry(store.remove(&id, now)),
        Request::Ready => Ok(Reply::Ready),
    }
}

async fn ask(source: &dyn Source, request: Request, now: UnixTime) -> Result<Reply, AuthError> {
    match request {
        Request::Redeem(token) => source.redeem(&token, now).await.map(Reply::Redeemed),
        Request::Ready => source.ready().await.map(|()| Reply::Ready),
        Request::Authorize(_) | Request::List(_) | Request::Show(_) | Request::Revoke(_) => {
            Err(AuthError::Elsewhere(source.name().to_owned()))
        }
    }
}

impl Role for Auth {
    const NAME: &'static str = "auth";
    type Request = Request;
    type Reply = Reply;
    type Error = AuthError;

    async fn call(&self, request: Request) -> Result<Reply, AuthError> {
        let now = UnixTime::now();
        match &self.0 {
            Tokens::Own(store) => answer(store, request, now),
            Tokens::Foreign(source) => ask(&**source, request, now).await,
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
        match self.call(Request::Authorize(Box::new(new))).await? {
            Reply::Authorized(token, grant) => Ok((token, grant)),
            other => Err(mismatch(&other)),
        }
    }

    /// Exchanges a token for its grant without consuming it. Errors: [`AuthError::Unknown`],
    /// [`AuthError::Source`].
    pub async fn redeem(&self, token: &Token) -> Result<Grant, AuthError> {
        match self.call(Request::Redeem(token.clone())).await? {
            Reply::Redeemed(grant) => Ok(grant),
            other => Err(mismatch(&other)),
        }
    }

    /// Whether tokens can be redeemed just now. Errors: [`AuthError::Source`].
    pub async fn ready(&self) -> Result<(), AuthError> {
        match self.call(Request::Ready).await? {
            Reply::Ready => Ok(()),
            other => Err(mismatch(&other)),
        }
    }

    /// The live tokens of `instance`, or of all, the next to expire first. Errors:
    /// [`AuthError::Elsewhere`], as of the calls below.
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
