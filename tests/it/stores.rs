//! Tokens that outlive what fails around them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::rig::certificates::Authority;
use crate::rig::crossing::Crossing;
use crate::rig::gateway::{ConsoleUrl, Gateway, Setup};
use crate::rig::http::Request;
use crate::rig::peers::Peer;
use crate::rig::promises::{Promises, Traffic};
use crate::rig::redis::{Cluster, Redis, Sentinels};
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{Upgrade, Ws};

#[test]
fn tokens_in_a_file_outlive_a_restart_and_revoked_ones_stay_dead() {
    let peer = Peer::echo();
    let place = tempfile::tempdir().unwrap();
    let mut first = filed(&peer, &place).start();
    let (kept, revoked) = (first.issue("web-1"), first.issue("web-1"));
    first.cli(&["token", "revoke", &revoked.token()]).ok();
    first.signal(Signal::TERM);
    assert_eq!(first.wait(), 0);

    let second = filed(&peer, &place).start();
    let open = |url: &ConsoleUrl| {
        let upgrade = Upgrade::new(&url.upgrade_path());
        upgrade.open(second.listen).unwrap()
    };

    shake_hands(&mut open(&kept));
    assert_eq!(open(&revoked).expect_close().code, Some(4001));
}

#[test]
fn no_kill_loses_an_issued_token_or_brings_back_a_revoked_one() {
    let peer = Peer::echo();
    let place = tempfile::tempdir().unwrap();
    let promises = Arc::new(Promises::default());
    for round in 0..20 {
        let gateway = filed(&peer, &place).start();
        let traffic = Traffic::start(gateway.listen, round, &promises);
        let enough = promises.count() + 5;
        until("some traffic", || {
            (promises.count() >= enough).then_some(())
        });

        gateway.signal(Signal::KILL);
        drop(gateway);
        traffic.stop();

        let gateway = filed(&peer, &place).start();
        promises.assert_kept_by(gateway.listen);
    }
    assert!(promises.count() > 100);
}

#[test]
fn a_file_that_another_gateway_has_is_named_in_one_sentence() {
    let peer = Peer::echo();
    let place = tempfile::tempdir().unwrap();
    let _first = filed(&peer, &place).start();

    let refused = filed(&peer, &place).refuse_to_start();

    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("auth.file: "), "{refused:?}");
    assert!(refused.stderr.contains("tokens.redb"), "{refused:?}");
}

#[test]
fn two_gateways_on_one_redis_are_one() {
    let peer = Peer::echo();
    let redis = Redis::start();
    let gateway = |name| redis.keeps(setup(&peer)).set("proxy", "name", name).start();
    assert_are_one(&gateway("gate-1"), &gateway("gate-2"));
}

#[test]
fn two_gateways_on_one_cluster_are_one_and_tokens_lie_on_every_node() {
    let peer = Peer::echo();
    let cluster = Cluster::start();
    let gateway = |name| {
        cluster
            .keeps(setup(&peer))
            .set("proxy", "name", name)
            .start()
    };
    let (first, second) = (gateway("gate-1"), gateway("gate-2"));
    assert_are_one(&first, &second);

    for _ in 0..30 {
        first.issue("web-1");
    }

    let sizes = cluster.sizes();
    assert!(sizes.iter().all(|size| *size > 3), "{sizes:?}");
    let listed = second.cli(&["token", "list", "-o", "json"]).ok().json();
    assert!(listed["tokens"].as_array().unwrap().len() >= 30);
}

#[test]
fn a_limit_holds_for_both_gateways_together() {
    let peer = Peer::echo();
    let redis = Redis::start();
    let gateway = || {
        redis
            .keeps(setup(&peer))
            .set("auth", "max_sessions", 1)
            .start()
    };
    let (first, second) = (gateway(), gateway());
    let mut ws = first.open("web-1");
    shake_hands(&mut ws);

    let issued = second.issue("web-1");
    let refused = open(&second, &issued).expect_close();
    ws.send_close(1000, "");
    until("the place to be free", || {
        let listed = second.cli(&["session", "list", "-o", "json"]).ok().json();
        listed["sessions"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    });

    assert_eq!(refused.code, Some(4010), "{refused:?}");
    shake_hands(&mut open(&second, &issued));
}

#[test]
fn a_single_use_token_is_one_browsers_on_both_gateways() {
    let peer = Peer::echo();
    let redis = Redis::start();
    let gateway = || redis.keeps(setup(&peer)).start();
    let (first, second) = (gateway(), gateway());
    let url = first.issue_with(&["token", "issue", "web-1", "--single-use"]);
    let opened = |gateway: &Gateway, browser: &str| {
        let upgrade = Upgrade::new(&url.upgrade_path()).and("User-Agent", browser);
        upgrade.open(gateway.listen).unwrap()
    };
    let mut ws = opened(&first, "browser a");
    shake_hands(&mut ws);

    let other = opened(&second, "browser b").expect_close();
    shake_hands(&mut opened(&second, "browser a"));

    assert_eq!(other.code, Some(4002), "{other:?}");
    assert_eq!(ws.expect_close().code, Some(4010));
}

#[test]
fn redis_shows_no_token() {
    let peer = Peer::echo();
    let redis = Redis::start();
    let gateway = redis.keeps(setup(&peer)).start();
    let issued = gateway
        .cli(&["token", "issue", "web-1", "-o", "json"])
        .ok()
        .json();
    let url = ConsoleUrl::parse(issued["url"].as_str().unwrap());
    let mut ws = open(&gateway, &url);
    shake_hands(&mut ws);

    let contents = redis.contents();

    assert!(
        contents.contains(issued["id"].as_str().unwrap()),
        "{contents}"
    );
    assert!(contents.contains("web-1"), "{contents}");
    assert!(!contents.contains(&url.token()), "{contents}");
}

#[test]
fn a_redis_that_is_killed_refuses_consoles_in_words_ends_none_and_heals() {
    let peer = Peer::echo();
    let mut redis = Redis::start();
    let gateway = redis.keeps(setup(&peer)).start();
    let url = gateway.issue("web-1");
    let mut live = open(&gateway, &url);
    shake_hands(&mut live);

    redis.kill();
    let refused = gateway.http(&create());
    let closed = open(&gateway, &url).expect_close();
    live.send(b"still here");
    let echoed = live.read(10);
    redis.restart();
    until("Redis to be found again", || {
        (gateway.http(&create()).status == 201).then_some(())
    });

    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(closed.code, Some(4011), "{closed:?}");
    assert!(
        closed.reason.starts_with("tokens cannot be checked"),
        "{closed:?}"
    );
    assert_eq!(echoed, b"still here");
    shake_hands(&mut open(&gateway, &url));
    live.send(b"and now");
    assert_eq!(live.read(7), b"and now");
}

#[test]
fn a_redis_that_hangs_is_a_bounded_refusal() {
    let peer = Peer::echo();
    let redis = Redis::start();
    let gateway = redis.keeps(setup(&peer)).start();
    let url = gateway.issue("web-1");

    redis.signal(Signal::STOP);
    let asked = Instant::now();
    let closed = open(&gateway, &url).expect_close();
    let took = asked.elapsed();
    redis.signal(Signal::CONT);
    until("Redis to be found again", || {
        (gateway.http(&create()).status == 201).then_some(())
    });

    assert_eq!(closed.code, Some(4011), "{closed:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn what_was_revoked_while_redis_was_out_of_reach_ends_once_it_is_back() {
    let (peer, redis) = (Peer::echo(), Redis::start());
    let crossing = Crossing::to(([127, 0, 0, 1], redis.port).into());
    let first = redis.keeps(setup(&peer)).start();
    let cut_off = setup(&peer).set("auth", "source", "redis");
    let servers = vec![crossing.address.to_string()];
    let second = cut_off.set_redis("servers", servers).start();
    let begin = || {
        let issued = first.cli(&["token", "issue", "web-1", "-o", "json"]).ok();
        let issued = issued.json();
        let url = ConsoleUrl::parse(issued["url"].as_str().unwrap());
        let mut ws = open(&second, &url);
        shake_hands(&mut ws);
        (issued["id"].as_str().unwrap().to_owned(), ws)
    };
    let (_, mut kept) = begin();

    for fail in [Crossing::cut, Crossing::stall] {
        let (id, mut revoked) = begin();
        fail(&crossing);
        first.cli(&["token", "revoke", &id]).ok();
        revoked.send(b"unheard");
        let echoed = revoked.read(7);
        crossing.open();
        let back = Instant::now();
        let closed = revoked.expect_close();
        let took = back.elapsed();

        assert_eq!(echoed, b"unheard", "who cannot be asked ends no session");
        assert_eq!(closed.code, Some(4007), "{closed:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        kept.send(b"still here");
        assert_eq!(kept.read(10), b"still here");
        until("Redis to be used again", || {
            (second.http(&create()).status == 201).then_some(())
        });
    }
}

#[test]
fn redis_forgets_tokens_by_its_own_clock() {
    let (peer, redis) = (Peer::echo(), Redis::start());
    let gateway = redis.keeps(setup(&peer)).start();
    let issue = |ttl| {
        let issued = gateway.cli(&["token", "issue", "web-1", "--ttl", ttl, "-o", "json"]);
        let id = issued.ok().json()["id"].as_str().unwrap().to_owned();
        let keys = redis.cli(&["--scan", "--pattern", &format!("*{id}")]);
        keys.ok().stdout.trim().to_owned()
    };
    let (long, short) = (issue("1m"), issue("1s"));

    drop(gateway);
    let left = redis.cli(&["TTL", &long]).ok().stdout;
    until("Redis to forget the short one", || {
        let exists = redis.cli(&["EXISTS", &short]).ok().stdout;
        (exists.trim() == "0").then_some(())
    });

    let left: u64 = left.trim().parse().unwrap();
    assert!((1..=60).contains(&left), "{left}");
    assert_eq!(redis.cli(&["EXISTS", &long]).ok().stdout.trim(), "1");
}

#[test]
fn no_kill_of_redis_or_of_a_gateway_loses_a_token_or_brings_one_back() {
    let peer = Peer::echo();
    let mut redis = Redis::start();
    let promises = Arc::new(Promises::default());
    let lasting = redis.keeps(setup(&peer)).start();
    let mut live = lasting.open("web-1");
    shake_hands(&mut live);
    for round in 0..20 {
        let gateway = redis.keeps(setup(&peer)).start();
        let traffic = Traffic::start(gateway.listen, round, &promises);
        let enough = promises.count() + 5;
        until("some traffic", || {
            (promises.count() >= enough).then_some(())
        });

        if round % 2 == 0 {
            redis.kill();
            traffic.stop();
            redis.restart();
        } else {
            gateway.signal(Signal::KILL);
            drop(gateway);
            traffic.stop();
        }
        until("tokens to be issued", || {
            (lasting.http(&create()).status == 201).then_some(())
        });
    }
    promises.assert_kept_by(lasting.listen);
    live.send(b"still here");
    assert_eq!(live.read(10), b"still here");
}

#[test]
fn a_failover_is_followed_and_ends_no_session() {
    let peer = Peer::echo();
    let mut sentinels = Sentinels::start();
    let gateway = sentinels.keeps(setup(&peer)).start();
    let issued = gateway
        .cli(&["token", "issue", "web-1", "-o", "json"])
        .ok()
        .json();
    let url = ConsoleUrl::parse(issued["url"].as_str().unwrap());
    let mut live = open(&gateway, &url);
    shake_hands(&mut live);
    until("the replica to have the token", || {
        let contents = sentinels.replica.contents();
        contents
            .contains(issued["id"].as_str().unwrap())
            .then_some(())
    });

    sentinels.master.kill();
    until("the replica to be the master, and to be found", || {
        (gateway.http(&create()).status == 201).then_some(())
    });

    shake_hands(&mut open(&gateway, &url));
    live.send(b"still here");
    assert_eq!(live.read(10), b"still here");
    let listed = until("the sessions to be known again", || {
        let listed = gateway.cli(&["session", "list", "-o", "json"]).json();
        let count = listed["sessions"].as_array().unwrap().len();
        (count >= 1).then_some(count)
    });
    assert!(listed >= 1);
}

#[test]
fn redis_lets_in_by_user_and_password_over_tls() {
    let peer = Peer::echo();
    let place = tempfile::tempdir().unwrap();
    let pki = place.path().join("pki");
    let authority = Authority::new(&pki, "ca.pem");
    authority.vouch_for("127.0.0.1", "cert.pem", "key.pem");
    let file = |name: &str| pki.join(name).to_str().unwrap().to_owned();
    let (ca, certificate, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let tls_port = crate::rig::redis::free_port();
    let _redis = Redis::with(&[
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
        "--user",
        "gate",
        "on",
        ">open-sesame",
        "~*",
        "&*",
        "+@all",
        "--user",
        "default",
        "off",
    ]);
    let password = place.path().join("password");
    std::fs::write(&password, "open-sesame\n").unwrap();
    let secured = |user: &str| {
        let servers = vec![format!("127.0.0.1:{tls_port}")];
        setup(&peer)
            .set("auth", "source", "redis")
            .set_redis("servers", servers)
            .set_redis("tls", true)
            .set_redis("ca_file", ca.as_str())
            .set_redis("user", user)
            .set_redis("password_file", password.to_str().unwrap())
            .start()
    };

    let (known, stranger) = (secured("gate"), secured("nobody"));

    shake_hands(&mut known.open("web-1"));
    let refused = stranger.http(&create());
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(
        !stranger
            .text(crate::rig::process::Stream::Err)
            .contains("open-sesame")
    );
}

#[test]
fn a_cluster_lets_in_by_user_and_password_over_tls() {
    let peer = Peer::echo();
    let place = tempfile::tempdir().unwrap();
    let pki = place.path().join("pki");
    let authority = Authority::new(&pki, "ca.pem");
    authority.vouch_for("127.0.0.1", "cert.pem", "key.pem");
    let cluster = Cluster::secured(&pki, "open-sesame");
    let password = place.path().join("password");
    std::fs::write(&password, "open-sesame\n").unwrap();
    let gateway = |name: &str| {
        cluster
            .keeps(setup(&peer))
            .set("proxy", "name", name)
            .set_redis("tls", true)
            .set_redis("ca_file", pki.join("ca.pem").to_str().unwrap())
            .set_redis("user", "gate")
            .set_redis("password_file", password.to_str().unwrap())
            .start()
    };
    let (first, second) = (gateway("gate-1"), gateway("gate-2"));

    assert_are_one(&first, &second);
    for _ in 0..30 {
        first.issue("web-1");
    }

    let sizes = cluster.sizes();
    assert!(sizes.iter().all(|size| *size > 3), "{sizes:?}");
}

/// What one gateway does, the other knows and can undo, at once.
fn assert_are_one(first: &Gateway, second: &Gateway) {
    let url = first.issue("web-1");
    let (mut killed, mut revoked) = (open(second, &url), open(second, &first.issue("web-1")));
    shake_hands(&mut killed);
    shake_hands(&mut revoked);
    let listed = first.cli(&["session", "list", "-o", "json"]).ok().json();
    let sessions = listed["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2, "{listed}");
    assert!(
        sessions.iter().all(|it| it["proxy"] == "gate-2"),
        "{listed}"
    );
    let token = first
        .cli(&["token", "show", &url.token(), "-o", "json"])
        .ok()
        .json();
    let is_its = |session: &&serde_json::Value| session["token"] == token["id"];
    let (its, other) = (
        sessions.iter().find(is_its).unwrap(),
        sessions.iter().find(|session| !is_its(session)).unwrap(),
    );

    let asked = Instant::now();
    first
        .cli(&["session", "kill", its["id"].as_str().unwrap()])
        .ok();
    let ended = killed.expect_close();
    first
        .cli(&["token", "revoke", other["token"].as_str().unwrap()])
        .ok();
    let ended_too = revoked.expect_close();
    let took = asked.elapsed();

    assert_eq!((ended.code, ended_too.code), (Some(4007), Some(4007)));
    assert!(took < Duration::from_secs(2), "{took:?}");
    second.cli(&["token", "revoke", &url.token()]).ok();
    assert_eq!(open(first, &url).expect_close().code, Some(4001));
}

fn setup(peer: &Peer) -> Setup {
    Setup::new().instance("web-1", &peer.address())
}

fn open(gateway: &Gateway, url: &ConsoleUrl) -> Ws {
    Upgrade::new(&url.upgrade_path())
        .open(gateway.listen)
        .unwrap()
}

fn create() -> Request {
    Request::new("POST", "/v1/consoles").json(&json!({ "instance": "web-1" }))
}

fn filed(peer: &Peer, place: &tempfile::TempDir) -> Setup {
    let file = place.path().join("tokens.redb");
    let setup = Setup::new().instance("web-1", &peer.address());
    let setup = setup.set("auth", "source", "file");
    setup.set("auth", "file", file.to_str().unwrap())
}
