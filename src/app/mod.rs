//! Puts the roles together: which run here, what they listen on, who calls whom.
//!
//! Three steps: [`App::bind`] opens every door, so that a busy port is an error before anything
//! runs; [`App::addresses`] tells where they are; [`App::run`] serves until the drain ends. The
//! only module that knows every role.

mod certificates;
mod doors;
mod front;
mod keepers;
mod memory;
mod monitor;
mod reload;
mod tokens;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use url::Url;

use crate::api::{Api, Gatekeeper, Identities, NovaSettings, Urls};
use crate::audit::{Audit, Place};
use crate::auth::store::BadFile;
use crate::auth::{Auth, BadDatabase, Rules};
use crate::compute::Compute;
use crate::compute::driver::libvirt::sasl::Credentials;
use crate::compute::driver::libvirt::transport::Uri;
use crate::compute::driver::libvirt::{self, Libvirt};
use crate::compute::driver::{BadEntry, Directory, Discover, Driver, Entry, Fixed, Qmp};
use crate::config::{self, Config, FixedInstance, Hypervisor, TlsListener};
use crate::demo::Demo;
use crate::drain::{Drain, Watch};
use crate::http::{BindError, Guard, Limits};
use crate::keystone::{self, Keystone};
use crate::live::Live;
use crate::model::{Address, ConsoleKind, Host, Security, Target};
use crate::process::{BadSocket, Givens, Notifier};
use crate::proxy::{Bandwidth, Proxy, Settings, Workers, relay};
use crate::rpc::{self, Client};
use crate::telemetry::{Level, Metrics};
use crate::tls::{self, TlsError};
use crate::web::{BadPages, Pages};
use doors::{Doors, Services};
use front::{Admin, ApiDoor, Front};
use keepers::Keepers;
use monitor::Monitor;
use reload::Parts;

pub use doors::Addresses;
pub use front::RELOAD;
pub use reload::{Reloaded, Reloader, Reread};

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
    /// A socket that was given cannot be used.
    #[error(transparent)]
    Given(#[from] BadSocket),
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
    /// The log's level is none.
    #[error("log.level: {0}")]
    Level(String),
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
    doors: Doors,
    addresses: Addresses,
    tls: Option<tls::Server>,
    parties: Parties,
    pages: Pages,
    proxy_alone: bool,
    config: Config,
}

/// What the roles are made of.
#[derive(Debug)]
struct Parties {
    demo: Option<Demo>,
    drivers: Vec<Box<dyn Driver>>,
    keystone: Option<keystone::Settings>,
    workers: Workers,
}

/// Roles that run.
#[derive(Debug)]
struct Roles {
    proxy: Arc<Proxy>,
    rules: Rules,
    wiring: Wiring,
    runtimes: Vec<Handle>,
}

impl App {
    /// Opens every door. Nothing is served yet.
    pub async fn bind(
        config: Config,
        extras: Extras,
        admin: PathBuf,
        given: Givens,
    ) -> Result<Self, StartError> {
        let pages = build_pages(&config)?;
        tokens::check(&config)?;
        let demo = if extras.demo {
            Some(Demo::bind().await.map_err(StartError::Demo)?)
        } else {
            None
        };
        let (doors, addresses) = Doors::open(&config, !extras.proxy_alone, admin, given)?;
        let parties = Parties {
            drivers: drivers(&config, demo.as_ref(), extras.target.as_ref())?,
            keystone: keystone_settings(&config)?,
            demo,
            workers: Workers::start().map_err(StartError::Workers)?,
        };
        Ok(Self {
            doors,
            addresses,
            tls: keepers::tls(&config)?,
            parties,
            pages,
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
    pub fn run(self, drain: &Drain, around: Around) -> Result<Running, StartError> {
        let watch = drain.watch();
        let Roles {
            proxy,
            rules,
            wiring,
            runtimes,
        } = self.parties.start(&self.config, &self.addresses, &watch)?;
        let (metrics, audit) = (wiring.metrics.clone(), wiring.audit.clone());
        let certificates = Live::new(certificates::files(&self.config));
        certificates::start(&certificates, &metrics, &watch);
        let monitor = Monitor {
            auth: wiring.auth.clone(),
            compute: wiring.compute.clone(),
            metrics: metrics.clone(),
            watch: watch.clone(),
        };
        let api = Live::new(build_api(&self.config, &self.addresses, &wiring));
        let pages = Live::new(self.pages);
        let drain_timeout = Live::new(self.config.proxy.drain_timeout.get());
        let parts = Parts {
            api: api.clone(),
            pages: pages.clone(),
            proxy: Arc::clone(&proxy),
            rules,
            level: around.level,
            certificates,
            drain_timeout: drain_timeout.clone(),
            wiring,
            addresses: self.addresses.clone(),
            metrics,
        };
        let (config, guard) = (self.config.clone(), parts.guard());
        let kept = (&parts.metrics, &watch);
        let keepers = Keepers::start(&config, self.tls, guard, kept);
        let shared = self.addresses.api.is_empty() && !self.proxy_alone;
        let shared_api = shared.then(|| api.clone());
        let reloader = Reloader::new(self.config, around.reread, around.notifier, parts);
        let services = Services {
            front: Front {
                proxy,
                api: shared_api,
                pages,
            },
            api: ApiDoor(api.clone()),
            admin: Admin {
                api: api.clone(),
                reloader: reloader.clone(),
            },
            monitor,
        };
        let _estate = self.doors.serve(services, &keepers, &watch);
        Ok(Running {
            api,
            audit,
            drain_timeout,
            reloader,
            runtimes,
        })
    }
}

impl Parties {
    fn start(
        self,
        config: &Config,
        addresses: &Addresses,
        watch: &Watch,
    ) -> Result<Roles, StartError> {
        let (metrics, audit) = start_audit(&config.audit)?;
        let keystone = self.keystone.map(|it| Keystone::new(it, watch));
        let compute = Compute::new(self.drivers);
        compute.start(watch);
        let displays = compute.displays();
        let compute = Client::Near(rpc::serve(compute, watch));
        let urls = urls(config, addresses);
        let auth = tokens::auth(config, &urls, keystone.as_ref(), watch)?;
        let rules = auth.rules();
        let auth = Client::Near(rpc::serve(auth, watch));
        if let Some(demo) = self.demo {
            watch.spawn_service(demo.run(watch.clone()));
        }
        let wiring = Wiring {
            keystone,
            auth,
            compute,
            audit,
            guard: keepers::guard(config, &metrics),
            metrics,
            watch: watch.clone(),
        };
        let (a, c, m) = (&wiring.auth, &wiring.compute, &wiring.metrics);
        let (a, c, m, w) = (a.clone(), c.clone(), m.clone(), watch.clone());
        let runtimes = self.workers.runtimes();
        let proxy = Proxy::new(a, c, proxy_settings(config), m, w).with_displays(displays);
        let proxy = proxy.with_audit(wiring.audit.clone());
        let proxy = proxy.with_guard(wiring.guard.clone());
        let proxy = Arc::new(proxy.with_workers(self.workers));
        proxy.start();
        Ok(Roles {
            proxy,
            rules,
            wiring,
            runtimes,
        })
    }
}

/// What a program that runs has around it.
pub struct Around {
    /// Reads the config again.
    pub reread: Reread,
    /// Changes what the log says.
    pub level: Level,
    /// Tells the service manager.
    pub notifier: Notifier,
}

impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Around").finish_non_exhaustive()
    }
}

/// What the api role has whatever the config says.
#[derive(Debug)]
struct Wiring {
    keystone: Option<Keystone>,
    auth: Client<Auth>,
    compute: Client<Compute>,
    audit: Audit,
    guard: Guard,
    metrics: Metrics,
    watch: Watch,
}

/// A program that serves.
#[derive(Debug)]
pub struct Running {
    /// The api role, to issue a URL from inside.
    pub api: Live<Api>,
    /// The audit log, whose last lines are written when this is dropped.
    pub audit: Audit,
    /// How long sessions live on once told to end.
    pub drain_timeout: Live<Duration>,
    /// Reads the config again.
    pub reloader: Reloader,
    /// What sessions run on.
    pub runtimes: Vec<Handle>,
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

fn build_pages(config: &Config) -> Result<Pages, BadPages> {
    let ancestors = &config.web.frame_ancestors;
    match &config.web.root {
        None => Pages::embedded(ancestors),
        Some(root) => Pages::on_disk(root.clone(), ancestors),
    }
}

fn build_api(config: &Config, addresses: &Addresses, wiring: &Wiring) -> Api {
    Api {
        gatekeeper: gatekeeper(config, wiring.keystone.clone()),
        urls: urls(config, addresses),
        nova: nova_settings(config),
        url_ttl: config.auth.url_ttl.get(),
        terms: config.auth.terms(),
        auth: wiring.auth.clone(),
        compute: wiring.compute.clone(),
        audit: wiring.audit.clone(),
        metrics: wiring.metrics.clone(),
        guard: wiring.guard.clone(),
        watch: wiring.watch.clone(),
    }
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
