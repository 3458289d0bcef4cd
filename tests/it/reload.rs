//! The config read again: what counts at once, what needs a restart, and that a bad one is nothing.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::Value;

use crate::rig::gateway::{Gateway, Setup, vncgate};
use crate::rig::http::Request;
use crate::rig::peers::Peer;
use crate::rig::rfb::shake_hands;

/// Writes other values into a running gateway's config file.
pub(crate) fn rewrite(gateway: &Gateway, change: impl FnOnce(&mut toml::Table)) {
    let text = fs::read_to_string(&gateway.config).unwrap();
    let mut config = toml::from_str(&text).unwrap();
    change(&mut config);
    fs::write(&gateway.config, toml::to_string(&config).unwrap()).unwrap();
}

pub(crate) fn set(config: &mut toml::Table, table: &str, key: &str, value: impl Into<toml::Value>) {
    let empty = toml::Value::Table(toml::Table::new());
    let table = config.entry(table).or_insert(empty);
    let table = table.as_table_mut().unwrap();
    table.insert(key.to_owned(), value.into());
}

pub(crate) fn hang_up(gateway: &Gateway) -> Value {
    gateway.signal(Signal::HUP);
    gateway.wait_for_event("that the config was read again", |event| {
        let message = event["message"].as_str().unwrap_or_default();
        message.starts_with("config reloaded") || message.starts_with("config not reloaded")
    })
}

#[test]
fn sighup_puts_a_new_config_in_force_and_leaves_sessions_alone() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);
    let page = || gateway.http(&Request::new("GET", "/vnc.html"));
    let policy = |response: &crate::rig::http::Response| {
        let policy = response.header("content-security-policy").unwrap();
        policy.to_owned()
    };
    assert!(!policy(&page()).contains("https://portal.example"));

    rewrite(&gateway, |config| {
        set(
            config,
            "web",
            "frame_ancestors",
            vec!["https://portal.example"],
        );
        set(config, "proxy", "public_url", "https://console.example");
        set(config, "auth", "url_ttl", "5m");
        set(config, "auth", "max_tokens", 7);
    });
    let event = hang_up(&gateway);

    let changed = "auth.url_ttl, proxy.public_url, web.frame_ancestors";
    assert_eq!(event["changed"], changed, "{event}");
    assert_eq!(event["restart"], "auth.max_tokens", "{event}");
    assert!(policy(&page()).contains("https://portal.example"));
    let issued = gateway.issue("web-1").0;
    assert_eq!(issued.host_str(), Some("console.example"));
    ws.send(b"alive");
    assert_eq!(ws.read(5), b"alive");
    let good = gateway.metric("vncgate_config_reloads_total", "result=\"ok\"");
    assert!((good - 1.0).abs() < 0.5, "{good}");
}

#[test]
fn a_bad_config_changes_nothing_and_is_told_in_words() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);
    let before = gateway.issue("web-1").0;

    rewrite(&gateway, |config| {
        set(config, "proxy", "public_url", "https://console.example");
        set(config, "proxy", "max_frame", 1);
    });
    let event = hang_up(&gateway);
    let command = gateway.cli(&["reload"]);

    let error = event["error"].as_str().unwrap();
    assert!(error.contains("proxy.max_frame"), "{event}");
    assert_eq!(command.code, 1, "{command:?}");
    assert!(command.stderr.contains("proxy.max_frame"), "{command:?}");
    let after = gateway.issue("web-1").0;
    assert_eq!(before.host_str(), after.host_str());
    ws.send(b"alive");
    assert_eq!(ws.read(5), b"alive");
    let failed = gateway.metric("vncgate_config_reloads_total", "result=\"failed\"");
    assert!((failed - 2.0).abs() < 0.5, "{failed}");
}

#[test]
fn a_directory_of_pages_that_is_missing_changes_nothing() {
    let gateway = Setup::new().start();

    rewrite(&gateway, |config| {
        set(config, "web", "root", "/nowhere/novnc");
        set(config, "log", "level", "error");
    });
    let event = hang_up(&gateway);

    assert!(
        event["error"].as_str().unwrap().contains("/nowhere/novnc"),
        "{event}"
    );
    let page = gateway.http(&Request::new("GET", "/vnc.html"));
    assert_eq!(page.status, 200);
}

#[test]
fn the_reload_command_tells_what_counts_now_and_what_needs_a_restart() {
    let gateway = Setup::new().start();
    let unchanged = gateway.cli(&["reload"]).ok();

    rewrite(&gateway, |config| {
        set(config, "limits", "session_bandwidth", 1_000_000);
        set(config, "monitor", "listen", Vec::<String>::new());
    });
    let changed = gateway.cli(&["reload"]).ok();
    let again = gateway.cli(&["reload", "-o", "json"]).ok().json();

    assert_eq!(unchanged.stdout, "");
    assert!(
        unchanged.stderr.contains("nothing has changed"),
        "{unchanged:?}"
    );
    let lines: Vec<_> = changed.stdout.lines().collect();
    let wanted = [
        "limits.session_bandwidth: in force",
        "monitor.listen: needs a restart",
    ];
    assert_eq!(lines, wanted);
    assert_eq!(again["changed"], serde_json::json!([]));
    assert_eq!(again["restart"], serde_json::json!(["monitor.listen"]));
}

#[test]
fn keys_of_the_api_come_and_go_with_a_reload() {
    let key = vncgate(&["key", "new", "portal"]).ok();
    let secret = key.stdout.trim().to_owned();
    let gateway = Setup::new().start();
    let with_key = || {
        let request = Request::new("GET", "/v1/instances");
        let request = request.header("Authorization", &format!("Bearer {secret}"));
        gateway.http(&request).status
    };
    let without = || gateway.http(&Request::new("GET", "/v1/instances")).status;
    assert_eq!(without(), 200, "loopback needs no key while there is none");

    let hash = key.stderr.split('"').find(|word| word.len() == 64).unwrap();
    rewrite(&gateway, |config| {
        let entry = toml::Table::from_iter([
            ("name".to_owned(), "portal".into()),
            ("sha256".to_owned(), hash.into()),
        ]);
        set(config, "api", "key", vec![toml::Value::Table(entry)]);
    });
    gateway.cli(&["reload"]).ok();

    assert_eq!((without(), with_key()), (401, 200));
    rewrite(&gateway, |config| {
        set(config, "api", "key", Vec::<toml::Value>::new());
    });
    gateway.cli(&["reload"]).ok();
    assert_eq!(without(), 200);
}

#[test]
fn limits_on_sessions_and_origins_follow_a_reload() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut first = gateway.open("web-1");
    shake_hands(&mut first);

    rewrite(&gateway, |config| {
        set(config, "auth", "max_sessions_per_instance", 1);
    });
    gateway.cli(&["reload"]).ok();
    let mut second = gateway.open("web-1");
    let refused = second.expect_close();
    rewrite(&gateway, |config| {
        set(config, "auth", "max_sessions_per_instance", 0);
        set(config, "proxy", "max_sessions", 1);
    });
    gateway.cli(&["reload"]).ok();
    let busy = gateway.upgrade("web-1").open(gateway.listen).unwrap_err();

    assert_eq!(refused.code, Some(4010), "{refused:?}");
    assert_eq!(busy.status, 503);
    first.send(b"alive");
    assert_eq!(first.read(5), b"alive");
}

#[test]
fn the_log_says_more_after_a_reload_that_asks_for_it() {
    let gateway = Setup::new().set("log", "level", "info").start();
    let debug = |event: &Value| event["level"] == "DEBUG";
    assert!(!gateway.events().iter().any(debug));

    rewrite(&gateway, |config| set(config, "log", "level", "debug"));
    gateway.cli(&["reload"]).ok();
    let mut half = TcpStream::connect(gateway.listen).unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    drop(half);

    let _line = gateway.wait_for_event("a line for those who look for faults", debug);
}
