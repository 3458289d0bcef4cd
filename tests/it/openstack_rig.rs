//! The OpenStack around the program: each piece does by itself what the proofs rely on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::rig::cell::{Console, Database, Instance, now};
use crate::rig::certificates::Authority;
use crate::rig::http::{Request, Response};
use crate::rig::keystone::{Keystone, User};
use crate::rig::mariadb::MariaDb;
use crate::rig::nova_api::{Mood, NovaApi};
use crate::rig::openstack::Client;
use crate::rig::postgres::Postgres;
use crate::rig::tls::TlsFront;
use crate::rig::wait::until;

#[test]
fn the_client_gets_a_token_of_keystone() {
    let keystone = Keystone::shared();
    let member = keystone.user(&keystone.project(), "member");
    let client = Client::with_user(keystone, &member, "RegionOne");

    let token = client.openstack(&["token", "issue", "-f", "json"]).ok();

    let token = token.json();
    assert_eq!(token["user_id"], member.id.as_str());
    assert_eq!(token["project_id"], member.project.id.as_str());
    let told = keystone.look_up(token["id"].as_str().unwrap());
    assert_eq!(told.status, 200);
    let roles = &told.json()["token"]["roles"];
    let names: Vec<_> = roles
        .as_array()
        .unwrap()
        .iter()
        .map(|role| &role["name"])
        .collect();
    assert!(
        names.iter().any(|name| *name == "reader"),
        "member implies reader: {names:?}"
    );
    assert!(!names.iter().any(|name| *name == "admin"), "{names:?}");
}

#[test]
fn the_client_is_refused_with_a_wrong_password() {
    let keystone = Keystone::shared();
    let member = keystone.user(&keystone.project(), "member");
    let impostor = User {
        password: "guess".to_owned(),
        ..member
    };
    let client = Client::with_user(keystone, &impostor, "RegionOne");

    let answer = client.openstack(&["token", "issue"]);

    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("401"), "{}", answer.stderr);
}

#[test]
fn keystone_knows_a_token_until_it_is_revoked_or_its_user_locked_out() {
    let keystone = Keystone::shared();
    let project = keystone.project();
    let [first, second] = [(); 2].map(|()| keystone.user(&project, "reader"));
    let [revoked, disabled] = [&first, &second].map(|user| keystone.sign_in(user));
    assert_eq!(keystone.look_up(&revoked).status, 200);
    assert_eq!(keystone.look_up(&disabled).status, 200);

    keystone.revoke(&revoked);
    keystone.disable(&second);

    assert_eq!(keystone.look_up(&revoked).status, 404);
    assert_eq!(keystone.look_up(&disabled).status, 404);
}

#[test]
fn keystone_takes_a_role_away_at_once() {
    let keystone = Keystone::shared();
    let member = keystone.user(&keystone.project(), "member");
    let token = keystone.sign_in(&member);

    keystone.withdraw(&member, "member");

    assert_eq!(keystone.look_up(&token).status, 404);
}

#[test]
fn a_service_may_look_tokens_up_and_a_member_may_not() {
    let keystone = Keystone::shared();
    let project = keystone.project();
    let [service, member] = ["service", "member"].map(|role| keystone.user(&project, role));
    let subject = keystone.sign_in(&member);
    let ask = |caller: &User| {
        let request = Request::new("GET", "/v3/auth/tokens?nocatalog");
        let request = request.header("X-Auth-Token", &keystone.sign_in(caller));
        request
            .header("X-Subject-Token", &subject)
            .send(keystone.address())
    };

    let stranger = keystone.user(&project, "member");

    assert_eq!(ask(&service).status, 200);
    assert_eq!(ask(&stranger).status, 403);
}

#[test]
fn a_keystone_of_its_own_comes_back_with_what_it_knew() {
    let mut keystone = Keystone::start();
    let member = keystone.user(&keystone.project(), "member");
    let token = keystone.sign_in(&member);

    keystone.signal(Signal::STOP);
    assert!(is_silent(keystone.address(), b"GET / HTTP/1.1\r\n\r\n"));
    keystone.kill();
    assert!(TcpStream::connect(keystone.address()).is_err());
    keystone.restart();

    assert_eq!(keystone.look_up(&token).status, 200);
}

#[test]
fn tokens_of_a_keystone_of_its_own_can_be_short_lived() {
    let keystone = Keystone::start_with(&[("OS_TOKEN__EXPIRATION", "5")]);
    let member = keystone.user(&keystone.project(), "member");

    let token = keystone.sign_in(&member);

    assert_eq!(own_token(&keystone, &token).status, 200);
    until("the token's end", || {
        (own_token(&keystone, &token).status == 401).then_some(())
    });
}

#[test]
fn keystone_answers_behind_tls() {
    let keystone = Keystone::shared();
    let directory = TempDir::new().unwrap();
    let pki = directory.path().join("pki");
    let authority = Authority::new(&pki, "ca.pem");
    authority.vouch_for("127.0.0.1", "cert.pem", "key.pem");

    let front = TlsFront::start(
        &pki.join("cert.pem"),
        &pki.join("key.pem"),
        keystone.address(),
    );

    let member = keystone.user(&keystone.project(), "member");
    let client = Client::with_user(keystone, &member, "RegionOne")
        .set("OS_AUTH_URL", &format!("https://{}/v3", front.address()))
        .set("OS_CACERT", pki.join("ca.pem").to_str().unwrap());
    client.openstack(&["token", "issue", "-f", "json"]).ok();
}

#[test]
fn the_stand_in_for_nova_answers_its_administrator_alone() {
    let keystone = Keystone::shared();
    let nova = NovaApi::start(keystone);
    let (instance, console) = fresh_console();
    nova.add(&instance, &console);
    let region = keystone.region(&nova.url());
    let project = keystone.project();
    let [admin, member] = ["admin", "member"].map(|role| keystone.user(&project, role));
    let show = |user| {
        let client = Client::with_user(keystone, user, &region);
        client.openstack(&[
            "console",
            "connection",
            "show",
            &console.token,
            "-f",
            "json",
        ])
    };

    let answer = show(&admin).ok().json();
    let refused = show(&member);

    assert_eq!(answer["instance_uuid"], instance.id.as_str());
    assert_eq!(answer["host"], "127.0.0.1");
    assert_eq!(answer["port"], 5900);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("Policy doesn't allow"),
        "{refused:?}"
    );
    assert_eq!(nova.lookups(), 2);
}

#[test]
fn every_client_reaches_the_stand_in_with_a_token_alone() {
    let keystone = Keystone::shared();
    let nova = NovaApi::start(keystone);
    let (instance, console) = fresh_console();
    nova.add(&instance, &console);
    let admin = keystone.sign_in(&keystone.user(&keystone.project(), "admin"));
    let client = Client::with_key(&nova.url(), &admin);

    let openstack = client.openstack(&["server", "show", &instance.id, "-f", "json"]);
    let nova_client = client.at("2.1").nova(&["show", &instance.id, "--minimal"]);
    let sdk = client.at("2.31").sdk(&format!(
        "show(cloud.compute.validate_console_auth_token('{}'))",
        console.token
    ));

    assert_eq!(openstack.ok().json()["name"], "rig");
    assert!(nova_client.ok().stdout.contains(&instance.id));
    assert_eq!(sdk.ok().json()["port"], 5900);
    let asked = nova.seen();
    let last = asked.last().unwrap();
    assert_eq!(last.header("OpenStack-API-Version"), Some("compute 2.31"));
}

#[test]
fn the_stand_in_for_nova_counts_microversions_as_nova_does() {
    let keystone = Keystone::shared();
    let nova = NovaApi::start(keystone);
    let (instance, mut console) = fresh_console();
    (console.kind, console.tls_port) = ("spice-direct".to_owned(), Some(5901));
    nova.add(&instance, &console);
    let admin = keystone.sign_in(&keystone.user(&keystone.project(), "admin"));
    let ask = |token: &str, version: &str, credentials: &str| {
        let request = Request::new("GET", &format!("/v2.1/os-console-auth-tokens/{token}"));
        let request = request.header("OpenStack-API-Version", &format!("compute {version}"));
        request
            .header("X-Auth-Token", credentials)
            .send(nova.address())
    };

    let old = ask(&console.token, "2.30", &admin);
    let middle = ask(&console.token, "2.31", &admin);
    let new = ask(&console.token, "2.99", &admin);

    assert_eq!(old.status, 400, "{old:?}");
    assert_eq!(middle.json()["console"].get("tls_port"), None);
    assert_eq!(new.json()["console"]["tls_port"], 5901);
    assert_eq!(new.header("OpenStack-API-Version"), Some("compute 2.99"));
    assert_eq!(ask(&console.token, "2.999", &admin).status, 406);
    assert_eq!(ask("unknown", "2.31", &admin).status, 404);
    assert_eq!(ask(&console.token, "2.31", "no token").status, 401);
}

#[test]
fn the_stand_in_for_nova_fails_holds_back_and_forgets_when_told() {
    let keystone = Keystone::shared();
    let nova = NovaApi::start(keystone);
    let (instance, console) = fresh_console();
    nova.add(&instance, &console);
    let admin = keystone.sign_in(&keystone.user(&keystone.project(), "admin"));
    let path = format!("/v2.1/os-console-auth-tokens/{}", console.token);
    let request = Request::new("GET", &path).header("X-Auth-Token", &admin);
    let request = request.header("OpenStack-API-Version", "compute 2.31");
    let ask = || request.send(nova.address()).status;

    nova.turn(Mood::Failing(500));
    assert_eq!(ask(), 500);
    nova.turn(Mood::HangingUp);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(ask)).is_err());
    nova.turn(Mood::Holding);
    std::thread::scope(|scope| {
        let answer = scope.spawn(ask);
        until("the request", || (nova.lookups() == 3).then_some(()));
        assert!(!answer.is_finished());
        nova.turn(Mood::Well);
        assert_eq!(answer.join().unwrap(), 200);
    });
    nova.delete(&instance);
    assert_eq!(ask(), 404);
}

#[test]
fn mariadb_holds_the_tables_of_a_cell_and_lets_the_reader_read() {
    let mut cell = MariaDb::start();
    holds_the_tables_of_a_cell(&cell);

    let asked = cell
        .as_reader("SELECT COUNT(*) FROM console_auth_tokens")
        .ok();
    assert_eq!(asked.stdout.trim(), "3001");
    assert_ne!(cell.as_reader("DELETE FROM console_auth_tokens").code, 0);
    let engine = cell.sql("SHOW CREATE TABLE console_auth_tokens;");
    assert!(
        engine.contains("InnoDB") && engine.contains("utf8"),
        "{engine}"
    );

    cell.signal(Signal::STOP);
    assert!(is_silent(cell.address(), b""));
    cell.kill();
    assert!(TcpStream::connect(cell.address()).is_err());
    cell.restart();
    assert_eq!(cell.count("instances"), 3001);
}

#[test]
fn mariadb_speaks_tls_to_those_who_know_its_authority() {
    let cell = MariaDb::with_tls();

    let asked = cell.as_reader("SHOW STATUS LIKE 'Ssl_version'").ok();

    assert!(asked.stdout.contains("TLS"), "{asked:?}");
}

#[test]
fn postgres_holds_the_tables_of_a_cell_and_lets_the_reader_read() {
    let mut cell = Postgres::start();
    holds_the_tables_of_a_cell(&cell);

    let asked = cell
        .as_reader("SELECT COUNT(*) FROM console_auth_tokens")
        .ok();
    assert_eq!(asked.stdout.trim(), "3001");
    assert_ne!(cell.as_reader("DELETE FROM console_auth_tokens").code, 0);

    cell.signal(Signal::STOP);
    assert!(is_silent(cell.address(), b"\0\0\0\x08\x04\xd2\x16\x2f"));
    cell.signal(Signal::CONT);
    assert_eq!(cell.count("instances"), 3001);
    cell.kill();
    assert!(TcpStream::connect(cell.address()).is_err());
    cell.restart();
    assert_eq!(cell.count("instances"), 3001);
}

#[test]
fn postgres_speaks_tls_to_those_who_know_its_authority() {
    let cell = Postgres::with_tls();

    let asked = cell
        .as_reader("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .ok();

    assert_eq!(asked.stdout.trim(), "t");
}

fn holds_the_tables_of_a_cell(cell: &impl Database) {
    let (instance, console) = fresh_console();
    cell.crowd(3000);
    cell.add_instances(std::slice::from_ref(&instance));
    cell.add_consoles(&[console]);

    let found = cell.sql(&format!(
        "SELECT port FROM console_auth_tokens WHERE instance_uuid = '{}' AND expires > {};",
        instance.id,
        now()
    ));

    assert_eq!(found.trim(), "5900");
    assert_eq!(cell.count("console_auth_tokens"), 3001);
}

fn fresh_console() -> (Instance, Console) {
    let instance = Instance::running("rig");
    let console = Console::novnc(&instance, "127.0.0.1:5900");
    (instance, console)
}

/// What Keystone says to somebody who asks about the token that they ask with.
fn own_token(keystone: &Keystone, token: &str) -> Response {
    let request = Request::new("GET", "/v3/auth/tokens").header("X-Auth-Token", token);
    request
        .header("X-Subject-Token", token)
        .send(keystone.address())
}

/// Whether a stopped server takes a connection and says nothing, whatever it is told.
fn is_silent(address: SocketAddr, greeting: &[u8]) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    let moment = Duration::from_millis(200);
    stream.set_read_timeout(Some(moment)).unwrap();
    stream.write_all(greeting).unwrap();
    let heard = stream.read(&mut [0]);
    heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
