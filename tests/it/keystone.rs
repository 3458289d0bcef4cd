//! Callers that a real Keystone knows: what their tokens open here, how long one that is worth
//! nothing any more still does, and what happens while Keystone gives no answer.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::api::new_key;
use crate::openstack::{FOREIGN, WEB, bytes_come_back, compute, echo, furnish, show, shown};
use crate::rig::certificates::Authority;
use crate::rig::gateway::{ConsoleUrl, Gateway, Setup};
use crate::rig::http::{Request, Response};
use crate::rig::keystone::{Keystone, User};
use crate::rig::openstack::Client;
use crate::rig::peers::Peer;
use crate::rig::process::Stream;
use crate::rig::tls::TlsFront;
use crate::rig::wait::within;

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
    /// One that remembers nothing.
    fn of(keystone: &Keystone) -> Self {
        Self::with(keystone, |setup| setup.set("keystone", "cache", "0s"))
    }

    fn with(keystone: &Keystone, change: impl FnOnce(Setup) -> Setup) -> Self {
        let [member, stranger] = [(); 2].map(|()| keystone.user(&keystone.project(), "member"));
        let service = keystone.user(&keystone.project(), "service");
        let setup = Setup::new()
            .set("keystone", "url", keystone.url())
            .set("keystone", "username", service.name.as_str())
            .set("keystone", "timeout", "2s");
        let setup = with_secret(setup, "password_file", &service.password);
        let project = service.project.name.as_str();
        let setup = change(setup.set("keystone", "project", project));
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

    /// Waits until a token is refused with this status, and tells how long that took.
    #[track_caller]
    fn until_refused(&self, token: &str, status: u16, limit: Duration) -> Duration {
        let since = Instant::now();
        within(limit, &format!("status {status}"), || {
            let answer = self.ask(token);
            assert!([200, status].contains(&answer.status), "{answer:?}");
            (answer.status == status).then_some(())
        });
        since.elapsed()
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
fn a_token_for_no_project_opens_nothing() {
    let keystone = Keystone::shared();
    let cloud = Cloud::of(keystone);
    let admin = keystone.user(&cloud.member.project, "admin");

    let nowhere = keystone.sign_in_nowhere(&cloud.member);
    let system = keystone.sign_in_to_the_system(&admin, "admin");

    for token in [nowhere, system] {
        let answer = cloud.create(&token);
        assert_eq!(answer.status, 403, "{answer:?}");
    }
}

#[test]
fn who_has_no_token_is_told_where_to_get_one() {
    let cloud = Cloud::of(Keystone::shared());

    let nothing = cloud.gateway.http(&Request::new("GET", "/v2.1/servers"));
    let guess = cloud.ask("gAAAAABguess");

    let uri = format!("Keystone uri=\"{}", Keystone::shared().url());
    for answer in [nothing, guess] {
        assert_eq!(answer.status, 401, "{answer:?}");
        let told = answer.header("WWW-Authenticate").unwrap();
        assert!(told.starts_with(&uri), "{told}");
    }
}

#[test]
fn a_token_that_is_revoked_or_its_user_locked_out_opens_nothing_from_then_on() {
    let keystone = Keystone::shared();
    let cloud = Cloud::of(keystone);
    let [second, third] = [(); 2].map(|()| keystone.user(&cloud.member.project, "member"));
    let [revoked, disabled, demoted] =
        [&cloud.member, &second, &third].map(|user| keystone.sign_in(user));
    for token in [&revoked, &disabled, &demoted] {
        assert_eq!(cloud.create(token).status, 200);
    }

    keystone.revoke(&revoked);
    keystone.disable(&second);
    keystone.withdraw(&third, "member");

    for token in [&revoked, &disabled, &demoted] {
        assert_eq!(cloud.create(token).status, 401);
    }
}

#[test]
fn a_revoked_token_lives_on_no_longer_than_an_answer_is_kept() {
    let keystone = Keystone::shared();
    let cloud = Cloud::with(keystone, |setup| setup.set("keystone", "cache", "3s"));
    let token = keystone.sign_in(&cloud.member);
    assert_eq!(cloud.ask(&token).status, 200);

    keystone.revoke(&token);

    let kept = cloud.until_refused(&token, 401, Duration::from_secs(20));
    // the answer was three seconds old at most; the rest is a machine that is busy
    assert!(kept < Duration::from_secs(10), "{kept:?}");
}

#[test]
fn while_keystone_is_away_nobody_new_is_let_in_and_then_everybody_is_again() {
    let mut keystone = Keystone::start();
    let cloud = Cloud::of(&keystone);
    let token = keystone.sign_in(&cloud.member);
    assert_eq!(cloud.create(&token).status, 200);

    keystone.signal(Signal::STOP);
    for token in [&token, "gAAAAABguess"] {
        let since = Instant::now();
        let answer = cloud.create(token);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("Retry-After").is_some());
        assert!(since.elapsed() < Duration::from_secs(15), "{since:?}");
    }
    keystone.kill();
    for token in [&token, "gAAAAABguess"] {
        assert_eq!(cloud.create(token).status, 503);
    }
    assert_eq!(cloud.screen.connections(), 0);

    keystone.restart();
    within(Duration::from_secs(30), "the way back in", || {
        (cloud.create(&token).status == 200).then_some(())
    });
    assert_eq!(cloud.create("gAAAAABguess").status, 401);
}

#[test]
fn an_answer_that_is_kept_outlives_keystone_for_its_time_and_no_longer() {
    let mut keystone = Keystone::start();
    let cloud = Cloud::with(&keystone, |setup| setup.set("keystone", "cache", "3s"));
    let token = keystone.sign_in(&cloud.member);
    assert_eq!(cloud.ask(&token).status, 200);

    keystone.kill();

    let kept = cloud.until_refused(&token, 503, Duration::from_secs(20));
    assert!(kept < Duration::from_secs(10), "{kept:?}");
    assert_eq!(cloud.create(&token).status, 503);
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
fn our_own_token_is_renewed_before_anybody_notices() {
    let keystone = Keystone::start_with(&[("OS_TOKEN__EXPIRATION", "3")]);
    let cloud = Cloud::of(&keystone);
    let since = Instant::now();

    // three lives of a token: each caller's own is new, and so ours has to be
    while since.elapsed() < Duration::from_secs(9) {
        let answer = cloud.create(&keystone.sign_in(&cloud.member));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn a_caller_is_out_when_the_token_is_however_long_answers_are_kept() {
    let keystone = Keystone::start_with(&[("OS_TOKEN__EXPIRATION", "4")]);
    let cloud = Cloud::with(&keystone, |setup| setup.set("keystone", "cache", "10m"));
    let token = keystone.sign_in(&cloud.member);
    assert_eq!(cloud.ask(&token).status, 200);

    let kept = cloud.until_refused(&token, 401, Duration::from_secs(20));

    assert!(kept < Duration::from_secs(10), "{kept:?}");
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
fn keystone_is_asked_over_tls_if_its_authority_is_known() {
    let keystone = Keystone::shared();
    let directory = TempDir::new().unwrap();
    let [ours, foreign] = ["ours", "foreign"].map(|name| directory.path().join(name));
    let authority = Authority::new(&ours, "ca.pem");
    authority.vouch_for("127.0.0.1", "cert.pem", "key.pem");
    Authority::new(&foreign, "ca.pem");
    let (certificate, key) = (ours.join("cert.pem"), ours.join("key.pem"));
    let front = TlsFront::start(&certificate, &key, keystone.address());
    let status = |authority: &str| {
        let file = directory.path().join(authority).join("ca.pem");
        let cloud = Cloud::with(keystone, |setup| {
            let url = format!("https://{}/v3", front.address());
            let setup = setup.set("keystone", "url", url);
            setup.set("keystone", "ca_file", file.to_str().unwrap())
        });
        cloud.create(&keystone.sign_in(&cloud.member)).status
    };

    assert_eq!(status("ours"), 200);
    assert_eq!(status("foreign"), 503);
}

#[test]
fn an_application_credential_serves_as_well_as_a_password() {
    let keystone = Keystone::shared();
    let service = keystone.user(&keystone.project(), "service");
    let (id, secret) = keystone.application_credential(&service);
    let cloud = Cloud::with(keystone, |setup| {
        let setup = setup.unset("keystone", "username");
        let setup = setup.unset("keystone", "password_file");
        let setup = setup.set("keystone", "application_credential_id", id.as_str());
        with_secret(setup, "application_credential_secret_file", &secret)
    });

    assert_eq!(cloud.create(&keystone.sign_in(&cloud.member)).status, 200);
}

#[test]
fn a_gateway_that_keystone_does_not_trust_trusts_nobody() {
    let keystone = Keystone::shared();
    let powerless = keystone.user(&keystone.project(), "reader");
    let wrong = Cloud::with(keystone, |setup| {
        with_secret(setup, "password_file", "a guess")
    });
    let weak = Cloud::with(keystone, |setup| {
        let setup = setup.set("keystone", "username", powerless.name.as_str());
        let setup = setup.set("keystone", "project", powerless.project.name.as_str());
        with_secret(setup, "password_file", &powerless.password)
    });

    for cloud in [wrong, weak] {
        let answer = cloud.create(&keystone.sign_in(&cloud.member));
        assert_eq!(answer.status, 503, "{answer:?}");
    }
}

#[test]
fn tokens_and_passwords_reach_no_log_line() {
    let keystone = Keystone::shared();
    let mut password = String::new();
    let cloud = Cloud::with(keystone, |setup| {
        let file = setup.directory.path().join("password_file");
        password = fs::read_to_string(file).unwrap();
        setup.set("log", "level", "trace")
    });
    let token = keystone.sign_in(&cloud.member);
    let url = cloud.create(&token).json();
    let url = url["remote_console"]["url"].as_str().unwrap();
    assert_eq!(cloud.ask("gAAAAABguess").status, 401);

    let log = cloud.gateway.text(Stream::Err) + &cloud.gateway.text(Stream::Out);

    assert!(log.contains("console URL issued"), "the log is there");
    let console = ConsoleUrl::parse(url).token();
    for secret in [&token, &password, &console, "gAAAAABguess"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

/// Puts a secret into a file of the gateway's own directory, and its path into the config.
fn with_secret(setup: Setup, key: &str, secret: &str) -> Setup {
    let file = setup.directory.path().join(key);
    fs::write(&file, secret).unwrap();
    setup.set("keystone", key, file.to_str().unwrap())
}
