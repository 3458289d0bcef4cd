use std::sync::Arc;

use super::{
    Auth, AuthError, Beat, Entry, LiveSession, NewGrant, Order, Pulse, Reply, Request,
    SessionRecord,
};
use crate::model::{Grant, InstanceId, Rights, SessionId, Token, TokenId};
use crate::rpc::{Client, Cursor, News, Role as _, Unreachable};

/// What other roles see of auth. Every call is cancel-safe.
impl Client<Auth> {
    /// Makes a token. Errors: [`AuthError::Full`], [`AuthError::Elsewhere`], [`AuthError::Store`].
    pub async fn authorize(&self, new: NewGrant) -> Result<(Token, Arc<Grant>), AuthError> {
        match self.call(Request::Authorize(Box::new(new))).await? {
            Reply::Authorized(token, grant) => Ok((token, grant)),
            other => Err(mismatch(&other)),
        }
    }

    /// Exchanges a token for its grant without consuming it. Errors: [`AuthError::Unknown`],
    /// [`AuthError::Source`], [`AuthError::Store`].
    pub async fn redeem(&self, token: &Token) -> Result<Arc<Grant>, AuthError> {
        match self.call(Request::Redeem(token.clone())).await? {
            Reply::Redeemed(grant) => Ok(grant),
            other => Err(mismatch(&other)),
        }
    }

    /// Whether tokens can be redeemed just now. Errors: [`AuthError::Source`],
    /// [`AuthError::Store`].
    pub async fn ready(&self) -> Result<(), AuthError> {
        self.done(Request::Ready).await
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

    /// Kills a token: nothing opens with it from now on, and its sessions end. Errors:
    /// [`AuthError::Unknown`].
    pub async fn revoke(&self, id: TokenId) -> Result<Entry, AuthError> {
        self.one(Request::Revoke(id)).await
    }

    /// Registers a session that is about to open. Errors: [`AuthError::Unknown`] if the token was
    /// revoked meanwhile, [`AuthError::Used`], [`AuthError::Occupied`], [`AuthError::Limit`].
    pub async fn begin(&self, record: impl Into<Arc<SessionRecord>>) -> Result<(), AuthError> {
        self.done(Request::Begin(record.into())).await
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

    /// What is to end, or to have other rights, since `cursor`: waits up to [`HOLD`](crate::rpc::HOLD) for it.
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

    /// Has the viewer of a session have other rights, now and with its token from now on. The
    /// record in the answer has those that will be in force; its beat those that are. Errors:
    /// [`AuthError::NoSession`].
    pub async fn set_rights(
        &self,
        id: SessionId,
        rights: Rights,
    ) -> Result<LiveSession, AuthError> {
        self.one_session(Request::SetRights(id, rights)).await
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
            Reply::One(entry) => Ok(*entry),
            other => Err(mismatch(&other)),
        }
    }
}

/// A reply to another question: the peer is not what it says it is.
fn mismatch(_reply: &Reply) -> AuthError {
    AuthError::Unreachable(Unreachable::stray(Auth::NAME))
}
