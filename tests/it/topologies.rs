//! The same journeys wherever the roles run: together, apart, doubled, and with tokens in Redis.
//!
//! Each is tried in every layout below. Where there are several apis or proxies, what one is asked
//! for is looked for at another.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::new_key;
use crate::rig::deployment::{Deployment, Node, Plan};
use crate::rig::gateway::{self, ConsoleUrl};
use crate::rig::http::{Request, Response};
use crate::rig::keystone::Keystone;
use crate::rig::mock::Mock;
use crate::rig::peers::Peer;
use crate::rig::process::{Process, Stream};
use crate::rig::redis::Redis;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{Closed, Upgrade, Ws};

/// An order is obeyed within so long, on a busy machine too.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Which processes there are, and which roles each has.
struct Layout {
    nodes: &'static [(&'static str, &'static str)],
    on_redis: bool,
}

const TOGETHER: Layout = Layout {
    nodes: &[("all", "api,auth,compute,proxy")],
    on_redis: false,
};

const APART: Layout = Layout {
    nodes: &[
        ("auth", "auth"),
        ("compute", "compute"),
        ("api", "api"),
        ("proxy", "proxy"),
    ],
    on_redis: false,
};

const DOUBLED: Layout = Layout {
    nodes: &[
        ("auth", "auth"),
        ("compute", "compute"),
        ("api-1", "api"),
        ("api-2", "api"),
        ("proxy-1", "proxy"),
        ("proxy-2", "proxy"),
    ],
    on_redis: false,
};

const TWO_AUTHS: Layout = Layout {
    nodes: &[
        ("auth-1", "auth"),
        ("auth-2", "auth"),
        ("compute", "compute"),
        ("api-1", "api"),
        ("api-2", "api"),
        ("proxy-1", "proxy"),
        ("proxy-2", "proxy"),
    ],
    on_redis: true,
};

macro_rules! in_each_layout {
    ($($journey:ident)*) => {
        mod in_one_process {
            $(#[test] fn $journey() { super::$journey(&super::TOGETHER); })*
        }
        mod in_four_processes {
            $(#[test] fn $journey() { super::$journey(&super::APART); })*
        }
        mod with_two_proxies_two_apis_and_one_auth {
            $(#[test] fn $journey() { super::$journey(&super::DOUBLED); })*
        }
        mod with_two_auths_on_one_redis {
            $(#[test] fn $journey() { super::$journey(&super::TWO_AUTHS); })*
        }
    };
}

in_each_layout! {
    a_url_opens_its_page_and_its_console_at_every_proxy
    a_killed_session_ends_at_once_and_no_other
    a_revoked_token_ends_its_sessions_and_opens_nothing_more
    an_instance_that_stops_ends_its_sessions
    a_single_use_url_is_one_browsers_at_every_proxy
    a_second_viewer_is_refused_or_takes_over_as_the_request_says
    each_limit_holds_for_all_proxies_together
    a_session_ends_when_it_has_lasted_as_long_as_it_may
    whoever_only_looks_is_not_heard
    what_cannot_be_opened_is_refused_with_its_own_status
    who_watches_hears_of_sessions_at_every_proxy
    novas_clients_get_consoles_in_novas_own_words
    who_signs_in_at_keystone_opens_its_own_projects_consoles_alone
}

fn a_url_opens_its_page_and_its_console_at_every_proxy(layout: &Layout) {
    let peer = Peer::echo();
    let all = Running::start(layout, |plan| plan.instance("web-1", &peer.address()));
    let url = all.first_api().issue("web-1");

    let mut viewers = Vec::new();
    for proxy in all.proxies() {
        let page = Request::new("GET", url.0.path()).send(proxy.listen);
        assert_eq!(page.status, 200, "{page:?}");
        let mut ws = proxy.open(&url);
        assert_eq!(shake_hands(&mut ws).2, "peer");
        ws.send(b"hello");
        assert_eq!(ws.read(5), b"hello");
        viewers.push(ws);
    }

    let listed = all.wait_for_sessions(viewers.len());
    for name in all.names_of("proxy") {
        let its: Vec<_> = listed.iter().filter(|one| one["proxy"] == name).collect();
        assert_eq!(its.len(), 1, "{listed:?}");
        assert_eq!(its[0]["instance"]["name"], "web-1");
        assert_eq!(its[0]["caller"], "admin");
    }
    for mut ws in viewers {
        ws.send_close(1000, "");
    }
    all.wait_for_sessions(0);
}

fn a_killed_session_ends_at_once_and_no_other(layout: &Layout) {
    let peer = Peer::echo();
    let all = Running::start(layout, |plan| plan.instance("web-1", &peer.address()));
    let (one, two) = (
        all.first_api().issue_with("web-1", &[]),
        all.last_api().issue_with("web-1", &[]),
    );
    let (mut killed, mut other) = (
        all.first_proxy().open(&one.url),
        all.last_proxy().open(&two.url),
    );
    shake_hands(&mut killed);
    shake_hands(&mut other);
    let listed = all.wait_for_sessions(2);
    let its = listed.iter().find(|live| live["token"] == one.id).unwrap();

    let order = all.last_api().cli(&["session", "kill", text(its, "id")]);
    let took = time(|| {
        let closed = killed.expect_close();
        assert_ended(&closed, 4007, "an operator ended this session");
    });

    let _said = order.ok();
    assert!(took < AT_ONCE, "{took:?}");
    other.send(b"still here");
    assert_eq!(other.read(10), b"still here");
}

fn a_revoked_token_ends_its_sessions_and_opens_nothing_more(layout: &Layout) {
    let peer = Peer::echo();
    let all = Running::start(layout, |plan| plan.instance("web-1", &peer.address()));
    let issued = all.first_api().issue_with("web-1", &[]);
    let open = |proxy: &Node| {
        let mut ws = proxy.open(&issued.url);
        shake_hands(&mut ws);
        ws
    };
    let mut viewers: Vec<Ws> = all.proxies().map(open).collect();
    let mut other = all.last_proxy().open(&all.first_api().issue("web-1"));
    shake_hands(&mut other);

    let revoked = all.last_api().cli(&["token", "revoke", &issued.id]);
    let took = time(|| {
        for ws in &mut viewers {
            assert_ended(&ws.expect_close(), 4007, "this console URL was revoked");
        }
    });

    let _said = revoked.ok();
    assert!(took < AT_ONCE, "{took:?}");
    for proxy in all.proxies() {
        assert_eq!(proxy.open(&issued.url).expect_close().code, Some(4001));
    }
    other.send(b"still here");
    assert_eq!(other.read(10), b"still here");
}

fn an_instance_that_stops_ends_its_sessions(layout: &Layout) {
    let (mock, stopping, running) = (Mock::start(), Peer::echo(), Peer::echo());
    let all = Running::start(layout, |plan| plan.hypervisor("mock", &mock.uri));
    until("the hypervisor to be asked", || {
        let listed = all.first_api().cli(&["instance", "list"]).stdout;
        listed.contains("test").then_some(())
    });
    mock.put("create", "web-1", &stopping);
    mock.put("create", "web-2", &running);
    let open = |proxy: &Node, instance: &str| {
        let mut ws = proxy.open(&all.first_api().issue(instance));
        shake_hands(&mut ws);
        ws
    };
    let mut viewers: Vec<Ws> = all.proxies().map(|proxy| open(proxy, "web-1")).collect();
    let mut other = open(all.first_proxy(), "web-2");

    mock.virsh(&["destroy", "web-1"]);
    let took = time(|| {
        for ws in &mut viewers {
            let closed = ws.expect_close();
            assert_ended(&closed, 4004, "the instance was stopped or deleted");
        }
    });

    assert!(took < AT_ONCE, "{took:?}");
    other.send(b"still here");
    assert_eq!(other.read(10), b"still here");
}

fn a_single_use_url_is_one_browsers_at_every_proxy(layout: &Layout) {
    let peer = Peer::echo();
    let all = Running::start(layout, |plan| plan.instance("web-1", &peer.address()));
    let issued = all.first_api().issue_with("web-1", &["--single-use"]);
    let mut first = all.first_proxy().open_as("browser a", &issued.url);
    shake_hands(&mut first);

    for proxy in all.proxies() {
        let other = proxy.open_as("browser b", &issued.url).expect_close();
        assert_ended(&other, 4002, "this console URL was used already");
    }
    let mut reloaded = all.last_proxy().open_as("browser a", &issued.url);
    shake_hands(&mut reloaded);

    assert_eq!(first.expect_close().code, Some(4010));
    reloaded.send(b"it is mine");
    assert_eq!(reloaded.read(10), b"it is mine");
}

fn a_second_viewer_is_refused_or_takes_over_as_the_request_says(layout: &Layout) {
    let peer = Peer::echo();
    let all = Running::start(layout, |plan| plan.instance("web-1", &peer.address()));
    let mut first = all.first_proxy().open(&all.first_api().issue("web-1"));
    shake_hands(&mut first);
    let wish = |wish| {
        let wishes = ["--second-viewer", wish];
        all.last_api().issue_with("web-1", &wishes).url
    };

    let refused = all.last_proxy().open(&wish("refuse")).expect_close();
    let mut second = all.last_proxy().open(&wish("take-over"));
    let ousted = first.expect_close();
    shake_hands(&mut second);

    assert_ended(&refused, 4010, "somebody else is viewing this console");
    assert_ended(&ousted, 4010, "another viewer took this console over");
    assert_eq!(peer.connections(), 2, "the refused one reached nothing");
}

fn each_limit_holds_for_all_proxies_together(layout: &Layout) {
    let (peer, (key, hash)) = (Peer::echo(), new_key("portal"));
    let limits = ["per_instance", "per_caller", "per_address"];
    let all = Running::start(layout, |plan| {
        let plan = ["web-1", "web-2", "web-3", "web-4", "web-5"]
            .into_iter()
            .fold(plan, |plan, name| plan.instance(name, &peer.address()));
        let plan = limits.iter().zip(1..).fold(plan, |plan, (limit, most)| {
            plan.set("auth", &format!("max_sessions_{limit}"), most)
        });
        // so that the address of a viewer can be told
        let plan = plan.set("proxy", "trusted_proxies", vec!["127.0.0.1/32"]);
        plan.key("portal", &hash).set("auth", "max_sessions", 4)
    });
    let by_portal = |instance: &str| {
        let request = Request::new("POST", "/v1/consoles").json(&json!({ "instance": instance }));
        let request = request.header("Authorization", &format!("Bearer {key}"));
        let made = request.send(all.last_api().api).json();
        ConsoleUrl::parse(text(&made, "url"))
    };
    let by_admin = |instance: &str| all.first_api().issue(instance);
    let from = |viewer: &str, proxy: &Node, url: &ConsoleUrl| {
        let upgrade = Upgrade::new(&url.upgrade_path()).and("X-Forwarded-For", viewer);
        upgrade.open(proxy.listen).unwrap()
    };
    let (here, there) = ("192.0.2.1", "198.51.100.1");
    let enter = |viewer, url: &ConsoleUrl| {
        let mut ws = from(viewer, all.first_proxy(), url);
        shake_hands(&mut ws);
        ws
    };
    let refused = |viewer, url: &ConsoleUrl, limit: &str| {
        for proxy in all.proxies() {
            let closed = from(viewer, proxy, url).expect_close();
            assert_ended(&closed, 4010, "too many consoles are open");
            let reason = format!("auth.max_sessions{limit} ");
            until(&format!("{reason}in the log"), || {
                proxy.log().contains(&reason).then_some(())
            });
        }
    };

    let mut first = enter(here, &by_admin("web-1"));
    refused(there, &by_portal("web-1"), "_per_instance");
    let _second = enter(here, &by_admin("web-2"));
    refused(there, &by_admin("web-3"), "_per_caller");
    let _third = enter(here, &by_portal("web-3"));
    refused(here, &by_portal("web-4"), "_per_address");
    let _fourth = enter(there, &by_portal("web-4"));
    let url = by_admin("web-1");
    refused(there, &url, "");
    first.send_close(1000, "");
    all.wait_for_sessions(3);

    shake_hands(&mut from(there, all.last_proxy(), &url));
}

fn a_session_ends_when_it_has_lasted_as_long_as_it_may(layout: &Layout) {
    let peer = Peer::echo();
    let all = Running::start(layout, |plan| plan.instance("web-1", &peer.address()));
    let short = all
        .first_api()
        .issue_with("web-1", &["--max-session", "1s"]);
    let mut ws = all.last_proxy().open(&short.url);
    shake_hands(&mut ws);

    let closed = ws.expect_close();

    assert_ended(&closed, 4009, "this session has lasted as long as it may");
}

/// A press of the letter a, and a request for a picture, as RFB has them.
const KEY: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 0x61];
const UPDATE: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 1, 0, 1];

fn whoever_only_looks_is_not_heard(layout: &Layout) {
    let (peer, heard) = Peer::gathering();
    let all = Running::start(layout, |plan| plan.instance("web-1", &peer.address()));
    let looking = all.first_api().issue_with("web-1", &["--rights", "view"]);
    let mut ws = all.last_proxy().open(&looking.url);
    shake_hands(&mut ws);

    ws.send(&[&KEY[..], &UPDATE].concat());
    let listed = all.wait_for_sessions(1);
    heard.until_count(UPDATE.len());
    ws.send_close(1000, "");

    assert_eq!(listed[0]["rights"], "view");
    assert_eq!(heard.until_end(), UPDATE);
}

fn what_cannot_be_opened_is_refused_with_its_own_status(layout: &Layout) {
    let (mock, peer) = (Mock::start(), Peer::echo());
    let all = Running::start(layout, |plan| plan.hypervisor("mock", &mock.uri));
    let ask_for = |api: &Node, instance: &str| {
        let body = serde_json::json!({ "instance": instance });
        let request = Request::new("POST", "/v1/consoles").json(&body);
        request.send(api.api)
    };
    mock.put("define", "db-1", &peer);

    for api in all.apis() {
        let off = until("the instance to be known", || {
            Some(ask_for(api, "db-1")).filter(|answer| answer.status == 409)
        });
        let unknown = ask_for(api, "nobody");
        assert_eq!(off.json()["code"], "instance-off");
        assert_eq!(unknown.status, 404, "{unknown:?}");
        assert_eq!(unknown.json()["code"], "no-such-instance");
    }
}

fn who_watches_hears_of_sessions_at_every_proxy(layout: &Layout) {
    let peer = Peer::echo();
    let all = Running::start(layout, |plan| plan.instance("web-1", &peer.address()));
    let mut command = gateway::bare(gateway::BINARY.as_ref());
    command.env("VNCGATE_ADMIN_SOCKET", &all.last_api().admin);
    let watching = Process::spawn("watch", command.args(["session", "watch", "-o", "json"]));
    let wait_for = |event: &str, proxy: &str| {
        watching.wait_for_line(event, |line| {
            let news: Value = serde_json::from_str(&line.text).ok()?;
            let wanted = line.stream == Stream::Out && news["event"] == event;
            (wanted && news["session"]["proxy"] == proxy).then(|| news["session"]["id"].clone())
        })
    };

    let url = all.first_api().issue("web-1");
    for (name, proxy) in all.names_of("proxy").zip(all.proxies()) {
        let mut ws = proxy.open(&url);
        shake_hands(&mut ws);
        let began = wait_for("began", name);
        ws.send_close(1000, "");
        assert_eq!(began, wait_for("ended", name));
    }
}

/// Instances as Nova's clients name them.
const WEB: &str = "7d1f1f9e-6c3b-4a56-8d7b-0d5a0b1f2c3d";
const FOREIGN: &str = "1b671a64-40d5-491e-99b0-da01ff1f3341";

fn novas_clients_get_consoles_in_novas_own_words(layout: &Layout) {
    let (peer, (key, hash)) = (Peer::echo(), new_key("portal"));
    let all = Running::start(layout, |plan| {
        let web = [("id", WEB), ("name", "web-1"), ("address", &peer.address())];
        plan.key("portal", &hash).console(&web)
    });

    for api in all.apis() {
        let created = create(api, &key, WEB).json();
        let action = json!({ "os-getVNCConsole": { "type": "novnc" } });
        let acted = ask_nova(api, &key, WEB, "action", &action).json();
        let unknown = create(api, &key, FOREIGN);

        let (new, old) = (
            text(&created["remote_console"], "url"),
            text(&acted["console"], "url"),
        );
        let expected = json!({ "protocol": "vnc", "type": "novnc", "url": new });
        assert_eq!(created, json!({ "remote_console": expected }));
        assert_eq!(acted, json!({ "console": { "type": "novnc", "url": old } }));
        assert_eq!(unknown.status, 404, "{unknown:?}");
        let message = format!("Instance {FOREIGN} could not be found.");
        let expected = json!({ "code": 404, "message": message });
        assert_eq!(unknown.json(), json!({ "itemNotFound": expected }));
        for proxy in all.proxies() {
            for url in [new, old] {
                shake_hands(&mut proxy.open(&ConsoleUrl::parse(url)));
            }
        }
    }
}

fn who_signs_in_at_keystone_opens_its_own_projects_consoles_alone(layout: &Layout) {
    let (keystone, peer) = (Keystone::shared(), Peer::echo());
    let (project, files) = (keystone.project(), tempfile::tempdir().unwrap());
    let service = keystone.user(&keystone.project(), "service");
    let secret = files.path().join("keystone.secret");
    fs::write(&secret, &service.password).unwrap();
    let all = Running::start(layout, |plan| {
        let at = ("address", &*peer.address());
        let own = ("project", &*project.id);
        plan.console(&[("id", WEB), ("name", "web-1"), at, own])
            .console(&[("id", FOREIGN), ("name", "other"), at])
            .set("keystone", "url", keystone.url())
            .set("keystone", "username", &*service.name)
            .set("keystone", "password_file", secret.to_str().unwrap())
            .set("keystone", "project", &*service.project.name)
            .set("keystone", "timeout", "30s")
    });
    let [member, reader] = ["member", "reader"].map(|role| keystone.user(&project, role));
    let [signed_in, looking] = [&member, &reader].map(|user| keystone.sign_in(user));

    for api in all.apis() {
        let statuses = [
            (&*signed_in, FOREIGN, 404),
            (&*looking, WEB, 403),
            ("gAAAAABmade-up", WEB, 401),
        ];
        for (token, instance, expected) in statuses {
            let refused = create(api, token, instance);
            assert_eq!(refused.status, expected, "{refused:?}");
        }
        let created = create(api, &signed_in, WEB).json();
        let url = ConsoleUrl::parse(text(&created["remote_console"], "url"));
        for proxy in all.proxies() {
            let mut ws = proxy.open(&url);
            shake_hands(&mut ws);
            let listed = api.sessions();
            let caller = format!("user:{}@Default", member.name);
            assert!(
                listed.iter().any(|one| one["caller"] == caller),
                "{listed:?}"
            );
        }
    }
}

/// Asks for a console as Nova's clients do now.
fn create(api: &Node, token: &str, instance: &str) -> Response {
    let body = json!({ "remote_console": { "protocol": "vnc", "type": "novnc" } });
    ask_nova(api, token, instance, "remote-consoles", &body)
}

fn ask_nova(api: &Node, token: &str, instance: &str, what: &str, body: &Value) -> Response {
    let request = Request::new("POST", &format!("/v2.1/servers/{instance}/{what}"));
    let request = match what {
        // gone in later versions
        "action" => request,
        _ => request.header("OpenStack-API-Version", "compute 2.6"),
    };
    let request = request.header("X-Auth-Token", token);
    request.json(body).send(api.api)
}

/// A layout that runs.
struct Running {
    layout: &'static [(&'static str, &'static str)],
    deployment: Deployment,
    _redis: Option<Redis>,
}

impl Running {
    #[track_caller]
    fn start(layout: &Layout, more: impl FnOnce(Plan) -> Plan) -> Self {
        let redis = layout.on_redis.then(Redis::start);
        let nodes = layout.nodes.iter();
        let mut plan = nodes.fold(Plan::new(), |plan, (name, roles)| plan.node(name, roles));
        if let Some(redis) = &redis {
            plan = plan.on(redis);
        }
        Self {
            layout: layout.nodes,
            deployment: more(plan).start(),
            _redis: redis,
        }
    }

    fn names_of(&self, role: &str) -> impl Iterator<Item = &'static str> {
        let having = move |(_, roles): &&(&str, &str)| roles.split(',').any(|one| one == role);
        self.layout.iter().filter(having).map(|(name, _)| *name)
    }

    fn apis(&self) -> impl Iterator<Item = &Node> {
        self.names_of("api").map(|name| self.deployment.node(name))
    }

    fn proxies(&self) -> impl Iterator<Item = &Node> {
        let names = self.names_of("proxy");
        names.map(|name| self.deployment.node(name))
    }

    fn first_api(&self) -> &Node {
        self.apis().next().unwrap()
    }

    fn last_api(&self) -> &Node {
        self.apis().last().unwrap()
    }

    fn first_proxy(&self) -> &Node {
        self.proxies().next().unwrap()
    }

    fn last_proxy(&self) -> &Node {
        self.proxies().last().unwrap()
    }

    /// Waits until every api tells of so many live sessions, and returns what the last one tells.
    #[track_caller]
    fn wait_for_sessions(&self, count: usize) -> Vec<Value> {
        let mut told = Vec::new();
        for api in self.apis() {
            told = until(&format!("{count} live sessions"), || {
                let listed = api.cli(&["session", "list", "-o", "json"]).ok().json();
                let listed = listed["sessions"].as_array().unwrap().clone();
                (listed.len() == count).then_some(listed)
            });
        }
        told
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn time(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

#[track_caller]
fn assert_ended(closed: &Closed, code: u16, sentence: &str) {
    assert_eq!(closed.code, Some(code), "{closed:?}");
    assert!(closed.sentence().0.starts_with(sentence), "{closed:?}");
}
