//! Turns a monitor's answers into an instance. Pure.
//!
//! The answers are QEMU's (qapi/control.json, run-state.json, ui.json). QEMU tells the addresses
//! its servers are bound to, so a port it chose itself is the right one.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::monitor::Command;
use crate::model::{Address, Console, ConsoleKind, Host, Instance, InstanceId, PowerState, Target};

/// The longest name kept, in characters, as with names from XML.
const MAX_NAME: usize = 255;

/// What is asked; [`instance`] takes the answers in this order.
pub(super) fn questions() -> [Command; 6] {
    [
        "query-name",
        "query-uuid",
        "query-status",
        "query-vnc",
        "query-vnc-servers",
        "query-spice",
    ]
    .map(|command| (command, json!({})))
}

#[derive(Default, Deserialize)]
struct Name {
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Id {
    uuid: Uuid,
}

#[derive(Deserialize)]
struct Status {
    status: String,
}

/// Where a VNC server listens. For a Unix socket `service` is its path.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Listener {
    family: String,
    host: String,
    service: String,
    websocket: bool,
}

#[derive(Deserialize)]
struct VncServer {
    #[serde(default)]
    server: Vec<Listener>,
}

/// For a Unix socket there is no port and `host` is its path.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Spice {
    enabled: bool,
    host: String,
    port: Option<u16>,
    tls_port: Option<u16>,
}

/// What the answers to [`questions`] say. `socket` names what has no name or id of its own,
/// `here` is where wildcard listeners are reached, `source` is kept for people. Errors: the question whose answer makes no
/// sense.
pub(super) fn instance(
    answers: Vec<Option<Value>>,
    socket: &Path,
    here: &Host,
    source: &str,
) -> Result<Instance, &'static str> {
    let mut answers = answers.into_iter().map(Option::unwrap_or_default);
    let mut next = || answers.next().unwrap_or_default();
    let name: Name = read(next(), "query-name")?;
    let id: Id = read(next(), "query-uuid")?;
    let Status { status } = serde_json::from_value(next()).map_err(|_| "query-status")?;
    let first: Listener = read(next(), "query-vnc")?;
    let servers: Vec<VncServer> = read(next(), "query-vnc-servers")?;
    let spice: Spice = read(next(), "query-spice")?;
    let state = power(&status);
    let mut consoles = vnc(first, servers, here);
    consoles.extend(spice.console(here));
    let name = name.name.map(|name| plain(&name));
    let instance = Instance {
        id: Some(id.uuid)
            .filter(|uuid| !uuid.is_nil())
            .map_or_else(|| path_id(socket), InstanceId),
        name: name
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| path_name(socket)),
        display_name: None,
        state,
        flavor: None,
        owner: None,
        consoles,
        source: source.to_owned(),
        host: None,
    };
    Ok(match state {
        PowerState::Off => off(instance),
        PowerState::Running | PowerState::Unknown => instance,
    })
}

/// The same, not running: its consoles are nowhere.
pub(super) fn off(mut instance: Instance) -> Instance {
    instance.state = PowerState::Off;
    for console in &mut instance.consoles {
        console.target = None;
    }
    instance
}

fn read<T: Default + DeserializeOwned>(
    answer: Value,
    question: &'static str,
) -> Result<T, &'static str> {
    if answer.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(answer).map_err(|_| question)
}

/// A guest that has shut down, has moved to another host, or is still to come from one. All else
/// has consoles worth looking at, also when it is paused, crashed or not yet started.
fn power(status: &str) -> PowerState {
    match status {
        "shutdown" | "postmigrate" | "inmigrate" => PowerState::Off,
        _ => PowerState::Running,
    }
}

/// The display QEMU calls its first, then every other door, so that all of them are known to be
/// this instance's.
fn vnc(first: Listener, servers: Vec<VncServer>, here: &Host) -> Vec<Console> {
    let others = servers.into_iter().flat_map(|server| server.server);
    let mut consoles: Vec<Console> = Vec::new();
    for listener in std::iter::once(first).chain(others) {
        let console = listener.console(here);
        consoles.extend(console.filter(|console| !consoles.contains(console)));
    }
    consoles
}

impl Listener {
    fn console(&self, here: &Host) -> Option<Console> {
        let target = match self.family.as_str() {
            "unix" => unix(&self.service),
            "ipv4" | "ipv6" => {
                let port = self.service.parse().ok().filter(|port| *port != 0);
                port.and_then(|port| Some(Address::Tcp(dialled(&self.host, here)?, port)))
            }
            _ => return None,
        };
        (!self.websocket).then_some(Console {
            kind: ConsoleKind::Vnc,
            target: target.map(Target::from),
        })
    }
}

impl Spice {
    fn console(&self, here: &Host) -> Option<Console> {
        let address = match self.port.or(self.tls_port).filter(|port| *port != 0) {
            Some(port) => dialled(&self.host, here).map(|host| Address::Tcp(host, port)),
            None => unix(&self.host),
        };
        let target = address.map(|address| Target {
            tls_port: self.tls_port,
            ..address.into()
        });
        self.enabled.then_some(Console {
            kind: ConsoleKind::Spice,
            target,
        })
    }
}

/// A relative path is relative to where QEMU was started, which nobody here knows.
fn unix(path: &str) -> Option<Address> {
    path.starts_with('/').then(|| Address::Unix(path.into()))
}

/// SPICE servers before 0.12 call every address `*`.
fn dialled(host: &str, here: &Host) -> Option<Host> {
    match host.parse() {
        Ok(Host::Ip(ip)) if ip.to_canonical().is_unspecified() => Some(here.clone()),
        Ok(host) => Some(host),
        Err(_) => matches!(host, "" | "*").then(|| here.clone()),
    }
}

/// The same at every start.
fn path_id(socket: &Path) -> InstanceId {
    InstanceId::derived("qmp", &socket.display().to_string())
}

/// `web` for `web.qmp` and `web-qmp.sock`; `qmp.sock` is named after its directory.
pub(super) fn path_name(socket: &Path) -> String {
    let text = |part: Option<&std::ffi::OsStr>| plain(&part.unwrap_or_default().to_string_lossy());
    let stem = text(socket.file_stem());
    let directory = || text(socket.parent().and_then(Path::file_name));
    match stem
        .trim_end_matches("qmp")
        .trim_end_matches(['-', '_', '.'])
    {
        "" => Some(directory())
            .filter(|name| !name.is_empty())
            .unwrap_or(stem),
        name => name.to_owned(),
    }
}

/// Fit for a terminal and a log line.
fn plain(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(MAX_NAME).map(visible).collect()
}
