//! The proxy role: journey B, from a WebSocket upgrade to a relayed console.
//!
//! `request` reads the upgrade, `console` takes it through token, origin and target, `target`
//! dials (and `preamble` asks there for one console of several), `session` lives as long as the
//! viewer, `roster` watches over all sessions, `close` says in words why one ended. The bytes
//! flow in [`relay`] over [`ws`], which know only each other. Called by the HTTP listener;
//! calls auth and compute through their facades.

pub mod close;
mod console;
mod input;
pub mod preamble;
pub mod relay;
pub mod request;
mod roster;
mod session;
pub mod target;
pub mod ws;

use std::time::Duration;

use ipnet::IpNet;

use crate::auth::Auth;
use crate::compute::{Compute, Displays};
use crate::drain::Watch;
use crate::rpc::Client;
use crate::telemetry::Metrics;

/// The role.
#[derive(Debug)]
pub struct Proxy {
    auth: Client<Auth>,
    compute: Client<Compute>,
    /// Where compute runs in this process, what its hypervisors hand over.
    displays: Option<Displays>,
    settings: Settings,
    metrics: Metrics,
    watch: Watch,
    places: console::Places,
    roster: roster::Roster,
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
    /// See [`crate::config::Proxy::max_sessions`].
    pub max_sessions: usize,
    /// What the relay goes by.
    pub relay: relay::Settings,
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
        let places = console::Places::new(settings.max_sessions);
        Self {
            auth,
            compute,
            displays: None,
            settings,
            metrics,
            watch,
            places,
            roster: roster::Roster::default(),
        }
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
