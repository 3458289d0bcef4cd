//! The doors: what is listened on, and who answers behind each.
//!
//! A socket that listens already, from a service manager or from the process that this one takes
//! over from, is taken before another is opened.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::front::{Admin, ApiDoor, Front};
use super::keepers::Keepers;
use super::monitor::Monitor;
use super::plan::Plan;
use super::{RoleName, StartError};
use crate::config::{Config, RpcDoor, TlsListener};
use crate::drain::Watch;
use crate::http::{self, Listener, Redirect, Service, serve_door};
use crate::process::{BadSocket, Given, Givens, Socket};

/// Doors that are open and not served yet.
#[derive(Debug)]
pub(super) struct Doors {
    public: Vec<Listener>,
    api: Vec<Listener>,
    /// Where other processes call the roles of this one; answered by those.
    pub(super) rpc: Vec<Listener>,
    monitor: Vec<Listener>,
    redirect: Vec<Listener>,
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
    /// Where roles are called.
    pub rpc: Vec<String>,
    /// Health and metrics.
    pub monitor: Vec<SocketAddr>,
    /// Clear text that is sent on to https.
    pub redirect: Vec<SocketAddr>,
    /// Those of viewers and callers that speak no TLS.
    pub clear: Vec<SocketAddr>,
    /// The admin socket.
    pub admin: PathBuf,
}

/// Who answers behind which door.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) front: Option<Front>,
    pub(super) api: Option<ApiDoor>,
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
const RPC: Door = Door {
    name: "rpc",
    key: "rpc.listen",
};
const MONITOR: Door = Door {
    name: "monitor",
    key: "monitor.listen",
};
const REDIRECT: Door = Door {
    name: "redirect",
    key: "tls.redirect_listen",
};
const ADMIN: Door = Door {
    name: "admin",
    key: "admin.socket",
};

impl Doors {
    /// Opens every door that the roles of this process have. Errors: `Door`, `Given`.
    pub(super) fn open(
        config: &Config,
        plan: &Plan,
        admin: PathBuf,
        mut given: Givens,
    ) -> Result<Opened, StartError> {
        let mut opening = Opening {
            given: &mut given,
            sockets: Vec::new(),
        };
        let is_public = plan.here.has(RoleName::Proxy) && !config.proxy.listen.is_empty();
        let (public, listen) = if is_public {
            opening.all(&PUBLIC, &config.proxy.listen)?
        } else {
            Default::default()
        };
        let (api, api_addresses) = if plan.here.has(RoleName::Api) {
            opening.all(&API, &config.api.listen)?
        } else {
            Default::default()
        };
        let (rpc, rpc_addresses) = if plan.is_called {
            opening.rpc(&config.rpc.listen)?
        } else {
            Default::default()
        };
        let (monitor, monitor_addresses) = opening.all(&MONITOR, &config.monitor.listen)?;
        let (redirect, redirects) = opening.all(&REDIRECT, &config.tls.redirect_listen)?;
        let (admin, path) = opening.unix(&ADMIN, admin)?;
        let doors = Self {
            public,
            api,
            rpc,
            monitor,
            redirect,
            admin,
        };
        let sockets = opening.sockets;
        refuse_unwanted(&given)?;
        let addresses = Addresses {
            clear: in_clear(config, &listen, &api_addresses),
            listen,
            api: api_addresses,
            rpc: rpc_addresses,
            monitor: monitor_addresses,
            redirect: redirects,
            admin: path,
        };
        Ok(Opened {
            doors,
            addresses,
            sockets,
        })
    }

    /// Has everybody answer who should, until all ends.
    pub(super) fn serve(self, services: Services, keepers: &Keepers<'_>, watch: &Watch) {
        let Services {
            front,
            api,
            monitor,
            admin,
        } = services;
        let port = self.public.first().and_then(Listener::address);
        let port = port.map_or(443, |address| address.port());
        serve_all(self.public, front, &keepers.door(TlsListener::Proxy), watch);
        serve_all(self.api, api, &keepers.door(TlsListener::Api), watch);
        serve_all(
            self.monitor,
            Some(monitor),
            &keepers.door(TlsListener::Monitor),
            watch,
        );
        serve_all(
            self.redirect,
            Some(Redirect { port }),
            &keepers.clear(),
            watch,
        );
        serve_all(vec![self.admin], Some(admin), &keepers.plain(), watch);
    }
}

fn refuse_unwanted(given: &Givens) -> Result<(), BadSocket> {
    let Some(name) = given.unwanted() else {
        return Ok(());
    };
    let why = "no door here is called so; FileDescriptorName= is one of proxy, api, rpc, monitor, \
               redirect, admin"
        .to_owned();
    let name = name.to_owned();
    Err(BadSocket { name, why })
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

    /// Over TCP as any door; a Unix socket of roles is given by nobody.
    fn rpc(&mut self, wanted: &[RpcDoor]) -> Result<(Vec<Listener>, Vec<String>), StartError> {
        let tcp = wanted.iter().filter_map(|door| match door {
            RpcDoor::Tcp(address) => Some(*address),
            RpcDoor::Unix(_) => None,
        });
        let (mut listeners, addresses) = self.all(&RPC, &tcp.collect::<Vec<_>>())?;
        let mut shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        for door in wanted {
            if let RpcDoor::Unix(path) = door {
                let (listener, _path) = self.unix(&RPC, path.clone())?;
                listeners.push(listener);
                shown.push(door.to_string());
            }
        }
        Ok((listeners, shown))
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

    fn unix(&mut self, door: &Door, path: PathBuf) -> Result<(Listener, PathBuf), StartError> {
        let failed = |error| StartError::Door {
            key: door.key,
            error,
        };
        let fits = |given: &Given| {
            is_for(given, door) && (given.managed || given.path.as_ref() == Some(&path))
        };
        let Some(given) = self.given.take(fits) else {
            let socket = Listener::bind_unix(&path).map_err(failed)?;
            let listener = Listener::given_unix(&socket, &path, true).map_err(failed)?;
            self.sockets.push(Given {
                name: door.name.to_owned(),
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
        let listener = Listener::given_unix(socket, &path, !given.managed).map_err(failed)?;
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

fn in_clear(config: &Config, listen: &[SocketAddr], api: &[SocketAddr]) -> Vec<SocketAddr> {
    let both = [(TlsListener::Proxy, listen), (TlsListener::Api, api)];
    let clear = both.into_iter();
    let clear = clear.filter(|(which, _)| !config.tls.is_on(*which));
    clear
        .flat_map(|(_, addresses)| addresses)
        .copied()
        .collect()
}

/// There are no doors where there is no service.
fn serve_all<S: Service>(
    doors: Vec<Listener>,
    service: Option<S>,
    kept: &http::Door,
    watch: &Watch,
) {
    let Some(service) = service.map(Arc::new) else {
        return;
    };
    for door in doors {
        let serving = serve_door(door, Arc::clone(&service), kept.clone(), watch.clone());
        watch.spawn_service(serving);
    }
}
