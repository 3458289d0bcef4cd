//! Reads the config again and puts it in force, as far as that goes without touching a session.
//!
//! Called for SIGHUP and for `vncgate reload`. Everything is read and built before anything is
//! exchanged, so that a config that is not good changes nothing.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{
    Addresses, StartError, Wiring, build_api, build_pages, certificates, keepers, settings, tokens,
};
use crate::api::Api;
use crate::audit::{Event, What};
use crate::auth::Rules;
use crate::compute::Tunnels;
use crate::config::Config;
use crate::http::Guard;
use crate::live::Live;
use crate::process::Notifier;
use crate::proxy::Proxy;
use crate::telemetry::{Level, Metrics};
use crate::tls::Server;
use crate::web::Pages;

/// Keys that count at once, as the config spells them; a table stands for all its keys. All others
/// say what was opened, dialled or started, and so count at the next start.
const AT_ONCE: &[&str] = &[
    "api.key",
    "api.public_url",
    "auth.idle_timeout",
    "auth.max_session",
    "auth.max_sessions",
    "auth.max_sessions_per_address",
    "auth.max_sessions_per_caller",
    "auth.max_sessions_per_instance",
    "auth.reconnect_window",
    "auth.second_viewer",
    "auth.single_use",
    "auth.url_ttl",
    "keystone.public_url",
    "limits",
    "log.level",
    "proxy.allowed_networks",
    "proxy.allowed_origins",
    "proxy.connect_timeout",
    "proxy.drain_timeout",
    "proxy.max_frame",
    "proxy.max_sessions",
    "proxy.mks_url",
    "proxy.name",
    "proxy.novnc_url",
    "proxy.ping_interval",
    "proxy.public_url",
    "proxy.serial_url",
    "proxy.spice_direct_url",
    "proxy.spice_url",
    "proxy.trusted_proxies",
    "proxy.vnc",
    "proxy.xvpvnc_url",
    "rpc.max_tunnels",
    "web",
];

/// These count at once where certificates are shown and go on to be: what speaks TLS was decided when
/// the doors were opened.
const CERTIFICATES: &[&str] = &["tls.certificate", "tls.extra", "tls.key"];

/// Of these, what a source of tokens that somebody else makes took at the start.
const FOREIGN: &[&str] = &["auth.url_ttl"];

/// Reads the config file, with what the command line says in place of it. Errors: in words.
pub type Reread = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// What became of a config that was read again.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys that changed and count from now on.
    pub changed: Vec<String>,
    /// Keys that differ from what this process started with and count at its next start.
    pub restart: Vec<String>,
}

/// Reads the config again. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Reloader(Arc<Inner>);

struct Inner {
    reread: Reread,
    started: Config,
    /// What was read last. Locked while one reads, so that no two do.
    last: Mutex<Config>,
    parts: Parts,
    notifier: Notifier,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

/// What takes a new config.
pub(super) struct Parts {
    /// These where they run.
    pub(super) api: Option<Live<Api>>,
    pub(super) pages: Live<Pages>,
    pub(super) proxy: Option<Arc<Proxy>>,
    pub(super) rules: Option<Rules>,
    pub(super) tunnels: Option<Tunnels>,
    pub(super) level: Level,
    pub(super) certificates: Live<Vec<PathBuf>>,
    /// What viewers are shown; nothing without TLS, or with a certificate that is in no file.
    pub(super) tls: Option<Server>,
    pub(super) drain_timeout: Live<Duration>,
    pub(super) wiring: Wiring,
    pub(super) addresses: Addresses,
    pub(super) metrics: Metrics,
}

impl Reloader {
    pub(super) fn new(config: Config, reread: Reread, notifier: Notifier, parts: Parts) -> Self {
        Self(Arc::new(Inner {
            reread,
            started: config.clone(),
            last: Mutex::new(config),
            parts,
            notifier,
        }))
    }

    /// Reads the config again. Logs, counts and tells the service manager what became of it. Errors:
    /// in words; then all is as it was.
    pub async fn reload(&self) -> Result<Reloaded, String> {
        let mut last = self.0.last.lock().await;
        self.0.notifier.reloading();
        let inner = Arc::clone(&self.0);
        let before = last.clone();
        // The files may lie on a mount that hangs.
        let read = tokio::task::spawn_blocking(move || inner.read(&before)).await;
        let outcome = read.unwrap_or_else(|error| Err(error.to_string()));
        let outcome = outcome.map(|(config, reloaded)| {
            *last = config;
            reloaded
        });
        self.0.tell(&outcome);
        outcome
    }
}

impl Inner {
    fn read(&self, before: &Config) -> Result<(Config, Reloaded), String> {
        let config = (self.reread)()?;
        self.parts.adopt(&config).map_err(|error| chain(&error))?;
        let ways = Ways {
            foreign: config.auth.source.is_foreign(),
            shown: self.parts.tls.is_some() && !config.tls.pairs().is_empty(),
        };
        let mut changed = differences(before, &config);
        changed.retain(|key| ways.count_at_once(key));
        let mut restart = differences(&self.started, &config);
        restart.retain(|key| !ways.count_at_once(key));
        Ok((config, Reloaded { changed, restart }))
    }

    fn tell(&self, outcome: &Result<Reloaded, String>) {
        self.parts.metrics.count_reload(outcome.is_ok());
        match outcome {
            Ok(Reloaded { changed, restart }) => {
                let (changed, restart) = (list(changed), list(restart));
                tracing::info!(changed, restart, "config reloaded");
                self.parts.wiring.audit.note(|| Event {
                    why: Some(format!("in force: {changed}; at the next start: {restart}")),
                    ..Event::new(What::ConfigReloaded)
                });
                let pending = if restart == NONE {
                    String::new()
                } else {
                    format!("; for {restart} a restart is needed")
                };
                self.notifier.ready(&format!("serving{pending}"));
            }
            Err(error) => {
                tracing::error!(error, "config not reloaded, the one before stays in force");
                let status = format!("serving with the config of before; the new one: {error}");
                self.notifier.ready(&status);
            }
        }
    }
}

impl Parts {
    pub(super) fn guard(&self) -> Guard {
        self.wiring.guard.clone()
    }

    /// Builds all that can fail, then puts it in place of what was.
    fn adopt(&self, config: &Config) -> Result<(), StartError> {
        let pages = build_pages(config)?;
        let api = build_api(config, &self.addresses, &self.wiring);
        let level = self.level.parse(&config.log.level);
        let level = level.map_err(|error| StartError::Level(error.to_string()))?;
        let shown = match &self.tls {
            Some(server) => keepers::reread(config)?.map(|read| (server, read)),
            None => None,
        };
        self.pages.exchange(pages);
        if let (Some(live), Some(api)) = (&self.api, api) {
            live.exchange(api);
        }
        if let Some(proxy) = &self.proxy {
            proxy.adopt(settings::proxy_settings(config));
        }
        if let Some(rules) = &self.rules {
            rules.adopt(tokens::settings(&config.auth));
        }
        if let Some(tunnels) = &self.tunnels {
            tunnels.limit(config.rpc.max_tunnels);
        }
        self.wiring.guard.adopt(keepers::rules(config));
        keepers::note_other_limits(config, &self.metrics);
        self.certificates.exchange(certificates::files(config));
        self.drain_timeout
            .exchange(config.proxy.drain_timeout.get());
        self.level.set(level);
        if let Some((server, read)) = shown {
            server.show(read);
        }
        Ok(())
    }
}

/// Which keys differ, as the config spells them.
fn differences(before: &Config, after: &Config) -> Vec<String> {
    let table = |config| toml::Table::try_from(config).unwrap_or_default();
    let mut found = Vec::new();
    compare("", &table(before), &table(after), &mut found);
    found
}

/// A list is one key: nobody can tell what became of its entries.
fn compare(path: &str, before: &toml::Table, after: &toml::Table, found: &mut Vec<String>) {
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let (old, new) = (before.get(key), after.get(key));
        let path = format!("{path}{key}");
        match (old, new) {
            (Some(toml::Value::Table(old)), Some(toml::Value::Table(new))) => {
                compare(&format!("{path}."), old, new, found);
            }
            _ if old != new => found.push(path),
            _ => {}
        }
    }
}

/// What of a process decides which keys count at once.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    /// Somebody else makes the tokens.
    foreign: bool,
    /// Certificates from files are shown, before and after.
    shown: bool,
}

impl Ways {
    fn count_at_once(self, key: &str) -> bool {
        let within = |table: &&str| {
            let rest = key.strip_prefix(*table);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let url = key.starts_with("proxy.") && key.ends_with("_url");
        let taken = self.foreign && (url || FOREIGN.contains(&key));
        let shown = self.shown && CERTIFICATES.contains(&key);
        shown || (AT_ONCE.iter().any(within) && !taken)
    }
}

const NONE: &str = "none";

fn list(keys: &[String]) -> String {
    if keys.is_empty() {
        return NONE.to_owned();
    }
    keys.join(", ")
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text).unwrap()
    }

    #[test]
    fn what_differs_is_told_by_its_key_and_never_by_its_value() {
        let before = config("[proxy]\nmax_frame = 8192\n[limits]\nsession_bandwidth = 1");
        let after = config(
            "[proxy]\nname = \"gate\"\n[proxy.vnc]\nca_file = \"/ca\"\n[[api.key]]\nname = \"k\"\n\
             sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"",
        );

        let found = differences(&before, &after);

        let keys = [
            "api.key",
            "limits.session_bandwidth",
            "proxy.max_frame",
            "proxy.name",
            "proxy.vnc.ca_file",
        ];
        assert_eq!(found, keys);
        assert!(found.iter().all(|key| Ways::default().count_at_once(key)));
    }

    #[test]
    fn what_was_opened_or_dialled_at_the_start_needs_another_start() {
        let opened = ["proxy.listen", "auth.source", "auth.max_tokens"];
        let dialled = ["compute.host", "keystone.url", "admin.socket", "log.format"];
        for key in opened.iter().chain(&dialled) {
            assert!(!Ways::default().count_at_once(key), "{key}");
        }
        let (foreign, shown) = (true, true);
        let foreign = Ways {
            foreign,
            ..Ways::default()
        };
        assert!(Ways::default().count_at_once("proxy.public_url"));
        assert!(!foreign.count_at_once("proxy.public_url"));
        let shown = Ways {
            shown,
            ..Ways::default()
        };
        assert!(!Ways::default().count_at_once("tls.extra"));
        assert!(shown.count_at_once("tls.extra"));
        assert!(!shown.count_at_once("tls.redirect_listen"));
    }

    #[test]
    fn every_key_that_counts_at_once_is_one() {
        let example = toml::from_str::<toml::Table>(crate::config::EXAMPLE).unwrap();
        for key in AT_ONCE {
            let (table, name) = key.split_once('.').unwrap_or((key, ""));
            let known = example[table].as_table().unwrap();
            let unset = format!("\n#{name} = ");
            let list = format!("#[[{key}]]");
            let text = crate::config::EXAMPLE;
            let found = name.is_empty() || known.contains_key(name);
            assert!(
                found || text.contains(&unset) || text.contains(&list),
                "{key}"
            );
        }
    }
}
