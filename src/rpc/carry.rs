//! Bytes between a display and the process that asked for it, both ways, until both have ended.
//!
//! Called by the desk. A host carries the consoles of all its instances, so it holds no buffer for a
//! quiet one (reads go through one buffer of the thread; only what a slow reader did not take is
//! kept), and one that streams lets the others have their turn.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

/// The most one read takes, in bytes: all that a full socket gives at a time.
const READ: usize = 64 << 10;

/// Bytes in one direction before others have their turn: 0.1 ms of a processor, or 0.3 inside TLS.
const TURN: usize = 256 << 10;

thread_local! {
    static SPARE: Cell<Vec<u8>> = Cell::default();
}

/// Carries until both directions have ended or one fails. An end of one direction is passed on.
pub(super) async fn carry<A, B>(one: &mut A, other: &mut B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Direction::default(), Direction::default());
    poll_fn(|context| {
        let there = there.poll(context, one, other)?;
        let back = back.poll(context, other, one)?;
        ready!(there);
        ready!(back);
        Poll::Ready(Ok(()))
    })
    .await
}

#[derive(Debug, Default)]
struct Direction {
    /// What was read and not taken.
    left: Vec<u8>,
    /// Whether something was written that may wait below.
    unflushed: bool,
    /// Whether all has been read.
    over: bool,
    /// Whether its end was passed on.
    ended: bool,
}

impl Direction {
    fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut moved = 0;
        while !self.ended {
            ready!(self.poll_left(context, to))?;
            if self.over {
                ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                self.ended = true;
            } else if moved >= TURN {
                // Until sockets have been looked at: who merely wakes itself keeps the runtime from that.
                let _later = pin!(yield_now()).poll(context);
                return Poll::Pending;
            } else {
                let Poll::Ready(count) = self.poll_move(context, from, to)? else {
                    return self.poll_rest(context, to);
                };
                moved = moved.saturating_add(count);
                self.over = count == 0;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is left of an earlier read, and gives its memory back.
    fn poll_left<W>(&mut self, context: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        while !self.left.is_empty() {
            let taken = ready!(Pin::new(&mut *to).poll_write(context, &self.left))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            drop(self.left.drain(..taken));
        }
        self.left = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what is taken at once. How much was read; 0 at the end.
    fn poll_move<R, W>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut scratch = Scratch::take();
        let mut room = ReadBuf::new(&mut scratch.0);
        ready!(Pin::new(from).poll_read(context, &mut room))?;
        let bytes = room.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let taken = match Pin::new(to).poll_write(context, bytes)? {
            Poll::Ready(taken) => taken,
            Poll::Pending => 0,
        };
        self.unflushed = true;
        self.left = bytes.get(taken..).unwrap_or_default().to_vec();
        Poll::Ready(Ok(bytes.len()))
    }

    /// There is nothing to read for now.
    fn poll_rest<W>(&mut self, context: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Pending
    }
}

/// The thread's buffer, taken for one move and given back when dropped.
struct Scratch(Vec<u8>);

impl Scratch {
    fn take() -> Self {
        let mut spare = SPARE.take();
        spare.resize(READ, 0);
        Self(spare)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SPARE.set(mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// Two ends with a carrier in between, whose pipes hold so many bytes.
    fn carried(hold: usize) -> (DuplexStream, DuplexStream) {
        let ((one, mut near), (mut far, other)) = (duplex(hold), duplex(hold));
        tokio::spawn(async move { carry(&mut near, &mut far).await });
        (one, other)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..=250).cycle().take(length).collect()
    }

    #[tokio::test]
    async fn everything_arrives_both_ways_whatever_the_pipes_hold() {
        for hold in [1, 1000, READ, 3 * READ] {
            let (one, other) = carried(hold);
            let (length, mut ends) = (hold.min(1000) * 1000, Vec::new());
            let (one, other) = (tokio::io::split(one), tokio::io::split(other));
            for (mut read, mut write) in [(one.0, other.1), (other.0, one.1)] {
                let sent = pattern(length);
                tokio::spawn(async move {
                    write.write_all(&sent).await.unwrap();
                    write.shutdown().await.unwrap();
                });
                ends.push(tokio::spawn(async move {
                    let mut got = Vec::new();
                    read.read_to_end(&mut got).await.map(|_| got)
                }));
            }
            for end in ends {
                assert!(end.await.unwrap().unwrap() == pattern(length), "{hold}");
            }
        }
    }

    #[tokio::test]
    async fn an_end_is_passed_on_and_the_other_direction_goes_on() {
        let (mut one, mut other) = carried(100);

        one.write_all(b"asked").await.unwrap();
        one.shutdown().await.unwrap();
        let mut asked = Vec::new();
        other.read_to_end(&mut asked).await.unwrap();
        other.write_all(b"answered").await.unwrap();
        drop(other);
        let mut answered = Vec::new();
        one.read_to_end(&mut answered).await.unwrap();

        assert_eq!(
            (&asked[..], &answered[..]),
            (&b"asked"[..], &b"answered"[..])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_stops_the_writer() {
        let (mut one, _other) = carried(1000);

        let mut sent = 0;
        let endless = async {
            loop {
                sent += one.write(&[0; 1000]).await.unwrap();
            }
        };
        let stopped = tokio::time::timeout(std::time::Duration::from_millis(200), endless).await;

        assert!(stopped.is_err());
        assert!(sent <= 4 * 1000, "{sent}");
    }

    /// Never empty, never full.
    struct Endless(usize);

    impl AsyncRead for Endless {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let room = into.initialize_unfilled().len();
            into.advance(room);
            self.0 += room;
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_stream_lets_others_have_their_turn_and_holds_no_buffer() {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let (mut from, mut direction) = (Endless(0), Direction::default());

        let polled = direction.poll(&mut context, &mut from, &mut tokio::io::sink());

        assert!(polled.is_pending());
        assert_eq!(from.0, TURN);
        assert_eq!(direction.left.capacity(), 0);
    }
}
