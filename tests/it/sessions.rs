//! Sessions that can be seen and ended, and the bounds they are kept in.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::gateway::{self, Answer, Gateway, Setup};
use crate::rig::http::Request;
use crate::rig::libvirtd::Libvirtd;
use crate::rig::peers::Peer;
use crate::rig::process::{self, Process, Stream, tied};
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{Closed, Upgrade, Ws};

/// An order is obeyed within so long, on a busy machine too.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn a_session_is_listed_with_all_that_an_operator_asks_about() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("proxy", "name", "gate-1").start();
    let issued = issue(&gateway, &[]);
    let mut ws = open(&gateway, &issued, "browser a");
    shake_hands(&mut ws);
    ws.send(b"0123456789");
    assert_eq!(ws.read(10), b"0123456789");

    let session = until("the bytes to be counted", || {
        let session = only_session(&gateway);
        (session["up"].as_u64().unwrap() >= 11).then_some(session)
    });
    let shown = gateway.cli(&["session", "show", text(&session, "id"), "-o", "json"]);
    let table = gateway.cli(&["session", "list"]).ok().stdout;

    assert_eq!(session["instance"]["name"], "web-1");
    assert_eq!(session["type"], "novnc");
    assert_eq!(session["host"], peer.address());
    assert_eq!(session["proxy"], "gate-1");
    assert_eq!(session["caller"], "admin");
    assert_eq!(session["viewer"], "127.0.0.1");
    assert_eq!(session["token"], issued["id"]);
    assert!(session["down"].as_u64().unwrap() >= 10, "{session}");
    for time in ["started_at", "last_input_at"] {
        humantime::parse_rfc3339(text(&session, time)).unwrap();
    }
    assert_eq!(shown.ok().json()["id"], session["id"]);
    assert!(table.contains(text(&session, "id")), "{table}");
    assert!(!table.contains(text(&issued, "token")), "{table}");

    ws.send_close(1000, "");
    until("the list to be empty", || {
        sessions(&gateway).is_empty().then_some(())
    });
}

#[test]
fn a_killed_session_ends_at_once_and_says_why() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let issued = issue(&gateway, &[]);
    let mut killed = open(&gateway, &issued, "browser a");
    let mut other = gateway.open("web-1");
    shake_hands(&mut killed);
    let mut listed = sessions(&gateway).into_iter();
    let first = listed.find(|session| session["token"] == issued["id"]);
    let first = first.unwrap();

    let started = Instant::now();
    gateway.cli(&["session", "kill", text(&first, "id")]).ok();
    let closed = killed.expect_close();
    let took = started.elapsed();
    shake_hands(&mut other);

    assert_ended(&closed, 4007, "an operator ended this session");
    assert!(took < AT_ONCE, "{took:?}");
    let ended = gateway.wait_for_event("the session's last line", |event| {
        event["message"] == "session ended" && event["session"] == first["id"]
    });
    assert_eq!(ended["code"], 4007);
}

#[test]
fn sessions_are_seen_and_killed_over_http_too() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);
    let id = text(&only_session(&gateway), "id").to_owned();

    let path = format!("/v1/sessions/{id}");
    let shown = gateway.http(&Request::new("GET", &path));
    let killed = gateway.http(&Request::new("DELETE", &path));
    let closed = ws.expect_close();
    let nobody = "/v1/sessions/00000000-0000-4000-8000-000000000000";
    let unknown = gateway.http(&Request::new("DELETE", nobody));
    let nonsense = gateway.http(&Request::new("GET", "/v1/sessions/nonsense"));

    assert_eq!((shown.status, killed.status), (200, 200));
    assert_eq!(shown.json()["id"], id.as_str());
    assert_eq!(closed.code, Some(4007));
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["code"], "no-such-session");
    assert_eq!(nonsense.status, 400);
}

#[test]
fn a_session_that_does_not_exist_is_not_found() {
    let gateway = Setup::new().start();
    for verb in ["show", "kill"] {
        let id = "00000000-0000-4000-8000-000000000000";
        let refused = gateway.cli(&["session", verb, id]);

        assert_eq!(refused.code, 4, "{refused:?}");
        assert_eq!(refused.stdout, "");
    }
}

#[test]
fn watching_tells_of_each_session_that_begins_and_ends() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut command = gateway::bare(gateway::BINARY.as_ref());
    command.env("VNCGATE_ADMIN_SOCKET", &gateway.admin);
    let watching = Process::spawn("watch", command.args(["session", "watch", "-o", "json"]));
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);

    let began = wait_for_news(&watching, "began");
    ws.send_close(1000, "");
    let ended = wait_for_news(&watching, "ended");

    assert_eq!(began["instance"]["name"], "web-1");
    assert_eq!(began["id"], ended["id"]);
}

#[test]
fn revoking_a_token_ends_its_sessions_and_no_other() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let issued = issue(&gateway, &[]);
    let mut own = [(); 2].map(|()| open(&gateway, &issued, "browser a"));
    let mut other = gateway.open("web-1");
    for ws in &mut own {
        shake_hands(ws);
    }

    let started = Instant::now();
    gateway.cli(&["token", "revoke", text(&issued, "id")]).ok();
    let closed = own.each_mut().map(Ws::expect_close);
    let took = started.elapsed();
    shake_hands(&mut other);

    for closed in closed {
        assert_ended(&closed, 4007, "this console URL was revoked");
    }
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn a_hypervisors_word_that_an_instance_stopped_ends_its_sessions() {
    let libvirtd = Libvirtd::start();
    let (stopped, running) = (Peer::echo(), Peer::echo());
    let domain = |name: &str, peer: &Peer| {
        let port = peer.port();
        format!(
            "<domain type='test'><name>{name}</name><memory>8192</memory><os><type>hvm</type></os>\
             <devices><graphics type='vnc' port='{port}' listen='127.0.0.1'/></devices></domain>"
        )
    };
    // Unlike the mock of a file, this one is the same for all who connect.
    let uri = format!(
        "test+unix:///default?socket={}",
        libvirtd.socket().display()
    );
    let virsh = |arguments: &[&str]| {
        let mut virsh = tied(&process::peer("virsh"));
        gateway::run(virsh.args(["-q", "-c", &uri]).args(arguments)).ok()
    };
    // It lives as long as somebody is connected.
    let gateway = Setup::new().hypervisor("mock", &uri).start();
    until("the hypervisor to be asked", || {
        let listed = gateway.cli(&["instance", "list"]).stdout;
        listed.contains("test").then_some(())
    });
    let directory = tempfile::tempdir().unwrap();
    for (name, peer) in [("web-1", &stopped), ("web-2", &running)] {
        let file = directory.path().join(name);
        std::fs::write(&file, domain(name, peer)).unwrap();
        virsh(&["create", file.to_str().unwrap()]);
    }
    let (mut ws, mut other) = (gateway.open("web-1"), gateway.open("web-2"));
    shake_hands(&mut ws);

    virsh(&["destroy", "web-1"]);
    let started = Instant::now();
    let closed = ws.expect_close();
    let took = started.elapsed();
    shake_hands(&mut other);

    assert_ended(&closed, 4004, "the instance was stopped or deleted");
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn a_viewer_who_does_nothing_is_sent_away_and_one_who_does_something_is_not() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("auth", "idle_timeout", "2s").start();
    let (mut idle, mut busy) = (gateway.open("web-1"), gateway.open("web-1"));
    shake_hands(&mut idle);
    shake_hands(&mut busy);
    let mut twin = busy.twin();
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let typing = std::thread::spawn(move || {
        let pause = Duration::from_millis(200);
        while told.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            twin.send(&KEY);
        }
    });

    let closed = idle.expect_close();
    let echoed = busy.read(8 * 3);
    drop(tell);
    typing.join().unwrap();

    assert_ended(&closed, 4008, "nothing was typed or moved for too long");
    assert_eq!(echoed, KEY.repeat(3));
    until("the idle one to be gone", || {
        (sessions(&gateway).len() == 1).then_some(())
    });
}

#[test]
fn a_page_that_asks_for_pictures_by_itself_does_not_keep_a_session() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("auth", "idle_timeout", "2s").start();
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);

    // Each echo is answered at once, as a page asks for a picture when it has drawn one.
    ws.send(&NEXT_PICTURE);
    let closed = loop {
        let frame = ws.answer();
        if frame.opcode == crate::rig::ws::CLOSE {
            break frame;
        }
        std::thread::park_timeout(Duration::from_millis(20));
        ws.send(&NEXT_PICTURE);
    };

    assert_eq!(closed.payload[..2], 4008_u16.to_be_bytes());
}

#[test]
fn a_session_ends_when_it_has_lasted_as_long_as_it_may() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let issued = issue(&gateway, &["--max-session", "1s"]);
    let mut ws = open(&gateway, &issued, "browser a");
    shake_hands(&mut ws);

    let closed = ws.expect_close();

    assert_ended(&closed, 4009, "this session has lasted as long as it may");
}

#[test]
fn the_answer_tells_the_terms_in_force_and_the_config_sets_the_most() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup
        .set("auth", "idle_timeout", "10m")
        .set("auth", "second_viewer", "refuse")
        .start();

    let usual = issue(&gateway, &[]);
    let less = [
        "--idle-timeout",
        "30s",
        "--max-session",
        "1h",
        "--ttl",
        "90s",
    ];
    let more = ["--single-use", "--second-viewer", "take-over"];
    let asked = issue(&gateway, &[&less[..], &more[..]].concat());
    let too_much = gateway.cli(&["token", "issue", "web-1", "--idle-timeout", "11m"]);
    let forever = gateway.cli(&["token", "issue", "web-1", "--idle-timeout", "0s"]);

    let terms = |idle, longest, single_use, second_viewer| {
        serde_json::json!({
            "idle_timeout": idle, "max_session": longest, "single_use": single_use,
            "second_viewer": second_viewer,
        })
    };
    let none = Value::Null;
    assert_eq!(usual["terms"], terms("10m".into(), none, false, "refuse"));
    assert_eq!(usual["url_ttl"], "10m");
    let (idle, longest) = (Value::from("30s"), Value::from("1h"));
    assert_eq!(asked["terms"], terms(idle, longest, true, "take-over"));
    assert_eq!(asked["url_ttl"], "1m 30s");
    for refused in [too_much, forever] {
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("auth.idle_timeout"), "{refused:?}");
    }
}

#[test]
fn a_single_use_url_opens_for_one_browser_which_may_come_back() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("auth", "reconnect_window", "5m").start();
    let issued = issue(&gateway, &["--single-use"]);
    let mut first = open(&gateway, &issued, "browser a");
    shake_hands(&mut first);

    let other = open(&gateway, &issued, "browser b").expect_close();
    let mut reloaded = open(&gateway, &issued, "browser a");
    shake_hands(&mut reloaded);
    let replaced = first.expect_close();
    reloaded.send_close(1001, "");
    until("the session to end", || {
        sessions(&gateway).is_empty().then_some(())
    });
    let mut back = open(&gateway, &issued, "browser a");
    shake_hands(&mut back);
    back.send_close(1001, "");
    let late = open(&gateway, &issued, "browser c").expect_close();

    assert_ended(&other, 4002, "this console URL was used already");
    assert_eq!(replaced.code, Some(4010), "{replaced:?}");
    assert_eq!(late.code, Some(4002), "{late:?}");
}

#[test]
fn a_single_use_url_is_dead_once_its_window_has_closed() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("auth", "reconnect_window", "0s").start();
    let issued = issue(&gateway, &["--single-use"]);
    let mut ws = open(&gateway, &issued, "browser a");
    shake_hands(&mut ws);
    ws.send_close(1000, "");
    until("the session to end", || {
        sessions(&gateway).is_empty().then_some(())
    });

    // The second in which the session ended belongs to the window.
    let closed = until("the window to close", || {
        let mut back = open(&gateway, &issued, "browser a");
        let frame = back.frame();
        (frame.opcode == crate::rig::ws::CLOSE).then_some(frame)
    });

    assert_eq!(closed.payload[..2], 4002_u16.to_be_bytes());
}

#[test]
fn a_single_use_url_whose_console_cannot_be_reached_is_not_used_up() {
    let closed = crate::rig::peers::Closed::new();
    let gateway = Gateway::of("web-1", &closed.address());
    let issued = issue(&gateway, &["--single-use"]);

    for name in ["browser a", "browser b"] {
        let refused = open(&gateway, &issued, name).expect_close();
        assert_eq!(refused.code, Some(4005), "{refused:?}");
        until("the failure to be noted", || {
            sessions(&gateway).is_empty().then_some(())
        });
    }
}

#[test]
fn a_second_viewer_is_refused_or_takes_over_as_the_request_says() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut first = gateway.open("web-1");
    shake_hands(&mut first);

    let modest = issue(&gateway, &["--second-viewer", "refuse"]);
    let refused = open(&gateway, &modest, "browser b").expect_close();
    let bold = issue(&gateway, &["--second-viewer", "take-over"]);
    let mut second = open(&gateway, &bold, "browser b");
    let ousted = first.expect_close();
    shake_hands(&mut second);

    assert_ended(&refused, 4010, "somebody else is viewing this console");
    assert_ended(&ousted, 4010, "another viewer took this console over");
    assert_eq!(peer.connections(), 2, "the refused one reached nothing");
}

#[test]
fn a_second_viewer_is_refused_or_takes_over_as_configured() {
    for (configured, first_ends) in [("refuse", false), ("take-over", true)] {
        let peer = Peer::echo();
        let setup = Setup::new().instance("web-1", &peer.address());
        let gateway = setup.set("auth", "second_viewer", configured).start();
        let mut first = open(&gateway, &issue(&gateway, &[]), "browser a");
        shake_hands(&mut first);

        let mut second = open(&gateway, &issue(&gateway, &[]), "browser b");

        let (mut ended, mut staying, sentence) = if first_ends {
            shake_hands(&mut second);
            (first, second, "another viewer took this console over")
        } else {
            (second, first, "somebody else is viewing this console")
        };
        assert_ended(&ended.expect_close(), 4010, sentence);
        staying.send(b"still here");
        assert_eq!(staying.read(10), b"still here");
    }
}

#[test]
fn each_limit_refuses_one_more_in_words_and_frees_its_place() {
    for key in [
        "max_sessions",
        "max_sessions_per_instance",
        "max_sessions_per_caller",
        "max_sessions_per_address",
    ] {
        let peer = Peer::echo();
        let setup = Setup::new().instance("web-1", &peer.address());
        let gateway = setup.set("auth", key, 1).start();
        let mut first = open(&gateway, &issue(&gateway, &[]), "browser a");
        shake_hands(&mut first);

        let issued = issue(&gateway, &[]);
        let refused = open(&gateway, &issued, "browser b").expect_close();
        first.send_close(1000, "");
        until("the place to be free", || {
            sessions(&gateway).is_empty().then_some(())
        });
        let mut next = open(&gateway, &issued, "browser b");
        shake_hands(&mut next);

        assert_ended(&refused, 4010, "too many consoles are open");
        let logged = gateway.wait_for_event("the refusal", |event| event["code"] == 4010);
        let reason = logged["reason"].as_str().unwrap();
        assert!(reason.contains(&format!("auth.{key} ")), "{reason}");
    }
}

/// A press of the letter a, as RFB has it.
const KEY: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 0x61];

/// A request for the next picture.
const NEXT_PICTURE: [u8; 10] = [3, 1, 0, 0, 0, 0, 0, 64, 0, 64];

fn issue(gateway: &Gateway, wishes: &[&str]) -> Value {
    let arguments = [&["token", "issue", "web-1", "-o", "json"][..], wishes].concat();
    gateway.cli(&arguments).ok().json()
}

fn open(gateway: &Gateway, issued: &Value, browser: &str) -> Ws {
    let path = format!("/websockify?token={}", text(issued, "token"));
    let upgrade = Upgrade::new(&path).and("User-Agent", browser);
    upgrade.open(gateway.listen).unwrap()
}

fn sessions(gateway: &Gateway) -> Vec<Value> {
    let Answer { stdout, .. } = gateway.cli(&["session", "list", "-o", "json"]).ok();
    let listed: Value = serde_json::from_str(&stdout).unwrap();
    listed["sessions"].as_array().unwrap().clone()
}

fn only_session(gateway: &Gateway) -> Value {
    let sessions = sessions(gateway);
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    sessions[0].clone()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn wait_for_news(watching: &Process, event: &str) -> Value {
    watching.wait_for_line(event, |line| {
        let news: Value = serde_json::from_str(&line.text).ok()?;
        let wanted = line.stream == Stream::Out && news["event"] == event;
        wanted.then(|| news["session"].clone())
    })
}

#[track_caller]
fn assert_ended(closed: &Closed, code: u16, sentence: &str) {
    assert_eq!(closed.code, Some(code), "{closed:?}");
    assert!(closed.sentence().0.starts_with(sentence), "{closed:?}");
}
