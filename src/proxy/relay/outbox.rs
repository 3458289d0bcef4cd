//! What a slow side has not taken yet.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{io, mem};

use tokio::io::AsyncWrite;

/// Bytes on their way to one side. Owns memory only while that side is slow.
///
/// Bounded by its user, who reads no more for this side until it is clear.
#[derive(Default)]
pub(super) struct Outbox {
    /// Boxed: thousands of quiet sessions have none.
    rest: Option<Box<Rest>>,
    /// The stream may hold written bytes back until it is flushed, as TLS does.
    unflushed: bool,
}

#[derive(Default)]
struct Rest {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Whether everything has left.
    pub(super) fn is_clear(&self) -> bool {
        self.rest.is_none() && !self.unflushed
    }

    /// Queues `bytes` behind what waits.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let rest = self.rest.get_or_insert_default();
            rest.bytes.extend_from_slice(bytes);
        }
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes what waits; ready when this is clear. Frees its memory then.
    pub(super) fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = &mut self.rest {
            let left = rest.bytes.get(rest.sent..).unwrap_or_default();
            if left.is_empty() {
                self.rest = None;
                break;
            }
            let written = ready!(poll_some(to, cx, left))?;
            rest.sent = rest.sent.saturating_add(written);
            self.unflushed = true;
        }
        if mem::take(&mut self.unflushed) && Pin::new(to).poll_flush(cx)?.is_pending() {
            self.unflushed = true;
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes `bytes` at once and keeps a copy of what `to` did not take.
    ///
    /// Only when this is clear, or the bytes would overtake.
    pub(super) fn send<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        cx: &mut Context<'_>,
        mut bytes: &[u8],
    ) -> io::Result<()> {
        debug_assert!(self.is_clear(), "bytes do not overtake");
        while !bytes.is_empty() {
            let Poll::Ready(written) = poll_some(to, cx, bytes)? else {
                self.push(bytes);
                return Ok(());
            };
            bytes = bytes.get(written..).unwrap_or_default();
            self.unflushed = true;
        }
        // Nothing waits any more, so this only flushes.
        let _pending = self.poll_send(to, cx)?.is_pending();
        Ok(())
    }
}

fn poll_some<W: AsyncWrite + Unpin>(
    to: &mut W,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(Ok(written)),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, BufWriter, duplex};

    use super::*;

    #[tokio::test]
    async fn what_a_slow_side_took_at_last_is_no_longer_held() {
        let (mut far, mut near) = duplex(4);
        let mut cx = Context::from_waker(Waker::noop());
        let mut outbox = Outbox::default();
        outbox.send(&mut near, &mut cx, b"12345678").unwrap();
        let held = outbox.rest.as_ref().unwrap().bytes.len();

        far.read_exact(&mut [0; 4]).await.unwrap();
        let sent = outbox.poll_send(&mut near, &mut cx);

        assert!(sent.is_ready() && outbox.is_clear());
        assert_eq!((held, outbox.rest.is_none()), (4, true));
    }

    #[tokio::test]
    async fn a_stream_that_holds_bytes_back_is_flushed() {
        let (mut far, near) = duplex(64);
        let mut near = BufWriter::new(near);
        let mut outbox = Outbox::default();

        let mut cx = Context::from_waker(Waker::noop());
        outbox.send(&mut near, &mut cx, b"key").unwrap();

        let mut got = [0; 3];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"key");
    }

    #[tokio::test]
    async fn a_stream_that_could_not_be_flushed_is_not_clear() {
        let (_far, near) = duplex(2);
        let mut near = BufWriter::new(near);
        let mut outbox = Outbox::default();

        let mut cx = Context::from_waker(Waker::noop());
        outbox.send(&mut near, &mut cx, b"key").unwrap();

        assert!(!outbox.is_clear());
    }
}
