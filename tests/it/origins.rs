//! Which pages may open a console: section by section the rules of Nova's proxies for `Host`,
//! `Origin` and `X-Forwarded-Proto`, with their holes closed.

use crate::rig::gateway::{Gateway, Setup};
use crate::rig::peers::Peer;
use crate::rig::ws::{CLOSE, Closed, Upgrade};

/// What became of an upgrade.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Outcome {
    Opened,
    Refused(u16),
}
use Outcome::{Opened, Refused};

const ORIGIN_REFUSED: Outcome = Refused(4003);

#[test]
fn origins_are_held_against_an_https_public_url() {
    let (_peer, gateway) = behind("https://example.net:6080", &[], &[]);
    for (host, origin, expected) in [
        ("example.net:6080", Some("https://example.net:6080"), Opened),
        ("example.net:6080", Some("https://example.net"), Opened),
        ("example.net", Some("https://example.net:9999"), Opened),
        ("example.net:6080", None, Opened),
        (
            "example.net:6080",
            Some("http://example.net:6080"),
            ORIGIN_REFUSED,
        ),
        (
            "example.net:6080",
            Some("https://bad-origin-example.net:6080"),
            ORIGIN_REFUSED,
        ),
        (
            "example.net:6080",
            Some("https://example.net.evil.org"),
            ORIGIN_REFUSED,
        ),
        (
            "example.net:6080",
            Some("https://evil.org/example.net"),
            ORIGIN_REFUSED,
        ),
        (
            "example.net:6080",
            Some("https://example.net@evil.org"),
            ORIGIN_REFUSED,
        ),
        ("example.net:6080", Some(""), ORIGIN_REFUSED),
        ("example.net:6080", Some("null"), ORIGIN_REFUSED),
        ("example.net:6080", Some("example.net"), ORIGIN_REFUSED),
        ("example.net:6080", Some("//example.net"), ORIGIN_REFUSED),
        ("example.net:6080", Some("https://"), ORIGIN_REFUSED),
        (
            "example.net:6080",
            Some("file://example.net"),
            ORIGIN_REFUSED,
        ),
        ("EXAMPLE.net:6080", Some("https://example.net"), Opened),
        ("example.net:6080", Some("HTTPS://EXAMPLE.NET:6080"), Opened),
    ] {
        let upgrade = gateway.upgrade("web-1").with("Host", host);
        let upgrade = origin
            .iter()
            .fold(upgrade, |upgrade, origin| upgrade.with("Origin", origin));

        assert_eq!(
            outcome(&gateway, upgrade),
            expected,
            "Host {host}, Origin {origin:?}"
        );
    }
}

#[test]
fn an_https_origin_is_refused_where_the_public_url_is_http() {
    let (_peer, gateway) = behind("http://example.net:6080", &[], &[]);
    let upgrade = gateway.upgrade("web-1").with("Host", "example.net:6080");

    let https = upgrade.clone().with("Origin", "https://example.net:6080");
    let http = upgrade.with("Origin", "http://example.net:6080");

    assert_eq!(outcome(&gateway, https), ORIGIN_REFUSED);
    assert_eq!(outcome(&gateway, http), Opened);
}

#[test]
fn an_ipv6_host_is_compared_without_its_port() {
    let (_peer, gateway) = behind("https://[2001:db8::1]:6080", &[], &[]);
    let upgrade = gateway.upgrade("web-1").with("Host", "[2001:db8::1]:6080");

    let same = upgrade.clone().with("Origin", "https://[2001:db8::1]:6080");
    let other = upgrade.with("Origin", "https://[2001:db8::2]:6080");

    assert_eq!(outcome(&gateway, same), Opened);
    assert_eq!(outcome(&gateway, other), ORIGIN_REFUSED);
}

#[test]
fn without_a_public_url_a_page_of_the_gateway_itself_may_open() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let port = gateway.listen.port();
    for (host, origin, expected) in [
        ("127.0.0.1", "http://127.0.0.1", Opened),
        ("localhost", "http://localhost", Opened),
        ("127.0.0.1", "https://127.0.0.1", ORIGIN_REFUSED),
        ("127.0.0.1", "http://evil.example", ORIGIN_REFUSED),
    ] {
        let upgrade = gateway
            .upgrade("web-1")
            .with("Host", &format!("{host}:{port}"));
        let upgrade = upgrade.with("Origin", &format!("{origin}:{port}"));

        assert_eq!(
            outcome(&gateway, upgrade),
            expected,
            "Host {host}, Origin {origin}"
        );
    }
}

#[test]
fn allowed_origins_are_host_names_that_may_open_too() {
    let allowed = ["portal.example.org", "dash.example.org"];
    let (_peer, gateway) = behind("https://example.net", &allowed, &[]);
    for (origin, expected) in [
        ("https://portal.example.org", Opened),
        ("https://dash.example.org:8443", Opened),
        ("https://PORTAL.example.org", Opened),
        ("http://portal.example.org", ORIGIN_REFUSED),
        ("https://sub.portal.example.org", ORIGIN_REFUSED),
        ("https://other.example.org", ORIGIN_REFUSED),
    ] {
        let upgrade = gateway
            .upgrade("web-1")
            .with("Host", "example.net")
            .with("Origin", origin);

        assert_eq!(outcome(&gateway, upgrade), expected, "Origin {origin}");
    }
}

#[test]
fn a_trusted_proxy_may_tell_the_scheme_that_the_browser_used() {
    let (_peer, gateway) = behind("https://example.net", &[], &["127.0.0.1/32"]);
    for (origin, forwarded, expected) in [
        ("http://example.net", "https", Opened),
        ("https://example.net", "https", Opened),
        ("https://example.net", "http", ORIGIN_REFUSED),
        ("null", "https", ORIGIN_REFUSED),
        ("", "https", ORIGIN_REFUSED),
        ("https://evil.example", "https", ORIGIN_REFUSED),
    ] {
        let upgrade = gateway
            .upgrade("web-1")
            .with("Host", "example.net")
            .with("Origin", origin);
        let upgrade = upgrade.with("X-Forwarded-Proto", forwarded);

        assert_eq!(
            outcome(&gateway, upgrade),
            expected,
            "{origin:?} forwarded by {forwarded}"
        );
    }
}

#[test]
fn a_forwarded_scheme_from_an_untrusted_peer_does_not_count() {
    let (_peer, gateway) = behind("https://example.net", &[], &["192.0.2.0/24"]);
    for (origin, forwarded, expected) in [
        ("http://example.net", "https", ORIGIN_REFUSED),
        ("https://example.net", "http", Opened),
        ("https://example.net", "https", Opened),
    ] {
        let upgrade = gateway
            .upgrade("web-1")
            .with("Host", "example.net")
            .with("Origin", origin);
        let upgrade = upgrade.with("X-Forwarded-Proto", forwarded);

        assert_eq!(
            outcome(&gateway, upgrade),
            expected,
            "{origin} forwarded by {forwarded}"
        );
    }
}

#[test]
fn a_null_origin_does_not_match_a_missing_host() {
    let peer = Peer::echo();
    let gateway = Setup::new()
        .instance("web-1", &peer.address())
        .set("proxy", "trusted_proxies", vec!["127.0.0.1/32"])
        .start();
    let upgrade = gateway.upgrade("web-1").with("Origin", "null");

    let opened = upgrade
        .with("X-Forwarded-Proto", "http")
        .open_as_is(gateway.listen);

    match opened {
        Ok(mut ws) => assert_eq!(ws.expect_close().code, Some(4003)),
        Err(response) => assert_eq!(response.status, 400),
    }
    assert_eq!(peer.connections(), 0);
}

#[test]
fn the_host_of_one_request_opens_no_door_for_the_next() {
    let (_peer, gateway) = behind("https://example.net", &[], &[]);
    let upgrade = gateway
        .upgrade("web-1")
        .with("Origin", "https://evil.example");

    let _first = outcome(&gateway, upgrade.clone().with("Host", "evil.example"));
    let second = outcome(&gateway, upgrade.with("Host", "example.net"));

    assert_eq!(second, ORIGIN_REFUSED);
}

#[test]
fn a_refused_origin_is_told_both_values() {
    let (peer, gateway) = behind("https://example.net", &[], &[]);
    let upgrade = gateway.upgrade("web-1").with("Host", "example.net");

    let mut ws = upgrade
        .with("Origin", "https://evil.example")
        .open(gateway.listen)
        .unwrap();
    let closed = ws.expect_close();

    let (sentence, id) = closed.sentence();
    assert!(sentence.contains("evil.example"), "{sentence}");
    assert!(sentence.contains("example.net"), "{sentence}");
    gateway.wait_for_event("the refused origin", |event| event["correlation"] == id);
    assert_eq!(peer.connections(), 0);
}

#[test]
fn the_token_is_looked_at_before_the_origin() {
    let (_peer, gateway) = behind("https://example.net", &[], &[]);
    let upgrade = Upgrade::new("/?token=unknown").with("Origin", "https://evil.example");

    assert_eq!(outcome(&gateway, upgrade), Refused(4001));
}

fn behind(public_url: &str, allowed: &[&str], trusted: &[&str]) -> (Peer, Gateway) {
    let peer = Peer::echo();
    let setup = Setup::new()
        .instance("web-1", &peer.address())
        .set("proxy", "public_url", public_url)
        .set("proxy", "allowed_origins", allowed.to_vec())
        .set("proxy", "trusted_proxies", trusted.to_vec());
    let gateway = setup.start();
    (peer, gateway)
}

fn outcome(gateway: &Gateway, upgrade: Upgrade) -> Outcome {
    let mut ws = upgrade.open(gateway.listen).unwrap();
    let frame = ws.answer();
    if frame.opcode != CLOSE {
        assert_eq!(frame.payload, b"RFB 003.008\n");
        return Opened;
    }
    let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
    let reason = String::from_utf8(frame.payload[2..].to_vec()).unwrap();
    Closed {
        code: Some(code),
        reason,
    }
    .sentence();
    Refused(code)
}
