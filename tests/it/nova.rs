//! OpenStack Nova's dialect of the API, byte by byte: what its clients read, and the order in which
//! a request is judged. The clients themselves are in `openstack`.

use std::fs;

use serde_json::{Value, json};

use crate::api::new_key;
use crate::rig::gateway::{ConsoleUrl, Gateway, Setup};
use crate::rig::http::{Request, Response};
use crate::rig::peers::Peer;
use crate::rig::rfb::shake_hands;
use crate::rig::ws::Upgrade;
use crate::rig::xml::Domain;

const OURS: &str = "8a1e6f0c2b5d4d0f9c3b7a6e5d4c3b2a";
const THEIRS: &str = "0badc0de0badc0de0badc0de0badc0de";
const NOBODY: &str = "99999999-9999-4999-8999-999999999999";

/// A gateway with servers of two projects, and one key for each kind of caller.
struct Cloud {
    gateway: Gateway,
    peer: Peer,
    web: String,
    foreign: String,
    off: String,
    headless: String,
    lines: String,
    admin: String,
    member: String,
    reader: String,
}

impl Cloud {
    fn new() -> Self {
        Self::with(|setup| setup)
    }

    fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let peer = Peer::echo();
        let web = Domain::new("instance-00000001")
            .vnc(peer.port())
            .of_nova("web-1", OURS);
        let foreign = Domain::new("instance-00000002")
            .vnc(9)
            .of_nova("other", THEIRS);
        let off = Domain::new("instance-00000003")
            .off()
            .of_nova("off-1", OURS);
        let headless = Domain::new("instance-00000004").of_nova("headless", OURS);
        let lines = "7d1f1f9e-6c3b-4a56-8d7b-0d5a0b1f2c3d";
        let [admin, member, reader] = ["admin", "member", "reader"].map(new_key);
        let setup = Setup::new()
            .xml_directory()
            .key("admin", &admin.1)
            .key_of("member", &member.1, OURS, "member")
            .key_of("reader", &reader.1, OURS, "reader")
            .console(&[
                ("id", lines),
                ("name", "lines"),
                ("address", "127.0.0.1:19"),
                ("kind", "serial"),
                ("project", OURS),
            ])
            .console(&[
                ("id", lines),
                ("name", "lines"),
                ("address", "127.0.0.1:29"),
                ("kind", "mks"),
                ("internal_access_path", "vmid-7"),
                ("project", OURS),
            ])
            .set("proxy", "spice_url", "https://c.example/spice_auto.html");
        let setup = change(setup);
        for domain in [&web, &foreign, &off, &headless] {
            fs::write(
                setup.xml_path().join(format!("{}.xml", domain.name)),
                domain.dump(),
            )
            .unwrap();
        }
        Self {
            gateway: setup.start(),
            peer,
            web: web.id,
            foreign: foreign.id,
            off: off.id,
            headless: headless.id,
            lines: lines.to_owned(),
            admin: admin.0,
            member: member.0,
            reader: reader.0,
        }
    }

    fn send(&self, request: Request, key: &str, version: Option<&str>) -> Response {
        let request = request.header("X-Auth-Token", key);
        let request = match version {
            Some(version) => request.header("OpenStack-API-Version", &format!("compute {version}")),
            None => request,
        };
        self.gateway.http(&request)
    }

    fn get(&self, path: &str, key: &str, version: &str) -> Response {
        self.send(Request::new("GET", path), key, Some(version))
    }

    fn create(&self, id: &str, protocol: &str, kind: &str, version: &str) -> Response {
        let body = json!({ "remote_console": { "protocol": protocol, "type": kind } });
        let path = format!("/v2.1/servers/{id}/remote-consoles");
        self.send(
            Request::new("POST", &path).json(&body),
            &self.member,
            Some(version),
        )
    }

    fn act(&self, id: &str, body: &Value) -> Response {
        let path = format!("/v2.1/servers/{id}/action");
        self.send(Request::new("POST", &path).json(body), &self.member, None)
    }
}

/// Its name, code and message, once the headers of a fault are right.
#[track_caller]
fn fault(response: &Response) -> (String, u64, String) {
    let body = response.json();
    let (name, inner) = body.as_object().unwrap().iter().next().unwrap();
    let code = inner["code"].as_u64().unwrap();
    assert_eq!(u64::from(response.status), code, "{response:?}");
    assert_eq!(
        response.header("content-type"),
        Some("application/json; charset=UTF-8")
    );
    (
        name.clone(),
        code,
        inner["message"].as_str().unwrap().to_owned(),
    )
}

#[track_caller]
fn assert_fault(response: &Response, name: &str, code: u64, message: &str) {
    assert_eq!(
        fault(response),
        (name.to_owned(), code, message.to_owned()),
        "{response:?}"
    );
}

#[test]
fn anybody_may_read_which_versions_there_are() {
    let cloud = Cloud::new();
    for path in ["/v2.1", "/v2.1/"] {
        let response = cloud.gateway.http(&Request::new("GET", path));

        assert_eq!(response.status, 200, "{response:?}");
        let version = &response.json()["version"];
        assert_eq!(version["id"], "v2.1");
        assert_eq!(version["status"], "CURRENT");
        assert_eq!(version["min_version"], "2.1");
        assert_eq!(version["version"], "2.99");
        assert_eq!(version["updated"], "2013-07-23T11:33:21Z");
        let own = format!("http://{}/v2.1/", cloud.gateway.listen);
        assert_eq!(version["links"][0], json!({ "rel": "self", "href": own }));
        assert_eq!(version["links"][1]["rel"], "describedby");
        let kind = "application/vnd.openstack.compute+json;version=2.1";
        assert_eq!(
            version["media-types"],
            json!([{ "base": "application/json", "type": kind }])
        );
    }
}

#[test]
fn the_root_lists_the_versions_to_clients_and_shows_a_page_to_browsers() {
    let cloud = Cloud::new();
    let root = |accept| {
        cloud
            .gateway
            .http(&Request::new("GET", "/").header("Accept", accept))
    };

    let versions = root("application/json");
    let page = root("text/html,application/xhtml+xml,*/*;q=0.8");

    let listed = versions.json();
    let ids: Vec<&Value> = listed["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["id"])
        .collect();
    assert_eq!(ids, ["v2.0", "v2.1"]);
    assert_eq!(listed["versions"][0]["version"], "");
    assert_eq!(listed["versions"][0]["status"], "DEPRECATED");
    assert_eq!(versions.header("x-openstack-request-id"), None);
    assert!(page.text().contains("<html"), "{page:?}");
}

#[test]
fn the_links_follow_the_public_url_of_the_api() {
    let cloud = Cloud::with(|setup| setup.set("api", "public_url", "https://nova.example:8774/"));

    let version = cloud.gateway.http(&Request::new("GET", "/v2.1")).json();

    assert_eq!(
        version["version"]["links"][0]["href"],
        "https://nova.example:8774/v2.1/"
    );
}

#[test]
fn a_request_without_a_token_is_unauthorized_as_keystones_middleware_says_it() {
    let cloud = Cloud::new();

    let refused = cloud.gateway.http(&Request::new("GET", "/v2.1/servers"));

    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["error"]["code"], 401);
    assert_eq!(refused.json()["error"]["title"], "Unauthorized");
    assert!(refused.header("www-authenticate").is_some());
    assert!(
        refused
            .header("x-openstack-request-id")
            .unwrap()
            .starts_with("req-")
    );
    assert_eq!(refused.header("openstack-api-version"), None);
}

#[test]
fn every_answer_carries_one_request_id_under_two_names() {
    let cloud = Cloud::new();
    let inbound = "req-11111111-1111-4111-8111-111111111111";
    let request = Request::new("GET", &format!("/v2.1/servers/{NOBODY}"));

    let response = cloud.send(
        request.header("X-Openstack-Request-Id", inbound),
        &cloud.member,
        None,
    );

    let id = response.header("x-openstack-request-id").unwrap();
    assert_eq!(response.header("x-compute-request-id"), Some(id));
    assert_ne!(id, inbound);
}

#[test]
fn the_version_asked_for_is_echoed_and_defaults_to_the_oldest() {
    let cloud = Cloud::new();
    for (headers, spoken) in [
        (&[][..], "2.1"),
        (&[("OpenStack-API-Version", "compute 2.31")], "2.31"),
        (&[("X-OpenStack-Nova-API-Version", "2.31")], "2.31"),
        (&[("OpenStack-API-Version", "compute latest")], "2.99"),
        (
            &[
                ("OpenStack-API-Version", "volume 3.59"),
                ("X-OpenStack-Nova-API-Version", "2.6"),
            ],
            "2.6",
        ),
    ] {
        let request = headers.iter().fold(
            Request::new("GET", "/v2.1/servers"),
            |request, (name, value)| request.header(name, value),
        );
        let response = cloud.send(request, &cloud.member, None);

        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(
            response.header("openstack-api-version"),
            Some(&*format!("compute {spoken}"))
        );
        assert_eq!(
            response.header("x-openstack-nova-api-version"),
            Some(spoken)
        );
        assert_eq!(
            response.all("vary"),
            ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"]
        );
    }
}

#[test]
fn a_version_that_is_none_and_one_that_is_not_spoken_are_told_apart() {
    let cloud = Cloud::new();

    let malformed = cloud.get("/v2.1/servers", &cloud.member, "2.x");
    let unspoken = cloud.get("/v2.1/servers", &cloud.member, "2.100");

    assert_fault(
        &malformed,
        "badRequest",
        400,
        "API Version String 2.x is of invalid format. Must be of format MajorNum.MinorNum.",
    );
    assert_eq!(malformed.header("openstack-api-version"), None);
    assert_fault(
        &unspoken,
        "computeFault",
        406,
        "Version 2.100 is not supported by the API. Minimum is 2.1 and maximum is 2.99.",
    );
    assert_eq!(
        unspoken.header("openstack-api-version"),
        Some("compute 2.100")
    );
}

#[test]
fn the_older_twin_knows_no_versions_and_no_strict_bodies() {
    let cloud = Cloud::new();
    let body = json!({ "os-getVNCConsole": { "type": "novnc", "extra": 1 } });
    let path = format!("/v2/servers/{}/action", cloud.web);

    let response = cloud.send(
        Request::new("POST", &path).json(&body),
        &cloud.member,
        Some("2.99"),
    );

    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("openstack-api-version"), None);
    assert!(response.all("vary").is_empty());
}

#[test]
fn a_path_that_is_none_is_told_so_in_json_or_in_html() {
    let cloud = Cloud::new();
    let ask = |accept| {
        let request = Request::new("GET", "/v2.1/flavors/detail").header("Accept", accept);
        cloud.send(request, &cloud.member, None)
    };

    let (json, html) = (ask("application/json"), ask("*/*"));

    assert_eq!((json.status, html.status), (404, 404));
    assert_eq!(json.json()["code"], "404 Not Found");
    assert_eq!(json.json()["title"], "Not Found");
    assert!(html.text().contains("404 Not Found"));
    let wrong_method = cloud.send(Request::new("DELETE", "/v2.1/servers"), &cloud.member, None);
    assert_eq!(wrong_method.status, 404);
}

#[test]
fn the_api_that_nova_removed_is_gone() {
    let cloud = Cloud::new();
    let path = format!("/v2.1/servers/{}/consoles", cloud.web);

    let response = cloud.get(&path, &cloud.member, "2.1");

    assert_eq!(fault(&response).0, "computeFault");
    assert_eq!(response.status, 410);
}

#[test]
fn a_remote_console_is_created_and_its_url_opens() {
    let cloud = Cloud::new();

    let response = cloud.create(&cloud.web, "vnc", "novnc", "2.99");

    assert_eq!(response.status, 200, "{response:?}");
    let console = &response.json()["remote_console"];
    assert_eq!(
        (&console["protocol"], &console["type"]),
        (&json!("vnc"), &json!("novnc"))
    );
    let url = ConsoleUrl::parse(console["url"].as_str().unwrap());
    let mut ws = Upgrade::new(&url.upgrade_path())
        .open(cloud.gateway.listen)
        .unwrap();
    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn the_action_gives_the_same_console_up_to_2_5() {
    let cloud = Cloud::new();
    let body = json!({ "os-getVNCConsole": { "type": "novnc" } });

    let response = cloud.act(&cloud.web, &body);

    assert_eq!(response.status, 200, "{response:?}");
    let console = &response.json()["console"];
    assert_eq!(console["type"], "novnc");
    let url = ConsoleUrl::parse(console["url"].as_str().unwrap());
    let mut ws = Upgrade::new(&url.upgrade_path())
        .open(cloud.gateway.listen)
        .unwrap();
    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn each_method_exists_in_its_own_versions_only() {
    let cloud = Cloud::new();
    let action = json!({ "os-getVNCConsole": { "type": "novnc" } });
    let path = format!("/v2.1/servers/{}/action", cloud.web);

    let late = cloud.send(
        Request::new("POST", &path).json(&action),
        &cloud.member,
        Some("2.6"),
    );
    let early = cloud.create(&cloud.web, "vnc", "novnc", "2.5");

    for response in [late, early] {
        assert_fault(
            &response,
            "itemNotFound",
            404,
            "The resource could not be found.",
        );
    }
}

#[test]
fn every_url_holds_a_question_mark_for_horizon_to_append_to() {
    let cloud = Cloud::with(|setup| {
        setup
            .set(
                "proxy",
                "novnc_url",
                "https://c.example/vnc.html?autoconnect=true&path=novnc",
            )
            .set("proxy", "mks_url", "https://c.example/mks.html")
    });
    let url = |protocol, kind, id: &str| {
        let response = cloud.create(id, protocol, kind, "2.99").json();
        response["remote_console"]["url"]
            .as_str()
            .unwrap()
            .to_owned()
    };

    let novnc = url("vnc", "novnc", &cloud.web);
    let serial = url("serial", "serial", &cloud.lines);
    let webmks = url("mks", "webmks", &cloud.lines);

    let expected = "https://c.example/vnc.html?autoconnect=true&path=novnc%3Ftoken%3D";
    assert!(novnc.starts_with(expected), "{novnc}");
    assert!(
        serial.starts_with("ws://") && serial.contains("/?token="),
        "{serial}"
    );
    assert!(
        webmks.starts_with("https://c.example/mks.html?token="),
        "{webmks}"
    );
}

#[test]
fn a_body_is_judged_in_novas_words() {
    let cloud = Cloud::new();
    let path = format!("/v2.1/servers/{}/action", cloud.web);
    let act = |kind: Option<&str>, body: &str| {
        cloud.send(
            Request::new("POST", &path).body(kind, body),
            &cloud.member,
            None,
        )
    };
    let json = Some("application/json");
    for (kind, body, name, code, message) in [
        (
            Some("text/xml"),
            "{}",
            "badMediaType",
            415,
            "Unsupported Content-Type",
        ),
        (json, "{", "badRequest", 400, "Malformed request body"),
        (json, "", "badRequest", 400, "Malformed request body"),
        (json, "{}", "badRequest", 400, "Malformed request body"),
        (json, "[1]", "badRequest", 400, "Malformed request body"),
        (
            json,
            r#"{"a": 1, "b": 2}"#,
            "badRequest",
            400,
            "Malformed request body",
        ),
        (
            json,
            r#"{"os-getMKSConsole": {}}"#,
            "badRequest",
            400,
            "There is no such action: os-getMKSConsole",
        ),
        (
            json,
            r#"{"os-getVNCConsole": {"type": "invalid"}}"#,
            "badRequest",
            400,
            "Invalid input for field/attribute type. Value: invalid. 'invalid' is not one of ['novnc', 'xvpvnc']",
        ),
        (
            json,
            r#"{"os-getRDPConsole": {"type": "rdp-html5"}}"#,
            "badRequest",
            400,
            "The server could not comply with the request since it is either malformed or otherwise incorrect.",
        ),
    ] {
        assert_fault(&act(kind, body), name, code, message);
    }
    let plain = act(None, r#"{"os-getVNCConsole": {"type": "novnc"}}"#);
    assert_eq!(plain.status, 200, "{plain:?}");
}

#[test]
fn types_come_with_their_versions_and_belong_to_their_protocols() {
    let cloud = Cloud::new();
    for (protocol, kind, version, expected) in [
        (
            "mks",
            "webmks",
            "2.7",
            "'mks' is not one of ['vnc', 'spice', 'serial', 'rdp']",
        ),
        (
            "spice",
            "spice-direct",
            "2.98",
            "'spice-direct' is not one of",
        ),
        (
            "rdp",
            "rdp-html5",
            "2.99",
            "malformed or otherwise incorrect",
        ),
        ("vnc", "xvpvnc", "2.99", "Invalid console type xvpvnc"),
        ("vnc", "serial", "2.99", "Invalid console type serial"),
        ("serial", "novnc", "2.99", "Invalid console type novnc"),
        (
            "spice",
            "spice-direct",
            "2.99",
            "Unavailable console type spice-direct.",
        ),
        ("mks", "webmks", "2.99", "Unavailable console type webmks."),
        (
            "spice",
            "spice-html5",
            "2.99",
            "Unavailable console type spice.",
        ),
        (
            "serial",
            "serial",
            "2.99",
            "Unavailable console type serial.",
        ),
    ] {
        let (name, code, message) = fault(&cloud.create(&cloud.web, protocol, kind, version));
        assert_eq!((&*name, code), ("badRequest", 400));
        assert!(
            message.contains(expected),
            "{protocol} {kind} {version}: {message}"
        );
    }
}

#[test]
fn an_instance_that_is_not_there_or_anothers_is_not_found() {
    let cloud = Cloud::new();
    for id in [
        NOBODY,
        "web-1",
        &*cloud.foreign,
        &cloud.web.replace('-', ""),
    ] {
        let message = format!("Instance {id} could not be found.");
        let action = json!({ "os-getVNCConsole": { "type": "novnc" } });
        assert_fault(
            &cloud.create(id, "vnc", "novnc", "2.6"),
            "itemNotFound",
            404,
            &message,
        );
        assert_fault(&cloud.act(id, &action), "itemNotFound", 404, &message);
        let shown = cloud.get(&format!("/v2.1/servers/{id}"), &cloud.member, "2.1");
        assert_fault(&shown, "itemNotFound", 404, &message);
    }
}

#[test]
fn a_shut_off_server_is_a_conflict_and_no_url_that_cannot_work() {
    let cloud = Cloud::new();

    let off = cloud.create(&cloud.off, "vnc", "novnc", "2.6");
    let headless = cloud.create(&cloud.headless, "vnc", "novnc", "2.6");

    let message = format!(
        "Cannot 'get_vnc_console' instance {} while it is in vm_state stopped",
        cloud.off
    );
    assert_fault(&off, "conflictingRequest", 409, &message);
    assert_fault(
        &headless,
        "badRequest",
        400,
        "Unavailable console type vnc.",
    );
}

#[test]
fn a_reader_sees_and_opens_nothing() {
    let cloud = Cloud::new();
    let policy = "Policy doesn't allow os_compute_api:os-remote-consoles to be performed.";
    let create = |id: &str| {
        let body = json!({ "remote_console": { "protocol": "vnc", "type": "novnc" } });
        let path = format!("/v2.1/servers/{id}/remote-consoles");
        cloud.send(
            Request::new("POST", &path).json(&body),
            &cloud.reader,
            Some("2.6"),
        )
    };
    let act = |id: &str| {
        let body = json!({ "os-getVNCConsole": { "type": "novnc" } });
        let path = format!("/v2.1/servers/{id}/action");
        cloud.send(Request::new("POST", &path).json(&body), &cloud.reader, None)
    };

    assert_eq!(cloud.get("/v2.1/servers", &cloud.reader, "2.1").status, 200);
    assert_fault(&create(&cloud.web), "forbidden", 403, policy);
    assert_eq!(
        create(NOBODY).status,
        404,
        "creation looks for the server first"
    );
    assert_fault(&act(&cloud.web), "forbidden", 403, policy);
    assert_eq!(act(NOBODY).status, 403, "an action asks the policy first");
}

#[test]
fn a_project_in_the_path_must_be_the_callers() {
    let cloud = Cloud::new();

    let own = cloud.get(&format!("/v2.1/{OURS}/servers"), &cloud.member, "2.1");
    let other = cloud.get(&format!("/v2.1/{THEIRS}/servers"), &cloud.member, "2.1");
    let admin = cloud.get(&format!("/v2.1/{THEIRS}/servers"), &cloud.admin, "2.1");

    assert_eq!(own.status, 200);
    let (name, code, message) = fault(&other);
    assert_eq!((&*name, code), ("badRequest", 400));
    assert!(
        message.starts_with("Malformed request URL: URL's project_id"),
        "{message}"
    );
    assert_eq!(
        admin.status, 200,
        "a key without a project has none to differ"
    );
}

#[test]
fn servers_are_those_of_the_project_and_filtered_by_name() {
    let cloud = Cloud::new();
    let names = |path: &str, key: &str| {
        let response = cloud.get(path, key, "2.99");
        assert_eq!(response.status, 200, "{response:?}");
        let servers = response.json()["servers"].as_array().unwrap().clone();
        servers
            .iter()
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };

    assert_eq!(
        names("/v2.1/servers", &cloud.member),
        ["headless", "lines", "off-1", "web-1"]
    );
    assert_eq!(
        names("/v2.1/servers/detail?all_tenants=True", &cloud.admin).len(),
        5
    );
    assert_eq!(
        names("/v2.1/servers/detail?name=web-1", &cloud.member),
        ["web-1"]
    );
    assert_eq!(names("/v2.1/servers?name=%5Eweb", &cloud.member), ["web-1"]);
    assert_eq!(
        names("/v2.1/servers?name=instance-0", &cloud.member),
        Vec::<String>::new()
    );
    assert_eq!(
        names("/v2.1/servers?status=SHUTOFF", &cloud.member),
        ["off-1"]
    );
    assert_eq!(names("/v2.1/servers?deleted=False", &cloud.member).len(), 4);
    let all = cloud.get("/v2.1/servers?all_tenants=1", &cloud.member, "2.1");
    assert_eq!(fault(&all).0, "forbidden");
}

#[test]
fn a_long_list_comes_in_pages_that_the_links_join() {
    let cloud = Cloud::new();
    let mut path = "/v2.1/servers?limit=3".to_owned();
    let mut pages = Vec::new();

    loop {
        let page = cloud.get(&path, &cloud.member, "2.1").json();
        pages.push(page["servers"].as_array().unwrap().len());
        let Some(next) = page["servers_links"][0]["href"].as_str() else {
            break;
        };
        let own = format!("http://{}", cloud.gateway.listen);
        path = next.strip_prefix(&own).unwrap().to_owned();
    }

    assert_eq!(pages, [3, 1]);
}

#[test]
fn a_server_tells_what_clients_look_for() {
    let cloud = Cloud::new();
    let path = format!("/v2.1/servers/{}", cloud.web);

    let server = cloud.get(&path, &cloud.member, "2.99").json()["server"].clone();
    let older = cloud.get(&path, &cloud.member, "2.1").json()["server"].clone();
    let admins = cloud.get(&path, &cloud.admin, "2.99").json()["server"].clone();

    assert_eq!(server["id"], cloud.web);
    assert_eq!(server["name"], "web-1");
    assert_eq!(server["status"], "ACTIVE");
    assert_eq!(server["tenant_id"], OURS);
    assert_eq!(server["flavor"]["original_name"], "m1.small");
    assert_eq!(older["flavor"]["id"], "m1.small");
    assert_eq!(server.get("OS-EXT-SRV-ATTR:instance_name"), None);
    assert_eq!(admins["OS-EXT-SRV-ATTR:instance_name"], "instance-00000001");
}

#[test]
fn a_token_is_shown_to_administrators_with_where_it_leads() {
    let cloud = Cloud::new();
    let token = |response: &Response| {
        let url = response.json()["remote_console"]["url"]
            .as_str()
            .unwrap()
            .to_owned();
        ConsoleUrl::parse(&url).token()
    };
    let token = token(&cloud.create(&cloud.web, "vnc", "novnc", "2.99"));
    let path = format!("/v2.1/os-console-auth-tokens/{token}");
    let port = cloud.peer.port();

    let shown = cloud.get(&path, &cloud.admin, "2.31");

    assert_eq!(shown.status, 200, "{shown:?}");
    let expected = json!({ "console": {
        "instance_uuid": cloud.web, "host": "127.0.0.1", "port": port, "internal_access_path": null,
    }});
    assert_eq!(shown.json(), expected);
    assert_eq!(
        cloud.get(&path, &cloud.admin, "2.99").json(),
        expected,
        "no tls_port but of spice-direct"
    );
    assert_eq!(fault(&cloud.get(&path, &cloud.member, "2.31")).1, 403);
    assert_eq!(
        fault(&cloud.get(&path, &cloud.member, "2.30")).1,
        400,
        "before the policy"
    );
    assert_eq!(
        cloud
            .get(&format!("{path}?x=1"), &cloud.admin, "2.98")
            .status,
        200
    );
    let strict = fault(&cloud.get(&format!("{path}?x=1"), &cloud.admin, "2.99"));
    assert_eq!(
        strict.2,
        "Additional properties are not allowed ('x' was unexpected)"
    );
    let unknown = cloud.get(
        "/v2.1/os-console-auth-tokens/nonesuch",
        &cloud.admin,
        "2.31",
    );
    assert_fault(&unknown, "itemNotFound", 404, "Token not found");
}

#[test]
fn an_internal_access_path_and_a_tls_port_are_shown_where_they_are() {
    let spice = "<graphics type='spice' port='5901' tlsPort='5902' listen='127.0.0.1'/>";
    let domain = Domain::new("instance-0000000a")
        .graphics(spice)
        .of_nova("spice-1", OURS);
    let (id, xml) = (domain.id.clone(), domain.dump());
    let cloud = Cloud::with(|setup| {
        fs::write(setup.xml_path().join("spice.xml"), xml).unwrap();
        setup
            .set("proxy", "mks_url", "https://c.example/mks.html")
            .set("proxy", "spice_direct_url", "https://c.example:13002/nova")
    });
    let shown = |id: &str, protocol: &str, kind: &str| {
        let created = cloud.create(id, protocol, kind, "2.99").json();
        let url = created["remote_console"]["url"]
            .as_str()
            .unwrap()
            .to_owned();
        let (_, token) = url.split_once("?token=").unwrap();
        let path = format!("/v2.1/os-console-auth-tokens/{token}");
        cloud.get(&path, &cloud.admin, "2.99").json()["console"].clone()
    };

    let direct = shown(&id, "spice", "spice-direct");
    let mks = shown(&cloud.lines, "mks", "webmks");

    assert_eq!(
        (&direct["port"], &direct["tls_port"]),
        (&json!(5901), &json!(5902))
    );
    assert_eq!(mks["internal_access_path"], "vmid-7");
}

#[test]
fn tokens_and_keys_reach_no_log_line() {
    let cloud = Cloud::new();
    let created = cloud.create(&cloud.web, "vnc", "novnc", "2.99").json();
    let url = ConsoleUrl::parse(created["remote_console"]["url"].as_str().unwrap());
    let path = format!("/v2.1/os-console-auth-tokens/{}", url.token());
    assert_eq!(cloud.get(&path, &cloud.member, "2.31").status, 403);
    let _refused = cloud.send(Request::new("GET", "/v2.1/servers"), "wrong-secret", None);
    let refused = |event: &Value| event["message"] == "request refused" && event["status"] == 401;
    cloud.gateway.wait_for_event("the refusal", refused);

    let log = format!("{:?}", cloud.gateway.events());

    for secret in [&*url.token(), &*cloud.member, "wrong-secret"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[test]
fn on_a_door_of_the_api_alone_a_version_there_is_not_offers_those_there_are() {
    let cloud = Cloud::with(|setup| setup.set("api", "listen", vec!["127.0.0.1:0"]));
    let ready = cloud
        .gateway
        .wait_for_event("ready", |event| event["message"] == "ready");
    let door = ready["api"].as_str().unwrap().parse().unwrap();

    let response = Request::new("GET", "/v9").send(door);

    assert_eq!(response.status, 300, "{response:?}");
    assert_eq!(response.json()["choices"][0]["id"], "v2.1");
}

#[test]
fn what_a_guest_wrote_is_told_by_lines_and_501_where_nothing_keeps_it() {
    let kept = tempfile::NamedTempFile::new().unwrap();
    fs::write(kept.path(), "one\ntwo\nthree\n").unwrap();
    let serial = format!(
        "<serial type='pty'><log file='{}' append='off'/></serial>",
        kept.path().display()
    );
    let domain = Domain::new("instance-0000000b")
        .graphics(&serial)
        .of_nova("logged", OURS);
    let (id, xml) = (domain.id.clone(), domain.dump());
    let cloud = Cloud::with(|setup| {
        fs::write(setup.xml_path().join("logged.xml"), xml).unwrap();
        setup
    });
    let output = |id: &str, inner: Value, version: &str| {
        let path = format!("/v2.1/servers/{id}/action");
        let body = json!({ "os-getConsoleOutput": inner });
        cloud.send(
            Request::new("POST", &path).json(&body),
            &cloud.member,
            Some(version),
        )
    };

    let all = output(&id, json!({}), "2.99");
    let last = output(&id, json!({ "length": "1" }), "2.1");
    let none = output(&cloud.web, json!({ "length": 5 }), "2.1");
    let bad = output(&id, json!({ "length": -2 }), "2.1");

    assert_eq!(all.json(), json!({ "output": "one\ntwo\nthree\n" }));
    assert_eq!(last.json(), json!({ "output": "three\n" }));
    assert_fault(
        &none,
        "notImplemented",
        501,
        "The requested functionality is not supported.",
    );
    assert_eq!(fault(&bad).1, 400);
}
