//! The one read buffer of a thread.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{io, mem};

use tokio::io::{AsyncRead, ReadBuf};

use crate::proxy::ws::{HEADROOM, frame_in_place};

/// The most one read takes, in bytes: it stays in the processor's cache until it is sent, and makes
/// a frame that a slow line delivers without a long wait; see docs/performance.md.
const READ: usize = 64 * 1024;

thread_local! {
    static SPARE: Cell<Box<[u8]>> = Cell::default();
}

/// The thread's buffer, taken for one poll and given back when dropped.
pub(super) struct Scratch(Box<[u8]>);

impl Scratch {
    pub(super) fn take() -> Self {
        let spare = SPARE.take();
        if spare.is_empty() {
            // The thread's first poll.
            return Self(vec![0; HEADROOM + READ].into());
        }
        Self(spare)
    }

    /// Reads at most `limit` bytes into the buffer, behind its headroom. 0 bytes are the end of the
    /// stream.
    pub(super) fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let room = self.room();
        let (room, _rest) = room.split_at_mut(limit.min(room.len()));
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(from).poll_read(cx, &mut room))?;
        Poll::Ready(Ok(room.filled().len()))
    }

    /// The first `length` bytes that were read.
    pub(super) fn bytes(&mut self, length: usize) -> &mut [u8] {
        self.room().split_at_mut(length).0
    }

    /// The first `length` bytes that were read, as a frame.
    pub(super) fn frame(&mut self, length: usize) -> &[u8] {
        let frame = frame_in_place(&mut self.0, length);
        self.0.get(frame).unwrap_or_default()
    }

    fn room(&mut self) -> &mut [u8] {
        self.0.split_at_mut(HEADROOM).1
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SPARE.set(mem::take(&mut self.0));
    }
}
