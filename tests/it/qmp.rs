//! Virtual machines of a QEMU without libvirt, found by their machine protocol.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::rig::gateway::{Gateway, Setup};
use crate::rig::qemu::{self, Qemu};
use crate::rig::rfb::Viewer;

#[test]
fn a_qemu_is_listed_and_its_display_opens() {
    let qemu = Qemu::tcp();
    let gateway = gateway_of(&qemu.monitor());

    let listed = listed(&gateway);
    let mut viewer = Viewer::new(gateway.open(&name(&qemu)));

    assert_eq!(listed["name"], name(&qemu));
    assert_eq!(listed["state"], "running");
    assert_eq!(listed["consoles"][0]["kind"], "vnc");
    assert_eq!(listed["consoles"][0]["target"], qemu.address());
    viewer.wait_for_pixel(100, 100, qemu::BLUE);
    viewer.type_text("b");
    viewer.wait_for_pixel(100, 100, qemu::GREEN);
}

#[test]
fn a_display_on_a_unix_socket_is_found_in_a_directory_of_monitors() {
    let qemu = Qemu::unix();
    let gateway = gateway_of(qemu.monitor().parent().unwrap());

    let mut viewer = Viewer::new(gateway.open(&name(&qemu)));

    viewer.wait_for_pixel(100, 100, qemu::BLUE);
}

#[test]
fn a_qemu_that_was_killed_is_off_and_opens_no_more() {
    let mut qemu = Qemu::tcp();
    let gateway = gateway_of(&qemu.monitor());
    gateway.issue(&name(&qemu));
    qemu.signal(Signal::KILL);
    qemu.wait();

    let refused = gateway.cli(&["token", "issue", &name(&qemu)]);

    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("is off"), "{refused:?}");
    assert_eq!(listed(&gateway)["state"], "off");
}

#[test]
fn a_qemu_that_ended_by_itself_is_gone() {
    let mut qemu = Qemu::tcp();
    let gateway = gateway_of(&qemu.monitor());
    gateway.issue(&name(&qemu));
    qemu.signal(Signal::TERM);
    qemu.wait();

    let refused = gateway.cli(&["token", "issue", &name(&qemu)]);

    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(
        refused.stderr.contains("there is no instance"),
        "{refused:?}"
    );
}

#[test]
fn a_stopped_qemu_is_named_and_delays_no_other() {
    let stopped = Qemu::tcp();
    let well = Qemu::tcp();
    let gateway = gateway_of_all(&[&stopped.monitor(), &well.monitor()]);
    stopped.signal(Signal::STOP);

    let refused = gateway.cli(&["token", "issue", &name(&stopped)]);
    let mut viewer = Viewer::new(gateway.open(&name(&well)));

    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(
        refused.stderr.contains("did not answer in time"),
        "{refused:?}"
    );
    viewer.wait_for_pixel(100, 100, qemu::BLUE);
}

fn gateway_of(path: &Path) -> Gateway {
    gateway_of_all(&[path])
}

fn gateway_of_all(paths: &[&Path]) -> Gateway {
    let paths: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    Setup::new().set("compute", "qmp", paths).start()
}

/// The rig gives no name, so the directory of the socket does.
fn name(qemu: &Qemu) -> String {
    let monitor = qemu.monitor();
    let directory = monitor.parent().unwrap().file_name().unwrap();
    directory.to_str().unwrap().to_owned()
}

/// The only instance there is.
#[track_caller]
fn listed(gateway: &Gateway) -> Value {
    let listed = gateway.cli(&["instance", "list", "-o", "json"]).ok().json();
    assert_eq!(listed["instances"].as_array().unwrap().len(), 1, "{listed}");
    listed["instances"][0].clone()
}
