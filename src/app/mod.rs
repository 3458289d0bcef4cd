//! Puts the roles together: which run here, what they listen on, who calls whom.
//!
//! Three steps: [`App::bind`] opens every door, so that a busy port is an error before anything
//! runs; [`App::addresses`] tells where they are; [`App::run`] serves until the drain ends. The
//! only module that knows every role.

mod certificates;
mod clients;
#[cfg(test)]
mod contract;
mod error;
mod front;
mod monitor;
mod plan;
mod settings;
mod sources;
mod tokens;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{Api, Urls};
use crate::audit::{self, Audit};
use crate::auth::Auth;
use crate::compute::Compute;
use crate::compute::driver::Driver;
use crate::config::{self, Config, RpcDoor};
use crate::demo::Demo;
use crate::drain::{Drain, Watch};
use crate::http::{BindError, Limits, Listener, serve};
use crate::keystone::{self, Keystone};
use crate::model::Address;
use crate::proxy::{Proxy, Workers};
use crate::rpc::{Client, Keys};
use crate::telemetry::Metrics;
use crate::web::Pages;
use clients::{Clients, Means};
pub use error::StartError;
use front::{Admin, Front, NoApi};
use monitor::Monitor;
pub use plan::{NoSuchRole, RoleName, Roles};
use plan::{Place, Plan};

/// What runs beside what the config names.
#[derive(Debug, Default)]
pub struct Extras {
    /// The console that needs no hypervisor.
    pub demo: bool,
    /// A VNC server to give a console of.
    pub target: Option<Address>,
    /// Which roles run here.
    pub roles: Roles,
}

/// The name of the demo's instance.
pub const DEMO: &str = "demo";

/// A program whose doors are open.
#[derive(Debug)]
pub struct App {
    doors: Doors,
    addresses: Addresses,
    demo: Option<Demo>,
    drivers: Vec<Box<dyn Driver>>,
    keystone: Option<keystone::Settings>,
    pages: Pages,
    workers: Option<Workers>,
    plan: Plan,
    keys: Arc<Keys>,
    config: Config,
}

/// What is listened on.
#[derive(Debug)]
struct Doors {
    public: Vec<Listener>,
    api: Vec<Listener>,
    rpc: Vec<Listener>,
    monitor: Vec<Listener>,
    admin: Listener,
}

/// Where the doors are.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Pages and WebSockets, and the API if it has no listener of its own.
    pub listen: Vec<SocketAddr>,
    /// The API's own.
    pub api: Vec<SocketAddr>,
    /// Where roles are called.
    pub rpc: Vec<String>,
    /// Health and metrics.
    pub monitor: Vec<SocketAddr>,
    /// The admin socket.
    pub admin: PathBuf,
}

impl App {
    /// Opens every door. Nothing is served yet.
    pub async fn bind(config: Config, extras: Extras, admin: PathBuf) -> Result<Self, StartError> {
        let plan = Plan::new(&config, &extras.roles)?;
        let ancestors = &config.web.frame_ancestors;
        let pages = match &config.web.root {
            None => Pages::embedded(ancestors)?,
            Some(root) => Pages::on_disk(root.clone(), ancestors)?,
        };
        let own_auth = plan.auth == Place::Here;
        let own_compute = plan.compute == Place::Here;
        if own_auth {
            tokens::check(&config)?;
        }
        let keys = Arc::new(clients::keys(&config.rpc)?);
        clients::warn_of_clear_text(&config.rpc, &plan);
        let (doors, addresses) = Doors::open(&config, &plan, admin)?;
        let demo = if extras.demo {
            Some(Demo::bind().await.map_err(StartError::Demo)?)
        } else {
            None
        };
        let drivers = if own_compute {
            sources::drivers(&config, demo.as_ref(), extras.target.as_ref())?
        } else {
            Vec::new()
        };
        let relays = plan.here.has(RoleName::Proxy);
        let workers = relays.then(Workers::start).transpose();
        Ok(Self {
            doors,
            addresses,
            demo,
            drivers,
            keystone: settings::keystone_settings(&config)?,
            pages,
            workers: workers.map_err(StartError::Workers)?,
            plan,
            keys,
            config,
        })
    }

    /// Whether the ways to the hypervisors, and to roles elsewhere, are such that can be gone: what
    /// the config itself cannot judge. Reads the files of passwords, keys, CAs and databases.
    /// Returns what would run, and who calls whom. Errors: `Host`, `Keystone`, `Database`, `Roles`,
    /// `Mutual`, `Secret`.
    pub fn check(config: &Config, roles: &Roles) -> Result<String, StartError> {
        let plan = Plan::new(config, roles)?;
        if plan.auth == Place::Here {
            tokens::check(config)?;
        }
        let _keys = clients::keys(&config.rpc)?;
        let _settings = settings::keystone_settings(config)?;
        if plan.compute == Place::Here {
            let _settings = sources::hypervisors(config)?;
        }
        Ok(plan.to_string())
    }

    /// Where the doors are, ports chosen by the system included.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Starts to serve; ends with `drain`. Returns what this process itself may call. Errors:
    /// `Tokens`.
    pub fn run(self, drain: &Drain) -> Result<Running, StartError> {
        tracing::info!(plan = %self.plan, "roles");
        let watch = drain.watch();
        let (metrics, audit) = start_audit(&self.config.audit)?;
        let keystone = self.keystone.map(|it| Keystone::new(it, &watch));
        certificates::start(&self.config, &metrics, &watch);
        let urls = settings::urls(&self.config, &self.addresses);
        let means = Means {
            config: &self.config,
            urls: &urls,
            keystone: keystone.as_ref(),
            keys: &self.keys,
        };
        let clients = clients::clients(&self.plan, &means, self.drivers, &watch)?;
        if let Some(demo) = self.demo {
            watch.spawn_service(demo.run(watch.clone()));
        }
        let stage = Stage {
            config: &self.config,
            plan: &self.plan,
            clients: &clients,
            audit: audit.clone(),
            metrics,
            watch: watch.clone(),
        };
        let proxy = stage.proxy(self.workers);
        let api = stage.api(keystone, urls);
        let doors = self.doors;
        clients::answer(doors.rpc, &self.plan, &clients, &self.keys, &watch);
        let shared = doors.api.is_empty() && self.plan.here.has(RoleName::Api);
        let front = proxy.map(|proxy| Front {
            proxy,
            api: api.clone().filter(|_| shared),
            pages: self.pages,
        });
        let limits = settings::limits(&self.config);
        open(doors.public, front, limits, &watch);
        open(doors.api, api.clone().map(Admin), limits, &watch);
        if let Some(api) = api.clone() {
            open(vec![doors.admin], Some(Admin(api)), limits, &watch);
        } else {
            let no_api = NoApi(self.plan.here.clone());
            open(vec![doors.admin], Some(no_api), limits, &watch);
        }
        open(doors.monitor, Some(stage.monitor()), limits, &watch);
        Ok(Running {
            api,
            auth: clients.auth,
            compute: clients.compute,
            audit,
            drain_timeout: self.config.proxy.drain_timeout.get(),
        })
    }
}

/// What the roles that serve people are made of.
struct Stage<'a> {
    config: &'a Config,
    plan: &'a Plan,
    clients: &'a Clients,
    audit: Audit,
    metrics: Metrics,
    watch: Watch,
}

impl Stage<'_> {
    fn callees(&self) -> Option<(Client<Auth>, Client<Compute>)> {
        let Clients { auth, compute, .. } = self.clients;
        auth.clone().zip(compute.clone())
    }

    /// Nothing where it does not run.
    fn proxy(&self, workers: Option<Workers>) -> Option<Arc<Proxy>> {
        let (auth, compute) = self.callees()?;
        let (metrics, watch) = (self.metrics.clone(), self.watch.clone());
        let settings = settings::proxy_settings(self.config);
        let mut proxy = Proxy::new(auth, compute, settings, metrics, watch).with_workers(workers?);
        if let Some(displays) = &self.clients.displays {
            proxy = proxy.with_displays(displays.clone());
        }
        let proxy = Arc::new(proxy.with_audit(self.audit.clone()));
        proxy.start();
        Some(proxy)
    }

    /// Nothing where not even the admin socket has one.
    fn api(&self, keystone: Option<Keystone>, urls: Urls) -> Option<Arc<Api>> {
        let (auth, compute) = self.callees().filter(|_| self.plan.has_admin_api)?;
        Some(Arc::new(Api {
            gatekeeper: settings::gatekeeper(self.config, keystone),
            urls,
            nova: settings::nova_settings(self.config),
            url_ttl: self.config.auth.url_ttl.get(),
            terms: self.config.auth.terms(),
            auth,
            compute,
            audit: self.audit.clone(),
            metrics: self.metrics.clone(),
            watch: self.watch.clone(),
        }))
    }

    fn monitor(&self) -> Monitor {
        Monitor {
            auth: self.clients.auth.clone(),
            compute: self.clients.compute.clone(),
            metrics: self.metrics.clone(),
            watch: self.watch.clone(),
        }
    }
}

impl Doors {
    /// Those of the roles that run here, and where they are.
    fn open(config: &Config, plan: &Plan, admin: PathBuf) -> Result<(Self, Addresses), StartError> {
        let of = |role, addresses: &[SocketAddr]| {
            let addresses = plan.here.has(role).then(|| addresses.to_vec());
            addresses.unwrap_or_default()
        };
        let public = of(RoleName::Proxy, &config.proxy.listen);
        let (public, listen) = bind_all("proxy.listen", &public)?;
        let (api, api_addresses) = bind_all("api.listen", &of(RoleName::Api, &config.api.listen))?;
        let (monitor, monitor_addresses) = bind_all("monitor.listen", &config.monitor.listen)?;
        let rpc = config.rpc.listen.iter().filter(|_| plan.is_called);
        let rpc: Vec<Listener> = rpc.map(bind_rpc).collect::<Result<_, _>>()?;
        let doors = Self {
            public,
            api,
            admin: Listener::unix(&admin).map_err(door("admin.socket"))?,
            monitor,
            rpc,
        };
        let rpc = config.rpc.listen.iter().zip(&doors.rpc);
        let addresses = Addresses {
            listen,
            api: api_addresses,
            rpc: rpc.map(|(wanted, open)| shown(wanted, open)).collect(),
            monitor: monitor_addresses,
            admin,
        };
        Ok((doors, addresses))
    }
}

fn bind_rpc(door: &RpcDoor) -> Result<Listener, StartError> {
    let opened = match door {
        RpcDoor::Tcp(address) => Listener::tcp(*address),
        RpcDoor::Unix(path) => Listener::unix(path),
    };
    opened.map_err(self::door("rpc.listen"))
}

fn shown(wanted: &RpcDoor, open: &Listener) -> String {
    let address = open.address();
    address.map_or_else(|| wanted.to_string(), |address| address.to_string())
}

/// A program that serves.
#[derive(Debug)]
pub struct Running {
    /// The api role, if it runs here, to issue a URL from inside.
    pub api: Option<Arc<Api>>,
    /// Auth, if anybody here calls it.
    pub auth: Option<Client<Auth>>,
    /// Compute, likewise.
    pub compute: Option<Client<Compute>>,
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
    let file = config.file.clone().map(audit::Place::File);
    let journal = || config.journal.clone().map(audit::Place::Journal);
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

/// Serves `service` at these doors; there are none where there is no service.
fn open<S: crate::http::Service>(
    doors: Vec<Listener>,
    service: Option<S>,
    limits: Limits,
    watch: &Watch,
) {
    let Some(service) = service.map(Arc::new) else {
        return;
    };
    for door in doors {
        watch.spawn_service(serve(door, Arc::clone(&service), limits, watch.clone()));
    }
}
