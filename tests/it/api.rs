//! Our own HTTP API: who may call it, what it answers, and that its description tells the truth.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::rig::gateway::{ConsoleUrl, Gateway, Setup, vncgate};
use crate::rig::http::{Request, Response};
use crate::rig::peers::Peer;
use crate::rig::rfb::shake_hands;
use crate::rig::ws::Upgrade;
use crate::rig::xml::Domain;

#[test]
fn a_post_yields_a_url_that_opens_the_console() {
    let peer = Peer::echo();
    let (gateway, key) = keyed(&peer);

    let created = gateway.http(&create("web-1").header("Authorization", &key));

    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.header("cache-control"), Some("no-store"));
    let body = created.json();
    let url = ConsoleUrl::parse(body["url"].as_str().unwrap());
    assert_eq!(body["token"], url.token());
    assert_eq!(body["type"], "novnc");
    assert_eq!(body["instance"]["name"], "web-1");
    let mut ws = Upgrade::new(&url.upgrade_path())
        .open(gateway.listen)
        .unwrap();
    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn novnc_is_the_type_when_none_is_named() {
    let peer = Peer::echo();
    let (gateway, key) = keyed(&peer);

    let request = post("/v1/consoles", &json!({ "instance": "web-1" }));
    let created = gateway.http(&request.header("Authorization", &key));

    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.json()["type"], "novnc");
}

#[test]
fn a_caller_without_the_key_is_unauthorized() {
    let peer = Peer::echo();
    let (gateway, key) = keyed(&peer);
    let (other, _) = new_key("other");
    let bare = key.strip_prefix("Bearer ").unwrap();
    for authorization in [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(format!("Bearer {other}")),
        Some(format!("Basic {bare}")),
        Some(bare.to_owned()),
        Some(format!("{key}x")),
        Some(format!("Bearer {}", sha256(bare))),
    ] {
        let request = create("web-1");
        let request = authorization.iter().fold(request, |request, value| {
            request.header("Authorization", value)
        });

        let refused = gateway.http(&request);

        assert_problem(&refused, 401);
        let challenge = refused.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer"), "{challenge}");
    }
    assert_eq!(
        gateway.cli(&["token", "list", "-o", "json"]).ok().json(),
        json!({ "tokens": [] })
    );
}

#[test]
fn every_route_wants_the_key_once_there_is_one() {
    let peer = Peer::echo();
    let (gateway, _) = keyed(&peer);
    for (method, path) in [
        ("GET", "/v1/instances"),
        ("GET", "/v1/tokens"),
        ("DELETE", "/v1/tokens/0123456789abcdef"),
    ] {
        assert_problem(&gateway.http(&Request::new(method, path)), 401);
    }
}

#[test]
fn one_of_several_keys_is_enough() {
    let ((first, first_hash), (second, second_hash)) = (new_key("first"), new_key("second"));
    let gateway = Setup::new()
        .key("first", &first_hash)
        .key("second", &second_hash)
        .start();
    for key in [first, second] {
        let request = Request::new("GET", "/v1/tokens");

        let listed = gateway.http(&request.header("Authorization", &format!("Bearer {key}")));

        assert_eq!(listed.status, 200);
    }
}

#[test]
fn without_a_key_the_loopback_may_call() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let created = gateway.http(&create("web-1"));

    assert_eq!(created.status, 201, "{created:?}");
}

#[test]
fn without_a_key_a_caller_behind_a_trusted_proxy_is_not_the_loopback() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup
        .set("proxy", "trusted_proxies", vec!["127.0.0.1/32"])
        .start();

    let far = gateway.http(&create("web-1").header("X-Forwarded-For", "203.0.113.9"));

    assert!([401, 403].contains(&far.status), "{far:?}");
}

#[test]
fn without_a_key_pages_of_other_sites_may_not_call() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let foreign_page = gateway.http(&create("web-1").header("Origin", "https://evil.example"));
    let rebound_name = gateway.http(&create("web-1").header("Host", "evil.example"));

    assert!(
        [401, 403].contains(&foreign_page.status),
        "{foreign_page:?}"
    );
    assert!(
        [401, 403, 421].contains(&rebound_name.status),
        "{rebound_name:?}"
    );
    assert_eq!(
        gateway.cli(&["token", "list", "-o", "json"]).ok().json(),
        json!({ "tokens": [] })
    );
}

#[test]
fn without_a_key_a_console_page_on_another_host_means_callers_from_elsewhere() {
    let peer = Peer::echo();
    for key in ["public_url", "novnc_url"] {
        let setup = Setup::new().instance("web-1", &peer.address());
        let gateway = setup.set("proxy", key, "https://console.example/").start();

        assert_eq!(gateway.http(&create("web-1")).status, 401, "{key}");
    }
}

#[test]
fn head_is_answered_like_get_and_a_405_tells_what_works() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());

    let head = gateway.http(&Request::new("HEAD", "/v1/instances"));
    let get = gateway.http(&Request::new("GET", "/v1/instances"));
    let refused = gateway.http(&Request::new("PUT", "/v1/instances"));
    let monitor = Request::new("PUT", "/readyz").send(gateway.monitor);

    assert_eq!((head.status, get.status), (200, 200));
    assert_eq!(head.header("content-length"), get.header("content-length"));
    for refused in [refused, monitor] {
        assert_eq!(refused.status, 405);
        assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    }
}

#[test]
fn an_unknown_instance_is_not_found() {
    let peer = Peer::echo();
    let (gateway, key) = keyed(&peer);

    let refused = gateway.http(&create("nobody").header("Authorization", &key));

    let problem = assert_problem(&refused, 404);
    assert!(
        problem["detail"].as_str().unwrap().contains("nobody"),
        "{problem}"
    );
}

#[test]
fn a_request_that_makes_no_sense_is_a_problem_with_a_code() {
    let peer = Peer::echo();
    let (gateway, key) = keyed(&peer);
    let consoles = |body: &str| Request::new("POST", "/v1/consoles").json(body);
    for (request, status) in [
        (consoles(""), 400),
        (consoles("{"), 400),
        (consoles("[]"), 400),
        (consoles("{}"), 400),
        (consoles(r#"{"instance": 7}"#), 400),
        (
            consoles(r#"{"instance": "web-1", "type": "hologram"}"#),
            400,
        ),
        (consoles(r#"{"instance": "web-1", "colour": "red"}"#), 400),
        (
            consoles(&format!(r#"{{"instance": "{}"}}"#, "x".repeat(1 << 21))),
            413,
        ),
        (Request::new("PUT", "/v1/consoles"), 405),
        (Request::new("GET", "/v1/nothing"), 404),
        (Request::new("DELETE", "/v1/tokens/0123456789abcdef"), 404),
        (Request::new("DELETE", "/v1/tokens"), 405),
    ] {
        let refused = gateway.http(&request.header("Authorization", &key));

        assert_problem(&refused, status);
    }
}

#[test]
fn a_token_is_listed_and_revoked_over_http() {
    let peer = Peer::echo();
    let (gateway, key) = keyed(&peer);
    let created = gateway
        .http(&create("web-1").header("Authorization", &key))
        .json();
    let id = created["id"].as_str().unwrap();

    let listed = gateway.http(&Request::new("GET", "/v1/tokens").header("Authorization", &key));
    let delete = Request::new("DELETE", &format!("/v1/tokens/{id}")).header("Authorization", &key);
    let (gone, again) = (gateway.http(&delete), gateway.http(&delete));

    assert!(listed.text().contains(id), "{listed:?}");
    assert!(
        !listed.text().contains(created["token"].as_str().unwrap()),
        "{listed:?}"
    );
    assert_eq!((gone.status, &gone.json()["id"]), (200, &created["id"]));
    assert_problem(&again, 404);
    let url = ConsoleUrl::parse(created["url"].as_str().unwrap());
    let mut ws = Upgrade::new(&url.upgrade_path())
        .open(gateway.listen)
        .unwrap();
    assert_eq!(ws.expect_close().code, Some(4001));
}

#[test]
fn the_caller_stands_in_the_token_list() {
    let peer = Peer::echo();
    let (gateway, key) = keyed(&peer);

    gateway.http(&create("web-1").header("Authorization", &key));

    let listed = gateway.cli(&["token", "list", "-o", "json"]).ok().stdout;
    assert!(listed.contains("ops"), "{listed}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of requests")]
fn the_description_tells_the_truth_about_every_answer() {
    let peer = Peer::echo();
    let (key, hash) = new_key("ops");
    let setup = Setup::new().instance("web-1", &peer.address());
    let setup = setup.key("ops", &hash).xml_directory();
    let off = Domain::new("db-1").off().dump();
    fs::write(setup.xml_path().join("db-1.xml"), off).unwrap();
    let gateway = setup.start();
    let description = gateway.http(&Request::new("GET", "/openapi.json"));
    let description = Description::new(description.json());
    let bearer = format!("Bearer {key}");
    let authorized = |request: Request| request.header("Authorization", &bearer);
    let created = gateway.http(&authorized(create("web-1"))).json();
    let id = created["id"].as_str().unwrap();
    let viewing = format!("/?token={}", created["token"].as_str().unwrap());
    let viewing = Upgrade::new(&viewing).open(gateway.listen).unwrap();
    let sessions = gateway.http(&authorized(Request::new("GET", "/v1/sessions")));
    let session = sessions.json()["sessions"][0]["id"].clone();
    let session = format!("/v1/sessions/{}", session.as_str().unwrap());

    let mut seen = BTreeSet::new();
    let screen = "/v1/instances/{instance}/screenshot";
    let no_session = format!("/v1/sessions/{}", uuid::Uuid::nil());
    let change = Request::new("PATCH", &session).json(r#"{"rights": "view"}"#);
    let changed = gateway.http(&authorized(change));
    assert_eq!(changed.status, 200, "{changed:?}");
    seen.insert(description.hold("PATCH", "/v1/sessions/{id}", &changed));
    let log = "/v1/instances/{instance}/log";
    let huge = json!({ "instance": "x".repeat(1 << 21) });
    let text = Request::new("POST", "/v1/consoles").header("Content-Type", "text/plain");
    for (described, method, path, status) in [
        ("/v1/instances", "GET", "/v1/instances", 200),
        ("/v1/instances", "POST", "/v1/instances", 405),
        (
            "/v1/instances/{instance}",
            "GET",
            "/v1/instances/web-1",
            200,
        ),
        ("/v1/instances/{instance}", "GET", "/v1/instances/db-1", 200),
        (
            "/v1/instances/{instance}",
            "GET",
            "/v1/instances/nobody",
            404,
        ),
        (screen, "GET", "/v1/instances/web-1/screenshot", 400),
        (screen, "GET", "/v1/instances/nobody/screenshot", 404),
        (screen, "GET", "/v1/instances/db-1/screenshot", 409),
        (screen, "POST", "/v1/instances/web-1/screenshot", 405),
        ("/v1/sessions", "GET", "/v1/sessions", 200),
        ("/v1/sessions", "POST", "/v1/sessions", 405),
        ("/v1/sessions/{id}", "GET", &session, 200),
        ("/v1/sessions/{id}", "PATCH", &session, 415),
        ("/v1/sessions/{id}", "PATCH", &no_session, 404),
        ("/v1/sessions/{id}", "DELETE", &session, 200),
        ("/v1/sessions/{id}", "DELETE", "/v1/sessions/x", 400),
        ("/v1/sessions/{id}", "GET", &no_session, 404),
        ("/v1/sessions/{id}", "DELETE", &no_session, 404),
        (log, "GET", "/v1/instances/web-1/log", 404),
        (log, "GET", "/v1/instances/web-1/log?lines=-1", 400),
        (log, "GET", "/v1/instances/nobody/log", 404),
        (log, "POST", "/v1/instances/web-1/log", 405),
        ("/v1/tokens", "GET", "/v1/tokens", 200),
        ("/v1/tokens", "DELETE", "/v1/tokens", 405),
        ("/v1/tokens/{id}", "GET", &format!("/v1/tokens/{id}"), 200),
        ("/v1/tokens/{id}", "GET", "/v1/tokens/x", 400),
        ("/v1/tokens/{id}", "DELETE", "/v1/tokens/x", 400),
        (
            "/v1/tokens/{id}",
            "DELETE",
            &format!("/v1/tokens/{id}"),
            200,
        ),
        (
            "/v1/tokens/{id}",
            "DELETE",
            &format!("/v1/tokens/{id}"),
            404,
        ),
        ("/v1/tokens/{id}", "GET", &format!("/v1/tokens/{id}"), 404),
        ("/v1/consoles", "GET", "/v1/consoles", 405),
    ] {
        let request = Request::new(method, path);
        let (stranger, friend) = (gateway.http(&request), gateway.http(&authorized(request)));
        assert_eq!(
            (stranger.status, friend.status),
            (401, status),
            "{method} {path}"
        );
        if status != 405 {
            seen.insert(description.hold(method, described, &stranger));
            seen.insert(description.hold(method, described, &friend));
        }
    }
    for (request, status) in [
        (create("web-1"), 201),
        (create("nobody"), 404),
        (create("db-1"), 409),
        (post("/v1/consoles", &json!({})), 400),
        (post("/v1/consoles", &huge), 413),
        (text, 415),
    ] {
        let response = gateway.http(&authorized(request));
        assert_eq!(response.status, status, "{response:?}");
        seen.insert(description.hold("POST", "/v1/consoles", &response));
    }
    let stranger = gateway.http(&create("web-1"));
    seen.insert(description.hold("POST", "/v1/consoles", &stranger));
    drop(viewing);

    assert_eq!(
        description.operations(),
        seen,
        "operations described and operations seen"
    );
}

/// The `OpenAPI` document, and the means to hold an answer against it.
struct Description(Value);

impl Description {
    fn new(document: Value) -> Self {
        assert!(
            document["openapi"].as_str().unwrap().starts_with("3.1."),
            "{document}"
        );
        Self(document)
    }

    /// Every operation below `/v1`.
    fn operations(&self) -> BTreeSet<String> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let paths = paths.filter(|(path, _)| path.starts_with("/v1/"));
        let verbs = ["get", "put", "post", "delete", "patch"];
        paths
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys();
                let methods = methods.filter(|key| verbs.contains(&key.as_str()));
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect()
    }

    /// Checks one answer; names the operation that it is of.
    #[track_caller]
    fn hold(&self, method: &str, path: &str, response: &Response) -> String {
        let operation = format!("{method} {path}");
        let status = response.status.to_string();
        let item = &self.0["paths"][path][method.to_lowercase()]["responses"];
        let described = item.get(&status).or_else(|| item.get("default"));
        let described = described.unwrap_or_else(|| panic!("{operation} {status} is undescribed"));
        let described = self.follow(described);
        let Some(kind) = response.header("content-type") else {
            assert_eq!(
                described.get("content"),
                None,
                "{operation} {status} has no body"
            );
            return operation;
        };
        let kind = kind.split(';').next().unwrap();
        let mut schema = described["content"][kind]["schema"].clone();
        assert!(
            schema.is_object(),
            "{operation} {status}: {kind} is undescribed"
        );
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        if let Err(error) = validator.validate(&response.json()) {
            panic!("{operation} {status}: {error} at {}", error.instance_path());
        }
        operation
    }

    fn follow<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else {
            return value;
        };
        self.0.pointer(reference.trim_start_matches('#')).unwrap()
    }
}

/// Checks that the answer is a problem document (RFC 9457) with that status and a code of ours.
#[track_caller]
fn assert_problem(response: &Response, status: u16) -> Value {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(
        response.header("content-type"),
        Some("application/problem+json")
    );
    let problem = response.json();
    assert_eq!(problem["status"], status, "{problem}");
    assert!(problem["title"].is_string(), "{problem}");
    let code = problem["code"].as_str().unwrap();
    assert!(!code.is_empty() && !code.contains(' '), "{problem}");
    problem
}

/// A gateway with one instance and one key; the value of the header that lets callers in.
fn keyed(peer: &Peer) -> (Gateway, String) {
    let (key, hash) = new_key("ops");
    let gateway = Setup::new()
        .instance("web-1", &peer.address())
        .key("ops", &hash)
        .start();
    (gateway, format!("Bearer {key}"))
}

/// A key and its hash, as `vncgate key new` prints them.
pub(crate) fn new_key(name: &str) -> (String, String) {
    let made = vncgate(&["key", "new", name]).ok();
    let all = format!("{}\n{}", made.stdout, made.stderr);
    let mut words = all.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let key = words
        .clone()
        .find(|word| word.starts_with("vgk_"))
        .expect("a key");
    let hash = words.find(|word| *word == sha256(key)).expect("its hash");
    (key.to_owned(), hash.to_owned())
}

fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(text.as_bytes());
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from_digit(u32::from(digit), 16).unwrap())
        .collect()
}

fn create(instance: &str) -> Request {
    post(
        "/v1/consoles",
        &json!({ "instance": instance, "type": "novnc" }),
    )
}

fn post(path: &str, body: &Value) -> Request {
    Request::new("POST", path).json(&body)
}
