//! A deployment of several processes: the four roles apart, each the real binary with a config of
//! its own, on ports of its own, knowing each other by certificates of `vncgate pki`.
//!
//! A [`Plan`] says which processes there are; each is started, killed and started again by its
//! name, always at the same addresses. What all of them share is set once, before they start.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::gateway::{Answer, BINARY, ConsoleUrl, bare, run, vncgate};
use super::http::{Request, Response};
use super::process::{Process, Stream};
use super::redis::{Redis, free_port};
use super::wait::until;
use super::ws::{Upgrade, Ws};

/// What is to run, and what all of it is told.
#[derive(Debug)]
pub(crate) struct Plan {
    nodes: Vec<(String, String)>,
    config: toml::Table,
}

/// Processes that belong together. All are killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Deployment {
    directory: TempDir,
    nodes: BTreeMap<String, Node>,
}

/// One process, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    roles: String,
    /// Pages and WebSockets, if the proxy runs here.
    pub(crate) listen: SocketAddr,
    /// The API, if it runs here.
    pub(crate) api: SocketAddr,
    pub(crate) monitor: SocketAddr,
    /// Where its roles are called.
    pub(crate) rpc: SocketAddr,
    pub(crate) admin: PathBuf,
    pub(crate) config: PathBuf,
    process: Option<Process>,
}

/// A token and the URL it is in.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) id: String,
    pub(crate) url: ConsoleUrl,
}

impl Plan {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            config: toml::Table::new(),
        }
    }

    /// One process for each role, called as the role.
    pub(crate) fn of_four() -> Self {
        ["auth", "compute", "api", "proxy"]
            .into_iter()
            .fold(Self::new(), |plan, role| plan.node(role, role))
    }

    /// One more process, with these roles (`api,auth`). They start in the order they are named in.
    pub(crate) fn node(mut self, name: &str, roles: &str) -> Self {
        self.nodes.push((name.to_owned(), roles.to_owned()));
        self
    }

    /// Sets a key of every process's config.
    pub(crate) fn set(mut self, table: &str, key: &str, value: impl Into<toml::Value>) -> Self {
        section(&mut self.config, table).insert(key.to_owned(), value.into());
        self
    }

    /// Has every auth keep its tokens in one Redis.
    pub(crate) fn on(self, redis: &Redis) -> Self {
        self.on_redis(toml::Table::from_iter([redis_servers(&[redis.port])]))
    }

    /// The same with a section `[auth.redis]` of the test's own.
    pub(crate) fn on_redis(self, section: toml::Table) -> Self {
        self.set("auth", "source", "redis")
            .set("auth", "redis", section)
    }

    /// Adds an instance to every process's list; only where compute runs it is looked at.
    pub(crate) fn instance(mut self, name: &str, address: &str) -> Self {
        let entry = [("name", name), ("address", address)];
        push(&mut self.config, "instance", &entry);
        self
    }

    /// The same with keys and values of the test's own.
    pub(crate) fn console(mut self, pairs: &[(&str, &str)]) -> Self {
        push(&mut self.config, "instance", pairs);
        self
    }

    /// Has every api know the key of this hash, and so no caller without one.
    pub(crate) fn key(self, name: &str, sha256: &str) -> Self {
        let pairs = [("name", name), ("sha256", sha256)];
        let key = pairs.map(|(key, value)| (key.to_owned(), value.into()));
        let keys = vec![toml::Value::Table(toml::Table::from_iter(key))];
        self.set("api", "key", keys)
    }

    /// Adds a hypervisor, likewise.
    pub(crate) fn hypervisor(mut self, name: &str, uri: &str) -> Self {
        push(&mut self.config, "host", &[("name", name), ("uri", uri)]);
        self
    }

    /// Makes certificates and configs, starts all and waits until each is ready and has what it
    /// calls.
    #[track_caller]
    pub(crate) fn start(self) -> Deployment {
        let mut deployment = self.prepare();
        for (name, _) in &self.nodes {
            deployment.start(name);
        }
        for (name, _) in &self.nodes {
            deployment.wait_until_ready(name);
        }
        deployment
    }

    /// The same without starting anything.
    #[track_caller]
    pub(crate) fn prepare(&self) -> Deployment {
        let directory = TempDir::with_prefix("vncgate-many-").unwrap();
        self.make_certificates(&directory);
        let places: Vec<Places> = self.nodes.iter().map(|_| Places::new()).collect();
        let nodes = self.nodes.iter().zip(&places).map(|((name, roles), at)| {
            let config = self.config_of(name, roles, &places, at, &directory);
            let path = directory.path().join(format!("{name}.toml"));
            fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
            let node = Node {
                roles: roles.clone(),
                listen: at.listen,
                api: at.api,
                monitor: at.monitor,
                rpc: at.rpc,
                admin: directory.path().join(format!("{name}.sock")),
                config: path,
                process: None,
            };
            (name.clone(), node)
        });
        let nodes = nodes.collect();
        Deployment { directory, nodes }
    }

    fn make_certificates(&self, directory: &TempDir) {
        let pki = directory.path().join("pki");
        let mut arguments = vec!["pki".to_owned(), "init".to_owned()];
        arguments.push(pki.to_str().unwrap().to_owned());
        for (_, roles) in &self.nodes {
            arguments.extend(["--host".to_owned(), format!("127.0.0.1={roles}")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let _made = vncgate(&arguments).ok();
    }

    fn config_of(
        &self,
        name: &str,
        roles: &str,
        places: &[Places],
        own: &Places,
        directory: &TempDir,
    ) -> toml::Table {
        let of = |role: &str| {
            let named = self.nodes.iter().zip(places);
            let having = named.filter(|((_, roles), _)| has(roles, role));
            having.map(|(_, at)| at.clone()).collect::<Vec<_>>()
        };
        // Who calls a role prefers the one of its own number, so that all of them are used.
        let number = name.rsplit_once('-').map_or(0, |(_, number)| {
            number.parse::<usize>().unwrap().saturating_sub(1)
        });
        let rpc = |role: &str| {
            let mut addresses: Vec<_> = of(role).iter().map(|at| at.rpc).collect();
            let turn = number % addresses.len().max(1);
            addresses.rotate_left(turn);
            texts(addresses)
        };
        let mut config = self.config.clone();
        let mut set = |table: &str, key: &str, value: toml::Value| {
            let table = section(&mut config, table);
            let _kept = table.entry(key).or_insert(value);
        };
        let first_proxy = of("proxy").first().map(|at| at.listen);
        let public = first_proxy.map_or_else(String::new, |at| format!("http://{at}"));
        set("proxy", "listen", texts([own.listen]));
        set("proxy", "name", name.into());
        set("proxy", "public_url", public.into());
        set("api", "listen", texts([own.api]));
        set("monitor", "listen", texts([own.monitor]));
        set("log", "level", "debug".into());
        let socket = directory.path().join(format!("{name}.sock"));
        set("admin", "socket", socket.to_str().unwrap().into());
        set("rpc", "auth", rpc("auth"));
        set("rpc", "compute", rpc("compute"));
        set("rpc", "listen", texts([own.rpc]));
        let mut sorted: Vec<&str> = roles.split(',').collect();
        sorted.sort_unstable();
        let stem = format!("127.0.0.1-{}", sorted.join("-"));
        let file = |name: String| {
            let path = directory.path().join("pki").join(name);
            toml::Value::from(path.to_str().unwrap())
        };
        set("rpc", "ca", file("ca.pem".to_owned()));
        set("rpc", "certificate", file(format!("{stem}.pem")));
        set("rpc", "key", file(format!("{stem}.key")));
        config
    }
}

/// Where one process listens, whenever it runs.
#[derive(Clone, Debug)]
struct Places {
    listen: SocketAddr,
    api: SocketAddr,
    monitor: SocketAddr,
    rpc: SocketAddr,
}

impl Places {
    fn new() -> Self {
        let free = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self {
            listen: free(),
            api: free(),
            monitor: free(),
            rpc: free(),
        }
    }
}

impl Deployment {
    /// A process by its name.
    #[track_caller]
    pub(crate) fn node(&self, name: &str) -> &Node {
        &self.nodes[name]
    }

    /// Starts a process that does not run, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        let mut command = bare(BINARY.as_ref());
        // alone by its subcommand, with others by --role
        match node.roles.split_once(',') {
            None => command.arg(&node.roles),
            Some(_) => command.args(["serve", "--role", &node.roles]),
        };
        command.arg("--config").arg(&node.config);
        let process = Process::spawn(&format!("vncgate {name}"), &mut command);
        process.wait_for_line("that it is ready", |line| {
            let event: Value = serde_json::from_str(&line.text).ok()?;
            (event["message"] == "ready").then_some(())
        });
        node.process = Some(process);
    }

    /// Waits until a process says at its monitor that it is well, and so are those it calls.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self, name: &str) {
        let node = self.node(name);
        until(&format!("{name} to be ready"), || {
            (node.watch("/readyz").status == 200).then_some(())
        });
    }

    /// Ends a process at once.
    #[track_caller]
    pub(crate) fn kill(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        let mut process = node.process.take().unwrap();
        process.signal(Signal::KILL);
        process.wait();
    }

    /// Whether a process that was started still runs.
    pub(crate) fn is_running(&mut self, name: &str) -> bool {
        let process = self.nodes.get_mut(name).unwrap().process.as_mut();
        process.is_some_and(Process::is_running)
    }

    /// Sends a process a signal.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        self.node(name).process().signal(signal);
    }

    /// Adds an instance to one process's list, before it starts.
    pub(crate) fn add_instance(&self, node: &str, name: &str, address: &str) {
        self.add(node, "instance", &[("name", name), ("address", address)]);
    }

    /// Adds an entry to a list of one process's compute, before it starts.
    pub(crate) fn add(&self, node: &str, list: &str, pairs: &[(&str, &str)]) {
        self.change(node, |config| push(config, list, pairs));
    }

    /// Sets a key of one process's config, before it starts.
    pub(crate) fn set(&self, node: &str, table: &str, key: &str, value: impl Into<toml::Value>) {
        self.change(node, |config| {
            section(config, table).insert(key.to_owned(), value.into());
        });
    }

    /// Starts all that were not started yet, the callers last, and waits until each is ready.
    #[track_caller]
    pub(crate) fn start_all(&mut self) {
        let mut names: Vec<String> = self.nodes.keys().cloned().collect();
        names.sort_by_key(|name| !has(&self.nodes[name].roles, "auth"));
        for name in &names {
            self.start(name);
        }
        for name in &names {
            self.wait_until_ready(name);
        }
    }

    /// Takes a key out of one process's config.
    pub(crate) fn unset(&self, node: &str, table: &str, key: &str) {
        self.change(node, |config| {
            section(config, table).remove(key).unwrap();
        });
    }

    fn change(&self, node: &str, change: impl FnOnce(&mut toml::Table)) {
        let path = &self.node(node).config;
        let mut config: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        change(&mut config);
        fs::write(path, toml::to_string(&config).unwrap()).unwrap();
    }

    /// The directory with all configs, sockets, and `pki`.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

impl Node {
    #[track_caller]
    fn process(&self) -> &Process {
        self.process.as_ref().expect("a process that runs")
    }

    /// Runs a client command against this process.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Answer {
        let mut command = bare(BINARY.as_ref());
        command
            .env("VNCGATE_ADMIN_SOCKET", &self.admin)
            .stdin(Stdio::null());
        run(command.args(arguments))
    }

    /// A URL of an instance's console, fresh from this process, which must be an api.
    #[track_caller]
    pub(crate) fn issue(&self, instance: &str) -> ConsoleUrl {
        ConsoleUrl::parse(&self.cli(&["token", "issue", instance]).ok().stdout)
    }

    /// The same with wishes; all that is answered.
    #[track_caller]
    pub(crate) fn issue_with(&self, instance: &str, wishes: &[&str]) -> Issued {
        let arguments = [&["token", "issue", instance, "-o", "json"][..], wishes].concat();
        let answer = self.cli(&arguments).ok().json();
        Issued {
            id: answer["id"].as_str().unwrap().to_owned(),
            url: ConsoleUrl::parse(answer["url"].as_str().unwrap()),
        }
    }

    /// The live sessions, as this process tells them, which must be an api; none while it cannot.
    pub(crate) fn sessions(&self) -> Vec<Value> {
        let listed = self.cli(&["session", "list", "-o", "json"]);
        if listed.code != 0 {
            return Vec::new();
        }
        listed.json()["sessions"].as_array().unwrap().clone()
    }

    /// A WebSocket at this process, which must be a proxy.
    #[track_caller]
    pub(crate) fn open(&self, url: &ConsoleUrl) -> Ws {
        Upgrade::new(&url.upgrade_path()).open(self.listen).unwrap()
    }

    /// The same by a browser of that name.
    #[track_caller]
    pub(crate) fn open_as(&self, browser: &str, url: &ConsoleUrl) -> Ws {
        let upgrade = Upgrade::new(&url.upgrade_path()).and("User-Agent", browser);
        upgrade.open(self.listen).unwrap()
    }

    /// Gets a page of its monitor.
    pub(crate) fn watch(&self, path: &str) -> Response {
        Request::new("GET", path).send(self.monitor)
    }

    /// All it wrote to its log.
    pub(crate) fn log(&self) -> String {
        self.process().text(Stream::Err)
    }
}

/// The key that names these servers.
pub(crate) fn redis_servers(ports: &[u16]) -> (String, toml::Value) {
    let servers = ports.iter().map(|port| format!("127.0.0.1:{port}").into());
    ("servers".to_owned(), toml::Value::Array(servers.collect()))
}

fn has(roles: &str, role: &str) -> bool {
    roles.split(',').any(|one| one == role)
}

fn texts(addresses: impl IntoIterator<Item = SocketAddr>) -> toml::Value {
    let texts = addresses.into_iter().map(|it| it.to_string().into());
    toml::Value::Array(texts.collect())
}

fn section<'a>(config: &'a mut toml::Table, name: &str) -> &'a mut toml::Table {
    let empty = toml::Value::Table(toml::Table::new());
    let section = config.entry(name).or_insert(empty);
    section.as_table_mut().unwrap()
}

fn push(config: &mut toml::Table, list: &str, pairs: &[(&str, &str)]) {
    let pairs = pairs.iter();
    let entry: toml::Table = pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).into()))
        .collect();
    let list = section(config, "compute")
        .entry(list)
        .or_insert(toml::Value::Array(Vec::new()));
    list.as_array_mut().unwrap().push(entry.into());
}
