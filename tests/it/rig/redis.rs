//! Real Redis: one server, a cluster of three, or a master with a replica and three Sentinels.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use tempfile::TempDir;

use super::deployment::redis_servers;
use super::gateway::{Answer, Setup, run};
use super::process::{Process, peer, tied};
use super::wait::until;

/// One server. Killed when dropped.
pub(crate) struct Redis {
    pub(crate) port: u16,
    arguments: Vec<String>,
    /// What its own client needs to be let in.
    login: Vec<String>,
    directory: TempDir,
    process: Process,
}

impl Redis {
    /// A server that keeps what it has acknowledged, whatever becomes of it.
    pub(crate) fn start() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// The same with arguments of the test's own.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::let_in(arguments, &[])
    }

    /// The same where its own client needs these to be let in. `PORT` is its port.
    fn let_in(arguments: &[&str], login: &[&str]) -> Self {
        let directory = TempDir::with_prefix("redis-").unwrap();
        let port = free_port();
        let own = |it: &&str| it.replace("PORT", &port.to_string());
        let arguments: Vec<String> = arguments.iter().map(own).collect();
        let process = launch(port, &arguments, directory.path());
        Self {
            port,
            arguments,
            login: login.iter().map(|it| (*it).to_owned()).collect(),
            directory,
            process,
        }
    }

    /// A config whose tokens are kept here.
    pub(crate) fn keeps(&self, setup: Setup) -> Setup {
        keep(setup, &[self.port])
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        self.process = launch(self.port, &self.arguments, self.directory.path());
    }

    /// Runs a command on it.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Answer {
        let mut command = tied(&peer("redis-cli"));
        command
            .args(["-p", &self.port.to_string()])
            .args(&self.login);
        run(command.args(arguments))
    }

    /// All it keeps, keys and values.
    pub(crate) fn contents(&self) -> String {
        let keys = self.cli(&["--scan"]).ok().stdout;
        let dump = |key: &str| match self.cli(&["TYPE", key]).stdout.trim() {
            "hash" => self.cli(&["HGETALL", key]).ok().stdout,
            "zset" => self.cli(&["ZRANGE", key, "0", "-1"]).ok().stdout,
            _ => self.cli(&["GET", key]).ok().stdout,
        };
        let all = keys.lines().flat_map(|key| [key.to_owned(), dump(key)]);
        all.collect::<Vec<_>>().join("\n")
    }
}

/// Three masters.
pub(crate) struct Cluster(Vec<Redis>);

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::let_in(&[], &[])
    }

    /// One that is spoken to over TLS alone, with certificates from `pki`, by the user `gate`.
    pub(crate) fn secured(pki: &Path, password: &str) -> Self {
        let file = |name: &str| pki.join(name).to_str().unwrap().to_owned();
        let (ca, certificate, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        let rule = format!(">{password}");
        let arguments = [
            "--port",
            "0",
            "--tls-port",
            "PORT",
            "--tls-cluster",
            "yes",
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--tls-auth-clients",
            "no",
            "--user",
            "gate",
            "on",
            &rule,
            "~*",
            "&*",
            "+@all",
            "--user",
            "default",
            "off",
        ];
        let login = [
            "--tls", "--cacert", &ca, "--user", "gate", "--pass", password,
        ];
        Self::let_in(&arguments, &login)
    }

    fn let_in(more: &[&str], login: &[&str]) -> Self {
        let arguments = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "2000",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ];
        let arguments = [&arguments, more].concat();
        let nodes: Vec<Redis> = (0..3).map(|_| Redis::let_in(&arguments, login)).collect();
        let names = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
        let mut create = tied(&peer("redis-cli"));
        create
            .args(login)
            .args(["--cluster", "create"])
            .args(names)
            .arg("--cluster-yes");
        run(&mut create).ok();
        for node in &nodes {
            until("the cluster to form", || {
                let info = node.cli(&["CLUSTER", "INFO"]).stdout;
                info.contains("cluster_state:ok").then_some(())
            });
        }
        Self(nodes)
    }

    pub(crate) fn keeps(&self, setup: Setup) -> Setup {
        let ports: Vec<u16> = self.0.iter().map(|node| node.port).collect();
        keep(setup, &ports[..1]).set_redis("cluster", true)
    }

    /// The config section of who keeps tokens here.
    pub(crate) fn section(&self) -> toml::Table {
        let cluster = ("cluster".to_owned(), true.into());
        toml::Table::from_iter([redis_servers(&[self.0[0].port]), cluster])
    }

    /// One of the three.
    pub(crate) fn node(&mut self, number: usize) -> &mut Redis {
        &mut self.0[number]
    }

    /// How many keys each node has.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        let size = |node: &Redis| node.cli(&["DBSIZE"]).ok().stdout.trim().parse().unwrap();
        self.0.iter().map(size).collect()
    }
}

/// A master, its replica, and those who watch over them.
pub(crate) struct Sentinels {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    watching: Vec<(u16, Process)>,
    _directory: TempDir,
}

impl Sentinels {
    pub(crate) fn start() -> Self {
        let master = Redis::start();
        let port = master.port.to_string();
        let replica = Redis::with(&[
            "--replicaof",
            "127.0.0.1",
            &port,
            "--repl-diskless-sync-delay",
            "0",
        ]);
        until("the replica to follow", || {
            let role = replica.cli(&["INFO", "replication"]).stdout;
            role.contains("master_link_status:up").then_some(())
        });
        let directory = TempDir::with_prefix("sentinels-").unwrap();
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(&port, directory.path())).collect();
        for (port, _) in &sentinels {
            until("the Sentinels to know each other and the replica", || {
                let info = cli(*port, &["INFO", "sentinel"]).stdout;
                info.contains("status=ok,address=127.0.0.1").then_some(())?;
                info.contains("slaves=1,sentinels=3").then_some(())
            });
        }
        Self {
            master,
            replica,
            watching: sentinels,
            _directory: directory,
        }
    }

    pub(crate) fn keeps(&self, setup: Setup) -> Setup {
        let ports: Vec<u16> = self.watching.iter().map(|(port, _)| *port).collect();
        keep(setup, &ports).set_redis("sentinel", "mymaster")
    }

    /// The config section of who keeps tokens here.
    pub(crate) fn section(&self) -> toml::Table {
        let ports: Vec<u16> = self.watching.iter().map(|(port, _)| *port).collect();
        let master = ("sentinel".to_owned(), "mymaster".into());
        toml::Table::from_iter([redis_servers(&ports), master])
    }

    /// Waits until the replica has all that the master has just now.
    #[track_caller]
    pub(crate) fn wait_for_replica(&self) {
        let offset = |redis: &Redis, key: &str| {
            let info = redis.cli(&["INFO", "replication"]).ok().stdout;
            let value = info.lines().find_map(|line| line.strip_prefix(key));
            value.unwrap().trim().parse::<u64>().unwrap()
        };
        let sent = offset(&self.master, "master_repl_offset:");
        until("the replica to catch up", || {
            (offset(&self.replica, "slave_repl_offset:") >= sent).then_some(())
        });
    }
}

fn sentinel(master: &str, directory: &Path) -> (u16, Process) {
    let port = free_port();
    let file = directory.join(format!("{port}.conf"));
    let config = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mymaster 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds mymaster 500\n\
         sentinel failover-timeout mymaster 2000\n",
        directory.display()
    );
    fs::write(&file, config).unwrap();
    let mut command = tied(&peer("redis-sentinel"));
    let process = Process::spawn("redis-sentinel", command.arg(file));
    until("the Sentinel", || {
        (cli(port, &["PING"]).stdout.trim() == "PONG").then_some(())
    });
    (port, process)
}

fn keep(setup: Setup, ports: &[u16]) -> Setup {
    let servers = ports.iter().map(|port| format!("127.0.0.1:{port}"));
    let servers: Vec<toml::Value> = servers.map(toml::Value::from).collect();
    let setup = setup.set("auth", "source", "redis");
    setup.set_redis("servers", servers)
}

fn launch(port: u16, arguments: &[String], directory: &Path) -> Process {
    let mut command = tied(&peer("redis-server"));
    if !arguments.iter().any(|it| it == "--tls-cluster") {
        command.args(["--port", &port.to_string()]);
    }
    command
        .args(["--bind", "127.0.0.1", "--save", ""])
        .arg("--dir")
        .arg(directory)
        .args(arguments);
    let process = Process::spawn("redis-server", &mut command);
    process.wait_for_line("that it is ready", |line| {
        line.text
            .contains("Ready to accept connections")
            .then_some(())
    });
    process
}

fn cli(port: u16, arguments: &[&str]) -> Answer {
    let mut command = tied(&peer("redis-cli"));
    run(command.args(["-p", &port.to_string()]).args(arguments))
}

/// A port that nobody has just now, and its second one above it, which a cluster wants. Both lie
/// below those that the kernel gives to whoever does not ask for one, so that they stay free until
/// they are used; runs beside this one begin elsewhere.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let first = usize::try_from(std::process::id()).unwrap() * 997;
    loop {
        let next = first + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + u16::try_from(next % 10_000).unwrap();
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}
