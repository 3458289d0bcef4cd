//! The ways to a real libvirt daemon: TCP, TLS, SASL, and ssh with both of its helpers.
//!
//! The daemon's own mock (`test:///default`) is asked for its one domain, so no virtual machine is
//! needed. Daemon and sshd run in a mount and process namespace of their own, on a loopback
//! address of their own: nothing of this machine's libvirt is touched.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::rig::certificates::Authority;
use super::rig::gateway;
use super::rig::http::Request;
use super::rig::libvirtd::loopback;
use super::rig::process::{Process, peer, tied};
use super::rig::wait::until;

const PASSWORD: &str = "pass, word=";

/// A daemon, and an sshd beside it.
struct Daemon {
    address: String,
    place: TempDir,
    _process: Process,
}

/// What a daemon is to ask of those who come.
struct Setup {
    place: TempDir,
    config: String,
    mechanism: &'static str,
    without_helper: bool,
    certified_for: Option<&'static str>,
}

impl Setup {
    fn new(config: &str) -> Self {
        Self {
            place: TempDir::with_prefix("vncgate-libvirt-").unwrap(),
            config: config.to_owned(),
            mechanism: "scram-sha-256",
            without_helper: false,
            certified_for: None,
        }
    }

    fn mechanism(self, mechanism: &'static str) -> Self {
        Self { mechanism, ..self }
    }

    fn start(self) -> Daemon {
        let address = loopback();
        let place = self.place.path();
        certificates(place, self.certified_for.unwrap_or(&address));
        user(place);
        fs::write(place.join("sasl.conf"), self.sasl()).unwrap();
        fs::write(place.join("libvirtd.conf"), self.libvirtd(&address)).unwrap();
        ssh_keys(place, &address);
        fs::write(place.join("start"), self.script()).unwrap();
        let mut command = tied(&peer("unshare"));
        command.args(["--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]);
        command.args(["sh", "-eu"]).arg(place.join("start"));
        let process = Process::spawn("libvirtd", command.stdin(Stdio::null()));
        for port in [16509, 16514, 2222] {
            until(&format!("port {port}"), || {
                TcpStream::connect((address.as_str(), port)).ok()
            });
        }
        Daemon {
            address,
            place: self.place,
            _process: process,
        }
    }

    fn sasl(&self) -> String {
        let database = self.place.path().join("users");
        format!(
            "mech_list: {}\nsasldb_path: {}\n",
            self.mechanism,
            database.display()
        )
    }

    fn libvirtd(&self, address: &str) -> String {
        let pki = self.place.path().join("pki");
        let file = |name: &str| pki.join(name).display().to_string();
        format!(
            "listen_tls = 1\nlisten_tcp = 1\nlisten_addr = \"{address}\"\n\
             auth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n\
             ca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n{}\n",
            file("cacert.pem"),
            file("servercert.pem"),
            file("serverkey.pem"),
            self.config,
        )
    }

    /// Everything that daemons write lies in memory, or in the test's own directory.
    fn script(&self) -> String {
        let place = self.place.path().display();
        let helper = if self.without_helper {
            "mount --bind /dev/null /usr/bin/virt-ssh-helper"
        } else {
            "true"
        };
        format!(
            "mkdir -p {place}/run
            mount -t tmpfs tmpfs /run
            mkdir /run/libvirt /run/sshd
            mount --bind {place}/run /run/libvirt
            mount -t tmpfs tmpfs /var/lib/libvirt
            mount -t tmpfs tmpfs /var/cache
            mount -t tmpfs tmpfs /var/log
            mount --bind {place}/sasl.conf /etc/sasl2/libvirt.conf
            {helper}
            {sshd} -D -e -f {place}/sshd.conf &
            exec {libvirtd} --listen -f {place}/libvirtd.conf",
            sshd = peer("sshd").display(),
            libvirtd = peer("libvirtd").display(),
        )
    }
}

impl Daemon {
    fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn tls(&self) -> String {
        self.tls_with("pki")
    }

    fn tls_with(&self, pki: &str) -> String {
        let pki = self.file(pki);
        format!(
            "test+tls://{}/default?pkipath={}",
            self.address,
            pki.display()
        )
    }

    fn tcp(&self) -> String {
        format!("test+tcp://{}/default", self.address)
    }

    fn ssh(&self, more: &str) -> String {
        format!(
            "test+ssh://root@{}:2222/default?keyfile={}&known_hosts={}{more}",
            self.address,
            self.file("id").display(),
            self.file("known_hosts").display()
        )
    }

    fn socket(&self) -> String {
        let socket = self.file("run/libvirt-sock");
        format!("test+unix:///default?socket={}", socket.display())
    }

    /// Nobody knows this process's certificate there.
    fn forget_the_client(&self) {
        let empty = self.file("strange");
        fs::create_dir(&empty).unwrap();
        fs::copy(self.file("pki/cacert.pem"), empty.join("cacert.pem")).unwrap();
    }
}

/// What `instance list` shows of the host at the end of this way: the names of its domains, or
/// the sentence that says why there are none. What cannot be looked up there is then a 503.
#[track_caller]
fn domains(uri: &str, password_file: Option<&Path>) -> Result<Vec<String>, String> {
    let mut setup = gateway::Setup::new().hypervisor("kvm-1", uri);
    if let Some(file) = password_file {
        let file = file.to_str().unwrap();
        setup = setup
            .set_host("user", "ops")
            .set_host("password_file", file);
    }
    let gateway = setup.start();
    gateway.wait_for_event("how the host was found", |event| {
        let message = event["message"].as_str();
        message.is_some_and(|text| text.starts_with("hypervisor "))
    });

    let listed = gateway.cli(&["instance", "list", "-o", "json"]).ok();
    let found = gateway.http(&Request::new("GET", "/v1/instances/test"));

    let view = listed.json();
    let instances = view["instances"].as_array().unwrap().iter();
    let names: Vec<_> = instances
        .map(|instance| instance["name"].as_str().unwrap().to_owned())
        .collect();
    if listed.stderr.is_empty() {
        assert_eq!(found.status, 200, "{found:?}");
        return Ok(names);
    }
    assert_eq!((names.len(), found.status), (0, 503), "{found:?}");
    let sentence = listed.stderr.trim_end();
    assert!(!sentence.contains(PASSWORD), "{sentence}");
    let why = sentence.strip_prefix("vncgate: kvm-1: cannot reach the hypervisor: ");
    Err(why.expect(sentence).to_owned())
}

/// The file with this password, as the config names it.
fn login(daemon: &Daemon, password: &str) -> PathBuf {
    let file = daemon.file("password");
    fs::write(&file, format!("{password}\n")).unwrap();
    file
}

#[test]
fn the_socket_and_tcp_without_auth_lead_to_the_daemon() {
    let daemon = Setup::new("auth_tcp = \"none\"").start();

    assert_eq!(domains(&daemon.socket(), None).unwrap(), ["test"]);
    assert_eq!(domains(&daemon.tcp(), None).unwrap(), ["test"]);
}

#[test]
fn a_client_with_a_certificate_is_let_in_over_tls_and_one_without_is_told() {
    let daemon = Setup::new("auth_tls = \"none\"").start();
    daemon.forget_the_client();

    let known = domains(&daemon.tls(), None);
    let stranger = domains(&daemon.tls_with("strange"), None);

    assert_eq!(known.unwrap(), ["test"]);
    let path = daemon.file("strange/clientcert.pem");
    let why = format!(
        "{} wants a client certificate, and there is no {}",
        daemon.address,
        path.display()
    );
    assert_eq!(stranger.unwrap_err(), why);
}

#[test]
fn a_daemon_that_cannot_show_who_it_is_is_not_spoken_to() {
    let mut setup = Setup::new("auth_tls = \"none\"");
    setup.certified_for = Some("elsewhere.example");
    let daemon = setup.start();
    let others = daemon.file("others");
    let others = Authority::new(&others, "cacert.pem");
    others.vouch_for("vncgate", "clientcert.pem", "clientkey.pem");

    let misnamed = domains(&daemon.tls(), None).unwrap_err();
    let unknown = domains(&daemon.tls_with("others"), None).unwrap_err();

    assert!(misnamed.contains("elsewhere.example"), "{misnamed}");
    assert!(unknown.contains("cacert.pem"), "{unknown}");
}

#[test]
fn a_client_whose_name_is_not_on_the_daemons_list_is_told_that_it_is_not_accepted() {
    let allowed = "auth_tls = \"none\"\ntls_allowed_dn_list = [\"CN=somebody else\"]";
    let daemon = Setup::new(allowed).start();

    let error = domains(&daemon.tls(), None).unwrap_err();

    let path = daemon.file("pki/clientcert.pem");
    let begin = format!(
        "{} does not accept our certificate {}",
        daemon.address,
        path.display()
    );
    assert!(error.starts_with(&begin), "{error}");
}

#[test]
fn a_password_opens_the_daemon_by_scram_over_tls_and_a_wrong_one_does_not() {
    let daemon = Setup::new("auth_tls = \"sasl\"").start();

    let right = domains(&daemon.tls(), Some(&login(&daemon, PASSWORD)));
    let wrong = domains(&daemon.tls(), Some(&login(&daemon, "wrong")));
    let none = domains(&daemon.tls(), None);

    assert_eq!(right.unwrap(), ["test"]);
    assert_eq!(
        wrong.unwrap_err(),
        "the daemon does not accept user `ops` with this password by SCRAM-SHA-256"
    );
    let none = none.unwrap_err();
    assert!(none.contains("none are configured"), "{none}");
}

#[test]
fn plain_is_spoken_over_tls_but_not_to_anybody() {
    let daemon = Setup::new("auth_tls = \"sasl\"").mechanism("plain").start();

    let verified = domains(&daemon.tls(), Some(&login(&daemon, PASSWORD)));
    let wrong = domains(&daemon.tls(), Some(&login(&daemon, "wrong")));
    let anybody = format!("{}&no_verify=1", daemon.tls());
    let anybody = domains(&anybody, Some(&login(&daemon, PASSWORD)));

    assert_eq!(verified.unwrap(), ["test"]);
    assert_eq!(
        wrong.unwrap_err(),
        "the daemon does not accept user `ops` with this password by PLAIN"
    );
    let anybody = anybody.unwrap_err();
    assert!(anybody.contains("the password is not sent"), "{anybody}");
}

#[test]
fn a_daemon_that_offers_other_mechanisms_is_told_so_by_name() {
    let daemon = Setup::new("auth_tls = \"sasl\"")
        .mechanism("digest-md5 cram-md5")
        .start();

    let error = domains(&daemon.tls(), Some(&login(&daemon, PASSWORD))).unwrap_err();

    assert!(error.contains("DIGEST-MD5"), "{error}");
    assert!(error.contains("vncgate speaks SCRAM-SHA-256"), "{error}");
}

#[test]
fn sasl_without_tls_is_refused_with_the_way_out() {
    let daemon = Setup::new("auth_tcp = \"sasl\"").mechanism("scram-sha-256 plain digest-md5");
    let daemon = daemon.start();

    let error = domains(&daemon.tcp(), Some(&login(&daemon, PASSWORD))).unwrap_err();

    assert!(error.contains("use qemu+tls"), "{error}");
}

#[test]
fn ssh_leads_to_the_daemon_by_libvirts_helper() {
    let daemon = Setup::new("").start();

    for more in ["", "&proxy=native"] {
        assert_eq!(domains(&daemon.ssh(more), None).unwrap(), ["test"]);
    }
}

#[test]
fn ssh_leads_to_the_daemon_by_netcat_where_the_helper_is_missing() {
    let mut setup = Setup::new("");
    setup.without_helper = true;
    let daemon = setup.start();

    for more in ["", "&socket=/run/libvirt/libvirt-sock"] {
        assert_eq!(domains(&daemon.ssh(more), None).unwrap(), ["test"]);
    }
    let error = domains(&daemon.ssh("&proxy=native"), None).unwrap_err();
    assert!(error.contains("virt-ssh-helper"), "{error}");
}

#[test]
fn what_keeps_ssh_out_is_said_in_its_own_words() {
    let daemon = Setup::new("").start();

    fs::write(daemon.file("known_hosts"), "").unwrap();
    let unknown = domains(&daemon.ssh(""), None).unwrap_err();
    let lax = domains(&daemon.ssh("&no_verify=1"), None);
    fs::write(daemon.file("authorized_keys"), "").unwrap();
    let denied = domains(&daemon.ssh(""), None).unwrap_err();

    assert!(
        unknown.contains("Host key verification failed"),
        "{unknown}"
    );
    assert_eq!(lax.unwrap(), ["test"]);
    assert!(denied.contains("Permission denied (publickey)"), "{denied}");
}

/// A CA, a server of that name or address, and a client.
fn certificates(place: &Path, server: &str) {
    let pki = place.join("pki");
    let authority = Authority::new(&pki, "cacert.pem");
    authority.vouch_for(server, "servercert.pem", "serverkey.pem");
    authority.vouch_for("vncgate", "clientcert.pem", "clientkey.pem");
}

/// The user `ops` in a database of the test's own.
fn user(place: &Path) {
    let mut command = Command::new(peer("saslpasswd2"));
    command
        .args(["-p", "-c", "-a", "libvirt", "-f"])
        .arg(place.join("users"))
        .arg("ops");
    let password = place.join("typed");
    fs::write(&password, PASSWORD).unwrap();
    let typed = fs::File::open(&password).unwrap();
    assert!(
        command.stdin(typed).status().unwrap().success(),
        "saslpasswd2 failed"
    );
}

/// Keys of the host and of its one user, and the configuration of sshd.
fn ssh_keys(place: &Path, address: &str) {
    let public = |name: &str| {
        let mut command = Command::new(peer("ssh-keygen"));
        command
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(place.join(name));
        assert!(command.status().unwrap().success(), "ssh-keygen failed");
        fs::read_to_string(place.join(format!("{name}.pub"))).unwrap()
    };
    let (host, user) = (public("host"), public("id"));
    fs::write(
        place.join("known_hosts"),
        format!("[{address}]:2222 {host}"),
    )
    .unwrap();
    fs::write(place.join("authorized_keys"), user).unwrap();
    let shown = place.display();
    let config = format!(
        "ListenAddress {address}:2222\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/authorized_keys\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nStrictModes no\nUsePAM no\nPidFile none\n"
    );
    fs::write(place.join("sshd.conf"), config).unwrap();
}
