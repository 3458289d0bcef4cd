use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a client may take to read an answer: the largest embedded file, 400 KB, over a line
/// of 64 kbit/s.
pub(super) const ANSWER: Duration = Duration::from_mins(1);

/// A stream whose writing fails once an answer has waited for its reader for [`ANSWER`], so that
/// who asks and never reads does not keep a connection's place.
///
/// The time runs from the first write that has to wait to the flush that follows the last one,
/// however few bytes go out meanwhile.
#[derive(Debug)]
pub(super) struct Hurry<S> {
    stream: S,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Hurry<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            deadline: None,
        }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            return written;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(ANSWER)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Hurry<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Hurry<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        let flushed = self.judge(context, flushed);
        if flushed.is_ready() {
            self.deadline = None;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_given_up() {
        let (_silent, ours) = duplex(16);
        let started = Instant::now();

        let error = Hurry::new(ours).write_all(&[0; 64]).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), ANSWER);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_read_byte_by_byte_has_no_more_time() {
        let (mut slow, ours) = duplex(16);
        let reader = tokio::spawn(async move {
            while slow.read_u8().await.is_ok() {
                sleep(ANSWER / 20).await;
            }
        });

        let error = Hurry::new(ours).write_all(&[0; 64]).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        reader.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn every_answer_has_its_own_time() {
        let (mut slow, ours) = duplex(16);
        let mut ours = Hurry::new(ours);
        let reader = tokio::spawn(async move {
            let mut answer = [0; 32];
            for _ in 0..3 {
                sleep(ANSWER * 3 / 4).await;
                let _length = slow.read_exact(&mut answer).await.unwrap();
            }
        });

        for _ in 0..3 {
            ours.write_all(&[0; 32]).await.unwrap();
            ours.flush().await.unwrap();
        }

        reader.await.unwrap();
    }
}
