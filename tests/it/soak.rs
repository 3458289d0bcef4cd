//! Sessions open, work and end in every way, over and over, and leave nothing behind.
//!
//! Some seconds by default; `VNCGATE_SOAK_SECONDS=600 cargo test --release --test it soak::` is the
//! long form, which holds more of them at one time.

use std::collections::VecDeque;
use std::fs;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::gateway::{Gateway, Setup};
use crate::rig::peers::{Peer, Random, pattern};
use crate::rig::rfb::shake_hands;
use crate::rig::wait::{until, until_settled};
use crate::rig::ws::{BINARY, Upgrade, Ws, header};

const THREADS: usize = 6;

/// Viewers answer no pings while nobody reads for them, and are given up after three of 30 s.
const QUIET: Duration = Duration::from_secs(45);

/// What a process holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    /// In steps of 4 MiB, which an allocator may keep.
    memory: usize,
}

#[test]
fn sessions_that_end_in_every_way_leave_nothing_behind() {
    let (echo, brief) = (patient_echo(), brief());
    let setup = Setup::new().instance("echo", &echo.address());
    let setup = setup.instance("brief", &brief.address());
    let setup = setup.set("limits", "new_connections_per_address", 0);
    let gateway = setup.set("auth", "url_ttl", "1h").start();
    let doors = [gateway.upgrade("echo"), gateway.upgrade("brief")];
    let (seconds, held) = plan();
    work(&gateway, &doors, Duration::from_secs(seconds.min(20)), held);
    let before = holdings(&gateway);

    let sessions = work(&gateway, &doors, Duration::from_secs(seconds), held);

    assert!(sessions > 20, "{sessions} sessions are no soak");
    until("what it held to be given back", || {
        let now = holdings(&gateway);
        let back = now.descriptors <= before.descriptors && now.threads <= before.threads;
        (back && now.memory <= before.memory + 1).then_some(())
    });
}

/// How many seconds, and how many quiet sessions each thread holds meanwhile.
fn plan() -> (u64, usize) {
    let wanted = std::env::var("VNCGATE_SOAK_SECONDS").ok();
    let wanted = wanted.map(|seconds| seconds.parse().unwrap());
    wanted.map_or((3, 10), |seconds| (seconds, 400))
}

/// A VNC server that sends back what comes, and waits for it as long as the soak is.
fn patient_echo() -> Peer {
    Peer::vnc(|mut stream| {
        stream.set_read_timeout(None)?;
        let mut back = stream.try_clone()?;
        std::io::copy(&mut stream, &mut back).map(drop)
    })
}

/// A VNC server that hangs up after four bytes.
fn brief() -> Peer {
    Peer::vnc(|mut stream| stream.read_exact(&mut [0; 4]))
}

/// Opens and ends sessions from several threads for a while; how many there were.
fn work(gateway: &Gateway, doors: &[Upgrade; 2], long: Duration, held: usize) -> usize {
    let sessions = AtomicUsize::new(0);
    let until = Instant::now() + long;
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let sessions = &sessions;
            scope.spawn(move || {
                let mut random = Random::new(u64::try_from(seed).unwrap() + 1);
                let mut quiet: VecDeque<(Instant, Ws)> = VecDeque::new();
                while Instant::now() < until {
                    one(gateway, doors, &mut random);
                    if quiet.len() < held {
                        quiet.push_back((Instant::now(), open(gateway, &doors[0])));
                    }
                    look_in(&mut quiet);
                    sessions.fetch_add(1, Ordering::Relaxed);
                }
                for (_, mut ws) in quiet {
                    echoes(&mut ws, b"still here");
                }
            });
        }
    });
    gateway.wait_for_sessions(0);
    sessions.into_inner()
}

/// Hears from those that have been quiet for long, before the gateway takes them for dead.
fn look_in(quiet: &mut VecDeque<(Instant, Ws)>) {
    while let Some((since, _)) = quiet.front()
        && since.elapsed() > QUIET
    {
        let (_, mut ws) = quiet.pop_front().unwrap();
        echoes(&mut ws, b"anybody there?");
        quiet.push_back((Instant::now(), ws));
    }
}

fn open(gateway: &Gateway, door: &Upgrade) -> Ws {
    let mut ws = door.clone().open(gateway.listen).unwrap();
    shake_hands(&mut ws);
    ws
}

fn echoes(ws: &mut Ws, bytes: &[u8]) {
    ws.send(bytes);
    assert!(ws.read(bytes.len()) == bytes, "other bytes came back");
}

/// One session from its beginning to one of its ends.
fn one(gateway: &Gateway, [echo, brief]: &[Upgrade; 2], random: &mut Random) {
    let way = random.below(8);
    let mut ws = open(gateway, if way == 0 { brief } else { echo });
    if way == 0 {
        ws.send(b"bye!");
        assert_eq!(ws.read_to_close().1.code, Some(1000));
        return;
    }
    echoes(&mut ws, &pattern(7, 1 + random.below(60_000)));
    match way {
        1 | 2 => {
            ws.send_close(1000, "");
            assert_eq!(ws.expect_close().code, Some(1000));
        }
        3 => {
            // Text, and not even masked.
            ws.send_raw(b"\x81\x01x");
            assert_eq!(ws.expect_close().code, Some(1002));
        }
        4 => {
            // In the middle of a frame.
            ws.send_raw(&header(true, BINARY, true, 1000));
            ws.vanish();
        }
        5 => {
            // With an answer that nobody reads, which resets the connection.
            ws.send(&pattern(8, 50_000));
            drop(ws);
        }
        _ => ws.vanish(),
    }
}

fn holdings(gateway: &Gateway) -> Holdings {
    let place = format!("/proc/{}", gateway.pid());
    let count = |what: &str| fs::read_dir(format!("{place}/{what}")).unwrap().count();
    let calm = Duration::from_millis(300);
    let descriptors = until_settled("descriptors to be closed", calm, || count("fd"));
    let status = fs::read_to_string(format!("{place}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.unwrap().trim().trim_end_matches(" kB");
    Holdings {
        descriptors,
        threads: count("task"),
        memory: kib.parse::<usize>().unwrap() / 4096,
    }
}
