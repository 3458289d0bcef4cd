//! The doors: what is listened on, and who answers behind each.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::StartError;
use super::front::{Admin, ApiDoor, Front};
use super::monitor::Monitor;
use crate::config::Config;
use crate::drain::Watch;
use crate::http::{BindError, Limits, Listener, Service, serve};

/// Doors that are open and not served yet.
#[derive(Debug)]
pub(super) struct Doors {
    public: Vec<Listener>,
    api: Vec<Listener>,
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
    /// Health and metrics.
    pub monitor: Vec<SocketAddr>,
    /// The admin socket.
    pub admin: PathBuf,
}

/// Who answers behind which door.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) front: Front,
    pub(super) api: ApiDoor,
    pub(super) monitor: Monitor,
    pub(super) admin: Admin,
}

impl Doors {
    /// Opens every door; that of the API's own only where the API is served to others.
    pub(super) fn open(
        config: &Config,
        api_is_public: bool,
        admin: PathBuf,
    ) -> Result<(Self, Addresses), StartError> {
        let (public, listen) = bind_all("proxy.listen", &config.proxy.listen)?;
        let api = if api_is_public {
            &*config.api.listen
        } else {
            &[]
        };
        let (api, api_addresses) = bind_all("api.listen", api)?;
        let (monitor, monitor_addresses) = bind_all("monitor.listen", &config.monitor.listen)?;
        let doors = Self {
            public,
            api,
            monitor,
            admin: Listener::unix(&admin).map_err(door("admin.socket"))?,
        };
        let addresses = Addresses {
            listen,
            api: api_addresses,
            monitor: monitor_addresses,
            admin,
        };
        Ok((doors, addresses))
    }

    /// Has everybody answer who should, until all ends.
    pub(super) fn serve(self, services: Services, limits: Limits, watch: &Watch) {
        let Services {
            front,
            api,
            monitor,
            admin,
        } = services;
        serve_all(self.public, front, limits, watch);
        serve_all(self.api, api, limits, watch);
        serve_all(self.monitor, monitor, limits, watch);
        serve_all(vec![self.admin], admin, limits, watch);
    }
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

fn serve_all<S: Service>(doors: Vec<Listener>, service: S, limits: Limits, watch: &Watch) {
    let service = Arc::new(service);
    for door in doors {
        watch.spawn_service(serve(door, Arc::clone(&service), limits, watch.clone()));
    }
}
