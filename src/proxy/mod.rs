//! The proxy role: journey B, from a WebSocket upgrade to a relayed console.
//!
//! `request` reads the upgrade, `console` takes it through token, origin and target, `target`
//! dials (and `preamble` asks there for one console of several), `entry` and `reception` shake
//! hands with the VNC server and the viewer by the rules in [`rfb`] (`approach` says how), `session`
//! lives as long as the viewer, `roster` watches over all sessions, `close` says in words why one
//! ended; `tell` answers a page that asks what its viewer may do. The bytes
//! flow in [`relay`] over [`ws`], which know only each other. Called by the HTTP listener;
//! calls auth and compute through their facades.

mod approach;
mod bandwidth;
pub mod close;
mod console;
pub mod entry;
mod input;
pub mod preamble;
mod reception;
pub mod relay;
pub mod request;
pub mod rfb;
mod rights;
mod roster;
mod session;
pub mod target;
mod tell;
pub mod ws;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use self::bandwidth::Bandwidth;

use crate::audit::Audit;
use crate::auth::Auth;
use crate::compute::{Compute, Displays};
use crate::drain::Watch;
use crate::http::{Guard, Rules};
use crate::live::Live;
use crate::model::Security;
use crate::rpc::Client;
use crate::telemetry::Metrics;
use crate::workers::Workers;

/// The role.
#[derive(Debug)]
pub struct Proxy {
    auth: Client<Auth>,
    compute: Client<Compute>,
    /// Where compute runs in this process, what its hypervisors hand over.
    displays: Option<Displays>,
    settings: Live<Settings>,
    metrics: Metrics,
    /// Is told who did what.
    audit: Audit,
    watch: Watch,
    places: console::Places,
    roster: roster::Roster,
    bandwidth: bandwidth::Tenants,
    /// Where sessions run, if not where their connections did.
    workers: Option<Workers>,
    guard: Guard,
}

/// What of the config the proxy goes by.
#[derive(Debug)]
pub struct Settings {
    /// What this proxy is called in lists of sessions.
    pub name: String,
    /// See [`crate::config::Proxy::allowed_origins`].
    pub allowed_origins: Vec<String>,
    /// See [`crate::config::Proxy::trusted_proxies`].
    pub trusted_proxies: Vec<IpNet>,
    /// See [`crate::config::Proxy::connect_timeout`].
    pub connect_timeout: Duration,
    /// See [`crate::config::Proxy::allowed_networks`].
    pub allowed_networks: Vec<IpNet>,
    /// See [`crate::config::Proxy::vnc`].
    pub vnc: Security,
    /// See [`crate::config::Proxy::max_sessions`].
    pub max_sessions: usize,
    /// What the relay goes by.
    pub relay: Arc<relay::Settings>,
    /// Bytes per second that may pass.
    pub bandwidth: Bandwidth,
}

impl Proxy {
    /// A role that asks `auth` and `compute`, counts in `metrics` and ends with `watch`.
    pub fn new(
        auth: Client<Auth>,
        compute: Client<Compute>,
        settings: Settings,
        metrics: Metrics,
        watch: Watch,
    ) -> Self {
        Self {
            auth,
            compute,
            displays: None,
            settings: Live::new(settings),
            metrics,
            audit: Audit::default(),
            watch,
            places: console::Places::default(),
            roster: roster::Roster::default(),
            bandwidth: bandwidth::Tenants::default(),
            workers: None,
            guard: Guard::new(Rules::default(), |_| ()),
        }
    }

    /// The same, telling `audit` who did what.
    #[must_use]
    pub fn with_audit(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// Goes by other settings from now on. Sessions that live keep those they began with.
    pub fn adopt(&self, settings: Settings) {
        self.settings.exchange(settings);
    }

    /// The same, relaying on threads of its own.
    #[must_use]
    pub fn with_workers(self, workers: Workers) -> Self {
        Self {
            workers: Some(workers),
            ..self
        }
    }

    /// The same, turning away whom `guard` does.
    #[must_use]
    pub fn with_guard(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }

    /// The same, taking consoles from the hypervisors of this machine where they hand them over.
    #[must_use]
    pub fn with_displays(self, displays: Displays) -> Self {
        Self {
            displays: Some(displays),
            ..self
        }
    }
}
