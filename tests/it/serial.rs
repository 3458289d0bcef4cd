//! Serial consoles in the built-in page: a terminal at a real guest's line.

use crate::rig::browser::browse;
use crate::rig::gateway::{ConsoleUrl, Gateway, Setup};
use crate::rig::libvirtd::Libvirtd;
use crate::rig::peers::Peer;

#[test]
fn the_serial_page_is_a_terminal_at_a_real_guests_line() {
    let libvirtd = Libvirtd::start();
    libvirtd.create("line", "<serial type='pty'/>");
    let setup = Setup::new().hypervisor("here", &libvirtd.uri());
    let gateway = setup.start();
    let url = page_of(&gateway, "line");
    assert_eq!(url.0.path(), "/serial.html");

    let seen = browse(
        &url,
        &[
            &["--wait-state", "connected"][..],
            &["--type", "grüße 日本"],
            &["--expect-text", ".xterm-rows=grüße 日本"],
            &["--address-bar-lacks", &url.token()],
            &["--no-errors"],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn what_a_line_says_is_shown_as_a_terminal_shows_it_and_under_our_policy() {
    let line = Peer::raw(|mut stream| {
        let link = "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\";
        let says = format!("\x1b[31mred\x1b[0m \x1b[38;2;1;2;3mrgb\x1b[0m {link}");
        std::io::Write::write_all(&mut stream, says.as_bytes())?;
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    });
    let gateway = gateway_of(&line);

    let seen = browse(
        &page_of(&gateway, "line"),
        &[
            &["--expect-text", ".xterm-rows=red rgb link"][..],
            &["--expect-style", ".xterm-fg-1=color: rgb(204, 0, 0)"],
            &[
                "--expect-style",
                ".xterm-rows [style*='color: rgb']=color: rgb(1, 2, 3)",
            ],
            &["--no-errors"],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn a_refused_serial_token_is_told_to_the_person_in_words() {
    let gateway = Setup::new().start();
    let url = format!("http://{}/serial.html?token=unknown", gateway.listen);

    let seen = browse(
        &ConsoleUrl::parse(&url),
        &[
            ["--expect-code", "4001"],
            ["--wait-state", "refused"],
            ["--expect-message", "token"],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn the_url_of_a_serial_console_stays_a_websocket_beside_its_page() {
    let line = Peer::raw(|_| Ok(()));
    let gateway = gateway_of(&line);
    let issue = |more: &[&str]| {
        let issue = ["token", "issue", "line", "--type", "serial"];
        gateway.cli(&[&issue, more].concat()).ok()
    };

    let url = ConsoleUrl::parse(&issue(&[]).stdout);
    let json = issue(&["-o", "json"]).json();

    assert_eq!(url.0.scheme(), "ws");
    assert!(json["url"].as_str().unwrap().starts_with("ws://"), "{json}");
    let page = json["page"].as_str().unwrap();
    let token = json["token"].as_str().unwrap();
    assert!(
        page.ends_with(&format!("/serial.html?token={token}")),
        "{json}"
    );
}

fn gateway_of(line: &Peer) -> Gateway {
    let setup = Setup::new().instance("line", &line.address());
    setup.set_instance("kind", "serial").start()
}

#[track_caller]
fn page_of(gateway: &Gateway, instance: &str) -> ConsoleUrl {
    gateway.issue_with(&["token", "issue", instance, "--type", "serial", "--page"])
}
