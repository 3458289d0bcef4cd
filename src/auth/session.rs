//! What auth knows of live sessions, and how it has one ended.
//!
//! A proxy registers a session before it opens, renews its lease with a [`Beat`], and takes it
//! out at its end. Whoever wants one ended makes an [`Order`], which the proxy that holds the
//! session hears at once ([`Client::orders`]) or, if that was missed, with its next beat.
//!
//! [`Client::orders`]: crate::rpc::Client::orders

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    Browser, ConsoleType, InstanceId, Rights, SessionId, Terms, TokenId, UnixTime, Way,
};

/// How often a proxy renews the leases of its sessions.
pub const BEAT: Duration = Duration::from_secs(5);

/// How long a session is believed to live without a beat.
pub const LEASE: Duration = Duration::from_secs(20);

/// Who looks at what: what does not change while a session lives, but for its rights. Thousands are
/// held, so its texts are those of the grant, where that is near.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// The token that opened it.
    pub token: TokenId,
    /// The instance it shows.
    pub instance: InstanceId,
    /// That instance's name when the token was made.
    pub instance_name: Arc<str>,
    /// Which of its consoles.
    pub console_type: ConsoleType,
    /// Whose the instance is, by project id, where that is known.
    pub project: Option<Arc<str>>,
    /// Where that console is.
    pub host: Arc<str>,
    /// Which proxy holds it.
    pub proxy: Arc<str>,
    /// Who asked for the token.
    pub caller: Arc<str>,
    /// Where the viewer is.
    pub viewer: Option<IpAddr>,
    /// What the viewer sits at.
    pub browser: Browser,
    /// Since when.
    pub started: UnixTime,
    /// What its viewer is to be allowed; what it may do now stands in the [`Beat`].
    #[serde(default)]
    pub rights: Rights,
    /// On what terms.
    pub terms: Terms,
}

/// A session and how it goes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LiveSession {
    /// What does not change. Shared with the proxy that holds the session, if that is near.
    pub record: Arc<SessionRecord>,
    /// What does, as of the last beat.
    pub beat: Beat,
}

/// How a session goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// Which session.
    pub session: SessionId,
    /// Bytes from the viewer.
    pub up: u64,
    /// Bytes to the viewer.
    pub down: u64,
    /// When the viewer last pressed or moved something.
    pub last_input: UnixTime,
    /// How its console is reached, once it is.
    #[serde(default)]
    pub way: Option<Way>,
    /// What the viewer may do, as its proxy enforces it.
    #[serde(default)]
    pub rights: Rights,
}

impl Beat {
    /// The first beat of a session.
    pub fn first(record: &SessionRecord) -> Self {
        Self {
            session: record.id,
            up: 0,
            down: 0,
            last_input: record.started,
            way: None,
            rights: record.rights,
        }
    }
}

/// The answer to beats.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Pulse {
    /// Sessions that auth does not know (any more): to be registered again.
    pub unknown: Vec<SessionId>,
    /// Sessions that are to end, or to have other rights.
    pub orders: Vec<Order>,
}

/// What is to become of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Which.
    pub session: SessionId,
    /// What.
    pub wish: Wish,
}

/// What an order wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Wish {
    /// The session is to end.
    End(Cause),
    /// Its viewer is to have these rights.
    Rights(Rights),
}

impl Order {
    /// A session is to end.
    pub fn end(session: SessionId, cause: Cause) -> Self {
        let wish = Wish::End(cause);
        Self { session, wish }
    }

    /// The viewer of a session is to have other rights.
    pub fn rights(session: SessionId, rights: Rights) -> Self {
        let wish = Wish::Rights(rights);
        Self { session, wish }
    }
}

/// Why a session is to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Cause {
    /// An operator wants it.
    Operator,
    /// Its token was revoked.
    Revoked,
    /// Another viewer took its console over.
    TakenOver,
}

impl SessionRecord {
    /// What becomes of it if its viewer is to have these rights: the console's clipboard stays as
    /// it was when the session opened, because no proxy can change that in the middle.
    pub fn changeable(&self, rights: Rights) -> Rights {
        Rights {
            clipboard_out: self.rights.clipboard_out,
            ..rights
        }
    }
}

/// How many sessions there may be at one time; none is no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// In all.
    pub all: Option<usize>,
    /// Of one instance.
    pub instance: Option<usize>,
    /// With tokens that one caller asked for.
    pub caller: Option<usize>,
    /// From one address.
    pub address: Option<usize>,
}

/// A limit that is reached, and where it stands in the config.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum Reached {
    /// In all.
    #[error("there are as many sessions as auth.max_sessions allows")]
    All,
    /// Of one instance.
    #[error("the instance has as many sessions as auth.max_sessions_per_instance allows")]
    Instance,
    /// Of one caller.
    #[error("the caller has as many sessions as auth.max_sessions_per_caller allows")]
    Caller,
    /// From one address.
    #[error("the viewer's address has as many sessions as auth.max_sessions_per_address allows")]
    Address,
}
