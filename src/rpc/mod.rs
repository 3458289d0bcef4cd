//! How one role calls another: the same client, wherever the role runs.
//!
//! A [`Role`] takes requests; a [`Client`] reaches one. Near means in this process, over a
//! bounded channel and without serializing. Far means in another one, over HTTP/2 ([`Links`] are
//! the ways there, a [`Desk`] is where it is answered, [`Keys`] say who may call); requests,
//! replies and errors travel as they are; [`Streams`] are handed out on connections of their own.
//! Everything that is called can fail to be reached, so
//! every role's error can hold [`Unreachable`].

mod carry;
mod desk;
mod far;
mod feed;
mod keys;
mod linger;
mod link;
mod mailbox;
mod tunnel;
mod wire;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use desk::Desk;
pub use far::{Far, Links, Timeouts};
pub use feed::{Cursor, Feed, HOLD, News};
pub use keys::{BadSecret, Keys, Secret};
pub use mailbox::{Mailbox, serve};
pub use tunnel::{Duplex, Given, Streams, Tunnel, Way};

/// What the roles are called: in addresses, certificates and messages.
pub const NAMES: &[&str] = &["api", "auth", "compute", "proxy"];

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

    /// The roles that may ask this, where callers show which they are.
    fn callers(request: &Self::Request) -> &'static [&'static str];

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
    /// It has ended, or cannot be reached where it should run; the log says why.
    #[error("the {0} role is not running")]
    Gone(String),
    /// It does not take us for one that may ask, or we do not take it for what it should be.
    #[error("the {0} role and this one do not trust each other; the log says why")]
    Refused(String),
    /// What it says makes no sense here: two versions that do not fit.
    #[error(
        "the {role} role is of version {theirs} and not understood by version {ours}; run the \
         same version everywhere"
    )]
    Confused {
        /// Its name.
        role: String,
        /// The version that it says it is.
        theirs: String,
        /// The version of who asked it.
        ours: String,
    },
}

impl Unreachable {
    /// A role of this version answered another question.
    pub fn stray(role: &str) -> Self {
        Self::Confused {
            role: role.to_owned(),
            theirs: wire::VERSION.to_owned(),
            ours: wire::VERSION.to_owned(),
        }
    }
}

/// How long any call may take; lookups inside it have shorter limits of their own.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Reaches a role.
pub enum Client<R: Role> {
    /// It runs in this process.
    Near(Mailbox<R>),
    /// It runs in another one.
    Far(Far<R>),
}

impl<R: Role> Client<R> {
    /// Asks the role and waits for its answer up to [`DEADLINE`]; if it is far, as long as the
    /// config says. Cancel-safe: a dropped call may still be acted upon.
    pub async fn call(&self, request: R::Request) -> Result<R::Reply, R::Error> {
        match self {
            Self::Near(mailbox) => mailbox.call(request).await,
            // Of no size where roles are near.
            Self::Far(far) => Box::pin(far.call(request)).await,
        }
    }

    /// Whether the process in which it runs can be reached; nothing is asked of the role itself.
    pub async fn reach(&self) -> Result<(), Unreachable> {
        match self {
            Self::Near(_) => Ok(()),
            Self::Far(far) => far.reach().await,
        }
    }
}

impl<R: Role> Clone for Client<R> {
    fn clone(&self) -> Self {
        match self {
            Self::Near(mailbox) => Self::Near(mailbox.clone()),
            Self::Far(far) => Self::Far(far.clone()),
        }
    }
}

impl<R: Role> fmt::Debug for Client<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Near(mailbox) => mailbox.fmt(f),
            Self::Far(far) => far.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
