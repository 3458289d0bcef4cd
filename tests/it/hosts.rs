//! Many compute hosts behind one api and one proxy, and the tunnel to their displays.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::browser::browse;
use crate::rig::certificates::Authority;
use crate::rig::deployment::{Deployment, Plan};
use crate::rig::libvirtd::Libvirtd;
use crate::rig::peers::Peer;
use crate::rig::qemu::{self, Qemu};
use crate::rig::rfb::{Viewer, shake_hands};
use crate::rig::vencrypt;
use crate::rig::wait::{until, until_settled};
use crate::rig::xml::Domain;
use crate::rig::xvnc::{self, Xvnc};

const SCREEN: &str = "<video><model type='vga'/></video>";
const AUTOPORT: &str = "<graphics type='vnc' port='-1' autoport='yes'/>";

/// So long without another byte is a stop.
const CALM: Duration = Duration::from_secs(1);

#[test]
fn a_display_that_is_a_mere_socket_of_its_host_is_seen_in_chromium_through_the_tunnel() {
    let qemu = Qemu::unix();
    let place = TempDir::with_prefix("vncgate-hosts-").unwrap();
    let path = qemu.address().strip_prefix("unix:").unwrap();
    put(&place, &Domain::new("guest").vnc_socket(path));
    let deployment = Plan::of_four()
        .set("rpc", "tunnel", "only")
        .set("compute", "xml", xml(&place))
        .start();

    let seen = browse(
        &deployment.node("api").issue("guest"),
        &[
            ["--wait-state", "connected"],
            ["--expect-pixel", "100,100,#0000a8"],
            ["--press", "b"],
            ["--then-pixel", "100,100,#00a800"],
        ]
        .concat(),
    );

    assert_eq!(seen.code, 0, "{seen:?}");
    let ended = ended(&deployment);
    assert_eq!(ended["way"], "tunnel", "{ended}");
}

#[test]
fn a_tunnel_goes_over_a_secret_too_and_says_when_the_console_is_over() {
    let peer = Peer::vnc(|mut stream| stream.write_all(b"farewell"));
    let deployment = with_secret(Plan::of_four().instance("web-1", &peer.address()));

    let mut ws = deployment
        .node("proxy")
        .open(&deployment.node("api").issue("web-1"));
    shake_hands(&mut ws);

    assert_eq!(ws.read(8), b"farewell");
    assert_eq!(ws.expect_close().code, Some(1000));
    assert_eq!(ended(&deployment)["way"], "tunnel");
}

#[test]
fn a_compute_that_is_killed_ends_the_sessions_that_run_through_it() {
    let peer = Peer::echo();
    let plan = || Plan::of_four().instance("web-1", &peer.address());
    for mut deployment in [
        plan().set("rpc", "tunnel", "only").start(),
        with_secret(plan()),
    ] {
        let url = deployment.node("api").issue("web-1");
        let mut ws = deployment.node("proxy").open(&url);
        shake_hands(&mut ws);
        ws.send(b"to and fro");
        assert_eq!(ws.read(10), b"to and fro");

        deployment.kill("compute");
        let closed = ws.expect_close();

        assert_eq!(closed.code, Some(4005), "{closed:?}");
        deployment.start("compute");
        until("the console to open again", || {
            let again = deployment.node("api").cli(&["token", "issue", "web-1"]);
            (again.code == 0).then_some(())
        });
        shake_hands(&mut deployment.node("proxy").open(&url));
    }
}

#[test]
fn a_viewer_that_does_not_read_stops_the_server_through_the_tunnel() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let peer = Peer::vnc(move |mut stream| {
        let picture = vec![7; 1 << 16];
        loop {
            stream.write_all(&picture)?;
            counted.fetch_add(1 << 16, Ordering::SeqCst);
        }
    });
    let deployment = Plan::of_four()
        .set("rpc", "tunnel", "only")
        .instance("web-1", &peer.address())
        .start();
    let mut ws = deployment
        .node("proxy")
        .open(&deployment.node("api").issue("web-1"));
    shake_hands(&mut ws);

    let stuck = until_settled("the server to be stopped", CALM, || {
        sent.load(Ordering::SeqCst)
    });
    let all = 64 << 20;
    let taken = ws.read(all);

    assert!((1 << 16..32 << 20).contains(&stuck), "{stuck}");
    assert_eq!(taken.len(), all);
}

#[test]
fn a_proxy_that_may_not_dial_opens_nothing_that_its_host_cannot() {
    let deployment = Plan::of_four()
        .set("rpc", "tunnel", "only")
        .instance("web-1", "192.0.2.7:5900")
        .start();

    let url = deployment.node("api").issue("web-1");
    let closed = deployment.node("proxy").open(&url).expect_close();

    assert_eq!(closed.code, Some(4005), "{closed:?}");
    assert!(
        closed
            .reason
            .starts_with("the console's host cannot open it"),
        "{closed:?}"
    );
    until("the log to say more", || {
        let log = deployment.node("proxy").log();
        log.contains("that is not on this machine").then_some(())
    });
}

#[test]
fn a_host_carries_as_many_consoles_as_it_may_and_tells_viewers_and_metrics_so() {
    let peer = Peer::echo();
    let deployment = Plan::of_four()
        .instance("web-1", &peer.address())
        .set("rpc", "max_tunnels", 2)
        .set("rpc", "tunnel", "only")
        .start();
    let (api, proxy) = (deployment.node("api"), deployment.node("proxy"));
    let figures = || deployment.node("compute").watch("/metrics").text();
    let url = api.issue("web-1");
    let mut first = [(); 2].map(|()| proxy.open(&url));
    for ws in &mut first {
        shake_hands(ws);
    }

    let refused = proxy.open(&url).expect_close();
    let full = figures();
    let [mut leaving, mut staying] = first;
    leaving.send_close(1000, "");
    until("the place to be free", || {
        figures()
            .contains("\nvncgate_tunnels_active 1\n")
            .then_some(())
    });
    shake_hands(&mut proxy.open(&url));

    assert_eq!(refused.code, Some(4010), "{refused:?}");
    let (sentence, _) = refused.sentence();
    assert!(
        sentence.starts_with("too many consoles of this host are open; close one"),
        "{sentence}"
    );
    for line in [
        "vncgate_tunnels_active 2",
        "vncgate_turned_away_total{why=\"tunnels\"} 1",
        "vncgate_limit{name=\"max_tunnels\"} 2",
    ] {
        assert!(full.lines().any(|it| it == line), "{line}: {full}");
    }
    let log = proxy.log();
    assert!(log.contains("carries 2 consoles already"), "{log}");
    staying.send(b"still here");
    assert_eq!(staying.read(10), b"still here");
}

#[test]
fn a_proxy_that_may_dial_does_so_where_the_host_carries_no_more() {
    let peer = Peer::echo();
    let deployment = Plan::of_four()
        .instance("web-1", &peer.address())
        .set("rpc", "max_tunnels", 1)
        .set("rpc", "tunnel", "prefer")
        .start();
    let (api, proxy) = (deployment.node("api"), deployment.node("proxy"));
    let url = api.issue("web-1");

    let mut both = [(); 2].map(|()| {
        let mut ws = proxy.open(&url);
        shake_hands(&mut ws);
        ws
    });

    until("both ways to be listed", || {
        let mut ways: Vec<Value> = api.sessions().iter().map(|it| it["way"].clone()).collect();
        ways.sort_by_key(Value::to_string);
        (ways == ["tcp", "tunnel"]).then_some(())
    });
    for ws in &mut both {
        ws.send(b"to and fro");
        assert_eq!(ws.read(10), b"to and fro");
    }
}

#[test]
fn probes_of_readiness_ask_no_host_and_are_true() {
    let peer = Peer::echo();
    let mut hosts = three_hosts("off");
    hosts.add_instance("compute-1", "one", &peer.address());
    start_all(&mut hosts);
    let front = hosts.node("front");
    let asked = || {
        let figures = front.watch("/metrics").text();
        let count = "vncgate_compute_host_call_duration_seconds_count ";
        let mut lines = figures.lines();
        let line = lines.find_map(|line| line.strip_prefix(count)).unwrap();
        line.parse::<u64>().unwrap()
    };
    let before = until_settled("all hosts to be listed", CALM, asked);

    for _probe in 0..100 {
        assert_eq!(front.watch("/readyz").status, 200);
    }

    // one look of its own at each, at most
    assert!(asked() <= before + 3, "{} after {before}", asked());
    for name in ["compute-1", "compute-2"] {
        hosts.kill(name);
    }
    assert_eq!(hosts.node("front").watch("/readyz").status, 200);
    hosts.kill("compute-3");
    let front = hosts.node("front");
    let lost = until("that no host answers", || {
        let ready = front.watch("/readyz");
        (ready.status == 503).then(|| ready.json())
    });
    assert_eq!(lost["compute"], "3 sources cannot be read", "{lost}");
    hosts.start("compute-1");
    hosts.wait_until_ready("front");
}

/// Processes that know each other by a secret.
fn with_secret(plan: Plan) -> Deployment {
    let mut deployment = plan.set("rpc", "tunnel", "only").prepare();
    let secret = deployment.directory().join("secret");
    fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    for name in ["auth", "compute", "api", "proxy"] {
        for key in ["ca", "certificate", "key"] {
            deployment.unset(name, "rpc", key);
        }
        deployment.set(name, "rpc", "secret_file", secret.to_str().unwrap());
        deployment.start(name);
    }
    deployment.wait_until_ready("proxy");
    deployment
}

fn put(place: &TempDir, domain: &Domain) {
    fs::write(
        place.path().join(format!("{}.xml", domain.name)),
        domain.dump(),
    )
    .unwrap();
}

fn xml(place: &TempDir) -> toml::Value {
    vec![place.path().to_str().unwrap().to_owned()].into()
}

/// What the proxy's log says of the session that ended.
fn ended(deployment: &Deployment) -> Value {
    until("a session to end", || {
        let log = deployment.node("proxy").log();
        let events = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .into_iter()
            .find(|event| event["message"] == "session ended")
    })
}

#[test]
fn an_instance_is_found_and_seen_on_whichever_host_it_is() {
    let (libvirtd, xvnc, qemu) = (Libvirtd::start(), Xvnc::tcp(xvnc::RUST), Qemu::unix());
    let id = libvirtd.boot("one", "p1", &format!("{AUTOPORT}{SCREEN}"));
    let (second, third) = (place(), place());
    let two = Domain::new("two").vnc(xvnc.port());
    put(&second, &two);
    let socket = qemu.address().strip_prefix("unix:").unwrap();
    put(&third, &Domain::new("three").vnc_socket(socket));
    let mut hosts = three_hosts("only");
    let local = [("name", "libvirt"), ("uri", &libvirtd.uri())];
    hosts.add("compute-1", "host", &local);
    hosts.set("compute-2", "compute", "xml", xml(&second));
    hosts.set("compute-3", "compute", "xml", xml(&third));
    start_all(&mut hosts);
    let front = hosts.node("front");

    let listed = until("all to be listed", || {
        let listed = front.cli(&["instance", "list", "-o", "json"]).ok().json();
        let listed = listed["instances"].as_array().unwrap().clone();
        (listed.len() == 3).then_some(listed)
    });
    for (name, node) in [
        ("one", "compute-1"),
        ("two", "compute-2"),
        ("three", "compute-3"),
    ] {
        let its = listed
            .iter()
            .find(|it| it["name"] == name || it["display_name"] == name)
            .unwrap();
        assert_eq!(its["host"], hosts.node(node).rpc.to_string(), "{its}");
    }
    for (wanted, colour) in [
        (id.as_str(), qemu::BLUE),
        ("one", qemu::BLUE),
        (two.id.as_str(), xvnc::RUST),
        ("two", xvnc::RUST),
        ("three", qemu::BLUE),
    ] {
        let mut viewer = Viewer::new(front.open(&front.issue(wanted)));
        viewer.wait_for_pixel(100, 100, colour);
    }
    let shown = front.cli(&["instance", "show", "two"]).ok().stdout;
    let host = hosts.node("compute-2").rpc;
    assert!(shown.contains(&format!("{host}: ")), "{shown}");
}

#[test]
fn hosts_that_are_dead_or_hang_hold_nobody_up_and_hide_nothing() {
    let peer = Peer::echo();
    let mut hosts = three_hosts("off");
    for (node, name) in [
        ("compute-1", "one"),
        ("compute-2", "two"),
        ("compute-3", "three"),
    ] {
        hosts.add_instance(node, name, &peer.address());
    }
    start_all(&mut hosts);
    hosts.node("front").issue("one");

    hosts.kill("compute-2");
    hosts.signal("compute-3", Signal::STOP);
    let front = hosts.node("front");
    for _time in 0..10 {
        let (url, took) = timed(|| front.issue("one"));
        assert!(took < Duration::from_secs(2), "{took:?}");
        shake_hands(&mut front.open(&url));
    }
    let (first, took) = timed(|| front.cli(&["token", "issue", "nobody"]));
    assert!(took < Duration::from_secs(9), "{took:?}");
    let (second, took) = timed(|| front.cli(&["token", "issue", "three"]));
    assert!(took < Duration::from_secs(2), "{took:?}");
    for lost in [first, second] {
        assert_eq!(lost.code, 6, "{lost:?}");
        assert!(lost.stderr.contains("compute at 127.0.0.1"), "{lost:?}");
    }
    let figures = String::from_utf8(front.watch("/metrics").body).unwrap();
    for (node, up) in [("compute-1", 1), ("compute-2", 0)] {
        let line = format!(
            "vncgate_compute_host_up{{host=\"{}\"}} {up}",
            hosts.node(node).rpc
        );
        assert!(figures.contains(&line), "{figures}");
    }
    assert!(
        figures.contains("vncgate_compute_host_call_duration_seconds_count"),
        "{figures}"
    );

    hosts.signal("compute-3", Signal::CONT);
    hosts.start("compute-2");
    for name in ["two", "three"] {
        until("a host to be back", || {
            let front = hosts.node("front");
            (front.cli(&["token", "issue", name]).code == 0).then_some(())
        });
    }
    let unknown = hosts.node("front").cli(&["token", "issue", "nobody"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
}

#[test]
fn an_instance_that_moved_is_found_where_it_runs_at_once() {
    let (old, new) = (Peer::echo(), Peer::echo());
    let (first, second) = (place(), place());
    let domain = Domain::new("web-1");
    put(&first, &domain.clone().vnc(old.port()));
    let mut hosts = three_hosts("off");
    hosts.set("compute-1", "compute", "xml", xml(&first));
    hosts.set("compute-2", "compute", "xml", xml(&second));
    start_all(&mut hosts);
    let front = hosts.node("front");
    let url = front.issue("web-1");
    shake_hands(&mut front.open(&url));
    let before = (old.connections(), new.connections());

    put(&second, &domain.clone().vnc(new.port()));
    put(&first, &domain.off());
    shake_hands(&mut front.open(&url));

    assert_eq!(before.0, old.connections());
    assert_eq!(before.1 + 1, new.connections());
    fs::remove_file(first.path().join("web-1.xml")).unwrap();
    shake_hands(&mut front.open(&front.issue("web-1")));
    assert_eq!(before.0, old.connections());
}

#[test]
fn a_name_on_two_hosts_is_two_instances() {
    let peer = Peer::echo();
    let (first, second) = (place(), place());
    let one = Domain::new("web-1").vnc(peer.port());
    put(&first, &one);
    let mut hosts = three_hosts("off");
    hosts.set("compute-1", "compute", "xml", xml(&first));
    hosts.set("compute-2", "compute", "xml", xml(&second));
    start_all(&mut hosts);
    let front = hosts.node("front");
    front.issue("web-1");

    put(&second, &Domain::new("web-1").vnc(Peer::echo().port()));

    let refused = until("the other to be known of", || {
        let answer = front.cli(&["token", "issue", "web-1"]);
        (answer.code != 0).then_some(answer)
    });
    assert!(
        refused.stderr.contains("is the name of several instances"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains(&one.id), "{refused:?}");
    front.issue(&one.id);
}

#[test]
fn a_host_comes_and_goes_with_its_file() {
    let peer = Peer::echo();
    let files = place();
    let plan = Plan::new()
        .node("auth", "auth")
        .node("compute", "compute")
        .node("front", "api,proxy")
        .instance("web-1", &peer.address())
        .set("rpc", "compute_dir", files.path().to_str().unwrap())
        .set("rpc", "compute", Vec::<String>::new())
        .set("rpc", "tunnel", "prefer");
    let mut deployment = plan.prepare();
    for name in ["auth", "compute", "front"] {
        deployment.start(name);
    }
    let front = deployment.node("front");
    let issue = || front.cli(&["token", "issue", "web-1"]);
    assert_eq!(issue().code, 4);

    let file = files.path().join("kvm-1.toml");
    fs::write(
        &file,
        format!("address = '{}'", deployment.node("compute").rpc),
    )
    .unwrap();
    until("the host to be known", || (issue().code == 0).then_some(()));
    let listed = front.cli(&["instance", "list"]).ok().stdout;
    assert!(listed.contains("kvm-1: config"), "{listed}");
    let mut ws = front.open(&front.issue("web-1"));
    shake_hands(&mut ws);

    fs::write(&file, "address = 6090").unwrap();
    let broken = until("the file to be told of", || {
        let answer = issue();
        (answer.code == 6).then_some(answer)
    });
    assert!(broken.stderr.contains("kvm-1.toml"), "{broken:?}");
    fs::remove_file(&file).unwrap();
    until("the host to be gone", || (issue().code == 4).then_some(()));
    ws.send(b"still here");
    assert_eq!(ws.read(10), b"still here");
}

/// Three computes behind one api and proxy, none of them started.
fn three_hosts(tunnel: &str) -> Deployment {
    let plan = Plan::new()
        .node("auth", "auth")
        .node("compute-1", "compute")
        .node("compute-2", "compute")
        .node("compute-3", "compute")
        .node("front", "api,proxy");
    plan.set("rpc", "tunnel", tunnel)
        .set("compute", "discover", false)
        .prepare()
}

fn start_all(hosts: &mut Deployment) {
    for name in ["auth", "compute-1", "compute-2", "compute-3", "front"] {
        hosts.start(name);
    }
    hosts.wait_until_ready("front");
}

fn place() -> TempDir {
    TempDir::with_prefix("vncgate-hosts-").unwrap()
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = work();
    (done, began.elapsed())
}

#[test]
fn a_server_with_vencrypt_is_entered_through_the_tunnel() {
    let files = place();
    let pki = files.path().join("pki");
    let authority = Authority::new(&pki, "ca-cert.pem");
    authority.vouch_for("127.0.0.1", "server-cert.pem", "server-key.pem");
    let peer = vencrypt::server(&pki, "server", rustls::ALL_VERSIONS);
    let ca = pki.join("ca-cert.pem");
    let vnc = toml::Table::from_iter([("ca_file".to_owned(), ca.to_str().unwrap().into())]);
    let deployment = Plan::of_four()
        .set("rpc", "tunnel", "only")
        .set("proxy", "vnc", vnc)
        .instance("web-1", &peer.address())
        .start();
    let api = deployment.node("api");

    let mut ws = deployment.node("proxy").open(&api.issue("web-1"));
    let (_, _, name) = shake_hands(&mut ws);
    ws.send(b"to and fro");

    assert_eq!(name, "inside");
    assert_eq!(ws.read(10), b"to and fro");
    until("the way to be listed", || {
        let listed = api.cli(&["session", "list", "-o", "json"]).ok().json();
        (listed["sessions"][0]["way"] == "tunnel").then_some(())
    });
    drop(ws);
    let ended = ended(&deployment);
    assert_eq!(ended["way"], "tunnel", "{ended}");
    assert_eq!(ended["security"], "x509none", "{ended}");
}
