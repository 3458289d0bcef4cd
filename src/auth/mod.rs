//! The auth role: gives out tokens, keeps what they stand for, takes them back; and knows who uses
//! them just now.
//!
//! Called by api (authorize, list, show, revoke, sessions, kill) and by proxy (redeem, and what
//! becomes of sessions) through [`Client<Auth>`](crate::rpc::Client). The text of a token made here
//! leaves once, in the answer to authorize; afterwards only its SHA-256 is kept. Tokens that
//! somebody else made are looked up where they were made (`foreign`). Knows no hypervisor.

mod client;
mod estate;
mod foreign;
pub mod redis;
mod registry;
mod role;
mod session;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::model::{
    ConsoleType, Grant, InstanceId, Rights, SessionId, Target, Terms, Token, TokenId,
};
use crate::rpc::{Cursor, News, Unreachable};

pub use estate::{Bequest, Estate, Frozen};
pub use foreign::{
    BadDatabase, Bases, BoxFuture, NoConsole, NovaApi, NovaApiSettings, NovaDb, Source, TokenFile,
    TokenFileSettings,
};
pub use role::{Auth, Rules, Settings};
pub use session::{
    BEAT, Beat, Cause, LEASE, Limits, LiveSession, Order, Pulse, Reached, SessionRecord, Wish,
};

/// A grant to be made: everything but its times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewGrant {
    /// See [`Grant::instance`].
    pub instance: InstanceId,
    /// See [`Grant::instance_name`].
    pub instance_name: Arc<str>,
    /// See [`Grant::console_type`].
    pub console_type: ConsoleType,
    /// See [`Grant::target`].
    pub target: Target,
    /// See [`Grant::rights`].
    pub rights: Rights,
    /// See [`Grant::base`].
    pub base: Url,
    /// See [`Grant::project`].
    pub project: Option<Arc<str>>,
    /// See [`Grant::caller`].
    pub caller: Arc<str>,
    /// See [`Grant::terms`].
    pub terms: Terms,
    /// How long it lasts, in whole seconds.
    pub ttl: Duration,
}

/// A live token as lists show it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its public name.
    pub id: TokenId,
    /// What it stands for.
    pub grant: Arc<Grant>,
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
    /// Kill a token, and the sessions it opened.
    Revoke(TokenId),
    /// Can tokens be redeemed just now?
    Ready,
    /// A session is about to open.
    Begin(Arc<SessionRecord>),
    /// Sessions live.
    Beat(Vec<Beat>),
    /// Sessions live that auth does not know.
    Restore(Vec<LiveSession>),
    /// A session is over; or never came about, if the flag is not set.
    End(SessionId, bool),
    /// Which sessions are to end, or to have other rights? Held until there is one, or for a while.
    Orders(Option<Cursor>),
    /// The live sessions, of one instance or all.
    Sessions(Option<InstanceId>),
    /// One live session.
    Session(SessionId),
    /// End a session.
    Kill(SessionId),
    /// Give the viewer of a session other rights, and its token too.
    SetRights(SessionId, Rights),
}

/// What auth answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The token, this once, and its grant.
    Authorized(Token, Arc<Grant>),
    /// The grant.
    Redeemed(Arc<Grant>),
    /// The tokens, the next to expire first.
    Listed(Vec<Entry>),
    /// The token asked for, or just killed.
    One(Box<Entry>),
    /// Yes; so be it.
    Done,
    /// To beats.
    Pulse(Pulse),
    /// What is to end.
    Orders(News<Order>),
    /// The sessions, the oldest first.
    Sessions(Vec<LiveSession>),
    /// The session asked for, just told to end, or just given other rights.
    Session(Box<LiveSession>),
}

/// Why auth did not.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum AuthError {
    /// Never issued, revoked, or expired: one answer for all three.
    #[error("unknown or expired token")]
    Unknown,
    /// A single-use token that was used.
    #[error("the token was used already")]
    Used,
    /// The console has a viewer, and a second one is not wanted.
    #[error("another viewer has the console")]
    Occupied,
    /// There are too many sessions.
    #[error(transparent)]
    Limit(Reached),
    /// There is no such session.
    #[error("there is no session {0}, see `vncgate session list` for those there are")]
    NoSession(SessionId),
    /// The store holds as many tokens as it may.
    #[error("there are {0} live tokens, the most that auth.max_tokens allows; try again later")]
    Full(usize),
    /// Somebody else makes the tokens, and only there can they be listed or revoked.
    #[error("tokens are made by {0} here (auth.source); ask there")]
    Elsewhere(String),
    /// Whoever made the tokens cannot be asked. Nothing is known of this one.
    #[error("tokens cannot be checked now: {0}")]
    Source(String),
    /// The token is good, and what it stands for is not to be had.
    #[error(transparent)]
    NoConsole(#[from] NoConsole),
    /// What tokens are kept in fails.
    #[error("the store of tokens fails: {0}")]
    Store(String),
    /// The role did not answer.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

#[cfg(test)]
mod tests;
