//! What a viewer may do, changed while it is at it.

use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::thread;

use serde_json::Value;

use crate::rig::browser::browse;
use crate::rig::gateway::{Answer, Gateway, Setup};
use crate::rig::http::Request;
use crate::rig::peers::Peer;
use crate::rig::qemu::{self, Qemu};
use crate::rig::redis::Redis;
use crate::rig::rfb::{Viewer, shake_hands};
use crate::rig::wait::until;
use crate::rig::ws::{Upgrade, Ws};
use crate::rig::xvnc::{self, Xvnc};

const KEY: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 97];
const RELEASE: [u8; 8] = [4, 0, 0, 0, 0, 0, 0, 97];
const PASTE: &[u8] = b"\x06\0\0\0\0\0\0\x05paste";
const UPDATE: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 1, 0, 1];

fn sessions(gateway: &Gateway) -> Vec<Value> {
    let listed = gateway.cli(&["session", "list", "-o", "json"]).ok().json();
    listed["sessions"].as_array().unwrap().clone()
}

fn only_id(gateway: &Gateway) -> String {
    let sessions = until("one session", || {
        let sessions = sessions(gateway);
        (sessions.len() == 1).then_some(sessions)
    });
    sessions[0]["id"].as_str().unwrap().to_owned()
}

fn change(gateway: &Gateway, id: &str, rights: &str) -> Answer {
    gateway
        .cli(&["session", "rights", id, rights, "-o", "json"])
        .ok()
}

#[test]
fn a_typist_on_xvnc_is_stopped_and_let_on_again_without_a_new_connection() {
    let xvnc = Xvnc::tcp(xvnc::BLUE);
    let gateway = Gateway::of("desk", xvnc.address());
    let mut viewer = Viewer::new(gateway.open("desk"));
    viewer.wait_for_pixel(5, 5, xvnc::BLUE);
    viewer.point(xvnc::SCREEN.0 / 2, xvnc::SCREEN.1 / 2);
    viewer.type_text("a");
    xvnc.wait_for_keys("a");
    let id = only_id(&gateway);

    let taken = change(&gateway, &id, "view");
    viewer.type_text("never");
    // What the server answered after the keys proves that they would have been there by now.
    viewer.wait_for_pixel(6, 6, xvnc::BLUE);
    let given = change(&gateway, &id, "control");
    viewer.type_text("b");

    xvnc.wait_for_keys("ab");
    assert_eq!(taken.json()["rights"], "view,clipboard-out");
    assert!(taken.stderr.contains("clipboard stays"), "{taken:?}");
    assert_eq!(given.json()["rights"], "control");
    assert_eq!(given.stderr, "");
}

#[test]
fn whoever_began_by_looking_at_qemu_may_be_let_type() {
    let qemu = Qemu::tcp();
    let gateway = Gateway::of("guest", qemu.address());
    let url = gateway.issue_with(&["token", "issue", "guest", "--rights", "view"]);
    let upgrade = Upgrade::new(&url.upgrade_path());
    let mut viewer = Viewer::new(upgrade.open(gateway.listen).unwrap());
    viewer.type_text("d");
    viewer.wait_for_pixel(100, 100, qemu::BLUE);

    let given = change(&gateway, &only_id(&gateway), "input");
    viewer.type_text("b");

    viewer.wait_for_pixel(100, 100, qemu::GREEN);
    assert!(!qemu.has_shown(4), "the key of who only looked arrived");
    assert_eq!(given.json()["rights"], "input");
}

#[test]
fn a_browser_whose_rights_were_taken_types_nothing_and_gets_none_back_by_a_reload() {
    let qemu = Qemu::tcp();
    let gateway = Gateway::of("guest", qemu.address());
    let url = gateway.issue("guest");
    let arguments = [
        &["--wait-state", "connected"][..],
        &["--expect-pixel", "100,100,#0000a8"],
        // Typed until it shows: the page is in, and may type.
        &["--click", "320,240", "--press", "b"],
        &["--then-pixel", "100,100,#00a800"],
    ]
    .concat();
    let seen = browse(&url, &arguments);
    assert_eq!(seen.code, 0, "{seen:?}");
    let mut ws = Upgrade::new(&url.upgrade_path())
        .open(gateway.listen)
        .unwrap();
    shake_hands(&mut ws);
    let id = only_id(&gateway);
    change(&gateway, &id, "view");
    ws.send_close(1000, "");
    gateway.wait_for_sessions(0);

    let again = [
        &["--wait-state", "connected"][..],
        &["--expect-pixel", "100,100,#00a800"],
        &["--click", "320,240", "--press", "d"],
        &["--then-pixel", "100,100,#00a800", "--reload"],
        &["--wait-state", "connected"],
        &["--expect-pixel", "100,100,#00a800"],
        &["--click", "320,240", "--press", "d"],
        &["--then-pixel", "100,100,#00a800"],
    ]
    .concat();
    let seen = browse(&url, &again);

    assert_eq!(seen.code, 0, "{seen:?}");
    assert!(
        !qemu.has_shown(4),
        "a key arrived after the rights were taken"
    );
}

#[test]
fn messages_are_never_torn_and_what_is_held_down_is_let_go() {
    let (peer, gathered) = Peer::gathering();
    let gateway = Gateway::of("web", &peer.address());
    let mut ws = gateway.open("web");
    shake_hands(&mut ws);
    ws.send(&KEY);
    let (first, rest) = PASTE.split_at(9);
    ws.send(first);
    gathered.until_count(KEY.len() + first.len());

    change(&gateway, &only_id(&gateway), "view");
    ws.send(&[rest, &KEY, PASTE, &UPDATE].concat());

    let expected = [&KEY[..], PASTE, &RELEASE, &UPDATE].concat();
    let got = gathered.until_count(expected.len());
    assert_eq!(got, expected);
}

#[test]
fn each_right_is_taken_alone() {
    let (peer, gathered) = Peer::gathering();
    let gateway = Gateway::of("web", &peer.address());
    let mut ws = gateway.open("web");
    shake_hands(&mut ws);
    let id = only_id(&gateway);

    change(&gateway, &id, "input,clipboard-out");
    ws.send(&[PASTE, &KEY, &RELEASE].concat());
    gathered.until_count(16);
    change(&gateway, &id, "clipboard-in,clipboard-out");
    ws.send(&[&KEY, PASTE].concat());

    let got = gathered.until_count(16 + PASTE.len());
    assert_eq!(got, [&KEY[..], &RELEASE, PASTE].concat());
}

#[test]
fn a_viewer_that_cannot_be_followed_goes_on_until_it_is_to_have_less() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web", &peer.address());
    let mut ws = gateway.open("web");
    shake_hands(&mut ws);
    ws.send(&[77; 10]);
    assert_eq!(ws.read(10), [77; 10]);

    change(&gateway, &only_id(&gateway), "view");
    ws.send(&KEY);
    let (bytes, closed) = ws.read_to_close();

    assert_eq!(bytes, b"");
    assert_eq!(closed.code, Some(4012), "{closed:?}");
    assert!(closed.reason.contains("unknown type 77"), "{closed:?}");
}

#[test]
fn a_serial_lines_viewer_is_stopped_and_let_on_again() {
    let place = tempfile::TempDir::new().unwrap();
    let path = place.path().join("line");
    let listener = UnixListener::bind(&path).unwrap();
    let line = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    });
    let gateway = Setup::new()
        .instance("line", &format!("unix:{}", path.display()))
        .set_instance("kind", "serial")
        .start();
    let url = gateway.issue_with(&["token", "issue", "line", "--type", "serial"]);
    let path = format!("{}?{}", url.0.path(), url.0.query().unwrap());
    let mut ws = Upgrade::new(&path).open(gateway.listen).unwrap();
    ws.send(b"one ");
    let id = only_id(&gateway);
    let counted = |bytes: u64| {
        until("what was sent to be counted", || {
            let session = sessions(&gateway).remove(0);
            (session["up"].as_u64().unwrap() >= bytes).then_some(())
        });
    };
    counted(4);

    change(&gateway, &id, "view");
    ws.send(b"two ");
    counted(8);
    change(&gateway, &id, "control");
    ws.send(b"three");
    counted(13);
    ws.send_close(1000, "");

    assert_eq!(line.join().unwrap(), b"one three");
}

#[test]
fn the_api_lists_and_logs_tell_of_the_change_and_who_made_it() {
    let place = tempfile::TempDir::new().unwrap();
    let file = place.path().join("audit.jsonl");
    let peer = Peer::echo();
    let setup = Setup::new().instance("web", &peer.address());
    let gateway = setup.set("audit", "file", file.to_str().unwrap()).start();
    let mut ws = gateway.open("web");
    shake_hands(&mut ws);
    let id = only_id(&gateway);

    let path = format!("/v1/sessions/{id}");
    let changed = gateway.http(&Request::new("PATCH", &path).json(r#"{"rights": "view"}"#));
    let shown = gateway.cli(&["session", "show", &id, "-o", "json"]).ok();
    let table = gateway.cli(&["session", "list"]).ok().stdout;
    let tokens = gateway.cli(&["token", "list", "-o", "json"]).ok().json();

    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(changed.json()["rights"], "view,clipboard-out");
    assert_eq!(shown.json()["rights"], "view,clipboard-out");
    assert!(table.contains("view,clipboard-out"), "{table}");
    assert_eq!(tokens["tokens"][0]["rights"], "view");
    let event = until("the event", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut lines = text
            .lines()
            .map(|it| serde_json::from_str::<Value>(it).unwrap());
        lines.find(|it| it["event"] == "rights-changed")
    });
    assert_eq!(event["session"], id.as_str());
    assert_eq!(event["caller"], "local");
    assert_eq!(event["address"], "127.0.0.1");
    assert_eq!(event["rights"], "view,clipboard-out");
    ws.send_close(1000, "");
    gateway.wait_for_event("the session's last line", |event| {
        event["message"] == "session ended" && event["rights"] == "view,clipboard-out"
    });
}

#[test]
fn what_nobody_may_give_or_enforce_is_refused_and_changes_nothing() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web", &peer.address());
    let mut ws = gateway.open("web");
    shake_hands(&mut ws);
    let id = only_id(&gateway);
    let path = format!("/v1/sessions/{id}");
    let ask = |body: &str| gateway.http(&Request::new("PATCH", &path).json(body));

    let word = ask(r#"{"rights": "admin"}"#);
    let key = ask(r#"{"rights": "view", "caller": "me"}"#);
    let nobody = gateway.cli(&[
        "session",
        "rights",
        "00000000-0000-4000-8000-000000000000",
        "view",
    ]);

    assert_eq!((word.status, key.status), (400, 400));
    assert!(word.text().contains("`admin` is no right"), "{word:?}");
    assert_eq!(nobody.code, 4, "{nobody:?}");
    assert_eq!(sessions(&gateway)[0]["rights"], "control");
}

#[test]
fn a_reader_changes_nothing_and_another_projects_session_is_not_there() {
    let peer = Peer::echo();
    let hash = |secret: &str| {
        use std::fmt::Write as _;
        let digest = <sha2::Sha256 as sha2::Digest>::digest(secret);
        digest.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    };
    let gateway = Setup::new()
        .instance("web", &peer.address())
        .set_instance("project", "p1")
        .key_of("reader", &hash("vgk_r"), "p1", "reader")
        .key_of("member", &hash("vgk_m"), "p1", "member")
        .key_of("other", &hash("vgk_o"), "p2", "member")
        .start();
    let mut ws = gateway.open("web");
    shake_hands(&mut ws);
    let path = format!("/v1/sessions/{}", only_id(&gateway));
    let ask = |key: &str| {
        let request = Request::new("PATCH", &path).json(r#"{"rights": "view"}"#);
        let request = request.header("Authorization", &format!("Bearer {key}"));
        gateway.http(&request).status
    };

    assert_eq!(ask("vgk_r"), 403);
    assert_eq!(ask("vgk_o"), 404);
    assert_eq!(sessions(&gateway)[0]["rights"], "control");
    assert_eq!(ask("vgk_m"), 200);
    assert_eq!(sessions(&gateway)[0]["rights"], "view,clipboard-out");
}

#[test]
fn a_gateway_changes_the_rights_of_a_session_that_another_one_holds() {
    let (peer, gathered) = Peer::gathering();
    let redis = Redis::start();
    let setup = || Setup::new().instance("web", &peer.address());
    let (holder, other) = (redis.keeps(setup()).start(), redis.keeps(setup()).start());
    let url = holder.issue("web");
    let open = |gateway: &Gateway| -> Ws {
        let upgrade = Upgrade::new(&url.upgrade_path());
        upgrade.open(gateway.listen).unwrap()
    };
    let mut ws = open(&holder);
    shake_hands(&mut ws);
    ws.send(&UPDATE);
    gathered.until_count(UPDATE.len());

    let taken = change(&other, &only_id(&other), "view");
    ws.send(&[&KEY[..], &UPDATE].concat());
    let got = gathered.until_count(2 * UPDATE.len());

    assert_eq!(taken.json()["rights"], "view,clipboard-out");
    assert_eq!(got, UPDATE.repeat(2));
    let mut second = open(&other);
    shake_hands(&mut second);
    let rights: Vec<Value> = sessions(&other)
        .into_iter()
        .map(|session| session["rights"].clone())
        .collect();
    assert!(rights.contains(&"view".into()), "{rights:?}");
}
