//! Tokens that Nova made, asked for at its API with a token of a real Keystone: the gateway in the
//! place of nova-novncproxy.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::new_key;
use crate::rig::cell::{Console, Instance, now};
use crate::rig::gateway::{Gateway, Setup};
use crate::rig::http::Request;
use crate::rig::keystone::{Keystone, User};
use crate::rig::nova_api::{Mood, NovaApi};
use crate::rig::peers::Peer;
use crate::rig::process::Stream;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{Closed, Upgrade, Ws};

/// A gateway that knows no instance, a Nova that knows one, and that one's screen.
struct Cloud {
    gateway: Gateway,
    nova: NovaApi,
    instance: Instance,
    console: Console,
    screen: Peer,
}

impl Cloud {
    fn new(keystone: &Keystone) -> Self {
        let admin = keystone.user(&keystone.project(), "admin");
        Self::with(keystone, &admin, |setup, _| setup)
    }

    /// As that user, by default with Nova where the catalog has it.
    fn with(
        keystone: &Keystone,
        user: &User,
        change: impl FnOnce(Setup, &NovaApi) -> Setup,
    ) -> Self {
        let nova = NovaApi::start(keystone);
        let screen = Peer::echo();
        let instance = Instance::running("web-1");
        let console = Console::novnc(&instance, &screen.address());
        nova.add(&instance, &console);
        let setup = Setup::new();
        let secret = setup.directory.path().join("keystone.secret");
        fs::write(&secret, &user.password).unwrap();
        let setup = setup
            .set("auth", "source", "nova-api")
            .set("compute", "discover", false)
            .set("keystone", "url", keystone.url())
            .set("keystone", "region", keystone.region(&nova.url()))
            .set("keystone", "username", &*user.name)
            .set("keystone", "password_file", secret.to_str().unwrap())
            .set("keystone", "project", &*user.project.name);
        Self {
            gateway: change(setup, &nova).start(),
            nova,
            instance,
            console,
            screen,
        }
    }

    fn open(&self, token: &str) -> Ws {
        upgrade(token).open(self.gateway.listen).unwrap()
    }

    /// How a token is refused.
    #[track_caller]
    fn refused(&self, token: &str) -> Closed {
        let closed = self.open(token).expect_close();
        assert_eq!(self.screen.connections(), 0, "nothing was dialled");
        closed
    }

    /// Another console of the same instance.
    fn add(&self, change: impl FnOnce(&mut Console)) -> Console {
        let mut console = Console::novnc(&self.instance, &self.screen.address());
        change(&mut console);
        self.nova.add(&self.instance, &console);
        console
    }

    /// Why a refusal was an internal one, as the log has it.
    fn cause(&self) -> Value {
        self.gateway
            .wait_for_event("the refusal", |event| event["code"] == 4011)
    }

    fn becomes(&self, change: impl FnOnce(&mut Instance)) {
        let mut instance = self.instance.clone();
        change(&mut instance);
        self.nova.add(&instance, &self.console);
    }
}

fn upgrade(token: &str) -> Upgrade {
    Upgrade::new(&format!("/websockify?token={token}"))
}

#[test]
fn a_token_of_nova_opens_its_console_as_often_as_it_is_shown() {
    let cloud = Cloud::new(Keystone::shared());

    for _ in 0..3 {
        let mut ws = cloud.open(&cloud.console.token);
        assert_eq!(shake_hands(&mut ws).2, "peer");
    }

    assert_eq!(cloud.screen.connections(), 3);
    assert_eq!(cloud.nova.lookups(), 3, "Nova is asked at each use");
    let seen = cloud.nova.seen();
    let asked = seen
        .iter()
        .find(|one| one.path.contains(&cloud.console.token));
    let asked = asked.unwrap();
    assert_eq!(asked.header("OpenStack-API-Version"), Some("compute 2.99"));
    assert_eq!(asked.header("X-OpenStack-Nova-API-Version"), Some("2.99"));
    let discoveries = seen.iter().filter(|one| one.path == "/v2.1").count();
    // the gateway's own look around at its start may come at the same time
    assert!(discoveries <= 2, "its version is remembered: {discoveries}");
    let event = cloud.gateway.wait_for_event("the session's end", |event| {
        event["name"] == "web-1" && event["session"].is_string()
    });
    assert_eq!(event["instance"], cloud.instance.id.as_str(), "{event}");
}

#[test]
fn a_token_that_nova_does_not_know_or_not_any_more_is_refused_with_4001() {
    let cloud = Cloud::new(Keystone::shared());
    let expired = cloud.add(|console| console.expires = now() - 1);

    for token in [
        "00000000-0000-4000-8000-000000000000",
        expired.token.as_str(),
        "..%2F..%2Fservers",
        "a%20b",
    ] {
        assert_eq!(cloud.refused(token).code, Some(4001), "{token}");
    }

    assert_eq!(
        cloud.nova.lookups(),
        2,
        "what cannot be a token is not asked for"
    );
}

#[test]
fn a_token_dies_with_its_instance() {
    let cloud = Cloud::new(Keystone::shared());
    let token = &cloud.console.token;

    cloud.becomes(|instance| instance.state = "stopped".to_owned());
    assert_eq!(cloud.refused(token).code, Some(4001), "it has no port now");
    cloud.becomes(|instance| instance.deleted = true);
    assert_eq!(cloud.refused(token).code, Some(4001));
    cloud.nova.delete(&cloud.instance);
    assert_eq!(cloud.refused(token).code, Some(4001));
}

#[test]
fn an_instance_on_the_move_is_not_dialled_until_it_has_arrived() {
    let cloud = Cloud::new(Keystone::shared());
    cloud.becomes(|instance| instance.task = Some("resize_migrating".to_owned()));

    let closed = cloud.refused(&cloud.console.token);
    cloud.becomes(|_| {});

    assert_eq!(closed.code, Some(4011), "{closed:?}");
    let cause = cloud.cause();
    assert!(cause.to_string().contains("on the move"), "{cause}");
    let mut ws = cloud.open(&cloud.console.token);
    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn a_foreign_page_is_refused_with_4003_and_our_own_is_not() {
    let cloud = Cloud::new(Keystone::shared());
    let token = &cloud.console.token;
    let with_origin = |origin: &str| {
        let upgrade = upgrade(token).with("Origin", origin);
        upgrade.open(cloud.gateway.listen).unwrap()
    };

    let foreign = with_origin("https://evil.example").expect_close();
    let mut own = with_origin(&format!("http://{}", cloud.gateway.listen));

    assert_eq!(foreign.code, Some(4003), "{foreign:?}");
    assert_eq!(shake_hands(&mut own).2, "peer");
}

#[test]
fn whatever_nova_answers_but_yes_and_no_is_4011_and_heals() {
    let admin = Keystone::shared().user(&Keystone::shared().project(), "admin");
    let cloud = Cloud::with(Keystone::shared(), &admin, |setup, _| {
        setup.set("keystone", "timeout", "1s")
    });
    for mood in [
        Mood::Failing(500),
        Mood::Failing(503),
        Mood::HangingUp,
        Mood::Holding,
    ] {
        cloud.nova.turn(mood);
        let asked = Instant::now();
        let closed = cloud.refused(&cloud.console.token);

        assert_eq!(closed.code, Some(4011), "{mood:?}: {closed:?}");
        let (sentence, _) = closed.sentence();
        assert!(sentence.contains("cannot be asked just now"), "{sentence}");
        assert!(asked.elapsed() < Duration::from_secs(15), "{mood:?}");
    }

    cloud.nova.turn(Mood::Well);

    let mut ws = cloud.open(&cloud.console.token);
    assert_eq!(shake_hands(&mut ws).2, "peer");
    let log = cloud.gateway.text(Stream::Err);
    assert!(!log.contains(&cloud.console.token), "a token is in the log");
    assert!(!log.contains(&admin.password), "a password is in the log");
}

#[test]
fn keystone_may_die_and_come_back() {
    let mut keystone = Keystone::start();
    let cloud = Cloud::new(&keystone);
    let ready = || cloud.gateway.watch("/readyz").status;

    keystone.kill();
    let closed = cloud.refused(&cloud.console.token);
    let unready = ready();
    keystone.restart();

    assert_eq!(closed.code, Some(4011), "{closed:?}");
    assert_eq!(unready, 503);
    until("tokens to be checked again", || {
        (ready() == 200).then_some(())
    });
    let mut ws = cloud.open(&cloud.console.token);
    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn a_user_of_our_own_that_is_no_admin_is_told_so_in_the_log() {
    let keystone = Keystone::shared();
    let member = keystone.user(&keystone.project(), "member");
    let cloud = Cloud::with(keystone, &member, |setup, _| setup);

    let closed = cloud.refused(&cloud.console.token);

    assert_eq!(closed.code, Some(4011), "{closed:?}");
    let cause = cloud.cause().to_string();
    assert!(cause.contains("give it the role `admin`"), "{cause}");
}

#[test]
fn a_catalog_without_that_region_is_told_with_what_it_has() {
    let keystone = Keystone::shared();
    let admin = keystone.user(&keystone.project(), "admin");
    let cloud = Cloud::with(keystone, &admin, |setup, _| {
        setup.set("keystone", "region", "Atlantis")
    });

    assert_eq!(cloud.refused(&cloud.console.token).code, Some(4011));

    let cause = cloud.cause().to_string();
    let why = "has no public endpoint of a compute service in region Atlantis; it has public in";
    assert!(cause.contains(why), "{cause}");
}

#[test]
fn the_config_may_say_where_nova_is() {
    let keystone = Keystone::shared();
    let admin = keystone.user(&keystone.project(), "admin");
    let cloud = Cloud::with(keystone, &admin, |setup, nova| {
        let url = format!("{}/", nova.url().trim_end_matches("/v2.1"));
        setup
            .set("keystone", "region", "Atlantis")
            .set("auth", "nova_url", url)
    });

    let mut ws = cloud.open(&cloud.console.token);

    assert_eq!(shake_hands(&mut ws).2, "peer");
}

#[test]
fn a_url_that_is_not_novas_is_no_proof_that_there_is_no_such_token() {
    let keystone = Keystone::shared();
    let admin = keystone.user(&keystone.project(), "admin");
    let cloud = Cloud::with(keystone, &admin, |setup, _| {
        setup.set("auth", "nova_url", format!("{}/v3", keystone.url()))
    });

    let closed = cloud.refused(&cloud.console.token);

    assert_eq!(closed.code, Some(4011), "{closed:?}");
    let cause = cloud.cause().to_string();
    assert!(cause.contains("is the URL right?"), "{cause}");
}

#[test]
fn consoles_are_made_by_nova_and_not_here() {
    let (key, hash) = new_key("ops");
    let keystone = Keystone::shared();
    let admin = keystone.user(&keystone.project(), "admin");
    let cloud = Cloud::with(keystone, &admin, |setup, _| {
        setup.key("ops", &hash).instance("vm", "127.0.0.1:9")
    });

    let request = Request::new("POST", "/v1/consoles").json(&json!({"instance": "vm"}));
    let refused = cloud
        .gateway
        .http(&request.header("Authorization", &format!("Bearer {key}")));

    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(refused.json()["code"], "tokens-elsewhere");
}

#[test]
fn nova_needs_a_keystone() {
    let refused = Setup::new()
        .set("auth", "source", "nova-api")
        .refuse_to_start();

    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("set keystone.url"), "{refused:?}");
}
