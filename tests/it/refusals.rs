//! Refusals that a person can read: a close code, a sentence, and an id that leads to the log.

use std::io::{Read, Write};

use crate::rig::gateway::{Gateway, Setup};
use crate::rig::peers::{self, Peer};
use crate::rig::ws::{Closed, Upgrade};

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
