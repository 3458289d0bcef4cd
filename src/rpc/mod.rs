//! How one role calls another: the same client, wherever the role runs.
//!
//! A [`Role`] takes requests; a [`Client`] reaches one. Near means in this process, over a
//! bounded channel and without serializing. Requests, replies and errors can all be serialized,
//! because they are what a role in another process is sent. Everything that is called can fail
//! to be reached, so every role's error can hold [`Unreachable`].

mod feed;
mod mailbox;

use std::future::Future;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use feed::{Cursor, Feed, HOLD, News};
pub use mailbox::{Mailbox, serve};

/// One of the program's four parts, as others call it.
pub trait Role: Send + Sync + 'static {
    /// Its name in messages: `auth`, `compute`.
    const NAME: &'static str;
    /// What it can be asked.
    type Request: Serialize + DeserializeOwned + Send + 'static;
    /// What it answers.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// Why it may not.
    type Error: Serialize + DeserializeOwned + From<Unreachable> + Send + 'static;

    /// Answers one request. Harmless when nobody waits for the answer any more.
    fn call(
        &self,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Reply, Self::Error>> + Send;
}

/// The role did not answer. Nothing is known of whether it acted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum Unreachable {
    /// Its queue is full.
    #[error("the {0} role is busy, try again")]
    Busy(String),
    /// It did not answer before the deadline.
    #[error("the {0} role did not answer in time")]
    Deadline(String),
    /// It has ended.
    #[error("the {0} role is not running")]
    Gone(String),
    /// It answered another question: two versions that do not fit.
    #[error("the {0} role's answer makes no sense; is it the same version?")]
    Confused(String),
}

/// How long any call may take; lookups inside it have shorter limits of their own.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Reaches a role.
#[derive(Debug)]
pub enum Client<R: Role> {
    /// It runs in this process.
    Near(Mailbox<R>),
}

impl<R: Role> Client<R> {
    /// Asks the role and waits for its answer up to [`DEADLINE`]. Cancel-safe: a dropped call may
    /// still be acted upon.
    pub async fn call(&self, request: R::Request) -> Result<R::Reply, R::Error> {
        let Self::Near(mailbox) = self;
        let answer = tokio::time::timeout(DEADLINE, mailbox.call(request)).await;
        answer.unwrap_or_else(|_| Err(Unreachable::Deadline(R::NAME.to_owned()).into()))
    }
}

impl<R: Role> Clone for Client<R> {
    fn clone(&self) -> Self {
        let Self::Near(mailbox) = self;
        Self::Near(mailbox.clone())
    }
}
