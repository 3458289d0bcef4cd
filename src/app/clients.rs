//! Auth and compute as this process calls them, near or far.

use std::sync::Arc;

use super::plan::{Place, Plan};
use super::{StartError, tokens};
use crate::api::Urls;
use crate::auth::{Auth, Estate, Rules};
use crate::compute::driver::Driver;
use crate::compute::{Compute, Displays, Fleet, HandOut, HostNews, Told, TunnelNews, Tunnels};
use crate::config::{Config, Rpc, RpcDoor, Tunnel};
use crate::drain::Watch;
use crate::http::Listener;
use crate::keystone::Keystone;
use crate::model::{Address, Host};
use crate::rpc::{self, Client, Desk, Keys, Links, Secret, Timeouts};
use crate::telemetry::Metrics;
use crate::tls::{Mutual, MutualFiles};

/// What is called from here.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) auth: Option<Client<Auth>>,
    pub(super) compute: Option<Client<Compute>>,
    /// What auth goes by, if it runs here.
    pub(super) rules: Option<Rules>,
    /// What only it knows.
    pub(super) estate: Option<Estate>,
    /// What hypervisors hand over, if compute runs here.
    pub(super) displays: Option<Displays>,
    /// The same for proxies elsewhere.
    pub(super) hand_out: Option<HandOut>,
    /// How many of these there may be.
    pub(super) tunnels: Option<Tunnels>,
}

/// How this process shows who it is. Reads the files. Errors: `Mutual`, `Secret`.
pub(super) fn keys(config: &Rpc) -> Result<Keys, StartError> {
    if let (Some(ca), Some(certificate), Some(key)) = (&config.ca, &config.certificate, &config.key)
    {
        let files = MutualFiles {
            ca: ca.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
        };
        return Ok(Keys::Mutual(Mutual::new(files)?));
    }
    Ok(match &config.secret_file {
        Some(path) => Keys::Secret(Secret::new(path.clone())?),
        None => Keys::Nothing,
    })
}

/// A secret that travels in clear can be read on its way.
pub(super) fn warn_of_clear_text(config: &Rpc, plan: &Plan) {
    if config.secret_file.is_none() {
        return;
    }
    let leaves = |address: &&Address| match address {
        Address::Tcp(Host::Ip(ip), _) => !ip.is_loopback(),
        Address::Tcp(Host::Name(name), _) => name != "localhost",
        _ => false,
    };
    let peers = [&plan.auth, &plan.compute].into_iter();
    let peers = peers.flat_map(|place| match place {
        Place::There(addresses) => &**addresses,
        _ => &[],
    });
    for peer in peers.filter(leaves) {
        tracing::warn!(%peer, "rpc.secret_file: the secret and all tokens travel unencrypted there");
    }
    for door in config.listen.iter().filter(|_| plan.is_called) {
        if let RpcDoor::Tcp(address) = door
            && !address.ip().is_loopback()
        {
            tracing::warn!(%address, "rpc.secret_file: roles are called unencrypted here");
        }
    }
}

/// What auth is made of where it runs here.
pub(super) struct Means<'a> {
    pub(super) config: &'a Config,
    pub(super) urls: &'a Urls,
    pub(super) keystone: Option<&'a Keystone>,
    pub(super) keys: &'a Arc<Keys>,
    pub(super) metrics: &'a Metrics,
}

/// Starts the roles that run here, and finds the ways to the others. Errors: `Tokens`, `Password`.
pub(super) fn clients(
    plan: &Plan,
    means: &Means<'_>,
    drivers: Vec<Box<dyn Driver>>,
    watch: &Watch,
) -> Result<Clients, StartError> {
    let rpc = &means.config.rpc;
    let timeouts = Timeouts {
        connect: rpc.connect_timeout.get(),
        call: rpc.timeout.get(),
    };
    let mut links = Links::new(Arc::clone(means.keys), timeouts);
    let (auth, known) = match &plan.auth {
        Place::Here => {
            let auth = tokens::auth(means.config, means.urls, means.keystone, watch)?;
            let known = (auth.rules(), auth.estate());
            (Some(Client::Near(rpc::serve(auth, watch))), Some(known))
        }
        Place::There(addresses) => (Some(links.client(addresses)), None),
        Place::Nowhere => (None, None),
    };
    let (rules, estate) = known.unzip();
    let mut clients = Clients {
        auth,
        rules,
        estate,
        ..Clients::default()
    };
    match &plan.compute {
        Place::Here => {
            let compute = Compute::new(drivers);
            if plan.is_called {
                compute.observe(watch);
            }
            let tunnels = tunnels(rpc.max_tunnels, means.metrics);
            clients.displays = Some(compute.displays());
            clients.hand_out = Some(compute.hand_out(tunnels.clone()));
            clients.tunnels = Some(tunnels);
            clients.compute = Some(near(compute, watch));
        }
        Place::There(addresses) => {
            let ways = (links, means.metrics);
            let (compute, displays) = far_compute(addresses, ways, rpc, watch);
            (clients.compute, clients.displays) = (Some(compute), displays);
        }
        Place::Nowhere => {}
    }
    Ok(clients)
}

/// One that is listed is called as it is; of several, each is a source of what it knows.
fn far_compute(
    addresses: &[Address],
    (links, metrics): (Links, &Metrics),
    config: &Rpc,
    watch: &Watch,
) -> (Client<Compute>, Option<Displays>) {
    let mut links = links;
    let alone = match addresses {
        [one] if config.compute_dir.is_none() => Some(links.client(std::slice::from_ref(one))),
        _ => None,
    };
    if let Some(client) = &alone
        && config.tunnel == Tunnel::Off
    {
        return (client.clone(), None);
    }
    let fleet = Fleet {
        links,
        listed: addresses.to_vec(),
        directory: config.compute_dir.clone(),
        tunnels: config.tunnel != Tunnel::Off,
        told: told(metrics),
    };
    let compute = fleet.start(watch);
    let displays = match config.tunnel {
        Tunnel::Off => None,
        Tunnel::Prefer => Some(compute.displays()),
        Tunnel::Only => Some(compute.displays().only()),
    };
    let client = alone.unwrap_or_else(|| Client::Near(rpc::serve(compute, watch)));
    (client, displays)
}

fn told(metrics: &Metrics) -> Told {
    let metrics = metrics.clone();
    Told::new(move |host, news| match news {
        HostNews::Up => metrics.note_host(host, Some(true)),
        HostNews::Down => metrics.note_host(host, Some(false)),
        HostNews::Gone => metrics.note_host(host, None),
        HostNews::Answered(took) => metrics.host_seconds.0.observe(took.as_secs_f64()),
    })
}

fn tunnels(most: usize, metrics: &Metrics) -> Tunnels {
    let metrics = metrics.clone();
    Tunnels::new(most, move |news| match news {
        TunnelNews::Opened => drop(metrics.tunnels_active.inc()),
        TunnelNews::Closed => drop(metrics.tunnels_active.dec()),
        TunnelNews::Refused => metrics.count_turned_away("tunnels"),
    })
}

fn near(compute: Compute, watch: &Watch) -> Client<Compute> {
    compute.start(watch);
    Client::Near(rpc::serve(compute, watch))
}

/// Lets other processes call what runs here.
pub(super) fn answer(
    doors: Vec<Listener>,
    plan: &Plan,
    clients: &Clients,
    keys: &Arc<Keys>,
    watch: &Watch,
) {
    let mut desk = Desk::default();
    if let (Place::Here, Some(auth)) = (&plan.auth, &clients.auth) {
        desk = desk.with(auth.clone());
    }
    if let (Place::Here, Some(compute)) = (&plan.compute, &clients.compute) {
        desk = desk.with(compute.clone());
    }
    if let Some(hand_out) = &clients.hand_out {
        desk = desk.handing_out(hand_out.clone());
    }
    let desk = Arc::new(desk);
    for door in doors {
        let serving = Arc::clone(&desk).serve(door, Arc::clone(keys), watch.clone());
        watch.spawn_service(serving);
    }
}
