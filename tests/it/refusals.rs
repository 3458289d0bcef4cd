//! Refusals that a person can read: a close code, a sentence, and an id that leads to the log.

use std::io::{Read, Write};

use serde_json::Value;

use crate::rig::browser::browse;
use crate::rig::gateway::{ConsoleUrl, Gateway, Setup};
use crate::rig::libvirtd::loopback;
use crate::rig::nginx::{Nginx, UPGRADES};
use crate::rig::peers::{self, Peer};
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{Closed, Upgrade, Ws};
use crate::rig::xml::Domain;
use crate::rig::xvnc::{self, Xvnc};

#[test]
fn an_unknown_token_is_refused_with_4001() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let upgrade = Upgrade::new("/websockify?token=00000000-0000-4000-8000-000000000000");
    let closed = upgrade.open(gateway.listen).unwrap().expect_close();

    assert_refused(&gateway, &closed, 4001, &["token"]);
    assert_eq!(peer.connections(), 0);
}

#[test]
fn an_upgrade_that_is_none_reaches_no_target() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let refused = gateway.upgrade("web-1").with("Content-Length", "5");
    let refused = refused.open(gateway.listen).unwrap_err();

    assert_eq!(refused.status, 400, "{refused:?}");
    assert_eq!(peer.connections(), 0);
}

#[test]
fn a_foreign_origin_is_refused_with_4003() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let upgrade = gateway
        .upgrade("web-1")
        .with("Origin", "https://evil.example");
    let closed = upgrade.open(gateway.listen).unwrap().expect_close();

    assert_refused(&gateway, &closed, 4003, &["evil.example"]);
    assert_eq!(peer.connections(), 0);
}

#[test]
fn a_port_where_nobody_listens_is_refused_with_4005() {
    let closed_port = peers::Closed::new();
    let gateway = Gateway::of("web-1", &closed_port.address());

    let closed = gateway.open("web-1").expect_close();

    assert_refused(&gateway, &closed, 4005, &["refused"]);
    let event = gateway.wait_for_event("the refusal", |event| event["code"] == 4005);
    assert_eq!(event["name"], "web-1", "{event}");
    assert!(event["instance"].is_string(), "{event}");
}

#[test]
fn a_unix_socket_that_is_not_there_is_refused_with_4005() {
    let gateway = Gateway::of("web-1", "unix:/nonexistent/vnc.sock");

    let closed = gateway.open("web-1").expect_close();

    assert_refused(&gateway, &closed, 4005, &[]);
}

#[test]
fn a_server_that_speaks_no_vnc_is_refused_with_4005() {
    for greeting in [
        &b"SSH-2.0-OpenSSH_9.2p1\r\n"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ] {
        let peer = Peer::raw(move |mut stream| {
            stream.write_all(greeting)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
            Ok(())
        });
        let gateway = Gateway::of("web-1", &peer.address());

        let closed = gateway.open("web-1").expect_close();

        assert_refused(&gateway, &closed, 4005, &["VNC"]);
    }
}

#[test]
fn a_server_that_hangs_up_before_its_greeting_is_refused_with_4005() {
    for beginning in [&b""[..], b"\x16", b"RFB 003"] {
        let peer = Peer::raw(move |mut stream| {
            stream.write_all(beginning)?;
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
            Ok(())
        });
        let gateway = Gateway::of("web-1", &peer.address());

        let closed = gateway.open("web-1").expect_close();

        assert_refused(&gateway, &closed, 4005, &[]);
    }
}

#[test]
fn a_server_that_never_speaks_is_refused_with_4005() {
    let peer = Peer::raw(|mut stream| stream.read_to_end(&mut Vec::new()).map(|_| ()));
    let gateway = Gateway::of("web-1", &peer.address());

    let closed = gateway.open("web-1").expect_close();

    assert_refused(&gateway, &closed, 4005, &[]);
}

#[test]
fn refusals_are_counted_by_their_code() {
    let gateway = Setup::new().start();

    for _ in 0..3 {
        Upgrade::new("/?token=x")
            .open(gateway.listen)
            .unwrap()
            .expect_close();
    }

    let counted = gateway.metric("vncgate_closes_total", "code=\"4001\"");
    assert!((counted - 3.0).abs() < 0.1, "{counted}");
}

#[test]
fn refused_upgrades_leave_the_console_open_for_others() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    for _ in 0..50 {
        Upgrade::new("/?token=x")
            .open(gateway.listen)
            .unwrap()
            .expect_close();
    }

    let mut ws = gateway.open("web-1");

    assert_eq!(ws.read(12), b"RFB 003.008\n");
}

/// Checks code and words, that the connection's id is in the log, and that no session is left.
#[track_caller]
fn assert_refused(gateway: &Gateway, closed: &Closed, code: u16, words: &[&str]) {
    assert_eq!(closed.code, Some(code), "{closed:?}");
    let (sentence, id) = closed.sentence();
    for word in words {
        assert!(
            sentence.contains(word),
            "`{word}` is missing in: {sentence}"
        );
    }
    let event = gateway.wait_for_event("the refusal's correlation id", |event| {
        event["correlation"] == id
    });
    assert!(!event.to_string().contains("token="), "{event}");
    gateway.wait_for_sessions(0);
}

/// Opens a console in Chromium, and checks what its page says in the end: the code, the sentence,
/// and the id that leads to the log.
#[track_caller]
fn assert_page_says(url: &ConsoleUrl, code: u16, sentence: &str) {
    let code = code.to_string();
    let seen = browse(
        url,
        &[
            ["--expect-code", &code],
            ["--expect-message", sentence],
            ["--expect-text", "#detail=id "],
        ]
        .concat(),
    );
    assert_eq!(seen.code, 0, "{seen:?}");
}

/// The same, with something done once the page has its console.
#[track_caller]
fn assert_page_says_after(gateway: &Gateway, act: impl FnOnce(), (code, sentence): (u16, &str)) {
    let url = gateway.issue("desk");
    std::thread::scope(|scope| {
        let page = scope.spawn(|| assert_page_says(&url, code, sentence));
        gateway.wait_for_sessions(1);
        act();
        page.join().unwrap();
    });
}

fn open(gateway: &Gateway, url: &ConsoleUrl, browser: &str) -> Ws {
    let upgrade = Upgrade::new(&url.upgrade_path()).and("User-Agent", browser);
    upgrade.open(gateway.listen).unwrap()
}

fn desk() -> (Xvnc, Setup) {
    let xvnc = Xvnc::tcp(xvnc::BLUE);
    let setup = Setup::new().instance("desk", xvnc.address());
    (xvnc, setup)
}

#[test]
fn the_page_says_that_the_console_ended() {
    let peer = Peer::vnc(|mut stream| {
        stream.read_exact(&mut [0; 10])?;
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let gateway = Gateway::of("desk", &peer.address());

    let seen = browse(
        &gateway.issue("desk"),
        &[
            ["--expect-code", "1000"],
            ["--expect-message", "The console ended"],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
}

#[test]
fn the_page_says_that_a_url_was_used_already() {
    let (_xvnc, setup) = desk();
    let gateway = setup.start();
    let url = gateway.issue_with(&["token", "issue", "desk", "--single-use"]);
    let mut first = open(&gateway, &url, "another browser");
    shake_hands(&mut first);

    assert_page_says(&url, 4002, "This console URL was used already");
}

#[test]
fn the_page_says_which_origin_is_refused() {
    let (_xvnc, setup) = desk();
    let (behind, front) = (loopback(), loopback());
    let (behind, front) = (format!("{behind}:6080"), format!("{front}:8080"));
    // A proxy that changes the name that the page was asked for by.
    let lines = UPGRADES.replace("$http_host", "inner.example");
    let _nginx = Nginx::before(&behind, &front, &lines);
    let gateway = setup.set("proxy", "listen", vec![behind]).start();
    let mut url = gateway.issue("desk").0;
    let (host, port) = front.split_once(':').unwrap();
    url.set_host(Some(host)).unwrap();
    url.set_port(port.parse().ok()).unwrap();

    assert_page_says(&ConsoleUrl(url), 4003, "is not `inner.example`");
}

#[test]
fn the_page_says_that_an_instance_is_gone() {
    let peer = Peer::echo();
    let setup = Setup::new().xml_directory();
    let file = setup.xml_path().join("desk.xml");
    std::fs::write(&file, Domain::new("desk").vnc(peer.port()).dump()).unwrap();
    let gateway = setup.start();
    let url = gateway.issue("desk");

    std::fs::remove_file(file).unwrap();

    assert_page_says(&url, 4004, "The instance does not exist any more");
}

#[test]
fn the_page_says_that_a_host_refuses_the_connection() {
    let closed = peers::Closed::new();
    let gateway = Gateway::of("desk", &closed.address());
    let words = "console's host refused the connection";
    assert_page_says(&gateway.issue("desk"), 4005, words);
}

#[test]
fn the_page_says_that_the_gateways_password_is_wrong() {
    let place = tempfile::tempdir().unwrap();
    let (right, wrong) = (place.path().join("right"), place.path().join("wrong"));
    std::fs::write(&right, xvnc::password_file("secret")).unwrap();
    std::fs::write(&wrong, "mistake").unwrap();
    let arguments = ["-PasswordFile", right.to_str().unwrap()];
    let xvnc = Xvnc::secured("VncAuth", &arguments, None);
    let mut vnc = toml::Table::new();
    vnc.insert("password_file".to_owned(), wrong.to_str().unwrap().into());
    let setup = Setup::new().instance("desk", xvnc.address());
    let gateway = setup.set_instance("vnc", vnc).start();

    let words = "VNC server does not accept the gateway's password";
    assert_page_says(&gateway.issue("desk"), 4006, words);
}

#[test]
fn the_page_says_that_an_operator_ended_the_session() {
    let (_xvnc, setup) = desk();
    let gateway = setup.start();
    let kill = || {
        let id = until("the session's id", || {
            let listed = gateway.cli(&["session", "list", "-o", "json"]).ok().json();
            let id: Value = listed["sessions"][0]["id"].clone();
            id.as_str().map(str::to_owned)
        });
        gateway.cli(&["session", "kill", &id]).ok();
    };
    assert_page_says_after(&gateway, kill, (4007, "An operator ended this session"));
}

#[test]
fn the_page_says_that_nothing_was_done_for_too_long() {
    let (_xvnc, setup) = desk();
    let gateway = setup.set("auth", "idle_timeout", "2s").start();
    let words = "Nothing was typed or moved for too long";
    assert_page_says(&gateway.issue("desk"), 4008, words);
}

#[test]
fn the_page_says_that_a_session_has_lasted_as_long_as_it_may() {
    let (_xvnc, setup) = desk();
    let gateway = setup.set("auth", "max_session", "2s").start();
    let words = "This session has lasted as long as it may";
    assert_page_says(&gateway.issue("desk"), 4009, words);
}

#[test]
fn the_page_says_that_somebody_else_has_the_console() {
    let (_xvnc, setup) = desk();
    let gateway = setup.set("auth", "second_viewer", "refuse").start();
    let mut first = gateway.open("desk");
    shake_hands(&mut first);

    let words = "Somebody else is viewing this console";
    assert_page_says(&gateway.issue("desk"), 4010, words);
}

#[test]
fn the_page_says_that_consoles_cannot_be_opened_just_now() {
    let (_xvnc, setup) = desk();
    let setup = setup.set("audit", "file", "/dev/full");
    let gateway = setup.set("audit", "required", true).start();
    let url = gateway.issue("desk");
    until("the failure to be counted", || {
        (gateway.metric("vncgate_audit_failing", "") > 0.5).then_some(())
    });

    assert_page_says(&url, 4011, "gateway cannot open consoles just now");
}

#[test]
fn the_page_says_that_what_the_console_sends_cannot_be_checked() {
    let peer = Peer::vnc(|mut stream| {
        stream.read_exact(&mut [0; 10])?;
        stream.write_all(&[77; 8])?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let gateway = Gateway::of("desk", &peer.address());
    let url = gateway.issue_with(&["token", "issue", "desk", "--rights", "view"]);

    assert_page_says(&url, 4012, "console sent a message of the unknown type 77");
}

#[test]
fn every_code_that_a_page_can_meet_is_in_the_design_and_met_here() {
    let design = include_str!("../../docs/design.md");
    let (_, table) = design.split_once("## 6. Close codes").unwrap();
    let (table, _) = table.split_once("\n## 7.").unwrap();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = cells.filter_map(|line| line.split(" |").next());
    let codes = cells.flat_map(|cell| cell.split(|c: char| !c.is_ascii_digit()));
    let mut codes: Vec<&str> = codes.filter(|code| code.len() == 4).collect();
    // What only a program can do that is no browser: tests/it/frames.rs.
    codes.retain(|code| !["1002", "1003", "1009"].contains(code));

    let pages = [include_str!("refusals.rs"), include_str!("pages.rs")].concat();
    for code in &codes {
        let met = [
            format!("\"{code}\""),
            format!(" {code}, "),
            format!("({code}, "),
        ];
        let met = met.iter().any(|form| pages.contains(form));
        assert!(met, "nothing provokes {code} in a page");
    }
    assert!(codes.len() >= 14, "{codes:?}");
}
