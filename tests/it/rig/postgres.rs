//! A real `PostgreSQL` with the tables of a cell of Nova.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use super::cell::{Database, PASSWORD, READER, tables};
use super::certificates::Authority;
use super::gateway::{Answer, bare, run};
use super::mariadb::free_address;
use super::process::{Process, peer};
use super::wait::until;

/// `nobody` and its group: the server refuses to run as root.
const NOBODY: u32 = 65_534;

/// A running server. The reader's account needs a password; the owner's needs the Unix socket.
#[derive(Debug)]
pub(crate) struct Postgres {
    address: SocketAddr,
    directory: TempDir,
    tls: bool,
    process: Option<Process>,
}

impl Postgres {
    /// One that speaks plainly.
    pub(crate) fn start() -> Self {
        Self::new(false)
    }

    /// One that takes connections over TLS alone; [`Postgres::authority`] vouches for it.
    pub(crate) fn with_tls() -> Self {
        Self::new(true)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The reader's URL, in the form that Nova's own configuration has.
    pub(crate) fn url(&self) -> String {
        format!("postgresql://{READER}:{PASSWORD}@{}/nova", self.address)
    }

    /// The certificate of the authority behind [`Postgres::with_tls`].
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("pki/ca.pem")
    }

    /// Runs a statement as the reader, over the network.
    pub(crate) fn as_reader(&self, statement: &str) -> Answer {
        let mut command = self.client();
        command.args(["--username", READER, "--no-password"]);
        command.args(["--host", &self.address.ip().to_string(), "--dbname", "nova"]);
        command.env("PGPASSWORD", PASSWORD);
        if self.tls {
            command.env("PGSSLMODE", "verify-full");
            command.env("PGSSLROOTCERT", self.authority());
        }
        run(command.args(["--command", statement]))
    }

    /// Stops it or lets it go on, and its workers, of which each connection has one.
    pub(crate) fn signal(&self, signal: Signal) {
        let server = self.process.as_ref().unwrap();
        server.signal(signal);
        let file = format!("/proc/{0}/task/{0}/children", server.pid());
        for worker in fs::read_to_string(file).unwrap().split_whitespace() {
            let worker = Pid::from_raw(worker.parse().unwrap()).unwrap();
            let _ended_by_itself = kill_process(worker, signal).is_err();
        }
    }

    /// Ends it at once, and its workers; its port refuses connections.
    pub(crate) fn kill(&mut self) {
        if self.process.is_none() {
            return;
        }
        // Not by SIGKILL: that leaves its shared memory behind. This is its quickest end.
        self.signal(Signal::CONT);
        let mut process = self.process.take().unwrap();
        process.signal(Signal::QUIT);
        process.wait();
    }

    /// Starts it again where it was, with what was in it.
    pub(crate) fn restart(&mut self) {
        let here = self.directory.path();
        let mut command = as_nobody(&server("postgres"));
        let mut settings = vec![
            format!("listen_addresses={}", self.address.ip()),
            format!("port={}", self.address.port()),
            format!("unix_socket_directories={}", here.display()),
            "fsync=off".to_owned(),
            "shared_buffers=8MB".to_owned(),
        ];
        if self.tls {
            let pki = here.join("pki");
            settings.push("ssl=on".to_owned());
            settings.push(format!("ssl_cert_file={}", pki.join("cert.pem").display()));
            settings.push(format!("ssl_key_file={}", pki.join("key.pem").display()));
        }
        command.arg("-D").arg(here.join("data"));
        command.args(settings.iter().flat_map(|setting| ["-c", setting]));
        self.process = Some(Process::spawn("postgres", &mut command));
        until("postgres to answer", || {
            let mut ask = self.owner("postgres");
            let asked = ask.args(["--command", "SELECT 1"]).output();
            asked.unwrap().status.success().then_some(())
        });
    }

    fn new(tls: bool) -> Self {
        let directory = TempDir::with_prefix("vncgate-postgres-").unwrap();
        let here = directory.path();
        give_away(here);
        let mut command = as_nobody(&server("initdb"));
        command.args(["--username=nova", "--auth=trust", "--no-sync"]);
        command.args(["--encoding=UTF8", "--locale=C"]);
        run(command.arg("-D").arg(here.join("data"))).ok();
        let kind = if tls { "hostssl" } else { "host" };
        let doors = format!("local all nova trust\n{kind} nova all all scram-sha-256\n");
        fs::write(here.join("data/pg_hba.conf"), doors).unwrap();
        let address = free_address();
        if tls {
            certify(here, address);
        }
        let mut server = Self {
            address,
            directory,
            tls,
            process: None,
        };
        server.restart();
        server.furnish();
        server
    }

    fn furnish(&self) {
        let mut create = self.owner("postgres");
        run(create.args(["--command", "CREATE DATABASE nova"])).ok();
        let tables = tables("SERIAL", "TIMESTAMP WITHOUT TIME ZONE", "");
        self.sql(&format!(
            "{tables} CREATE ROLE {READER} LOGIN PASSWORD '{PASSWORD}';
             GRANT SELECT ON console_auth_tokens, instances TO {READER};"
        ));
    }

    fn owner(&self, database: &str) -> Command {
        let mut command = self.client();
        command.arg("--host").arg(self.directory.path());
        command.args(["--username", "nova", "--dbname", database]);
        command
    }

    fn client(&self) -> Command {
        let mut command = bare(&peer("psql"));
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        command.args(["--field-separator", "\t", "--set", "ON_ERROR_STOP=1"]);
        command.args(["--port", &self.address.port().to_string()]);
        command
    }
}

impl Database for Postgres {
    #[track_caller]
    fn sql(&self, statements: &str) -> String {
        let file = tempfile::tempfile().unwrap();
        let mut writer = &file;
        std::io::Write::write_all(&mut writer, statements.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut writer).unwrap();
        run(self.owner("nova").stdin(Stdio::from(file))).ok().stdout
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of the server, which lies in a directory that bears the version.
#[track_caller]
fn server(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let paths = versions.map(|version| version.unwrap().path().join("bin").join(program));
    let newest = paths.filter(|path| path.is_file()).max();
    newest.unwrap_or_else(|| peer(program))
}

/// A command for a program that must not be root; it dies with the test.
fn as_nobody(program: &Path) -> Command {
    let mut command = bare(program);
    if geteuid().is_root() {
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = Command::new(command.get_program());
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
        command.arg("--clear-groups").args(arguments);
        command.stdin(Stdio::null());
    }
    command.current_dir("/");
    command
}

/// Makes a file or directory the server's own.
fn give_away(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn certify(here: &Path, address: SocketAddr) {
    let pki = here.join("pki");
    let authority = Authority::new(&pki, "ca.pem");
    authority.vouch_for(&address.ip().to_string(), "cert.pem", "key.pem");
    let key = pki.join("key.pem");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    give_away(&key);
}
