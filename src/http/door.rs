//! How a door is kept: what a connection may cost, and what comes before HTTP on it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::HeaderValue;

use super::guard::{Guard, Rules};
use crate::tls;
use crate::workers::Workers;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// Somebody who may open our Unix socket: its owner.
    Owner,
}

impl Peer {
    /// Its address, if it has one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Owner => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Owner => f.write_str("admin socket"),
        }
    }
}

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at one time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long a request's head may take; also how long a quiet connection is kept.
    pub header_timeout: Duration,
    /// The largest head of a request, in bytes; 8192 at least.
    pub header_size: usize,
}

/// A door and who keeps it.
#[derive(Clone, Debug)]
pub struct Door {
    /// What a connection may cost.
    pub limits: Limits,
    /// Who turns clients away.
    pub guard: Guard,
    /// TLS, where it is spoken.
    pub tls: Option<Tls>,
    /// Whether whom the guard exempts has to announce each connection by the PROXY protocol: then
    /// nobody else is served.
    pub announced: bool,
    /// The threads on which connections in clear text begin, if not where the door is served.
    pub workers: Option<Workers>,
}

/// TLS of a door.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Our side of it.
    pub server: tls::Server,
    /// How long shaking hands may take.
    pub timeout: Duration,
    /// `Strict-Transport-Security`, on every answer.
    pub hsts: Option<HeaderValue>,
}

/// What a request carries that came inside TLS of ours.
#[derive(Clone, Copy, Debug)]
pub struct Secure;

impl Door {
    /// One in clear text that turns nobody away.
    pub fn plain(limits: Limits) -> Self {
        Self {
            limits,
            guard: Guard::new(Rules::default(), |_| ()),
            tls: None,
            announced: false,
            workers: None,
        }
    }
}
