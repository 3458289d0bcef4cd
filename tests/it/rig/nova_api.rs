//! Nova's token API in small: real HTTP, real tokens of a real Keystone, and a cell's consoles.
//!
//! It answers what a proxy asks of Nova, with Nova's own status codes, faults and headers; all
//! else is 404. It can be told to fail, or to hold its answers back.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use super::cell::{Console, Instance, now};
use super::http::Request;
use super::keystone::Keystone;
use super::peers::Peer;

/// The newest microversion that this Nova has: that of its release 2026.1.
const NEWEST: (u32, u32) = (2, 103);

/// A running API.
#[derive(Debug)]
pub(crate) struct NovaApi {
    peer: Peer,
    state: Arc<State>,
}

/// How it answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Mood {
    /// As Nova does.
    #[default]
    Well,
    /// With this status and Nova's words for a fault.
    Failing(u16),
    /// Not at all, until the mood changes.
    Holding,
    /// It closes the connection instead.
    HangingUp,
}

/// One request that came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

#[derive(Debug)]
struct State {
    keystone: SocketAddr,
    known: Mutex<Known>,
    mood: Mutex<Mood>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    consoles: Vec<Console>,
    instances: Vec<Instance>,
    seen: Vec<Seen>,
}

struct Reply {
    status: u16,
    body: Value,
    /// Absent where Nova sends no version headers.
    version: Option<(u32, u32)>,
}

impl NovaApi {
    /// One that trusts that Keystone.
    pub(crate) fn start(keystone: &Keystone) -> Self {
        let state = Arc::new(State {
            keystone: keystone.address(),
            known: Mutex::default(),
            mood: Mutex::default(),
            changed: Condvar::new(),
        });
        let shared = Arc::clone(&state);
        let peer = Peer::raw(move |stream| shared.serve(&stream));
        Self { peer, state }
    }

    /// The URL that a catalogue has for it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v2.1", self.peer.address())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.peer.address().parse().unwrap()
    }

    /// Adds what a cell knows.
    pub(crate) fn add(&self, instance: &Instance, console: &Console) {
        let mut known = self.state.known.lock().unwrap();
        known.consoles.push(console.clone());
        known.instances.retain(|other| other.id != instance.id);
        known.instances.push(instance.clone());
    }

    /// Forgets an instance and its consoles, as Nova does when it deletes one.
    pub(crate) fn delete(&self, instance: &Instance) {
        let mut known = self.state.known.lock().unwrap();
        known.instances.retain(|other| other.id != instance.id);
        known.consoles.retain(|other| other.instance != instance.id);
    }

    /// Changes how it answers, from the next answer on.
    pub(crate) fn turn(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
        self.state.changed.notify_all();
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.known.lock().unwrap().seen.clone()
    }

    /// How many of them asked for a console's token.
    pub(crate) fn lookups(&self) -> usize {
        let seen = self.seen();
        let lookups = seen
            .iter()
            .filter(|one| one.path.contains("/os-console-auth-tokens/"));
        lookups.count()
    }
}

impl Seen {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The microversion asked for, or what is wrong with it.
    fn version(&self) -> Result<(u32, u32), Reply> {
        let standard = self.header("OpenStack-API-Version");
        let standard = standard.and_then(|value| value.strip_prefix("compute "));
        let asked = standard.or_else(|| self.header("X-OpenStack-Nova-API-Version"));
        let Some(text) = asked else {
            return Ok((2, 1));
        };
        if text == "latest" {
            return Ok(NEWEST);
        }
        let parsed = text
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let version = parsed.ok_or_else(|| {
            let message = format!("API Version String {text} is of invalid format.");
            fault(400, &message, None)
        })?;
        if version < (2, 1) || version > NEWEST {
            let message = format!("Version {text} is not supported by the API.");
            return Err(fault(406, &message, Some(version)));
        }
        Ok(version)
    }
}

impl State {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream.try_clone()?;
        while let Some(seen) = read(&mut reader)? {
            self.known.lock().unwrap().seen.push(seen.clone());
            let reply = match self.mood() {
                Mood::HangingUp => return Ok(()),
                Mood::Failing(status) => fault(status, "Unexpected API Error.", None),
                Mood::Well | Mood::Holding => self.answer(&seen).unwrap_or_else(|reply| reply),
            };
            writer.write_all(reply.text().as_bytes())?;
        }
        Ok(())
    }

    /// The mood, once it lets an answer out.
    fn mood(&self) -> Mood {
        let mood = self.mood.lock().unwrap();
        let holding = |mood: &mut Mood| *mood == Mood::Holding;
        *self.changed.wait_while(mood, holding).unwrap()
    }

    fn answer(&self, seen: &Seen) -> Result<Reply, Reply> {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            ["v2.1"] if seen.method == "GET" => return Ok(discovery(seen)),
            ["v2.1", ..] => {}
            _ => return Err(fault(404, "The resource could not be found.", None)),
        }
        let version = seen.version()?;
        let roles = self.roles(seen)?;
        let faulty = |status, message: &str| fault(status, message, Some(version));
        match parts.as_slice() {
            [_, "os-console-auth-tokens", token] | [_, _, "os-console-auth-tokens", token] => {
                if version < (2, 31) {
                    return Err(faulty(400, "The only supported console type is rdp."));
                }
                if version >= (2, 99) && !query.is_empty() {
                    return Err(faulty(400, "Additional properties are not allowed."));
                }
                require(&roles, "admin", version)?;
                let console = self.console(token, version);
                console.ok_or_else(|| faulty(404, "Token not found"))
            }
            [_, "servers", id] | [_, _, "servers", id] => {
                require(&roles, "reader", version)?;
                let message = format!("Instance {id} could not be found.");
                self.server(id, version)
                    .ok_or_else(|| faulty(404, &message))
            }
            _ => Err(fault(404, "The resource could not be found.", None)),
        }
    }

    /// The roles of the caller, as Keystone tells them.
    fn roles(&self, seen: &Seen) -> Result<Vec<String>, Reply> {
        let token = seen.header("X-Auth-Token").ok_or_else(unauthorized)?;
        let look = Request::new("GET", "/v3/auth/tokens?nocatalog")
            .header("X-Auth-Token", token)
            .header("X-Subject-Token", token);
        let answer = look.send(self.keystone);
        if answer.status != 200 {
            return Err(unauthorized());
        }
        let body = answer.json();
        let roles = body["token"]["roles"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let names = roles.iter().filter_map(|role| role["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    fn console(&self, token: &str, version: (u32, u32)) -> Option<Reply> {
        let known = self.known.lock().unwrap();
        let mut consoles = known.consoles.iter();
        let console = consoles.find(|one| one.token == token && one.expires > now())?;
        let mut body = json!({
            "instance_uuid": console.instance,
            "host": console.host,
            "port": console.port,
            "internal_access_path": console.path,
        });
        if version >= (2, 99) && console.kind == "spice-direct" {
            body["tls_port"] = json!(console.tls_port);
        }
        Some(ok(json!({"console": body}), version))
    }

    fn server(&self, id: &str, version: (u32, u32)) -> Option<Reply> {
        let known = self.known.lock().unwrap();
        let server = known.instances.iter().find(|one| one.id == id)?;
        if server.deleted {
            return None;
        }
        let body = json!({
            "id": server.id,
            "name": server.name,
            "status": server.state.to_uppercase(),
            "tenant_id": server.project,
            "user_id": server.user,
            "image": "",
            "flavor": {"original_name": "tiny", "vcpus": 1, "ram": 16, "disk": 0},
            "addresses": {},
            "metadata": {},
            "OS-EXT-SRV-ATTR:host": server.host,
            "OS-EXT-STS:vm_state": server.state,
            "OS-EXT-STS:task_state": server.task,
        });
        Some(ok(json!({"server": body}), version))
    }
}

impl Reply {
    fn text(&self) -> String {
        let body = self.body.to_string();
        let mut text = format!(
            "HTTP/1.1 {} Something\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            self.status,
            body.len()
        );
        if let Some((major, minor)) = self.version {
            write!(text, "OpenStack-API-Version: compute {major}.{minor}\r\n").unwrap();
            write!(text, "X-OpenStack-Nova-API-Version: {major}.{minor}\r\n").unwrap();
        }
        if self.status == 401 {
            text.push_str("WWW-Authenticate: Keystone uri=\"http://keystone\"\r\n");
        }
        write!(
            text,
            "x-compute-request-id: req-{}\r\n\r\n",
            uuid::Uuid::new_v4()
        )
        .unwrap();
        text + &body
    }
}

/// The next request of a connection, if there is one.
fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Seen>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let headers = lines[1..].iter().filter_map(|line| line.split_once(':'));
    let mut words = lines[0].split(' ').map(str::to_owned);
    let seen = Seen {
        method: words.next().unwrap(),
        path: words.next().unwrap(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect(),
    };
    let length = seen
        .header("Content-Length")
        .map_or(0, |text| text.parse().unwrap());
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(Some(seen))
}

fn ok(body: Value, version: (u32, u32)) -> Reply {
    Reply {
        status: 200,
        body,
        version: Some(version),
    }
}

fn fault(status: u16, message: &str, version: Option<(u32, u32)>) -> Reply {
    let name = match status {
        400 => "badRequest",
        403 => "forbidden",
        404 => "itemNotFound",
        503 => "serviceUnavailable",
        _ => "computeFault",
    };
    Reply {
        status,
        body: json!({name: {"code": status, "message": message}}),
        version,
    }
}

fn unauthorized() -> Reply {
    let message = "The request you have made requires authentication.";
    Reply {
        status: 401,
        body: json!({"error": {"code": 401, "title": "Unauthorized", "message": message}}),
        version: None,
    }
}

fn require(roles: &[String], role: &str, version: (u32, u32)) -> Result<(), Reply> {
    if roles.iter().any(|one| one == role) {
        return Ok(());
    }
    let message = "Policy doesn't allow this to be performed.";
    Err(fault(403, message, Some(version)))
}

/// Without the link to itself, clients do not believe in the microversions.
fn discovery(seen: &Seen) -> Reply {
    let (major, minor) = NEWEST;
    let host = seen.header("Host").unwrap_or_default();
    let body = json!({"version": {
        "id": "v2.1", "status": "CURRENT", "version": format!("{major}.{minor}"),
        "min_version": "2.1", "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": format!("http://{host}/v2.1/")}],
    }});
    ok(body, (2, 1))
}
