//! A real libvirtd with real virtual machines, in a machine of its own.
//!
//! The machine is a pair of namespaces, mounts and processes: the daemon sees only its own
//! directories, several run side by side, and whatever a test leaves behind dies with them. The
//! daemon is started inside, so that it can be killed and started again while its guests live on.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::certificates::Authority;
use super::gateway::{Answer, run};
use super::process::{Process, peer, tied};
use super::qemu::{GUEST, sector};
use super::wait::until;
use super::xml::of_nova;

/// A guest that sends back what it hears on its first serial line, and sleeps between ticks.
const ECHO: &[u8] = &[
    0xba, 0xfd, 0x03, // listen: mov dx, 0x3fd
    0xec, // in al, dx
    0xa8, 0x01, // test al, 1
    0x74, 0x06, // jz rest
    0xb2, 0xf8, // mov dl, 0xf8
    0xec, // in al, dx
    0xee, // out dx, al
    0xeb, 0xf2, // jmp listen
    0xfb, // rest: sti
    0xf4, // hlt
    0xeb, 0xee, // jmp listen
];

/// A guest that writes the text behind it to its first serial line, and sleeps.
const TALK: &[u8] = &[
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0xbe, 0x1c, 0x7c, // mov si, text
    0xba, 0xfd, 0x03, // next: mov dx, 0x3fd
    0xec, // wait: in al, dx
    0xa8, 0x20, // test al, 0x20
    0x74, 0xfb, // jz wait
    0xac, // lodsb
    0x84, 0xc0, // test al, al
    0x74, 0x05, // jz rest
    0xb2, 0xf8, // mov dl, 0xf8
    0xee, // out dx, al
    0xeb, 0xee, // jmp next
    0xf4, // rest: hlt
    0xeb, 0xfd, // jmp rest
];

/// What a guest with a `<log>` writes: a colour, a byte that is no text, a line without end.
pub(crate) const TALKED: &[u8] = b"booting\n\x1b[31mred\xff\nlogin: ";

/// What the daemon is to do without: everything that wants more of the machine than a test has.
const QEMU_CONF: &str = r#"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
seccomp_sandbox = 0
stdio_handler = "file"
vnc_listen = "127.0.0.1"
spice_listen = "127.0.0.1"
"#;

/// Displays of one daemon. Each has a range of its own, because daemons do not know of each
/// other.
const PORTS: u16 = 10;

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Libvirtd {
    directory: TempDir,
    /// Its address, if it takes calls on the network.
    far: Option<String>,
    daemon: Option<Process>,
    machine: Process,
}

impl Libvirtd {
    /// One without domains, that takes calls.
    pub(crate) fn start() -> Self {
        let directory = TempDir::with_prefix("vncgate-libvirtd-").unwrap();
        prepare(directory.path());
        Self::start_in(directory, None)
    }

    /// The same, with VNC that is encrypted wherever it is spoken. Nothing in a domain's XML
    /// tells.
    pub(crate) fn with_tls_displays(verify: bool) -> Self {
        let directory = TempDir::with_prefix("vncgate-libvirtd-").unwrap();
        let pki = directory.path().join("pki");
        let authority = Authority::new(&pki, "ca-cert.pem");
        authority.vouch_for("127.0.0.1", "server-cert.pem", "server-key.pem");
        authority.vouch_for("vncgate", "client-cert.pem", "client-key.pem");
        prepare(directory.path());
        let (pki, verify) = (pki.display(), u8::from(verify));
        let more = format!(
            "vnc_tls = 1\nvnc_tls_x509_cert_dir = \"{pki}\"\nvnc_tls_x509_verify = {verify}\n"
        );
        append(&directory.path().join("etc/qemu.conf"), &more);
        Self::start_in(directory, None)
    }

    /// The same on an address of its own, where it takes calls over TLS.
    pub(crate) fn far_away() -> Self {
        let directory = TempDir::with_prefix("vncgate-libvirtd-").unwrap();
        let address = loopback();
        let pki = directory.path().join("pki");
        let authority = Authority::new(&pki, "cacert.pem");
        authority.vouch_for(&address, "servercert.pem", "serverkey.pem");
        authority.vouch_for("vncgate", "clientcert.pem", "clientkey.pem");
        prepare(directory.path());
        let pki = pki.display();
        let more = format!(
            "listen_addr = \"{address}\"\nauth_tls = \"none\"\nca_file = \"{pki}/cacert.pem\"\n\
             cert_file = \"{pki}/servercert.pem\"\nkey_file = \"{pki}/serverkey.pem\"\n"
        );
        append(&directory.path().join("etc/libvirtd.conf"), &more);
        Self::start_in(directory, Some(address))
    }

    fn start_in(directory: TempDir, far: Option<String>) -> Self {
        let machine = machine(directory.path());
        let mut libvirtd = Self {
            directory,
            far,
            daemon: None,
            machine,
        };
        libvirtd.restart();
        libvirtd
    }

    /// Starts the daemon again, after [`Libvirtd::kill`].
    pub(crate) fn restart(&mut self) {
        let mut command = self.inside(&peer("libvirtd"));
        command.args(["--pid-file", "/run/libvirt/libvirtd.pid"]);
        command.args(self.far.as_ref().map(|_| "--listen"));
        self.daemon = Some(Process::spawn("libvirtd", &mut command));
        let socket = self.socket();
        until("libvirtd to listen", || UnixStream::connect(&socket).ok());
        until("libvirtd to answer", || {
            (self.virsh(&["list"]).code == 0).then_some(())
        });
    }

    /// Kills the daemon, not its guests.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.daemon.take().unwrap().wait();
    }

    /// Sends a signal to the daemon.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(child_of(self.daemon.as_ref().unwrap().pid()), signal).unwrap();
    }

    /// The daemon's read-write socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/libvirt-sock")
    }

    /// How the daemon is reached, as the config file wants it.
    pub(crate) fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket().display())
    }

    /// How [`Libvirtd::far_away`] is reached over the network.
    pub(crate) fn far_uri(&self) -> String {
        let pki = self.directory.path().join("pki");
        format!(
            "qemu+tls://{}/system?pkipath={}",
            self.address(),
            pki.display()
        )
    }

    /// The directory of its certificates, if it has some.
    pub(crate) fn pki(&self) -> PathBuf {
        self.directory.path().join("pki")
    }

    /// Where [`Libvirtd::far_away`] is.
    pub(crate) fn address(&self) -> &str {
        self.far.as_deref().unwrap()
    }

    /// The same for the daemon's mock driver with these domains, each of which is running.
    pub(crate) fn mock(&self, domains: &str) -> String {
        let file = self.directory.path().join("mock.xml");
        fs::write(&file, format!("<node>{domains}</node>")).unwrap();
        let (file, socket) = (file.display(), self.socket());
        format!("test+unix://{file}?socket={}", socket.display())
    }

    /// A file of this name that the daemon's machine sees, too.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a domain that is gone once it is off. `devices` are its own `<devices>`; a serial
    /// line echoes, a screen is blue.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, devices: &str) {
        self.virsh_with("create", name, &self.domain(name, "", devices));
    }

    /// The same as Nova would: a server of that name and project. Its id.
    #[track_caller]
    pub(crate) fn boot(&self, name: &str, project: &str, devices: &str) -> String {
        let domain = format!("instance-{name}");
        let xml = self.domain(&domain, &of_nova(name, project), devices);
        self.virsh_with("create", &domain, &xml);
        self.virsh(&["domuuid", &domain])
            .ok()
            .stdout
            .trim()
            .to_owned()
    }

    /// Ends a domain here and starts it on another daemon's machine, as the same one.
    #[track_caller]
    pub(crate) fn send(&self, name: &str, to: &Self) {
        let xml = self.virsh(&["dumpxml", "--inactive", name]).ok().stdout;
        self.virsh(&["destroy", name]).ok();
        to.virsh_with("create", name, &xml);
    }

    /// Defines a domain, which stays off.
    #[track_caller]
    pub(crate) fn define(&self, name: &str, devices: &str) {
        self.virsh_with("define", name, &self.domain(name, "", devices));
    }

    /// Kills the hypervisor of a guest, and waits until the daemon knows.
    #[track_caller]
    pub(crate) fn kill_guest(&self, name: &str) {
        let script = format!("kill -9 $(cat /run/libvirt/qemu/{name}.pid)");
        let mut command = self.inside(&peer("sh"));
        run(command.args(["-c", &script])).ok();
        until("the guest to be off", || {
            let state = self.virsh(&["domstate", name]).ok().stdout;
            (state.trim() == "shut off").then_some(())
        });
    }

    /// Runs a command of virsh against this daemon.
    pub(crate) fn virsh(&self, arguments: &[&str]) -> Answer {
        let mut command = tied(&peer("virsh"));
        run(command.args(["-q", "-c", &self.uri()]).args(arguments))
    }

    /// A command for a program that runs on the daemon's machine.
    pub(crate) fn inside(&self, program: &Path) -> Command {
        let machine = child_of(self.machine.pid()).as_raw_nonzero().to_string();
        let mut command = tied(&peer("nsenter"));
        command
            .args(["--target", &machine, "--mount", "--pid", "--"])
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    fn virsh_with(&self, verb: &str, name: &str, xml: &str) {
        let file = self.directory.path().join(format!("{name}.xml"));
        fs::write(&file, xml).unwrap();
        self.virsh(&[verb, file.to_str().unwrap()]).ok();
    }

    fn domain(&self, name: &str, metadata: &str, devices: &str) -> String {
        let guest = if devices.contains("<log") {
            "talk"
        } else if devices.contains("<serial") {
            "echo"
        } else {
            "screen"
        };
        let image = self.directory.path().join(guest);
        format!(
            "<domain type='qemu'><name>{name}</name>{metadata}<memory unit='MiB'>16</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='fd'/></os>\
             <devices><emulator>{}</emulator>\
             <disk type='file' device='floppy'><driver name='qemu' type='raw'/>\
             <source file='{}'/><target dev='fda'/><readonly/></disk>\
             <controller type='usb' model='none'/><memballoon model='none'/>\
             {devices}</devices></domain>",
            peer("qemu-system-x86_64").display(),
            image.display(),
        )
    }
}

fn prepare(place: &Path) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for directory in ["etc", "run", "lib", "cache", "log"] {
        fs::create_dir(place.join(directory)).unwrap();
    }
    fs::write(place.join("screen"), sector(GUEST)).unwrap();
    fs::write(place.join("echo"), sector(ECHO)).unwrap();
    fs::write(place.join("talk"), sector(&[TALK, TALKED].concat())).unwrap();
    let open = "auth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nunix_sock_group = \"root\"\n";
    fs::write(place.join("etc/libvirtd.conf"), open).unwrap();
    // Below the ports that the system gives out by itself, apart from other runs' by this one's id.
    let runs = u16::try_from(std::process::id() % 90).unwrap() * 200;
    let first = 12_000 + runs + NEXT.fetch_add(1, Ordering::Relaxed) % 20 * PORTS;
    let mut qemu = QEMU_CONF.to_owned();
    writeln!(qemu, "remote_display_port_min = {first}").unwrap();
    writeln!(qemu, "remote_display_port_max = {}", first + PORTS - 1).unwrap();
    fs::write(place.join("etc/qemu.conf"), qemu).unwrap();
}

fn append(file: &Path, more: &str) {
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, text + more).unwrap();
}

/// An address of this machine that no other test has.
pub(crate) fn loopback() -> String {
    let number = uuid::Uuid::new_v4().as_u128();
    let octet = |shift: u32| (number >> shift) % 250 + 2;
    format!("127.{}.{}.{}", octet(0), octet(16), octet(32))
}

/// The namespaces, and in them a process that buries the dead and waits.
fn machine(place: &Path) -> Process {
    let mut script = String::from("set -e\n");
    for (ours, theirs) in [
        ("etc", "/etc/libvirt"),
        ("run", "/run/libvirt"),
        ("lib", "/var/lib/libvirt"),
        ("cache", "/var/cache/libvirt"),
        ("log", "/var/log/libvirt"),
    ] {
        let ours = place.join(ours);
        let ours = ours.display();
        writeln!(script, "mkdir -p {theirs}; mount --bind {ours} {theirs}").unwrap();
    }
    script.push_str("echo ready\nsleep infinity & wait\n");
    let mut command = tied(&peer("unshare"));
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", &script]).stdin(Stdio::null());
    let machine = Process::spawn("the machine of libvirtd", &mut command);
    machine.wait_for_line("that it is ready", |line| {
        (line.text == "ready").then_some(())
    });
    machine
}

/// `unshare` and `nsenter` stay outside as parents.
fn child_of(pid: u32) -> Pid {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let child = until("the process inside", || {
        let children = fs::read_to_string(&file).unwrap_or_default();
        children.split_whitespace().next()?.parse::<i32>().ok()
    });
    Pid::from_raw(child).unwrap()
}
