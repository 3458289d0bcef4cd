//! The audit log: who did what, read from its file after it was done.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::rig::gateway::{Gateway, Setup, run};
use crate::rig::http::Request;
use crate::rig::peers::Peer;
use crate::rig::process::{peer, tied};
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{Upgrade, Ws};

/// A gateway with one instance and an audit log in a directory of the test's own.
struct Audited {
    gateway: Gateway,
    place: TempDir,
    _peer: Peer,
}

impl Audited {
    fn start() -> Self {
        Self::start_with(|setup| setup)
    }

    fn start_with(more: impl Fn(Setup) -> Setup) -> Self {
        let place = TempDir::with_prefix("vncgate-audit-").unwrap();
        let peer = Peer::echo();
        let setup = Setup::new().instance("web-1", &peer.address());
        let file = place.path().join("audit.jsonl");
        let gateway = more(setup.set("audit", "file", file.to_str().unwrap())).start();
        Self {
            gateway,
            place,
            _peer: peer,
        }
    }

    fn path(&self) -> PathBuf {
        self.place.path().join("audit.jsonl")
    }

    /// Waits for an event of this kind and returns it.
    #[track_caller]
    fn wait_for(&self, event: &str) -> Value {
        until(&format!("the event `{event}`"), || {
            let events = events(&self.path());
            events.into_iter().find(|it| it["event"] == event)
        })
    }

    fn issue(&self) -> Value {
        let issued = self
            .gateway
            .cli(&["token", "issue", "web-1", "-o", "json"])
            .ok();
        issued.json()
    }

    fn open(&self, token: &Value) -> Ws {
        let path = format!("/websockify?token={}", token["token"].as_str().unwrap());
        Upgrade::new(&path).open(self.gateway.listen).unwrap()
    }

    fn session(&self) -> String {
        let list = self
            .gateway
            .cli(&["session", "list", "-o", "json"])
            .ok()
            .json();
        list["sessions"][0]["id"].as_str().unwrap().to_owned()
    }
}

fn events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(serde_json::from_str::<Value>);
    lines.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_console_from_its_url_to_its_end_is_three_lines_that_belong_together() {
    let audited = Audited::start();
    let token = audited.issue();
    let mut ws = audited.open(&token);
    shake_hands(&mut ws);
    ws.send_close(1000, "");

    let ended = audited.wait_for("ended");
    let (issued, opened) = (audited.wait_for("issued"), audited.wait_for("opened"));

    assert_eq!(issued["caller"], "admin");
    assert_eq!(issued["rights"], "control");
    for event in [&issued, &opened, &ended] {
        assert_eq!(event["name"], "web-1", "{event}");
        assert_eq!(event["type"], "novnc", "{event}");
        assert_eq!(event["token"], token["id"], "{event}");
        humantime::parse_rfc3339(event["time"].as_str().unwrap()).unwrap();
    }
    assert_eq!(opened["address"], "127.0.0.1");
    assert_eq!(opened["session"], ended["session"]);
    assert_eq!(opened["correlation"], ended["correlation"]);
    assert_eq!(ended["code"], 1000);
    assert_eq!(ended["why"], "the viewer left");
    assert!(ended["down"].as_u64().unwrap() > 0, "{ended}");
    let mode = fs::metadata(audited.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn a_kill_and_a_revocation_name_who_did_it() {
    let audited = Audited::start();
    let token = audited.issue();
    let mut ws = audited.open(&token);
    shake_hands(&mut ws);
    let session = audited.session();

    audited.gateway.cli(&["session", "kill", &session]).ok();
    let id = token["id"].as_str().unwrap();
    audited.gateway.cli(&["token", "revoke", id]).ok();

    let (killed, revoked) = (audited.wait_for("killed"), audited.wait_for("revoked"));
    let ended = audited.wait_for("ended");
    assert_eq!(killed["session"], session.as_str());
    assert_eq!(killed["caller"], "admin");
    assert_eq!(revoked["token"], id);
    assert_eq!(revoked["name"], "web-1");
    assert_eq!(ended["code"], 4007);
}

#[test]
fn a_refusal_names_the_token_the_viewer_and_the_id_that_the_viewer_was_told() {
    let audited = Audited::start();
    let unknown = "/?token=00000000-0000-4000-8000-000000000000";

    let closed = Upgrade::new(unknown).open(audited.gateway.listen);
    let closed = closed.unwrap().expect_close();

    let refused = audited.wait_for("refused");
    assert_eq!(refused["code"], 4001);
    assert_eq!(refused["correlation"], closed.sentence().1);
    assert_eq!(refused["address"], "127.0.0.1");
    assert_eq!(refused["token"].as_str().unwrap().len(), 16);
    assert_eq!(refused["why"], "unknown or expired token");
}

#[test]
fn a_caller_who_is_turned_away_is_in_it_and_one_who_has_a_key_is_named() {
    let key = run(tied(Path::new(crate::rig::gateway::BINARY)).args(["key", "new", "portal"])).ok();
    let secret = key.stdout.lines().chain(key.stderr.lines());
    let words = secret.flat_map(|line| line.split(|c: char| c.is_whitespace() || c == '"'));
    let words: Vec<&str> = words.collect();
    let secret = words.iter().find(|word| word.starts_with("vgk_")).unwrap();
    let is_hash = |word: &&&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let hash = words.iter().find(is_hash).unwrap();
    let audited = Audited::start_with(|setup| setup.key("portal", hash));

    let request = Request::new("POST", "/v1/consoles").json(r#"{"instance": "web-1"}"#);
    let refused = audited.gateway.http(&request);
    let bearer = format!("Bearer {secret}");
    let issued = audited
        .gateway
        .http(&request.header("Authorization", &bearer));

    assert_eq!((refused.status, issued.status), (401, 201));
    let event = audited.wait_for("refused");
    assert_eq!(event["code"], 401);
    assert_eq!(event["correlation"], refused.json()["correlation"]);
    let event = audited.wait_for("issued");
    assert_eq!(event["caller"], "key:portal");
    assert_eq!(event["address"], "127.0.0.1");
    let text = fs::read_to_string(audited.path()).unwrap();
    assert!(!text.contains(secret), "{text}");
}

#[test]
fn no_line_holds_a_token() {
    let audited = Audited::start();
    let token = audited.issue();
    let text = token["token"].as_str().unwrap();
    let mut ws = audited.open(&token);
    shake_hands(&mut ws);
    let foreign = Upgrade::new(&format!("/?token={text}")).with("Origin", "https://evil.example");
    foreign.open(audited.gateway.listen).unwrap().expect_close();
    let id = token["id"].as_str().unwrap();
    audited.gateway.cli(&["token", "revoke", id]).ok();
    audited.open(&token).expect_close();

    audited.wait_for("ended");
    until("both refusals", || {
        let refused = events(&audited.path());
        let refused = refused.iter().filter(|it| it["event"] == "refused");
        (refused.count() == 2).then_some(())
    });

    let all = fs::read_to_string(audited.path()).unwrap();
    assert!(all.contains(id) && !all.contains(text), "{all}");
    let half = text.rsplit_once('-').unwrap().0;
    assert!(!all.contains(half), "{all}");
}

#[test]
fn logrotate_renames_the_file_and_nothing_is_lost() {
    let audited = Audited::start();
    audited.issue();
    audited.wait_for("issued");
    let config = audited.place.path().join("logrotate.conf");
    let path = audited.path();
    let rule = format!(
        "{} {{\n rotate 3\n nocreate\n missingok\n}}\n",
        path.display()
    );
    fs::write(&config, rule).unwrap();
    // It refuses a config that others may write.
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let state = audited.place.path().join("state");

    let mut logrotate = Command::new(peer("logrotate"));
    logrotate.arg("--force").arg("--state").arg(&state);
    run(logrotate.arg(&config)).ok();
    audited.issue();

    audited.wait_for("issued");
    assert_eq!(events(&audited.path()).len(), 1);
    let rotated = audited.place.path().join("audit.jsonl.1");
    assert_eq!(events(&rotated).len(), 1);
}

#[test]
fn a_full_disk_stops_no_console_and_stands_in_the_metrics() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("audit", "file", "/dev/full").start();

    gateway.issue("web-1");
    until("the failure to be counted", || {
        (gateway.metric("vncgate_audit_failing", "") > 0.5).then_some(())
    });
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);

    gateway.wait_for_event("the failure's line", |event| {
        let message = "the audit log cannot be written; events wait";
        event["message"] == message && event["level"] == "ERROR"
    });
}

#[test]
fn where_the_audit_log_is_required_a_full_disk_lets_no_console_open() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let setup = setup.set("audit", "file", "/dev/full");
    let gateway = setup.set("audit", "required", true).start();

    let url = gateway.issue("web-1");
    until("the failure to be counted", || {
        (gateway.metric("vncgate_audit_failing", "") > 0.5).then_some(())
    });
    let refused = gateway.cli(&["token", "issue", "web-1"]);
    let upgrade = Upgrade::new(&url.upgrade_path()).open(gateway.listen);
    let closed = upgrade.unwrap().expect_close();

    assert_eq!(refused.code, 6, "{refused:?}");
    assert!(refused.stderr.contains("audit.required"), "{refused:?}");
    assert_eq!(closed.code, Some(4011), "{closed:?}");
    assert_eq!(peer.connections(), 0);
}

#[test]
fn a_disk_that_has_room_again_gets_what_waited() {
    // Files over the limit fail as on a full disk do, and the shell counts in blocks of 512.
    let place = TempDir::with_prefix("vncgate-audit-").unwrap();
    let path = place.path().join("audit.jsonl");
    fs::write(&path, " ".repeat(511) + "\n").unwrap();
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let setup = setup.set("audit", "file", path.to_str().unwrap());
    let gateway = setup.start_with(|binary| {
        let mut command = tied(Path::new("/bin/sh"));
        command.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""]);
        command.arg(binary);
        command
    });
    gateway.issue("web-1");
    until("the failure to be counted", || {
        (gateway.metric("vncgate_audit_failing", "") > 0.5).then_some(())
    });

    fs::rename(&path, place.path().join("full")).unwrap();

    until("what waited", || {
        let found = events(&path).iter().any(|it| it["event"] == "issued");
        found.then_some(())
    });
    assert!(gateway.metric("vncgate_audit_lost_total", "") < 0.5);
}

#[test]
fn a_reader_that_takes_nothing_stops_no_console() {
    let place = TempDir::with_prefix("vncgate-audit-").unwrap();
    let pipe = place.path().join("pipe");
    run(Command::new("mkfifo").arg(&pipe)).ok();
    let mut options = fs::OpenOptions::new();
    let mut stuck = options.read(true).write(true).open(&pipe).unwrap();
    let fill = [b'x'; 4096];
    rustix::fs::fcntl_setfl(&stuck, rustix::fs::OFlags::NONBLOCK).unwrap();
    while std::io::Write::write(&mut stuck, &fill).is_ok() {}
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let setup = setup.set("audit", "file", pipe.to_str().unwrap());
    let gateway = setup.start();

    for _ in 0..3 {
        shake_hands(&mut gateway.open("web-1"));
    }

    // Once somebody reads, everything comes.
    let mut text = Vec::new();
    until("the events in the pipe", || {
        let mut bytes = vec![0; 1 << 16];
        let count = stuck.read(&mut bytes).unwrap_or_default();
        text.extend_from_slice(&bytes[..count]);
        let opened = String::from_utf8_lossy(&text);
        (opened.matches("\"event\":\"opened\"").count() == 3).then_some(())
    });
}

#[test]
fn a_link_where_the_file_should_be_is_refused_at_the_start() {
    let place = TempDir::with_prefix("vncgate-audit-").unwrap();
    let path = place.path().join("audit.jsonl");
    symlink(place.path().join("victim"), &path).unwrap();

    let setup = Setup::new().set("audit", "file", path.to_str().unwrap());
    let refused = setup.refuse_to_start();

    assert!(refused.stderr.contains("it is a link"), "{refused:?}");
    assert!(!place.path().join("victim").exists());
}

#[test]
fn the_journal_gets_events_as_entries_of_their_own() {
    let place = TempDir::with_prefix("vncgate-audit-").unwrap();
    let socket = place.path().join("journal");
    let journal = UnixDatagram::bind(&socket).unwrap();
    journal
        .set_read_timeout(Some(crate::rig::wait::PATIENCE))
        .unwrap();
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup
        .set("audit", "journal", socket.to_str().unwrap())
        .start();

    gateway.issue("web-1");

    let mut entry = vec![0; 1 << 16];
    let length = journal.recv(&mut entry).unwrap();
    let entry = String::from_utf8(entry[..length].to_vec()).unwrap();
    assert!(entry.contains("SYSLOG_IDENTIFIER=vncgate-audit\n"));
    let (_, message) = entry.split_once("\nMESSAGE=").unwrap();
    let event: Value = serde_json::from_str(message.trim_end()).unwrap();
    assert_eq!(event["event"], "issued");
}

#[test]
fn an_audit_log_of_two_places_or_none_is_refused() {
    for (keys, why) in [
        ("file = '/a'\njournal = '/b'", "either audit.file or"),
        ("required = true", "audit.required: needs audit.file"),
        ("file = 'a'", "not an absolute path"),
    ] {
        let place = TempDir::with_prefix("vncgate-audit-").unwrap();
        let config = place.path().join("vncgate.toml");
        fs::write(&config, format!("[audit]\n{keys}\n")).unwrap();

        let config = config.to_str().unwrap();
        let checked = crate::rig::gateway::vncgate(&["config", "check", config]);

        assert_eq!(checked.code, 3, "{checked:?}");
        assert!(checked.stderr.contains(why), "{checked:?}");
    }
}
