//! Who does everything wrong at once, beside ten people who work.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::rig::gateway::{Gateway, Setup};
use crate::rig::http::{Request, connect};
use crate::rig::https::TlsPipe;
use crate::rig::peers::Peer;
use crate::rig::rfb::shake_hands;
use crate::rig::wait::until;
use crate::rig::ws::{BINARY, Upgrade, Ws, header};
use crate::tls_viewer::Files;

/// People who work.
const GOOD: usize = 10;

/// Keys each of them presses, before and during the abuse.
const KEYS: usize = 300;

/// No key may wait longer for its echo than this, nor than so many times what it was before; two
/// busy processors serve the abusers too.
const CEILING: Duration = Duration::from_millis(750);

/// More memory than this is too much: what all limits of this test's config allow together.
const MEMORY: f64 = 256.0 * 1024.0 * 1024.0;

const NO_TOKEN: &str = "/?token=00000000-0000-4000-8000-000000000000";

/// A VNC server that echoes, and one that sends without end.
fn peers() -> (Peer, Peer) {
    let endless = Peer::vnc(|mut stream| {
        let bytes = vec![7; 1 << 16];
        loop {
            stream.write_all(&bytes)?;
        }
    });
    (Peer::echo(), endless)
}

#[test]
fn ten_people_work_on_while_everything_is_abused_at_once() {
    let (files, (echo, endless)) = (Files::new(), peers());
    let setup = files.setup().instance("echo", &echo.address());
    let setup = setup.instance("endless", &endless.address());
    let gateway = setup.set("proxy", "header_timeout", "5s").start();
    let from = |own: &str| TlsPipe::from(own, gateway.listen, &files.client(), "127.0.0.1");
    let (pipe, evil) = (from("127.0.0.1"), ["127.0.0.8", "127.0.0.9"].map(from));
    let door = gateway.upgrade("echo");
    let mut people: Vec<Ws> = (0..GOOD)
        .map(|_| joined(door.clone().open(pipe.address()).unwrap()))
        .collect();

    let calm = percentile(work(&mut people));
    let highest = AtomicUsize::new(0);
    let (report, busy) = under_abuse(&gateway, &evil, &highest, || percentile(work(&mut people)));

    let memory = highest.into_inner();
    println!(
        "p99 of an echo: {calm:?} before, {busy:?} meanwhile; {memory} bytes at most\n{report}"
    );
    assert!(busy < CEILING.max(calm * 20), "{busy:?} after {calm:?}");
    assert!(
        f64::from(u32::try_from(memory).unwrap()) < MEMORY,
        "{memory} bytes"
    );
    let mut later = until("a newcomer to be served", || {
        door.clone().open(pipe.address()).ok()
    });
    shake_hands(&mut later);
}

/// Runs `work` while all the abuse goes on; what came of the abuse, and of the work.
fn under_abuse<T>(
    gateway: &Gateway,
    [guesser, other]: &[TlsPipe; 2],
    highest: &AtomicUsize,
    work: impl FnOnce() -> T,
) -> (String, T) {
    let (over, endless) = (AtomicBool::new(false), gateway.upgrade("endless"));
    let mut report = String::new();
    let worked = thread::scope(|scope| {
        let abusers = [
            scope.spawn(|| bad_tokens(gateway, guesser)),
            scope.spawn(|| half_open(gateway, &over)),
            scope.spawn(|| long_heads(other)),
            scope.spawn(|| huge_frames(gateway, other)),
            scope.spawn(|| stalled_readers(&endless, other, &over)),
        ];
        scope.spawn(|| watch_memory(gateway, highest, &over));
        // Not before there is something to suffer from.
        until("abuse", || {
            (gateway.metric("vncgate_closes_total", "4001") > 10.0).then_some(())
        });
        let worked = work();
        over.store(true, Ordering::SeqCst);
        for abuser in abusers {
            let _infallible = writeln!(report, "{}", abuser.join().unwrap());
        }
        worked
    });
    (report, worked)
}

fn watch_memory(gateway: &Gateway, highest: &AtomicUsize, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.unwrap().trim().trim_end_matches(" kB");
        highest.fetch_max(kib.parse::<usize>().unwrap() * 1024, Ordering::SeqCst);
        thread::park_timeout(Duration::from_millis(50));
    }
}

fn joined(mut ws: Ws) -> Ws {
    shake_hands(&mut ws);
    ws
}

/// How long each key of each person took to come back.
fn work(people: &mut [Ws]) -> Vec<Duration> {
    let times = thread::scope(|scope| {
        let all: Vec<_> = people
            .iter_mut()
            .map(|ws| scope.spawn(|| type_keys(ws)))
            .collect();
        all.into_iter()
            .flat_map(|one| one.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(times.len(), GOOD * KEYS);
    times
}

fn type_keys(ws: &mut Ws) -> Vec<Duration> {
    let press = |key: usize| {
        let key = key.to_be_bytes();
        let pressed = Instant::now();
        ws.send(&key);
        assert_eq!(ws.read(key.len()), key);
        // A quick typist.
        thread::park_timeout(Duration::from_millis(10));
        pressed.elapsed().saturating_sub(Duration::from_millis(10))
    };
    (0..KEYS).map(press).collect()
}

fn percentile(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// 10,000 bad tokens, on connections that are used again while they are refused before the upgrade.
fn bad_tokens(gateway: &Gateway, pipe: &TlsPipe) -> String {
    let (refused, slowed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_500 {
                    match Upgrade::new(NO_TOKEN).try_open(pipe.address()) {
                        Some(101) => refused.fetch_add(1, Ordering::SeqCst),
                        _ => slowed.fetch_add(1, Ordering::SeqCst),
                    };
                }
            });
        }
    });
    let (refused, slowed) = (refused.into_inner(), slowed.into_inner());
    assert!(
        refused < 2_000 && refused + slowed == 10_000,
        "{refused} {slowed}"
    );
    assert!(gateway.metric("vncgate_turned_away_total", "tokens") > 0.0);
    format!("10000 bad tokens: {refused} refused in words, {slowed} before")
}

/// 2,000 connections from ten addresses that begin to shake hands and say no more.
fn half_open(gateway: &Gateway, over: &AtomicBool) -> String {
    let mut held = Vec::new();
    for number in 0..2_000 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let own = SocketAddr::from(([127, 0, 1, u8::try_from(number % 10).unwrap() + 1], 0));
        socket.bind(&own.into()).unwrap();
        if socket.connect(&gateway.listen.into()).is_ok() {
            let mut stream = TcpStream::from(socket);
            let _gone = stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00").is_err();
            held.push(stream);
        }
    }
    wait_for(over);
    format!("{} half-open handshakes", held.len())
}

fn wait_for(over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// Heads of 64 KiB, none of which is read to its end.
fn long_heads(pipe: &TlsPipe) -> String {
    let request = Request::new("GET", "/vnc.html").header("X-Long", &"x".repeat(64 << 10));
    let refused = (0..100).filter(|_| {
        let answer = request.try_send(pipe.address());
        answer.map_or(true, |answer| [400, 431, 429].contains(&answer.status))
    });
    let refused = refused.count();
    assert_eq!(refused, 100, "a head of 64 KiB was taken");
    format!("{refused} heads of 64 KiB refused")
}

/// Frames that announce 2^62 bytes.
fn huge_frames(gateway: &Gateway, pipe: &TlsPipe) -> String {
    let door = gateway.upgrade("echo");
    let mut ended = 0;
    for _ in 0..100 {
        if let Some(mut ws) = door.clone().try_ws(pipe.address()) {
            shake_hands(&mut ws);
            ws.send_raw(&[&header(true, BINARY, true, 1 << 62)[..], &[0; 4]].concat());
            assert_eq!(ws.expect_close().code, Some(1009));
            ended += 1;
        }
    }
    assert_eq!(ended, 100);
    format!("{ended} sessions with a frame of 2^62 bytes ended")
}

/// 500 viewers of an endless picture that read nothing of it.
fn stalled_readers(door: &Upgrade, pipe: &TlsPipe, over: &AtomicBool) -> String {
    let mut held = Vec::new();
    for _ in 0..500 {
        held.extend(door.clone().try_ws(pipe.address()).map(joined));
    }
    wait_for(over);
    assert_eq!(held.len(), 500);
    format!("{} readers stalled", held.len())
}

#[test]
fn an_address_has_so_many_connections_and_others_are_served_meanwhile() {
    let setup = Setup::new().set("limits", "connections_per_address", 5);
    let gateway = setup.start();
    let mut held: Vec<_> = (0..5).map(|_| connect(gateway.listen)).collect();
    // Each is known to be in once it is answered.
    for stream in &mut held {
        stream
            .write_all(b"GET /vnc.html HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        assert_eq!(crate::rig::http::Response::read(stream, false).status, 200);
    }
    let page = Request::new("GET", "/vnc.html");

    let refused = page.try_send(gateway.listen);
    drop(held);
    let served = until("a place", || {
        let answer = page.try_send(gateway.listen).ok()?;
        (answer.status == 200).then_some(answer)
    });

    assert!(refused.map_or(true, |answer| answer.status == 429));
    assert_eq!(served.status, 200);
    assert!(gateway.metric("vncgate_turned_away_total", "connections") >= 1.0);
    let limit = gateway.metric("vncgate_limit", "\"connections_per_address\"");
    assert!((limit - 5.0).abs() < 0.1);
}

#[test]
fn new_connections_beyond_the_rate_are_told_to_wait() {
    let setup = Setup::new().set("limits", "new_connections_per_address", 1);
    let gateway = setup.start();
    let mut statuses = Vec::new();
    for _ in 0..30 {
        let mut stream = connect(gateway.listen);
        let mut answer = Vec::new();
        let _gone = stream.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let _reset = stream.read_to_end(&mut answer).is_err();
        statuses.push(
            String::from_utf8_lossy(&answer)
                .chars()
                .skip(9)
                .take(3)
                .collect(),
        );
    }

    assert!(
        statuses.iter().filter(|it: &&String| *it == "404").count() >= 10,
        "{statuses:?}"
    );
    assert!(gateway.metric("vncgate_turned_away_total", "rate") >= 10.0);
    assert_eq!(
        gateway.watch("/healthz").status,
        200,
        "who watches is not counted"
    );
}

#[test]
fn wrong_keys_are_slowed_down_before_they_are_looked_at() {
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let setup = Setup::new().key("ops", hash);
    let setup = setup.set("limits", "failed_tokens_per_address", 1);
    let gateway = setup
        .set("limits", "new_connections_per_address", 0)
        .start();
    let ask = Request::new("GET", "/v1/instances").header("Authorization", "Bearer vgk_wrong");

    let answers: Vec<_> = (0..40).map(|_| gateway.http(&ask)).collect();

    assert_eq!(answers[0].status, 401);
    let slowed = answers.iter().find(|answer| answer.status == 429).unwrap();
    let wait: u64 = slowed.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(
        gateway.cli(&["instance", "list"]).code,
        0,
        "the admin socket is no address"
    );
}

#[test]
fn without_memory_nothing_new_begins_and_what_runs_goes_on() {
    let peer = Peer::echo();
    let setup = Setup::new().instance("web-1", &peer.address());
    let gateway = setup.set("limits", "memory", 1).start();
    gateway.wait_for_event("the ceiling", |event| {
        event["level"] == "WARN" && event["ceiling"] == 1
    });

    let mut stream = connect(gateway.listen);
    let mut answer = String::new();
    let _reset = stream.read_to_string(&mut answer).is_err();

    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("Retry-After"), "{answer}");
    assert_eq!(gateway.watch("/healthz").status, 200);
    assert!(gateway.metric("vncgate_turned_away_total", "memory") >= 1.0);
    let ready = gateway.watch("/readyz");
    assert_eq!(ready.status, 503, "nobody is to be sent here");
    let words = "\"memory\":\"more memory is used than limits.memory allows";
    assert!(ready.text().contains(words), "{ready:?}");
}

#[test]
fn a_head_may_be_as_large_as_it_is_set_to_be() {
    let setup = Setup::new().set("proxy", "max_header", 8192);
    let gateway = setup.start();
    let of = |size: usize| {
        let request = Request::new("GET", "/vnc.html").header("X-Long", &"x".repeat(size));
        gateway.http(&request).status
    };

    assert_eq!(of(6_000), 200);
    assert!([400, 431].contains(&of(9_000)));
}
