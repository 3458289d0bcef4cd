//! The auth role: gives out tokens, keeps what they stand for, takes them back.
//!
//! Called by api (authorize, list, show, revoke, sessions, kill) and by proxy (redeem, and what
//! happens to sessions) through [`Client<Auth>`](crate::rpc::Client). A token's text leaves once,
//! in the answer to authorize; afterwards only its SHA-256 is known here. Knows no hypervisor and
//! no HTTP.

mod registry;
mod session;
mod store;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::drain::Watch;
use crate::model::{
    ConsoleType, Grant, InstanceId, SessionId, Target, Terms, Token, TokenHash, TokenId, UnixTime,
};
use crate::rpc::{Client, Cursor, Feed, HOLD, News, Role, Unreachable};
use registry::Registry;
use store::{Claim, Memory};

pub use session::{
    BEAT, Beat, Cause, LEASE, Limits, LiveSession, Order, Pulse, Reached, SessionRecord,
};

/// How often dead tokens are swept. They are refused from their last second on, swept or not.
const SWEEP: Duration = Duration::from_secs(30);

/// The role.
#[derive(Debug)]
pub struct Auth {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Memory,
    registry: Registry,
    orders: Feed<Order>,
    settings: Settings,
}

/// What auth goes by.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Tokens at one time.
    pub max_tokens: usize,
    /// Sessions at one time.
    pub limits: Limits,
    /// How long a browser that lost its session may come back with a single-use token.
    pub reconnect_window: Duration,
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
    /// Kill a token, and the sessions it opened.
    Revoke(TokenId),
    /// A session is about to open.
    Begin(Box<SessionRecord>),
    /// Sessions live.
    Beat(Vec<Beat>),
    /// Sessions live that auth does not know.
    Restore(Vec<LiveSession>),
    /// A session is over; or never came about, if the flag is not set.
    End(SessionId, bool),
    /// Which sessions are to end? Held until there is one, or for a while.
    Orders(Option<Cursor>),
    /// The live sessions, of one instance or all.
    Sessions(Option<InstanceId>),
    /// One live session.
    Session(SessionId),
    /// End a session.
    Kill(SessionId),
    /// Are you well?
    Ping,
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
    /// So be it.
    Done,
    /// To beats.
    Pulse(Pulse),
    /// What is to end.
    Orders(News<Order>),
    /// The sessions, the oldest first.
    Sessions(Vec<LiveSession>),
    /// The session asked for, or just told to end.
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
    /// The role did not answer.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

impl Auth {
    /// A role that keeps everything in memory, swept until `watch` closes.
    pub fn in_memory(settings: Settings, watch: &Watch) -> Self {
        let shared = Arc::new(Shared {
            store: Memory::new(settings.max_tokens),
            registry: Registry::new(settings.limits),
            orders: Feed::default(),
            settings,
        });
        let sweeping = Arc::clone(&shared);
        let closing = watch.clone();
        watch.spawn_service(async move {
            tokio::select! {
                () = sweeping.sweep() => {}
                () = closing.closing() => {}
            }
        });
        Self { shared }
    }
}

impl Shared {
    fn authorize(&self, new: NewGrant) -> Result<Reply, AuthError> {
        let issued = UnixTime::now();
        let grant = Grant {
            instance: new.instance,
            instance_name: new.instance_name,
            console_type: new.console_type,
            target: new.target,
            base: new.base,
            caller: new.caller,
            terms: new.terms,
            issued,
            expires: issued.plus(new.ttl),
        };
        let token = Token::generate();
        self.store.insert(token.hash(), grant.clone(), issued)?;
        Ok(Reply::Authorized(token, grant))
    }

    fn redeem(&self, hash: &TokenHash) -> Result<Reply, AuthError> {
        let grant = self.store.get(hash, UnixTime::now());
        grant.map(Reply::Redeemed).ok_or(AuthError::Unknown)
    }

    /// Nothing opens with the token from here on, and what was opened ends.
    fn revoke(&self, id: &TokenId) -> Result<Reply, AuthError> {
        let entry = self.store.remove(id, UnixTime::now());
        let entry = entry.ok_or(AuthError::Unknown)?;
        for order in self.registry.order_all(id, Cause::Revoked) {
            self.orders.tell(order);
        }
        Ok(Reply::One(entry))
    }

    /// Looks at the token once more: it may have been revoked since it was redeemed.
    fn begin(&self, record: SessionRecord) -> Result<Reply, AuthError> {
        let now = UnixTime::now();
        self.claim(&record, now)?;
        let (token, id) = (record.token.clone(), record.id);
        let orders = self.registry.begin(record, now);
        let orders = orders.inspect_err(|_| self.release(&token, false, now))?;
        for order in orders {
            self.orders.tell(order);
        }
        // Only now is it found by who revokes the token; who did before took the token away.
        if self.store.find(&token, now).is_none() {
            let _record = self.registry.end(id);
            return Err(AuthError::Unknown);
        }
        Ok(Reply::Done)
    }

    fn claim(&self, record: &SessionRecord, now: UnixTime) -> Result<(), AuthError> {
        if !record.terms.single_use {
            return Ok(());
        }
        let (token, browser) = (&record.token, &record.browser);
        let lives = self.registry.lives(token, browser);
        let window = self.settings.reconnect_window;
        let take = |claim: &mut _| Claim::take(claim, browser, lives, window, now);
        let taken = self.store.claim(token, take).ok_or(AuthError::Unknown)?;
        taken.then_some(()).ok_or(AuthError::Used)
    }

    fn release(&self, token: &TokenId, opened: bool, now: UnixTime) {
        let leave = |claim: &mut _| Claim::leave(claim, opened, now);
        let _unless_gone = self.store.claim(token, leave);
    }

    fn end(&self, id: SessionId, opened: bool) -> Reply {
        if let Some(record) = self.registry.end(id) {
            self.release(&record.token, opened, UnixTime::now());
        }
        Reply::Done
    }

    fn kill(&self, id: SessionId) -> Result<Reply, AuthError> {
        let session = self.session(id)?;
        if let Some(order) = self.registry.order(id, Cause::Operator) {
            self.orders.tell(order);
        }
        Ok(session)
    }

    fn session(&self, id: SessionId) -> Result<Reply, AuthError> {
        let live = self.registry.find(id).ok_or(AuthError::NoSession(id))?;
        Ok(Reply::Session(Box::new(live)))
    }

    async fn sweep(&self) {
        let mut leases = tokio::time::interval(BEAT);
        let mut tokens = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                _ = tokens.tick() => self.store.sweep(UnixTime::now()),
                _ = leases.tick() => self.sweep_sessions(),
            }
        }
    }

    fn sweep_sessions(&self) {
        let now = UnixTime::now();
        for record in self.registry.sweep(now) {
            let (session, proxy) = (record.id, &record.proxy);
            tracing::warn!(%session, proxy, "a session's proxy has gone silent");
            self.release(&record.token, true, now);
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
        let shared = &self.shared;
        let entry = |entry: Option<Entry>| entry.map(Reply::One).ok_or(AuthError::Unknown);
        match request {
            Request::Authorize(new) => shared.authorize(new),
            Request::Redeem(hash) => shared.redeem(&hash),
            Request::List(instance) => Ok(Reply::Listed(shared.store.list(instance, now))),
            Request::Show(id) => entry(shared.store.find(&id, now)),
            Request::Revoke(id) => shared.revoke(&id),
            Request::Begin(record) => shared.begin(*record),
            Request::Beat(beats) => Ok(Reply::Pulse(shared.registry.beat(&beats, now))),
            Request::Restore(sessions) => {
                shared.registry.restore(sessions, now);
                Ok(Reply::Done)
            }
            Request::End(id, opened) => Ok(shared.end(id, opened)),
            Request::Orders(cursor) => Ok(Reply::Orders(shared.orders.after(cursor, HOLD).await)),
            Request::Sessions(instance) => Ok(Reply::Sessions(shared.registry.list(instance))),
            Request::Session(id) => shared.session(id),
            Request::Kill(id) => shared.kill(id),
            Request::Ping => Ok(Reply::Done),
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

    /// Kills a token: nothing opens with it from now on, and its sessions end. Errors:
    /// [`AuthError::Unknown`].
    pub async fn revoke(&self, id: TokenId) -> Result<Entry, AuthError> {
        self.one(Request::Revoke(id)).await
    }

    /// Registers a session that is about to open. Errors: [`AuthError::Unknown`] if the token was
    /// revoked meanwhile, [`AuthError::Used`], [`AuthError::Occupied`], [`AuthError::Limit`].
    pub async fn begin(&self, record: SessionRecord) -> Result<(), AuthError> {
        self.done(Request::Begin(Box::new(record))).await
    }

    /// Renews the leases of sessions.
    pub async fn beat(&self, beats: Vec<Beat>) -> Result<Pulse, AuthError> {
        match self.call(Request::Beat(beats)).await? {
            Reply::Pulse(pulse) => Ok(pulse),
            other => Err(mismatch(&other)),
        }
    }

    /// Registers sessions that live, whatever the limits say.
    pub async fn restore(&self, sessions: Vec<LiveSession>) -> Result<(), AuthError> {
        self.done(Request::Restore(sessions)).await
    }

    /// Takes a session out; `opened` unless it never came about.
    pub async fn end(&self, id: SessionId, opened: bool) -> Result<(), AuthError> {
        self.done(Request::End(id, opened)).await
    }

    /// What is to end since `cursor`: waits up to [`HOLD`] for it.
    pub async fn orders(&self, cursor: Option<Cursor>) -> Result<News<Order>, AuthError> {
        match self.call(Request::Orders(cursor)).await? {
            Reply::Orders(news) => Ok(news),
            other => Err(mismatch(&other)),
        }
    }

    /// The live sessions of `instance`, or of all, the oldest first.
    pub async fn sessions(
        &self,
        instance: Option<InstanceId>,
    ) -> Result<Vec<LiveSession>, AuthError> {
        match self.call(Request::Sessions(instance)).await? {
            Reply::Sessions(sessions) => Ok(sessions),
            other => Err(mismatch(&other)),
        }
    }

    /// One live session. Errors: [`AuthError::NoSession`].
    pub async fn session(&self, id: SessionId) -> Result<LiveSession, AuthError> {
        self.one_session(Request::Session(id)).await
    }

    /// Has a session ended. Errors: [`AuthError::NoSession`].
    pub async fn kill(&self, id: SessionId) -> Result<LiveSession, AuthError> {
        self.one_session(Request::Kill(id)).await
    }

    /// Whether auth and what it keeps its tokens in are well.
    pub async fn ping(&self) -> Result<(), AuthError> {
        self.done(Request::Ping).await
    }

    async fn done(&self, request: Request) -> Result<(), AuthError> {
        match self.call(request).await? {
            Reply::Done => Ok(()),
            other => Err(mismatch(&other)),
        }
    }

    async fn one_session(&self, request: Request) -> Result<LiveSession, AuthError> {
        match self.call(request).await? {
            Reply::Session(live) => Ok(*live),
            other => Err(mismatch(&other)),
        }
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
