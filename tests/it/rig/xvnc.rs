//! A real VNC server: `TigerVNC`'s Xvnc with a known picture and a window that takes keys.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::{Process, Stream, peer, tied};
use super::rfb::Colour;
use super::wait::until;

/// The colour of the screen beside the window.
pub(crate) const BLUE: Colour = [0x20, 0x60, 0xc0];

/// Another one, to tell two servers apart.
pub(crate) const RUST: Colour = [0xb7, 0x41, 0x0e];

/// The screen's width and height.
pub(crate) const SCREEN: (u16, u16) = (640, 480);

/// A running Xvnc. The window lies in the middle, under the pointer, so that keys go to it.
#[derive(Debug)]
pub(crate) struct Xvnc {
    address: String,
    directory: TempDir,
    colour: Colour,
    /// Its window and itself, in the order of their end.
    running: Option<(Process, Process)>,
}

impl Xvnc {
    /// One on a TCP port of 127.0.0.1.
    pub(crate) fn tcp(colour: Colour) -> Self {
        // The listening socket is ours and handed over, so that no other process can take the
        // port between its choice and its use.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let directory = TempDir::with_prefix("vncgate-xvnc-").unwrap();
        let mut command = server();
        command
            .arg("-inetd")
            .stdin(Stdio::from(OwnedFd::from(listener)));
        Self::start(directory, address, &mut command, colour)
    }

    /// The same with these security types and what they need, in a mount namespace of its own if
    /// `before` has something to do there.
    pub(crate) fn secured(types: &str, arguments: &[&str], before: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let directory = TempDir::with_prefix("vncgate-xvnc-").unwrap();
        let mut command = server_of(types, before);
        command
            .args(arguments)
            .arg("-inetd")
            .stdin(Stdio::from(OwnedFd::from(listener)));
        Self::start(directory, address, &mut command, BLUE)
    }

    /// One on a Unix socket.
    pub(crate) fn unix(colour: Colour) -> Self {
        let directory = TempDir::with_prefix("vncgate-xvnc-").unwrap();
        let path = directory.path().join("vnc.sock");
        let address = format!("unix:{}", path.display());
        Self::start(directory, address, &mut at(&path), colour)
    }

    /// Ends it at once.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        let (window, mut server) = self.running.take().unwrap();
        server.signal(Signal::KILL);
        server.wait();
        drop(window);
    }

    /// Starts one that was on a Unix socket again where it was.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        let path = self.directory.path().join("vnc.sock");
        fs::remove_file(&path).unwrap();
        self.running = Some(launch(&mut at(&path), self.directory.path(), self.colour));
    }

    /// Where it listens, as the config file wants it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its TCP port.
    pub(crate) fn port(&self) -> u16 {
        let (_, port) = self.address.rsplit_once(':').unwrap();
        port.parse().unwrap()
    }

    /// Waits until exactly `keys` have arrived in the window.
    #[track_caller]
    pub(crate) fn wait_for_keys(&self, keys: &str) {
        let file = self.directory.path().join("keys");
        until(&format!("the keys {keys:?} in the window"), || {
            (fs::read_to_string(&file).unwrap_or_default() == keys).then_some(())
        });
    }

    fn start(directory: TempDir, address: String, command: &mut Command, colour: Colour) -> Self {
        let running = Some(launch(command, directory.path(), colour));
        Self {
            address,
            directory,
            colour,
            running,
        }
    }
}

fn launch(command: &mut Command, directory: &Path, colour: Colour) -> (Process, Process) {
    let server = Process::spawn("Xtigervnc", command);
    let display = server.wait_for_line("its display number", |line| {
        let number: u16 = line.text.parse().ok()?;
        (line.stream == Stream::Out).then(|| format!(":{number}"))
    });
    paint(&display, colour);
    (window(&display, directory), server)
}

/// One on that Unix socket.
fn at(path: &Path) -> Command {
    let mut command = server();
    command.args(["-rfbport", "-1", "-rfbunixmode", "0600", "-rfbunixpath"]);
    command.arg(path).stdin(Stdio::null());
    command
}

fn server() -> Command {
    server_of("None", None)
}

fn server_of(types: &str, before: Option<&str>) -> Command {
    let mut command = match before {
        None => tied(&peer("Xtigervnc")),
        Some(before) => {
            let mut command = tied(&peer("unshare"));
            let script = format!("{before} && exec \"$0\" \"$@\"");
            command.args(["--mount", "--", "sh", "-c", &script]);
            command.arg(peer("Xtigervnc"));
            command
        }
    };
    let geometry = format!("{}x{}", SCREEN.0, SCREEN.1);
    // The server chooses its display number by itself and writes it to its stdout.
    command.args(["-displayfd", "1", "-geometry", &geometry, "-depth", "24"]);
    command.args([
        "-SecurityTypes",
        types,
        "-BlacklistThreshold=10000",
        "-AlwaysShared",
    ]);
    command.args(["-interface", "127.0.0.1", "-nolisten", "tcp", "-ac"]);
    command
}

fn paint(display: &str, [red, green, blue]: Colour) {
    let colour = format!("#{red:02x}{green:02x}{blue:02x}");
    let mut command = Command::new(peer("xsetroot"));
    let painted = command
        .args(["-display", display, "-solid", &colour])
        .status();
    assert!(
        painted.unwrap().success(),
        "xsetroot cannot paint {display}"
    );
}

/// An xterm in the middle of the screen that writes each key to the file `keys`.
fn window(display: &str, directory: &Path) -> Process {
    let script = "stty -icanon -echo min 1; : >ready; exec cat >keys";
    let mut command = tied(&peer("xterm"));
    command.args([
        "-display", display, "-fn", "fixed", "-bg", "black", "-bw", "0",
    ]);
    command.args(["-geometry", "60x20+140+110", "-e", "sh", "-c", script]);
    let process = Process::spawn("xterm", command.current_dir(directory).stdin(Stdio::null()));
    until("xterm's shell", || {
        directory.join("ready").exists().then_some(())
    });
    process
}

/// What a password file of Xvnc holds: the password encrypted with a key that everybody knows.
pub(crate) fn password_file(password: &str) -> Vec<u8> {
    use des::cipher::{BlockCipherEncrypt, KeyInit};

    let known = [23_u8, 82, 107, 6, 35, 78, 88, 7].map(u8::reverse_bits);
    let mut block = [0; 8];
    for (to, from) in block.iter_mut().zip(password.bytes()) {
        *to = from;
    }
    des::Des::new(&known.into()).encrypt_block((&mut block).into());
    block.to_vec()
}
