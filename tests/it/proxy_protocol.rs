//! Balancers and reverse proxies in front: whose address counts, and who is believed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::rig::fronts::Front;
use crate::rig::gateway::{Gateway, Setup};
use crate::rig::http::{Response, connect};
use crate::rig::https::{TlsPipe, get};
use crate::rig::peers::Peer;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::PATIENCE;
use crate::rig::ws::{Upgrade, Ws};
use crate::tls_viewer::Files;

/// Where clients of these tests sit; the fronts sit at 127.0.0.1.
const CLIENT: &str = "127.0.0.5";

/// A connection from [`CLIENT`].
fn connect_from_client(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let own: SocketAddr = format!("{CLIENT}:0").parse().unwrap();
    socket.bind(&own.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn trusting(setup: Setup, network: &str) -> Setup {
    setup.set("proxy", "trusted_proxies", vec![network])
}

fn announced(setup: Setup) -> Setup {
    trusting(setup, "127.0.0.1/32").set("proxy", "proxy_protocol", true)
}

/// Opens a console on this connection and tells where the gateway thinks that its viewer is.
fn viewer_of(gateway: &Gateway, upgrade: Upgrade, stream: TcpStream) -> String {
    let mut ws: Ws = upgrade.with("Host", "x").open_on(stream).unwrap();
    shake_hands(&mut ws);
    let sessions = gateway.cli(&["session", "list", "-o", "json"]).ok().json();
    let viewer = sessions["sessions"][0]["viewer"].as_str();
    let viewer = viewer.unwrap_or_else(|| panic!("{sessions}")).to_owned();
    ws.send_close(1000, "");
    ws.expect_close();
    gateway.wait_for_sessions(0);
    viewer
}

#[test]
fn haproxy_announces_viewers_in_both_versions() {
    let peer = Peer::echo();
    let gateway = announced(Setup::new().instance("web-1", &peer.address())).start();
    for how in ["send-proxy", "send-proxy-v2"] {
        let front = Front::haproxy(gateway.listen, how);

        let stream = connect_from_client(front.address());
        let viewer = viewer_of(&gateway, gateway.upgrade("web-1"), stream);

        assert_eq!(viewer, CLIENT, "{how}");
    }
}

#[test]
fn an_announced_connection_may_speak_tls() {
    let (files, peer) = (Files::new(), Peer::echo());
    let setup = files.setup().instance("web-1", &peer.address());
    let gateway = announced(setup).start();
    let front = Front::haproxy(gateway.listen, "send-proxy-v2");
    let pipe = TlsPipe::to(front.address(), &files.client(), "127.0.0.1");

    let mut ws = gateway.upgrade("web-1").open(pipe.address()).unwrap();
    shake_hands(&mut ws);
    ws.send(b"through both");

    assert_eq!(ws.read(12), b"through both");
}

#[test]
fn nginx_caddy_and_haproxy_carry_consoles_and_say_whose() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = trusting(setup, "127.0.0.1/32").start();
    let target = gateway.listen;
    for (name, front) in [
        ("nginx", Front::nginx(target)),
        ("caddy", Front::caddy(target)),
        ("haproxy", Front::haproxy_http(target)),
    ] {
        let stream = connect_from_client(front.address());
        let viewer = viewer_of(&gateway, gateway.upgrade("web-1"), stream);
        let mut stream = connect_from_client(front.address());
        let refused = get(&mut stream, "x", &format!("/v1/instances/{name}"));
        let event = gateway.wait_for_event("the refusal", |event| {
            event["message"] == "request refused" && event["peer"] == CLIENT
        });

        assert_eq!(viewer, CLIENT, "{name}");
        assert!(refused.contains(" 401 "), "{name}: {refused}");
        assert_eq!(event["status"], 401, "{event}");
    }
}

#[test]
fn who_is_no_balancer_or_does_not_announce_is_not_served() {
    const ASK: &str = "GET /vnc.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let announcing = || announced(Setup::new()).set("proxy", "header_timeout", "1s");
    let (gateway, strict) = (announcing().start(), announcing());
    let strict = strict
        .set("proxy", "trusted_proxies", vec!["10.0.0.0/8"])
        .start();
    let line = "PROXY TCP4 192.0.2.1 10.0.0.1 1234 80\r\n";
    let say = |to: &Gateway, bytes: &str| {
        let mut stream = connect(to.listen);
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).is_err();
        String::from_utf8_lossy(&answer).into_owned()
    };

    let good = say(&gateway, &format!("{line}{ASK}"));
    let itself = say(&gateway, &format!("PROXY UNKNOWN\r\n{ASK}"));
    let begun = Instant::now();
    let silenced = [
        say(&gateway, ASK),
        say(&gateway, &format!("PROXY TCP4 nonsense\r\n{ASK}")),
        say(&gateway, "PROXY TCP4 192.0.2.1"),
        say(&gateway, ""),
        say(&strict, &format!("{line}{ASK}")),
    ];

    assert!(good.starts_with("HTTP/1.1 200"), "{good}");
    assert!(itself.starts_with("HTTP/1.1 200"), "{itself}");
    assert_eq!(silenced, [""; 5]);
    assert!(begun.elapsed() < Duration::from_secs(15));
    let count = gateway.metric("vncgate_turned_away_total", "proxy-header");
    assert!(count.ge(&4.0), "{count}");
}

#[test]
fn without_the_setting_a_header_is_no_request() {
    let gateway = trusting(Setup::new(), "127.0.0.1/32").start();
    let mut stream = connect(gateway.listen);
    stream
        .write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 80\r\n\r\n")
        .unwrap();

    assert_eq!(Response::read(&mut stream, false).status, 400);
}

#[test]
fn announced_addresses_count_for_limits_and_in_the_log() {
    let setup = announced(Setup::new()).set("limits", "failed_tokens_per_address", 1);
    let gateway = setup.start();
    let try_as = |address: &str| {
        let mut stream = connect(gateway.listen);
        let line = format!("PROXY TCP4 {address} 10.0.0.1 1234 80\r\n");
        stream.write_all(line.as_bytes()).unwrap();
        let upgrade = Upgrade::new("/?token=00000000-0000-4000-8000-000000000000");
        upgrade
            .with("Host", "x")
            .open_on(stream)
            .map_or_else(|it| it.status, |_| 101)
    };

    let statuses: Vec<u16> = (0..40).map(|_| try_as("192.0.2.66")).collect();
    let other = try_as("192.0.2.67");

    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!((statuses[0], other), (101, 101));
    let from = |event: &Value| event["peer"] == "192.0.2.66";
    gateway.wait_for_event("the refusal", |event| event["code"] == 4001 && from(event));
}

#[test]
fn the_setting_without_a_balancer_to_believe_is_refused() {
    let setup = Setup::new().set("proxy", "proxy_protocol", true);
    let answer = setup.refuse_to_start();
    assert!(
        answer.stderr.contains("proxy.trusted_proxies"),
        "{answer:?}"
    );
    let refused = Setup::new()
        .set("api", "proxy_protocol", true)
        .refuse_to_start();
    assert!(refused.stderr.contains("api.proxy_protocol"), "{refused:?}");
}
