//! The relay beside a plain, obvious one: the same traffic has to come out of both.
//!
//! Messages of any size in any number of fragments, control frames between them, writers and
//! readers that dawdle, every way to end; and connections that break after any byte, where what
//! came before has to arrive all the same.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
    split,
};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::reactor::tests::reside;
use super::tests::{masked, to_end, until_close};
use super::{End, Opening, Report, Settings, run, serve_sessions, serve_turns};

const FIRST: u8 = 0x02;
const LAST: u8 = 0x80;
const CLOSE: u8 = 0x88;

/// What passes, and how.
#[derive(Clone, Debug)]
struct Traffic {
    /// What the viewer sends, frame by frame.
    frames: Vec<Vec<u8>>,
    /// The payload of its messages.
    up: Vec<u8>,
    down: Vec<u8>,
    viewer: Pace,
    target: Pace,
    /// What a pipe holds, and what a slot moves.
    pipe: usize,
    slot: usize,
}

/// Rests of 20 ms on one way through a relay.
const MOST_RESTS: usize = 1000;

/// How one side reads and writes.
#[derive(Clone, Copy, Debug)]
struct Pace {
    chunk: usize,
    /// It rests after so many chunks.
    stalls_after: usize,
}

/// Who ends a session once all has passed.
#[derive(Clone, Copy, Debug)]
enum Who {
    ViewerByFrame,
    ViewerByHalfClose,
    Target,
}

/// What came out at the target and at the viewer.
type Through = (Vec<u8>, Vec<u8>);

impl Traffic {
    /// What is to come out.
    fn payload(&self) -> Through {
        (self.up.clone(), self.down.clone())
    }

    fn lengths(&self) -> [u64; 2] {
        [&self.up, &self.down].map(|bytes| u64::try_from(bytes.len()).unwrap())
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::new(Settings {
            ping_interval: None,
            // Whoever dawdles here is not to be given up.
            linger: Duration::from_hours(1),
            close_timeout: Duration::from_hours(1),
            slot: self.slot,
            ..Settings::default()
        })
    }
}

impl Pace {
    fn without_rests(self) -> Self {
        let stalls_after = usize::MAX;
        Self {
            stalls_after,
            ..self
        }
    }

    async fn write(self, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
        for (number, chunk) in bytes.chunks(self.chunk).enumerate() {
            to.write_all(chunk).await?;
            self.rest(number).await;
        }
        Ok(())
    }

    async fn read(self, from: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if length == 0 {
            return Ok(bytes);
        }
        let mut chunk = vec![0; self.chunk];
        for number in 0.. {
            let room = self.chunk.min(length - bytes.len());
            let read = from.read(&mut chunk[..room]).await?;
            bytes.extend(&chunk[..read]);
            if read == 0 || bytes.len() == length {
                break;
            }
            self.rest(number).await;
        }
        Ok(bytes)
    }

    /// Not for ever: all of it has to pass before a peer is given up.
    async fn rest(self, number: usize) {
        let rests = number / self.stalls_after;
        if rests < MOST_RESTS && number % self.stalls_after == self.stalls_after - 1 {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A relay as one would write it in an afternoon: one frame, one write.
async fn plain_relay(viewer: DuplexStream, target: DuplexStream) {
    let (mut from_viewer, mut to_viewer) = split(viewer);
    let (mut from_target, mut to_target) = split(target);
    let up = async {
        while let Ok((first, payload)) = plain_frame(&mut from_viewer).await {
            match first & 0x0f {
                0 | 2 => to_target.write_all(&payload).await.unwrap(),
                8 => break,
                _ => {}
            }
        }
        to_target.shutdown().await.unwrap();
    };
    let down = async {
        let mut bytes = [0; 100];
        loop {
            let read = from_target.read(&mut bytes).await.unwrap();
            if read == 0 {
                break;
            }
            let header = [0x82, u8::try_from(read).unwrap()];
            to_viewer.write_all(&header).await.unwrap();
            to_viewer.write_all(&bytes[..read]).await.unwrap();
        }
        to_viewer.write_all(&[CLOSE, 0]).await.unwrap();
        to_viewer.shutdown().await.unwrap();
    };
    tokio::join!(up, down);
}

async fn plain_frame(viewer: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let first = viewer.read_u8().await?;
    let length = match viewer.read_u8().await? & 0x7f {
        126 => u64::from(viewer.read_u16().await?),
        127 => viewer.read_u64().await?,
        short => u64::from(short),
    };
    let mut mask = [0; 4];
    viewer.read_exact(&mut mask).await?;
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    viewer.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok((first, payload))
}

/// Sends all traffic through a relay's two pipes, lets `who` end it, and gives what came out.
async fn pass<S>(traffic: &Traffic, who: Who, viewer: S, target: S) -> Through
where
    S: AsyncRead + AsyncWrite,
{
    let (mut viewer_reads, mut viewer_writes) = split(viewer);
    let (mut target_reads, mut target_writes) = split(target);
    let frames = traffic.frames.concat();
    let viewer_sends = async {
        traffic
            .viewer
            .write(&mut viewer_writes, &frames)
            .await
            .unwrap();
        if matches!(who, Who::ViewerByHalfClose) {
            viewer_writes.shutdown().await.unwrap();
        }
    };
    let target_works = async {
        let sends = traffic.target.write(&mut target_writes, &traffic.down);
        let hears = traffic.target.read(&mut target_reads, traffic.up.len());
        let (sent, got) = tokio::join!(sends, hears);
        sent.unwrap();
        got.unwrap()
    };
    let viewer_hears = unframed(traffic, &mut viewer_reads);
    let ((), mut at_target, at_viewer) = tokio::join!(viewer_sends, target_works, viewer_hears);
    if matches!(who, Who::ViewerByFrame) {
        viewer_writes.write_all(&masked(CLOSE, b"")).await.unwrap();
    }
    if !matches!(who, Who::Target) {
        at_target.extend(to_end(&mut target_reads).await);
    }
    target_writes.shutdown().await.unwrap();
    let (rest, _close) = until_close(&mut viewer_reads).await;
    drop((viewer_reads, viewer_writes, target_reads, target_writes));
    (at_target, [at_viewer, rest].concat())
}

/// The payload of server frames until all that the target sends is there, read at the viewer's pace.
async fn unframed(traffic: &Traffic, viewer: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut payload = Vec::new();
    while payload.len() < traffic.down.len() {
        let first = viewer.read_u8().await.unwrap();
        let length = match viewer.read_u8().await.unwrap() {
            126 => u64::from(viewer.read_u16().await.unwrap()),
            127 => viewer.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let length = usize::try_from(length).unwrap();
        let bytes = traffic.viewer.read(viewer, length).await.unwrap();
        if first == 0x82 {
            payload.extend(bytes);
        }
    }
    payload
}

/// A stream that breaks once so many bytes were read from it.
struct Brittle {
    stream: DuplexStream,
    left: usize,
}

impl AsyncRead for Brittle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        let mut part = into.take(self.left);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let length = part.filled().len();
        into.advance(length);
        self.left -= length;
        read
    }
}

impl AsyncWrite for Brittle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.left == 0 {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What of the viewer's payload is in the first `length` bytes it sends.
fn payload_within(frames: &[Vec<u8>], length: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut left = length;
    for frame in frames {
        let header = match frame[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let sent = &frame[..frame.len().min(left)];
        if let (0 | 2, Some(masked)) = (frame[0] & 0x0f, sent.get(header + 4..)) {
            let mask = frame[header..header + 4].iter().cycle();
            payload.extend(masked.iter().zip(mask).map(|(byte, key)| byte ^ key));
        }
        left -= sent.len();
    }
    payload
}

fn pace() -> impl Strategy<Value = Pace> {
    let chunk = prop_oneof![2 => 1_usize..50, 3 => 50_usize..5_000, 2 => 5_000_usize..100_000];
    (chunk, 1_usize..200).prop_map(|(chunk, stalls_after)| Pace {
        chunk,
        stalls_after,
    })
}

fn bytes(length: RangeInclusive<usize>) -> impl Strategy<Value = Vec<u8>> {
    (length, any::<u8>()).prop_map(|(length, seed)| {
        let each = (0..length).map(|at| at.wrapping_mul(31).to_le_bytes()[1]);
        each.map(|byte| byte ^ seed).collect()
    })
}

/// A message in fragments with control frames between them, and its payload.
fn message() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>)> {
    let length = prop_oneof![6 => 0_usize..20, 2 => 120_usize..135, 2 => 65_530_usize..66_000];
    let fragment = length.prop_flat_map(|length| bytes(length..=length));
    let control = (prop_oneof![Just(0x89), Just(0x8a)], bytes(0..=125));
    let parts = (fragment, proptest::option::of(control));
    proptest::collection::vec(parts, 1..4).prop_map(|parts| {
        let (mut frames, mut payload) = (Vec::new(), Vec::new());
        let last = parts.len() - 1;
        for (at, (fragment, control)) in parts.into_iter().enumerate() {
            frames.extend(control.map(|(kind, bytes)| masked(kind, &bytes)));
            let opcode = if at == 0 { FIRST } else { 0 };
            let end = if at == last { LAST } else { 0 };
            frames.push(masked(opcode | end, &fragment));
            payload.extend(fragment);
        }
        (frames, payload)
    })
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let messages = proptest::collection::vec(message(), 0..8);
    let down = prop_oneof![3 => bytes(0..=500), 2 => bytes(500..=300_000)];
    let pipe = prop_oneof![1_usize..300, 300_usize..100_000];
    let slot = prop_oneof![1_usize..70_000, Just(256 << 10)];
    (messages, down, pace(), pace(), pipe, slot).prop_map(
        |(messages, down, viewer, target, pipe, slot)| {
            let (frames, up): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
            Traffic {
                frames: frames.concat(),
                up: up.concat(),
                down,
                viewer,
                target,
                pipe,
                slot,
            }
        },
    )
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        Just(Who::ViewerByFrame),
        Just(Who::ViewerByHalfClose),
        Just(Who::Target),
    ]
}

/// Runs on one thread whose clock jumps over every rest; nothing may take a day of it.
fn alone<T>(work: impl Future<Output = T>) -> T {
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let _turns = tokio::spawn(serve_turns());
        timeout(Duration::from_hours(24), work)
            .await
            .expect("it ends")
    })
}

/// The same between sockets, for which no clock can jump.
fn with_sockets<T>(work: impl Future<Output = T>) -> T {
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(async {
        let _sessions = tokio::spawn(serve_sessions());
        timeout(Duration::from_mins(1), work)
            .await
            .expect("it ends")
    })
}

/// However slowly it is sent.
async fn all_of(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _length = stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn through_ours(traffic: &Traffic, who: Who) -> (Through, Report) {
    let (viewer, target) = (duplex(traffic.pipe), duplex(traffic.pipe));
    let settings = traffic.settings();
    let relay = run(viewer.1, target.1, Opening::default(), &settings, pending());
    let relay = tokio::spawn(relay);
    let through = pass(traffic, who, viewer.0, target.0).await;
    (through, relay.await.unwrap())
}

/// The same by way of the reactor, between sockets that hold as much as the kernel likes.
async fn through_reactor(traffic: &Traffic, who: Who) -> (Through, Report) {
    let (viewer, target) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let ended = reside(viewer.1, target.1, &traffic.settings()).await;
    let through = pass(traffic, who, viewer.0, target.0).await;
    (through, ended.await.unwrap())
}

async fn through_plain(traffic: &Traffic, who: Who) -> Through {
    let (viewer, target) = (duplex(traffic.pipe), duplex(traffic.pipe));
    let relay = tokio::spawn(plain_relay(viewer.1, target.1));
    let through = pass(traffic, who, viewer.0, target.0).await;
    relay.abort();
    through
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn all_traffic_comes_out_as_of_a_plain_relay(traffic in traffic(), who in who()) {
        let (ours, plain) = alone(async {
            (through_ours(&traffic, who).await, through_plain(&traffic, who).await)
        });

        prop_assert!(ours.0 == plain, "what came out differs");
        prop_assert!(plain == traffic.payload(), "the plain one is right");
        prop_assert_eq!([ours.1.up, ours.1.down], traffic.lengths());
    }

    #[test]
    fn all_traffic_comes_out_of_a_reactor(traffic in traffic(), who in who()) {
        let traffic = Traffic {
            viewer: traffic.viewer.without_rests(),
            target: traffic.target.without_rests(),
            ..traffic
        };

        let (through, report) = with_sockets(through_reactor(&traffic, who));

        prop_assert!(through == traffic.payload(), "what came out differs");
        prop_assert_eq!([report.up, report.down], traffic.lengths());
    }

    #[test]
    fn what_a_viewer_sent_before_its_connection_broke_arrives(
        traffic in traffic(),
        at in any::<prop::sample::Index>(),
    ) {
        let frames = traffic.frames.concat();
        let at = at.index(frames.len() + 1);

        let (heard, report) = alone(async {
            let (viewer, target) = (duplex(traffic.pipe), duplex(traffic.pipe));
            let brittle = Brittle { stream: viewer.1, left: at };
            let relay = run(brittle, target.1, Opening::default(), &traffic.settings(), pending());
            let relay = tokio::spawn(relay);
            let (mut reads, mut writes) = split(viewer.0);
            let (mut target_reads, _target_writes) = split(target.0);
            let sends = traffic.viewer.write(&mut writes, &frames);
            let mut nowhere = tokio::io::sink();
            let ignores = tokio::io::copy(&mut reads, &mut nowhere);
            // Writing fails once the relay has let go of its end, in the middle or at the end.
            let ((_sent, _ignored), heard) =
                tokio::join!(async { tokio::join!(sends, ignores) }, all_of(&mut target_reads));
            (heard, relay.await.unwrap())
        });

        prop_assert!(heard == payload_within(&traffic.frames, at), "cut at {at}");
        prop_assert_eq!(report.end, End::ViewerFailed(ErrorKind::ConnectionReset));
    }

    #[test]
    fn what_a_target_sent_before_its_connection_broke_arrives(
        traffic in traffic(),
        at in any::<prop::sample::Index>(),
    ) {
        let at = at.index(traffic.down.len() + 1);

        let (heard, report) = alone(async {
            let (viewer, target) = (duplex(traffic.pipe), duplex(traffic.pipe));
            let brittle = Brittle { stream: target.1, left: at };
            let relay = run(viewer.1, brittle, Opening::default(), &traffic.settings(), pending());
            let relay = tokio::spawn(relay);
            let (mut viewer_reads, mut viewer_writes) = split(viewer.0);
            let (_target_reads, mut target_writes) = split(target.0);
            let sends = traffic.target.write(&mut target_writes, &traffic.down);
            // Its last bytes may wait until the relay has let go of it.
            let leaves = async {
                let heard = until_close(&mut viewer_reads).await;
                viewer_writes.write_all(&masked(CLOSE, b"")).await.unwrap();
                viewer_writes.shutdown().await.unwrap();
                let _rest = to_end(&mut viewer_reads).await;
                heard
            };
            let (_sent, heard) = tokio::join!(sends, leaves);
            (heard, relay.await.unwrap())
        });

        prop_assert!(heard.0 == traffic.down[..at], "cut at {at}");
        prop_assert_eq!(&heard.1[..2], 4005_u16.to_be_bytes());
        prop_assert_eq!(report.end, End::TargetFailed(ErrorKind::ConnectionReset));
    }
}
