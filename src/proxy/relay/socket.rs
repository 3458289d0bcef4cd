//! A socket that the [`reactor`](super::reactor) watches.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::event::epoll::EventFlags;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected stream socket, not blocking. Eight bytes: what else it takes to wait is the reactor's,
/// which polls whoever holds it; no waker is kept.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    readable: bool,
    writable: bool,
    /// The peer has closed its direction, or all is over: no more edges will come.
    ended: bool,
}

/// What wakes a socket: what was not ready and is. Edges alone, so that nobody says twice what he
/// waits for.
pub(super) const EDGES: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

impl Socket {
    /// Takes the socket from the runtime.
    pub fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        Ok(Self::new(stream.into_std()?.into()))
    }

    /// The same for a Unix socket.
    pub fn from_unix(stream: UnixStream) -> io::Result<Self> {
        Ok(Self::new(stream.into_std()?.into()))
    }

    /// The first look at it tells whether there is something to read.
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self {
            descriptor,
            readable: false,
            writable: true,
            ended: false,
        }
    }

    /// Has everything come to its end at once, on both sides of it.
    pub(super) fn close(&mut self) {
        let _already = shutdown(&self.descriptor, Shutdown::Both).is_err();
        self.note(EventFlags::HUP);
    }

    pub(super) fn note(&mut self, edges: EventFlags) {
        let over = EventFlags::HUP | EventFlags::ERR;
        self.ended |= edges.intersects(over | EventFlags::RDHUP);
        self.readable |= self.ended || edges.contains(EventFlags::IN);
        self.writable |= edges.intersects(over | EventFlags::OUT);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.readable {
            return Poll::Pending;
        }
        let room = into.initialize_unfilled();
        let wanted = room.len();
        let read = retry_on_intr(|| recv(&self.descriptor, &mut *room, RecvFlags::empty()));
        let (read, _) = ready!(or_pending(read, &mut self.readable))?;
        // Less than there was room for was all there is.
        self.readable = read == wanted || read == 0 || self.ended;
        into.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.writable {
            return Poll::Pending;
        }
        let written = retry_on_intr(|| send(&self.descriptor, bytes, SendFlags::NOSIGNAL));
        let written = ready!(or_pending(written, &mut self.writable))?;
        self.writable = written == bytes.len();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(shutdown(&self.descriptor, Shutdown::Write)?))
    }
}

fn or_pending<T>(done: Result<T, Errno>, is_ready: &mut bool) -> Poll<io::Result<T>> {
    match done {
        Err(Errno::AGAIN) => {
            *is_ready = false;
            Poll::Pending
        }
        done => Poll::Ready(done.map_err(io::Error::from)),
    }
}
