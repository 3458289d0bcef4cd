//! Tokens from websockify's token files, through the proxy alone.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use crate::rig::gateway::{Gateway, Setup, vncgate};
use crate::rig::http::Request;
use crate::rig::peers::Peer;
use crate::rig::process::Stream;
use crate::rig::rfb::{shake_hands, welcome};
use crate::rig::ws::{Closed, Upgrade, Ws};

#[test]
fn a_line_opens_its_target_as_often_as_it_is_asked_for() {
    let peer = Peer::echo();
    let (setup, file) = setup();
    fs::write(&file, format!("# ours\nvm-1: {}\n", peer.address())).unwrap();
    let gateway = setup.start();

    for _time in 0..3 {
        let mut ws = open(&gateway, "vm-1");
        shake_hands(&mut ws);
        ws.send(b"through");
        assert_eq!(ws.read(7), b"through");
    }

    assert_eq!(refusal(&gateway, "vm-2").code, Some(4001));
    assert_eq!(peer.connections(), 3);
}

#[test]
fn a_change_of_the_file_counts_at_the_next_look_up() {
    let (first, second) = (Peer::echo(), Peer::echo());
    let (setup, file) = setup();
    fs::write(&file, format!("vm-1: {}\n", first.address())).unwrap();
    let gateway = setup.start();
    shows(&gateway, "vm-1");

    fs::write(&file, format!("vm-1: {}\n", second.address())).unwrap();
    shows(&gateway, "vm-1");
    fs::write(&file, "").unwrap();
    let gone = refusal(&gateway, "vm-1");
    fs::remove_file(&file).unwrap();
    let unreadable = refusal(&gateway, "vm-1");
    fs::write(&file, format!("vm-1: {}\n", first.address())).unwrap();
    shows(&gateway, "vm-1");

    assert_eq!(gone.code, Some(4001));
    assert_eq!(unreadable.code, Some(4011));
    let words = unreadable.sentence().0;
    assert!(words.contains("cannot be asked just now"), "{words}");
    assert_eq!((first.connections(), second.connections()), (2, 1));
}

#[test]
fn a_directory_of_thousands_of_tokens_is_one_source() {
    let peer = Peer::echo();
    let (setup, file) = setup();
    fs::create_dir(&file).unwrap();
    for part in 0..20 {
        let lines = (0..500).map(|line| format!("vm-{part}-{line}: {}\n", peer.address()));
        fs::write(file.join(part.to_string()), lines.collect::<String>()).unwrap();
    }
    let gateway = setup.start();

    for token in ["vm-0-0", "vm-7-123", "vm-19-499"] {
        shows(&gateway, token);
    }
    fs::remove_file(file.join("7")).unwrap();

    assert_eq!(refusal(&gateway, "vm-7-123").code, Some(4001));
    assert_eq!(gateway.watch("/readyz").status, 200);
}

#[test]
fn a_unix_socket_and_an_ipv6_address_are_targets_too() {
    let (setup, file) = setup();
    let socket = setup.directory.path().join("vm.sock");
    let unix = UnixListener::bind(&socket).unwrap();
    let six = std::net::TcpListener::bind("[::1]:0").unwrap();
    let six_address = six.local_addr().unwrap();
    let served = std::thread::spawn(move || {
        welcome(&mut unix.accept().unwrap().0, "unix").unwrap();
        welcome(&mut six.accept().unwrap().0, "six").unwrap();
    });
    let lines = format!(
        "unix: unix_socket:{}\nsix: {six_address}\n",
        socket.display()
    );
    fs::write(&file, lines).unwrap();
    let gateway = setup.start();

    let (_, _, unix) = shake_hands(&mut open(&gateway, "unix"));
    let (_, _, six) = shake_hands(&mut open(&gateway, "six"));

    assert_eq!((&*unix, &*six), ("unix", "six"));
    served.join().unwrap();
}

#[test]
fn a_serial_line_need_not_be_a_vnc_server() {
    let peer = Peer::raw(|mut stream| stream.write_all(b"login: "));
    let (setup, file) = setup();
    fs::write(&file, format!("tty: {}\n", peer.address())).unwrap();

    let gateway = setup.set("auth", "console_type", "serial").start();

    assert_eq!(open(&gateway, "tty").read(7), b"login: ");
}

#[test]
fn a_broken_line_is_told_once_by_its_number_and_hurts_no_other() {
    let peer = Peer::echo();
    let (setup, file) = setup();
    let text = format!("canary-token h:1\nvm-1: {}\n", peer.address());
    fs::write(&file, &text).unwrap();
    let gateway = setup.set("log", "level", "trace").start();

    shows(&gateway, "vm-1");
    fs::write(&file, format!("{text}# a comment\n")).unwrap();
    shows(&gateway, "vm-1");

    let told = |event: &&serde_json::Value| event["broken"] == 1;
    let events = gateway.events();
    let events: Vec<_> = events.iter().filter(told).collect();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["line"], 1, "{events:?}");
    assert_eq!(events[0]["file"], file.to_str().unwrap());
    assert!(!gateway.text(Stream::Err).contains("canary-token"));
    assert!(!gateway.text(Stream::Err).contains("vm-1"));
}

#[test]
fn a_page_must_be_of_this_gateway() {
    let peer = Peer::echo();
    let (setup, file) = setup();
    fs::write(&file, format!("vm-1: {}\n", peer.address())).unwrap();
    let gateway = setup
        .set("proxy", "public_url", "https://console.example.org")
        .start();
    let from = |origin: &str| {
        let upgrade = Upgrade::new("/websockify?token=vm-1").with("Origin", origin);
        upgrade.open(gateway.listen).unwrap()
    };

    shake_hands(&mut from("https://console.example.org"));
    for foreign in ["https://evil.example", "http://console.example.org"] {
        assert_eq!(from(foreign).expect_close().code, Some(4003), "{foreign}");
    }
    assert_eq!(peer.connections(), 1);
}

#[test]
fn a_session_is_of_its_target_and_can_be_seen_and_ended() {
    let peer = Peer::echo();
    let (setup, file) = setup();
    fs::write(&file, format!("vm-1: {}\n", peer.address())).unwrap();
    let gateway = setup.start();
    let mut ws = open(&gateway, "vm-1");
    shake_hands(&mut ws);

    let sessions = gateway.cli(&["session", "list", "-o", "json"]).ok().json();
    let session = &sessions["sessions"][0];
    assert_eq!(session["instance"]["name"], peer.address());
    let id = session["id"].as_str().unwrap();
    gateway.cli(&["session", "kill", id]).ok();

    assert_eq!(ws.expect_close().code, Some(4007));
}

#[test]
fn the_proxy_alone_has_no_api_at_its_door_and_makes_no_tokens() {
    let (setup, file) = setup();
    fs::write(&file, "").unwrap();
    let gateway = setup.set("api", "listen", vec!["127.0.0.1:0"]).start();

    for path in ["/v1/instances", "/v2.1/servers", "/openapi.json"] {
        let answer = gateway.http(&Request::new("GET", path));
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    assert_eq!(
        gateway.http(&Request::new("GET", "/vnc_lite.html")).status,
        200
    );
    let list = gateway.cli(&["token", "list"]);
    assert!(list.stderr.contains("tokens are made by"), "{list:?}");
    assert_ne!(list.code, 0);
    assert!(
        gateway
            .cli(&["instance", "list"])
            .ok()
            .stdout
            .lines()
            .count()
            <= 1
    );
    let ready = gateway.wait_for_event("ready", |event| event["message"] == "ready");
    assert!(ready["api"].is_null(), "{ready}");
}

#[test]
fn the_whole_gateway_takes_such_tokens_and_makes_none() {
    let peer = Peer::echo();
    let (setup, file) = token_file(Setup::new());
    fs::write(&file, format!("vm-1: {}\n", peer.address())).unwrap();
    let gateway = setup.instance("web-1", &peer.address()).start();

    shows(&gateway, "vm-1");
    let issued = gateway.cli(&["token", "issue", "web-1"]);

    assert!(issued.stderr.contains("auth.source"), "{issued:?}");
    assert_eq!(issued.stdout, "");
}

#[test]
fn the_proxy_alone_does_not_start_with_tokens_of_its_own() {
    let refused = Setup::new().proxy_alone().refuse_to_start();

    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("auth.source"), "{refused:?}");
    assert!(refused.stderr.contains("nova-db"), "{refused:?}");
}

#[test]
fn the_check_of_a_config_notes_a_token_file_that_is_not_there() {
    let (setup, file) = setup();
    let config = setup.write();

    let check = vncgate(&["config", "check", config.to_str().unwrap()]).ok();

    let note = format!("note: auth.token_file: {}", file.display());
    assert!(check.stderr.contains(&note), "{check:?}");
}

/// A proxy with a token file that is still to be written, and where.
fn setup() -> (Setup, PathBuf) {
    token_file(Setup::new().proxy_alone())
}

fn token_file(setup: Setup) -> (Setup, PathBuf) {
    let file = setup.directory.path().join("tokens");
    let path = file.to_str().unwrap().to_owned();
    let setup = setup.set("auth", "source", "websockify-file");
    (setup.set("auth", "token_file", path), file)
}

fn open(gateway: &Gateway, token: &str) -> Ws {
    let upgrade = Upgrade::new(&format!("/websockify?token={token}"));
    upgrade.open(gateway.listen).unwrap()
}

/// A VNC console opens.
#[track_caller]
fn shows(gateway: &Gateway, token: &str) {
    shake_hands(&mut open(gateway, token));
}

fn refusal(gateway: &Gateway, token: &str) -> Closed {
    let upgrade = Upgrade::new(&format!("/websockify?token={token}"));
    upgrade.open(gateway.listen).unwrap().expect_close()
}
