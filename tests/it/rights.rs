//! What a viewer may do, enforced between real viewers and real servers.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use crate::rig::browser::browse;
use crate::rig::gateway::{Gateway, Setup};
use crate::rig::http::Request;
use crate::rig::peers::Peer;
use crate::rig::qemu::{self, Qemu};
use crate::rig::rfb::{Viewer, shake_hands};
use crate::rig::ws::{Upgrade, Ws};
use crate::rig::xvnc::{self, Xvnc};

fn open_with(gateway: &Gateway, arguments: &[&str]) -> Ws {
    let issue = [&["token", "issue"][..], arguments].concat();
    let url = gateway.issue_with(&issue);
    Upgrade::new(&url.upgrade_path())
        .open(gateway.listen)
        .unwrap()
}

const VIEW: [&str; 2] = ["--rights", "view"];

#[test]
fn whoever_only_looks_at_xvnc_sees_it_and_no_key_of_theirs_arrives() {
    let xvnc = Xvnc::tcp(xvnc::BLUE);
    let gateway = Gateway::of("desk", xvnc.address());
    let middle = (xvnc::SCREEN.0 / 2, xvnc::SCREEN.1 / 2);

    let mut looking = Viewer::new(open_with(&gateway, &["desk", VIEW[0], VIEW[1]]));
    looking.wait_for_pixel(5, 5, xvnc::BLUE);
    looking.point(1, 1);
    looking.type_text("never");
    // What the server answered after the keys proves that they would have been there by now.
    looking.wait_for_pixel(6, 6, xvnc::BLUE);
    let mut typing = Viewer::new(open_with(&gateway, &["desk", "--rights", "input"]));
    typing.wait_for_pixel(5, 5, xvnc::BLUE);
    typing.point(middle.0, middle.1);
    typing.type_text("seen");

    xvnc.wait_for_keys("seen");
    looking.wait_for_pixel(7, 7, xvnc::BLUE);
}

#[test]
fn whoever_only_looks_at_qemu_does_not_change_its_colour() {
    let qemu = Qemu::tcp();
    let gateway = Gateway::of("guest", qemu.address());

    let mut looking = Viewer::new(open_with(&gateway, &["guest", VIEW[0], VIEW[1]]));
    looking.type_text("d");
    looking.wait_for_pixel(100, 100, qemu::BLUE);
    let mut typing = Viewer::new(gateway.open("guest"));
    typing.type_text("b");

    looking.wait_for_pixel(100, 100, qemu::GREEN);
    assert!(!qemu.has_shown(4), "the key of who only looks arrived");
}

#[test]
fn whoever_only_looks_in_chromium_sees_all_that_novnc_can_draw() {
    let (qemu, xvnc) = (Qemu::tcp(), Xvnc::tcp(xvnc::BLUE));
    let gateway = Setup::new()
        .instance("guest", qemu.address())
        .instance("desk", xvnc.address())
        .start();

    for (name, pixel) in [("guest", "100,100,#0000a8"), ("desk", "5,5,#2060c0")] {
        let url = gateway.issue_with(&["token", "issue", name, VIEW[0], VIEW[1]]);
        let seen = browse(
            &url,
            &[
                ["--wait-state", "connected"],
                ["--expect-pixel", pixel],
                ["--click", "320,240"],
                ["--press", "d"],
                ["--then-pixel", pixel],
                ["--expect-style", "#bar .badge=display: block"],
                ["--expect-style", "#ctrl-alt-del=display: none"],
            ]
            .concat(),
        );
        assert_eq!(seen.code, 0, "{name}: {seen:?}");
    }
    // More picture after the first, in whatever encoding the server prefers.
    let mut typing = Viewer::new(gateway.open("guest"));
    typing.type_text("b");
    let url = gateway.issue_with(&["token", "issue", "guest", VIEW[0], VIEW[1]]);
    let seen = browse(&url, &["--expect-pixel", "100,100,#00a800"]);
    assert_eq!(seen.code, 0, "{seen:?}");
    assert!(!qemu.has_shown(4), "the key of who only looks arrived");
}

const UPDATE: &[u8] = &[3, 0, 0, 0, 0, 0, 0, 1, 0, 1];
const SECRET: &[u8] = b"\x03\0\0\0\0\0\0\x06secret";
const PICTURE: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 3, 3, 3, 3];
const BELL: &[u8] = &[2];

/// A server that answers each request for a picture, with its clipboard before and behind.
fn talkative() -> Peer {
    Peer::vnc(|mut stream| {
        let mut message = [0; 10];
        loop {
            stream.read_exact(&mut message)?;
            assert_eq!(message, UPDATE, "something else came through");
            stream.write_all(&[SECRET, PICTURE, SECRET, BELL].concat())?;
        }
    })
}

#[test]
fn the_clipboard_of_a_console_stays_there_unless_it_may_be_read() {
    let peer = talkative();
    let gateway = Gateway::of("web", &peer.address());
    let with = [SECRET, PICTURE, SECRET, BELL].concat();
    let without = [PICTURE, BELL].concat();

    for (rights, expected) in [
        ("view", &without),
        ("input", &without),
        ("input,clipboard-in", &without),
        ("view,clipboard-out", &with),
        ("control", &with),
    ] {
        let mut ws = open_with(&gateway, &["web", "--rights", rights]);
        shake_hands(&mut ws);
        for _ in 0..2 {
            ws.send(UPDATE);
            assert_eq!(&ws.read(expected.len()), expected, "{rights}");
        }
    }
}

#[test]
fn a_message_that_nobody_knows_ends_the_session_of_who_only_looks() {
    let peer = talkative();
    let gateway = Gateway::of("web", &peer.address());
    let mut ws = open_with(&gateway, &["web", VIEW[0], VIEW[1]]);
    shake_hands(&mut ws);

    ws.send(&[77; 10]);
    let (_, closed) = ws.read_to_close();

    assert_eq!(closed.code, Some(4012), "{closed:?}");
    assert!(closed.reason.contains("unknown type 77"), "{closed:?}");
}

#[test]
fn an_encoding_that_was_not_offered_ends_the_session_of_who_only_looks() {
    let peer = Peer::vnc(|mut stream| {
        stream.read_exact(&mut [0; 10])?;
        stream.write_all(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 21, 0xff])?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let gateway = Gateway::of("web", &peer.address());
    let mut ws = open_with(&gateway, &["web", VIEW[0], VIEW[1]]);
    shake_hands(&mut ws);

    ws.send(UPDATE);
    let (_, closed) = ws.read_to_close();

    assert_eq!(closed.code, Some(4012), "{closed:?}");
    assert!(closed.reason.contains("the encoding 21"), "{closed:?}");
}

#[test]
fn whoever_only_looks_at_a_serial_line_is_not_heard() {
    let place = tempfile::TempDir::new().unwrap();
    let path = place.path().join("line");
    let listener = UnixListener::bind(&path).unwrap();
    let line = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"login: ").unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    });
    let address = format!("unix:{}", path.display());
    let gateway = Setup::new()
        .instance("line", &address)
        .set_instance("kind", "serial")
        .start();
    let arguments = ["line", "--type", "serial", VIEW[0], VIEW[1]];
    let url = gateway.issue_with(&[&["token", "issue"][..], &arguments].concat());
    let path = format!("{}?{}", url.0.path(), url.0.query().unwrap());
    let mut ws = Upgrade::new(&path).open(gateway.listen).unwrap();

    assert_eq!(ws.read(7), b"login: ");
    ws.send(b"root\n");
    ws.send_close(1000, "");
    ws.read_to_close();

    assert_eq!(line.join().unwrap(), b"");
}

#[test]
fn rights_are_asked_for_by_api_and_command_and_stand_in_lists_and_in_the_log() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web", &peer.address());
    let request = Request::new("POST", "/v1/consoles")
        .json(r#"{"instance": "web", "rights": "view,clipboard-out"}"#);

    let issued = gateway.http(&request).json();
    let listed = gateway.cli(&["token", "list", "-o", "json"]).ok().json();

    assert_eq!(issued["rights"], "view,clipboard-out");
    assert_eq!(listed["tokens"][0]["rights"], "view,clipboard-out");
    let table = gateway.cli(&["token", "list"]).ok().stdout;
    assert!(table.contains("RIGHTS") && table.contains("view,clipboard-out"));
    gateway.wait_for_event("the URL's line", |event| {
        event["message"] == "console URL issued" && event["rights"] == "view,clipboard-out"
    });

    shake_hands(&mut open_with(&gateway, &["web", VIEW[0], VIEW[1]]));
    gateway.wait_for_event("the session's line", |event| {
        event["message"] == "session ended" && event["rights"] == "view"
    });
}

#[test]
fn rights_that_are_none_or_cannot_be_enforced_are_refused() {
    let gateway = Setup::new()
        .instance("web", "127.0.0.1:1")
        .set_instance("kind", "spice")
        .set("proxy", "spice_url", "http://h/spice.html")
        .start();

    let unknown = gateway.cli(&["token", "issue", "web", "--rights", "admin"]);
    let spice = ["token", "issue", "web", "--type", "spice-html5"];
    let unenforceable = gateway.cli(&[&spice[..], &VIEW].concat());

    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(
        unknown.stderr.contains("`admin` is no right"),
        "{unknown:?}"
    );
    let words = "cannot be enforced at spice-html5 consoles";
    assert!(unenforceable.stderr.contains(words), "{unenforceable:?}");
}
