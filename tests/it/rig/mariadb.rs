//! A real `MariaDB` with the tables of a cell of Nova.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::cell::{Database, PASSWORD, READER, tables};
use super::certificates::Authority;
use super::gateway::{Answer, bare, run};
use super::libvirtd::loopback;
use super::process::{Process, peer};
use super::seed::plant;
use super::wait::until;

/// Small, and without a wait for the disk; what is committed outlives a kill all the same.
const OPTIONS: [&str; 7] = [
    "--no-defaults",
    "--user=root",
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=16M",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-flush-method=nosync",
    "--skip-name-resolve",
];

/// A running server. The reader's account needs a password; the owner's needs the Unix socket.
#[derive(Debug)]
pub(crate) struct MariaDb {
    address: SocketAddr,
    directory: TempDir,
    tls: bool,
    process: Option<Process>,
}

impl MariaDb {
    /// One that speaks plainly.
    pub(crate) fn start() -> Self {
        Self::new(false)
    }

    /// One that takes connections over TLS alone; [`MariaDb::authority`] vouches for it.
    pub(crate) fn with_tls() -> Self {
        Self::new(true)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The reader's URL, in the form that Nova's own configuration has.
    pub(crate) fn url(&self) -> String {
        format!("mysql+pymysql://{READER}:{PASSWORD}@{}/nova", self.address)
    }

    /// The certificate of the authority behind [`MariaDb::with_tls`].
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("pki/ca.pem")
    }

    /// Runs a statement as the reader, over the network.
    pub(crate) fn as_reader(&self, statement: &str) -> Answer {
        let mut command = client();
        command.args(["--protocol=tcp", "--user", READER]);
        command.arg(format!("--host={}", self.address.ip()));
        command.arg(format!("--port={}", self.address.port()));
        if self.tls {
            let authority = self.authority();
            command.arg(format!("--ssl-ca={}", authority.display()));
            command.arg("--ssl-verify-server-cert");
        }
        command.env("MYSQL_PWD", PASSWORD);
        run(command.args(["--execute", statement, "nova"]))
    }

    /// Stops it or lets it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// Kills it; its port refuses connections.
    pub(crate) fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts it again where it was, with what was in it.
    pub(crate) fn restart(&mut self) {
        let here = self.directory.path();
        let mut command = bare(&peer("mariadbd"));
        command
            .args(OPTIONS)
            .arg(format!("--datadir={}", here.join("data").display()))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--pid-file={}", here.join("pid").display()))
            .arg(format!("--bind-address={}", self.address.ip()))
            .arg(format!("--port={}", self.address.port()));
        if self.tls {
            let pki = here.join("pki");
            command.arg("--require-secure-transport=on");
            for (option, file) in [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")] {
                command.arg(format!("--ssl-{option}={}", pki.join(file).display()));
            }
        }
        self.process = Some(Process::spawn("mariadbd", &mut command));
        until("mariadbd to answer", || {
            let asked = self.owner().args(["--execute", "SELECT 1"]).output();
            asked.unwrap().status.success().then_some(())
        });
    }

    fn new(tls: bool) -> Self {
        let directory = TempDir::with_prefix("vncgate-mariadb-").unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        plant("mariadb", &recipe(), &data, make);
        let address = free_address();
        if tls {
            let pki = directory.path().join("pki");
            let authority = Authority::new(&pki, "ca.pem");
            authority.vouch_for(&address.ip().to_string(), "cert.pem", "key.pem");
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
        let id = "INTEGER NOT NULL AUTO_INCREMENT";
        let end = " ENGINE=InnoDB DEFAULT CHARACTER SET utf8";
        let tables = tables(id, "DATETIME", end);
        self.sql(&format!(
            "CREATE DATABASE nova CHARACTER SET utf8; USE nova; {tables}
             CREATE USER '{READER}'@'%' IDENTIFIED BY '{PASSWORD}';
             GRANT SELECT ON nova.console_auth_tokens TO '{READER}'@'%';
             GRANT SELECT ON nova.instances TO '{READER}'@'%';"
        ));
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn owner(&self) -> Command {
        let mut command = client();
        command.arg(format!("--socket={}", self.socket().display()));
        command.args(["--user", "root"]);
        command
    }
}

impl Database for MariaDb {
    #[track_caller]
    fn sql(&self, statements: &str) -> String {
        let file = tempfile::tempfile().unwrap();
        let mut writer = &file;
        std::io::Write::write_all(&mut writer, statements.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut writer).unwrap();
        let mut command = self.owner();
        if !statements.starts_with("CREATE DATABASE") {
            command.arg("nova");
        }
        run(command.stdin(Stdio::from(file))).ok().stdout
    }
}

/// An address of this machine that no other server has.
pub(crate) fn free_address() -> SocketAddr {
    // The port is free at an address that nobody else has found, and stays so.
    let listener = TcpListener::bind(format!("{}:0", loopback())).unwrap();
    listener.local_addr().unwrap()
}

fn client() -> Command {
    let mut command = bare(&peer("mariadb"));
    command.args(["--no-defaults", "--batch", "--skip-column-names"]);
    command
}

fn recipe() -> String {
    let version = run(bare(&peer("mariadbd")).arg("--version")).ok().stdout;
    version + &OPTIONS.concat()
}

fn make(directory: &Path) {
    let mut command = bare(&peer("mariadb-install-db"));
    command.args(OPTIONS).args(["--skip-test-db"]);
    command.arg("--auth-root-authentication-method=normal");
    run(command.arg(format!("--datadir={}", directory.display()))).ok();
}
