//! Consoles of real VNC servers and real virtual machines: pixels out, keys in.

use crate::rig::gateway::Gateway;
use crate::rig::qemu::{self, Qemu};
use crate::rig::rfb::Viewer;
use crate::rig::xvnc::{self, Xvnc};

#[test]
fn xvnc_over_tcp_shows_its_picture_and_takes_keys() {
    let xvnc = Xvnc::tcp(xvnc::BLUE);
    let gateway = Gateway::of("desk", xvnc.address());

    let mut viewer = Viewer::new(gateway.open("desk"));
    viewer.wait_for_pixel(5, 5, xvnc::BLUE);
    viewer.point(xvnc::SCREEN.0 / 2, xvnc::SCREEN.1 / 2);
    viewer.type_text("hello");

    xvnc.wait_for_keys("hello");
}

#[test]
fn xvnc_over_a_unix_socket_shows_its_picture_and_takes_keys() {
    let xvnc = Xvnc::unix(xvnc::BLUE);
    let gateway = Gateway::of("desk", xvnc.address());

    let mut viewer = Viewer::new(gateway.open("desk"));
    viewer.wait_for_pixel(5, 5, xvnc::BLUE);
    viewer.point(xvnc::SCREEN.0 / 2, xvnc::SCREEN.1 / 2);
    viewer.type_text("hello");

    xvnc.wait_for_keys("hello");
}

#[test]
fn qemu_over_tcp_changes_its_colour_by_the_key_pressed() {
    let qemu = Qemu::tcp();
    let gateway = Gateway::of("guest", qemu.address());

    let mut viewer = Viewer::new(gateway.open("guest"));
    viewer.wait_for_pixel(100, 100, qemu::BLUE);
    viewer.type_text("b");

    viewer.wait_for_pixel(100, 100, qemu::GREEN);
}

#[test]
fn qemu_over_a_unix_socket_changes_its_colour_by_the_key_pressed() {
    let qemu = Qemu::unix();
    let gateway = Gateway::of("guest", qemu.address());

    let mut viewer = Viewer::new(gateway.open("guest"));
    viewer.wait_for_pixel(100, 100, qemu::BLUE);
    viewer.type_text("d");

    viewer.wait_for_pixel(100, 100, qemu::RED);
}

#[test]
fn two_viewers_see_one_screen_and_both_may_type() {
    let xvnc = Xvnc::tcp(xvnc::RUST);
    let gateway = Gateway::of("desk", xvnc.address());

    let mut first = Viewer::new(gateway.open("desk"));
    let mut second = Viewer::new(gateway.open("desk"));
    first.wait_for_pixel(5, 5, xvnc::RUST);
    second.wait_for_pixel(5, 5, xvnc::RUST);
    first.point(xvnc::SCREEN.0 / 2, xvnc::SCREEN.1 / 2);
    first.type_text("ab");
    xvnc.wait_for_keys("ab");
    second.type_text("cd");

    xvnc.wait_for_keys("abcd");
}

#[test]
fn one_url_opens_its_console_again_until_it_expires() {
    let xvnc = Xvnc::tcp(xvnc::BLUE);
    let gateway = Gateway::of("desk", xvnc.address());
    let upgrade = gateway.upgrade("desk");

    let first = Viewer::new(upgrade.clone().open(gateway.listen).unwrap());
    first.into_ws().vanish();
    let mut again = Viewer::new(upgrade.open(gateway.listen).unwrap());

    again.wait_for_pixel(5, 5, xvnc::BLUE);
}

#[test]
fn serve_with_a_target_prints_one_url_that_opens_it() {
    let xvnc = Xvnc::tcp(xvnc::BLUE);
    let setup = crate::rig::gateway::Setup::new();
    let gateway = setup.argument("--target").argument(xvnc.address()).start();
    let upgrade = crate::rig::ws::Upgrade::new(&gateway.printed_url().upgrade_path());

    let mut viewer = Viewer::new(upgrade.open(gateway.listen).unwrap());

    viewer.wait_for_pixel(5, 5, xvnc::BLUE);
}
