//! The doors: what is listened on, and who answers behind each.
//!
//! A socket that listens already, from a service manager or from the process that this one takes
//! over from, is taken before another is opened.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StartError;
use super::front::{Admin, ApiDoor, Front};
use super::monitor::Monitor;
use crate::config::Config;
use crate::drain::Watch;
use crate::http::{Limits, Listener, Service, serve};
use crate::process::{BadSocket, Given, Givens, Socket};

/// Doors that are open and not served yet.
#[derive(Debug)]
pub(super) struct Doors {
    public: Vec<Listener>,
    api: Vec<Listener>,
    monitor: Vec<Listener>,
    admin: Listener,
}

/// What was opened.
pub(super) struct Opened {
    pub(super) doors: Doors,
    pub(super) addresses: Addresses,
    /// The same sockets, for whoever takes over.
    pub(super) sockets: Vec<Given>,
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

/// What a door is called by a service manager, and by the config.
struct Door {
    name: &'static str,
    key: &'static str,
}

const PUBLIC: Door = Door {
    name: "proxy",
    key: "proxy.listen",
};
const API: Door = Door {
    name: "api",
    key: "api.listen",
};
const MONITOR: Door = Door {
    name: "monitor",
    key: "monitor.listen",
};
const ADMIN: Door = Door {
    name: "admin",
    key: "admin.socket",
};

impl Doors {
    /// Opens every door; that of the API's own only where the API is served to others. Errors:
    /// `Door`, `Given`.
    pub(super) fn open(
        config: &Config,
        api_is_public: bool,
        admin: PathBuf,
        mut given: Givens,
    ) -> Result<Opened, StartError> {
        let mut opening = Opening {
            given: &mut given,
            sockets: Vec::new(),
        };
        let (public, listen) = opening.all(&PUBLIC, &config.proxy.listen)?;
        let (api, api_addresses) = if api_is_public {
            opening.all(&API, &config.api.listen)?
        } else {
            Default::default()
        };
        let (monitor, monitor_addresses) = opening.all(&MONITOR, &config.monitor.listen)?;
        let (admin, path) = opening.admin(admin)?;
        let doors = Self {
            public,
            api,
            monitor,
            admin,
        };
        let sockets = opening.sockets;
        if let Some(name) = given.unwanted() {
            let why = "no door here is called so; FileDescriptorName= is one of proxy, api, \
                       monitor, admin"
                .to_owned();
            let name = name.to_owned();
            return Err(BadSocket { name, why }.into());
        }
        let addresses = Addresses {
            listen,
            api: api_addresses,
            monitor: monitor_addresses,
            admin: path,
        };
        Ok(Opened {
            doors,
            addresses,
            sockets,
        })
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

struct Opening<'a> {
    given: &'a mut Givens,
    sockets: Vec<Given>,
}

impl Opening<'_> {
    fn all(
        &mut self,
        door: &Door,
        wanted: &[SocketAddr],
    ) -> Result<(Vec<Listener>, Vec<SocketAddr>), StartError> {
        let mut listeners = Vec::new();
        while let Some(given) = self
            .given
            .take(|given| given.managed && is_for(given, door))
        {
            listeners.push(self.tcp(door, given)?);
        }
        if listeners.is_empty() {
            for address in wanted {
                listeners.push(self.one(door, *address)?);
            }
        }
        let addresses = listeners.iter().filter_map(Listener::address).collect();
        Ok((listeners, addresses))
    }

    fn one(&mut self, door: &Door, address: SocketAddr) -> Result<Listener, StartError> {
        let fits = |given: &Given| {
            let there = given.socket.address();
            let same = |there: SocketAddr| {
                there.ip() == address.ip()
                    && (address.port() == 0 || there.port() == address.port())
            };
            is_for(given, door) && there.is_some_and(same)
        };
        let given = self.given.take(fits).map_or_else(
            || {
                let socket = Listener::bind(address).map(Socket::Tcp);
                socket.map(|socket| Given {
                    name: door.name.to_owned(),
                    managed: false,
                    path: None,
                    socket,
                })
            },
            Ok,
        );
        let given = given.map_err(|error| StartError::Door {
            key: door.key,
            error,
        })?;
        self.tcp(door, given)
    }

    fn tcp(&mut self, door: &Door, given: Given) -> Result<Listener, StartError> {
        let Socket::Tcp(listener) = &given.socket else {
            let why = "it is a Unix socket, whose callers count as this program's owner; only the \
                       door `admin` may be one";
            return Err(bad(&given.name, why.to_owned()));
        };
        let listener = Listener::given_tcp(listener);
        let listener = listener.map_err(|error| StartError::Door {
            key: door.key,
            error,
        })?;
        self.sockets.push(given);
        Ok(listener)
    }

    fn admin(&mut self, path: PathBuf) -> Result<(Listener, PathBuf), StartError> {
        let door = |error| StartError::Door {
            key: ADMIN.key,
            error,
        };
        let fits = |given: &Given| {
            is_for(given, &ADMIN) && (given.managed || given.path.as_ref() == Some(&path))
        };
        let Some(given) = self.given.take(fits) else {
            let socket = Listener::bind_unix(&path).map_err(door)?;
            let listener = Listener::given_unix(&socket, &path, true).map_err(door)?;
            self.sockets.push(Given {
                name: ADMIN.name.to_owned(),
                managed: false,
                path: Some(path.clone()),
                socket: Socket::Unix(socket),
            });
            return Ok((listener, path));
        };
        let Socket::Unix(socket) = &given.socket else {
            let why = "the door `admin` must be a Unix socket".to_owned();
            return Err(bad(&given.name, why));
        };
        let there = socket.local_addr().ok();
        let there = there.and_then(|there| Some(there.as_pathname()?.to_owned()));
        let path = if given.managed {
            there.unwrap_or(path)
        } else {
            path
        };
        // The service manager removes its own, if anybody does.
        let listener = Listener::given_unix(socket, &path, !given.managed).map_err(door)?;
        self.sockets.push(given);
        Ok((listener, path))
    }
}

fn bad(name: &str, why: String) -> StartError {
    let name = name.to_owned();
    BadSocket { name, why }.into()
}

/// A socket unit that gives no name of its own calls its sockets by the unit's.
fn is_for(given: &Given, door: &Door) -> bool {
    let name = given.name.as_str();
    let nameless = given.managed && (matches!(name, "" | "unknown") || is_unit(name));
    name == door.name || (nameless && door.name == PUBLIC.name)
}

fn is_unit(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it == "socket")
}

fn serve_all<S: Service>(doors: Vec<Listener>, service: S, limits: Limits, watch: &Watch) {
    let service = Arc::new(service);
    for door in doors {
        watch.spawn_service(serve(door, Arc::clone(&service), limits, watch.clone()));
    }
}
