//! OpenStack's own clients as users of a real Keystone: they sign in, find the gateway in the
//! catalogue, and are told what their roles allow.

use std::fs;

use crate::api::new_key;
use crate::openstack::{FOREIGN, WEB, bytes_come_back, compute, echo, furnish, show, shown};
use crate::rig::gateway::{ConsoleUrl, Gateway, Setup};
use crate::rig::http::{Request, Response};
use crate::rig::keystone::{Keystone, User};
use crate::rig::openstack::Client;
use crate::rig::peers::Peer;
use crate::rig::process::Stream;
use crate::rig::ws::Upgrade;

/// A gateway that asks a Keystone, in front of a server of `member`'s project and one of
/// `stranger`'s.
struct Cloud {
    gateway: Gateway,
    member: User,
    stranger: User,
    screen: Peer,
    _line: Peer,
}

impl Cloud {
    fn of(keystone: &Keystone) -> Self {
        Self::with(keystone, |setup| setup)
    }

    fn with(keystone: &Keystone, change: impl FnOnce(Setup) -> Setup) -> Self {
        let [member, stranger] = [(); 2].map(|()| keystone.user(&keystone.project(), "member"));
        let service = keystone.user(&keystone.project(), "service");
        let setup = signed_in(Setup::new(), keystone, &service);
        let setup = change(setup.set("keystone", "cache", "0s"));
        let (screen, line) = (Peer::echo(), echo());
        let projects = [&member, &stranger].map(|user| user.project.id.as_str());
        Self {
            gateway: furnish(setup, projects, [&screen, &line]).start(),
            member,
            stranger,
            screen,
            _line: line,
        }
    }

    /// Asks for the server of `member`'s project.
    fn ask(&self, token: &str) -> Response {
        let request = Request::new("GET", &format!("/v2.1/servers/{WEB}"));
        self.gateway.http(&request.header("X-Auth-Token", token))
    }

    /// Asks for a console of it.
    fn create(&self, token: &str) -> Response {
        let body = r#"{"remote_console": {"protocol": "vnc", "type": "novnc"}}"#;
        let request = Request::new("POST", &format!("/v2.1/servers/{WEB}/remote-consoles"));
        let request = request.header("OpenStack-API-Version", "compute 2.6");
        self.gateway
            .http(&request.json(body).header("X-Auth-Token", token))
    }
}

#[test]
fn the_openstack_client_signs_in_and_its_consoles_open() {
    let keystone = Keystone::shared();
    let cloud = Cloud::of(keystone);
    let region = keystone.region(&compute(&cloud.gateway));
    let client = Client::with_user(keystone, &cloud.member, &region);

    for (option, kind, server, version) in [
        ("--novnc", "novnc", "web", "2.99"),
        ("--novnc", "novnc", WEB, "2.1"),
        ("--spice", "spice-html5", WEB, "2.6"),
        ("--serial", "serial", "web", "2.31"),
    ] {
        let answer = client.at(version).openstack(&show(option, server));
        bytes_come_back(&cloud.gateway, kind, &shown(&answer));
    }
    let listed = client.openstack(&["server", "list", "-f", "json"]);
    let shown = client.openstack(&["server", "show", "web", "-f", "json"]);

    let listed = listed.ok().json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["ID"], WEB);
    assert_eq!(
        shown.ok().json()["project_id"],
        cloud.member.project.id.as_str()
    );
}

#[test]
fn a_catalogue_with_the_project_in_its_url_serves_all_clients() {
    let keystone = Keystone::shared();
    let cloud = Cloud::of(keystone);
    let url = format!("{}/$(project_id)s", compute(&cloud.gateway));
    let region = keystone.region(&url);
    let client = Client::with_user(keystone, &cloud.member, &region);

    let nova = client.nova(&["get-vnc-console", "web", "novnc"]).ok();
    let sdk = client.sdk(&format!(
        "show(cloud.compute.create_console('{WEB}', console_type='novnc')['url'])"
    ));
    let openstack = client.openstack(&show("--novnc", "web"));

    let words = nova.stdout.split_whitespace();
    let url = words.into_iter().find(|word| word.contains('?')).unwrap();
    bytes_come_back(&cloud.gateway, "novnc", url);
    bytes_come_back(&cloud.gateway, "novnc", sdk.ok().json().as_str().unwrap());
    bytes_come_back(&cloud.gateway, "novnc", &shown(&openstack));
}

#[test]
fn a_reader_may_look_and_opens_nothing() {
    let keystone = Keystone::shared();
    let cloud = Cloud::of(keystone);
    let region = keystone.region(&compute(&cloud.gateway));
    let reader = keystone.user(&cloud.member.project, "reader");
    let client = Client::with_user(keystone, &reader, &region);

    let looked = client.openstack(&["server", "show", "web", "-f", "json"]);
    let refused = client.openstack(&show("--novnc", "web"));

    assert_eq!(looked.ok().json()["id"], WEB);
    assert_eq!(refused.code, 1);
    let says = "Policy doesn't allow os_compute_api:os-remote-consoles to be performed";
    assert!(refused.stderr.contains(says), "{refused:?}");
    assert_eq!(cloud.create(&keystone.sign_in(&reader)).status, 403);
}

#[test]
fn a_member_of_another_project_finds_nothing() {
    let keystone = Keystone::shared();
    let cloud = Cloud::of(keystone);
    let region = keystone.region(&compute(&cloud.gateway));
    let client = Client::with_user(keystone, &cloud.member, &region);

    let refused = client.openstack(&show("--novnc", FOREIGN));

    assert!(refused.stderr.contains("No Server found"), "{refused:?}");
    let stranger = keystone.sign_in(&cloud.stranger);
    assert_eq!(cloud.ask(&stranger).status, 404);
    assert_eq!(cloud.create(&stranger).status, 404);
    assert_eq!(cloud.create(&keystone.sign_in(&cloud.member)).status, 200);
}

#[test]
fn an_administrator_sees_every_project_and_where_tokens_lead() {
    let keystone = Keystone::shared();
    let cloud = Cloud::of(keystone);
    let region = keystone.region(&compute(&cloud.gateway));
    let admin = keystone.user(&keystone.project(), "admin");
    let client = Client::with_user(keystone, &admin, &region);

    let url = shown(&client.openstack(&show("--novnc", WEB)));
    let token = ConsoleUrl::parse(&url).token();
    let leads = client.openstack(&["console", "connection", "show", &token, "-f", "json"]);
    let all = client.openstack(&["server", "list", "--all-projects", "-f", "json"]);

    assert_eq!(leads.ok().json()["port"], cloud.screen.port());
    assert_eq!(all.ok().json().as_array().unwrap().len(), 2);
}

#[test]
fn the_client_tells_people_that_keystone_is_away() {
    let mut keystone = Keystone::start();
    let cloud = Cloud::of(&keystone);
    let token = keystone.sign_in(&cloud.member);
    let client = Client::with_key(&compute(&cloud.gateway), &token);
    assert_eq!(client.openstack(&show("--novnc", WEB)).code, 0);

    keystone.kill();
    let answer = client.openstack(&show("--novnc", WEB));

    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("503"), "{answer:?}");
}

#[test]
fn keys_of_the_config_open_beside_keystone_and_without_it() {
    let mut keystone = Keystone::start();
    let key = new_key("portal");
    let cloud = Cloud::with(&keystone, |setup| setup.key("portal", &key.1));
    assert_eq!(cloud.create(&keystone.sign_in(&cloud.member)).status, 200);

    keystone.kill();

    assert_eq!(cloud.create(&key.0).status, 200);
}

#[test]
fn the_api_of_one_gateway_is_nova_to_the_proxy_of_another() {
    let keystone = Keystone::shared();
    let region = format!("region-{}", uuid::Uuid::new_v4());
    let admin = keystone.user(&keystone.project(), "admin");
    let setup = signed_in(Setup::new(), keystone, &admin).proxy_alone();
    let setup = setup.set("auth", "source", "nova-api");
    let proxy = setup.set("keystone", "region", region.as_str()).start();
    let public = format!("http://{}", proxy.listen);
    let cloud = Cloud::with(keystone, |setup| setup.set("proxy", "public_url", public));
    keystone.add_region(&region, &compute(&cloud.gateway));
    let client = Client::with_user(keystone, &cloud.member, &region);

    let url = shown(&client.openstack(&show("--novnc", "web")));

    let url = ConsoleUrl::parse(&url);
    assert_eq!(url.0.port(), Some(proxy.listen.port()));
    bytes_come_back(&proxy, "novnc", url.0.as_str());
    let token = url.token();
    cloud.gateway.cli(&["token", "revoke", &token]).ok();
    let again = Upgrade::new(&url.upgrade_path()).open(proxy.listen);
    assert_eq!(again.unwrap().expect_close().code, Some(4001));
}

#[test]
fn tokens_and_passwords_reach_no_log_line() {
    let keystone = Keystone::shared();
    let mut password = String::new();
    let cloud = Cloud::with(keystone, |setup| {
        let file = setup.directory.path().join("password");
        password = fs::read_to_string(file).unwrap();
        setup.set("log", "level", "trace")
    });
    let token = keystone.sign_in(&cloud.member);
    let url = cloud.create(&token).json();
    let url = url["remote_console"]["url"].as_str().unwrap();
    assert_eq!(cloud.ask("gAAAAABguess").status, 401);

    for message in ["console URL issued", "request refused"] {
        let _seen = cloud
            .gateway
            .wait_for_event(message, |event| event["message"] == message);
    }

    let log = cloud.gateway.text(Stream::Err) + &cloud.gateway.text(Stream::Out);

    let console = ConsoleUrl::parse(url).token();
    for secret in [&token, &password, &console, "gAAAAABguess"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

/// Has a gateway ask that Keystone as that user, whose password is in a file of its own directory.
fn signed_in(setup: Setup, keystone: &Keystone, user: &User) -> Setup {
    let file = setup.directory.path().join("password");
    fs::write(&file, &user.password).unwrap();
    setup
        .set("keystone", "url", keystone.url())
        .set("keystone", "username", user.name.as_str())
        .set("keystone", "project", user.project.name.as_str())
        .set("keystone", "password_file", file.to_str().unwrap())
}
