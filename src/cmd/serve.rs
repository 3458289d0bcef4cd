use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgGroup, Args};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::failure::chain;
use super::{ConfigFile, Exit, Failure, output, paths};
use crate::app::{
    Addresses, App, Around, Bequest, DEMO, Extras, Heir, RoleName, Roles, Running, StartError,
};
use crate::config::Config;
use crate::drain::{Drain, Signal, Signals, Watch};
use crate::model::{Address, ConsoleType};
use crate::process::{Givens, Notifier, Predecessor, Program, Watchdog, beat, harden};
use crate::telemetry;

/// How long everything has to end once the drain is over. A session whose viewer answers no close
/// frame takes 6 s (`proxy::relay`), and then has its last line in the log to write.
const GRACE: Duration = Duration::from_secs(8);

/// Run the gateway
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which").required(true))]
pub(super) struct Serve {
    /// Run all roles in this process
    #[arg(long, group = "which", env = "VNCGATE_ALL")]
    all: bool,
    /// Run these roles in this process: some of api, auth, compute and proxy; `[rpc]` in the config
    /// says where the others are
    #[arg(
        long,
        value_name = "ROLE",
        env = "VNCGATE_ROLE",
        group = "which",
        value_delimiter = ',',
        conflicts_with_all = ["demo", "target"]
    )]
    role: Vec<RoleName>,
    /// Add a console that needs no hypervisor, and print a URL that opens it
    #[arg(long, env = "VNCGATE_DEMO")]
    demo: bool,
    /// Add a console of this VNC server (HOST:PORT or `unix:PATH`), and print a URL that opens it
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "VNCGATE_TARGET",
        conflicts_with = "demo"
    )]
    target: Option<Address>,
    /// Where pages and WebSockets are served, in place of proxy.listen [default: 127.0.0.1:6080]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "VNCGATE_LISTEN",
        value_delimiter = ',',
        value_parser = listen_address
    )]
    listen: Vec<SocketAddr>,
    #[command(flatten)]
    config: ConfigFile,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.config.read()?;
        let extras = Extras {
            demo: self.demo,
            target: self.target,
            roles: roles(&self.role),
        };
        start(config, self.config, self.listen, extras)
    }
}

/// Runs the program to its end with what `file` said; `listen`, if any, takes the place of what the
/// config says.
pub(super) fn start(
    mut config: Config,
    file: ConfigFile,
    listen: Vec<SocketAddr>,
    extras: Extras,
) -> Result<(), Failure> {
    let overridden = move |mut config: Config| {
        if !listen.is_empty() {
            config.proxy.listen.clone_from(&listen);
        }
        config
    };
    config = overridden(config);
    let reread = move || match file.read() {
        Ok(config) => Ok(overridden(config)),
        Err(failure) => Err(failure.message),
    };
    let unhardened = harden();
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Failure, error.to_string());
    let (predecessor, given) = match Predecessor::of_this_process()? {
        Some((predecessor, given)) => (Some(predecessor), given),
        None => (
            None,
            Givens::from_manager().map_err(|error| failed(&error))?,
        ),
    };
    let logging = telemetry::start_log(&config.log).map_err(|error| {
        let level = &config.log.level;
        Failure::new(Exit::Config, format!("log.level: `{level}`: {error}"))
    })?;
    for what in unhardened {
        tracing::warn!(what, "this system gives less protection than it should");
    }
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let begin = Begin {
        config,
        extras,
        given,
        predecessor,
        around: Around {
            reread: Box::new(reread),
            level: logging.level.clone(),
            notifier: notifier()?,
            program: Program::of_this_process()?,
            bequest: None,
        },
    };
    let outcome = runtime.block_on(serve(begin));
    runtime.shutdown_background();
    outcome
}

fn notifier() -> Result<Notifier, Failure> {
    Notifier::from_env().map_err(|error| {
        let why = format!("NOTIFY_SOCKET cannot be used: {error}");
        Failure::new(Exit::Failure, why)
    })
}

/// What the program begins with.
struct Begin {
    config: Config,
    extras: Extras,
    given: Givens,
    predecessor: Option<Predecessor>,
    around: Around,
}

async fn serve(begin: Begin) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let notifier = begin.around.notifier.clone();
    let (extras, fresh) = (&begin.extras, begin.predecessor.is_none());
    let named = extras.target.as_ref().map(ToString::to_string);
    let named = named.or_else(|| extras.demo.then(|| DEMO.to_owned()));
    let alone = !extras.roles.are_all();
    let drain = Drain::default();
    let running = Box::pin(begin.open(&drain)).await?;
    match named {
        _ if !fresh => {}
        Some(name) => hand_out_url(&running, &name).await?,
        None if alone => {}
        None => tell_first_steps(),
    }
    notifier.ready("serving");
    watch_over(&notifier, &running, &drain.watch());
    let gate = drain.gate();
    let asked = live(&mut signals, &running, &drain.watch()).await;
    let drain_timeout = *running.drain_timeout.now();
    let signal = if let Some(signal) = asked {
        signal
    } else {
        tokio::select! {
            signal = signals.end() => signal,
            () = gate.deserted() => {
                drain.run(Duration::ZERO, GRACE).await;
                tracing::info!("ended, with the last session of the time before the successor");
                return Ok(());
            }
        }
    };
    let limit = humantime::format_duration(drain_timeout).to_string();
    tracing::info!(?signal, limit, "draining; a second signal ends at once");
    notifier.stopping("draining: sessions end, nothing new is taken");
    tokio::select! {
        () = drain.run(drain_timeout, GRACE) => {
            tracing::info!("ended");
            Ok(())
        }
        signal = signals.end() => {
            tracing::warn!(?signal, "ended at once");
            Err(Failure::new(Exit::Interrupted, ""))
        }
    }
}

impl Begin {
    /// Opens the doors and serves; where there was a process before, takes over from it.
    async fn open(mut self, drain: &Drain) -> Result<Running, Failure> {
        let admin = paths::admin_socket(&self.config);
        let app = App::bind(self.config, self.extras, admin, self.given).await;
        let app = app.map_err(|error| refused(&error))?;
        let addresses = app.addresses().clone();
        if let Some(predecessor) = &self.predecessor {
            self.around.bequest = bequest(&predecessor.prepared()?)?;
        }
        let running = app
            .run(drain, self.around)
            .await
            .map_err(|error| refused(&error))?;
        if let Some(predecessor) = self.predecessor {
            let place = running.heir.as_ref().map(|heir| heir.place.clone());
            predecessor.serving(place);
            wait_for_the_end_of(predecessor, &running, &drain.watch());
        }
        announce(&addresses);
        Ok(running)
    }
}

fn refused(error: &StartError) -> Failure {
    let exit = if error.is_of_config() {
        Exit::Config
    } else {
        Exit::Failure
    };
    Failure::new(exit, chain(error))
}

fn bequest(text: &str) -> Result<Option<Bequest>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(text).map(Some).map_err(|error| {
        let why = format!("the process before gives what makes no sense here: {error}");
        Failure::new(Exit::Failure, why)
    })
}

/// Its sessions need this process as long as they live.
fn wait_for_the_end_of(predecessor: Predecessor, running: &Running, watch: &Watch) {
    let heir = running.heir.clone();
    watch.spawn_session(async move {
        predecessor.gone().await;
        heir.iter().for_each(Heir::left_alone);
        tracing::info!("the process before has ended");
    });
}

/// Does what signals say until one asks for the end; nothing if another process takes over.
async fn live(signals: &mut Signals, running: &Running, watch: &Watch) -> Option<Signal> {
    let mut looking = std::pin::pin!(look_around(running));
    let mut looked = false;
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = running.upgrader.replaced() => return None,
            () = looking.as_mut(), if !looked => {
                looked = true;
                continue;
            }
        };
        match signal {
            Signal::Reload => {
                let reloader = running.reloader.clone();
                // Of its own, so that files that hang do not keep the process from ending.
                watch.spawn_service(async move { drop(reloader.reload().await) });
            }
            Signal::Upgrade => {
                let upgrader = running.upgrader.clone();
                watch.spawn_service(async move { drop(upgrader.upgrade().await) });
            }
            end => return Some(end),
        }
    }
}

/// Beats as long as the manager wants to hear it, through the drain too.
fn watch_over(notifier: &Notifier, running: &Running, watch: &Watch) {
    let Some(watchdog) = Watchdog::from_env(notifier) else {
        return;
    };
    let (runtimes, closing) = (running.runtimes.clone(), watch.clone());
    watch.spawn_service(async move {
        tokio::select! {
            () = beat(watchdog, runtimes) => {}
            () = closing.closing() => {}
        }
    });
}

fn announce(addresses: &Addresses) {
    let list = |addresses: &[SocketAddr]| {
        addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    let clear = addresses.clear.iter();
    for address in clear.filter(|address| !address.ip().is_loopback()) {
        tracing::warn!(%address, "plain HTTP on a public address: set [tls], or put TLS in front");
    }
    let some = |addresses: &[SocketAddr]| (!addresses.is_empty()).then(|| list(addresses));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        listen = some(&addresses.listen),
        api = some(&addresses.api),
        rpc = (!addresses.rpc.is_empty()).then(|| addresses.rpc.join(",")),
        monitor = some(&addresses.monitor),
        redirect = some(&addresses.redirect),
        admin = %addresses.admin.display(),
        "ready"
    );
}

/// The one line on stdout.
async fn hand_out_url(running: &Running, name: &str) -> Result<(), Failure> {
    let Some(api) = &running.api else {
        return Err(Failure::new(Exit::Failure, "the api does not run here"));
    };
    let api = api.now();
    let issued = api.issue(name, ConsoleType::Novnc).await;
    let view = issued.map_err(|reject| Failure::new(Exit::Failure, reject.detail))?;
    output::line(&view.url)?;
    let ttl = humantime::format_duration(api.url_ttl);
    output::say(&format!(
        "Open this URL in a browser within {ttl}; later, `vncgate token issue {name}` prints a new one."
    ));
    Ok(())
}

/// For whoever starts it by hand and wonders what now.
fn tell_first_steps() {
    if std::io::stderr().is_terminal() {
        output::say(
            "In another terminal, `vncgate instance list` names the instances and \
             `vncgate token issue NAME` prints a URL that opens one.",
        );
    }
}

/// Says what can be found and what cannot, so that a wrong path is seen now and not at night.
async fn look_around(running: &Running) {
    if let Some(auth) = &running.auth
        && let Err(fault) = auth.ready().await
    {
        tracing::warn!(%fault, "no token can be checked");
    }
    let Some(compute) = &running.compute else {
        return;
    };
    match compute.instances().await {
        Ok(survey) => {
            for fault in &survey.faults {
                tracing::warn!(%fault, "some instances cannot be found");
            }
            tracing::info!(found = survey.instances.len(), "instances");
        }
        Err(fault) => tracing::warn!(%fault, "no instance can be found"),
    }
}

/// None named is all.
pub(super) fn roles(named: &[RoleName]) -> Roles {
    if named.is_empty() {
        return Roles::default();
    }
    Roles::of(named)
}

pub(super) fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "give a numeric address and a port, such as 127.0.0.1:6080 or [::]:6080")
}

/// Every session holds two descriptors; the usual soft limit of 1024 is for old programs.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
}
