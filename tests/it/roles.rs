//! The roles in processes of their own: what happens when one is away, and who trusts whom.
//! The journeys, wherever roles run, are in `topologies`.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::rig::deployment::{Deployment, Node, Plan};
use crate::rig::gateway::vncgate;
use crate::rig::http::{Request, Response};
use crate::rig::mock::Mock;
use crate::rig::newer::{self, Newer};
use crate::rig::peers::Peer;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{Closed, Upgrade};

#[test]
fn without_auth_nothing_opens_nothing_ends_and_all_comes_back() {
    let peer = Peer::echo();
    let mut deployment = Plan::of_four().instance("web-1", &peer.address()).start();
    let url = deployment.node("api").issue("web-1");
    let mut live = deployment.node("proxy").open(&url);
    shake_hands(&mut live);
    let id = text(&deployment.node("api").sessions()[0], "id").to_owned();

    deployment.kill("auth");
    let asked = Instant::now();
    let refused = ask_for(deployment.node("api"), "web-1");
    let closed = deployment.node("proxy").open(&url).expect_close();
    let took = asked.elapsed();

    assert_unavailable(&refused, "the auth role is not running");
    assert_ended(&closed, 4011, "the gateway cannot open consoles just now");
    assert!(took < Duration::from_secs(5), "{took:?}");
    for name in ["api", "proxy"] {
        let ready = deployment.node(name).watch("/readyz");
        assert_eq!(ready.status, 503, "{ready:?}");
        assert_eq!(ready.json()["auth"], "the auth role is not running");
        assert_eq!(ready.json()["compute"], "ok");
    }

    deployment.start("auth");
    deployment.wait_until_ready("proxy");
    until("the session to be known again", || {
        let listed = deployment.node("api").sessions();
        listed.iter().any(|one| one["id"] == id).then_some(())
    });
    live.send(b"through it all");
    assert_eq!(live.read(14), b"through it all");
    let mut next = deployment
        .node("proxy")
        .open(&deployment.node("api").issue("web-1"));
    shake_hands(&mut next);
}

#[test]
fn a_compute_that_hangs_is_told_in_bounded_time_and_ends_nothing() {
    let peer = Peer::echo();
    let deployment = Plan::of_four()
        .instance("web-1", &peer.address())
        .set("rpc", "timeout", "10s")
        .start();
    let url = deployment.node("api").issue("web-1");
    let mut live = deployment.node("proxy").open(&url);
    shake_hands(&mut live);

    deployment.signal("compute", Signal::STOP);
    let asked = Instant::now();
    let refused = ask_for(deployment.node("api"), "web-1");
    let closed = deployment.node("proxy").open(&url).expect_close();
    let took = asked.elapsed();
    live.send(b"unhurt");
    let echoed = live.read(6);
    deployment.signal("compute", Signal::CONT);

    assert_unavailable(&refused, "the compute role");
    assert_ended(&closed, 4011, "the gateway cannot open consoles just now");
    assert!(took < Duration::from_secs(22), "{took:?}");
    assert_eq!(echoed, b"unhurt");
    deployment.wait_until_ready("proxy");
    let mut again = deployment.node("proxy").open(&url);
    shake_hands(&mut again);
}

#[test]
fn a_role_of_another_version_is_told_apart_from_one_that_fails() {
    let peer = Peer::echo();
    let plan = Plan::new()
        .node("compute", "compute")
        .node("api", "api")
        .node("proxy", "proxy");
    let mut deployment = plan.instance("web-1", &peer.address()).prepare();
    let socket = deployment.directory().join("auth.rpc");
    let _auth = Newer::at(&socket);
    for name in ["api", "proxy"] {
        let there = vec![format!("unix:{}", socket.display())];
        deployment.set(name, "rpc", "auth", there);
    }
    for name in ["compute", "api", "proxy"] {
        deployment.start(name);
    }
    deployment.wait_until_ready("compute");

    let refused = ask_for(deployment.node("api"), "web-1");
    let ready = deployment.node("proxy").watch("/readyz").json();
    let path = "/websockify?token=7d1f1f9e-6c3b-4a56-8d7b-0d5a0b1f2c3d";
    let mut ws = Upgrade::new(path)
        .open(deployment.node("proxy").listen)
        .unwrap();
    let closed = ws.expect_close();

    let ours = env!("CARGO_PKG_VERSION");
    let sentence = format!(
        "the auth role is of version {} and not understood by version {ours}; run the same version \
         everywhere",
        newer::VERSION
    );
    assert_unavailable(&refused, &sentence);
    assert_eq!(ready["auth"], sentence, "{ready}");
    assert_ended(&closed, 4011, "the gateway cannot open consoles just now");
    let log = deployment.node("proxy").log();
    assert!(log.contains(&sentence), "{log}");
}

#[test]
fn two_computes_know_what_either_knows() {
    let (one, two) = (Peer::echo(), Peer::echo());
    let plan = Plan::new()
        .node("auth", "auth")
        .node("compute-1", "compute")
        .node("compute-2", "compute")
        .node("front", "api,proxy");
    let mut deployment = plan.prepare();
    for (name, instance, peer) in [("compute-1", "web-1", &one), ("compute-2", "web-2", &two)] {
        deployment.add_instance(name, instance, &peer.address());
    }
    for name in ["auth", "compute-1", "compute-2", "front"] {
        deployment.start(name);
    }
    deployment.wait_until_ready("front");
    let front = deployment.node("front");

    for instance in ["web-1", "web-2"] {
        let mut ws = front.open(&front.issue(instance));
        shake_hands(&mut ws);
    }
    let unknown = front.cli(&["token", "issue", "web-3"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");

    deployment.kill("compute-2");
    let front = deployment.node("front");
    let mut ws = front.open(&front.issue("web-1"));
    shake_hands(&mut ws);
    let lost = front.cli(&["token", "issue", "web-2"]);
    assert_eq!(lost.code, 6, "{lost:?}");
    assert!(lost.stderr.contains("compute at 127.0.0.1"), "{lost:?}");
}

#[test]
fn what_compute_refuses_has_its_own_status_however_far_compute_is() {
    let (mock, peer) = (Mock::start(), Peer::echo());
    let deployment = Plan::of_four().hypervisor("mock", &mock.uri).start();
    let api = deployment.node("api");
    mock.put("define", "db-1", &peer);
    let off = until("the instance to be known", || {
        let answer = ask_for(api, "db-1");
        (answer.status == 409).then_some(answer)
    });
    let unknown = ask_for(api, "nobody");

    assert_eq!(off.json()["code"], "instance-off");
    assert_eq!(unknown.status, 404, "{unknown:?}");
    assert_eq!(unknown.json()["code"], "no-such-instance");
}

#[test]
fn a_process_without_the_api_says_so_at_its_admin_socket() {
    let deployment = Plan::of_four().start();

    for name in ["auth", "compute", "proxy"] {
        let refused = deployment.node(name).cli(&["token", "list"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        let sentence = format!("this process runs {name} and answers no such commands");
        assert!(refused.stderr.contains(&sentence), "{refused:?}");
    }
}

#[test]
fn the_check_of_a_config_says_who_calls_whom_and_which_key_lacks_a_value() {
    let deployment = Plan::of_four().prepare();
    let node = deployment.node("proxy");
    let config = node.config.to_str().unwrap();

    let good = vncgate(&["config", "check", "--role", "proxy", config]).ok();
    let auth = deployment.node("auth").rpc;
    assert!(good.stderr.contains("runs here: proxy"), "{good:?}");
    assert!(
        good.stderr.contains(&format!("calls auth at {auth}")),
        "{good:?}"
    );

    deployment.unset("proxy", "rpc", "compute");
    let refused = vncgate(&["proxy", "--config", config]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("rpc.compute: "), "{refused:?}");
    deployment.unset("proxy", "rpc", "ca");
    let refused = vncgate(&["config", "check", config]);
    assert!(refused.stderr.contains("rpc.certificate: "), "{refused:?}");
}

#[test]
fn certificates_are_renewed_under_running_roles() {
    let peer = Peer::echo();
    let mut deployment = Plan::of_four().instance("web-1", &peer.address()).start();
    let mut live = deployment
        .node("proxy")
        .open(&deployment.node("api").issue("web-1"));
    shake_hands(&mut live);
    let days = |deployment: &Deployment| {
        let page = deployment.node("proxy").watch("/metrics").text();
        let own = page.lines().find(|line| {
            line.starts_with("vncgate_certificate_days_left") && line.contains("-proxy.pem")
        });
        own.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    let before = until("the certificate's days", || days(&deployment));

    let pki = deployment.directory().join("pki");
    let renewed = vncgate(&["pki", "renew", pki.to_str().unwrap(), "--days", "900"]).ok();
    let shown = vncgate(&["pki", "show", pki.to_str().unwrap()]).ok().stdout;
    deployment.kill("auth");
    deployment.start("auth");
    deployment.wait_until_ready("proxy");

    assert!(
        renewed.stdout.contains("127.0.0.1-proxy.pem"),
        "{renewed:?}"
    );
    assert!(shown.contains("899 days left"), "{shown}");
    assert!((396.0..=397.0).contains(&before), "{before}");
    live.send(b"alive");
    assert_eq!(live.read(5), b"alive");
    let mut next = deployment
        .node("proxy")
        .open(&deployment.node("api").issue("web-1"));
    shake_hands(&mut next);
}

#[test]
fn keys_are_their_owners_alone_and_nothing_is_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let pki = directory.path().join("pki");
    let path = pki.to_str().unwrap();
    let init = [
        "pki",
        "init",
        path,
        "--host",
        "edge-1=proxy",
        "--host",
        "ctl-1",
    ];
    vncgate(&init).ok();
    let read = |name: &str| std::fs::read_to_string(pki.join(name)).unwrap();
    let before = read("ca.pem");

    let again = vncgate(&init);

    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("--force"), "{again:?}");
    for key in ["ca.key", "edge-1-proxy.key", "ctl-1.key"] {
        let mode = std::fs::metadata(pki.join(key))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert_eq!(read("ca.pem"), before);
    vncgate(&[&init[..], &["--force"]].concat()).ok();
    assert_ne!(read("ca.pem"), before);
    let left: Vec<_> = std::fs::read_dir(&pki).unwrap().collect();
    assert_eq!(left.len(), 7, "{left:?}");
}

#[test]
fn no_log_tells_a_token_or_a_key() {
    let peer = Peer::echo();
    let deployment = Plan::of_four().instance("web-1", &peer.address()).start();
    let url = deployment.node("api").issue("web-1");
    let mut ws = deployment.node("proxy").open(&url);
    shake_hands(&mut ws);

    for name in ["api", "auth", "compute", "proxy"] {
        let log = deployment.node(name).log();
        assert!(log.contains("ready"), "{log}");
        assert!(!log.contains(&url.token()), "{name}: {log}");
        assert!(!log.contains("PRIVATE KEY"), "{name}: {log}");
    }
}

fn ask_for(api: &Node, instance: &str) -> Response {
    let body = serde_json::json!({ "instance": instance });
    Request::new("POST", "/v1/consoles")
        .json(&body)
        .send(api.api)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

#[track_caller]
fn assert_unavailable(answer: &Response, sentence: &str) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(sentence), "{detail}");
}

#[track_caller]
fn assert_ended(closed: &Closed, code: u16, sentence: &str) {
    assert_eq!(closed.code, Some(code), "{closed:?}");
    assert!(closed.sentence().0.starts_with(sentence), "{closed:?}");
}
