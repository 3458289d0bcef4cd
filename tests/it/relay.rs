//! Bytes in both directions: all of them, in order, in bounded memory, up to the last one.

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::rig::gateway::{Gateway, Setup};
use crate::rig::peers::{Peer, Random, pattern};
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until_settled;
use crate::rig::ws::{BINARY, CONTINUATION, Ws, frame};

const MIB: usize = 1 << 20;

#[test]
fn megabytes_survive_both_ways_at_once_under_random_chunking() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    for seed in [1, 2, 3] {
        let mut ws = shaken(&gateway);
        let sent = pattern(seed, 4 * MIB);

        let mut writer = ws.twin();
        let bytes = sent.clone();
        let writing = thread::spawn(move || write_in_chunks(&mut writer, &bytes, seed));
        let echoed = ws.read(sent.len());
        writing.join().unwrap();

        assert!(echoed == sent, "seed {seed}: other bytes came back");
    }
}

#[test]
fn a_flood_of_tiny_frames_survives() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut ws = shaken(&gateway);
    let sent = pattern(9, 50_000);

    let mut writer = ws.twin();
    let flood: Vec<u8> = sent
        .iter()
        .flat_map(|byte| frame(true, BINARY, &[*byte]))
        .collect();
    let writing = thread::spawn(move || writer.send_raw(&flood));
    let echoed = ws.read(sent.len());
    writing.join().unwrap();

    assert!(echoed == sent, "other bytes came back");
}

#[test]
fn a_viewer_that_does_not_read_stops_the_target_and_costs_no_memory() {
    let produced = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&produced);
    let peer = Peer::vnc(move |mut stream| {
        let bytes = pattern(4, 64 * MIB);
        for chunk in bytes.chunks(1 << 16) {
            stream.write_all(chunk)?;
            counter.fetch_add(chunk.len(), Ordering::SeqCst);
        }
        Ok(())
    });
    let gateway = Gateway::of("web-1", &peer.address());
    let before = memory(&gateway);
    let mut ws = shaken(&gateway);

    let stalled_at = settled(&produced);
    let grown = memory(&gateway).saturating_sub(before);

    assert!(
        stalled_at < 32 * MIB,
        "{stalled_at} bytes went to a viewer that reads nothing"
    );
    assert!(
        grown < 8 * MIB,
        "{grown} bytes of memory for one slow viewer"
    );
    let (bytes, closed) = ws.read_to_close();
    assert_eq!((bytes.len(), closed.code), (64 * MIB, Some(1000)));
    assert!(bytes == pattern(4, 64 * MIB), "other bytes came");
}

#[test]
fn a_target_that_does_not_read_stops_the_viewer_and_costs_no_memory() {
    let (go_on, gate) = mpsc::channel::<()>();
    let (send_result, result) = mpsc::channel();
    let gate = std::sync::Mutex::new(gate);
    let peer = Peer::vnc(move |mut stream| {
        let _opened = gate.lock().unwrap().recv().is_ok();
        let mut bytes = vec![0; 64 * MIB];
        stream.read_exact(&mut bytes)?;
        send_result.send(bytes).unwrap();
        Ok(())
    });
    let gateway = Gateway::of("web-1", &peer.address());
    let mut ws = shaken(&gateway);
    let before = memory(&gateway);
    let written = Arc::new(AtomicUsize::new(0));

    let counter = Arc::clone(&written);
    let writing = thread::spawn(move || {
        let bytes = pattern(5, 64 * MIB);
        for chunk in bytes.chunks(1 << 16) {
            ws.send(chunk);
            counter.fetch_add(chunk.len(), Ordering::SeqCst);
        }
        ws
    });
    let stalled_at = settled(&written);
    let grown = memory(&gateway).saturating_sub(before);

    assert!(
        stalled_at < 32 * MIB,
        "{stalled_at} bytes went to a target that reads nothing"
    );
    assert!(
        grown < 8 * MIB,
        "{grown} bytes of memory for one slow target"
    );
    go_on.send(()).unwrap();
    let bytes = result.recv_timeout(crate::rig::wait::PATIENCE).unwrap();
    let _ws = writing.join().unwrap();
    assert!(bytes == pattern(5, 64 * MIB), "other bytes arrived");
}

#[test]
fn a_stalled_direction_does_not_stop_the_other() {
    let produced = Arc::new(AtomicUsize::new(0));
    let (send_heard, heard) = mpsc::channel();
    let counter = Arc::clone(&produced);
    let peer = Peer::vnc(move |stream| {
        let mut writer = stream.try_clone()?;
        let counter = Arc::clone(&counter);
        thread::spawn(move || {
            let chunk = vec![7; 1 << 16];
            while writer.write_all(&chunk).is_ok() {
                counter.fetch_add(chunk.len(), Ordering::SeqCst);
            }
        });
        let (mut stream, mut bytes) = (stream, [0; 5]);
        stream.read_exact(&mut bytes)?;
        send_heard.send(bytes).unwrap();
        Ok(())
    });
    let gateway = Gateway::of("web-1", &peer.address());
    let mut ws = shaken(&gateway);
    settled(&produced);

    ws.send(b"input");

    assert_eq!(
        &heard.recv_timeout(crate::rig::wait::PATIENCE).unwrap(),
        b"input"
    );
}

#[test]
fn the_last_bytes_of_a_target_come_before_its_end() {
    let peer = Peer::vnc(|mut stream| {
        let bytes = pattern(6, 3 * MIB);
        stream.write_all(&bytes)
    });
    let gateway = Gateway::of("web-1", &peer.address());

    let (bytes, closed) = shaken(&gateway).read_to_close();

    assert_eq!(closed.code, Some(1000), "{closed:?}");
    assert_eq!(bytes.len(), 3 * MIB);
    assert!(bytes == pattern(6, 3 * MIB), "other bytes came");
}

#[test]
fn a_target_that_ends_its_half_still_gets_what_the_viewer_sent_before() {
    let (send_rest, rest) = mpsc::channel();
    let peer = Peer::vnc(move |mut stream| {
        let mut go = [0; 2];
        stream.read_exact(&mut go)?;
        stream.write_all(b"done")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        send_rest.send(bytes).unwrap();
        Ok(())
    });
    let gateway = Gateway::of("web-1", &peer.address());
    let mut ws = shaken(&gateway);

    ws.send(b"gorest");
    let (bytes, closed) = ws.read_to_close();

    assert_eq!((&bytes[..], closed.code), (&b"done"[..], Some(1000)));
    assert_eq!(
        rest.recv_timeout(crate::rig::wait::PATIENCE).unwrap(),
        b"rest"
    );
}

#[test]
fn viewers_of_one_target_do_not_hear_each_other() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut viewers: Vec<Ws> = (0..8).map(|_| shaken(&gateway)).collect();
    gateway.wait_for_sessions(8);

    for (number, viewer) in viewers.iter_mut().enumerate() {
        viewer.send(format!("viewer {number}").as_bytes());
    }

    for (number, viewer) in viewers.iter_mut().enumerate() {
        assert_eq!(viewer.read(8), format!("viewer {number}").as_bytes());
    }
    assert_eq!(peer.connections(), 8);
    drop(viewers);
    gateway.wait_for_sessions(0);
}

#[test]
fn a_session_leaves_one_line_at_its_start_and_one_at_its_end() {
    let peer = Peer::echo();
    let gateway = Gateway::of("web-1", &peer.address());
    let mut ws = shaken(&gateway);
    ws.send(&[1; 1000]);
    ws.read(1000);

    ws.send_close(1000, "");
    ws.expect_close();
    gateway.wait_for_sessions(0);

    let ended = gateway.wait_for_event("the end of the session", |event| {
        let message = event["message"].as_str().unwrap_or_default();
        message.contains("session") && message.contains("end")
    });
    let text = ended.to_string();
    assert!(text.contains("web-1"), "who: {text}");
    assert!(text.contains(&peer.address()), "where: {text}");
    assert!(text.contains("1000"), "how many bytes, and why: {text}");
    let lines = gateway.events().into_iter().filter(|event| {
        let message = event["message"].as_str().unwrap_or_default();
        event["level"] == "INFO" && message.contains("session")
    });
    assert_eq!(lines.count(), 2, "one at the start and one at the end");
}

#[test]
fn a_session_names_the_client_behind_a_trusted_proxy_and_nobody_elses_word() {
    let peer = Peer::echo();
    for (trusted, expected) in [
        ("127.0.0.1/32", "203.0.113.9"),
        ("192.0.2.0/24", "127.0.0.1"),
    ] {
        let setup = Setup::new().instance("web-1", &peer.address());
        let gateway = setup.set("proxy", "trusted_proxies", vec![trusted]).start();

        let upgrade = gateway
            .upgrade("web-1")
            .and("X-Forwarded-For", "198.51.100.7, 203.0.113.9");
        shake_hands(&mut upgrade.open(gateway.listen).unwrap());

        let started = gateway.wait_for_event("the start of the session", |event| {
            event["message"] == "session started"
        });
        assert_eq!(started["peer"], expected, "trusted: {trusted}");
    }
}

/// Sends all bytes in frames, fragments and segments of random sizes.
fn write_in_chunks(ws: &mut Ws, bytes: &[u8], seed: u64) {
    let mut random = Random::new(seed);
    let mut rest = bytes;
    let mut first = true;
    let mut segment = Vec::new();
    while !rest.is_empty() {
        let largest = [10, 200, 5_000, 70_000, 200_000][random.below(5)];
        let (now, later) = rest.split_at(random.below(largest).min(rest.len()));
        let last = later.is_empty() || random.below(4) > 0;
        segment.extend(frame(last, if first { BINARY } else { CONTINUATION }, now));
        (rest, first) = (later, last);
        let cut = random.below(segment.len() + 1);
        ws.send_raw(&segment[..cut]);
        segment.drain(..cut);
    }
    ws.send_raw(&segment);
}

/// Waits until a counter stands still, because the other side has stopped reading.
#[track_caller]
fn settled(counter: &AtomicUsize) -> usize {
    let calm = Duration::from_millis(500);
    until_settled("the writer to be stopped", calm, || {
        counter.load(Ordering::SeqCst)
    })
}

/// The gateway's resident memory in bytes.
fn memory(gateway: &Gateway) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        * 1024
}

fn shaken(gateway: &Gateway) -> Ws {
    let mut ws = gateway.open("web-1");
    shake_hands(&mut ws);
    ws
}
