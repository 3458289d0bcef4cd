//! Another process in the place of one that others call, or that shares what it knows with others.
//! No call is refused, nothing that lives ends, and what was promised is kept.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use crate::rig::deployment::{Deployment, Plan};
use crate::rig::gateway::ConsoleUrl;
use crate::rig::heir::Heir;
use crate::rig::http::Request;
use crate::rig::peers::Peer;
use crate::rig::redis::Redis;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{BINARY, Upgrade, Ws};

/// Consoles that are asked for while a process is replaced, at least.
const ENOUGH: usize = 20;

#[test]
fn roles_that_are_called_over_mutual_tls_are_replaced_and_no_call_is_refused() {
    let peer = Peer::echo();
    let mut deployment = plan(&peer).prepare();
    deployment.start_all();

    replace_each(deployment);
}

#[test]
fn roles_that_are_called_at_unix_sockets_are_replaced_and_no_call_is_refused() {
    let peer = Peer::echo();
    let mut deployment = plan(&peer).prepare();
    for role in ["auth", "compute"] {
        let socket = deployment.directory().join(format!("{role}.rpc"));
        let door = vec![format!("unix:{}", socket.display())];
        deployment.set(role, "rpc", "listen", door.clone());
        for caller in ["api", "proxy"] {
            deployment.set(caller, "rpc", role, door.clone());
        }
    }
    deployment.start_all();

    replace_each(deployment);
}

#[test]
fn a_process_whose_tokens_are_in_redis_is_replaced_and_both_know_all() {
    let (peer, redis) = (Peer::echo(), Redis::start());
    let mut deployment = Plan::new()
        .node("all", "api,auth,compute,proxy")
        .instance("web-1", &peer.address())
        .set("auth", "max_sessions", 3)
        .on(&redis)
        .start();
    let issued = [(); 4].map(|()| deployment.node("all").issue_with("web-1", &[]));
    let [kept, killed, revoked, late] = &issued;
    let mut live = [kept, killed, revoked].map(|it| deployment.node("all").open(&it.url));
    for ws in &mut live {
        shake_hands(ws);
    }

    let heir = upgrade(&deployment, "all");
    let node = deployment.node("all");
    let [mut kept_live, mut killed_live, mut revoked_live] = live;
    let crowded = node.open(&late.url).expect_close();
    let listed = node.sessions();
    let its = listed.iter().find(|one| one["token"] == killed.id).unwrap();
    node.cli(&["session", "kill", its["id"].as_str().unwrap()])
        .ok();
    let ended = killed_live.expect_close();
    node.cli(&["token", "revoke", &revoked.id]).ok();
    let ended_too = revoked_live.expect_close();

    assert_eq!(crowded.code, Some(4010), "those of the old process count");
    assert_eq!(listed.len(), 3, "{listed:?}");
    assert_eq!((ended.code, ended_too.code), (Some(4007), Some(4007)));
    assert_eq!(node.open(&revoked.url).expect_close().code, Some(4001));
    until("their places to be free", || {
        (node.sessions().len() == 1).then_some(())
    });
    shake_hands(&mut node.open(&late.url));
    echoes(&mut kept_live);
    kept_live.send_close(1000, "");
    until("the end of the first process", || {
        (!deployment.is_running("all")).then_some(())
    });
    assert!(heir.is_alive());
}

/// Four processes. Consoles come through the compute role, which carries them on.
fn plan(peer: &Peer) -> Plan {
    Plan::of_four()
        .set("rpc", "tunnel", "only")
        .instance("web-1", &peer.address())
}

/// Replaces one process after the other while people ask for consoles.
fn replace_each(mut deployment: Deployment) {
    let (good, revoked) = {
        let api = deployment.node("api");
        (api.issue_with("web-1", &[]), api.issue_with("web-1", &[]))
    };
    deployment
        .node("api")
        .cli(&["token", "revoke", &revoked.id])
        .ok();
    let mut live = deployment.node("proxy").open(&good.url);
    shake_hands(&mut live);
    let id = deployment.node("api").sessions()[0]["id"].clone();

    let mut heirs = Vec::new();
    for name in ["auth", "compute", "api", "proxy"] {
        let heir = while_people_come(&deployment, || upgrade(&deployment, name));
        heirs.push(heir);
        echoes(&mut live);
        let opened = deployment.node("proxy").open(&good.url).answer();
        assert_eq!(opened.opcode, BINARY, "{name}: {opened:?}");
        let refused = deployment.node("proxy").open(&revoked.url).expect_close();
        assert_eq!(refused.code, Some(4001), "{name}");
        let listed = deployment.node("api").sessions();
        assert!(listed.iter().any(|it| it["id"] == id), "{name}: {listed:?}");
    }
    assert!(heirs.iter().all(Heir::is_alive));
    for name in ["auth", "api"] {
        until(&format!("the end of the first {name}"), || {
            (!deployment.is_running(name)).then_some(())
        });
    }
    assert!(deployment.is_running("compute"), "it carries the session");
    deployment
        .node("api")
        .cli(&["session", "kill", id.as_str().unwrap()])
        .ok();
    assert_eq!(live.expect_close().code, Some(4007));
    for name in ["compute", "proxy"] {
        until(&format!("the end of the first {name}"), || {
            (!deployment.is_running(name)).then_some(())
        });
    }
}

fn upgrade(deployment: &Deployment, name: &str) -> Heir {
    let node = deployment.node(name);
    let heir = Heir::told_by(&node.cli(&["upgrade", "-o", "json"]).ok());
    deployment.wait_until_ready(name);
    heir
}

/// Does something while consoles are asked for and opened, none of which may fail.
fn while_people_come<T>(deployment: &Deployment, work: impl FnOnce() -> T) -> T {
    let (done, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    let (api, proxy) = (deployment.node("api").api, deployment.node("proxy").listen);
    let outcome = thread::scope(|scope| {
        for _person in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) || opened.load(Ordering::SeqCst) < ENOUGH {
                    match ask_and_open(api, proxy) {
                        Ok(()) => drop(opened.fetch_add(1, Ordering::SeqCst)),
                        Err(why) => {
                            failed.lock().unwrap().push(why);
                            return;
                        }
                    }
                }
            });
        }
        let outcome = catch_unwind(AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
    outcome
}

/// One person's way to a console and away.
fn ask_and_open(api: SocketAddr, proxy: SocketAddr) -> Result<(), String> {
    let request = Request::new("POST", "/v1/consoles").json(&json!({ "instance": "web-1" }));
    let answer = request.try_send(api).map_err(|why| why.to_string())?;
    if answer.status != 201 {
        return Err(answer.text());
    }
    let url = ConsoleUrl::parse(answer.json()["url"].as_str().unwrap());
    let ws = Upgrade::new(&url.upgrade_path()).try_ws(proxy);
    let first = ws.ok_or("no 101")?.answer();
    let good = first.opcode == BINARY;
    good.then_some(()).ok_or_else(|| format!("{first:?}"))
}

#[track_caller]
fn echoes(ws: &mut Ws) {
    ws.send(b"alive");
    assert_eq!(ws.read(5), b"alive");
}
