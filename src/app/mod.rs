//! Puts the roles together: which run here, what they listen on, who calls whom.
//!
//! Three steps: [`App::bind`] opens every door, so that a busy port is an error before anything
//! runs; [`App::addresses`] tells where they are; [`App::run`] serves until the drain ends. The
//! only module that knows every role.

mod certificates;
mod clients;
#[cfg(test)]
mod contract;
mod doors;
mod error;
mod front;
mod keepers;
mod memory;
mod monitor;
mod plan;
mod reload;
mod settings;
mod sources;
mod tokens;
mod upgrade;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::api::Api;
use crate::audit::{self, Audit};
use crate::auth::Auth;
use crate::compute::Compute;
use crate::compute::driver::Driver;
use crate::config::{self, Config};
use crate::demo::Demo;
use crate::drain::{Drain, Watch};
use crate::http::Guard;
use crate::keystone::{self, Keystone};
use crate::live::Live;
use crate::model::Address;
use crate::process::{Given, Givens, Notifier, Program};
use crate::proxy::{Proxy, relay};
use crate::rpc::{Client, Keys};
use crate::telemetry::{Level, Metrics};
use crate::tls;
use crate::web::{BadPages, Pages};
use crate::workers::Workers;
use clients::{Clients, Means};
use doors::{Doors, Services};
use front::{Admin, ApiDoor, Front};
use keepers::Keepers;
use monitor::Monitor;
use plan::{Place, Plan};
use reload::Parts;

pub use crate::auth::Bequest;
pub use doors::Addresses;
pub use error::StartError;
pub use front::{RELOAD, UPGRADE};
pub use plan::{NoSuchRole, RoleName, Roles};
pub use reload::{Reloaded, Reloader, Reread};
pub use upgrade::{Heir, Upgraded, Upgrader};

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
    sockets: Vec<Given>,
    tls: Option<tls::Server>,
    parties: Parties,
    pages: Pages,
    config: Config,
}

/// What the roles are made of.
#[derive(Debug)]
struct Parties {
    demo: Option<Demo>,
    drivers: Vec<Box<dyn Driver>>,
    keystone: Option<keystone::Settings>,
    workers: Option<Workers>,
    plan: Plan,
    keys: Arc<Keys>,
}

/// Roles that run.
#[derive(Debug)]
struct Started {
    proxy: Option<Arc<Proxy>>,
    clients: Clients,
    wiring: Wiring,
    runtimes: Vec<Handle>,
    heir: Option<Heir>,
}

impl App {
    /// Opens every door. Nothing is served yet.
    pub async fn bind(
        config: Config,
        extras: Extras,
        admin: PathBuf,
        given: Givens,
    ) -> Result<Self, StartError> {
        let plan = Plan::new(&config, &extras.roles)?;
        let pages = build_pages(&config)?;
        if plan.auth == Place::Here {
            tokens::check(&config)?;
        }
        let keys = Arc::new(clients::keys(&config.rpc)?);
        clients::warn_of_clear_text(&config.rpc, &plan);
        let demo = if extras.demo {
            Some(Demo::bind().await.map_err(StartError::Demo)?)
        } else {
            None
        };
        let opened = Doors::open(&config, &plan, admin, given)?;
        let drivers = if plan.compute == Place::Here {
            sources::drivers(&config, demo.as_ref(), extras.target.as_ref())?
        } else {
            Vec::new()
        };
        let relays = plan.here.has(RoleName::Proxy);
        let workers = relays
            .then(|| Workers::start(relay::serve_sessions))
            .transpose();
        let parties = Parties {
            drivers,
            keystone: settings::keystone_settings(&config)?,
            demo,
            workers: workers.map_err(StartError::Workers)?,
            plan,
            keys,
        };
        Ok(Self {
            doors: opened.doors,
            addresses: opened.addresses,
            sockets: opened.sockets,
            tls: keepers::tls(&config)?,
            parties,
            pages,
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
    pub async fn run(mut self, drain: &Drain, around: Around) -> Result<Running, StartError> {
        let watch = drain.watch();
        let (plan, keys) = (self.parties.plan.clone(), Arc::clone(&self.parties.keys));
        tracing::info!(%plan, "roles");
        let whereabouts = (&self.config, &self.addresses);
        // A role elsewhere is called over connections that have no place among streams.
        let near = plan.auth == Place::Here && plan.compute == Place::Here;
        let workers = self.parties.workers.clone().filter(|_| near);
        let started = self.parties.start(whereabouts, around.bequest, &watch);
        let started = Box::pin(started).await?;
        let called = std::mem::take(&mut self.doors.rpc);
        clients::answer(called, &plan, &started.clients, &keys, &watch);
        let shared = self.addresses.api.is_empty() && plan.here.has(RoleName::Api);
        let shown = self.tls.clone().filter(|_| !self.config.tls.self_signed);
        let mut parts = started.parts(&self.config, self.pages, self.addresses, around.level);
        parts.tls = shown;
        certificates::start(&parts.certificates, &parts.metrics, &watch);
        let (api, drain_timeout) = (parts.api.clone(), parts.drain_timeout.clone());
        let front = started.proxy.map(|proxy| Front {
            proxy,
            api: api.clone().filter(|_| shared),
            pages: parts.pages.clone(),
        });
        let (config, guard) = (self.config.clone(), parts.guard());
        let keepers = Keepers::start(&config, self.tls, guard, (&parts.metrics, &watch));
        let keepers = keepers.with_workers(workers);
        let (program, notifier) = (around.program, around.notifier);
        let (estate, told) = (started.clients.estate, notifier.clone());
        let upgrader = Upgrader::new(program, self.sockets, drain.gate(), estate, told);
        let reloader = Reloader::new(self.config, around.reread, notifier, parts);
        let services = Services {
            front,
            api: api.clone().map(ApiDoor),
            admin: Admin {
                api: api.clone(),
                roles: plan.here,
                reloader: reloader.clone(),
                upgrader: upgrader.clone(),
            },
            monitor: started.wiring.monitor(),
        };
        self.doors.serve(services, &keepers, &watch);
        Ok(Running {
            api,
            auth: started.clients.auth,
            compute: started.clients.compute,
            audit: started.wiring.audit,
            drain_timeout,
            reloader,
            upgrader,
            heir: started.heir,
            runtimes: started.runtimes,
        })
    }
}

impl Started {
    /// What takes a new config, with this one in force.
    fn parts(&self, config: &Config, pages: Pages, addresses: Addresses, level: Level) -> Parts {
        Parts {
            api: build_api(config, &addresses, &self.wiring).map(Live::new),
            pages: Live::new(pages),
            proxy: self.proxy.clone(),
            rules: self.clients.rules.clone(),
            tunnels: self.clients.tunnels.clone(),
            level,
            certificates: Live::new(certificates::files(config)),
            drain_timeout: Live::new(config.proxy.drain_timeout.get()),
            tls: None,
            wiring: self.wiring.clone(),
            addresses,
            metrics: self.wiring.metrics.clone(),
        }
    }
}

impl Parties {
    /// `bequest` is what the process before gave, if there is one.
    async fn start(
        self,
        (config, addresses): (&Config, &Addresses),
        bequest: Option<Bequest>,
        watch: &Watch,
    ) -> Result<Started, StartError> {
        let (metrics, audit) = start_audit(&config.audit)?;
        let keystone = self.keystone.map(|it| Keystone::new(it, watch));
        let urls = settings::urls(config, addresses);
        let means = Means {
            config,
            urls: &urls,
            keystone: keystone.as_ref(),
            keys: &self.keys,
            metrics: &metrics,
        };
        let clients = clients::clients(&self.plan, &means, self.drivers, watch)?;
        let heir = inherit(bequest, &clients, addresses, watch).await?;
        if let Some(demo) = self.demo {
            watch.spawn_service(demo.run(watch.clone()));
        }
        let wiring = Wiring {
            has_api: self.plan.has_admin_api,
            keystone,
            auth: clients.auth.clone(),
            compute: clients.compute.clone(),
            audit,
            guard: keepers::guard(config, &metrics),
            metrics,
            watch: watch.clone(),
        };
        let runtimes = self.workers.as_ref().map(Workers::runtimes);
        let proxy = self
            .workers
            .and_then(|workers| wiring.proxy(config, &clients, workers));
        Ok(Started {
            proxy,
            clients,
            wiring,
            runtimes: runtimes.unwrap_or_default(),
            heir,
        })
    }
}

/// Takes in what the process before gave, and has that one answered. Errors: `Heir`.
async fn inherit(
    bequest: Option<Bequest>,
    clients: &Clients,
    addresses: &Addresses,
    watch: &Watch,
) -> Result<Option<Heir>, StartError> {
    let (Some(bequest), Some(estate), Some(auth)) = (bequest, &clients.estate, &clients.auth)
    else {
        return Ok(None);
    };
    estate.inherit(bequest).await;
    let heir = upgrade::answer_predecessor(auth.clone(), &addresses.admin, watch);
    heir.map(Some).map_err(StartError::Heir)
}

/// What a program that runs has around it.
pub struct Around {
    /// Reads the config again.
    pub reread: Reread,
    /// Changes what the log says.
    pub level: Level,
    /// Tells the service manager.
    pub notifier: Notifier,
    /// What runs, to be run again.
    pub program: Program,
    /// What the process before gave, if there is one.
    pub bequest: Option<Bequest>,
}

impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Around").finish_non_exhaustive()
    }
}

/// What the roles have whatever the config says.
#[derive(Clone, Debug)]
struct Wiring {
    /// Whether anybody here is answered as by the api.
    has_api: bool,
    keystone: Option<Keystone>,
    auth: Option<Client<Auth>>,
    compute: Option<Client<Compute>>,
    audit: Audit,
    guard: Guard,
    metrics: Metrics,
    watch: Watch,
}

impl Wiring {
    fn callees(&self) -> Option<(Client<Auth>, Client<Compute>)> {
        self.auth.clone().zip(self.compute.clone())
    }

    fn proxy(&self, config: &Config, clients: &Clients, workers: Workers) -> Option<Arc<Proxy>> {
        let (auth, compute) = self.callees()?;
        let (metrics, watch) = (self.metrics.clone(), self.watch.clone());
        let settings = settings::proxy_settings(config);
        let mut proxy = Proxy::new(auth, compute, settings, metrics, watch);
        if let Some(displays) = &clients.displays {
            proxy = proxy.with_displays(displays.clone());
        }
        let proxy = proxy.with_audit(self.audit.clone());
        let proxy = proxy.with_guard(self.guard.clone());
        let proxy = Arc::new(proxy.with_workers(workers));
        proxy.start();
        Some(proxy)
    }

    fn monitor(&self) -> Monitor {
        Monitor {
            auth: self.auth.clone(),
            compute: self.compute.clone(),
            guard: self.guard.clone(),
            metrics: self.metrics.clone(),
            watch: self.watch.clone(),
        }
    }
}

/// A program that serves.
#[derive(Debug)]
pub struct Running {
    /// The api role, if it runs here, to issue a URL from inside.
    pub api: Option<Live<Api>>,
    /// Auth, if anybody here calls it.
    pub auth: Option<Client<Auth>>,
    /// Compute, likewise.
    pub compute: Option<Client<Compute>>,
    /// The audit log, whose last lines are written when this is dropped.
    pub audit: Audit,
    /// How long sessions live on once told to end.
    pub drain_timeout: Live<Duration>,
    /// Reads the config again.
    pub reloader: Reloader,
    /// Puts another process in place of this one.
    pub upgrader: Upgrader,
    /// Where the process before finds what it gave.
    pub heir: Option<Heir>,
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
    let file = config.file.clone().map(audit::Place::File);
    let journal = || config.journal.clone().map(audit::Place::Journal);
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

/// Nothing where not even the admin socket has one.
fn build_api(config: &Config, addresses: &Addresses, wiring: &Wiring) -> Option<Api> {
    let (auth, compute) = wiring.callees().filter(|_| wiring.has_api)?;
    Some(Api {
        gatekeeper: settings::gatekeeper(config, wiring.keystone.clone()),
        urls: settings::urls(config, addresses),
        nova: settings::nova_settings(config),
        url_ttl: config.auth.url_ttl.get(),
        terms: config.auth.terms(),
        auth,
        compute,
        audit: wiring.audit.clone(),
        metrics: wiring.metrics.clone(),
        guard: wiring.guard.clone(),
        watch: wiring.watch.clone(),
    })
}
