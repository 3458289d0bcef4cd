//! Puts the roles together: which run here, what they listen on, who calls whom.
//!
//! Three steps: [`App::bind`] opens every door, so that a busy port is an error before anything
//! runs; [`App::addresses`] tells where they are; [`App::run`] serves until the drain ends. The
//! only module that knows every role.

mod certificates;
mod doors;
mod front;
mod memory;
mod monitor;
mod tokens;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::api::{Api, Gatekeeper, Identities, NovaSettings, Urls};
use crate::audit::{Audit, Place};
use crate::auth::BadDatabase;
use crate::auth::store::BadFile;
use crate::compute::Compute;
use crate::compute::driver::libvirt::sasl::Credentials;
use crate::compute::driver::libvirt::transport::Uri;
use crate::compute::driver::libvirt::{self, Libvirt};
use crate::compute::driver::{BadEntry, Directory, Discover, Driver, Entry, Fixed, Qmp};
use crate::config::{self, Config, FixedInstance, Hypervisor, TlsListener};
use crate::demo::Demo;
use crate::drain::Drain;
use crate::http::{BindError, Limits, Listener};
use crate::keystone::{self, Keystone};
use crate::model::{Address, ConsoleKind, Host, Security, Target};
use crate::proxy::{Bandwidth, Proxy, Settings, Workers, relay};
use crate::rpc::{self, Client};
use crate::telemetry::Metrics;
use crate::tls::{self, TlsError};
use crate::web::{BadPages, Pages};
use doors::Doors;
use front::{Admin, Front};
use monitor::Monitor;

/// What runs beside what the config names.
#[derive(Debug, Default)]
pub struct Extras {
    /// The console that needs no hypervisor.
    pub demo: bool,
    /// A VNC server to give a console of.
    pub target: Option<Address>,
    /// Whether the proxy role runs for others: the API then answers on the admin socket alone.
    pub proxy_alone: bool,
}

/// The name of the demo's instance.
pub const DEMO: &str = "demo";

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A door cannot be opened.
    #[error("{key}: {error}")]
    Door {
        /// The key of the config that says where it is.
        key: &'static str,
        /// Why not.
        error: BindError,
    },
    /// The demo's own port cannot be opened.
    #[error("the demo cannot listen on loopback")]
    Demo(#[source] std::io::Error),
    /// There is no TLS as the config wants it.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The threads that relay cannot be started.
    #[error("cannot start the threads that relay")]
    Workers(#[source] std::io::Error),
    /// The pages cannot be served.
    #[error(transparent)]
    Web(#[from] BadPages),
    /// Two instances listed by hand cannot be told apart.
    #[error("compute.instance: {0}")]
    Instances(#[from] BadEntry),
    /// Nobody could tell later who did what.
    #[error("audit: {place} cannot be written: {why}")]
    Audit {
        /// Where it was to go.
        place: Place,
        /// Why not.
        why: std::io::Error,
    },
    /// Tokens cannot be kept.
    #[error("auth.file: {0}")]
    Tokens(#[from] BadFile),
    /// There is no password to log in to Redis with.
    #[error("auth.redis.password_file: cannot read {}: {why}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: std::io::Error,
    },
    /// Keystone could never be asked.
    #[error("keystone: {0}")]
    Keystone(#[from] keystone::BadSettings),
    /// A database cannot be asked as the config says.
    #[error("auth.databases: {0}")]
    Database(#[from] BadDatabase),
    /// A hypervisor cannot be asked as the config says.
    #[error("compute.host `{name}`: {why}")]
    Host {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// A program whose doors are open.
#[derive(Debug)]
pub struct App {
    public: Vec<Listener>,
    api_only: Vec<Listener>,
    monitor: Vec<Listener>,
    redirect: Vec<Listener>,
    admin: Listener,
    tls: Option<tls::Server>,
    addresses: Addresses,
    demo: Option<Demo>,
    drivers: Vec<Box<dyn Driver>>,
    keystone: Option<keystone::Settings>,
    pages: Pages,
    workers: Workers,
    proxy_alone: bool,
    config: Config,
}

/// Where the doors are.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Pages and WebSockets, and the API if it has no listener of its own.
    pub listen: Vec<SocketAddr>,
    /// The API's own.
    pub api: Vec<SocketAddr>,
    /// Health and metrics.
    pub monitor: Vec<SocketAddr>,
    /// Clear text that is sent on to https.
    pub redirect: Vec<SocketAddr>,
    /// Those of viewers and callers that speak no TLS.
    pub clear: Vec<SocketAddr>,
    /// The admin socket.
    pub admin: PathBuf,
}

impl App {
    /// Opens every door. Nothing is served yet.
    pub async fn bind(config: Config, extras: Extras, admin: PathBuf) -> Result<Self, StartError> {
        let ancestors = &config.web.frame_ancestors;
        let pages = match &config.web.root {
            None => Pages::embedded(ancestors)?,
            Some(root) => Pages::on_disk(root.clone(), ancestors)?,
        };
        tokens::check(&config)?;
        let (public, listen) = bind_all("proxy.listen", &config.proxy.listen)?;
        let api = if extras.proxy_alone {
            &[]
        } else {
            &*config.api.listen
        };
        let (api_only, api) = bind_all("api.listen", api)?;
        let (monitor, monitor_addresses) = bind_all("monitor.listen", &config.monitor.listen)?;
        let redirect = &config.tls.redirect_listen;
        let (redirect, redirect_addresses) = bind_all("tls.redirect_listen", redirect)?;
        let demo = if extras.demo {
            Some(Demo::bind().await.map_err(StartError::Demo)?)
        } else {
            None
        };
        let addresses = Addresses {
            clear: in_clear(&config, &listen, &api),
            listen,
            api,
            monitor: monitor_addresses,
            redirect: redirect_addresses,
            admin,
        };
        Ok(Self {
            public,
            api_only,
            monitor,
            redirect,
            tls: doors::tls(&config)?,
            admin: Listener::unix(&addresses.admin).map_err(door("admin.socket"))?,
            addresses,
            drivers: drivers(&config, demo.as_ref(), extras.target.as_ref())?,
            keystone: keystone_settings(&config)?,
            demo,
            pages,
            workers: Workers::start().map_err(StartError::Workers)?,
            proxy_alone: extras.proxy_alone,
            config,
        })
    }

    /// Whether the ways to the hypervisors are such that can be gone: what the config itself cannot
    /// judge. Reads the files of passwords, CAs and databases. Errors: `Host`, `Keystone`,
    /// `Database`.
    pub fn check(config: &Config) -> Result<(), StartError> {
        tokens::check(config)?;
        let _settings = keystone_settings(config)?;
        hypervisors(config).map(drop)
    }

    /// Where the doors are, ports chosen by the system included.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Starts to serve; ends with `drain`. Returns what this process itself may call. Errors:
    /// `Tokens`.
    pub fn run(self, drain: &Drain) -> Result<Running, StartError> {
        let watch = drain.watch();
        let (metrics, audit) = start_audit(&self.config.audit)?;
        let doors = Doors::new(&self.config, self.tls.clone(), &metrics, &watch);
        let keystone = self.keystone.map(|it| Keystone::new(it, &watch));
        let compute = Compute::new(self.drivers);
        compute.start(&watch);
        certificates::start(&self.config, &metrics, &watch);
        let displays = compute.displays();
        let compute = Client::Near(rpc::serve(compute, &watch));
        let urls = urls(&self.config, &self.addresses);
        let auth = tokens::auth(&self.config, &urls, keystone.as_ref(), &watch)?;
        let auth = Client::Near(rpc::serve(auth, &watch));
        let demo = self.demo.into_iter();
        demo.for_each(|demo| watch.spawn_service(demo.run(watch.clone())));
        let settings = proxy_settings(&self.config);
        let (a, c) = (auth.clone(), compute.clone());
        let (m, w) = (metrics.clone(), watch.clone());
        let proxy = Proxy::new(a, c, settings, m, w).with_displays(displays);
        let proxy = proxy.with_workers(self.workers).with_audit(audit.clone());
        let proxy = Arc::new(proxy.with_guard(doors.guard()));
        proxy.start();
        let api = Arc::new(Api {
            gatekeeper: gatekeeper(&self.config, keystone),
            urls,
            nova: nova_settings(&self.config),
            url_ttl: self.config.auth.url_ttl.get(),
            terms: self.config.auth.terms(),
            auth: auth.clone(),
            compute: compute.clone(),
            audit: audit.clone(),
            metrics: metrics.clone(),
            guard: doors.guard(),
            watch: watch.clone(),
        });
        let shared = self.api_only.is_empty() && !self.proxy_alone;
        let front = Arc::new(Front {
            proxy,
            api: shared.then(|| Arc::clone(&api)),
            pages: self.pages,
        });
        let admin = Arc::new(Admin(Arc::clone(&api)));
        let monitor = Arc::new(Monitor {
            auth,
            compute,
            metrics,
            watch: watch.clone(),
        });
        doors.open(TlsListener::Proxy, self.public, &front);
        doors.open(TlsListener::Api, self.api_only, &admin);
        doors.open(TlsListener::Monitor, self.monitor, &monitor);
        doors.open_redirect(self.redirect, &self.addresses);
        doors.open_admin(self.admin, &admin);
        Ok(Running {
            api,
            audit,
            drain_timeout: self.config.proxy.drain_timeout.get(),
        })
    }
}

/// A program that serves.
#[derive(Debug)]
pub struct Running {
    /// The api role, to issue a URL from inside.
    pub api: Arc<Api>,
    /// The audit log, whose last lines are written when this is dropped.
    pub audit: Audit,
    /// How long sessions live on once told to end.
    pub drain_timeout: Duration,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.audit.finish(LAST_EVENTS);
    }
}

/// How long a process that ends waits for its audit log.
const LAST_EVENTS: Duration = Duration::from_secs(1);

fn start_audit(config: &config::Audit) -> Result<(Metrics, Audit), StartError> {
    let metrics = Metrics::default();
    let file = config.file.clone().map(Place::File);
    let journal = || config.journal.clone().map(Place::Journal);
    let Some(place) = file.or_else(journal) else {
        return Ok((metrics, Audit::default()));
    };
    let audit = Audit::start(&place, config.required, &metrics);
    let audit = audit.map_err(|why| StartError::Audit { place, why })?;
    Ok((metrics, audit))
}

fn door(key: &'static str) -> impl Fn(BindError) -> StartError {
    move |error| StartError::Door { key, error }
}

fn bind_all(
    key: &'static str,
    wanted: &[SocketAddr],
) -> Result<(Vec<Listener>, Vec<SocketAddr>), StartError> {
    let listeners: Vec<Listener> = wanted
        .iter()
        .map(|address| Listener::tcp(*address).map_err(door(key)))
        .collect::<Result<_, _>>()?;
    let addresses = listeners.iter().filter_map(Listener::address).collect();
    Ok((listeners, addresses))
}

fn in_clear(config: &Config, listen: &[SocketAddr], api: &[SocketAddr]) -> Vec<SocketAddr> {
    let both = [(TlsListener::Proxy, listen), (TlsListener::Api, api)];
    let clear = both
        .into_iter()
        .filter(|(which, _)| !config.tls.is_on(*which));
    clear
        .flat_map(|(_, addresses)| addresses)
        .copied()
        .collect()
}

/// Demo and `--target` first, then what the config lists, then what the machine has.
fn drivers(
    config: &Config,
    demo: Option<&Demo>,
    target: Option<&Address>,
) -> Result<Vec<Box<dyn Driver>>, StartError> {
    let mut drivers: Vec<Box<dyn Driver>> = Vec::new();
    let demo = demo.map(|demo| ("demo", entry(DEMO, demo.address().into())));
    let given = target.map(|target| ("command line", entry(&target.to_string(), target.clone())));
    let alone = demo.is_some() || given.is_some();
    for (source, entry) in demo.into_iter().chain(given) {
        drivers.push(Box::new(Fixed::new(source, vec![entry])?));
    }
    if !config.compute.instance.is_empty() {
        let entries = config.compute.instance.iter().map(listed_entry).collect();
        drivers.push(Box::new(Fixed::new("config", entries)?));
    }
    for host in hypervisors(config)? {
        drivers.push(Box::new(Libvirt::new(host)));
    }
    for path in &config.compute.xml {
        let host = config.compute.address.clone();
        drivers.push(Box::new(Directory::new(path.clone(), host)));
    }
    for path in &config.compute.qmp {
        let host = config.compute.address.clone();
        drivers.push(Box::new(Qmp::new(path.clone(), host)));
    }
    if config
        .compute
        .discover
        .unwrap_or_else(|| config.discovers() && !alone)
    {
        drivers.push(Box::new(Discover::new()));
    }
    Ok(drivers)
}

fn hypervisors(config: &Config) -> Result<Vec<libvirt::Settings>, StartError> {
    let checked = |host: &Hypervisor| {
        let settings = hypervisor(host, &config.compute.address);
        settings.map_err(|why| StartError::Host {
            name: host.name.clone(),
            why,
        })
    };
    config.compute.host.iter().map(checked).collect()
}

/// Reads the password's file, once.
fn hypervisor(host: &Hypervisor, address: &Host) -> Result<libvirt::Settings, String> {
    let uri: Uri = host.uri.parse().map_err(|bad| format!("uri: {bad}"))?;
    let far = uri.host().cloned();
    let credentials = match (&host.user, &host.password_file) {
        (Some(user), Some(file)) => {
            let read = Credentials::read(user, file);
            Some(Arc::new(read.map_err(|bad| bad.to_string())?))
        }
        _ => None,
    };
    Ok(libvirt::Settings {
        name: host.name.clone(),
        address: host
            .address
            .clone()
            .or(far)
            .unwrap_or_else(|| address.clone()),
        uri,
        readonly: host.readonly,
        credentials,
        optional: false,
        security: host.vnc.clone(),
        passwords: host.passwords,
    })
}

fn entry(name: &str, address: Address) -> Entry {
    let kind = ConsoleKind::Vnc;
    Entry {
        id: None,
        name: name.to_owned(),
        kind,
        target: address.into(),
        project: None,
        security: Security::default(),
    }
}

fn listed_entry(instance: &FixedInstance) -> Entry {
    let FixedInstance {
        id,
        name,
        address,
        internal_access_path,
        project,
        kind,
        vnc,
    } = instance.clone();
    Entry {
        id,
        name,
        kind,
        target: Target {
            internal_access_path,
            ..address.into()
        },
        project,
        security: vnc,
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        connections: config.proxy.max_connections,
        header_timeout: config.proxy.header_timeout.get(),
        header_size: config.proxy.max_header,
    }
}

fn proxy_settings(config: &Config) -> Settings {
    let proxy = &config.proxy;
    Settings {
        name: proxy.name.clone().unwrap_or_else(machine_name),
        allowed_origins: proxy.allowed_origins.clone(),
        trusted_proxies: proxy.trusted_proxies.clone(),
        connect_timeout: proxy.connect_timeout.get(),
        allowed_networks: proxy.allowed_networks.clone(),
        vnc: proxy.vnc.clone(),
        max_sessions: proxy.max_sessions,
        relay: Arc::new(relay::Settings {
            frame_limit: proxy.max_frame,
            ping_interval: proxy.ping_interval.unless_zero(),
            ..relay::Settings::default()
        }),
        bandwidth: Bandwidth {
            session: NonZero::new(config.limits.session_bandwidth),
            tenant: NonZero::new(config.limits.tenant_bandwidth),
        },
    }
}

/// Reads the files that it needs, once, to see that they can be read.
fn keystone_settings(config: &Config) -> Result<Option<keystone::Settings>, StartError> {
    let settings = keystone::Settings::of(&config.keystone);
    if let Some(settings) = &settings {
        settings.check()?;
    }
    Ok(settings)
}

fn machine_name() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}

fn gatekeeper(config: &Config, keystone: Option<Keystone>) -> Gatekeeper {
    let elsewhere = |url: &Url| {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        !loopback && host != "localhost"
    };
    let proxy = &config.proxy;
    let urls = [&proxy.public_url, &proxy.novnc_url, &proxy.serial_url];
    let public = urls.into_iter().flatten().any(elsewhere);
    let fronted = public || !proxy.trusted_proxies.is_empty();
    let shown = identity_url(config);
    let identities = keystone
        .zip(shown)
        .map(|(keystone, url)| Identities::new(keystone, &url));
    Gatekeeper {
        keys: config.api.key.clone(),
        identities,
        fronted,
    }
}

fn nova_settings(config: &Config) -> NovaSettings {
    NovaSettings {
        public_url: config.api.public_url.clone(),
        trusted_proxies: config.proxy.trusted_proxies.clone(),
    }
}

/// Where callers get their tokens.
fn identity_url(config: &Config) -> Option<Url> {
    let keystone = &config.keystone;
    keystone.public_url.clone().or_else(|| keystone.url.clone())
}

fn urls(config: &Config, addresses: &Addresses) -> Urls {
    // A distribution's vnc.html waits for a press on Connect; ours connects by itself.
    let page = config
        .web
        .root
        .as_ref()
        .map_or("vnc.html", |_| "vnc.html?autoconnect=true");
    let secure = config.tls.is_on(TlsListener::Proxy);
    Urls::new(&config.proxy, &own_url(addresses, secure), page)
}

/// How this machine reaches the first listener.
fn own_url(addresses: &Addresses, secure: bool) -> Url {
    let first = addresses.listen.first().copied();
    let mut address = first.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 6080)));
    if address.ip().is_unspecified() {
        let loopback: IpAddr = if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])
        };
        address.set_ip(loopback);
    }
    let scheme = if secure { "https" } else { "http" };
    let text = format!("{scheme}://{address}");
    #[expect(
        clippy::expect_used,
        reason = "a socket address after a scheme is always a URL"
    )]
    Url::parse(&text).expect("a URL")
}
