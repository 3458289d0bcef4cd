//! The life of the process: how it starts, refuses to start, drains and ends.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::rig::gateway::{BINARY, ConsoleUrl, Gateway, Setup, bare, vncgate};
use crate::rig::http::Request;
use crate::rig::peers::Peer;
use crate::rig::process::Process;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::Upgrade;

#[test]
fn health_and_readiness_are_told_on_the_monitor_listener_alone() {
    let gateway = Setup::new().start();

    assert_eq!(gateway.watch("/healthz").status, 200);
    assert_eq!(gateway.watch("/readyz").status, 200);
    assert_eq!(gateway.watch("/metrics").status, 200);
    assert_eq!(gateway.http(&Request::new("GET", "/metrics")).status, 404);
    assert_ne!(gateway.listen, gateway.monitor);
}

#[test]
fn metrics_are_prometheus_text_with_our_prefix() {
    let gateway = Setup::new().start();

    let page = gateway.watch("/metrics");

    let kind = page.header("content-type").unwrap();
    assert!(
        kind.contains("text/plain") || kind.contains("openmetrics-text"),
        "{kind}"
    );
    let text = page.text();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    assert!(series.clone().count() > 3, "{text}");
    assert!(
        series.clone().all(|line| line.starts_with("vncgate_")),
        "{text}"
    );
}

#[test]
fn sigterm_drains_and_the_sessions_live_on_until_the_limit() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let mut gateway = setup.set("proxy", "drain_timeout", "3s").start();
    let upgrade = gateway.upgrade("web-1");
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);

    gateway.signal(Signal::TERM);
    let drained = Instant::now();
    until("/readyz to turn", || {
        (gateway.watch("/readyz").status == 503).then_some(())
    });
    let alive = gateway.watch("/healthz").status;
    let refused = upgrade.open(gateway.listen).unwrap_err();
    ws.send(b"alive");
    let echoed = ws.read(5);
    let closed = ws.expect_close();

    assert_eq!(alive, 200, "/healthz while sessions live");
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(echoed, b"alive");
    assert_eq!(closed.code, Some(1001), "{closed:?}");
    assert!(
        drained.elapsed() >= Duration::from_secs(3),
        "it did not wait for the limit"
    );
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn draining_ends_as_soon_as_the_last_session_ends() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let mut gateway = setup.set("proxy", "drain_timeout", "10m").start();
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);

    gateway.signal(Signal::TERM);
    until("/readyz to turn", || {
        (gateway.watch("/readyz").status == 503).then_some(())
    });
    assert!(gateway.is_running());
    ws.send_close(1000, "");

    assert_eq!(gateway.wait(), 0);
}

#[test]
fn sigterm_without_sessions_ends_at_once() {
    let mut gateway = Setup::new().set("proxy", "drain_timeout", "10m").start();

    gateway.signal(Signal::TERM);

    assert_eq!(gateway.wait(), 0);
}

#[test]
fn a_second_signal_ends_at_once() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT)] {
        let peer = Peer::echo();
        let setup = Setup::new().instance("web-1", &peer.address());
        let mut gateway = setup.set("proxy", "drain_timeout", "10m").start();
        let mut ws = gateway.open("web-1");
        shake_hands(&mut ws);

        gateway.signal(first);
        until("/readyz to turn", || {
            (gateway.watch("/readyz").status == 503).then_some(())
        });
        gateway.signal(second);

        gateway.wait();
    }
}

#[test]
fn the_admin_socket_is_the_owners_alone_and_goes_with_the_process() {
    use std::os::unix::fs::PermissionsExt;
    let mut gateway = Setup::new().start();

    let mode = fs::metadata(&gateway.admin).unwrap().permissions().mode();
    gateway.signal(Signal::TERM);
    gateway.wait();

    assert_eq!(mode & 0o777, 0o600);
    assert!(!gateway.admin.exists());
}

#[test]
fn a_socket_left_behind_by_a_killed_process_is_taken_over() {
    let mut killed = Setup::new().start();
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(killed.admin.exists());

    let socket = killed.admin.to_str().unwrap();
    let heir = Setup::new().set("admin", "socket", socket).start();

    heir.cli(&["instance", "list"]).ok();
}

#[test]
fn a_socket_of_a_living_process_is_not_taken_away() {
    let first = Setup::new().start();

    let second = Setup::new().set("admin", "socket", first.admin.to_str().unwrap());
    let refused = second.refuse_to_start();

    assert_eq!(refused.code, 1, "{refused:?}");
    first.cli(&["instance", "list"]).ok();
}

#[test]
fn a_port_in_use_is_named_in_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let refused = Setup::new()
        .set("proxy", "listen", vec![address.as_str()])
        .refuse_to_start();

    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(&address), "{refused:?}");
    assert!(refused.stderr.contains("proxy.listen: "), "{refused:?}");
    assert_eq!(refused.stdout, "");
}

#[test]
fn an_unreadable_config_is_named_in_one_sentence() {
    let refused = vncgate(&["serve", "--all", "--config", "/nonexistent/vncgate.toml"]);

    assert_eq!(refused.code, 3, "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    assert!(
        refused.stderr.contains("/nonexistent/vncgate.toml"),
        "{refused:?}"
    );
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_one() {
    for (table, key, nearest) in [
        ("proxy", "lisen", "listen"),
        ("proxy", "drain_timout", "drain_timeout"),
        ("auth", "ttl_url", "url_ttl"),
        ("web", "roots", "root"),
    ] {
        let refused = Setup::new().set(table, key, "1s").refuse_to_start();

        assert_eq!(refused.code, 3, "{refused:?}");
        assert!(refused.stderr.contains(key), "{refused:?}");
        assert!(
            refused.stderr.contains(&format!("`{nearest}`")),
            "{refused:?}"
        );
    }
}

#[test]
fn an_impossible_value_is_answered_with_its_key() {
    for (table, key, value) in [
        ("proxy", "drain_timeout", "soon"),
        ("proxy", "public_url", "not a url"),
        ("auth", "url_ttl", "0s"),
        ("log", "level", "loud"),
        ("monitor", "listen", "nowhere"),
        ("log", "format", "xml"),
    ] {
        let refused = Setup::new().set(table, key, value).refuse_to_start();

        assert_eq!(refused.code, 3, "{table}.{key}: {refused:?}");
        assert!(refused.stderr.contains(key), "{refused:?}");
    }
}

#[test]
fn a_web_root_that_is_not_there_is_named_in_one_sentence() {
    let refused = Setup::new()
        .set("web", "root", "/nonexistent/novnc")
        .refuse_to_start();

    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    assert!(refused.stderr.contains("/nonexistent/novnc"), "{refused:?}");
}

#[test]
fn a_file_that_is_no_toml_is_answered_with_its_line() {
    let setup = Setup::new();
    let path = setup.directory.path().join("broken.toml");
    fs::write(&path, "[proxy]\nlisten = [\"127.0.0.1:0\"\n").unwrap();

    let refused = vncgate(&["config", "check", path.to_str().unwrap()]);

    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("broken.toml"), "{refused:?}");
    assert!(refused.stderr.contains("line"), "{refused:?}");
}

#[test]
fn config_check_says_what_serve_would_say() {
    let good = Setup::new();
    let bad = Setup::new().set("proxy", "lisen", "x");

    let accepted = vncgate(&["config", "check", good.write().to_str().unwrap()]);
    let refused = vncgate(&["config", "check", bad.write().to_str().unwrap()]);

    assert_eq!(accepted.code, 0, "{accepted:?}");
    assert_eq!(refused.code, 3, "{refused:?}");
    assert_eq!(refused.stderr, bad.refuse_to_start().stderr);
}

#[test]
fn it_is_ready_within_milliseconds() {
    let started = Instant::now();
    let _gateway = Setup::new().start();
    let took = started.elapsed();

    assert!(
        took < Duration::from_secs(2),
        "even an unoptimised build on a busy machine: {took:?}"
    );
}

#[test]
fn a_hundred_garbage_connections_take_nothing_down() {
    use std::io::Write;
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    for number in 0..100_u8 {
        let mut stream = crate::rig::http::connect(gateway.listen);
        let _answered_early = stream.write_all(&[number; 2000]).is_err();
    }
    let mut ws = gateway.open("web-1");

    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let admin = setup.directory.path().join("admin.sock");
    let script = format!("exec {BINARY} serve --all --config \"$0\" 2>/dev/full");
    let mut bash = bare(Path::new("bash"));
    let _serving = Process::spawn("serve", bash.arg("-c").arg(script).arg(setup.write()));

    let socket = ["--admin-socket", admin.to_str().unwrap()];
    let issued = until("a URL", || {
        let answer = vncgate(&[&["token", "issue", "web-1"][..], &socket].concat());
        (answer.code == 0).then_some(answer.stdout)
    });
    let url = ConsoleUrl::parse(&issued);
    let address = ([127, 0, 0, 1], url.0.port().unwrap()).into();
    let mut ws = Upgrade::new(&url.upgrade_path()).open(address).unwrap();
    shake_hands(&mut ws);
    ws.send(b"alive");

    assert_eq!(ws.read(5), b"alive");
}

#[test]
fn a_session_whose_viewer_answers_nothing_has_its_last_line_too() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let mut gateway = setup.set("proxy", "drain_timeout", "0s").start();
    let _silent = gateway.open("web-1");
    gateway.wait_for_sessions(1);

    gateway.signal(Signal::TERM);

    assert_eq!(gateway.wait(), 0);
    let events = gateway.events();
    assert!(
        events
            .iter()
            .any(|event| event["message"] == "session ended"),
        "{events:?}"
    );
}
