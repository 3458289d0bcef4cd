//! A network between roles that fails: cut, so that everybody knows at once, or stalled, so that
//! nobody is told. Every wait has an end, every refusal its words, and nothing that lives ends.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::crossing::Crossing;
use crate::rig::deployment::{Deployment, Issued, Node, Plan};
use crate::rig::http::{Request, Response};
use crate::rig::peers::Peer;
use crate::rig::redis::Redis;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::{until, within};
use crate::rig::ws::{Closed, Ws};

/// A refusal comes after so long at most where nobody says that nobody is there: the shortest
/// deadline that a call may have (10 s), and a busy machine.
const BOUND: Duration = Duration::from_secs(14);

/// And where it is said: no deadline is waited for.
const AT_ONCE: Duration = Duration::from_secs(4);

/// How long it takes at most until all works again.
const BACK: Duration = Duration::from_secs(10);

#[test]
fn a_way_to_auth_that_is_cut_refuses_at_once_ends_nothing_and_heals() {
    let cloud = Cloud::with_crossings_to("auth");
    cloud.fails_and_heals("auth", Crossing::cut, AT_ONCE);
}

#[test]
fn a_way_to_auth_that_stalls_refuses_in_time_ends_nothing_and_heals() {
    let cloud = Cloud::with_crossings_to("auth");
    cloud.fails_and_heals("auth", Crossing::stall, BOUND);
}

#[test]
fn a_way_to_compute_that_is_cut_refuses_at_once_ends_nothing_and_heals() {
    let cloud = Cloud::with_crossings_to("compute");
    cloud.fails_and_heals("compute", Crossing::cut, AT_ONCE);
}

#[test]
fn a_way_to_compute_that_stalls_refuses_in_time_ends_nothing_and_heals() {
    let cloud = Cloud::with_crossings_to("compute");
    cloud.fails_and_heals("compute", Crossing::stall, BOUND);
}

#[test]
fn an_order_that_a_proxy_cannot_hear_is_obeyed_once_it_can() {
    let cloud = Cloud::with_crossings_to("auth");
    let mut live = cloud.open_new();
    let listed = cloud.node("api").sessions();
    let id = listed[0]["id"].as_str().unwrap();

    cloud.from_proxy.stall();
    let killed = cloud.node("api").cli(&["session", "kill", id]);
    live.send(b"unheard");
    let echoed = live.read(7);
    cloud.from_proxy.open();

    let _said = killed.ok();
    assert_eq!(echoed, b"unheard");
    let closed = live.expect_close();
    assert_closed(&closed, 4007, "an operator ended this session");
}

#[test]
fn who_cannot_reach_one_auth_asks_the_other() {
    let (peer, redis) = (Peer::echo(), Redis::start());
    let plan = Plan::new()
        .node("auth-1", "auth")
        .node("auth-2", "auth")
        .node("compute", "compute")
        .node("api", "api")
        .node("proxy", "proxy");
    let plan = plan.instance("web-1", &peer.address()).on(&redis);
    let mut deployment = plan.set("rpc", "timeout", "10s").prepare();
    let crossing = Crossing::to(deployment.node("auth-1").rpc);
    let auths = [crossing.address, deployment.node("auth-2").rpc];
    for name in ["api", "proxy"] {
        let auths: Vec<String> = auths.iter().map(ToString::to_string).collect();
        deployment.set(name, "rpc", "auth", auths);
    }
    deployment.start_all();
    let (api, proxy) = (deployment.node("api"), deployment.node("proxy"));
    let mut live = proxy.open(&api.issue("web-1"));
    shake_hands(&mut live);

    for fail in [Crossing::cut, Crossing::stall] {
        fail(&crossing);
        let started = Instant::now();
        let url = until("the other auth to be asked", || {
            let answer = ask_for(api, "web-1");
            (answer.status == 201).then(|| url_of(&answer))
        });
        assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
        until("the proxy to ask it as well", || {
            let mut ws = proxy.open(&url);
            (ws.answer().payload == b"RFB 003.008\n").then_some(())
        });
        crossing.open();
    }
    live.send(b"still here");
    assert_eq!(live.read(10), b"still here");
}

#[test]
fn a_way_to_redis_that_fails_refuses_in_time_ends_nothing_and_heals() {
    let (peer, redis) = (Peer::echo(), Redis::start());
    let crossing = Crossing::to(([127, 0, 0, 1], redis.port).into());
    let servers = vec![crossing.address.to_string()];
    let section = toml::Table::from_iter([("servers".to_owned(), servers.into())]);
    let plan = Plan::of_four().instance("web-1", &peer.address());
    let deployment = plan.on_redis(section).start();
    let (api, proxy) = (deployment.node("api"), deployment.node("proxy"));
    let issued = api.issue_with("web-1", &[]);
    let mut live = proxy.open(&issued.url);
    shake_hands(&mut live);

    let mut fails_and_heals = |fail: fn(&Crossing), bound| {
        fail(&crossing);
        let refused = in_time(bound, || ask_for(api, "web-1"));
        let closed = in_time(bound, || proxy.open(&issued.url).expect_close());
        crossing.open();

        assert_unavailable(&refused, "tokens-unavailable");
        assert_closed(&closed, 4011, "tokens cannot be checked just now");
        within(BACK, "all to work again", || {
            (ask_for(api, "web-1").status == 201).then_some(())
        });
        shake_hands(&mut proxy.open(&issued.url));
        live.send(b"still here");
        assert_eq!(live.read(10), b"still here");
    };
    fails_and_heals(Crossing::cut, AT_ONCE);
    fails_and_heals(Crossing::stall, BOUND);
}

/// Four processes, with a crossing between one role and each of those that call it.
struct Cloud {
    deployment: Deployment,
    from_api: Crossing,
    from_proxy: Crossing,
    _peer: Peer,
}

impl Cloud {
    #[track_caller]
    fn with_crossings_to(role: &str) -> Self {
        let peer = Peer::echo();
        let plan = Plan::of_four().instance("web-1", &peer.address());
        let mut deployment = plan.set("rpc", "timeout", "10s").prepare();
        let [from_api, from_proxy] = ["api", "proxy"].map(|name| {
            let crossing = Crossing::to(deployment.node(role).rpc);
            let through = vec![crossing.address.to_string()];
            deployment.set(name, "rpc", role, through);
            crossing
        });
        deployment.start_all();
        Self {
            deployment,
            from_api,
            from_proxy,
            _peer: peer,
        }
    }

    fn node(&self, name: &str) -> &Node {
        self.deployment.node(name)
    }

    fn issue(&self) -> Issued {
        self.node("api").issue_with("web-1", &[])
    }

    #[track_caller]
    fn open_new(&self) -> Ws {
        let mut ws = self.node("proxy").open(&self.issue().url);
        shake_hands(&mut ws);
        ws
    }

    fn fails_and_heals(&self, role: &str, fail: fn(&Crossing), bound: Duration) {
        let mut live = self.open_new();
        let issued = self.issue();

        fail(&self.from_api);
        fail(&self.from_proxy);
        let refused = in_time(bound, || ask_for(self.node("api"), "web-1"));
        let closed = in_time(bound, || {
            self.node("proxy").open(&issued.url).expect_close()
        });
        let ready = in_time(bound, || self.node("proxy").watch("/readyz"));
        live.send(b"unhurt");
        let echoed = live.read(6);
        self.from_api.open();
        self.from_proxy.open();

        assert_unavailable(&refused, "role-unreachable");
        assert_closed(&closed, 4011, "the gateway cannot open consoles just now");
        assert_eq!(ready.status, 503, "{ready:?}");
        assert_ne!(ready.json()[role], "ok", "{ready:?}");
        assert_eq!(echoed, b"unhurt");
        within(BACK, "all to work again", || {
            let made = ask_for(self.node("api"), "web-1").status == 201;
            let opens = || {
                let first = self.node("proxy").open(&issued.url).answer();
                first.payload == b"RFB 003.008\n"
            };
            (made && opens()).then_some(())
        });
        live.send(b"still here");
        assert_eq!(live.read(10), b"still here");
    }
}

fn ask_for(api: &Node, instance: &str) -> Response {
    let body = json!({ "instance": instance });
    let request = Request::new("POST", "/v1/consoles").json(&body);
    request.send(api.api)
}

fn url_of(answer: &Response) -> crate::rig::gateway::ConsoleUrl {
    crate::rig::gateway::ConsoleUrl::parse(answer.json()["url"].as_str().unwrap())
}

#[track_caller]
fn in_time<T>(bound: Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    let took = started.elapsed();
    assert!(took < bound, "{took:?} where {bound:?} is the most");
    done
}

#[track_caller]
fn assert_unavailable(answer: &Response, code: &str) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!(answer.json()["code"], code, "{answer:?}");
}

#[track_caller]
fn assert_closed(closed: &Closed, code: u16, sentence: &str) {
    assert_eq!(closed.code, Some(code), "{closed:?}");
    assert!(closed.sentence().0.starts_with(sentence), "{closed:?}");
}
