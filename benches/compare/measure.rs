//! What is measured, and how. Work per CPU second of the proxy, so that the load generator on the
//! same cores disturbs as little as it can; latency against the time at which a message was due.

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::backends::{Backends, Check, Kind, pattern};
use crate::client::{Client, frame};
use crate::proxies::Proxy;

/// Connections that stream at one time, and threads that open sessions.
const STREAMS: usize = 4;

/// Streams run this long before they count.
const WARM_UP: Duration = Duration::from_millis(200);

/// Messages per second of the echo test: far from any proxy's limit.
const ECHO_RATE: u32 = 500;

/// The figures of one proxy in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// MiB per CPU second from backend to client.
    pub(crate) down: f64,
    /// MiB per CPU second from client to backend in frames of 64 KiB.
    pub(crate) up_large: f64,
    /// The same in frames of 1 KiB.
    pub(crate) up_small: f64,
    /// Round trip of 16 bytes in microseconds: the median.
    pub(crate) echo_median: f64,
    /// The 99th percentile.
    pub(crate) echo_late: f64,
    /// Sessions per second, from connect to greeting.
    pub(crate) sessions: f64,
    /// Sessions per CPU second.
    pub(crate) sessions_per_cpu: f64,
}

impl Figures {
    /// Takes all of them, one after the other.
    pub(crate) fn take(proxy: &Proxy, backends: &Backends, window: Duration) -> Result<Self> {
        let down = stream(proxy, backends, window, Kind::Down, read_down)?;
        let large = |client, _: &_| write_up(client, 1 << 16);
        let up_large = stream(proxy, backends, window, Kind::Up, large)?;
        let small = |client, _: &_| write_up(client, 1 << 10);
        let up_small = stream(proxy, backends, window, Kind::Up, small)?;
        let (echo_median, echo_late) = echo(proxy, window)?;
        let (sessions, sessions_per_cpu) = sessions(proxy, window)?;
        Ok(Self {
            down,
            up_large,
            up_small,
            echo_median,
            echo_late,
            sessions,
            sessions_per_cpu,
        })
    }
}

/// MiB per CPU second over some connections that stream in one direction.
fn stream(
    proxy: &Proxy,
    backends: &Backends,
    window: Duration,
    kind: Kind,
    start: impl Fn(Client, &Backends) -> JoinHandle<()>,
) -> Result<f64> {
    let mut ends = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..STREAMS {
        let mut client = Client::connect(proxy.address, proxy.path(kind))?;
        client.greet()?;
        ends.push(client.stream()?);
        threads.push(start(client, backends));
    }
    pause_until(Instant::now() + WARM_UP);
    let (bytes, cpu) = (backends.counts.bytes(), proxy.cpu_seconds()?);
    pause_until(Instant::now() + window);
    let (bytes, cpu) = (backends.counts.bytes() - bytes, proxy.cpu_seconds()? - cpu);
    for end in ends {
        end.shutdown(Shutdown::Both)?;
    }
    let panicked = threads.into_iter().filter_map(|thread| thread.join().err());
    ensure!(panicked.count() == 0, "a client thread panicked");
    ensure!(
        !backends.counts.corrupted(),
        "{} changed the bytes it relayed",
        proxy.name
    );
    ensure!(bytes > 0 && cpu > 0.0, "{} relayed nothing", proxy.name);
    Ok(float(bytes) / float(1 << 20) / cpu)
}

/// Reads until the connection is ended, inside a frame or not.
fn read_down(mut client: Client, backends: &Backends) -> JoinHandle<()> {
    let mut check = Check::new(backends.counts.clone());
    thread::spawn(move || drop(client.read_stream(|bytes| check.take(bytes))))
}

/// Writes until the connection is ended.
fn write_up(mut client: Client, frame_length: usize) -> JoinHandle<()> {
    let frames: Vec<u8> = pattern().chunks(frame_length).flat_map(frame).collect();
    let mut write_all = move || {
        frames
            .chunks(1 << 17)
            .all(|chunk| client.write(chunk).is_ok())
    };
    thread::spawn(move || while write_all() {})
}

/// Median and 99th percentile of the round trip of 16 bytes, sent at a fixed rate.
fn echo(proxy: &Proxy, window: Duration) -> Result<(f64, f64)> {
    let mut client = Client::connect(proxy.address, proxy.path(Kind::Echo))?;
    client.greet()?;
    let mut sender = client.stream()?;
    let period = Duration::from_secs(1) / ECHO_RATE;
    let count = u32::try_from(window.as_micros() / period.as_micros())?;
    let start = Instant::now() + WARM_UP;
    let sending = thread::spawn(move || -> std::io::Result<()> {
        for number in 0..count {
            pause_until(start + period * number);
            sender.write_all(&frame(&message(number)))?;
        }
        Ok(())
    });
    let mut times = Vec::new();
    for number in 0..count {
        let mut answer = [0; 16];
        client.read_payload(&mut answer)?;
        times.push((start + period * number).elapsed().as_secs_f64() * 1e6);
        ensure!(
            answer == message(number),
            "{} changed a message",
            proxy.name
        );
    }
    sending.join().ok().context("the sender panicked")??;
    times.sort_by(f64::total_cmp);
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or(f64::NAN)
    };
    Ok((at(50), at(99)))
}

fn message(number: u32) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

/// Sessions per second and per CPU second: connect, upgrade, greeting, end.
fn sessions(proxy: &Proxy, window: Duration) -> Result<(f64, f64)> {
    let count = AtomicU32::new(0);
    let cpu = proxy.cpu_seconds()?;
    let deadline = Instant::now() + window;
    let open = || -> Result<()> {
        while Instant::now() < deadline {
            drop(Client::connect(proxy.address, proxy.path(Kind::Idle))?);
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: [_; STREAMS] = std::array::from_fn(|_| scope.spawn(open));
        let ends = threads
            .into_iter()
            .map(|thread| thread.join().ok().context("a panic")?);
        ends.collect::<Result<()>>()
    })?;
    // time for the last sessions to end, so that their cost is counted
    pause_until(Instant::now() + WARM_UP);
    let cpu = proxy.cpu_seconds()? - cpu;
    let count = f64::from(count.into_inner());
    Ok((count / window.as_secs_f64(), count / cpu))
}

/// KiB of memory that one idle session adds.
pub(crate) fn idle_session(proxy: &Proxy, count: usize) -> Result<f64> {
    let open = || -> Result<Client> {
        let mut client = Client::connect(proxy.address, proxy.path(Kind::Idle))?;
        client.greet()?;
        Ok(client)
    };
    drop(open()?);
    pause_until(Instant::now() + WARM_UP);
    let before = proxy.memory_kib()?;
    let clients = (0..count).map(|_| open()).collect::<Result<Vec<_>>>()?;
    pause_until(Instant::now() + WARM_UP * 5);
    let after = proxy.memory_kib()?;
    drop(clients);
    Ok(float(after.saturating_sub(before)) / float(u64::try_from(count)?))
}

/// The middle one.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a figure for people, far below 2^52"
)]
fn float(number: u64) -> f64 {
    number as f64
}

fn pause_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}
