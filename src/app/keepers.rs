//! Who keeps the doors as the config wants it: TLS, who announces connections, who is turned away.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::sleep;

use super::memory;
use super::settings::{limits, machine_name};
use crate::config::{Config, Period, TlsListener};
use crate::drain::Watch;
use crate::http::{Door, Guard, Rules, Tls};
use crate::telemetry::Metrics;
use crate::tls::{Identity, Prepared, Renewal, Server, TlsError, self_signed};
use crate::workers::Workers;

/// Between two looks at the files of certificates.
const PAUSE: Duration = Duration::from_secs(2);

/// Keeps doors.
#[derive(Debug)]
pub(super) struct Keepers<'a> {
    config: &'a Config,
    tls: Option<Tls>,
    guard: Guard,
    /// Where connections that ask for consoles begin, if not here.
    workers: Option<Workers>,
}

/// Our side of TLS, if the config wants any. Blocks. Errors: a file that is of no use.
pub(super) fn tls(config: &Config) -> Result<Option<Server>, TlsError> {
    if config.tls.self_signed {
        let (server, sha256) = self_signed(own_names(config))?;
        tracing::warn!(
            sha256,
            "the certificate is one of our own that nobody vouches for"
        );
        return Ok(Some(server));
    }
    let identities = identities(config);
    let some = !identities.is_empty();
    some.then(|| Server::read(identities)).transpose()
}

/// The certificates that the config names now, where it named some at the start. Blocks. Errors: a
/// file that is of no use.
pub(super) fn reread(config: &Config) -> Result<Option<Prepared>, TlsError> {
    let identities = identities(config);
    let some = !identities.is_empty();
    some.then(|| Prepared::read(identities)).transpose()
}

fn identities(config: &Config) -> Vec<Identity> {
    let pairs = config.tls.pairs().into_iter();
    let identities = pairs.map(|pair| Identity {
        certificate: pair.certificate,
        key: pair.key,
    });
    identities.collect()
}

/// What this machine may be called in a URL.
fn own_names(config: &Config) -> Vec<String> {
    let mut names = BTreeSet::from(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    let listen = config.proxy.listen.iter().map(SocketAddr::ip);
    let listen = listen.filter(|ip| !ip.is_unspecified());
    names.extend(listen.map(|ip| ip.to_string()));
    let public = config.proxy.public_url.as_ref();
    let public = public.and_then(|url| url.host_str());
    names.extend(public.map(|host| host.trim_matches(['[', ']']).to_owned()));
    let machine = machine_name();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    if !machine.is_empty() && machine.bytes().all(plain) {
        let _known = names.insert(machine);
    }
    names.into_iter().collect()
}

impl<'a> Keepers<'a> {
    /// Begins to look after the certificates and the memory.
    pub(super) fn start(
        config: &'a Config,
        server: Option<Server>,
        guard: Guard,
        (metrics, watch): (&Metrics, &Watch),
    ) -> Self {
        memory::start(&guard, metrics, watch);
        if let Some(server) = server.clone() {
            watch.spawn_service(renew(server, watch.clone()));
        }
        let tls = server.map(|server| Tls {
            server,
            timeout: config.tls.handshake_timeout.get(),
            hsts: hsts(config),
        });
        Self {
            config,
            tls,
            guard,
            workers: None,
        }
    }

    /// The same, having connections in clear text that ask for consoles begin on `workers`.
    pub(super) fn with_workers(self, workers: Option<Workers>) -> Self {
        Self { workers, ..self }
    }

    /// A door to pages, API or monitor.
    pub(super) fn door(&self, which: TlsListener) -> Door {
        let config = self.config;
        // Whoever watches us has to see us when nobody else is let in.
        let mut door = match which {
            TlsListener::Monitor => self.plain(),
            TlsListener::Proxy | TlsListener::Api => self.clear(),
        };
        door.announced = match which {
            TlsListener::Proxy => config.proxy.proxy_protocol,
            TlsListener::Api => config.api.proxy_protocol,
            TlsListener::Monitor => false,
        };
        door.tls = self.tls.clone().filter(|_| config.tls.is_on(which));
        // A handshake of TLS would hold streams up.
        let begins = which == TlsListener::Proxy && door.tls.is_none();
        door.workers = self.workers.clone().filter(|_| begins);
        door
    }

    /// One in clear text that turns people away.
    pub(super) fn clear(&self) -> Door {
        Door {
            guard: self.guard.clone(),
            ..self.plain()
        }
    }

    /// One in clear text for everybody.
    pub(super) fn plain(&self) -> Door {
        Door::plain(limits(self.config))
    }
}

/// Who turns clients away, and tells the metrics.
pub(super) fn guard(config: &Config, metrics: &Metrics) -> Guard {
    note_limits(config, metrics);
    let metrics = metrics.clone();
    Guard::new(rules(config), move |turned| {
        metrics.count_turned_away(turned.as_str());
    })
}

/// What each address may do.
pub(super) fn rules(config: &Config) -> Rules {
    let limits = &config.limits;
    Rules {
        connections: limits.connections_per_address,
        connections_per_second: limits.new_connections_per_address,
        failures_per_second: limits.failed_tokens_per_address,
        exempt: config.proxy.trusted_proxies.clone(),
        memory: memory::ceiling(config),
    }
}

/// Shows the limits in force.
fn note_limits(config: &Config, metrics: &Metrics) {
    let (proxy, tls) = (&config.proxy, &config.tls);
    for (name, value) in [
        ("max_connections", number(proxy.max_connections)),
        ("max_header", number(proxy.max_header)),
        ("header_timeout_seconds", seconds(proxy.header_timeout)),
        ("handshake_timeout_seconds", seconds(tls.handshake_timeout)),
        ("max_tokens", number(config.auth.max_tokens)),
    ] {
        metrics.note_limit(name, value);
    }
    note_other_limits(config, metrics);
}

/// Shows those in force that a config which is read again can change.
pub(super) fn note_other_limits(config: &Config, metrics: &Metrics) {
    let (proxy, auth, limits) = (&config.proxy, &config.auth, &config.limits);
    let per_address = [
        ("connections_per_address", limits.connections_per_address),
        (
            "new_connections_per_address",
            limits.new_connections_per_address,
        ),
        (
            "failed_tokens_per_address",
            limits.failed_tokens_per_address,
        ),
    ];
    let sessions = [
        ("max_sessions", proxy.max_sessions),
        ("max_sessions_on_all_proxies", auth.max_sessions),
        ("max_sessions_per_instance", auth.max_sessions_per_instance),
        ("max_sessions_per_caller", auth.max_sessions_per_caller),
        ("max_sessions_per_address", auth.max_sessions_per_address),
        ("max_frame", proxy.max_frame),
        ("max_tunnels", config.rpc.max_tunnels),
    ];
    let others = [
        ("connect_timeout_seconds", seconds(proxy.connect_timeout)),
        ("memory", memory::ceiling(config)),
        ("session_bandwidth", limits.session_bandwidth),
        ("tenant_bandwidth", limits.tenant_bandwidth),
    ];
    let per_address = per_address.map(|(name, value)| (name, value.into()));
    let sessions = sessions.map(|(name, value)| (name, number(value)));
    for (name, value) in per_address.into_iter().chain(sessions).chain(others) {
        metrics.note_limit(name, value);
    }
}

fn number(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Less than a second is not none.
fn seconds(period: Period) -> u64 {
    let begun = period.get().as_millis().div_ceil(1000);
    u64::try_from(begun).unwrap_or(u64::MAX)
}

fn hsts(config: &Config) -> Option<HeaderValue> {
    let seconds = config.tls.hsts.get().as_secs();
    let value = HeaderValue::try_from(format!("max-age={seconds}"));
    value.ok().filter(|_| seconds > 0)
}

/// Looks at the files now and then until everything ends.
async fn renew(server: Server, watch: Watch) {
    loop {
        tokio::select! {
            () = watch.closing() => return,
            () = sleep(PAUSE) => {}
        }
        let server = server.clone();
        // They may lie on a mount that hangs.
        let renewed = tokio::task::spawn_blocking(move || server.renew());
        match renewed.await {
            Ok(Renewal::Changed) => tracing::info!("new certificates for new connections"),
            Ok(Renewal::Bad(why)) => {
                tracing::warn!(why, "new certificates are of no use; the old ones go on");
            }
            Ok(Renewal::Same) | Err(_) => {}
        }
    }
}
