//! Carries bytes between a viewer's WebSocket and a console's target until one of them ends.
//!
//! Called by the session once both sides are ready, or by a refusal. Both directions run on
//! their own; whoever reads slowly stops the reading on the other side and nothing else. No
//! buffer is held while a session is quiet: reads go through one buffer of the thread, and only
//! what a slow writer did not take is copied. Every wait for a peer that is leaving has an end.
//! Knows frames and streams; no token, no instance, no address. RFC 6455 section 7 for the ends.

mod bell;
mod cap;
mod filter;
mod meter;
mod outbox;
mod pump;
mod reactor;
mod refuse;
mod scratch;
mod socket;
mod turns;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::cap::Cap;
pub use self::filter::Filter;
pub use self::meter::Meter;
pub use self::pump::Relay;
use self::reactor::serve_residents;
pub use self::reactor::{Resident, has_reactor, settle};
pub use self::refuse::refuse;
pub use self::socket::Socket;
use self::turns::serve_turns;
use super::ws::{Decoder, Violation};

/// What was read from either side before the relay began, and where to count.
#[derive(Debug, Default)]
pub struct Opening {
    /// Frames the viewer sent right behind its request.
    pub viewer_bytes: Vec<u8>,
    /// In the middle of the viewer's frames, if it has already been listened to.
    pub decoder: Option<Decoder>,
    /// What the viewer sent for the target meanwhile; goes before the frames.
    pub viewer_payload: Vec<u8>,
    /// Bytes of the target, such as its greeting; they become the first frame.
    pub target_bytes: Vec<u8>,
    /// Counts the session's payload while it runs.
    pub meter: Arc<Meter>,
    /// Looks into what passes, what is here included; none lets everything pass.
    pub filter: Option<Box<dyn Filter>>,
    /// What caps its bandwidth, each of them; such as its own cap, and one shared with others.
    pub caps: Vec<Arc<Cap>>,
    /// What every sentence to the viewer ends in, such as an id to ask about.
    pub signature: Box<str>,
}

/// How patient a relay is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest frame a viewer may send, in bytes of payload.
    pub frame_limit: usize,
    /// The time between pings to the viewer, a second at least; none sends none.
    pub ping_interval: Option<Duration>,
    /// After so many ping intervals in a row without a byte from the viewer it is given up; none never.
    /// A viewer whose bytes wait for the target is not silent.
    pub silent_intervals: Option<u32>,
    /// How long a side that is told to end may take: what is queued for it, and a viewer's
    /// answer to a close frame.
    pub close_timeout: Duration,
    /// How long the target may go on sending to a viewer that has closed its own direction
    /// without a close frame.
    pub linger: Duration,
    /// How many bytes a stream moves in one direction before others have their turn.
    pub slot: usize,
}

/// A session's end by decision: the close frame for the viewer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ending {
    /// The close code.
    pub code: u16,
    /// A sentence; what is over 123 bytes is cut.
    pub reason: String,
}

/// What a session came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Payload bytes read from the viewer for the target.
    pub up: u64,
    /// Bytes read from the target for the viewer.
    pub down: u64,
    /// Who ended it, and why.
    pub end: End,
}

/// Who ended a session: the first cause, whatever followed from it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// The target closed its direction.
    TargetClosed,
    /// Reading from or writing to the target failed.
    TargetFailed(io::ErrorKind),
    /// The viewer sent a close frame.
    ViewerClosed {
        /// Its status code, if it had one.
        code: Option<u16>,
    },
    /// The viewer's stream ended without a close frame.
    ViewerGone,
    /// Reading from or writing to the viewer failed.
    ViewerFailed(io::ErrorKind),
    /// The viewer sent nothing, not even pongs.
    ViewerSilent,
    /// The viewer broke the protocol.
    Violation(Violation),
    /// It was decided here.
    Stopped(Ending),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // A browser's largest RFB message is a clipboard; 1 MiB is ample for one frame of it.
            frame_limit: 1 << 20,
            // Load balancers in front of consoles drop what is quiet for 60 s.
            ping_interval: Some(Duration::from_secs(30)),
            silent_intervals: Some(3),
            close_timeout: Duration::from_secs(5),
            linger: Duration::from_secs(5),
            // 0.1 ms of a processor; see docs/performance.md.
            slot: 256 << 10,
        }
    }
}

/// Relays between `viewer`, frames of RFC 6455, and `target`, plain bytes, until both have ended.
///
/// `stop` ends the session by decision. After the first cause of an end the future lives no
/// longer than `close_timeout` (`linger` for a viewer that closed its direction without a frame)
/// and one second. Drop it to end the session at once, without a close frame. Both streams are
/// dropped with it. Needs a tokio runtime with time.
pub fn run<V, T, S>(
    viewer: V,
    target: T,
    opening: Opening,
    settings: &Arc<Settings>,
    stop: S,
) -> Relay<V, T, S>
where
    V: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
    S: Future<Output = Ending> + Unpin,
{
    Relay::new(viewer, target, opening, settings, stop)
}

/// Serves the sessions of a thread, and gives out turns, until its runtime ends; nothing else has to
/// run on it. For a runtime of one thread; once on a thread.
pub async fn serve_sessions() -> Infallible {
    let _residents = tokio::spawn(serve_residents());
    serve_turns().await
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
