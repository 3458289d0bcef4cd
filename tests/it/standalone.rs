//! One file that needs nothing: no libraries, no loader, not even a file system around it.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::rig::gateway::{Answer, BINARY, ConsoleUrl, bare, run};
use crate::rig::process::{Process, Stream};
use crate::rig::ws::Upgrade;

/// ELF program header types, and the tag of a needed library (System V ABI, chapter 5).
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;

#[test]
fn the_binary_names_no_loader_and_no_library() {
    let elf = Elf(fs::read(BINARY).unwrap());

    assert_eq!(&elf.0[..5], b"\x7fELF\x02", "a 64-bit ELF file");
    for (kind, offset, size) in elf.program_headers() {
        assert_ne!(kind, PT_INTERP, "it asks for a loader");
        if kind == PT_DYNAMIC {
            let tags = (offset..offset + size).step_by(16).map(|at| elf.u64(at));
            let mut tags = tags.take_while(|tag| *tag != 0);
            assert!(tags.all(|tag| tag != DT_NEEDED), "it asks for a library");
        }
    }
}

#[test]
fn it_tells_its_version_in_an_empty_root() {
    let jail = jail(&[]);

    let answer = in_jail(&jail, &["version"]);

    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.stdout.starts_with("vncgate "), "{answer:?}");
}

#[test]
fn it_serves_a_console_from_an_empty_root() {
    let config = "[proxy]\nlisten = [\"127.0.0.1:0\"]\n[monitor]\nlisten = [\"127.0.0.1:0\"]\n\
                  [admin]\nsocket = \"/admin.sock\"\n";
    let jail = jail(&[("vncgate.toml", config)]);

    let arguments = ["serve", "--all", "--demo", "--config", "/vncgate.toml"];
    let process = Process::spawn("vncgate in a jail", jailed(&jail).args(arguments));
    let url = process.wait_for_line("a URL", |line| {
        (line.stream == Stream::Out).then(|| ConsoleUrl::parse(&line.text))
    });
    let address = url.0.socket_addrs(|| None).unwrap()[0];
    let mut ws = Upgrade::new(&url.upgrade_path()).open(address).unwrap();

    assert_eq!(ws.read(12), b"RFB 003.008\n");
}

fn jail(files: &[(&str, &str)]) -> TempDir {
    // Linked, not copied: a program cannot be started while any process still has it open for
    // writing, and a child that another test forks meanwhile would have.
    let jail = TempDir::with_prefix_in("jail-", env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::hard_link(BINARY, jail.path().join("vncgate")).unwrap();
    for (name, content) in files {
        fs::write(jail.path().join(name), content).unwrap();
    }
    jail
}

/// Runs the jail's binary with the jail as its root: as root itself, else in a user namespace.
fn jailed(jail: &TempDir) -> std::process::Command {
    let mut command = if rustix::process::geteuid().is_root() {
        bare(Path::new("chroot"))
    } else {
        let mut command = bare(Path::new("unshare"));
        command.args(["--map-root-user", "chroot"]);
        command
    };
    command.arg(jail.path()).arg("/vncgate");
    command
}

fn in_jail(jail: &TempDir, arguments: &[&str]) -> Answer {
    run(jailed(jail).args(arguments))
}

/// A little-endian ELF file.
struct Elf(Vec<u8>);

impl Elf {
    /// Type, offset in the file and size of every segment.
    fn program_headers(&self) -> Vec<(u32, usize, usize)> {
        let start = usize::try_from(self.u64(0x20)).unwrap();
        let (size, count) = (self.u16(0x36), self.u16(0x38));
        let headers = (0..usize::from(count)).map(|index| start + index * usize::from(size));
        headers
            .map(|at| {
                let kind = u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap());
                let offset = usize::try_from(self.u64(at + 8)).unwrap();
                let size = usize::try_from(self.u64(at + 32)).unwrap();
                (kind, offset, size)
            })
            .collect()
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.0[at..at + 2].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }
}
