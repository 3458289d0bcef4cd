use std::future::pending;
use std::io::ErrorKind;
use std::pin::pin;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;
const BINARY: u8 = 0x82;

/// Longer than any deadline of a relay.
const LONG: Duration = Duration::from_mins(1);

/// A relay at work between two streams held by the test.
struct Rig<V, T> {
    viewer: V,
    target: T,
    stop: oneshot::Sender<Ending>,
    relay: JoinHandle<Report>,
}

fn patient() -> Arc<Settings> {
    Arc::new(Settings {
        ping_interval: None,
        ..Settings::default()
    })
}

async fn told(stop: oneshot::Receiver<Ending>) -> Ending {
    match stop.await {
        Ok(ending) => ending,
        Err(_) => pending().await,
    }
}

fn start<V, T>(
    viewer: (V, V),
    target: (T, T),
    opening: Opening,
    settings: &Arc<Settings>,
) -> Rig<V, T>
where
    V: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stop, stopped) = oneshot::channel();
    let relay = tokio::spawn(run(
        viewer.1,
        target.1,
        opening,
        settings,
        Box::pin(told(stopped)),
    ));
    Rig {
        viewer: viewer.0,
        target: target.0,
        stop,
        relay,
    }
}

fn piped(size: usize, settings: &Arc<Settings>) -> Rig<DuplexStream, DuplexStream> {
    start(duplex(size), duplex(size), Opening::default(), settings)
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, far)
}

async fn wired(settings: &Arc<Settings>) -> Rig<TcpStream, TcpStream> {
    start(
        tcp_pair().await,
        tcp_pair().await,
        Opening::default(),
        settings,
    )
}

impl<V, T> Rig<V, T> {
    async fn report(self) -> Report {
        timeout(LONG, self.relay)
            .await
            .expect("a relay ends")
            .unwrap()
    }
}

/// A client frame.
pub(super) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        middle @ 126..65_536 => {
            frame.push(0xfe);
            frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0xff);
            frame.extend(u64::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

/// The next server frame: its first byte and its payload.
async fn next_frame(viewer: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    timeout(LONG, async {
        let first = viewer.read_u8().await.unwrap();
        let length = match viewer.read_u8().await.unwrap() {
            126 => u64::from(viewer.read_u16().await.unwrap()),
            127 => viewer.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        viewer.read_exact(&mut payload).await.unwrap();
        (first, payload)
    })
    .await
    .expect("a frame comes")
}

/// Server frames up to the close frame: the payload of the binary ones, and the close frame's.
pub(super) async fn until_close(viewer: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        match next_frame(viewer).await {
            (BINARY, payload) => bytes.extend(payload),
            (CLOSE, payload) => return (bytes, payload),
            (other, _) => assert!(matches!(other, PONG | 0x89), "no such frame: {other:x}"),
        }
    }
}

pub(super) async fn to_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(LONG, stream.read_to_end(&mut bytes))
        .await
        .expect("it ends")
        .unwrap();
    bytes
}

fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [code.to_be_bytes().as_slice(), reason.as_bytes()].concat()
}

/// Bytes in which a gap, a repetition or a swap shows.
fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// `bytes` as frames of growing length, the first of them fragments.
fn as_frames(bytes: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut rest = bytes;
    let mut length = 1;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(length));
        let (one, two) = piece.split_at(piece.len() / 3);
        stream.extend(masked(0x02, one));
        stream.extend(masked(0x8a, b""));
        stream.extend(masked(0x80, two));
        rest = after;
        length = (length * 2).min(300_000);
    }
    stream
}

#[tokio::test]
async fn bytes_pass_both_ways_at_once_through_tiny_pipes() {
    for size in [1, 7, 100] {
        let (up, down) = (pattern(3000, 1), pattern(3000, 2));
        let rig = piped(size, &patient());
        let frames = as_frames(&up);
        let (mut viewer_reads, mut viewer_writes) = split(rig.viewer);
        let (mut target_reads, mut target_writes) = split(rig.target);
        let mut got_up = vec![0; up.len()];
        let mut got_down = Vec::new();

        let ((), (), (), _) = tokio::join!(
            async { viewer_writes.write_all(&frames).await.unwrap() },
            async { target_writes.write_all(&down).await.unwrap() },
            async {
                while got_down.len() < down.len() {
                    got_down.extend(next_frame(&mut viewer_reads).await.1);
                }
            },
            async { target_reads.read_exact(&mut got_up).await.unwrap() },
        );

        assert!(got_up == up && got_down == down, "pipes of {size} bytes");
        rig.relay.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bytes_pass_both_ways_at_once_over_sockets() {
    let (up, down) = (pattern(12 << 20, 3), pattern(12 << 20, 4));
    let rig = wired(&patient()).await;
    let frames = as_frames(&up);
    let (mut viewer_reads, mut viewer_writes) = split(rig.viewer);
    let (mut target_reads, mut target_writes) = split(rig.target);

    let (expected, answer) = (up.len(), down.clone());
    let writer = tokio::spawn(async move {
        viewer_writes.write_all(&frames).await.unwrap();
        viewer_writes
    });
    let target = tokio::spawn(async move {
        let mut got = vec![0; expected];
        let (read, written) = tokio::join!(
            target_reads.read_exact(&mut got),
            target_writes.write_all(&answer)
        );
        written.unwrap();
        read.unwrap();
        target_writes.shutdown().await.unwrap();
        got
    });
    let (got_down, _close) = until_close(&mut viewer_reads).await;

    assert!(target.await.unwrap() == up, "up");
    assert!(got_down == down, "down");
    drop((viewer_reads, writer.await.unwrap()));
    let report = timeout(LONG, rig.relay).await.unwrap().unwrap();
    assert_eq!(
        report,
        Report {
            up: 12 << 20,
            down: 12 << 20,
            end: End::TargetClosed
        }
    );
}

#[tokio::test]
async fn frames_that_came_with_the_request_are_not_lost() {
    let opening = Opening {
        viewer_bytes: masked(BINARY, b"early"),
        ..Opening::default()
    };
    let mut rig = start(duplex(64), duplex(64), opening, &patient());

    rig.viewer
        .write_all(&masked(BINARY, b" and late"))
        .await
        .unwrap();

    let mut got = [0; 14];
    rig.target.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"early and late");
}

#[tokio::test]
async fn a_frame_half_of_which_came_with_the_request_is_whole() {
    let frame = masked(BINARY, b"halves");
    let (early, late) = frame.split_at(9);
    let opening = Opening {
        viewer_bytes: early.to_vec(),
        ..Opening::default()
    };
    let mut rig = start(duplex(64), duplex(64), opening, &patient());

    rig.viewer.write_all(late).await.unwrap();

    let mut got = [0; 6];
    rig.target.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"halves");
}

#[tokio::test]
async fn the_targets_greeting_is_the_first_frame() {
    let opening = Opening {
        target_bytes: b"RFB 003.008\n".to_vec(),
        ..Opening::default()
    };
    let mut rig = start(duplex(64), duplex(64), opening, &patient());

    assert_eq!(
        next_frame(&mut rig.viewer).await,
        (BINARY, b"RFB 003.008\n".to_vec())
    );
}

#[tokio::test]
async fn the_meter_counts_payload_while_the_session_runs() {
    let meter = Arc::new(Meter::default());
    let opening = Opening {
        meter: Arc::clone(&meter),
        ..Opening::default()
    };
    let mut rig = start(duplex(64), duplex(64), opening, &patient());

    rig.viewer
        .write_all(&masked(BINARY, b"12345"))
        .await
        .unwrap();
    rig.target.read_exact(&mut [0; 5]).await.unwrap();
    rig.target.write_all(b"123").await.unwrap();
    next_frame(&mut rig.viewer).await;

    assert_eq!((meter.up(), meter.down()), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn the_meter_knows_when_the_viewer_last_sent_payload() {
    let meter = Arc::new(Meter::default());
    let opening = Opening {
        meter: Arc::clone(&meter),
        ..Opening::default()
    };
    let mut rig = start(duplex(64), duplex(64), opening, &patient());
    let began = Instant::now();
    let second = Duration::from_secs(1);

    tokio::time::sleep(second).await;
    rig.viewer.write_all(&masked(BINARY, b"k")).await.unwrap();
    rig.target.read_exact(&mut [0]).await.unwrap();
    tokio::time::sleep(second).await;
    rig.viewer.write_all(&masked(PONG, b"")).await.unwrap();
    rig.target.write_all(b"picture").await.unwrap();
    next_frame(&mut rig.viewer).await;

    assert_eq!(meter.began(), began);
    assert_eq!(meter.last_input(), began + second);
}

/// Lets no `x` up, holds back a `?` until more comes, cuts what comes down, and ends at `!`.
#[derive(Debug, Default)]
struct Censor {
    held: Vec<u8>,
}

impl Filter for Censor {
    fn up(&mut self, bytes: &mut Vec<u8>) -> Result<(), Ending> {
        if bytes.contains(&b'!') {
            let reason = "no shouting".to_owned();
            return Err(Ending { code: 4003, reason });
        }
        bytes.splice(0..0, self.held.drain(..));
        bytes.retain(|byte| *byte != b'x');
        if bytes.ends_with(b"?") {
            self.held.extend(bytes.pop());
        }
        Ok(())
    }

    fn down(&mut self, bytes: &mut [u8]) -> Result<usize, Ending> {
        Ok(bytes
            .iter()
            .position(|byte| *byte == b'#')
            .unwrap_or(bytes.len()))
    }
}

fn censored() -> Rig<DuplexStream, DuplexStream> {
    let opening = Opening {
        viewer_bytes: masked(BINARY, b"xe"),
        target_bytes: b"hello#never".to_vec(),
        filter: Some(Box::new(Censor::default())),
        ..Opening::default()
    };
    start(duplex(64), duplex(64), opening, &patient())
}

#[tokio::test]
async fn a_filter_decides_what_passes_and_may_hold_bytes_back() {
    let mut rig = censored();

    let early = next_frame(&mut rig.viewer).await;
    rig.viewer
        .write_all(&masked(BINARY, b"axb?"))
        .await
        .unwrap();
    rig.target.read_exact(&mut [0; 3]).await.unwrap();
    rig.viewer.write_all(&masked(BINARY, b"c")).await.unwrap();
    let mut got = [0; 2];
    rig.target.read_exact(&mut got).await.unwrap();
    rig.target.write_all(b"seen#cut").await.unwrap();
    let late = next_frame(&mut rig.viewer).await;

    assert_eq!(early, (BINARY, b"hello".to_vec()));
    assert_eq!(&got, b"?c");
    assert_eq!(late, (BINARY, b"seen".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_filter_may_end_the_session_and_nothing_of_that_read_passes() {
    let mut rig = censored();

    rig.viewer
        .write_all(&masked(BINARY, b"fine and then!"))
        .await
        .unwrap();

    let (_, close) = until_close(&mut rig.viewer).await;
    assert_eq!(close, close_payload(4003, "no shouting"));
    assert_eq!(to_end(&mut rig.target).await, b"e");
    let ending = Ending {
        code: 4003,
        reason: "no shouting".to_owned(),
    };
    drop(rig.viewer);
    drop(rig.target);
    assert_eq!(rig.relay.await.unwrap().end, End::Stopped(ending));
}

#[tokio::test]
async fn a_ping_is_answered_with_its_payload() {
    let mut rig = piped(64, &patient());

    rig.viewer
        .write_all(&masked(0x89, b"there?"))
        .await
        .unwrap();

    assert_eq!(
        next_frame(&mut rig.viewer).await,
        (PONG, b"there?".to_vec())
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_to_a_viewer_that_reads_nothing_is_bounded() {
    let mut rig = piped(64, &patient());
    rig.target.write_all(&[0; 64]).await.unwrap();

    for _ in 0..10_000 {
        rig.viewer
            .write_all(&masked(0x89, &[b'x'; 20]))
            .await
            .unwrap();
    }
    rig.viewer.write_all(&masked(0x89, b"last")).await.unwrap();
    rig.viewer.write_all(&masked(CLOSE, b"")).await.unwrap();

    // At most what fits the pipe, then the close; the relay kept one pong, not ten thousand.
    let (_, close) = until_close(&mut rig.viewer).await;
    assert_eq!(close, b"");
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_sent_each_interval_and_a_viewer_that_answers_is_kept() {
    let mut rig = piped(64, &Arc::default());
    let started = Instant::now();

    for _ in 0..10 {
        assert_eq!(next_frame(&mut rig.viewer).await, (0x89, Vec::new()));
        rig.viewer.write_all(&masked(PONG, b"")).await.unwrap();
    }

    assert_eq!(started.elapsed().as_secs(), 300);
    assert!(!rig.relay.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_answers_no_ping_is_given_up() {
    let mut rig = piped(64, &Arc::default());
    let started = Instant::now();

    let (_, close) = until_close(&mut rig.viewer).await;

    assert_eq!(started.elapsed().as_secs(), 90);
    assert_eq!(close, close_payload(4008, "the viewer does not answer"));
    drop(rig.target);
    drop(rig.viewer);
    assert_eq!(rig.relay.await.unwrap().end, End::ViewerSilent);
}

#[tokio::test(start_paused = true)]
async fn a_viewer_whose_bytes_wait_for_the_target_is_not_silent() {
    let mut rig = piped(64, &Arc::default());

    let flood = timeout(
        LONG * 10,
        rig.viewer.write_all(&masked(BINARY, &vec![0; 200_000])),
    )
    .await;

    assert!(flood.is_err(), "the target reads nothing");
    assert!(!rig.relay.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_last_bytes_of_the_target_come_before_the_close() {
    let mut rig = piped(16, &patient());
    rig.target.write_all(b"famous last ").await.unwrap();
    let (mut viewer, mut target) = (rig.viewer, rig.target);

    let writes = async {
        target.write_all(b"words of a machine").await.unwrap();
        target.shutdown().await.unwrap();
    };
    let ((), heard) = tokio::join!(writes, until_close(&mut viewer));

    assert_eq!(heard.0, b"famous last words of a machine");
    assert_eq!(heard.1, close_payload(1000, "the console ended"));
    viewer.write_all(&masked(CLOSE, &heard.1)).await.unwrap();
    assert_eq!(to_end(&mut viewer).await, b"");
    drop(viewer);
    assert_eq!(rig.relay.await.unwrap().end, End::TargetClosed);
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_does_not_answer_the_close_is_waited_for_a_bounded_time() {
    let mut rig = piped(64, &patient());
    let started = Instant::now();

    rig.target.shutdown().await.unwrap();
    let report = timeout(LONG, &mut rig.relay).await.unwrap().unwrap();

    assert_eq!(report.end, End::TargetClosed);
    assert_eq!(
        started.elapsed().as_secs(),
        6,
        "close_timeout and the last second"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_viewer_sends_after_the_target_ended_is_thrown_away() {
    let mut rig = piped(64, &patient());
    rig.target.shutdown().await.unwrap();
    let (_, close) = until_close(&mut rig.viewer).await;

    rig.viewer
        .write_all(&masked(BINARY, &[0; 5000]))
        .await
        .unwrap();
    rig.viewer.write_all(&masked(CLOSE, &close)).await.unwrap();

    assert_eq!(to_end(&mut rig.viewer).await, b"");
    assert_eq!(to_end(&mut rig.target).await, b"");
}

#[tokio::test(start_paused = true)]
async fn a_viewers_close_is_echoed_and_its_earlier_bytes_reach_the_target() {
    let mut rig = piped(4, &patient());
    let goodbye = [
        masked(BINARY, b"shutdown -h now"),
        masked(CLOSE, b"\x0f\xa0bye"),
    ]
    .concat();
    let (mut viewer, mut target) = (rig.viewer, rig.target);

    let (sent, got) = tokio::join!(viewer.write_all(&goodbye), to_end(&mut target));
    sent.unwrap();

    assert_eq!(got, b"shutdown -h now");
    assert_eq!(until_close(&mut viewer).await.1, b"\x0f\xa0bye");
    assert_eq!(to_end(&mut viewer).await, b"");
    drop((viewer, target));
    let report = timeout(LONG, &mut rig.relay).await.unwrap().unwrap();
    assert_eq!(report.end, End::ViewerClosed { code: Some(4000) });
}

#[tokio::test(start_paused = true)]
async fn an_empty_close_is_echoed_empty() {
    let mut rig = piped(64, &patient());

    rig.viewer.write_all(&masked(CLOSE, b"")).await.unwrap();

    assert_eq!(next_frame(&mut rig.viewer).await, (CLOSE, Vec::new()));
    drop((rig.viewer, rig.target));
    assert_eq!(
        rig.relay.await.unwrap().end,
        End::ViewerClosed { code: None }
    );
}

#[tokio::test(start_paused = true)]
async fn after_the_viewers_close_a_target_that_stays_is_left() {
    let mut rig = piped(64, &patient());
    let started = Instant::now();
    rig.viewer.write_all(&masked(CLOSE, b"")).await.unwrap();

    drop(rig.viewer);
    let report = timeout(LONG, rig.relay).await.unwrap().unwrap();

    assert_eq!(report.end, End::ViewerClosed { code: None });
    assert_eq!(started.elapsed().as_secs(), 1, "the last second");
}

#[tokio::test(start_paused = true)]
async fn a_viewer_gone_without_a_close_still_gets_the_targets_rest() {
    let mut rig = piped(64, &patient());

    rig.viewer
        .write_all(&masked(BINARY, b"poweroff"))
        .await
        .unwrap();
    rig.viewer.shutdown().await.unwrap();

    assert_eq!(to_end(&mut rig.target).await, b"poweroff");
    rig.target.write_all(b"going down").await.unwrap();
    rig.target.shutdown().await.unwrap();
    assert_eq!(until_close(&mut rig.viewer).await.0, b"going down");
    assert_eq!(rig.report().await.end, End::ViewerGone);
}

#[tokio::test(start_paused = true)]
async fn a_target_does_not_outlive_a_viewer_that_is_gone() {
    let mut rig = piped(64, &patient());
    let started = Instant::now();

    rig.viewer.shutdown().await.unwrap();
    let report = timeout(LONG, &mut rig.relay).await.unwrap().unwrap();

    assert_eq!(report.end, End::ViewerGone);
    assert_eq!(started.elapsed().as_secs(), 6, "linger and the last second");
}

#[tokio::test(start_paused = true)]
async fn a_broken_frame_ends_the_session_with_its_code_and_sentence() {
    let mut rig = piped(64, &patient());
    let frames = [
        masked(BINARY, b"good"),
        masked(0x81, b"bad"),
        masked(BINARY, b"late"),
    ]
    .concat();

    rig.viewer.write_all(&frames).await.unwrap();

    let (_, close) = until_close(&mut rig.viewer).await;
    assert_eq!(close, close_payload(1003, "text frames are not supported"));
    assert_eq!(to_end(&mut rig.target).await, b"good");
    drop((rig.viewer, rig.target));
    assert_eq!(
        rig.relay.await.unwrap().end,
        End::Violation(Violation::Text)
    );
}

#[tokio::test(start_paused = true)]
async fn a_decision_ends_the_session_with_its_sentence_after_what_was_queued() {
    let mut rig = piped(16, &patient());
    rig.target.write_all(b"a picture").await.unwrap();
    let (first, picture) = next_frame(&mut rig.viewer).await;
    let ending = Ending {
        code: 4007,
        reason: "ended by an operator".to_owned(),
    };

    rig.stop.send(ending.clone()).unwrap();
    let (_, close) = until_close(&mut rig.viewer).await;

    assert_eq!((first, picture), (BINARY, b"a picture".to_vec()));
    assert_eq!(close, close_payload(4007, "ended by an operator"));
    assert_eq!(to_end(&mut rig.target).await, b"");
    rig.viewer.write_all(&masked(CLOSE, &close)).await.unwrap();
    drop((rig.viewer, rig.target));
    assert_eq!(rig.relay.await.unwrap().end, End::Stopped(ending));
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_carried_out_although_nobody_reads() {
    let mut rig = piped(16, &patient());
    let flood = timeout(LONG, rig.target.write_all(&vec![0; 100_000])).await;
    assert!(flood.is_err(), "the viewer reads nothing");
    let started = Instant::now();

    let ending = Ending {
        code: 1001,
        reason: "draining".to_owned(),
    };
    rig.stop.send(ending.clone()).unwrap();
    let report = timeout(LONG, &mut rig.relay).await.unwrap().unwrap();

    assert_eq!(report.end, End::Stopped(ending));
    assert!(started.elapsed() <= Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn a_slow_viewer_stops_the_reading_from_the_target() {
    let mut rig = piped(256, &patient());
    let picture = pattern(4 << 20, 5);
    let mut sent = 0;
    let flood = async {
        loop {
            sent += rig.target.write(&picture[sent..]).await.unwrap();
        }
    };

    let stalled = timeout(LONG, pin!(flood)).await;

    assert!(stalled.is_err(), "it never gets to the end");
    assert!(sent <= 66 * 1024, "one read and the pipes, not {sent}");
    let mut got = Vec::new();
    while got.len() < sent {
        got.extend(next_frame(&mut rig.viewer).await.1);
    }
    assert!(got == picture[..sent], "and nothing is lost");
}

#[tokio::test(start_paused = true)]
async fn a_slow_target_stops_the_reading_from_the_viewer() {
    let mut rig = piped(256, &patient());
    let frames = as_frames(&pattern(4 << 20, 6));
    let mut sent = 0;
    let flood = async {
        loop {
            sent += rig.viewer.write(&frames[sent..]).await.unwrap();
        }
    };

    let stalled = timeout(LONG, pin!(flood)).await;

    assert!(stalled.is_err(), "it never gets to the end");
    assert!(sent <= 66 * 1024, "one read and the pipes, not {sent}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_target_does_not_stop_the_way_down() {
    let mut rig = piped(256, &patient());
    let flood = timeout(
        LONG,
        rig.viewer.write_all(&masked(BINARY, &vec![0; 200_000])),
    )
    .await;
    assert!(flood.is_err(), "the target reads nothing");

    rig.target.write_all(b"still here").await.unwrap();

    assert_eq!(
        next_frame(&mut rig.viewer).await,
        (BINARY, b"still here".to_vec())
    );
}

#[tokio::test]
async fn the_reset_of_a_viewer_ends_the_session() {
    let mut rig = wired(&patient()).await;
    rig.viewer
        .write_all(&masked(BINARY, b"typed"))
        .await
        .unwrap();
    let mut got = [0; 5];
    rig.target.read_exact(&mut got).await.unwrap();

    rig.viewer.set_zero_linger().unwrap();
    drop(rig.viewer);

    assert_eq!(to_end(&mut rig.target).await, b"");
    drop(rig.target);
    let report = timeout(LONG, rig.relay).await.unwrap().unwrap();
    assert_eq!(report.end, End::ViewerFailed(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn the_reset_of_a_target_ends_the_session_with_a_sentence() {
    let mut rig = wired(&patient()).await;
    rig.target.write_all(b"a picture").await.unwrap();
    assert_eq!(next_frame(&mut rig.viewer).await.1, b"a picture");

    rig.target.set_zero_linger().unwrap();
    drop(rig.target);

    let (_, close) = until_close(&mut rig.viewer).await;
    assert_eq!(
        close,
        close_payload(4005, "the connection to the console was lost")
    );
    rig.viewer.write_all(&masked(CLOSE, &close)).await.unwrap();
    assert_eq!(to_end(&mut rig.viewer).await, b"");
    drop(rig.viewer);
    let report = timeout(LONG, rig.relay).await.unwrap().unwrap();
    assert_eq!(report.end, End::TargetFailed(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn what_a_target_said_before_it_stopped_listening_is_delivered() {
    let (mut viewer, relay_end) = duplex(1 << 20);
    let target = tokio::io::join(&b"too many connections"[..], Deaf);
    let opening = Opening {
        viewer_bytes: masked(BINARY, b"hello?"),
        ..Opening::default()
    };
    let relay = run(relay_end, target, opening, &patient(), pending());

    let (report, heard) = tokio::join!(relay, async {
        let heard = until_close(&mut viewer).await;
        viewer.write_all(&masked(CLOSE, b"")).await.unwrap();
        viewer.shutdown().await.unwrap();
        heard
    });

    assert_eq!(heard.0, b"too many connections");
    assert_eq!(report.end, End::TargetFailed(ErrorKind::BrokenPipe));
}

/// Takes nothing.
struct Deaf;

impl AsyncWrite for Deaf {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::task::Poll::Ready(Err(ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_session_is_small() {
    let (viewer, target) = (tcp_pair().await.1, tcp_pair().await.1);

    let relay = run(
        viewer,
        target,
        Opening::default(),
        &Arc::default(),
        pending(),
    );

    assert!(size_of_val(&relay) <= 448, "{} bytes", size_of_val(&relay));
}

#[tokio::test(start_paused = true)]
async fn a_refused_viewer_is_told_why_and_waited_for() {
    let (mut viewer, relay_end) = duplex(64);
    let limit = Duration::from_secs(5);

    let refusal = tokio::spawn(refuse(relay_end, 4001, "unknown or expired link", limit));
    viewer
        .write_all(&masked(BINARY, b"not yet read"))
        .await
        .unwrap();
    let (_, close) = until_close(&mut viewer).await;
    viewer.write_all(&masked(CLOSE, &close)).await.unwrap();

    assert_eq!(close, close_payload(4001, "unknown or expired link"));
    assert_eq!(to_end(&mut viewer).await, b"");
    drop(viewer);
    timeout(LONG, refusal).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_viewer_that_stays_is_left() {
    let (_viewer, relay_end) = duplex(4);
    let started = Instant::now();

    refuse(
        relay_end,
        4001,
        "unknown or expired link",
        Duration::from_secs(5),
    )
    .await;

    assert_eq!(started.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn a_decision_that_is_not_near_costs_the_traffic_nothing() {
    let asked = Arc::new(Meter::default());
    let asks = Arc::clone(&asked);
    let decision = std::future::poll_fn(move |_| {
        asks.count_up(&[0]);
        std::task::Poll::Pending
    });
    let (mut viewer, relay_end) = duplex(64);
    let (_target, target_end) = duplex(1 << 20);
    let relay = run(
        relay_end,
        target_end,
        Opening::default(),
        &patient(),
        decision,
    );
    let relay = tokio::spawn(relay);

    for _ in 0..1000 {
        viewer.write_all(&masked(BINARY, b"key")).await.unwrap();
    }

    assert_eq!(asked.up(), 1, "it is asked once and then left to ring");
    relay.abort();
}

/// Says the same for ever, and takes nothing.
type Endless = tokio::io::Join<tokio::io::Repeat, Deaf>;

/// Takes everything, counts it, and says nothing.
#[derive(Clone, Default)]
struct Thirsty(Arc<Meter>);

impl AsyncRead for Thirsty {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Pending
    }
}

impl AsyncWrite for Thirsty {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        self.0.count_down(bytes.len());
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// Sessions that stream without a pause, and what each viewer has got.
struct Streams {
    relays: tokio::task::JoinSet<Report>,
    viewers: Vec<Thirsty>,
}

impl Streams {
    fn start(count: usize) -> Self {
        let viewers = vec![(); count].into_iter().map(|()| Thirsty::default());
        let viewers: Vec<_> = viewers.collect();
        let mut relays = tokio::task::JoinSet::new();
        for viewer in &viewers {
            let target: Endless = tokio::io::join(tokio::io::repeat(7), Deaf);
            let settings = patient();
            let relay = run(
                viewer.clone(),
                target,
                Opening::default(),
                &settings,
                pending(),
            );
            relays.spawn(relay);
        }
        Self { relays, viewers }
    }

    fn moved(&self) -> Vec<u64> {
        self.viewers.iter().map(|viewer| viewer.0.down()).collect()
    }

    fn sum(&self) -> u64 {
        self.moved().iter().sum()
    }

    /// Lets them stream until they have moved so much.
    async fn until(&self, enough: impl Fn(&Self) -> bool) {
        let streaming = async {
            while !enough(self) {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, streaming).await.expect("they stream");
    }
}

/// A slot when nobody waits, in a test's terms.
fn long_slot() -> u64 {
    4 * u64::try_from(patient().slot).unwrap()
}

#[tokio::test]
async fn a_keystroke_waits_for_one_slot_however_many_sessions_stream() {
    let _turns = tokio::spawn(serve_turns());
    let mut rig = piped(64, &patient());
    let streams = Streams::start(50);
    streams
        .until(|streams| streams.sum() >= 60 * long_slot())
        .await;

    let before: u64 = streams.moved().iter().sum();
    rig.viewer.write_all(&masked(BINARY, b"k")).await.unwrap();
    rig.target.read_exact(&mut [0]).await.unwrap();
    let moved = streams.sum() - before;

    assert!(moved <= 2 * long_slot(), "{moved} bytes went first");
    assert_eq!(streams.relays.len(), 50);
}

#[tokio::test]
async fn sessions_that_stream_share_alike() {
    let _turns = tokio::spawn(serve_turns());
    let streams = Streams::start(5);
    streams
        .until(|streams| streams.sum() >= 100 * long_slot())
        .await;

    let moved = streams.moved();
    let (most, least) = (moved.iter().max().unwrap(), moved.iter().min().unwrap());

    assert!(most - least <= 2 * long_slot(), "{moved:?}");
    assert_eq!(streams.relays.len(), 5);
}

#[tokio::test]
async fn streams_that_end_in_line_do_not_stop_the_others() {
    let _turns = tokio::spawn(serve_turns());
    let mut ended = Streams::start(20);
    let others = Streams::start(2);
    ended.until(|streams| streams.sum() >= long_slot()).await;

    ended.relays.shutdown().await;
    let before = others.moved();
    let each_moved = |streams: &Streams| {
        let mut pairs = streams.moved().into_iter().zip(&before);
        pairs.all(|(now, then)| now > *then)
    };
    others.until(each_moved).await;

    assert_eq!(others.relays.len(), 2);
}

#[tokio::test]
async fn streams_go_on_when_nobody_gives_out_slots_any_more() {
    let turns = tokio::spawn(serve_turns());
    let streams = Streams::start(3);
    streams
        .until(|streams| streams.sum() >= 10 * long_slot())
        .await;

    turns.abort();
    assert!(turns.await.unwrap_err().is_cancelled());
    let before = streams.moved();
    let each_moved = |streams: &Streams| {
        let mut pairs = streams.moved().into_iter().zip(&before);
        pairs.all(|(now, then)| now > *then)
    };
    streams.until(each_moved).await;

    assert_eq!(streams.relays.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_capped_session_keeps_its_rate_in_each_direction() {
    let cap = Arc::new(Cap::new(std::num::NonZeroU64::new(100_000).unwrap()));
    let opening = Opening {
        caps: vec![cap],
        ..Opening::default()
    };
    let rig = start(duplex(1 << 20), duplex(1 << 20), opening, &patient());
    let (mut viewer_reads, mut viewer_writes) = split(rig.viewer);
    let (mut target_reads, mut target_writes) = split(rig.target);
    let (up, down) = (pattern(500_000, 8), pattern(500_000, 9));
    let frames = as_frames(&up);
    let started = Instant::now();
    let (mut got_up, mut got_down) = (vec![0; up.len()], Vec::new());

    let ((), (), ()) = tokio::join!(
        async { viewer_writes.write_all(&frames).await.unwrap() },
        async {
            target_writes.write_all(&down).await.unwrap();
            while got_down.len() < down.len() {
                got_down.extend(next_frame(&mut viewer_reads).await.1);
            }
        },
        async {
            target_reads.read_exact(&mut got_up).await.unwrap();
        },
    );

    assert!(got_up == up && got_down == down);
    let took = started.elapsed().as_secs_f64();
    assert!((4.7..5.3).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn sessions_under_one_cap_share_it() {
    let cap = Arc::new(Cap::new(std::num::NonZeroU64::new(1_000_000).unwrap()));
    let mut relays = tokio::task::JoinSet::new();
    let viewers: Vec<_> = (0..4).map(|_| Thirsty::default()).collect();
    for viewer in &viewers {
        let target: Endless = tokio::io::join(tokio::io::repeat(7), Deaf);
        let opening = Opening {
            caps: vec![Arc::clone(&cap)],
            ..Opening::default()
        };
        relays.spawn(run(viewer.clone(), target, opening, &patient(), pending()));
    }

    tokio::time::sleep(Duration::from_secs(10)).await;

    let moved: Vec<_> = viewers.iter().map(|viewer| viewer.0.down()).collect();
    let sum: u64 = moved.iter().sum();
    assert!((9_900_000..=10_400_000).contains(&sum), "{moved:?}");
    assert!(moved.iter().all(|each| *each > 1_000_000), "{moved:?}");
    assert_eq!(relays.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_capped_session_ends_in_time() {
    let cap = Arc::new(Cap::new(std::num::NonZeroU64::new(1).unwrap()));
    let opening = Opening {
        caps: vec![cap],
        ..Opening::default()
    };
    let mut rig = start(duplex(1 << 20), duplex(1 << 20), opening, &patient());
    rig.target.write_all(&[0; 1000]).await.unwrap();
    let started = Instant::now();

    let reason = "draining".to_owned();
    rig.stop.send(Ending { code: 1001, reason }).unwrap();
    let (_, close) = until_close(&mut rig.viewer).await;
    let report = timeout(LONG, rig.relay).await.unwrap().unwrap();

    assert_eq!(close, close_payload(1001, "draining"));
    assert!(matches!(report.end, End::Stopped(_)));
    assert!(started.elapsed() <= Duration::from_secs(6));
}
