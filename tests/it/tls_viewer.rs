//! https towards viewers: certificates and their renewal, names, both versions of HTTP, and the way
//! from clear text.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::reload::{hang_up, rewrite, set};
use crate::rig::browser::{artifact, browse};
use crate::rig::certificates::Authority;
use crate::rig::gateway::{Gateway, Setup, run};
use crate::rig::http::{Request, connect};
use crate::rig::https::{TlsClient, TlsPipe, get, shown};
use crate::rig::peers::{Peer, pattern};
use crate::rig::process::{peer, tied};
use crate::rig::rfb::shake_hands;
use crate::rig::wait::{until, until_settled};

/// A CA and what it vouches for: `gate` for console.example and 127.0.0.1, `other` for other.example
/// and every name below it.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let place = TempDir::with_prefix("vncgate-tls-").unwrap();
        let pki = place.path().join("pki");
        let authority = Authority::new(&pki, "ca.pem");
        let gate = &["console.example", "127.0.0.1"][..];
        for (file, names) in [
            ("gate", gate),
            ("next", gate),
            ("other", &["other.example", "*.other.example"]),
        ] {
            let (certificate, key) = (format!("{file}.pem"), format!("{file}.key"));
            authority.vouch(names, (2020, 2099), &certificate, &key);
        }
        Self(place)
    }

    fn path(&self, file: &str) -> String {
        let path = self.0.path().join("pki").join(file);
        path.to_str().unwrap().to_owned()
    }

    /// `[[tls.extra]]` with the certificate `other` and a key.
    fn extra(&self, key: &str) -> Vec<toml::Value> {
        let extra = toml::Table::from_iter([
            ("certificate".to_owned(), self.path("other.pem").into()),
            ("key".to_owned(), self.path(key).into()),
        ]);
        vec![toml::Value::Table(extra)]
    }

    pub(crate) fn client(&self) -> TlsClient {
        TlsClient::new(self.path("ca.pem").as_ref())
    }

    pub(crate) fn setup(&self) -> Setup {
        let setup = Setup::new().set("tls", "certificate", self.path("gate.pem"));
        setup.set("tls", "key", self.path("gate.key"))
    }

    /// Puts another file in the place of one, as a renewal does.
    fn replace(&self, file: &str, with: &str) {
        let new = self.path("new");
        fs::copy(self.path(with), &new).unwrap();
        fs::rename(new, self.path(file)).unwrap();
    }

    fn pipe(&self, gateway: &Gateway) -> TlsPipe {
        TlsPipe::to(gateway.listen, &self.client(), "127.0.0.1")
    }
}

#[test]
fn chromium_shows_a_console_over_https_and_wss() {
    let setup = Setup::new().argument("--demo");
    let gateway = setup.set("tls", "self_signed", true).start();
    let url = gateway.printed_url();
    let picture = artifact("console-https.png");

    let seen = browse(
        &url,
        &[
            &["--wait-state", "connected"][..],
            &["--expect-pixel", "8,8,#2060c0", "--press", "a"],
            &["--then-pixel", "8,8,#20c060", "--no-errors"],
            &["--screenshot", picture.to_str().unwrap()],
        ]
        .concat(),
    );

    assert_eq!(url.0.scheme(), "https");
    seen.ok();
    assert!(fs::metadata(picture).unwrap().len() > 10_000);
}

#[test]
fn a_session_over_tls_carries_every_byte_in_both_versions() {
    let (files, peer) = (Files::new(), Peer::echo());
    let gateway = files.setup().instance("web-1", &peer.address()).start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = TlsClient::with_versions(files.path("ca.pem").as_ref(), &[version]);
        let pipe = TlsPipe::to(gateway.listen, &client, "console.example");
        let bytes = pattern(5, 3_000_000);

        let mut ws = gateway.upgrade("web-1").open(pipe.address()).unwrap();
        shake_hands(&mut ws);
        let mut twin = ws.twin();
        let sent = bytes.clone();
        let sending = thread::spawn(move || {
            for part in sent.chunks(50_000) {
                twin.send(part);
            }
        });
        assert!(ws.read(bytes.len()) == bytes, "other bytes came back");
        sending.join().unwrap();
        ws.send_close(1000, "");

        assert_eq!(ws.expect_close().code, Some(1000));
    }
}

#[test]
fn a_refusal_over_tls_still_has_its_sentence() {
    let (files, peer) = (Files::new(), Peer::echo());
    let gateway = files.setup().instance("web-1", &peer.address()).start();
    let pipe = files.pipe(&gateway);

    let upgrade = gateway
        .upgrade("web-1")
        .with("Origin", "https://evil.example");
    let closed = upgrade.open(pipe.address()).unwrap().expect_close();

    assert_eq!(closed.code, Some(4003), "{closed:?}");
}

#[test]
fn the_certificate_goes_by_the_name_that_is_asked_for() {
    let files = Files::new();
    let extra = files.extra("other.key");
    let gateway = files.setup().set("tls", "extra", extra).start();
    let client = files.client();
    let by = |name: &str| client.connect(gateway.listen, name);

    let own = shown(&by("console.example").unwrap());
    let other = shown(&by("other.example").unwrap());
    let below = shown(&by("a.other.example").unwrap());
    let by_address = shown(&by("127.0.0.1").unwrap());
    let unknown = by("stranger.example").unwrap_err();

    assert_ne!(own, other);
    assert_eq!((other, own), (below, by_address));
    assert!(
        unknown.to_string().contains("stranger.example"),
        "{unknown}"
    );
}

#[test]
fn a_renewed_certificate_counts_for_new_connections_and_touches_no_session() {
    let (files, peer) = (Files::new(), Peer::echo());
    let gateway = files.setup().instance("web-1", &peer.address()).start();
    let (client, pipe) = (files.client(), files.pipe(&gateway));
    let certificate = || shown(&client.connect(gateway.listen, "console.example").unwrap());
    let mut ws = gateway.upgrade("web-1").open(pipe.address()).unwrap();
    shake_hands(&mut ws);
    let before = certificate();

    files.replace("gate.pem", "next.pem");
    gateway.wait_for_event("that the pair is of no use", |event| {
        event["level"] == "WARN" && event["why"].to_string().contains("gate.pem")
    });
    let meanwhile = certificate();
    files.replace("gate.key", "next.key");
    until("the new certificate", || {
        (certificate() != before).then_some(())
    });
    ws.send(b"still here");

    assert_eq!(meanwhile, before, "half a renewal changes nothing");
    assert_eq!(ws.read(10), b"still here");
    let days = gateway.metric("vncgate_certificate_days_left", "gate.pem");
    assert!(days > 10_000.0, "{days}");
}

#[test]
fn a_reload_shows_the_certificates_that_the_config_names_by_then() {
    let (files, peer) = (Files::new(), Peer::echo());
    let gateway = files.setup().instance("web-1", &peer.address()).start();
    let (client, pipe) = (files.client(), files.pipe(&gateway));
    let by = |name: &str| client.connect(gateway.listen, name);
    let mut ws = gateway.upgrade("web-1").open(pipe.address()).unwrap();
    shake_hands(&mut ws);
    assert!(by("other.example").is_err());

    rewrite(&gateway, |config| {
        set(config, "tls", "extra", files.extra("other.key"));
    });
    let event = hang_up(&gateway);
    let added = shown(&by("other.example").unwrap());
    rewrite(&gateway, |config| {
        set(config, "tls", "extra", files.extra("gate.key"));
    });
    let bad = gateway.cli(&["reload"]);
    let kept = shown(&by("other.example").unwrap());
    ws.send(b"still here");

    assert_eq!(
        (&event["changed"], &event["restart"]),
        (&"tls.extra".into(), &"none".into())
    );
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.stderr.contains("other.pem"), "{bad:?}");
    assert_eq!(added, kept, "a bad one changes nothing");
    assert_eq!(ws.read(10), b"still here");
}

#[test]
fn whether_there_is_tls_at_all_is_decided_at_the_start() {
    let files = Files::new();
    let gateway = files.setup().start();

    rewrite(&gateway, |config| {
        config.remove("tls").unwrap();
    });
    let event = hang_up(&gateway);

    assert_eq!(event["restart"], "tls.certificate, tls.key", "{event}");
    let client = files.client();
    assert!(client.connect(gateway.listen, "console.example").is_ok());
}

#[test]
fn pages_and_api_come_over_http_2_and_http_1_and_browsers_are_told_to_stay() {
    let files = Files::new();
    let gateway = files.setup().start();
    for (version, said) in [("--http2", "HTTP/2 "), ("--http1.1", "HTTP/1.1 ")] {
        for (path, status) in [("/vnc.html", "200"), ("/v1/instances", "200")] {
            let answer = curl(&files, gateway.listen, &[version, "-i"], path);
            assert!(answer.starts_with(&format!("{said}{status}")), "{answer}");
            let hsts = "strict-transport-security: max-age=2592000";
            assert!(answer.to_lowercase().contains(hsts), "{answer}");
        }
    }
    let links = curl(
        &files,
        gateway.listen,
        &["-H", "Accept: application/json"],
        "/",
    );
    assert!(
        links.contains(&format!("https://{}/v2.1/", gateway.listen)),
        "{links}"
    );

    let gateway = files.setup().set("tls", "hsts", "0s").start();
    let answer = curl(&files, gateway.listen, &["-i"], "/vnc.html");
    assert!(
        !answer.to_lowercase().contains("strict-transport"),
        "{answer}"
    );
}

fn curl(files: &Files, to: SocketAddr, arguments: &[&str], path: &str) -> String {
    let mut command = tied(&peer("curl"));
    command.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]);
    command.arg(files.path("ca.pem")).args(arguments);
    command.arg(format!("https://{to}{path}"));
    run(&mut command).ok().stdout
}

#[test]
fn clear_text_is_sent_on_to_https_and_takes_nothing() {
    let files = Files::new();
    let setup = files
        .setup()
        .set("tls", "redirect_listen", vec!["127.0.0.1:0"]);
    let gateway = setup.start();
    let ready = gateway.wait_for_event("readiness", |event| event["message"] == "ready");
    let redirect: SocketAddr = ready["redirect"].as_str().unwrap().parse().unwrap();
    let ask = |method: &str, host: &str| {
        let request = Request::new(method, "/vnc.html?path=%3Ftoken%3Dx");
        request.header("Host", host).send(redirect)
    };

    let found = ask("GET", "console.example:8080");
    let slashes = Request::new("GET", "//evil.example/%2f..").header("Host", "h");
    let slashes = slashes.send(redirect);
    let bad = ask("GET", "a@b");
    let posted = ask("POST", "console.example");

    let port = gateway.listen.port();
    let to = format!("https://console.example:{port}/vnc.html?path=%3Ftoken%3Dx");
    assert_eq!((found.status, found.header("location")), (308, Some(&*to)));
    let host = format!("https://h:{port}//evil.example/%2f..");
    assert_eq!(slashes.header("location"), Some(&*host));
    assert_eq!((bad.status, posted.status), (400, 403));
}

#[test]
fn http_on_the_port_of_https_is_told_so() {
    let gateway = Files::new();
    let gateway = gateway.setup().start();

    let answer = get(&mut connect(gateway.listen), "x", "/");

    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("speaks https"), "{answer}");
}

#[test]
fn the_monitor_and_an_api_of_its_own_speak_it_when_they_are_to() {
    let files = Files::new();
    let setup = files.setup().set("api", "listen", vec!["127.0.0.1:0"]);
    let listeners = vec!["monitor", "api"];
    let gateway = setup.set("tls", "listeners", listeners).start();
    let ready = gateway.wait_for_event("readiness", |event| event["message"] == "ready");
    let api = ready["api"].as_str().unwrap().parse().unwrap();

    let health = curl(&files, gateway.monitor, &[], "/healthz");
    let instances = curl(&files, api, &[], "/v1/instances");
    let page = gateway.http(&Request::new("GET", "/vnc.html"));

    assert_eq!(health, "ok\n");
    assert!(instances.contains("instances"), "{instances}");
    assert_eq!(page.status, 200);
}

#[test]
fn a_self_signed_certificate_is_known_by_its_fingerprint_in_the_log() {
    let gateway = Setup::new().set("tls", "self_signed", true).start();
    let event = gateway.wait_for_event("the fingerprint", |event| event["sha256"].is_string());
    let logged = event["sha256"].as_str().unwrap().to_owned();

    let address = gateway.listen.to_string();
    let mut openssl = Command::new("sh");
    openssl.arg("-c").arg(format!(
        "openssl s_client -connect {address} </dev/null 2>/dev/null | \
         openssl x509 -noout -fingerprint -sha256 -checkip 127.0.0.1"
    ));
    let seen = run(&mut openssl).ok().stdout;

    assert!(seen.contains(&logged), "{seen} {logged}");
    assert!(seen.contains("does match certificate"), "{seen}");
}

#[test]
fn files_of_no_use_are_an_error_at_the_start() {
    let files = Files::new();
    for (key, word) in [("other.key", "gate.pem"), ("none.key", "none.key")] {
        let setup = files.setup().set("tls", "key", files.path(key));
        let answer = setup.refuse_to_start();
        assert_ne!(answer.code, 0);
        assert!(answer.stderr.contains(word), "{answer:?}");
    }
}

#[test]
fn who_stalls_in_a_handshake_or_in_http_2_is_let_go() {
    let files = Files::new();
    let setup = files.setup().set("tls", "handshake_timeout", "1s");
    let gateway = setup.set("proxy", "header_timeout", "1s").start();
    let begun = Instant::now();

    for beginning in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut stream = connect(gateway.listen);
        stream.write_all(beginning).unwrap();
        let _reset = stream.read_to_end(&mut Vec::new()).is_err();
    }
    // The preface and empty settings; then the head of a request that never ends.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for rest in [&b""[..], b"\0\0\x01\x01\0\0\0\0\x01\x82"] {
        let client = files.client().offering(&["h2"]);
        let mut stream = client.connect(gateway.listen, "127.0.0.1").unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
        stream.write_all(&[preface, rest].concat()).unwrap();
        let _reset = stream.read_to_end(&mut Vec::new()).is_err();
    }

    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "{:?}",
        begun.elapsed()
    );
    until("the handshakes to be counted", || {
        let count = gateway.metric("vncgate_turned_away_total", "handshake");
        count.ge(&2.0).then_some(())
    });
}

#[test]
fn quiet_sessions_over_tls_hold_little_memory() {
    const COUNT: u32 = 200;
    let (files, peer) = (Files::new(), Peer::echo());
    let gateway = files.setup().instance("web-1", &peer.address()).start();
    let (pipe, upgrade) = (files.pipe(&gateway), gateway.upgrade("web-1"));
    let open = || {
        let mut ws = upgrade.clone().open(pipe.address()).unwrap();
        shake_hands(&mut ws);
        // Large enough that every buffer on the way is used once.
        let bytes = pattern(3, 100_000);
        ws.send(&bytes);
        assert!(ws.read(bytes.len()) == bytes);
        ws
    };
    let _first: Vec<_> = (0..20).map(|_| open()).collect();
    let before = settled_memory(&gateway);

    let sessions: Vec<_> = (0..COUNT).map(|_| open()).collect();
    gateway.wait_for_sessions(COUNT + 20);
    let after = settled_memory(&gateway);

    let each = (after - before) / f64::from(COUNT);
    println!("a quiet session over TLS holds {each:.0} bytes");
    assert!(each < 48_000.0, "{each} bytes each");
    drop(sessions);
}

/// Looked at twice a second by the gateway.
fn settled_memory(gateway: &Gateway) -> f64 {
    let calm = Duration::from_millis(1200);
    until_settled("its memory", calm, || {
        gateway.metric("vncgate_memory_resident_bytes", "")
    })
}
