//! Bytes both ways inside a connection: a console's line, a screenshot.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::connection::Shared;
use super::error::Error;
use super::frame::{Header, Status};

/// The most that one message carries. libvirt's own limit is 256 KiB less a little.
const PIECE: usize = 64 * 1024;

/// A stream. Both directions are bounded: what is not read stops the daemon, what the daemon does
/// not take stops the writer. Dropped before its end, it is aborted.
#[derive(Debug)]
pub struct Stream {
    header: Header,
    pieces: mpsc::Receiver<Result<Vec<u8>, Error>>,
    /// What of the last piece was not read yet.
    rest: Bytes,
    out: PollSender<Vec<u8>>,
    finished: bool,
    shared: Arc<Shared>,
}

impl Stream {
    pub(super) fn new(
        header: Header,
        pieces: mpsc::Receiver<Result<Vec<u8>, Error>>,
        out: mpsc::Sender<Vec<u8>>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            header,
            pieces,
            rest: Bytes::new(),
            out: PollSender::new(out),
            finished: false,
            shared,
        }
    }

    /// The next piece; nothing at the end. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.pieces.recv().await.transpose()
    }

    /// Everything up to the end, if that is at most `limit` bytes. Not cancel-safe: what was read
    /// is lost.
    pub async fn read_all(&mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            if all.len().saturating_add(piece.len()) > limit {
                return Err(Error::Large(limit));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    fn message(&self, status: Status, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            status,
            ..self.header
        };
        header.encode(payload)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.pieces.poll_recv(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(piece)) => self.rest = piece.into(),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let count = into.remaining().min(self.rest.len());
        into.put_slice(self.rest.get(..count).unwrap_or_default());
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let ended = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        if bytes.is_empty() {
            // An empty piece would be the end.
            return Poll::Ready(Ok(0));
        }
        ready!(self.out.poll_reserve(context)).map_err(ended)?;
        let piece = bytes.get(..PIECE).unwrap_or(bytes);
        let message = self.message(Status::Continue, piece);
        self.out.send_item(message).map_err(ended)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Says that no more comes from this side; the daemon then ends the stream.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            let ended = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            ready!(self.out.poll_reserve(context)).map_err(ended)?;
            let message = self.message(Status::Ok, &[]);
            self.out.send_item(message).map_err(ended)?;
            self.finished = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let serial = self.header.serial;
        let unended = self.shared.table.end_stream(serial).is_some();
        if unended && !self.finished {
            let abort = self.message(Status::Error, &[]);
            let out = self.out.get_ref();
            let _full = out.is_some_and(|out| out.try_send(abort).is_err());
        }
    }
}
