//! Callers with tokens of a real Keystone: who is let in, for how long, and what happens while
//! Keystone cannot be asked.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::new_key;
use crate::rig::certificates::Authority;
use crate::rig::gateway::{ConsoleUrl, Gateway, Setup};
use crate::rig::http::{Request, Response};
use crate::rig::keystone::{Keystone, Project, User};
use crate::rig::openstack::Client;
use crate::rig::peers::Peer;
use crate::rig::process::Stream;
use crate::rig::rfb::shake_hands;
use crate::rig::tls::TlsFront;
use crate::rig::wait::until;
use crate::rig::ws::Upgrade;

const WEB: &str = "7d1f1f9e-6c3b-4a56-8d7b-0d5a0b1f2c3d";
const FOREIGN: &str = "1b671a64-40d5-491e-99b0-da01ff1f3341";

/// A gateway that asks a Keystone, with an instance of a project and one of nobody's.
struct Cloud {
    gateway: Gateway,
    project: Project,
    service: User,
    /// The file with the password of our own user.
    secret: PathBuf,
    peer: Peer,
}

impl Cloud {
    fn new(keystone: &Keystone) -> Self {
        Self::with(keystone, |setup| setup)
    }

    fn with(keystone: &Keystone, change: impl FnOnce(Setup) -> Setup) -> Self {
        let service = keystone.user(&keystone.project(), "service");
        Self::with_service(keystone, service, change)
    }

    fn with_service(
        keystone: &Keystone,
        service: User,
        change: impl FnOnce(Setup) -> Setup,
    ) -> Self {
        let peer = Peer::echo();
        let project = keystone.project();
        let address = peer.address();
        let setup = Setup::new()
            .console(&[
                ("id", WEB),
                ("name", "web-1"),
                ("address", &address),
                ("project", &project.id),
            ])
            .console(&[("id", FOREIGN), ("name", "other"), ("address", &address)]);
        let secret = setup.directory.path().join("keystone.secret");
        let setup = change(as_user(setup, &keystone.url(), &service));
        Self {
            gateway: setup.start(),
            project,
            service,
            secret,
            peer,
        }
    }

    fn get(&self, path: &str, token: &str) -> Response {
        let request = Request::new("GET", path).header("X-Auth-Token", token);
        self.gateway.http(&request)
    }

    /// The status of a question that everybody may ask who is let in.
    fn knock(&self, token: &str) -> u16 {
        self.get("/v1/instances", token).status
    }

    fn create(&self, server: &str, token: &str) -> Response {
        let body = json!({"remote_console": {"protocol": "vnc", "type": "novnc"}});
        let path = format!("/v2.1/servers/{server}/remote-consoles");
        let request = Request::new("POST", &path)
            .header("X-Auth-Token", token)
            .header("OpenStack-API-Version", "compute 2.6");
        self.gateway.http(&request.json(&body))
    }

    /// The cause of a 503, as the log has it.
    fn cause(&self) -> String {
        let why = "Keystone gives no answer";
        let event = self
            .gateway
            .wait_for_event(why, |event| event["message"] == why);
        event["error"].as_str().unwrap().to_owned()
    }
}

/// Asks the Keystone at `url` as that user.
fn as_user(setup: Setup, url: &str, user: &User) -> Setup {
    let secret = setup.directory.path().join("keystone.secret");
    fs::write(&secret, &user.password).unwrap();
    setup
        .set("keystone", "url", url)
        .set("keystone", "username", &*user.name)
        .set("keystone", "password_file", secret.to_str().unwrap())
        .set("keystone", "project", &*user.project.name)
}

#[test]
fn a_member_opens_the_consoles_of_its_own_project_and_sees_no_others() {
    let keystone = Keystone::shared();
    let cloud = Cloud::new(keystone);
    let member = keystone.user(&cloud.project, "member");
    let token = keystone.sign_in(&member);

    let listed = cloud.get("/v1/instances", &token).json();
    let created = cloud.create(WEB, &token);
    let foreign = cloud.create(FOREIGN, &token);

    let names: Vec<&Value> = listed["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|instance| &instance["name"])
        .collect();
    assert_eq!(names, ["web-1"], "{listed}");
    assert_eq!(created.status, 200, "{created:?}");
    let url = created.json()["remote_console"]["url"].clone();
    let url = ConsoleUrl::parse(url.as_str().unwrap());
    let mut ws = Upgrade::new(&url.upgrade_path())
        .open(cloud.gateway.listen)
        .unwrap();
    assert_eq!(shake_hands(&mut ws).2, "peer");
    assert_eq!(foreign.status, 404, "{foreign:?}");
    let tokens = cloud.gateway.cli(&["token", "list", "--output", "json"]);
    let tokens = tokens.ok().json();
    let caller = format!("user:{}@Default", member.name);
    assert_eq!(tokens["tokens"][0]["caller"], caller, "{tokens}");
    assert_eq!(cloud.peer.connections(), 1);
}

#[test]
fn openstacks_clients_find_the_gateway_in_keystones_catalog_and_open_consoles() {
    let keystone = Keystone::shared();
    let cloud = Cloud::new(keystone);
    let region = keystone.region(&format!("http://{}/v2.1", cloud.gateway.listen));
    let [member, stranger] = [cloud.project.clone(), keystone.project()]
        .map(|project| keystone.user(&project, "member"));
    let show = ["console", "url", "show", "--novnc", "web-1", "-f", "json"];

    let shown = Client::with_user(keystone, &member, &region).openstack(&show);
    let nova =
        Client::with_user(keystone, &member, &region).nova(&["get-vnc-console", WEB, "novnc"]);
    let hidden = Client::with_user(keystone, &stranger, &region).openstack(&show);

    let url = shown.ok().json()["url"].as_str().unwrap().to_owned();
    let url = ConsoleUrl::parse(&url);
    let mut ws = Upgrade::new(&url.upgrade_path())
        .open(cloud.gateway.listen)
        .unwrap();
    assert_eq!(shake_hands(&mut ws).2, "peer");
    assert!(nova.ok().stdout.contains("path=%3Ftoken%3D"));
    assert_eq!(hidden.code, 1, "{hidden:?}");
    assert!(
        hidden.stderr.contains("No Server found"),
        "{}",
        hidden.stderr
    );
}

#[test]
fn a_reader_sees_and_opens_nothing_and_an_admin_opens_all() {
    let keystone = Keystone::shared();
    let cloud = Cloud::new(keystone);
    let [reader, admin] = ["reader", "admin"].map(|role| {
        let user = keystone.user(&cloud.project, role);
        keystone.sign_in(&user)
    });

    assert_eq!(cloud.knock(&reader), 200);
    assert_eq!(cloud.create(WEB, &reader).status, 403);
    assert_eq!(cloud.create(WEB, &admin).status, 200);
    assert_eq!(cloud.create(FOREIGN, &admin).status, 200);
}

#[test]
fn who_has_no_good_token_is_told_where_to_get_one() {
    let keystone = Keystone::shared();
    let cloud = Cloud::new(keystone);
    let challenge = format!("Keystone uri=\"{}\"", keystone.url());

    let path = format!("/v2.1/servers/{WEB}");
    for token in [Some("gAAAAABmade-up"), Some("\"; DROP"), None] {
        let request = Request::new("GET", &path);
        let request = match token {
            Some(token) => request.header("X-Auth-Token", token),
            None => request,
        };
        let refused = cloud.gateway.http(&request);
        assert_eq!(refused.status, 401, "{refused:?}");
        assert_eq!(refused.header("WWW-Authenticate"), Some(&*challenge));
        let expected = json!({"error": {
            "code": 401, "title": "Unauthorized",
            "message": "The request you have made requires authentication.",
        }});
        assert_eq!(refused.json(), expected);
    }
    let own = cloud.get("/v1/instances", "gAAAAABmade-up");
    assert_eq!(own.header("WWW-Authenticate"), Some(&*challenge));
    assert_eq!(own.json()["code"], "unauthorized");
}

#[test]
fn a_token_that_is_for_no_project_is_forbidden() {
    let keystone = Keystone::shared();
    let cloud = Cloud::new(keystone);
    let admin = keystone.user(&cloud.project, "admin");
    for (scope, word) in [
        (json!({"system": {"all": true}}), "the system"),
        (json!({"domain": {"id": "default"}}), "a domain"),
        (json!("unscoped"), "nothing"),
    ] {
        let token = keystone.sign_in_elsewhere(&admin, &scope);

        let own = cloud.get("/v1/instances", &token);
        let novas = cloud.get("/v2.1/servers", &token);

        assert_eq!((own.status, novas.status), (403, 403), "{scope}: {own:?}");
        let detail = own.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(word), "{detail}");
    }
}

#[test]
fn without_a_cache_a_revoked_token_and_a_locked_out_user_are_refused_at_once() {
    let keystone = Keystone::shared();
    let cloud = Cloud::with(keystone, |setup| setup.set("keystone", "cache", "0s"));
    let [first, second, third] = [(); 3].map(|()| keystone.user(&cloud.project, "member"));
    let tokens = [&first, &second, &third].map(|user| keystone.sign_in(user));
    assert_eq!(tokens.clone().map(|token| cloud.knock(&token)), [200; 3]);

    keystone.revoke(&tokens[0]);
    keystone.disable(&second);
    keystone.withdraw(&third, "member");

    assert_eq!(tokens.map(|token| cloud.knock(&token)), [401; 3]);
}

#[test]
fn a_revoked_token_lives_on_for_the_time_of_the_cache_and_no_longer() {
    const CACHE: Duration = Duration::from_secs(3);
    let keystone = Keystone::shared();
    let cloud = Cloud::with(keystone, |setup| setup.set("keystone", "cache", "3s"));
    let token = keystone.sign_in(&keystone.user(&cloud.project, "member"));

    assert_eq!(cloud.knock(&token), 200);
    let asked = Instant::now();
    keystone.revoke(&token);
    let cached = cloud.knock(&token);
    let refused = until("the end of the cached verdict", || {
        (cloud.knock(&token) == 401).then(|| asked.elapsed())
    });

    assert!(cached == 200 || asked.elapsed() >= CACHE, "{cached}");
    assert!(refused >= Duration::from_secs(2), "{refused:?}");
}

#[test]
fn an_expired_token_is_refused_though_its_verdict_is_cached_and_our_own_is_renewed() {
    let keystone = Keystone::start_with(&[("OS_TOKEN__EXPIRATION", "12")]);
    let cloud = Cloud::with(&keystone, |setup| setup.set("keystone", "cache", "1h"));
    let member = keystone.user(&cloud.project, "member");
    let token = keystone.sign_in(&member);
    assert_eq!(cloud.knock(&token), 200);

    until("the end of the token", || {
        (cloud.knock(&token) == 401).then_some(())
    });
    let fresh = keystone.sign_in(&member);

    assert_eq!(
        cloud.knock(&fresh),
        200,
        "by our own token, which was as old"
    );
}

#[test]
fn a_wrong_password_of_our_own_is_503_and_heals_when_the_file_is_right() {
    let keystone = Keystone::shared();
    let service = keystone.user(&keystone.project(), "service");
    let wrong = User {
        password: "wrong-guess".to_owned(),
        ..service.clone()
    };
    let (key, hash) = new_key("ops");
    let cloud = Cloud::with_service(keystone, wrong, |setup| setup.key("ops", &hash));
    let token = keystone.sign_in(&keystone.user(&cloud.project, "member"));

    let refused = cloud.get("/v2.1/servers", &token);
    let keyed = cloud.knock(&key);

    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("Retry-After").is_some());
    assert!(!refused.text().contains(&service.name), "{refused:?}");
    assert_eq!(keyed, 200, "keys need no Keystone");
    let cause = cloud.cause();
    assert!(cause.contains("it refuses our login as user"), "{cause}");
    assert!(cause.contains("keystone.secret right?"), "{cause}");
    fs::write(&cloud.secret, &service.password).unwrap();
    until("the new password to count", || {
        (cloud.knock(&token) == 200).then_some(())
    });
    let log = cloud.gateway.text(Stream::Err);
    for secret in ["wrong-guess", &service.password, &token] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[test]
fn a_user_of_our_own_without_its_role_is_503_with_the_cure_in_the_log() {
    let keystone = Keystone::shared();
    let powerless = keystone.user(&keystone.project(), "member");
    let cloud = Cloud::with_service(keystone, powerless, |setup| setup);
    let token = keystone.sign_in(&keystone.user(&cloud.project, "member"));

    assert_eq!(cloud.knock(&token), 503);

    let cause = cloud.cause();
    assert!(cause.contains("give it the role `service`"), "{cause}");
}

#[test]
fn a_change_of_our_own_password_kills_our_token_and_is_survived() {
    let keystone = Keystone::shared();
    let cloud = Cloud::with(keystone, |setup| setup.set("keystone", "cache", "0s"));
    let token = keystone.sign_in(&keystone.user(&cloud.project, "member"));
    assert_eq!(cloud.knock(&token), 200);

    let changed = keystone.change_password(&cloud.service);
    fs::write(&cloud.secret, &changed.password).unwrap();

    // Keystone takes tokens of the same second for old ones, the new one of ours too.
    until("our own token to be renewed", || {
        let status = cloud.knock(&token);
        assert!([200, 503].contains(&status), "{status}");
        (status == 200).then_some(())
    });
}

#[test]
fn an_application_credential_does_as_well() {
    let keystone = Keystone::shared();
    let service = keystone.user(&keystone.project(), "service");
    let (id, secret) = keystone.application_credential(&service);
    let setup = Setup::new().instance("web-1", "127.0.0.1:9");
    let file = setup.directory.path().join("credential");
    fs::write(&file, format!("{secret}\n")).unwrap();
    let gateway = setup
        .set("keystone", "url", keystone.url())
        .set("keystone", "application_credential_id", id)
        .set(
            "keystone",
            "application_credential_secret_file",
            file.to_str().unwrap(),
        )
        .start();

    let member = keystone.user(&keystone.project(), "member");
    let token = keystone.sign_in(&member);
    let request = Request::new("GET", "/v1/instances").header("X-Auth-Token", &token);

    assert_eq!(gateway.http(&request).status, 200);
}

#[test]
fn while_keystone_is_stopped_the_known_are_let_in_and_the_rest_is_503_in_time() {
    let keystone = Keystone::start();
    let cloud = Cloud::with(&keystone, |setup| {
        setup
            .set("keystone", "timeout", "1s")
            .set("keystone", "cache", "1h")
    });
    let [known, new] = [(); 2].map(|()| {
        let member = keystone.user(&cloud.project, "member");
        keystone.sign_in(&member)
    });
    assert_eq!(cloud.knock(&known), 200);

    keystone.signal(Signal::STOP);
    let asked = Instant::now();
    let unsure = cloud.knock(&new);
    let waited = asked.elapsed();
    let sure = cloud.knock(&known);
    keystone.signal(Signal::CONT);

    assert_eq!((unsure, sure), (503, 200));
    assert!(waited < Duration::from_secs(8), "{waited:?}");
    assert!(
        cloud.cause().contains("no answer within 1s"),
        "{}",
        cloud.cause()
    );
    until("Keystone to be asked again", || {
        (cloud.knock(&new) == 200).then_some(())
    });
}

#[test]
fn keystone_may_die_and_come_back() {
    let mut keystone = Keystone::start();
    let cloud = Cloud::new(&keystone);
    let member = keystone.user(&cloud.project, "member");
    let [first, second] = [(); 2].map(|()| keystone.sign_in(&member));
    assert_eq!(cloud.knock(&first), 200);

    keystone.kill();
    let dead = cloud.knock(&second);
    keystone.restart();

    assert_eq!(dead, 503);
    until("Keystone to be asked again", || {
        (cloud.knock(&second) == 200).then_some(())
    });
}

#[test]
fn over_tls_keystone_has_to_prove_its_name_by_the_ca_file() {
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
    let behind_tls = |ca: Option<&str>| {
        let url = format!("https://{}", front.address());
        let cloud = Cloud::with(keystone, |setup| {
            let setup = setup.set("keystone", "url", url);
            match ca {
                Some(ca) => setup.set("keystone", "ca_file", pki.join(ca).to_str().unwrap()),
                None => setup,
            }
        });
        let token = keystone.sign_in(&keystone.user(&cloud.project, "member"));
        (cloud.knock(&token), cloud)
    };

    let (trusted, _) = behind_tls(Some("ca.pem"));
    let (unknown, cloud) = behind_tls(None);

    assert_eq!((trusted, unknown), (200, 503));
    let cause = cloud.cause();
    assert!(cause.contains("is signed by no CA in"), "{cause}");
}

#[test]
fn a_ca_file_that_cannot_be_used_is_told_at_the_start() {
    let setup = Setup::new();
    let secret = setup.directory.path().join("secret");
    fs::write(&secret, "s").unwrap();
    let refused = setup
        .set("keystone", "url", "https://k.example")
        .set("keystone", "username", "u")
        .set("keystone", "password_file", secret.to_str().unwrap())
        .set("keystone", "ca_file", "/nonexistent/ca.pem")
        .refuse_to_start();

    assert_ne!(refused.code, 0);
    let why = "keystone: the CA file /nonexistent/ca.pem cannot be used";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
}

/// How a question about a token begins, and a login.
const QUESTION: &[u8] = b"GET /v3/auth/tokens?nocatalog ";
const LOGIN: &[u8] = b"POST /v3/auth/tokens ";

/// Passes on what it is sent to Keystone, and counts the requests that begin so.
fn counting(keystone: SocketAddr, what: &'static [u8]) -> (Peer, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let peer = Peer::raw(move |mut near| {
        let mut far = TcpStream::connect(keystone)?;
        let (mut back, mut there) = (far.try_clone()?, near.try_clone()?);
        thread::spawn(move || std::io::copy(&mut back, &mut there));
        let mut buffer = [0; 1 << 13];
        loop {
            // a head of a few hundred bytes comes in one piece over the loopback
            let length = near.read(&mut buffer)?;
            if length == 0 {
                return far.shutdown(std::net::Shutdown::Both);
            }
            if buffer.starts_with(what) {
                count.fetch_add(1, Ordering::SeqCst);
            }
            far.write_all(&buffer[..length])?;
        }
    });
    (peer, asked)
}

#[test]
fn many_callers_with_one_token_ask_keystone_once() {
    let keystone = Keystone::shared();
    let (front, asked) = counting(keystone.address(), QUESTION);
    let url = format!("http://{}", front.address());
    let cloud = Cloud::with(keystone, |setup| setup.set("keystone", "url", url));
    let token = keystone.sign_in(&keystone.user(&cloud.project, "member"));

    let statuses: Vec<u16> = thread::scope(|scope| {
        let mut callers = Vec::new();
        for _ in 0..20 {
            callers.push(scope.spawn(|| cloud.knock(&token)));
        }
        let ended = callers.into_iter().map(|caller| caller.join().unwrap());
        ended.collect()
    });

    assert_eq!(statuses, [200; 20]);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let other = keystone.sign_in(&keystone.user(&cloud.project, "member"));
    assert_eq!(cloud.knock(&other), 200);
    assert_eq!(asked.load(Ordering::SeqCst), 2, "the counter counts");
}

#[test]
fn a_key_that_is_none_of_ours_any_more_is_not_shown_to_keystone() {
    let keystone = Keystone::shared();
    let (front, asked) = counting(keystone.address(), QUESTION);
    let url = format!("http://{}", front.address());
    let cloud = Cloud::with(keystone, |setup| setup.set("keystone", "url", url));
    let (key, _) = new_key("gone");

    let status = cloud.knock(&key);

    assert_eq!(status, 401);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_login_that_was_refused_is_not_tried_again_with_every_call() {
    let keystone = Keystone::shared();
    let (front, logins) = counting(keystone.address(), LOGIN);
    let url = format!("http://{}", front.address());
    let service = User {
        password: "wrong-guess".to_owned(),
        ..keystone.user(&keystone.project(), "service")
    };
    let cloud = Cloud::with_service(keystone, service, |setup| setup.set("keystone", "url", url));
    let token = keystone.sign_in(&keystone.user(&cloud.project, "member"));

    let started = Instant::now();
    let statuses: Vec<u16> = (0..20).map(|_| cloud.knock(&token)).collect();

    assert_eq!(statuses, [503; 20]);
    let rests = usize::try_from(started.elapsed().as_secs() / 5).unwrap();
    let logins = logins.load(Ordering::SeqCst);
    assert!((1..=rests + 1).contains(&logins), "{logins}");
}
