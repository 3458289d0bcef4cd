//! A real virtual machine: QEMU without KVM, with a guest of one floppy sector.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::process::{Process, peer, tied};
use super::rfb::Colour;
use super::wait::{PATIENCE, until};

/// The guest's first screen.
pub(crate) const BLUE: Colour = [0, 0, 0xa8];

/// Its screen after the key `b`.
pub(crate) const GREEN: Colour = [0, 0xa8, 0];

/// Its screen after the key `d`.
pub(crate) const RED: Colour = [0xa8, 0, 0];

/// A guest that fills its screen with the VGA colour of the key pressed last (its code modulo 8;
/// 1 at the start) and sleeps between two keys. It writes each colour to port 0xe9 as well.
pub(crate) const GUEST: &[u8] = &[
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xd0, // mov ss, ax
    0xbc, 0x00, 0x7c, // mov sp, 0x7c00
    0xb8, 0x13, 0x00, // mov ax, 0x0013
    0xcd, 0x10, // int 0x10: 320x200 in 256 colours
    0xb0, 0x01, // mov al, 1
    0x68, 0x00, 0xa0, // next: push 0xa000
    0x07, // pop es
    0x31, 0xff, // xor di, di
    0xb9, 0x00, 0xfa, // mov cx, 64000
    0xf3, 0xaa, // rep stosb
    0xe6, 0xe9, // out 0xe9, al
    0x30, 0xe4, // xor ah, ah
    0xcd, 0x16, // int 0x16: halts until a key comes
    0x24, 0x07, // and al, 7
    0xeb, 0xeb, // jmp next
];

/// A guest that fills its screen with the VGA colour of the mouse buttons that are down (1 left,
/// 2 right, 4 middle; 6 at the start). The BIOS calls `handler` for each packet of a PS/2 mouse.
pub(crate) const MOUSE_GUEST: &[u8] = &[
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xc0, // mov es, ax
    0x8e, 0xd0, // mov ss, ax
    0xbc, 0x00, 0x7c, // mov sp, 0x7c00
    0xb8, 0x13, 0x00, // mov ax, 0x0013
    0xcd, 0x10, // int 0x10: 320x200 in 256 colours
    0xb0, 0x06, // mov al, 6
    0xe8, 0x1b, 0x00, // call fill
    0xb8, 0x05, 0xc2, // mov ax, 0xc205
    0xb7, 0x03, // mov bh, 3
    0xcd, 0x15, // int 0x15: packets of three bytes
    0x1e, // push ds
    0x07, // pop es
    0xbb, 0x3e, 0x7c, // mov bx, handler
    0xb8, 0x07, 0xc2, // mov ax, 0xc207
    0xcd, 0x15, // int 0x15: they go to es:bx
    0xb8, 0x00, 0xc2, // mov ax, 0xc200
    0xb7, 0x01, // mov bh, 1
    0xcd, 0x15, // int 0x15: from now on
    0xf4, // sleep: hlt
    0xeb, 0xfd, // jmp sleep
    0x68, 0x00, 0xa0, // fill: push 0xa000
    0x07, // pop es
    0x31, 0xff, // xor di, di
    0xb9, 0x00, 0xfa, // mov cx, 64000
    0xf3, 0xaa, // rep stosb
    0xe6, 0xe9, // out 0xe9, al
    0xc3, // ret
    0x55, // handler: push bp
    0x89, 0xe5, // mov bp, sp
    0x60, // pusha
    0x06, // push es
    0x8a, 0x46, 0x0c, // mov al, [bp + 12]
    0x24, 0x07, // and al, 7
    0x74, 0x03, // jz done
    0xe8, 0xe3, 0xff, // call fill
    0x07, // done: pop es
    0x61, // popa
    0x5d, // pop bp
    0xcb, // retf
];

/// A running virtual machine.
#[derive(Debug)]
pub(crate) struct Qemu {
    address: String,
    directory: TempDir,
    process: Process,
}

impl Qemu {
    /// One whose VNC server is on a TCP port of 127.0.0.1.
    pub(crate) fn tcp() -> Self {
        Self::start(GUEST, |_| vnc("127.0.0.1:0,to=199"))
    }

    /// One whose VNC server is on a Unix socket.
    pub(crate) fn unix() -> Self {
        Self::start(GUEST, |directory| {
            vnc(&format!("unix:{}", directory.join("vnc.sock").display()))
        })
    }

    /// One whose VNC server on a TCP port of 127.0.0.1 has this said after its address, and with
    /// these objects.
    pub(crate) fn secured(more: &str, objects: &[&str]) -> Self {
        Self::start(GUEST, |_| {
            let mut words = vnc(&format!("127.0.0.1:0,to=199,{more}"));
            for object in objects {
                words.extend(["-object", object].map(str::to_owned));
            }
            words
        })
    }

    /// One whose SPICE server is on a Unix socket and asks for nothing.
    pub(crate) fn spice() -> Self {
        Self::with_spice(GUEST, "disable-ticketing=on")
    }

    /// The same with a guest that looks at its mouse.
    pub(crate) fn spice_with_mouse() -> Self {
        Self::with_spice(MOUSE_GUEST, "disable-ticketing=on")
    }

    /// The same, with a password.
    pub(crate) fn spice_with_password(password: &str) -> Self {
        Self::with_spice(
            GUEST,
            &format!("password-secret=p -object secret,id=p,data={password}"),
        )
    }

    fn with_spice(guest: &[u8], access: &str) -> Self {
        let qemu = Self::start(guest, |directory| {
            let socket = directory.join("spice.sock");
            let spice = format!("unix=on,addr={},{access}", socket.display());
            let mut words = vec!["-spice".to_owned()];
            words.extend(spice.split(' ').map(str::to_owned));
            words
        });
        let address = format!(
            "unix:{}",
            qemu.directory.path().join("spice.sock").display()
        );
        Self { address, ..qemu }
    }

    /// Where its VNC server listens, as the config file wants it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The socket of its machine protocol, in a directory of its own.
    pub(crate) fn monitor(&self) -> PathBuf {
        self.directory.path().join("qmp.sock")
    }

    /// Waits until the guest has shown this VGA colour.
    #[track_caller]
    pub(crate) fn wait_for_colour(&self, colour: u8) {
        wait_for_colour(self.directory.path(), |shown| shown == colour);
    }

    /// Whether the guest has ever shown this VGA colour.
    pub(crate) fn has_shown(&self, colour: u8) -> bool {
        let colours = fs::read(self.directory.path().join("colours")).unwrap();
        colours.contains(&colour)
    }

    /// Stops or ends it by a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) {
        self.process.wait();
    }

    fn start(guest: &[u8], display: impl Fn(&Path) -> Vec<String>) -> Self {
        let directory = TempDir::with_prefix("vncgate-qemu-").unwrap();
        let here = directory.path();
        fs::write(here.join("boot.img"), sector(guest)).unwrap();
        let mut command = tied(&peer("qemu-system-x86_64"));
        command.args([
            "-accel",
            "tcg",
            "-m",
            "16",
            "-nodefaults",
            "-no-user-config",
        ]);
        command.args(["-display", "none", "-vga", "std", "-boot", "a"]);
        command.args(["-drive", "file=boot.img,format=raw,if=floppy"]);
        command.args([
            "-debugcon",
            "file:colours",
            "-qmp",
            "unix:qmp.sock,server=on,wait=off",
        ]);
        command
            .args(display(here))
            .current_dir(here)
            .stdin(Stdio::null());
        let process = Process::spawn("qemu-system-x86_64", &mut command);
        wait_for_colour(here, |_| true);
        Self {
            address: vnc_address(&here.join("qmp.sock")),
            directory,
            process,
        }
    }
}

fn wait_for_colour(place: &Path, wanted: impl Fn(u8) -> bool) {
    until("a colour of the guest", || {
        let colours = fs::read(place.join("colours")).unwrap_or_default();
        colours.into_iter().any(&wanted).then_some(())
    });
}

fn vnc(address: &str) -> Vec<String> {
    ["-vnc", address].map(str::to_owned).into()
}

/// A boot sector of that program.
pub(crate) fn sector(program: &[u8]) -> Vec<u8> {
    let mut sector = program.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// Asks the machine protocol where the VNC server is.
fn vnc_address(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    stream
        .write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-vnc\"}")
        .unwrap();
    let answer = lines.find_map(|line| {
        let answer: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let returned = answer["return"].get("enabled").cloned();
        returned.map(|_| answer["return"].clone())
    });
    let answer = answer.expect("an answer to query-vnc");
    if answer["enabled"] == false {
        return String::new();
    }
    let (host, port) = (&answer["host"], &answer["service"]);
    match (host.as_str().unwrap(), port.as_str().unwrap()) {
        ("", path) | (path, "") => format!("unix:{path}"),
        (path, _) if path.starts_with('/') => format!("unix:{path}"),
        (host, port) => format!("{host}:{port}"),
    }
}
