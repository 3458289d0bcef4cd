//! libvirt's mock driver in a daemon of its own: domains that run nothing, whose displays are a
//! test's peers, and of which all who connect see the same.

use std::io::{PipeWriter, Write as _, pipe};
use std::path::PathBuf;

use super::gateway::{Answer, run};
use super::libvirtd::Libvirtd;
use super::peers::Peer;
use super::process::{Process, peer, tied};
use super::wait::until;

/// A hypervisor without machines, whose domains have displays elsewhere.
pub(crate) struct Mock {
    pub(crate) uri: String,
    directory: tempfile::TempDir,
    connected: Vec<(Process, PipeWriter)>,
    _daemon: Libvirtd,
}

impl Mock {
    pub(crate) fn start() -> Self {
        let daemon = Libvirtd::start();
        let socket = daemon.socket().display().to_string();
        Self {
            uri: format!("test+unix:///default?socket={socket}"),
            directory: tempfile::tempdir().unwrap(),
            connected: Vec::new(),
            _daemon: daemon,
        }
    }

    /// Has virsh do something there.
    pub(crate) fn virsh(&self, arguments: &[&str]) -> Answer {
        let mut virsh = tied(&peer("virsh"));
        run(virsh.args(["-q", "-c", &self.uri]).args(arguments)).ok()
    }

    /// Puts a domain there: running by `create`, off by `define`. It is forgotten once nobody is
    /// connected.
    pub(crate) fn put(&self, how: &str, name: &str, display: &Peer) {
        let file = self.describe(name, display);
        self.virsh(&[how, file.to_str().unwrap()]);
    }

    /// Puts a running domain there by somebody who stays connected.
    pub(crate) fn keep(&mut self, name: &str, display: &Peer) {
        let file = self.describe(name, display);
        let (commands, mut writer) = pipe().unwrap();
        let mut virsh = tied(&peer("virsh"));
        let virsh = virsh.args(["-q", "-c", &self.uri]).stdin(commands);
        let process = Process::spawn("virsh", virsh);
        writeln!(writer, "create {}", file.display()).unwrap();
        until("the domain", || {
            let names = self.virsh(&["list", "--name"]).stdout;
            names.lines().any(|line| line == name).then_some(())
        });
        self.connected.push((process, writer));
    }

    fn describe(&self, name: &str, display: &Peer) -> PathBuf {
        let port = display.port();
        let domain = format!(
            "<domain type='test'><name>{name}</name><memory>8192</memory><os><type>hvm</type></os>\
             <devices><graphics type='vnc' port='{port}' listen='127.0.0.1'/></devices></domain>"
        );
        let file = self.directory.path().join(name);
        std::fs::write(&file, domain).unwrap();
        file
    }
}
