//! The WebSocket protocol (RFC 6455) at its edges: what may come in, what ends a session, and
//! that nothing of an offending frame ever reaches the target.

use crate::rig::gateway::Gateway;
use crate::rig::http::Request;
use crate::rig::peers::{Gathered, Peer, Random, pattern};
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{BINARY, CLOSE, CONTINUATION, Closed, PING, PONG, TEXT, Ws, frame, header};

#[test]
fn a_text_frame_ends_the_session_with_1003() {
    assert_eq!(end_after(&frame(true, TEXT, b"hello")).code, Some(1003));
}

#[test]
fn an_unmasked_frame_ends_the_session_with_1002() {
    let mut bytes = header(true, BINARY, false, 5);
    bytes.extend(b"hello");

    assert_eq!(end_after(&bytes).code, Some(1002));
}

#[test]
fn a_frame_that_announces_too_much_ends_the_session_with_1009_at_once() {
    let mut bytes = header(true, BINARY, true, 1 << 40);
    bytes.extend([0; 4 + 64]);

    assert_eq!(end_after(&bytes).code, Some(1009));
}

#[test]
fn reserved_bits_end_the_session_with_1002() {
    for bit in [0x40, 0x20, 0x10] {
        let mut bytes = frame(true, BINARY, b"hello");
        bytes[0] |= bit;

        assert_eq!(end_after(&bytes).code, Some(1002), "bit {bit:#x}");
    }
}

#[test]
fn an_unknown_opcode_ends_the_session_with_1002() {
    for opcode in [3, 7, 11, 15] {
        let closed = end_after(&frame(true, opcode, b"hello"));

        assert_eq!(closed.code, Some(1002), "opcode {opcode}");
    }
}

#[test]
fn a_continuation_of_nothing_ends_the_session_with_1002() {
    assert_eq!(
        end_after(&frame(true, CONTINUATION, b"hello")).code,
        Some(1002)
    );
}

#[test]
fn a_new_message_inside_a_fragmented_one_ends_the_session_with_1002() {
    let (_peer, gateway, gathered) = gathering();
    let mut ws = shaken(&gateway);
    ws.send_raw(&frame(false, BINARY, b"good"));
    ws.send_raw(&frame(true, BINARY, b"bad"));

    let closed = ws.expect_close();

    assert_eq!(closed.code, Some(1002));
    let arrived = gathered.until_end();
    assert!(b"good".starts_with(&arrived), "{arrived:?}");
}

#[test]
fn a_fragmented_or_long_control_frame_ends_the_session_with_1002() {
    for bytes in [
        frame(false, PING, b"hello"),
        frame(false, CLOSE, b""),
        frame(true, PING, &[0; 126]),
    ] {
        assert_eq!(end_after(&bytes).code, Some(1002));
    }
}

#[test]
fn a_broken_close_frame_is_answered_with_1002() {
    for payload in [&[3][..], &[3, 0xe8, 0xff], &[3, 0xed], &[0, 0], &[3, 0xe7]] {
        let closed = end_after(&frame(true, CLOSE, payload));

        assert_eq!(closed.code, Some(1002), "payload {payload:?}");
    }
}

#[test]
fn fragments_of_every_size_reach_the_target_as_one_stream() {
    let (_peer, gateway, gathered) = gathering();
    let mut ws = shaken(&gateway);
    let mut random = Random::new(42);
    let sent = pattern(1, 200_000);

    let mut rest = &sent[..];
    let mut first = true;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(random.below(3000).min(rest.len()));
        let last = later.is_empty() || random.below(3) == 0;
        let opcode = if first { BINARY } else { CONTINUATION };
        ws.send_raw(&frame(last, opcode, now));
        if random.below(4) == 0 {
            ws.send_raw(&frame(true, PING, b"between"));
        }
        (rest, first) = (later, last);
    }

    let arrived = gathered.until_count(sent.len());
    assert!(arrived == sent, "the target got other bytes");
}

#[test]
fn a_frame_that_trickles_in_byte_by_byte_arrives_whole() {
    let (_peer, gateway, gathered) = gathering();
    let mut ws = shaken(&gateway);

    for byte in frame(true, BINARY, b"trickle") {
        ws.send_raw(&[byte]);
    }

    assert_eq!(gathered.until_count(7), b"trickle");
}

#[test]
fn every_form_of_length_is_understood() {
    let (_peer, gateway, gathered) = gathering();
    let mut ws = shaken(&gateway);
    let sizes = [1, 125, 126, 127, 65_535, 65_536, 300_000];
    let sent = pattern(2, sizes.iter().sum());

    let mut rest = &sent[..];
    for size in sizes {
        let (now, later) = rest.split_at(size);
        ws.send(now);
        rest = later;
    }

    let arrived = gathered.until_count(sent.len());
    assert!(arrived == sent, "the target got other bytes");
}

#[test]
fn empty_messages_are_accepted_and_bring_the_target_nothing() {
    let (_peer, gateway, gathered) = gathering();
    let mut ws = shaken(&gateway);

    ws.send(b"");
    ws.send_raw(&frame(false, BINARY, b""));
    ws.send_raw(&frame(true, CONTINUATION, b""));
    ws.send(b"end");

    assert_eq!(gathered.until_count(3), b"end");
}

#[test]
fn bytes_sent_together_with_the_request_are_not_lost() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let early = frame(true, BINARY, b"RFB 003.008\n");

    let mut ws = gateway
        .upgrade("web-1")
        .early(&early)
        .open(gateway.listen)
        .unwrap();

    assert_eq!(ws.read(12), b"RFB 003.008\n");
    assert_eq!(ws.read(2), [1, 1], "the server heard the version");
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut ws = shaken(&gateway);

    for payload in [&b""[..], b"are you there", &[7; 125]] {
        ws.send_raw(&frame(true, PING, payload));

        let pong = ws.answer();
        assert_eq!((pong.opcode, &pong.payload[..]), (PONG, payload));
    }
}

#[test]
fn an_unasked_pong_is_ignored() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut ws = shaken(&gateway);

    ws.send_raw(&frame(true, PONG, b"unasked"));
    ws.send(b"alive");

    assert_eq!(ws.read(5), b"alive");
}

#[test]
fn a_quiet_session_is_pinged_so_that_nothing_between_cuts_it() {
    let peer = Peer::echo();
    let setup = crate::rig::gateway::Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("proxy", "ping_interval", "1s").start();
    let mut ws = shaken(&gateway);

    let ping = ws.frame();
    ws.send_raw(&frame(true, PONG, &ping.payload));
    let again = ws.frame();

    assert_eq!((ping.opcode, again.opcode), (PING, PING));
}

#[test]
fn a_close_frame_is_echoed_after_all_bytes_before_it_were_delivered() {
    let (_peer, gateway, gathered) = gathering();
    let mut ws = shaken(&gateway);
    let sent = pattern(3, 500_000);

    ws.send(&sent);
    ws.send_close(1000, "bye");
    let closed = ws.expect_close();

    assert_eq!(closed.code, Some(1000));
    assert!(ws.ends());
    assert!(gathered.until_end() == sent, "the target got other bytes");
}

#[test]
fn a_close_frame_without_a_code_ends_the_session_too() {
    let (_peer, gateway, gathered) = gathering();
    let mut ws = shaken(&gateway);

    ws.send_raw(&frame(true, CLOSE, b""));
    let closed = ws.expect_close();

    assert!([None, Some(1000)].contains(&closed.code), "{closed:?}");
    assert_eq!(gathered.until_end(), b"");
}

#[test]
fn a_viewer_that_vanishes_without_a_word_frees_its_target() {
    let (_peer, gateway, gathered) = gathering();
    let mut ws = shaken(&gateway);
    ws.send(b"last");
    gathered.until_count(4);

    ws.vanish();

    assert_eq!(gathered.until_end(), b"last");
    gateway.wait_for_sessions(0);
}

#[test]
fn the_subprotocol_is_binary_or_none() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let upgrade = gateway.upgrade("web-1");
    for (offered, selected) in [
        (None, None),
        (Some("binary"), Some("binary")),
        (Some("binary, base64"), Some("binary")),
        (Some("base64, binary"), Some("binary")),
        (Some("base64,binary"), Some("binary")),
    ] {
        let upgrade = offered.iter().fold(upgrade.clone(), |upgrade, offered| {
            upgrade.and("Sec-WebSocket-Protocol", offered)
        });

        let ws = upgrade.open(gateway.listen).unwrap();

        let got = ws.response.header("sec-websocket-protocol");
        assert_eq!(got, selected, "offered {offered:?}");
    }
}

#[test]
fn a_subprotocol_that_is_not_spoken_is_refused() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    for offered in ["base64", "chat", "binaries"] {
        let upgrade = gateway
            .upgrade("web-1")
            .and("Sec-WebSocket-Protocol", offered);

        let refused = upgrade.open(gateway.listen).unwrap_err();

        assert_eq!(refused.status, 400, "offered {offered}");
    }
    assert_eq!(peer.connections(), 0);
}

#[test]
fn no_extension_is_agreed_to() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let offer = "permessage-deflate; client_max_window_bits";

    let upgrade = gateway
        .upgrade("web-1")
        .and("Sec-WebSocket-Extensions", offer);
    let ws = upgrade.open(gateway.listen).unwrap();

    assert_eq!(ws.response.header("sec-websocket-extensions"), None);
}

#[test]
fn what_is_no_upgrade_gets_an_http_status() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let upgrade = gateway.upgrade("web-1");

    let old = upgrade
        .clone()
        .with("Sec-WebSocket-Version", "12")
        .open(gateway.listen);
    let versionless = upgrade
        .clone()
        .without("Sec-WebSocket-Version")
        .open(gateway.listen);
    let keyless = upgrade
        .clone()
        .without("Sec-WebSocket-Key")
        .open(gateway.listen);
    let bad_key = upgrade
        .with("Sec-WebSocket-Key", "short")
        .open(gateway.listen);

    let old = old.unwrap_err();
    assert!([400, 426].contains(&old.status), "{old:?}");
    assert_eq!(old.header("sec-websocket-version"), Some("13"));
    assert!([400, 426].contains(&versionless.unwrap_err().status));
    assert_eq!(keyless.unwrap_err().status, 400);
    assert_eq!(bad_key.unwrap_err().status, 400);
    assert_eq!(peer.connections(), 0);
}

#[test]
fn a_post_is_never_upgraded() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let path = gateway.issue("web-1").upgrade_path();
    let headers = [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    let request = Request::new("POST", &path);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(name, value)
    });
    let response = gateway.http(&request);

    assert!((400..500).contains(&response.status), "{response:?}");
    assert_eq!(peer.connections(), 0);
}

#[test]
fn sessions_that_break_the_protocol_leave_the_others_alone() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut good = shaken(&gateway);

    for bytes in [
        frame(true, TEXT, b"x"),
        [header(true, BINARY, true, u64::MAX), vec![0; 4]].concat(),
        vec![0xff; 64],
    ] {
        let mut bad = shaken(&gateway);
        bad.send_raw(&bytes);
        bad.expect_close();
    }
    good.send(b"unharmed");

    assert_eq!(good.read(8), b"unharmed");
}

/// Sends good bytes, then `offence`, checks that only the good ones arrived; how it was closed.
#[track_caller]
fn end_after(offence: &[u8]) -> Closed {
    let (_peer, gateway, gathered) = gathering();
    let mut ws = shaken(&gateway);
    ws.send(b"good");
    gathered.until_count(4);

    ws.send_raw(offence);
    let closed = ws.expect_close();

    assert_eq!(
        gathered.until_end(),
        b"good",
        "nothing of the offence reaches the target"
    );
    until("the connection to end", || ws.ends().then_some(()));
    closed
}

fn gathering() -> (Peer, Gateway, Gathered) {
    let (peer, gathered) = Peer::gathering();
    let gateway = Gateway::of("web-1", &peer.address());
    (peer, gateway, gathered)
}

fn shaken(gateway: &Gateway) -> Ws {
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);
    ws
}
