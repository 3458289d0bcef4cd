use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::failure::chain;
use super::{ConfigFile, Exit, Failure, output, paths};
use crate::app::{Addresses, App, DEMO, Extras, Running, StartError};
use crate::config::Config;
use crate::drain::{Drain, Signals};
use crate::model::{Address, ConsoleType};
use crate::telemetry;

/// How long everything has to end once the drain is over. A session whose viewer answers no close
/// frame takes 6 s (`proxy::relay`), and then has its last line in the log to write.
const GRACE: Duration = Duration::from_secs(8);

/// Run the gateway
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Run all roles in this process
    #[arg(long, required = true, env = "VNCGATE_ALL")]
    all: bool,
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
            proxy_alone: false,
        };
        start(config, self.listen, extras)
    }
}

/// Runs the program to its end; `listen`, if any, takes the place of what the config says.
pub(super) fn start(
    mut config: Config,
    listen: Vec<SocketAddr>,
    extras: Extras,
) -> Result<(), Failure> {
    if !listen.is_empty() {
        config.proxy.listen = listen;
    }
    let _logging = telemetry::start_log(&config.log).map_err(|error| {
        let level = &config.log.level;
        Failure::new(Exit::Config, format!("log.level: `{level}`: {error}"))
    })?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(config, extras));
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config, extras: Extras) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let named = extras.target.as_ref().map(ToString::to_string);
    let named = named.or_else(|| extras.demo.then(|| DEMO.to_owned()));
    let admin = paths::admin_socket(&config);
    let alone = extras.proxy_alone;
    let app = App::bind(config, extras, admin).await;
    let refused = |error: StartError| {
        let exit = match error {
            StartError::Host { .. } | StartError::Database(_) => Exit::Config,
            _ => Exit::Failure,
        };
        Failure::new(exit, chain(&error))
    };
    let app = app.map_err(refused)?;
    let addresses = app.addresses().clone();
    let drain = Drain::default();
    let running = app.run(&drain).map_err(refused)?;
    announce(&addresses);
    match named {
        Some(name) => hand_out_url(&running, &name).await?,
        None if alone => {}
        None => tell_first_steps(),
    }
    let signal = tokio::select! {
        signal = signals.next() => signal,
        () = look_around(&running) => signals.next().await,
    };
    let limit = humantime::format_duration(running.drain_timeout).to_string();
    tracing::info!(?signal, limit, "draining; a second signal ends at once");
    tokio::select! {
        () = drain.run(running.drain_timeout, GRACE) => {
            tracing::info!("ended");
            Ok(())
        }
        signal = signals.next() => {
            tracing::warn!(?signal, "ended at once");
            Err(Failure::new(Exit::Interrupted, ""))
        }
    }
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
        listen = list(&addresses.listen),
        api = some(&addresses.api),
        monitor = some(&addresses.monitor),
        redirect = some(&addresses.redirect),
        admin = %addresses.admin.display(),
        "ready"
    );
}

/// The one line on stdout.
async fn hand_out_url(running: &Running, name: &str) -> Result<(), Failure> {
    let issued = running.api.issue(name, ConsoleType::Novnc).await;
    let view = issued.map_err(|reject| Failure::new(Exit::Failure, reject.detail))?;
    output::line(&view.url)?;
    let ttl = humantime::format_duration(running.api.url_ttl);
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
    if let Err(fault) = running.api.tokens_ready().await {
        tracing::warn!(%fault, "no token can be checked");
    }
    match running.api.survey().await {
        Ok(view) => {
            for fault in &view.faults {
                tracing::warn!(fault, "some instances cannot be found");
            }
            tracing::info!(found = view.instances.len(), "instances");
        }
        Err(reject) => tracing::warn!(fault = %reject.detail, "no instance can be found"),
    }
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
