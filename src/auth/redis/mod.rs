//! Tokens and sessions in Redis or Valkey, for many auths and proxies at once.
//!
//! One server, a master that Sentinels name, or a cluster. Grants expire by the server's own clock
//! too. What has to change together changes in a script; each token is one key, all sessions lie
//! in one slot. Orders are published, so that every auth tells its proxies at once; what was
//! published while a connection was lost is found by the next beats. Nothing here shows a token.

mod link;
mod sessions;
mod tokens;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::AuthError;
use super::session::{Limits, Order};
use crate::live::Live;
use crate::model::Address;
use crate::rpc::Feed;
use link::Link;

/// Which Redis, and how to be let in.
#[derive(Clone)]
pub struct Settings {
    /// The server, the Sentinels, or some of the cluster.
    pub servers: Vec<Address>,
    /// What they are.
    pub topology: Topology,
    /// Who logs in, if not the default user.
    pub user: Option<String>,
    /// With what.
    pub password: Option<Zeroizing<String>>,
    /// Whether to speak TLS, and whom to trust.
    pub tls: Option<Trust>,
    /// What all keys begin with.
    pub prefix: String,
}

/// What [`Settings::servers`] are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Topology {
    /// One server.
    Single,
    /// Sentinels that know a master by this name.
    Sentinel(String),
    /// Nodes of a cluster.
    Cluster,
}

/// Whom TLS trusts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trust {
    /// The machine's own authorities.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("servers", &self.servers)
            .field("topology", &self.topology)
            .field("user", &self.user)
            .field("tls", &self.tls)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Keeps both tokens and sessions. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Redis {
    link: Arc<Link>,
    max_tokens: usize,
    limits: Live<Limits>,
}

impl Redis {
    /// A store that connects when it is first asked. Orders of other auths go to `orders`.
    pub(super) fn new(
        settings: Settings,
        max_tokens: usize,
        limits: Live<Limits>,
        orders: Arc<Feed<Order>>,
    ) -> Self {
        Self {
            link: Arc::new(Link::new(settings, orders)),
            max_tokens,
            limits,
        }
    }

    /// Keeps the connection, and hears what is published. Never ends.
    pub(super) async fn listen(&self) {
        self.link.listen().await;
    }

    /// A key by itself, in any slot.
    fn key(&self, kind: &str, name: &str) -> String {
        format!("{}:{kind}:{name}", self.link.prefix())
    }

    /// A key in the slot of all that has to change together.
    fn joint(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.link.prefix())
    }
}

/// What cannot be read was written by somebody else, or by another version.
fn unreadable(error: &serde_json::Error) -> AuthError {
    AuthError::Store(format!("what Redis keeps makes no sense: {error}"))
}
