//! What is measured, and how. Every payload byte is checked; latency counts from the time at which
//! a message was due, so that a relay that stalls is not asked less often.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};

use crate::backends::{Backends, Check, Kind, burst, pattern};
use crate::client::{Client, Door};
use crate::peers::Peer;
use crate::process::{float, hurry};

/// Sessions that come and go before idle ones are counted.
const FIRST: usize = 8;

/// Streams and messages run this long before they count.
const WARM_UP: Duration = Duration::from_millis(300);

/// Clients that open sessions at one time.
const OPENERS: usize = 16;

/// A figure's name, and its value.
pub(crate) type Figures = Vec<(&'static str, f64)>;

/// One thing that is measured, of one peer at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Measure {
    /// Eight downloads.
    Down,
    /// Eight uploads in frames of 64 KiB.
    UpLarge,
    /// Eight uploads in frames of 1 KiB.
    UpSmall,
    /// A hundred sessions that echo.
    Echo,
    /// One session that echoes beside four downloads.
    Beside,
    /// Sessions that open and end.
    Opening,
}

impl Measure {
    pub(crate) const ALL: [Self; 6] = [
        Self::Down,
        Self::UpLarge,
        Self::UpSmall,
        Self::Echo,
        Self::Beside,
        Self::Opening,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::UpLarge => "up-large",
            Self::UpSmall => "up-small",
            Self::Echo => "echo",
            Self::Beside => "beside",
            Self::Opening => "opening",
        }
    }

    pub(crate) fn take(
        self,
        peer: &Peer,
        backends: &Backends,
        window: Duration,
    ) -> Result<Figures> {
        let figures = match self {
            Self::Down => {
                let [speed, cpu] = stream(peer, backends, window, &Load::Down(8))?;
                vec![("down, 8 sessions, MB/s", speed), ("down, CPU s/GiB", cpu)]
            }
            Self::UpLarge => {
                let [speed, cpu] = stream(peer, backends, window, &Load::Up(8, 64 << 10))?;
                vec![
                    ("up, 64 KiB frames, MB/s", speed),
                    ("up, 64 KiB frames, CPU s/GiB", cpu),
                ]
            }
            Self::UpSmall => {
                let [speed, cpu] = stream(peer, backends, window, &Load::Up(8, 1 << 10))?;
                vec![
                    ("up, 1 KiB frames, MB/s", speed),
                    ("up, 1 KiB frames, CPU s/GiB", cpu),
                ]
            }
            Self::Echo => {
                let before = peer.tree().cpu_seconds()?;
                let times = echo(peer, 100, 2000, window)?;
                let cpu = peer.tree().cpu_seconds()? - before;
                vec![
                    ("echo, 100 sessions, p50 µs", times.at(500)),
                    ("echo, 100 sessions, p99 µs", times.at(990)),
                    ("echo, CPU µs each", cpu * 1e6 / times.count()),
                ]
            }
            Self::Beside => beside(peer, backends, window)?,
            Self::Opening => opening(peer, window)?,
        };
        ensure!(
            !backends.counts.corrupted(),
            "{} changed the bytes it relayed",
            peer.make.name()
        );
        Ok(figures)
    }
}

/// Sessions at full speed.
enum Load {
    Down(usize),
    /// So many, in frames of this length.
    Up(usize, usize),
}

/// Streams under way; ended when dropped.
struct Streams {
    ends: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Streams {
    fn start(peer: &Peer, backends: &Backends, load: &Load) -> Result<Self> {
        let mut streams = Self {
            ends: Vec::new(),
            threads: Vec::new(),
        };
        let (kind, count) = match load {
            Load::Down(count) => (Kind::Down, *count),
            Load::Up(count, _) => (Kind::Up, *count),
        };
        let door = peer.door(kind)?;
        for _ in 0..count {
            let client = door.open_wide()?;
            streams.ends.push(client.stream()?);
            streams.threads.push(match load {
                Load::Down(_) => read_down(client, backends),
                Load::Up(_, length) => write_up(client, door, *length),
            });
        }
        Ok(streams)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for end in &self.ends {
            let _ended_already = end.shutdown(Shutdown::Both).is_err();
        }
        for thread in self.threads.drain(..) {
            let _panicked = thread.join().is_err();
        }
    }
}

/// MB per second and CPU seconds per GiB.
fn stream(peer: &Peer, backends: &Backends, window: Duration, load: &Load) -> Result<[f64; 2]> {
    let _streams = Streams::start(peer, backends, load)?;
    pause(WARM_UP);
    let (began, bytes, cpu) = (
        Instant::now(),
        backends.counts.bytes(),
        peer.tree().cpu_seconds()?,
    );
    pause(window);
    let bytes = float(backends.counts.bytes() - bytes);
    let (seconds, cpu) = (
        began.elapsed().as_secs_f64(),
        peer.tree().cpu_seconds()? - cpu,
    );
    ensure!(bytes > 0.0, "{} relayed nothing", peer.make.name());
    Ok([bytes / 1e6 / seconds, cpu / (bytes / float(1 << 30))])
}

/// Reads until the connection is ended, inside a frame or not.
fn read_down(mut client: Client, backends: &Backends) -> JoinHandle<()> {
    let mut check = Check::new(backends.counts.clone());
    thread::spawn(move || drop(client.read_stream(|bytes| check.take(bytes))))
}

/// Writes until the connection is ended, a MiB of frames at a time cut into 128 KiB.
fn write_up(mut client: Client, door: &Door, length: usize) -> JoinHandle<()> {
    let pattern = pattern();
    let frames: Vec<u8> = pattern
        .chunks(length)
        .flat_map(|payload| door.message(payload))
        .collect();
    let mut write_all = move || {
        frames
            .chunks(1 << 17)
            .all(|chunk| client.write(chunk).is_ok())
    };
    thread::spawn(move || while write_all() {})
}

/// One session that echoes beside four downloads.
fn beside(peer: &Peer, backends: &Backends, window: Duration) -> Result<Figures> {
    let _streams = Streams::start(peer, backends, &Load::Down(4))?;
    pause(WARM_UP);
    let (began, bytes) = (Instant::now(), backends.counts.bytes());
    let times = echo(peer, 1, 500, window)?;
    let bytes = float(backends.counts.bytes() - bytes);
    let speed = bytes / 1e6 / began.elapsed().as_secs_f64();
    Ok(vec![
        ("echo beside 4 downloads, p50 µs", times.at(500)),
        ("echo beside 4 downloads, p99 µs", times.at(990)),
        ("these downloads, MB/s", speed),
    ])
}

/// Times in microseconds, sorted.
struct Times(Vec<f64>);

impl Times {
    fn new(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// The value below which so many in a thousand are.
    fn at(&self, share: usize) -> f64 {
        let at = self.0.len() * share / 1000;
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }

    fn count(&self) -> f64 {
        float(u64::try_from(self.0.len()).unwrap_or_default())
    }
}

/// When which message is due.
#[derive(Clone, Copy)]
struct Pace {
    start: Instant,
    period: Duration,
    count: u32,
}

impl Pace {
    fn due(self, number: u32) -> Instant {
        self.start + self.period * number
    }
}

/// Round trips of 16 bytes at a fixed rate over all sessions in turns.
fn echo(peer: &Peer, sessions: usize, rate: u32, window: Duration) -> Result<Times> {
    let door = peer.door(Kind::Echo)?;
    let clients = (0..sessions).map(|_| door.open_narrow());
    let mut clients = clients.collect::<Result<Vec<_>>>()?;
    let period = Duration::from_secs(1) / rate;
    let pace = Pace {
        start: Instant::now() + Duration::from_millis(5),
        period,
        count: u32::try_from((WARM_UP + window).as_micros() / period.as_micros())?,
    };
    let times = thread::scope(|scope| {
        let talking = scope.spawn(|| talk(&mut clients, pace));
        talking.join().ok().context("a panic")?
    })?;
    let warm = u32::try_from(WARM_UP.as_micros() / period.as_micros())?;
    let times = times.into_iter().filter(|(number, _)| *number >= warm);
    Ok(Times::new(times.map(|(_, time)| time).collect()))
}

/// Sends what is due and hears what comes back, until all of it has. Which message came back after
/// how many microseconds.
fn talk(clients: &mut [Client], pace: Pace) -> Result<Vec<(u32, f64)>> {
    hurry();
    let mut times = Vec::new();
    let mut next = 0;
    while times.len() < usize::try_from(pace.count)? {
        while next < pace.count && pace.due(next) <= Instant::now() {
            let at = usize::try_from(next)? % clients.len();
            let client = clients.get_mut(at).context("no such session")?;
            client.send(&message(next))?;
            next += 1;
        }
        let patience = if next < pace.count {
            pace.due(next).saturating_duration_since(Instant::now())
        } else {
            Duration::from_secs(30)
        };
        for at in readable(clients, patience)? {
            let client = clients.get_mut(at).context("no such session")?;
            let number = answer(client)?;
            times.push((number, pace.due(number).elapsed().as_secs_f64() * 1e6));
        }
    }
    Ok(times)
}

/// The sessions from which an answer can be read; none if none came in time.
fn readable(clients: &mut [Client], patience: Duration) -> Result<Vec<usize>> {
    let buffered: Vec<bool> = clients.iter_mut().map(Client::has_more).collect();
    let mut waiting: Vec<_> = clients
        .iter()
        .map(|client| PollFd::new(client.socket(), PollFlags::IN))
        .collect();
    let some = buffered.contains(&true);
    let patience = if some { Duration::ZERO } else { patience };
    let ready = poll(&mut waiting, Some(&patience.try_into()?))?;
    let long = patience >= Duration::from_secs(30);
    ensure!(!long || ready > 0, "no answer within 30 s");
    let arrived = |(at, (waits, more)): (usize, (&PollFd<'_>, bool))| {
        (more || waits.revents().contains(PollFlags::IN)).then_some(at)
    };
    let each = waiting.iter().zip(buffered).enumerate();
    Ok(each.filter_map(arrived).collect())
}

/// The number of the message that comes back.
fn answer(client: &mut Client) -> Result<u32> {
    let mut answer = [0; 16];
    client.read_payload(&mut answer)?;
    let number = u32::try_from(u128::from_be_bytes(answer)).context("a message was changed")?;
    Ok(number)
}

fn message(number: u32) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

/// Sessions from connect until the backend has let them in, then ended, over several clients at one time.
fn opening(peer: &Peer, window: Duration) -> Result<Figures> {
    let door = peer.door(Kind::Echo)?;
    let count = AtomicU32::new(0);
    let (began, cpu) = (Instant::now(), peer.tree().cpu_seconds()?);
    let open = || -> Result<Vec<f64>> {
        let mut times = Vec::new();
        while began.elapsed() < window {
            let asked = Instant::now();
            drop(door.open_narrow()?);
            times.push(asked.elapsed().as_secs_f64() * 1e6);
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(times)
    };
    let times = thread::scope(|scope| {
        let threads: [_; OPENERS] = std::array::from_fn(|_| scope.spawn(open));
        let ends = threads
            .into_iter()
            .map(|thread| thread.join().ok().context("a panic")?);
        ends.collect::<Result<Vec<_>>>()
    })?;
    let seconds = began.elapsed().as_secs_f64();
    // Time for the last sessions to end, so that their cost is counted.
    pause(WARM_UP);
    let cpu = peer.tree().cpu_seconds()? - cpu;
    let count = f64::from(count.into_inner());
    Ok(vec![
        ("sessions opened per second", count / seconds),
        ("CPU s per 10,000 opened", cpu / count * 1e4),
        ("opening, p99 µs", Times::new(times.concat()).at(990)),
    ])
}

/// KiB of memory that each of so many idle sessions costs: at once, and after a burst of 256 KiB
/// through each; then the CPU milliseconds of two idle seconds, and that all of them still answer.
pub(crate) fn idle(peer: &Peer, count: usize) -> Result<[f64; 3]> {
    let door = peer.door(Kind::Echo)?;
    let expected = burst();
    let mut got = vec![0; expected.len()];
    let mut take_burst = |client: &mut Client| {
        client.send(b"!")?;
        client.read_payload(&mut got)?;
        ensure!(got == expected, "{} changed a burst", peer.make.name());
        Ok(())
    };
    // Code that runs for the first time is memory, too, but no session's.
    for _ in 0..FIRST {
        take_burst(&mut door.open_narrow()?)?;
    }
    pause(WARM_UP);
    let before = peer.tree().memory_kib()?;
    let each = |after: f64| (after - before) / float(u64::try_from(count).unwrap_or(1));
    let mut clients = (0..count)
        .map(|_| door.open_narrow())
        .collect::<Result<Vec<_>>>()?;
    pause(WARM_UP * 3);
    let quiet = each(peer.tree().memory_kib()?);
    clients.iter_mut().try_for_each(take_burst)?;
    pause(WARM_UP * 3);
    let burst = each(peer.tree().memory_kib()?);
    let cpu = peer.tree().cpu_seconds()?;
    pause(Duration::from_secs(2));
    let cpu = peer.tree().cpu_seconds()? - cpu;
    for (number, client) in (0..).zip(&mut clients) {
        client.send(&message(number))?;
        ensure!(
            answer(client)? == number,
            "{} mixed sessions up",
            peer.make.name()
        );
    }
    Ok([quiet, burst, cpu * 1e3])
}

fn pause(length: Duration) {
    pause_until(Instant::now() + length);
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
