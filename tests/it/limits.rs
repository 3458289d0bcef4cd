//! What clients may take at most, and what they are told when they want more.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::reload::{hang_up, rewrite, set};
use crate::rig::deployment::Plan;
use crate::rig::gateway::Setup;
use crate::rig::http::{Request, Response, connect};
use crate::rig::peers::Peer;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::tls_viewer::Files;

#[test]
fn a_session_too_many_is_told_to_come_back_and_may_once_another_ends() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("proxy", "max_sessions", 1).start();
    let mut first = gateway.open("web-1");
    shake_hands(&mut first);
    let upgrade = gateway.upgrade("web-1");

    let refused = upgrade.clone().open(gateway.listen).unwrap_err();
    first.send_close(1000, "");
    first.expect_close();
    let mut second = until("a free place", || upgrade.clone().open(gateway.listen).ok());

    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(shake_hands(&mut second).2, "peer");
}

#[test]
fn sessions_of_one_caller_share_the_bandwidth_that_is_theirs() {
    let peer = Peer::vnc(|mut stream| stream.write_all(&vec![7; 300_000]));
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("limits", "tenant_bandwidth", 400_000).start();
    let upgrade = gateway.upgrade("web-1");
    let started = Instant::now();

    let mut both = [(); 2].map(|()| upgrade.clone().open(gateway.listen).unwrap());
    for ws in &mut both {
        drop(shake_hands(ws));
    }
    let got = both.each_mut().map(|ws| ws.read_to_close().0.len());

    assert_eq!(got, [300_000, 300_000], "nothing is lost");
    let took = started.elapsed();
    assert!(took > Duration::from_millis(1300), "too fast: {took:?}");
}

#[test]
fn a_client_that_sends_no_request_is_let_go() {
    let gateway = Setup::new().set("proxy", "header_timeout", "1s").start();
    for beginning in [
        &b""[..],
        b"GET /vnc.html HT",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
    ] {
        let mut stream = connect(gateway.listen);
        let started = Instant::now();

        stream.write_all(beginning).unwrap();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).is_err();

        assert!(started.elapsed() < Duration::from_secs(10), "{beginning:?}");
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
}

/// How a door is dialled.
type Dial<'a> = &'a dyn Fn() -> Box<dyn Pipe>;

#[test]
fn no_listener_waits_longer_for_a_head_than_it_may() {
    let files = Files::new();
    let setup = files
        .setup()
        .set("proxy", "header_timeout", "1s")
        .set("tls", "redirect_listen", vec!["127.0.0.1:0"])
        .set("api", "listen", vec!["127.0.0.1:0"]);
    let gateway = setup.start();
    let ready = gateway.wait_for_event("readiness", |event| event["message"] == "ready");
    let address = |name: &str| ready[name].as_str().unwrap().parse().unwrap();
    let tls = |to| files.client().connect(to, "127.0.0.1").unwrap();
    let (api, redirect) = (address("api"), address("redirect"));
    let doors: [(&str, Dial<'_>); 5] = [
        ("public", &|| Box::new(tls(gateway.listen))),
        ("api", &|| Box::new(tls(api))),
        ("monitor", &|| Box::new(connect(gateway.monitor))),
        ("redirect", &|| Box::new(connect(redirect))),
        ("admin", &|| {
            Box::new(UnixStream::connect(&gateway.admin).unwrap())
        }),
    ];

    for (name, open) in doors {
        let (mut pipe, started) = (open(), Instant::now());
        pipe.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            .unwrap();
        pipe.flush().unwrap();
        let _reset = pipe.read_to_end(&mut Vec::new()).is_err();
        assert!(started.elapsed() < Duration::from_secs(10), "{name}");
    }
}

#[test]
fn a_role_that_is_called_waits_for_no_greeting_for_ever() {
    let plan = Plan::new().node("compute", "compute");
    let plan = plan.set("proxy", "public_url", "http://127.0.0.1");
    let mut compute = plan.prepare();
    compute.start("compute");
    for beginning in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HT"] {
        let mut stream = connect(compute.node("compute").rpc);
        let started = Instant::now();

        stream.write_all(beginning).unwrap();
        let _reset = stream.read_to_end(&mut Vec::new()).is_err();

        assert!(started.elapsed() < Duration::from_secs(20), "{beginning:?}");
    }
}

/// Any stream to a door.
trait Pipe: Read + Write {}

impl<T: Read + Write> Pipe for T {}

#[test]
fn every_limit_stands_in_the_metrics_and_follows_a_reload() {
    let setup = Setup::new().set("proxy", "header_timeout", "7s");
    let setup = setup.set("auth", "max_sessions_per_address", 3);
    let gateway = setup.set("proxy", "max_header", 9000).start();
    let limit = |name: &str| {
        let label = format!("name=\"{name}\"");
        let page = gateway.watch("/metrics").text();
        assert!(page.contains(&label), "{name}");
        gateway.metric("vncgate_limit", &label)
    };

    for (name, value) in [
        ("header_timeout_seconds", 7.0),
        ("handshake_timeout_seconds", 10.0),
        ("connect_timeout_seconds", 5.0),
        ("max_header", 9000.0),
        ("max_frame", 1_048_576.0),
        ("max_connections", 2000.0),
        ("max_sessions", 10_000.0),
        ("max_sessions_on_all_proxies", 0.0),
        ("max_sessions_per_instance", 0.0),
        ("max_sessions_per_caller", 0.0),
        ("max_sessions_per_address", 3.0),
        ("max_tokens", 100_000.0),
        ("connections_per_address", 500.0),
        ("new_connections_per_address", 200.0),
        ("failed_tokens_per_address", 10.0),
        ("session_bandwidth", 0.0),
        ("tenant_bandwidth", 0.0),
    ] {
        assert!((limit(name) - value).abs() < 0.1, "{name}: {}", limit(name));
    }
    assert!(limit("memory") > 1e6);
    rewrite(&gateway, |config| {
        set(config, "auth", "max_sessions_per_address", 4);
        set(config, "proxy", "max_header", 10_000);
    });
    let _event = hang_up(&gateway);
    assert!((limit("max_sessions_per_address") - 4.0).abs() < 0.1);
    let at_the_next_start = limit("max_header");
    assert!(
        (at_the_next_start - 9000.0).abs() < 0.1,
        "{at_the_next_start}"
    );
}

#[test]
fn a_head_that_does_not_end_is_refused() {
    let gateway = Setup::new().start();
    let request = Request::new("GET", "/vnc.html").header("X-Long", &"x".repeat(100_000));

    let refused = gateway.http(&request);

    assert!([400, 431].contains(&refused.status), "{refused:?}");
}

#[test]
fn a_frame_over_the_configured_limit_ends_the_session_with_1009() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("proxy", "max_frame", 4096).start();
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);

    ws.send(&[7; 4096]);
    assert_eq!(ws.read(4096), [7; 4096]);
    ws.send(&[7; 4097]);

    assert_eq!(ws.expect_close().code, Some(1009));
}

#[test]
fn a_url_may_not_live_longer_than_the_config_allows() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("auth", "url_ttl", "5m").start();

    let refused = gateway.cli(&["token", "issue", "web-1", "--ttl", "1h"]);
    let shorter = gateway.cli(&["token", "issue", "web-1", "--ttl", "1m"]);

    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("5m"), "{refused:?}");
    assert_eq!(shorter.code, 0, "{shorter:?}");
}

#[test]
fn every_listener_serves_and_a_connection_serves_many_requests() {
    let setup = Setup::new().set("proxy", "listen", vec!["127.0.0.1:0", "[::1]:0"]);
    let gateway = setup.start();
    assert_eq!(gateway.listeners.len(), 2);

    for address in &gateway.listeners {
        let mut stream = connect(*address);
        for _ in 0..3 {
            stream
                .write_all(b"GET /vnc.html HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();

            assert_eq!(Response::read(&mut stream, false).status, 200, "{address}");
        }
    }
}
