//! The viewer's side of RFB's handshake, over its WebSocket: before the relay, in the session.
//!
//! The rules are [`rfb::Reception`](super::rfb::Reception)'s; here are the frames, the deadlines, and
//! what a viewer does in place of an answer. Nothing it sent early is lost: it is in [`Received`].

use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::close::{REFUSED, UNFOLLOWED, UNHEARD};
use super::entry::{Entered, EntryError};
use super::relay::{self, End, Ending};
use super::rfb::{Challenge, Heard, Reception};
use super::ws::{self, Control, Decoder, PING, frame, pong_into};

/// How long a viewer may take for what it needs nobody for.
const PROMPT: Duration = Duration::from_secs(10);

/// How long a person may look for a password.
const PATIENCE: Duration = Duration::from_mins(3);

/// Bytes read at a time: a handshake's messages are short.
const READ: usize = 512;

/// A viewer that is in.
#[derive(Debug)]
pub(super) struct Received {
    /// In the middle of its frames.
    pub(super) decoder: Decoder,
    /// What it has already sent for the server.
    pub(super) payload: Vec<u8>,
}

/// Shakes hands with a viewer whose first bytes were `early`. Errors: how it ended; nothing was
/// said to the viewer of an [`End::Stopped`].
pub(super) async fn receive<V>(
    viewer: &mut V,
    early: Vec<u8>,
    entered: &mut Entered,
    settings: &relay::Settings,
    limit: Duration,
) -> Result<Received, End>
where
    V: AsyncRead + AsyncWrite + Unpin,
{
    let mut desk = Desk {
        viewer,
        decoder: Decoder::new(settings.frame_limit),
        payload: Vec::new(),
        ping_interval: settings.ping_interval,
        timer: Box::pin(sleep(PROMPT)),
    };
    let asked = entered.asked.take();
    let mut reception = Reception::new(asked.as_ref().map(|asked| asked.challenge));
    desk.say(Reception::GREETING).await?;
    desk.take(early).await?;
    let answer = desk.listen(&mut reception).await?;
    if let (Some(asked), Some(answer)) = (asked, answer) {
        let verdict = asked.answer(&answer, entered, limit).await;
        desk.tell(&mut reception, verdict).await?;
    }
    Ok(Received {
        decoder: desk.decoder,
        payload: desk.payload,
    })
}

/// One viewer before it is in.
struct Desk<'a, V> {
    viewer: &'a mut V,
    decoder: Decoder,
    /// What it sent and nobody has looked at.
    payload: Vec<u8>,
    ping_interval: Option<Duration>,
    /// One for all that is waited for.
    timer: Pin<Box<Sleep>>,
}

impl<V: AsyncRead + AsyncWrite + Unpin> Desk<'_, V> {
    /// Until the viewer has said all, or given its answer to the challenge.
    async fn listen(&mut self, reception: &mut Reception) -> Result<Option<Challenge>, End> {
        let begun = Instant::now();
        loop {
            let mut send = Vec::new();
            let taken = reception.take(&self.payload, &mut send);
            self.say(&send).await?;
            let (taken, heard) = taken.map_err(|fault| stopped(UNFOLLOWED, &fault.to_string()))?;
            drop(self.payload.drain(..taken));
            let patience = match heard {
                Heard::In => return Ok(None),
                Heard::Answer(answer) => return Ok(Some(answer)),
                Heard::More if reception.waits_for_answer() => PATIENCE,
                Heard::More => PROMPT,
            };
            self.hear(begun.checked_add(patience).unwrap_or(begun))
                .await?;
        }
    }

    /// Passes the server's verdict on; with a no, the session is over.
    async fn tell(
        &mut self,
        reception: &mut Reception,
        verdict: Result<(), EntryError>,
    ) -> Result<(), End> {
        let mut send = Vec::new();
        let end = match verdict {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "the viewer's answer was of no use");
                Err(error.sentence())
            }
        };
        reception.verdict(end, &mut send);
        self.say(&send).await?;
        end.map_err(|sentence| stopped(REFUSED, sentence))
    }

    /// Reads once. Pings a viewer that is silent: a person may be looking for a password.
    async fn hear(&mut self, deadline: Instant) -> Result<(), End> {
        let mut bytes = Vec::with_capacity(READ);
        loop {
            self.set_timer(deadline);
            let read = tokio::select! {
                biased;
                read = self.viewer.read_buf(&mut bytes) => Some(read),
                () = &mut self.timer => None,
            };
            match read {
                None if deadline <= Instant::now() => {
                    return Err(stopped(UNHEARD, "the viewer did not answer in time"));
                }
                None => self.send(&PING).await?,
                Some(Ok(0)) => return Err(End::ViewerGone),
                Some(Ok(_length)) => return self.take(bytes).await,
                Some(Err(error)) => return Err(End::ViewerFailed(error.kind())),
            }
        }
    }

    /// For the next ping, or for `deadline` if that is sooner.
    fn set_timer(&mut self, deadline: Instant) {
        let ping = self.ping_interval.unwrap_or(PATIENCE);
        let ping = Instant::now().checked_add(ping).unwrap_or(deadline);
        let due = ping.min(deadline);
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
    }

    /// Looks into frames.
    async fn take(&mut self, mut bytes: Vec<u8>) -> Result<(), End> {
        let mut pong = Vec::new();
        let found = self.decoder.decode(&mut bytes, |control| {
            if let Control::Ping(payload) = control {
                pong_into(&mut pong, payload);
            }
        });
        self.send(&pong).await?;
        let payload = bytes.get(found.payload).unwrap_or_default();
        self.payload.extend_from_slice(payload);
        match found.end {
            None => Ok(()),
            Some(ws::End::Violation(violation)) => {
                Err(stopped(violation.code(), &violation.to_string()))
            }
            Some(ws::End::Close(close)) => {
                self.send(&close.frame()).await?;
                Err(End::ViewerClosed { code: close.code })
            }
        }
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.send(&frame(bytes)).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let sent = async {
            self.viewer.write_all(bytes).await?;
            self.viewer.flush().await
        };
        let sent = timeout(PROMPT, sent).await;
        let sent = sent.map_err(|_| stopped(UNHEARD, "the viewer takes nothing in"))?;
        sent.map_err(|error| End::ViewerFailed(error.kind()))
    }
}

fn stopped(code: u16, reason: &str) -> End {
    let reason = reason.to_owned();
    End::Stopped(Ending { code, reason })
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio::net::UnixStream;

    use super::super::entry::Entry;
    use super::super::target::{Connected, Stream};
    use super::*;
    use crate::proxy::rfb::CHALLENGE;

    const VERSION: &[u8] = b"RFB 003.008\n";
    const LIMIT: Duration = Duration::from_secs(5);

    /// A server that is open, or that wants a password.
    async fn entered(asks: bool) -> (Entered, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let rest: &[u8] = if asks { &[1, 2] } else { &[1, 1, 0, 0, 0, 0] };
        let mut greeting = [VERSION, rest].concat();
        greeting.extend(asks.then_some([7; CHALLENGE]).into_iter().flatten());
        let connected = Connected {
            stream: Stream::Unix(near),
            greeting,
        };
        let entry = Entry::handed(&"127.0.0.1:5900".parse().unwrap());
        (entry.enter(connected, LIMIT).await.unwrap(), far)
    }

    /// A frame as a client sends it, masked with zeros.
    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat()
    }

    async fn receive_from(
        far: &mut DuplexStream,
        mut near: DuplexStream,
        says: &[u8],
        asks: bool,
    ) -> Result<Received, End> {
        let (mut entered, _server) = entered(asks).await;
        far.write_all(says).await.unwrap();
        let settings = relay::Settings::default();
        receive(&mut near, Vec::new(), &mut entered, &settings, LIMIT).await
    }

    async fn sent(mut far: DuplexStream) -> Vec<u8> {
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        sent
    }

    fn stopped_with(end: Result<Received, End>) -> u16 {
        match end.unwrap_err() {
            End::Stopped(ending) => ending.code,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_that_says_nothing_is_given_up() {
        let (mut far, near) = duplex(4096);
        let begun = Instant::now();

        let end = receive_from(&mut far, near, b"", false).await;

        assert_eq!(stopped_with(end), UNHEARD);
        assert_eq!(begun.elapsed().as_secs(), PROMPT.as_secs());
        assert_eq!(sent(far).await, frame(VERSION));
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_has_time_to_find_a_password_and_load_balancers_see_pings() {
        let (mut far, near) = duplex(4096);
        let begun = Instant::now();
        let says = masked(2, &[VERSION, &[2]].concat());

        let end = receive_from(&mut far, near, &says, true).await;

        assert_eq!(stopped_with(end), UNHEARD);
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
        let sent = sent(far).await;
        let pings = sent.chunks(2).rev().take_while(|it| *it == PING).count();
        assert_eq!(pings, 5, "{sent:?}");
    }

    #[tokio::test]
    async fn a_viewer_that_leaves_is_answered() {
        let (mut far, near) = duplex(4096);
        let says = [masked(9, b"hi"), masked(8, &[3, 0xe9])].concat();

        let end = receive_from(&mut far, near, &says, false).await;

        let left = End::ViewerClosed { code: Some(1001) };
        assert_eq!(end.unwrap_err(), left);
        let sent = sent(far).await;
        assert_eq!(
            sent,
            [&frame(VERSION)[..], b"\x8a\x02hi\x88\x02\x03\xe9"].concat()
        );
    }

    #[tokio::test]
    async fn a_broken_frame_and_a_stream_that_ends_are_told_apart() {
        let (mut far, near) = duplex(4096);
        let end = receive_from(&mut far, near, &masked(1, b"text"), false).await;
        assert_eq!(stopped_with(end), 1003);

        let (far, mut near) = duplex(4096);
        drop(far);
        let (mut entered, _server) = entered(false).await;
        let settings = relay::Settings::default();
        let end = receive(&mut near, Vec::new(), &mut entered, &settings, LIMIT).await;
        assert!(matches!(end, Err(End::ViewerFailed(_) | End::ViewerGone)));
    }

    #[tokio::test]
    async fn the_middle_of_a_frame_is_carried_on() {
        let (mut far, near) = duplex(4096);
        let whole = masked(2, &[VERSION, b"\x01\x01then"].concat());
        let (first, rest) = whole.split_at(whole.len() - 2);

        let mut received = receive_from(&mut far, near, first, false).await.unwrap();

        assert_eq!(received.payload, b"\x01th");
        let mut rest = rest.to_vec();
        let found = received.decoder.decode(&mut rest, |_| ());
        assert_eq!(rest[found.payload], *b"en");
    }
}
