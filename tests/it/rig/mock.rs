//! libvirt's mock driver in a daemon of its own: domains that run nothing, whose displays are a
//! test's peers, and of which all who connect see the same.

use super::gateway::run;
use super::libvirtd::Libvirtd;
use super::peers::Peer;
use super::process::{peer, tied};

/// A hypervisor without machines, whose domains have displays elsewhere.
pub(crate) struct Mock {
    pub(crate) uri: String,
    directory: tempfile::TempDir,
    _daemon: Libvirtd,
}

impl Mock {
    pub(crate) fn start() -> Self {
        let daemon = Libvirtd::start();
        let socket = daemon.socket().display().to_string();
        Self {
            uri: format!("test+unix:///default?socket={socket}"),
            directory: tempfile::tempdir().unwrap(),
            _daemon: daemon,
        }
    }

    /// Has virsh do something there.
    pub(crate) fn virsh(&self, arguments: &[&str]) {
        let mut virsh = tied(&peer("virsh"));
        let _said = run(virsh.args(["-q", "-c", &self.uri]).args(arguments)).ok();
    }

    /// Puts a domain there: running by `create`, off by `define`.
    pub(crate) fn put(&self, how: &str, name: &str, display: &Peer) {
        let port = display.port();
        let domain = format!(
            "<domain type='test'><name>{name}</name><memory>8192</memory><os><type>hvm</type></os>\
             <devices><graphics type='vnc' port='{port}' listen='127.0.0.1'/></devices></domain>"
        );
        let file = self.directory.path().join(name);
        std::fs::write(&file, domain).unwrap();
        self.virsh(&[how, file.to_str().unwrap()]);
    }
}
