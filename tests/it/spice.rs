//! SPICE consoles of real virtual machines, in the built-in page.

use rustix::process::Signal;

use crate::rig::browser::browse;
use crate::rig::gateway::{ConsoleUrl, Gateway, Setup};
use crate::rig::qemu::Qemu;

/// The channels that the page opens, each a WebSocket with the same token.
const CHANNELS: [&str; 4] = ["main", "display", "inputs", "cursor"];

#[test]
fn the_spice_page_shows_a_guests_picture_and_takes_keys() {
    let qemu = Qemu::spice();
    let gateway = gateway_of(&qemu);
    let url = issue(&gateway);
    assert_eq!(url.0.path(), "/spice_auto.html");

    let seen = browse(
        &url,
        &[
            ["--wait-state", "connected"],
            ["--expect-pixel", "100,100,#0000a8"],
            ["--press", "b"],
            ["--then-pixel", "100,100,#00a800"],
            ["--press", "d"],
            ["--then-pixel", "639,399,#a80000"],
            ["--address-bar-lacks", &url.token()],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn every_channel_is_opened_by_the_token_alone_where_cookies_are_forbidden() {
    let qemu = Qemu::spice();
    let gateway = gateway_of(&qemu);
    let url = issue(&gateway);

    let seen = browse(
        &url,
        &[
            "--without-cookies",
            "--wait-state",
            "connected",
            "--expect-pixel",
            "100,100,#0000a8",
            "--no-errors",
        ],
    );

    assert_eq!(seen.code, 0, "{seen:?}");
    let started = |event: &&serde_json::Value| event["message"] == "session started";
    let sessions = gateway.events().iter().filter(started).count();
    assert_eq!(sessions, CHANNELS.len(), "{CHANNELS:?}");
}

#[test]
fn the_end_of_a_guest_is_told_to_the_person_in_words() {
    let qemu = Qemu::spice();
    let gateway = gateway_of(&qemu);
    let url = issue(&gateway);

    let seen = std::thread::scope(|scope| {
        let page = scope.spawn(|| {
            let keyed = ["--wait-state", "connected", "--press", "b"];
            let ended = ["--wait-state", "disconnected"];
            browse(&url, &[&keyed[..], &ended].concat())
        });
        qemu.wait_for_colour(2);
        qemu.signal(Signal::TERM);
        page.join().unwrap()
    });

    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn a_text_is_typed_and_keys_of_the_bar_are_pressed() {
    let qemu = Qemu::spice();
    let gateway = gateway_of(&qemu);

    let seen = browse(
        &issue(&gateway),
        &[
            ["--wait-state", "connected"],
            ["--push", "#text"],
            ["--fill", "#text-out=xyzb"],
            ["--push", "#type"],
            ["--expect-text", "#text-note=Typed 4 keys"],
            ["--then-pixel", "5,5,#00a800"],
            ["--push", "[data-key=esc]"],
            ["--then-pixel", "5,5,#00a8a8"],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn the_channels_of_one_page_are_one_use_and_one_viewer() {
    let qemu = Qemu::spice();
    let gateway = gateway_of(&qemu);
    for second_viewer in ["refuse", "take-over"] {
        let type_and_terms = ["--type", "spice-html5", "--single-use", "--second-viewer"];
        let issue = ["token", "issue", "guest"];
        let issue = [&issue[..], &type_and_terms, &[second_viewer]].concat();

        let seen = browse(
            &gateway.issue_with(&issue),
            &[
                ["--wait-state", "connected"],
                ["--press", "b"],
                ["--then-pixel", "100,100,#00a800"],
                ["--press", "a"],
                ["--then-pixel", "100,100,#0000a8"],
            ]
            .concat(),
        );

        assert_eq!(seen.code, 0, "{second_viewer}: {seen:?}");
        gateway.wait_for_sessions(0);
    }
}

#[test]
fn a_click_arrives_at_a_picture_that_is_scaled() {
    let qemu = Qemu::spice_with_mouse();
    let gateway = gateway_of(&qemu);

    let seen = browse(
        &issue(&gateway),
        &[
            ["--size", "800x300"],
            ["--wait-state", "connected"],
            ["--expect-pixel", "5,5,#a85700"],
            ["--click", "639,399"],
            ["--then-pixel", "5,5,#0000a8"],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn a_console_with_a_password_asks_for_it_until_it_is_right() {
    let qemu = Qemu::spice_with_password("sesame");
    let gateway = gateway_of(&qemu);

    let seen = browse(
        &issue(&gateway),
        &[
            ["--wait-state", "credentials"],
            ["--fill", "#password=wrong"],
            ["--press", "Enter"],
            ["--wait-state", "credentials"],
            ["--fill", "#password=sesame"],
            ["--press", "Enter"],
            ["--wait-state", "connected"],
            ["--expect-pixel", "100,100,#0000a8"],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn a_refused_spice_token_is_told_to_the_person_in_words() {
    let gateway = Setup::new().start();
    let url = format!("http://{}/spice_auto.html?token=unknown", gateway.listen);

    let seen = browse(
        &ConsoleUrl::parse(&url),
        &[
            ["--expect-code", "4001"],
            ["--wait-state", "refused"],
            ["--expect-message", "token"],
            ["--expect-text", "#detail=id "],
            ["--address-bar-lacks", "unknown"],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn what_is_no_spice_server_is_told_to_the_person_in_words() {
    let qemu = Qemu::tcp();
    let setup = Setup::new().instance("guest", qemu.address());
    let gateway = setup.set_instance("kind", "spice").start();

    let seen = browse(
        &issue(&gateway),
        &["--expect-message", "could not be understood"],
    );

    assert_eq!(seen.code, 0, "{seen:?}");
}

fn gateway_of(qemu: &Qemu) -> Gateway {
    let setup = Setup::new().instance("guest", qemu.address());
    setup.set_instance("kind", "spice").start()
}

#[track_caller]
fn issue(gateway: &Gateway) -> ConsoleUrl {
    gateway.issue_with(&["token", "issue", "guest", "--type", "spice-html5"])
}
