//! Another process in the place of the running one, on the same port, while people use it. Where
//! roles run apart, or share a Redis: `upgrade_far`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::rig::gateway::{BINARY, Gateway, Setup, bare, run};
use crate::rig::heir::Heir;
use crate::rig::http::Request;
use crate::rig::peers::Peer;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{Upgrade, Ws};

/// Replaces the running process by a command.
fn upgrade(gateway: &Gateway) -> Heir {
    let heir = Heir::told_by(&gateway.cli(&["upgrade", "-o", "json"]).ok());
    let pid = heir.number();
    gateway.wait_for_event("that the successor is ready", |event| {
        event["message"] == "ready" && event["pid"] == pid
    });
    heir
}

fn open(gateway: &Gateway) -> Ws {
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);
    ws
}

#[track_caller]
fn echoes(ws: &mut Ws) {
    ws.send(b"alive");
    assert_eq!(ws.read(5), b"alive");
}

fn sessions(gateway: &Gateway) -> Vec<Value> {
    let list = gateway.cli(&["session", "list", "-o", "json"]).ok().json();
    list["sessions"].as_array().unwrap().clone()
}

/// Waits for the end of a process that handed over, once its last session is gone.
fn ends_well(gateway: &mut Gateway, heir: Heir) {
    until("the end of the first process", || {
        (!gateway.is_running()).then_some(())
    });
    // It shares its output with the one that started it.
    drop(heir);
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn nobody_notices_that_another_process_takes_over() {
    let peer = Peer::echo();
    let mut gateway = Gateway::of("web-1", &peer.address());
    let mut old = open(&gateway);
    let url = gateway.issue("web-1");
    let (done, tried, failed) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );

    let heir = thread::scope(|scope| {
        for _knocker in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) || tried.load(Ordering::Relaxed) < 200 {
                    let page = Request::new("GET", "/vnc.html").try_send(gateway.listen);
                    let good = page.is_ok_and(|page| page.status == 200);
                    failed.fetch_add(usize::from(!good), Ordering::Relaxed);
                    tried.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let heir = catch_unwind(AssertUnwindSafe(|| upgrade(&gateway)));
        done.store(true, Ordering::Relaxed);
        heir.unwrap_or_else(|panic| resume_unwind(panic))
    });
    let mut new = Upgrade::new(&url.upgrade_path())
        .open(gateway.listen)
        .unwrap();
    shake_hands(&mut new);

    let (tried, failed) = (tried.into_inner(), failed.into_inner());
    assert!(tried >= 200 && failed == 0, "{failed} of {tried} failed");
    assert!(heir.is_alive() && gateway.is_running());
    echoes(&mut old);
    echoes(&mut new);
    gateway.wait_for_sessions(1);
    assert_eq!(
        sessions(&gateway).len(),
        2,
        "both are listed by the new process"
    );
    old.send_close(1000, "");
    ends_well(&mut gateway, heir);
}

#[test]
fn what_stayed_behind_is_listed_killed_and_revoked_at_the_successor() {
    let peer = Peer::echo();
    let mut gateway = Gateway::of("web-1", &peer.address());
    let mut killed = open(&gateway);
    let id = sessions(&gateway)[0]["id"].as_str().unwrap().to_owned();
    let url = gateway.issue("web-1");
    let mut revoked = Upgrade::new(&url.upgrade_path())
        .open(gateway.listen)
        .unwrap();
    shake_hands(&mut revoked);
    let before = sessions(&gateway);

    let heir = upgrade(&gateway);
    let after = sessions(&gateway);
    gateway.cli(&["session", "kill", &id]).ok();
    let killed = killed.expect_close();
    echoes(&mut revoked);
    let other = after.iter().find(|session| session["id"] != *id).unwrap();
    let token = other["token"].as_str().unwrap();
    gateway.cli(&["token", "revoke", token]).ok();
    let revoked = revoked.expect_close();

    let ids = |sessions: &[Value]| {
        sessions
            .iter()
            .map(|it| it["id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&before), ids(&after));
    assert!(killed.reason.starts_with("an operator ended"), "{killed:?}");
    assert!(revoked.reason.contains("was revoked"), "{revoked:?}");
    ends_well(&mut gateway, heir);
}

#[test]
fn sessions_outlive_two_successions() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut first = open(&gateway);

    let second = upgrade(&gateway);
    let mut between = open(&gateway);
    let third = upgrade(&gateway);

    assert!(second.is_alive() && third.is_alive());
    echoes(&mut first);
    echoes(&mut between);
    let ids = sessions(&gateway);
    assert_eq!(ids.len(), 2);
    for session in ids {
        gateway
            .cli(&["session", "kill", session["id"].as_str().unwrap()])
            .ok();
    }
    assert_eq!(first.expect_close().code, Some(4007));
    assert_eq!(between.expect_close().code, Some(4007));
    until("the end of the second process", || {
        (!second.is_alive()).then_some(())
    });
    assert!(third.is_alive());
}

#[test]
fn tokens_in_a_file_move_with_it() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let file = setup.directory.path().join("tokens.redb");
    let setup = setup.set("auth", "source", "file");
    let mut gateway = setup.set("auth", "file", file.to_str().unwrap()).start();
    let (good, revoked) = (gateway.issue("web-1"), gateway.issue("web-1"));
    let tokens = gateway.cli(&["token", "list", "-o", "json"]).ok().json();
    let first = tokens["tokens"][0]["id"].as_str().unwrap().to_owned();
    gateway.cli(&["token", "revoke", &first]).ok();
    let single = gateway.issue_with(&["token", "issue", "web-1", "--single-use"]);
    let mut used = Upgrade::new(&single.upgrade_path())
        .open(gateway.listen)
        .unwrap();
    shake_hands(&mut used);

    let heir = upgrade(&gateway);
    let other = Upgrade::new(&single.upgrade_path()).with("User-Agent", "another");
    let mut other = other.open(gateway.listen).unwrap();
    let opened: Vec<_> = [&good, &revoked]
        .map(|url| {
            let mut ws = Upgrade::new(&url.upgrade_path())
                .open(gateway.listen)
                .unwrap();
            let frame = ws.answer();
            frame.opcode == crate::rig::ws::BINARY
        })
        .into();

    assert_eq!(
        other.expect_close().code,
        Some(4002),
        "its browser is known"
    );
    assert_eq!(
        opened.iter().filter(|opened| **opened).count(),
        1,
        "{opened:?}"
    );
    used.send_close(1000, "");
    ends_well(&mut gateway, heir);
}

/// Writes a program by another process: one that this process still had open to be written, or a
/// child of another test that was just born, could not be run.
fn in_a_child(command: &[&str]) {
    let mut child = bare(Path::new(command[0]));
    run(child.args(&command[1..])).ok();
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn copy_to(place: &Path) {
    in_a_child(&["cp", BINARY, path(place)]);
}

/// A gateway that runs from a file of its own.
fn from_a_copy(setup: Setup) -> (Gateway, PathBuf) {
    let copy = setup.directory.path().join("vncgate");
    copy_to(&copy);
    let start = copy.clone();
    (setup.start_with(move |_binary| bare(&start)), copy)
}

/// Puts another program in a running one's place on the disk, as a package manager does.
fn replace(program: &Path, by: impl FnOnce(&Path)) {
    let new = program.with_extension("new");
    by(&new);
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, program).unwrap();
}

#[test]
fn a_binary_that_was_replaced_on_the_disk_is_the_one_that_takes_over() {
    let peer = Peer::echo();
    let (mut gateway, program) = from_a_copy(Setup::new().instance("web-1", &peer.address()));
    replace(&program, copy_to);

    let heir = upgrade(&gateway);
    let runs = fs::read_link(format!("/proc/{}/exe", heir.number())).unwrap();

    assert_eq!(runs, program);
    echoes(&mut open(&gateway));
    ends_well(&mut gateway, heir);
}

#[test]
fn a_binary_that_does_not_start_leaves_the_old_one_serving() {
    let peer = Peer::echo();
    let (mut gateway, program) = from_a_copy(Setup::new().instance("web-1", &peer.address()));
    let mut ws = open(&gateway);
    let url = gateway.issue("web-1");
    for (text, wanted) in [
        ("#!/bin/sh\nexit 3\n", "it ended at once"),
        ("#!/bin/sh\nexit 0\n", "did not get ready"),
        ("no program at all", "cannot start"),
    ] {
        replace(&program, |new| {
            in_a_child(&["sh", "-c", "printf %s \"$1\" > \"$0\"", path(new), text]);
        });

        let refused = gateway.cli(&["upgrade"]);

        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains(wanted), "{wanted}: {refused:?}");
    }
    assert!(gateway.is_running());
    echoes(&mut ws);
    let mut new = Upgrade::new(&url.upgrade_path())
        .open(gateway.listen)
        .unwrap();
    shake_hands(&mut new);
}

#[test]
fn a_config_that_is_not_good_leaves_the_old_one_serving_and_is_told_in_words() {
    let peer = Peer::echo();
    let mut gateway = Gateway::of("web-1", &peer.address());
    let mut ws = open(&gateway);
    let text = fs::read_to_string(&gateway.config).unwrap();

    for (table, wanted) in [
        ("[keystone]\ninterface = \"none\"\n", "interface"),
        ("[web]\nroot = \"/nowhere/novnc\"\n", "/nowhere/novnc"),
    ] {
        fs::write(&gateway.config, format!("{text}\n{table}")).unwrap();
        let refused = gateway.cli(&["upgrade"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains(wanted), "{wanted}: {refused:?}");
    }

    assert!(gateway.is_running());
    echoes(&mut ws);
    echoes(&mut open(&gateway));
}

#[test]
fn sigterm_ends_both_within_the_drain() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let mut gateway = setup.set("proxy", "drain_timeout", "1s").start();
    let mut old = open(&gateway);
    let heir = upgrade(&gateway);
    let mut new = open(&gateway);

    gateway.signal(Signal::TERM);
    kill_process(heir.pid(), Signal::TERM).unwrap();

    assert_eq!(old.expect_close().code, Some(1001));
    assert_eq!(new.expect_close().code, Some(1001));
    until("the end of both", || {
        (!heir.is_alive() && !gateway.is_running()).then_some(())
    });
    assert_eq!(gateway.wait(), 0);
    assert!(!gateway.admin.exists());
}
