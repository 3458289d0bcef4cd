//! Instances from a directory of libvirt's XML: what it says now is what counts.

use std::fs;

use crate::rig::gateway::{Gateway, Setup};
use crate::rig::peers::Peer;
use crate::rig::rfb::{Viewer, shake_hands};
use crate::rig::wait::until;
use crate::rig::xml::Domain;
use crate::rig::xvnc::{self, Xvnc};

#[test]
fn a_live_dumpxml_opens_the_display_on_its_port() {
    let xvnc = Xvnc::tcp(xvnc::BLUE);
    let gateway = gateway_of(&[("web-1.xml", &Domain::new("web-1").vnc(xvnc.port()).dump())]);

    let mut viewer = Viewer::new(gateway.open("web-1"));

    viewer.wait_for_pixel(5, 5, xvnc::BLUE);
}

#[test]
fn an_instance_of_the_directory_is_found_by_its_uuid() {
    let peer = Peer::echo();
    let domain = Domain::new("web-1").vnc(peer.port());
    let gateway = gateway_of(&[("web-1.xml", &domain.dump())]);

    let mut ws = gateway.open(&domain.id);

    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn libvirts_own_status_file_opens_the_display_on_its_port() {
    let peer = Peer::echo();
    let status = Domain::new("web-1").vnc(peer.port()).status();
    let gateway = gateway_of(&[("web-1.xml", &status)]);

    let mut ws = gateway.open("web-1");

    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn a_display_on_a_unix_socket_opens() {
    let xvnc = Xvnc::unix(xvnc::RUST);
    let path = xvnc.address().strip_prefix("unix:").unwrap();
    let domain = Domain::new("web-1").vnc_socket(path);
    let gateway = gateway_of(&[("web-1.xml", &domain.dump())]);

    let mut viewer = Viewer::new(gateway.open("web-1"));

    viewer.wait_for_pixel(5, 5, xvnc::RUST);
}

#[test]
fn the_vnc_display_is_chosen_when_a_spice_display_comes_first() {
    let peer = Peer::echo();
    let spice = "<graphics type='spice' port='5999' autoport='yes' listen='127.0.0.1'/>";
    let domain = Domain::new("web-1").graphics(spice).vnc(peer.port());
    let gateway = gateway_of(&[("web-1.xml", &domain.dump())]);

    let mut ws = gateway.open("web-1");

    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn an_instance_that_is_off_gets_no_url_but_a_sentence() {
    let gateway = gateway_of(&[("db-1.xml", &Domain::new("db-1").off().dump())]);

    let refused = gateway.cli(&["token", "issue", "db-1"]);

    assert_ne!(refused.code, 0, "{refused:?}");
    assert_eq!(refused.stdout, "");
    assert!(refused.stderr.contains("db-1"), "{refused:?}");
    let says_off = refused.stderr.contains("off") || refused.stderr.contains("not running");
    assert!(says_off, "{refused:?}");
}

#[test]
fn an_instance_switched_off_after_the_issue_is_refused_in_words() {
    let peer = Peer::echo();
    let domain = Domain::new("web-1").vnc(peer.port());
    let gateway = gateway_of(&[("web-1.xml", &domain.dump())]);
    let upgrade = gateway.upgrade("web-1");

    fs::write(gateway.xml_path().join("web-1.xml"), domain.off().dump()).unwrap();
    let closed = upgrade.open(gateway.listen).unwrap().expect_close();

    assert_eq!(closed.code, Some(4004), "{closed:?}");
    assert_eq!(peer.connections(), 0);
}

#[test]
fn an_instance_that_is_gone_after_the_issue_is_refused_in_words() {
    let peer = Peer::echo();
    let gateway = gateway_of(&[("web-1.xml", &Domain::new("web-1").vnc(peer.port()).dump())]);
    let upgrade = gateway.upgrade("web-1");

    fs::remove_file(gateway.xml_path().join("web-1.xml")).unwrap();
    let closed = upgrade.open(gateway.listen).unwrap().expect_close();

    assert_eq!(closed.code, Some(4004), "{closed:?}");
    assert_eq!(peer.connections(), 0);
}

#[test]
fn broken_files_take_no_good_one_down() {
    let peer = Peer::echo();
    let bomb = "<!DOCTYPE d [<!ENTITY a 'aaaaaaaa'>]><domain><name>&a;</name></domain>";
    let gateway = gateway_of(&[
        ("broken.xml", "<domain><name>broken</name"),
        ("bomb.xml", bomb),
        ("empty.xml", ""),
        ("noise.xml", "\u{0}\u{1}not xml at all"),
        ("other.xml", "<network><name>default</name></network>"),
        ("good.xml", &Domain::new("good").vnc(peer.port()).dump()),
    ]);

    let mut ws = gateway.open("good");

    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn a_broken_file_is_named_to_whoever_lists_instances() {
    let gateway = gateway_of(&[("broken.xml", "<domain><name>broken</name")]);

    let table = gateway.cli(&["instance", "list"]).ok();
    let json = gateway.cli(&["instance", "list", "-o", "json"]).ok().json();

    assert!(table.stderr.contains("broken.xml"), "{table:?}");
    assert!(
        !table.stdout.contains("broken.xml"),
        "talk among the data: {table:?}"
    );
    assert!(
        json["faults"][0].as_str().unwrap().contains("broken.xml"),
        "{json}"
    );
}

#[test]
fn the_next_connection_goes_to_the_new_port_after_the_file_was_rewritten() {
    let (before, after) = (Xvnc::tcp(xvnc::BLUE), Xvnc::tcp(xvnc::RUST));
    let domain = Domain::new("web-1");
    let first_boot = domain.clone().vnc(before.port()).dump();
    let gateway = gateway_of(&[("web-1.xml", &first_boot)]);
    let upgrade = gateway.upgrade("web-1");
    let mut viewer = Viewer::new(upgrade.clone().open(gateway.listen).unwrap());
    viewer.wait_for_pixel(5, 5, xvnc::BLUE);

    let second_boot = domain.vnc(after.port()).dump();
    fs::write(gateway.xml_path().join("web-1.xml"), second_boot).unwrap();
    let mut moved = Viewer::new(upgrade.open(gateway.listen).unwrap());

    moved.wait_for_pixel(5, 5, xvnc::RUST);
}

#[test]
fn a_port_that_two_running_instances_claim_opens_for_neither() {
    let peer = Peer::echo();
    let mine = Domain::new("mine").vnc(peer.port());
    let gateway = gateway_of(&[("mine.xml", &mine.dump())]);
    let upgrade = gateway.upgrade("mine");

    let other = Domain::new("other").vnc(peer.port());
    fs::write(gateway.xml_path().join("other.xml"), other.dump()).unwrap();
    let refused = until("the second claim to be seen", || {
        let mut ws = upgrade.clone().open(gateway.listen).unwrap();
        let frame = ws.answer();
        (frame.opcode == crate::rig::ws::CLOSE).then_some(frame)
    });

    let code = u16::from_be_bytes([refused.payload[0], refused.payload[1]]);
    assert_eq!(
        code,
        4004,
        "{}",
        String::from_utf8_lossy(&refused.payload[2..])
    );
    let issued = gateway.cli(&["token", "issue", "other"]);
    assert_ne!(issued.code, 0, "{issued:?}");
}

#[test]
fn an_instance_defined_later_needs_no_restart() {
    let peer = Peer::echo();
    let gateway = gateway_of(&[]);
    assert_eq!(gateway.cli(&["token", "issue", "late"]).code, 4);

    let late = Domain::new("late").vnc(peer.port());
    fs::write(gateway.xml_path().join("late.xml"), late.dump()).unwrap();
    let mut ws = gateway.open("late");

    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn instance_list_shows_what_runs_and_what_does_not() {
    let gateway = gateway_of(&[
        ("db-1.xml", &Domain::new("db-1").off().dump()),
        ("web-1.xml", &Domain::new("web-1").vnc(5999).dump()),
    ]);

    let listed = gateway.cli(&["instance", "list", "-o", "json"]).ok().json();

    let mut states: Vec<_> = listed["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|instance| {
            (
                instance["name"].as_str().unwrap(),
                instance["state"].as_str().unwrap(),
            )
        })
        .collect();
    states.sort_unstable();
    assert_eq!(states, [("db-1", "off"), ("web-1", "running")]);
}

fn gateway_of(files: &[(&str, &str)]) -> Gateway {
    let setup = Setup::new().xml_directory();
    for (name, content) in files {
        fs::write(setup.xml_path().join(name), content).unwrap();
    }
    setup.start()
}
