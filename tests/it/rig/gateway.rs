//! The product under test: the real binary with a config of its own, on ports of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use url::Url;

use super::http::{Request, Response};
use super::process::{Process, Stream};
use super::wait::{PATIENCE, until};
use super::ws::{Upgrade, Ws};

/// The program that `cargo` built for these tests.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_vncgate");

/// What a gateway is started with; starts from the least a test needs.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) directory: TempDir,
    config: toml::Table,
    command: &'static [&'static str],
    arguments: Vec<String>,
}

/// A running gateway. Killed when dropped; all it wrote is shown if the test fails.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) listen: SocketAddr,
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) monitor: SocketAddr,
    pub(crate) admin: PathBuf,
    pub(crate) config: PathBuf,
    process: Process,
    directory: TempDir,
}

/// How a command ended and what it said.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    /// Its stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.stdout);
        parsed.unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Itself, when the command ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

impl Setup {
    /// Every listener on a free port of the loopback, the admin socket in a fresh directory.
    pub(crate) fn new() -> Self {
        let directory = TempDir::with_prefix("vncgate-").unwrap();
        let socket = directory.path().join("admin.sock");
        let setup = Self {
            directory,
            config: toml::Table::new(),
            command: &["serve", "--all"],
            arguments: Vec::new(),
        };
        setup
            .set("proxy", "listen", vec!["127.0.0.1:0"])
            .set("monitor", "listen", vec!["127.0.0.1:0"])
            .set("admin", "socket", socket.to_str().unwrap())
            .set("log", "level", "debug")
    }

    /// Sets a key of the config file.
    pub(crate) fn set(mut self, table: &str, key: &str, value: impl Into<toml::Value>) -> Self {
        let table = self.table(table);
        table.insert(key.to_owned(), value.into());
        self
    }

    /// Adds an instance to the config file's list.
    pub(crate) fn instance(self, name: &str, address: &str) -> Self {
        let pairs = [("name", name), ("address", address)];
        self.push("compute", "instance", &pairs)
    }

    /// Sets a key of the instance added last.
    pub(crate) fn set_instance(self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.set_last("instance", key, value)
    }

    /// Adds a hypervisor to the config file's list.
    pub(crate) fn hypervisor(self, name: &str, uri: &str) -> Self {
        self.push("compute", "host", &[("name", name), ("uri", uri)])
    }

    /// Sets a key of the hypervisor added last.
    pub(crate) fn set_host(self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.set_last("host", key, value)
    }

    fn set_last(mut self, list: &str, key: &str, value: impl Into<toml::Value>) -> Self {
        let entries = self.table("compute")[list].as_array_mut().unwrap();
        let entry = entries.last_mut().unwrap().as_table_mut().unwrap();
        entry.insert(key.to_owned(), value.into());
        self
    }

    /// Adds an API key, given its hash.
    pub(crate) fn key(self, name: &str, sha256: &str) -> Self {
        self.push("api", "key", &[("name", name), ("sha256", sha256)])
    }

    /// Adds an API key of a project, given its hash.
    pub(crate) fn key_of(self, name: &str, sha256: &str, project: &str, role: &str) -> Self {
        let pairs = [
            ("name", name),
            ("sha256", sha256),
            ("project", project),
            ("role", role),
        ];
        self.push("api", "key", &pairs)
    }

    /// Adds a console to the config file's list, with the keys and values of the test's own.
    pub(crate) fn console(self, pairs: &[(&str, &str)]) -> Self {
        self.push("compute", "instance", pairs)
    }

    /// Reads instances from an XML directory inside the gateway's own, which must exist.
    pub(crate) fn xml_directory(self) -> Self {
        let path = self.xml_path();
        fs::create_dir_all(&path).unwrap();
        self.set("compute", "xml", vec![path.to_str().unwrap()])
    }

    /// Where [`Setup::xml_directory`] is.
    pub(crate) fn xml_path(&self) -> PathBuf {
        self.directory.path().join("domains")
    }

    /// Sets a key of `[auth.redis]`.
    pub(crate) fn set_redis(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let empty = toml::Value::Table(toml::Table::new());
        let redis = self.table("auth").entry("redis").or_insert(empty);
        redis
            .as_table_mut()
            .unwrap()
            .insert(key.to_owned(), value.into());
        self
    }

    /// Has the proxy run alone.
    pub(crate) fn proxy_alone(mut self) -> Self {
        self.command = &["proxy"];
        self
    }

    /// Adds a command-line argument.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    fn push(mut self, table: &str, key: &str, pairs: &[(&str, &str)]) -> Self {
        let entry = self
            .table(table)
            .entry(key)
            .or_insert(toml::Value::Array(Vec::new()));
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()));
        entry
            .as_array_mut()
            .unwrap()
            .push(toml::Value::Table(pairs.collect()));
        self
    }

    fn table(&mut self, name: &str) -> &mut toml::Table {
        let entry = self
            .config
            .entry(name)
            .or_insert(toml::Value::Table(toml::Table::new()));
        entry.as_table_mut().unwrap()
    }

    /// Writes the config file and tells where.
    pub(crate) fn write(&self) -> PathBuf {
        let path = self.directory.path().join("vncgate.toml");
        fs::write(&path, toml::to_string(&self.config).unwrap()).unwrap();
        path
    }

    /// Starts `vncgate serve --all`, or the proxy, and waits until it says that it is ready.
    pub(crate) fn start(self) -> Gateway {
        self.start_with(bare)
    }

    /// The same, started by a command of the test's own.
    pub(crate) fn start_with(self, start: impl Fn(&Path) -> Command) -> Gateway {
        let config = self.write();
        let admin = self.config["admin"]["socket"].as_str().unwrap().into();
        let mut command = start(Path::new(BINARY));
        command
            .args(self.command)
            .arg("--config")
            .arg(&config)
            .args(&self.arguments);
        let process = Process::spawn("vncgate serve", &mut command);
        let ready = process.wait_for_line("that it is ready", |line| {
            let event: Value = serde_json::from_str(&line.text).ok()?;
            (event["message"] == "ready").then_some(event)
        });
        let listeners = addresses(&ready["listen"]);
        Gateway {
            listen: listeners[0],
            listeners,
            monitor: addresses(&ready["monitor"])[0],
            admin,
            config,
            process,
            directory: self.directory,
        }
    }

    /// Starts it where it must refuse to start.
    pub(crate) fn refuse_to_start(self) -> Answer {
        self.refuse_to_start_with(bare)
    }

    /// The same, started by a command of the test's own.
    pub(crate) fn refuse_to_start_with(self, start: impl Fn(&Path) -> Command) -> Answer {
        let config = self.write();
        let mut command = start(Path::new(BINARY));
        command.args(self.command).arg("--config").arg(&config);
        run(command.args(&self.arguments))
    }
}

impl Gateway {
    /// A gateway with one instance.
    pub(crate) fn of(name: &str, address: &str) -> Self {
        Setup::new().instance(name, address).start()
    }

    /// Runs a client command against this gateway.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Answer {
        self.cli_with_input(arguments, Stdio::null())
    }

    /// Runs a client command that reads something from stdin.
    pub(crate) fn cli_with_input(&self, arguments: &[&str], input: Stdio) -> Answer {
        let mut command = bare(Path::new(BINARY));
        command
            .env("VNCGATE_ADMIN_SOCKET", &self.admin)
            .stdin(input);
        run(command.args(arguments))
    }

    /// Runs a client command that ends well, and returns its stdout, which need not be text.
    #[track_caller]
    pub(crate) fn cli_to_file(&self, arguments: &[&str]) -> Vec<u8> {
        let file = self.directory.path().join("stdout");
        let mut command = bare(Path::new(BINARY));
        command.env("VNCGATE_ADMIN_SOCKET", &self.admin);
        command
            .args(arguments)
            .stdout(fs::File::create(&file).unwrap());
        assert!(command.status().unwrap().success(), "{command:?}");
        fs::read(file).unwrap()
    }

    /// A URL of an instance's console, fresh from `token issue`.
    #[track_caller]
    pub(crate) fn issue(&self, instance: &str) -> ConsoleUrl {
        self.issue_with(&["token", "issue", instance])
    }

    /// The same with a command line of the test's own.
    #[track_caller]
    pub(crate) fn issue_with(&self, arguments: &[&str]) -> ConsoleUrl {
        ConsoleUrl::parse(&self.cli(arguments).ok().stdout)
    }

    /// An upgrade request for an instance, with a fresh token, that can still be changed.
    #[track_caller]
    pub(crate) fn upgrade(&self, instance: &str) -> Upgrade {
        Upgrade::new(&self.issue(instance).upgrade_path())
    }

    /// A WebSocket to an instance, with a fresh token.
    #[track_caller]
    pub(crate) fn open(&self, instance: &str) -> Ws {
        self.upgrade(instance).open(self.listen).unwrap()
    }

    /// Sends a request to the public listener.
    pub(crate) fn http(&self, request: &Request) -> Response {
        request.send(self.listen)
    }

    /// Gets a page of the monitor listener.
    pub(crate) fn watch(&self, path: &str) -> Response {
        Request::new("GET", path).send(self.monitor)
    }

    /// The sum of a metric over its series with that label; absent series count as 0.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let page = self.watch("/metrics").text();
        let series = page.lines().filter_map(|line| line.rsplit_once(' '));
        let series = series.filter(|(series, _)| {
            let (family, labels) = series.split_once('{').unwrap_or((series, ""));
            family == name && labels.contains(label)
        });
        series.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }

    /// Waits until that many sessions are alive.
    #[track_caller]
    pub(crate) fn wait_for_sessions(&self, count: u32) {
        until(&format!("{count} live sessions"), || {
            let alive = self.metric("vncgate_sessions_active", "");
            (alive - f64::from(count)).abs().lt(&0.5).then_some(())
        });
    }

    /// Every event logged so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        let lines = self.process.lines();
        let lines = lines.iter().filter(|line| line.stream == Stream::Err);
        lines
            .filter_map(|line| serde_json::from_str(&line.text).ok())
            .collect()
    }

    /// Waits for an event of which `pick` says that it is the one.
    #[track_caller]
    pub(crate) fn wait_for_event(&self, what: &str, pick: impl Fn(&Value) -> bool) -> Value {
        self.process.wait_for_line(what, |line| {
            let event = serde_json::from_str(&line.text).ok()?;
            pick(&event).then_some(event)
        })
    }

    /// All it wrote on one stream.
    pub(crate) fn text(&self, stream: Stream) -> String {
        self.process.text(stream)
    }

    /// Waits for the line on stdout, which is a console's URL.
    #[track_caller]
    pub(crate) fn printed_url(&self) -> ConsoleUrl {
        let line = self.process.wait_for_line("a URL on stdout", |line| {
            (line.stream == Stream::Out).then(|| line.text.clone())
        });
        ConsoleUrl::parse(&line)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end and returns the exit code.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> i32 {
        self.process.wait()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The directory of [`Setup::xml_directory`].
    pub(crate) fn xml_path(&self) -> PathBuf {
        self.directory.path().join("domains")
    }
}

/// Runs the binary without any server around it.
pub(crate) fn vncgate(arguments: &[&str]) -> Answer {
    run(bare(Path::new(BINARY)).args(arguments))
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Answer {
    run_within(PATIENCE, command)
}

/// The same for what takes long.
pub(crate) fn run_within(limit: Duration, command: &mut Command) -> Answer {
    let mut process = Process::spawn(&format!("{command:?}"), command);
    let code = process.wait_longer(limit);
    Answer {
        code,
        stdout: process.text(Stream::Out),
        stderr: process.text(Stream::Err),
    }
}

/// A command that inherits neither environment nor stdin.
pub(crate) fn bare(program: &Path) -> Command {
    let mut command = super::process::tied(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .stdin(Stdio::null());
    command
}

/// The addresses in a field of the ready line.
fn addresses(value: &Value) -> Vec<SocketAddr> {
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"));
    let words = text.split(|c: char| c == ',' || c.is_whitespace());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// A URL that opens a console.
#[derive(Clone, Debug)]
pub(crate) struct ConsoleUrl(pub(crate) Url);

impl ConsoleUrl {
    /// Reads exactly one line that is a URL.
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        let line = text.strip_suffix('\n').unwrap_or(text);
        Self(
            line.parse()
                .unwrap_or_else(|error| panic!("{error}: {text:?}")),
        )
    }

    /// The token in it: a parameter of its own, or that of the WebSocket path inside the `path`
    /// parameter.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        if let Some(token) = self.parameter("token") {
            return token;
        }
        let path = self.parameter("path").expect("a path parameter");
        let (_, query) = path
            .split_once('?')
            .expect("a query inside the path parameter");
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let (_, token) = pairs.find(|(key, _)| key == "token").expect("a token");
        token.into_owned()
    }

    /// What noVNC asks for when it opens this URL.
    #[track_caller]
    pub(crate) fn upgrade_path(&self) -> String {
        format!("{}?token={}", self.0.path(), self.token())
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self.0.query_pairs();
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}
