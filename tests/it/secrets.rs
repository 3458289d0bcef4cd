//! Nothing that the program writes, at its most talkative, shows a secret.

use std::fs;

use crate::rig::gateway::{ConsoleUrl, Gateway, Setup};
use crate::rig::http::{Request, Response};
use crate::rig::peers::Peer;
use crate::rig::process::Stream;
use crate::rig::rfb::shake_hands;
use crate::rig::ws::Upgrade;
use crate::rig::xml::Domain;

/// A token that nobody issued, presented everywhere a token can be put.
const CANARY: &str = "canary-5e1f00d-token";

/// An API key that nobody made.
const FOREIGN_KEY: &str = "vgk_cafe5e1f00dcafe5e1f00dcafe5e1f00dcafe5e1f00dcafe5e1f00dcafe5e1f";

/// The password of a display, as libvirt's XML with security info holds it.
const PASSWORD: &str = "canary-5e1f00d-password";

#[test]
fn no_secret_is_written_anywhere_at_trace_level() {
    let peer = Peer::echo();
    let mut witness = Witness::new(&peer);

    let by_api = witness.issue_by_api();
    let by_command = witness.issue_by_command();
    witness.run_commands(&by_command);
    witness.ask_pages(&by_api);
    for token in [&by_api, &by_command] {
        witness.hold_a_session(token);
        witness.be_refused(&query(token).with("Origin", "http://x"));
    }
    witness.revoke_and_come_back(&by_api, &by_command);
    witness.present_the_canary();
    witness.gather_the_log();

    let secrets = [
        &witness.key,
        &by_api,
        &by_command,
        CANARY,
        FOREIGN_KEY,
        PASSWORD,
    ];
    witness.assert_saw_none_of(&secrets);
}

#[test]
fn a_failing_start_shows_no_secret_of_its_config() {
    let (key, _) = crate::api::new_key("ops");

    let refused = Setup::new().key("ops", &key).refuse_to_start();

    assert_eq!(refused.code, 3, "a key is no hash: {refused:?}");
    assert!(!format!("{refused:?}").contains(&key), "{refused:?}");
}

#[test]
fn the_url_of_a_demo_stands_on_stdout_alone() {
    let setup = Setup::new().set("log", "level", "trace");
    let gateway = setup.argument("--demo").start();

    let url: ConsoleUrl = gateway.printed_url();

    let log = gateway.text(Stream::Err);
    assert!(!log.contains(&url.token()), "{log}");
}

/// Uses a gateway in every way and keeps all that was written, except where a secret is what was
/// asked for.
#[derive(Debug)]
struct Witness {
    gateway: Gateway,
    key: String,
    texts: Vec<String>,
}

impl Witness {
    /// A gateway that logs all it can, with a key and an instance whose XML holds a password.
    fn new(peer: &Peer) -> Self {
        let (key, hash) = crate::api::new_key("ops");
        let graphics = format!("<graphics type='vnc' port='5999' passwd='{PASSWORD}'/>");
        let guarded = Domain::new("guarded").graphics(&graphics);
        let setup = Setup::new().instance("web-1", &peer.address());
        let setup = setup.key("ops", &hash).xml_directory();
        fs::write(setup.xml_path().join("guarded.xml"), guarded.dump()).unwrap();
        Self {
            gateway: setup.set("log", "level", "trace").start(),
            key,
            texts: Vec::new(),
        }
    }

    fn issue_by_api(&self) -> String {
        let response = self.gateway.http(&self.authorized(create()));
        assert_eq!(response.status, 201, "{response:?}");
        response.json()["token"].as_str().unwrap().to_owned()
    }

    fn issue_by_command(&self) -> String {
        self.gateway.issue("web-1").token()
    }

    fn run_commands(&mut self, token: &str) {
        let config = self.gateway.config.clone();
        for arguments in [
            &["token", "show", token][..],
            &["token", "show", token, "-o", "json"],
            &["token", "list"],
            &["token", "list", "-o", "json"],
            &["instance", "list"],
            &["instance", "show", "guarded", "-o", "json"],
            &["config", "show", "--config", config.to_str().unwrap()],
            &["token", "show", CANARY],
            &["token", "revoke", CANARY],
        ] {
            let answer = self.gateway.cli(arguments);
            self.texts.push(answer.stdout + &answer.stderr);
        }
    }

    fn ask_pages(&mut self, token: &str) {
        for path in ["/v1/tokens", "/v1/instances", "/openapi.json"] {
            self.ask(&self.authorized(Request::new("GET", path)));
        }
        let nowhere = format!("/nothing?token={token}&key={}", self.key);
        self.ask(&Request::new("GET", &nowhere));
        self.ask(&Request::new(
            "GET",
            &format!("/vnc.html?path=%3Ftoken%3D{token}"),
        ));
        self.ask(&create().header("Authorization", &format!("Bearer {FOREIGN_KEY}")));
        self.ask(&create().header("Authorization", &format!("Basic {}", self.key)));
        for path in ["/metrics", "/readyz", &format!("/nothing?token={CANARY}")] {
            let page = self.gateway.watch(path);
            self.keep(&page);
        }
    }

    fn hold_a_session(&self, token: &str) {
        let mut ws = query(token).open(self.gateway.listen).unwrap();
        shake_hands(&mut ws);
        ws.send_close(1000, "");
        ws.expect_close();
    }

    fn revoke_and_come_back(&mut self, by_api: &str, by_command: &str) {
        let revoked = self.gateway.cli(&["token", "revoke", by_command]).ok();
        self.texts.push(revoked.stdout + &revoked.stderr);
        self.be_refused(&query(by_command));
        let revoke = Request::new("DELETE", &format!("/v1/tokens/{by_api}"));
        self.ask(&self.authorized(revoke));
    }

    fn present_the_canary(&mut self) {
        self.be_refused(&Upgrade::new(&format!("/{CANARY}?token={CANARY}")));
        self.be_refused(&Upgrade::new("/").and("Cookie", &format!("token={CANARY}")));
        self.ask(&Request::new("GET", &format!("/v1/tokens/{CANARY}")));
        let old = query(CANARY).with("Sec-WebSocket-Version", "1");
        let response = old.open(self.gateway.listen).unwrap_err();
        self.keep(&response);
    }

    fn gather_the_log(&mut self) {
        self.gateway.wait_for_sessions(0);
        let traced = self
            .gateway
            .events()
            .iter()
            .any(|event| event["level"] == "TRACE");
        assert!(
            traced,
            "the log is not at trace level, so this proves nothing"
        );
        for stream in [Stream::Out, Stream::Err] {
            self.texts.push(self.gateway.text(stream));
        }
    }

    #[track_caller]
    fn be_refused(&mut self, upgrade: &Upgrade) {
        let mut ws = upgrade.clone().open(self.gateway.listen).unwrap();
        let closed = ws.expect_close();
        assert!(closed.code >= Some(4000), "{closed:?}");
        self.texts.push(closed.reason);
    }

    fn ask(&mut self, request: &Request) {
        let response = self.gateway.http(request);
        self.keep(&response);
    }

    fn keep(&mut self, response: &Response) {
        let body = String::from_utf8_lossy(&response.body);
        self.texts.push(format!("{:?}\n{body}", response.headers));
    }

    fn authorized(&self, request: Request) -> Request {
        request.header("Authorization", &format!("Bearer {}", self.key))
    }

    #[track_caller]
    fn assert_saw_none_of(&self, secrets: &[&str]) {
        for secret in secrets {
            let lines = self.texts.iter().flat_map(|text| text.lines());
            let leaks: Vec<_> = lines.filter(|line| line.contains(secret)).collect();
            assert!(leaks.is_empty(), "{secret} is shown in {leaks:#?}");
        }
    }
}

fn create() -> Request {
    let body = serde_json::json!({ "instance": "web-1", "type": "novnc" });
    Request::new("POST", "/v1/consoles").json(&body)
}

fn query(token: &str) -> Upgrade {
    Upgrade::new(&format!("/websockify?token={token}"))
}
