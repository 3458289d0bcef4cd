//! How fast the relay is, and what it costs. `cargo bench --bench relay`.
//!
//! Prints figures instead of judging them: absolute numbers are the machine's, so compare with
//! the plain copy that runs beside each, and only within one run.
#![expect(clippy::print_stdout, reason = "figures are its product")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where")]

use std::fs;
use std::future::pending;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vncgate::proxy::relay::{Opening, Settings, run};
use vncgate::proxy::ws::{Decoder, unmask};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const CONNECTIONS: u32 = 8;
const PER_CONNECTION: usize = 256 << 20;
const CHUNK: usize = 64 << 10;

/// What is measured: the relay, or the same streams without frames.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Relay,
    PlainCopy,
}

/// Where viewers come to, where they are taken, and how many come.
struct Route {
    door: TcpListener,
    backend: SocketAddr,
    viewers: u32,
}

fn main() {
    // `cargo test --benches` only wants to see that it starts.
    if std::env::args().all(|argument| argument != "--bench") {
        return;
    }
    frames();
    for kind in [Kind::Relay, Kind::PlainCopy, Kind::Relay, Kind::PlainCopy] {
        bulk(kind, "down", CHUNK);
        bulk(kind, "up", CHUNK);
        bulk(kind, "up", 1 << 10);
        echo_beside_bulk(kind);
    }
}

/// Unmasking and decoding, in memory.
fn frames() {
    let mut bytes = vec![7; CHUNK];
    report("unmask, 64 KiB", CHUNK, 1, || {
        unmask(black_box(&mut bytes), MASK);
    });
    report("unmask a byte at a time, 64 KiB", CHUNK, 1, || {
        for (byte, key) in black_box(&mut bytes).iter_mut().zip(MASK.iter().cycle()) {
            *byte ^= key;
        }
    });
    for payload in [CHUNK, 1 << 10, 16] {
        let stream = masked_frames(payload, CHUNK.max(payload));
        let count = stream.len() / frame(payload).len();
        let mut buffer = stream.clone();
        let name = format!("decode frames of {payload} bytes");
        report(&name, stream.len(), count, || {
            // The copy stands for the read that brings new bytes; it is in the figure.
            buffer.copy_from_slice(&stream);
            let mut decoder = Decoder::new(1 << 20);
            let found = decoder.decode(black_box(&mut buffer), |_| ());
            assert!(found.end.is_none());
        });
    }
}

/// Runs `work` for a while and prints its speed.
fn report(name: &str, bytes: usize, frames: usize, mut work: impl FnMut()) {
    let started = Instant::now();
    let mut rounds = 0_u32;
    while started.elapsed() < Duration::from_millis(700) {
        for _ in 0..64 {
            work();
        }
        rounds += 64;
    }
    let each = started.elapsed().as_secs_f64() / f64::from(rounds);
    let gib_s = float(bytes) / each / 1024_f64.powi(3);
    println!(
        "{name:<36} {gib_s:8.2} GiB/s {:8.1} ns/frame",
        each * 1e9 / float(frames)
    );
}

/// Moves bytes one way over all connections and prints speed and processor time.
fn bulk(kind: Kind, way: &str, payload: usize) {
    let backends = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = backends.local_addr().unwrap();
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    let down = way == "down";
    let chunk = match (kind, down) {
        (Kind::Relay, false) => masked_frames(payload, 1 << 20),
        (Kind::Relay, true) | (Kind::PlainCopy, _) => vec![7; CHUNK],
    };
    let chunk: Arc<[u8]> = chunk.into();
    // Exactly a share: a relay fetches what a sender goes on sending after the end.
    let share = match (kind, down) {
        (Kind::Relay, false) => PER_CONNECTION / payload * frame(payload).len(),
        (Kind::Relay, true) | (Kind::PlainCopy, _) => PER_CONNECTION,
    };
    let proxy = serve(
        kind,
        vec![Route {
            door,
            backend,
            viewers: CONNECTIONS,
        }],
    );
    let started = Instant::now();
    let ends: Vec<_> = (0..CONNECTIONS)
        .flat_map(|_| {
            let viewer = TcpStream::connect(address).unwrap();
            let target = backends.accept().unwrap().0;
            let (from, to) = if down {
                (target, viewer)
            } else {
                (viewer, target)
            };
            let chunk = Arc::clone(&chunk);
            [
                thread::spawn(move || send(from, &chunk, share)),
                thread::spawn(move || receive(to)),
            ]
        })
        .collect();
    for end in ends {
        end.join().unwrap();
    }
    let took = started.elapsed().as_secs_f64();
    let bytes = f64::from(CONNECTIONS) * float(PER_CONNECTION);
    let cpu = proxy.join().unwrap() / (bytes / 1024_f64.powi(3));
    let speed = bytes / took / 1e6;
    println!("{kind:?}, {way}, {payload} bytes: {speed:.0} MB/s, {cpu:.2} CPU s/GiB");
}

/// Sends `share` bytes, or until the other side has had enough.
fn send(mut to: TcpStream, chunk: &[u8], share: usize) {
    let mut rest = share;
    while rest > 0 {
        let piece = chunk.get(..rest.min(chunk.len())).unwrap();
        if to.write_all(piece).is_err() {
            return;
        }
        rest -= piece.len();
    }
}

/// Receives its share, then leaves.
fn receive(mut from: TcpStream) {
    let mut buffer = vec![0; 256 << 10];
    let mut received = 0;
    while received < PER_CONNECTION {
        received += from.read(&mut buffer).unwrap();
    }
}

/// The time of an echo of 16 bytes, one after the other, beside four downloads at full speed.
fn echo_beside_bulk(kind: Kind) {
    let bulk_backends = TcpListener::bind("127.0.0.1:0").unwrap();
    let echo_backends = TcpListener::bind("127.0.0.1:0").unwrap();
    let (bulk_door, echo_door) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let (bulk, echo) = (
        bulk_door.local_addr().unwrap(),
        echo_door.local_addr().unwrap(),
    );
    let route = |door, backends: &TcpListener, viewers| Route {
        door,
        backend: backends.local_addr().unwrap(),
        viewers,
    };
    let proxy = serve(
        kind,
        vec![
            route(bulk_door, &bulk_backends, 4),
            route(echo_door, &echo_backends, 1),
        ],
    );
    let enough = Arc::new(AtomicBool::new(false));
    let ends: Vec<_> = (0..4)
        .flat_map(|_| {
            let viewer = TcpStream::connect(bulk).unwrap();
            let target = bulk_backends.accept().unwrap().0;
            let enough = Arc::clone(&enough);
            let sender = thread::spawn(move || {
                send(target, &vec![7; CHUNK], usize::MAX);
                0
            });
            [
                sender,
                thread::spawn(move || receive_until(viewer, &enough)),
            ]
        })
        .collect();
    let viewer = TcpStream::connect(echo).unwrap();
    let target = echo_backends.accept().unwrap().0;
    let echoes = thread::spawn(move || answer(target));
    let started = Instant::now();
    let mut times = ask(kind, viewer, Duration::from_secs(4));
    enough.store(true, Ordering::Relaxed);
    let took = started.elapsed().as_secs_f64();
    let moved: usize = ends.into_iter().map(|end| end.join().unwrap()).sum();
    echoes.join().unwrap();
    proxy.join().unwrap();
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 1000).unwrap().as_micros();
    println!(
        "{kind:?}, echo beside 4 downloads: p50 {} us, p99 {} us, of {}; downloads {:.0} MB/s",
        at(500),
        at(990),
        times.len(),
        float(moved) / took / 1e6
    );
}

fn receive_until(mut from: TcpStream, enough: &AtomicBool) -> usize {
    let mut buffer = vec![0; 256 << 10];
    let mut received = 0;
    while !enough.load(Ordering::Relaxed) {
        received += from.read(&mut buffer).unwrap();
    }
    received
}

fn answer(mut viewer: TcpStream) {
    viewer.set_nodelay(true).unwrap();
    let mut buffer = [0; 16];
    while viewer.read_exact(&mut buffer).is_ok() {
        viewer.write_all(&buffer).unwrap();
    }
}

fn ask(kind: Kind, mut proxy: TcpStream, long: Duration) -> Vec<Duration> {
    proxy.set_nodelay(true).unwrap();
    let (question, answer) = match kind {
        Kind::Relay => (frame(16), 18),
        Kind::PlainCopy => (vec![7; 16], 16),
    };
    let mut buffer = vec![0; answer];
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < long {
        let asked = Instant::now();
        proxy.write_all(&question).unwrap();
        proxy.read_exact(&mut buffer).unwrap();
        times.push(asked.elapsed());
    }
    times
}

/// A proxy on a thread of its own until its viewers have left; gives its processor seconds.
fn serve(kind: Kind, routes: Vec<Route>) -> JoinHandle<f64> {
    thread::spawn(move || {
        let before = processor_s();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut sessions = tokio::task::JoinSet::new();
            for route in routes {
                route.door.set_nonblocking(true).unwrap();
                let door = tokio::net::TcpListener::from_std(route.door).unwrap();
                sessions.spawn(accept(kind, door, route.backend, route.viewers));
            }
            while sessions.join_next().await.is_some() {}
        });
        processor_s() - before
    })
}

async fn accept(kind: Kind, door: tokio::net::TcpListener, backend: SocketAddr, viewers: u32) {
    let mut sessions = tokio::task::JoinSet::new();
    for _ in 0..viewers {
        let (mut viewer, _) = door.accept().await.unwrap();
        let mut target = tokio::net::TcpStream::connect(backend).await.unwrap();
        viewer.set_nodelay(true).unwrap();
        target.set_nodelay(true).unwrap();
        sessions.spawn(async move {
            match kind {
                Kind::Relay => {
                    let settings = Arc::new(Settings::default());
                    run(viewer, target, Opening::default(), &settings, pending()).await;
                }
                Kind::PlainCopy => {
                    let copy = tokio::io::copy_bidirectional_with_sizes;
                    let _ended = copy(&mut viewer, &mut target, CHUNK, CHUNK).await.is_ok();
                }
            }
        });
    }
    while sessions.join_next().await.is_some() {}
}

/// Seconds this thread has had a processor.
fn processor_s() -> f64 {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let ns: f64 = times.split(' ').next().unwrap().parse().unwrap();
    ns / 1e9
}

/// A masked binary frame.
fn frame(payload: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload {
        0..126 => frame.push(0x80 | u8::try_from(payload).unwrap()),
        126..65_536 => {
            frame.push(0xfe);
            frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
        }
        _ => {
            frame.push(0xff);
            frame.extend(u64::try_from(payload).unwrap().to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.resize(frame.len() + payload, 7);
    frame
}

/// As many whole frames as fit `length`, but one at least.
fn masked_frames(payload: usize, length: usize) -> Vec<u8> {
    let frame = frame(payload);
    frame.repeat((length / frame.len()).max(1))
}

/// For figures only; all here are far below 2^52.
#[expect(
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "figures are rounded"
)]
fn float(number: usize) -> f64 {
    number as f64
}
