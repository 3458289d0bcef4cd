//! The two programs that are compared, each in front of the same backends.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::backends::{Backends, Kind};

const BINARY: &str = env!("CARGO_BIN_EXE_vncgate");

/// A running proxy. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    paths: Vec<(Kind, String)>,
    child: Child,
    _directory: TempDir,
}

impl Proxy {
    /// `vncgate serve --all`, with one instance per backend.
    pub(crate) fn vncgate(backends: &Backends) -> Result<Self> {
        let directory = TempDir::with_prefix("compare-")?;
        let socket = directory.path().join("admin.sock");
        let config = directory.path().join("vncgate.toml");
        let mut text = format!(
            "[proxy]\nlisten = [\"127.0.0.1:0\"]\n[monitor]\nlisten = []\n\
             [auth]\nurl_ttl = \"1h\"\n[admin]\nsocket = \"{}\"\n",
            socket.display()
        );
        for (kind, address) in &backends.addresses {
            let name = kind.name();
            text += "[[compute.instance]]\n";
            text += &[
                "name = \"",
                name,
                "\"\naddress = \"",
                &address.to_string(),
                "\"\n",
            ]
            .concat();
        }
        fs::write(&config, text)?;
        let mut command = Command::new(BINARY);
        command.args(["serve", "--all", "--config"]).arg(&config);
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let address = ready(&mut child)?;
        let mut paths = Vec::new();
        for (kind, _) in &backends.addresses {
            paths.push((*kind, issue(&socket, *kind)?));
        }
        Ok(Self {
            name: "vncgate",
            address,
            paths,
            child,
            _directory: directory,
        })
    }

    /// websockify with a token file, on a listening socket that is handed over.
    pub(crate) fn websockify(program: &Path, backends: &Backends) -> Result<Self> {
        let directory = TempDir::with_prefix("compare-")?;
        let tokens = directory.path().join("tokens");
        let lines = backends.addresses.iter();
        let lines = lines.map(|(kind, address)| format!("{}: {address}\n", kind.name()));
        fs::write(&tokens, lines.collect::<String>())?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let mut command = Command::new(program);
        command.args(["--inetd", "--token-plugin", "TokenFile", "--token-source"]);
        command.arg(&tokens).stdin(OwnedFd::from(listener));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let path = |(kind, _): &(Kind, _)| (*kind, format!("/?token={}", kind.name()));
        Ok(Self {
            name: "websockify",
            address,
            paths: backends.addresses.iter().map(path).collect(),
            child: child.with_context(|| format!("cannot start {}", program.display()))?,
            _directory: directory,
        })
    }

    /// The path that leads to a backend.
    pub(crate) fn path(&self, kind: Kind) -> &str {
        let found = self.paths.iter().find(|(known, _)| *known == kind);
        found.map_or("/", |(_, path)| path)
    }

    /// The seconds of CPU it has used so far, with all its children, living or waited for.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let mut ticks: u64 = 0;
        for process in self.tree()? {
            ticks += process.ticks;
        }
        let per_second = rustix::param::clock_ticks_per_second();
        Ok((Duration::from_secs(ticks) / u32::try_from(per_second)?).as_secs_f64())
    }

    /// The memory it uses with all its children, shared pages divided by their users.
    pub(crate) fn memory_kib(&self) -> Result<u64> {
        let mut kib = 0;
        for process in self.tree()? {
            let path = format!("/proc/{}/smaps_rollup", process.pid);
            // a child may have ended since
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let number = line.and_then(|line| line.split_whitespace().next());
            kib += number.map_or(Ok(0), str::parse)?;
        }
        Ok(kib)
    }

    fn tree(&self) -> Result<Vec<Process>> {
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let process = name.to_str().and_then(|name| name.parse().ok());
            all.extend(process.and_then(Process::look));
        }
        let mut tree: Vec<Process> = Vec::new();
        let mut wanted = vec![self.child.id()];
        while let Some(pid) = wanted.pop() {
            wanted.extend(
                all.iter()
                    .filter(|process| process.parent == pid)
                    .map(|p| p.pid),
            );
            tree.extend(all.iter().find(|process| process.pid == pid));
        }
        Ok(tree)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // asked first, so that websockify ends its children too
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        for _ in 0..100 {
            if !asked || self.child.try_wait().is_ok_and(|status| status.is_some()) {
                break;
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        let _already_ended = self.child.kill().is_err();
        let _status = self.child.wait();
    }
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug)]
struct Process {
    pid: u32,
    parent: u32,
    ticks: u64,
}

impl Process {
    fn look(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // the second field is a name in brackets that may hold anything
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            pid,
            parent: u32::try_from(number(1)?).ok()?,
            ticks: number(11)? + number(12)? + number(13)? + number(14)?,
        })
    }
}

/// Waits for the ready line, and keeps reading so that the log never blocks.
fn ready(child: &mut Child) -> Result<SocketAddr> {
    let log = child.stderr.take().context("no log")?;
    let mut lines = BufReader::new(log).lines();
    for line in lines.by_ref() {
        let line = line?;
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event
            .pointer("/message")
            .is_some_and(|message| message == "ready")
        {
            thread::spawn(move || lines.count());
            let listen = event
                .pointer("/listen")
                .and_then(Value::as_str)
                .context("ready tells no address")?;
            return Ok(listen.parse()?);
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
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let issued: Value = serde_json::from_slice(&output.stdout)?;
    let token = issued
        .pointer("/token")
        .and_then(Value::as_str)
        .context("no token")?;
    Ok(format!("/?token={token}"))
}
