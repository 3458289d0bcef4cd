//! The relays that are compared, each a process of its own in front of the same backends.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tempfile::TempDir;

use crate::backends::{Backends, Kind};
use crate::client::Door;
use crate::plain::Way;
use crate::process::Tree;

const BINARY: &str = env!("CARGO_BIN_EXE_vncgate");

/// What is compared, and with what.
#[derive(Clone, Debug)]
pub(crate) enum Make {
    /// This program, at its defaults.
    Vncgate,
    /// The same on two machines, as it were: consoles come through a tunnel from the second.
    Tunnel,
    /// Its relay alone.
    Relay,
    /// The same without fairness.
    Greedy,
    /// `haproxy` in TCP mode.
    Haproxy(PathBuf),
    /// This program, inside TLS of its own.
    Wss,
    /// `haproxy` in TCP mode, inside TLS of its own.
    HaproxyTls(PathBuf),
    /// A plain copy with tokio.
    Copy,
    /// websockify with a token file.
    Websockify(PathBuf),
    /// No relay at all: what clients and backends cost each other.
    Direct,
}

/// A running relay. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) make: Make,
    /// From its start until it took connections.
    pub(crate) took: Duration,
    doors: Vec<(Kind, Door)>,
    child: Option<Child>,
    /// Where the other end of a tunnel is.
    host: Option<Child>,
    _directory: TempDir,
}

impl Make {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Vncgate => "vncgate",
            Self::Tunnel => "tunnel",
            Self::Relay => "relay alone",
            Self::Greedy => "no fairness",
            Self::Haproxy(_) => "HAProxy",
            Self::Wss => "vncgate wss",
            Self::HaproxyTls(_) => "HAProxy TLS",
            Self::Copy => "plain copy",
            Self::Websockify(_) => "websockify",
            Self::Direct => "none",
        }
    }

    /// Whether each session costs it a process.
    pub(crate) const fn forks(&self) -> bool {
        matches!(self, Self::Websockify(_))
    }

    /// Whether it speaks TLS with its clients.
    pub(crate) const fn is_inside_tls(&self) -> bool {
        matches!(self, Self::Wss | Self::HaproxyTls(_))
    }

    /// Starts it in front of the backends.
    pub(crate) fn start(&self, backends: &Backends) -> Result<Peer> {
        let directory = TempDir::with_prefix("bench-")?;
        let began = Instant::now();
        let mut host = None;
        let started = match self {
            Self::Vncgate => vncgate(directory.path(), backends, None),
            Self::Wss => {
                let pair = Pair::make(directory.path())?;
                vncgate(directory.path(), backends, Some(&pair))
            }
            Self::Tunnel => tunnel(directory.path(), backends).map(|(child, started)| {
                host = Some(child);
                started
            }),
            Self::Relay => plain(Way::Relay, backends),
            Self::Greedy => plain(Way::Greedy, backends),
            Self::Copy => plain(Way::Copy, backends),
            Self::Haproxy(program) => haproxy(program, directory.path(), backends, None),
            Self::HaproxyTls(program) => {
                let pair = Pair::make(directory.path())?;
                haproxy(program, directory.path(), backends, Some(&pair))
            }
            Self::Websockify(program) => websockify(program, directory.path(), backends),
            Self::Direct => Ok(direct(backends)),
        };
        let started = started.with_context(|| format!("cannot start {}", self.name()))?;
        let Started {
            child,
            doors,
            ready,
        } = started;
        Ok(Peer {
            make: self.clone(),
            took: ready.saturating_duration_since(began),
            doors,
            child,
            host,
            _directory: directory,
        })
    }
}

impl Peer {
    /// The way to a backend.
    pub(crate) fn door(&self, kind: Kind) -> Result<&Door> {
        let found = self.doors.iter().find(|(known, _)| *known == kind);
        found.map(|(_, door)| door).context("no such backend")
    }

    /// Its processes.
    pub(crate) fn tree(&self) -> Tree {
        let id = |child: &Option<Child>| child.as_ref().map(Child::id);
        Tree([id(&self.child), id(&self.host)])
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let children = [&mut self.child, &mut self.host];
        children.into_iter().flatten().for_each(end);
    }
}

/// Asks first, so that websockify ends its children too.
fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
    for _ in 0..100 {
        if !asked || child.try_wait().is_ok_and(|status| status.is_some()) {
            break;
        }
        thread::park_timeout(Duration::from_millis(20));
    }
    let _already_ended = child.kill().is_err();
    let _status = child.wait();
}

/// A process that takes connections, and since when.
struct Started {
    child: Option<Child>,
    doors: Vec<(Kind, Door)>,
    ready: Instant,
}

fn direct(backends: &Backends) -> Started {
    let doors = backends.addresses.iter().map(|(kind, address)| {
        let address = *address;
        (*kind, Door::plain(address, None))
    });
    Started {
        child: None,
        doors: doors.collect(),
        ready: Instant::now(),
    }
}

/// All viewers have one address.
const NO_LIMITS: &str = "[limits]\nconnections_per_address = 0\nnew_connections_per_address = 0\n";

/// A certificate for this machine alone, and clients that know it.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
    /// Both in one file.
    both: PathBuf,
    clients: Arc<ClientConfig>,
}

impl Pair {
    /// As most certificates are by now: ECDSA with P-256.
    fn make(directory: &Path) -> Result<Self> {
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).map(|()| path)
        };
        let mut roots = RootCertStore::empty();
        roots.add(signed.cert.der().clone())?;
        let mut clients = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Each opening pays for its own handshake, as a new viewer's does.
        clients.resumption = Resumption::disabled();
        Ok(Self {
            certificate: file("own.pem", &certificate)?,
            key: file("own.key", &key)?,
            both: file("both.pem", &[certificate, key].concat())?,
            clients: Arc::new(clients),
        })
    }
}

/// `vncgate serve --all`, with one instance per backend.
fn vncgate(directory: &Path, backends: &Backends, tls: Option<&Pair>) -> Result<Started> {
    let socket = directory.join("admin.sock");
    let config = directory.join("vncgate.toml");
    let mut text = format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\"]\n{NO_LIMITS}[monitor]\nlisten = []\n\
         [auth]\nurl_ttl = \"1h\"\n[admin]\nsocket = \"{}\"\n",
        socket.display()
    );
    if let Some(Pair {
        certificate, key, ..
    }) = tls
    {
        let (certificate, key) = (certificate.display(), key.display());
        writeln!(
            text,
            "[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\""
        )?;
    }
    text.push_str(&instances(backends)?);
    fs::write(&config, text)?;
    let mut command = Command::new(BINARY);
    command.args(["serve", "--all", "--config"]).arg(&config);
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let address = await_ready(&mut child, "/listen")?;
    let ready = Instant::now();
    let mut doors = issue_all(&socket, address, backends)?;
    for (_, door) in &mut doors {
        door.tls = tls.map(|pair| Arc::clone(&pair.clients));
    }
    Ok(Started {
        doors,
        child: Some(child),
        ready,
    })
}

/// The proxy and what else is needed in one process, compute in another, mutual TLS in between.
fn tunnel(directory: &Path, backends: &Backends) -> Result<(Child, Started)> {
    let pki = directory.join("pki");
    let mut command = Command::new(BINARY);
    command.args(["pki", "init"]).arg(&pki);
    command.args(["--host", "127.0.0.1=api,auth,proxy,compute"]);
    ensure!(command.output()?.status.success(), "no certificates");
    let file = |name: &str| pki.join(name).display().to_string();
    let stem = "127.0.0.1-api-auth-compute-proxy";
    let keys = format!(
        "[rpc]\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
        file("ca.pem"),
        file(&format!("{stem}.pem")),
        file(&format!("{stem}.key"))
    );
    let start = |name: &str, text: String, roles: &str| -> Result<Child> {
        let (config, socket) = (directory.join(name), directory.join(format!("{name}.sock")));
        let admin = format!("[admin]\nsocket = \"{}\"\n", socket.display());
        let monitor = "[monitor]\nlisten = []\n";
        fs::write(&config, format!("{text}{admin}{monitor}"))?;
        let mut command = Command::new(BINARY);
        command
            .args(["serve", "--role", roles, "--config"])
            .arg(&config);
        Ok(command.stderr(Stdio::piped()).spawn()?)
    };
    let listen = "listen = [\"127.0.0.1:0\"]\n";
    let text = format!(
        "{keys}{listen}max_tunnels = 20000\n{}",
        instances(backends)?
    );
    let mut host = start("host", text, "compute")?;
    let there = await_ready(&mut host, "/rpc")?;
    let text = format!(
        "{keys}{listen}tunnel = \"only\"\ncompute = [\"{there}\"]\n[proxy]\n{listen}{NO_LIMITS}\
         [auth]\nurl_ttl = \"1h\"\n"
    );
    let mut front = start("front", text, "api,auth,proxy")?;
    let address = await_ready(&mut front, "/listen")?;
    let ready = Instant::now();
    let doors = issue_all(&directory.join("front.sock"), address, backends)?;
    let front = Started {
        child: Some(front),
        doors,
        ready,
    };
    Ok((host, front))
}

fn instances(backends: &Backends) -> Result<String> {
    let mut text = String::new();
    for (kind, address) in &backends.addresses {
        let name = kind.name();
        writeln!(
            text,
            "[[compute.instance]]\nname = \"{name}\"\naddress = \"{address}\""
        )?;
    }
    Ok(text)
}

fn issue_all(socket: &Path, address: SocketAddr, backends: &Backends) -> Result<Vec<(Kind, Door)>> {
    let door = |(kind, _): &(Kind, _)| {
        let path = Some(issue(socket, *kind)?);
        Ok((*kind, Door::plain(address, path)))
    };
    backends.addresses.iter().map(door).collect()
}

/// This program itself, as a child.
fn plain(way: Way, backends: &Backends) -> Result<Started> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--relay", way.name()]);
    let addresses = backends.addresses.iter();
    command.args(addresses.map(|(_, address)| address.to_string()));
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let path = (!matches!(way, Way::Copy)).then(|| "/".to_owned());
    let doors = backends
        .addresses
        .iter()
        .zip(lines)
        .map(|((kind, _), line)| {
            let address = line?.parse()?;
            let path = path.clone();
            Ok((*kind, Door::plain(address, path)))
        });
    let doors = doors.collect::<Result<_>>()?;
    Ok(started(child, doors))
}

/// TCP mode with one thread and splice(2), which is its best.
fn haproxy(
    program: &Path,
    directory: &Path,
    backends: &Backends,
    tls: Option<&Pair>,
) -> Result<Started> {
    let inside = tls.map_or_else(String::new, |pair| {
        format!(" ssl crt {}", pair.both.display())
    });
    let mut text = "global\n nbthread 1\n maxconn 9600\n maxpipes 64\n\
                    defaults\n mode tcp\n option splice-auto\n option tcpka\n\
                    \x20timeout connect 5s\n timeout client 1h\n timeout server 1h\n"
        .to_owned();
    let mut doors = Vec::new();
    for (kind, backend) in &backends.addresses {
        let address = free_port()?;
        let name = kind.name();
        writeln!(
            text,
            "listen {name}\n bind {address} backlog 4096{inside}\n server s {backend}"
        )?;
        let tls = tls.map(|pair| Arc::clone(&pair.clients));
        let door = Door {
            tls,
            ..Door::plain(address, None)
        };
        doors.push((*kind, door));
    }
    let config = directory.join("haproxy.cfg");
    fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(&config);
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let last = doors.last().context("no backends")?;
    await_listener(last.1.address)?;
    Ok(started(child, doors))
}

/// With a token file, on a listening socket that is handed over.
fn websockify(program: &Path, directory: &Path, backends: &Backends) -> Result<Started> {
    let tokens = directory.join("tokens");
    let lines = backends.addresses.iter();
    let lines = lines.map(|(kind, address)| format!("{}: {address}\n", kind.name()));
    fs::write(&tokens, lines.collect::<String>())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut command = Command::new(program);
    command.args(["--inetd", "--token-plugin", "TokenFile", "--token-source"]);
    command.arg(&tokens).stdin(OwnedFd::from(listener));
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let door = |(kind, _): &(Kind, _)| {
        let path = Some(format!("/?token={}", kind.name()));
        (*kind, Door::plain(address, path))
    };
    Ok(started(
        child,
        backends.addresses.iter().map(door).collect(),
    ))
}

fn started(child: Child, doors: Vec<(Kind, Door)>) -> Started {
    Started {
        child: Some(child),
        doors,
        ready: Instant::now(),
    }
}

/// A port for a program that cannot choose one itself.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn await_listener(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        ensure!(Instant::now() < deadline, "nobody listens on {address}");
        thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

/// Waits for the ready line, which tells `which` address, and keeps reading so that the log never blocks.
fn await_ready(child: &mut Child, which: &str) -> Result<SocketAddr> {
    let log = child.stderr.take().context("no log")?;
    let mut lines = BufReader::new(log).lines();
    for line in lines.by_ref() {
        let line = line?;
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        let message = event.pointer("/message");
        if message.is_some_and(|message| message == "ready") {
            thread::spawn(move || lines.count());
            let listen = event.pointer(which).and_then(Value::as_str);
            return Ok(listen.context("ready tells no address")?.parse()?);
        }
        writeln!(std::io::stderr(), "{line}")?;
    }
    anyhow::bail!("vncgate ended before it was ready")
}

/// A console's WebSocket path, with a fresh token.
fn issue(socket: &Path, kind: Kind) -> Result<String> {
    let mut command = Command::new(BINARY);
    command.args([
        "token",
        "issue",
        kind.name(),
        "-o",
        "json",
        "--admin-socket",
    ]);
    let output = command.arg(socket).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let issued: Value = serde_json::from_slice(&output.stdout)?;
    let token = issued.pointer("/token").and_then(Value::as_str);
    Ok(format!("/?token={}", token.context("no token")?))
}
