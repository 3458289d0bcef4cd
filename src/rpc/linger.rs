use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a caller may take to go once it was told that the conversation is over.
const PATIENCE: Duration = Duration::from_secs(1);

/// A stream that ends in the order in which both sides understand it: ours, then the caller's.
///
/// What a caller sends while it is told to go elsewhere meets an open socket. It then reads that its
/// call was not looked at, and makes it again; a closed one would break its connection before it
/// reads anything, and nobody would know.
pub(super) struct Linger<S> {
    stream: S,
    /// Whether calls come on it; a tunnel ends as its peers say.
    calls: Arc<AtomicBool>,
    shut: bool,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Linger<S> {
    pub(super) fn new(stream: S, calls: Arc<AtomicBool>) -> Self {
        Self {
            stream,
            calls,
            shut: false,
            deadline: None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Linger<S> {
    /// Reads what still comes, and forgets it.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        let mut room = [0; 1024];
        loop {
            let mut room = ReadBuf::new(&mut room);
            let read = Pin::new(&mut self.stream).poll_read(context, &mut room);
            match read {
                Poll::Pending => return deadline.as_mut().poll(context),
                Poll::Ready(Ok(())) if !room.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Linger<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.shut = true;
        }
        if !self.calls.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        self.poll_gone(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_to_an_end_meets_an_open_stream_for_a_while() {
        let (mut caller, ours) = duplex(64);
        let mut ours = Linger::new(ours, Arc::new(AtomicBool::new(true)));
        let started = Instant::now();
        let ending = tokio::spawn(async move {
            ours.write_all(b"go").await.unwrap();
            ours.shutdown().await
        });

        let mut heard = Vec::new();
        let _length = caller.read_to_end(&mut heard).await.unwrap();
        caller.write_all(b"one more call").await.unwrap();

        assert_eq!(heard, b"go");
        assert!(ending.await.unwrap().is_ok());
        assert_eq!(started.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_over_once_the_caller_has_gone() {
        let (caller, ours) = duplex(64);
        let started = Instant::now();
        drop(caller);

        let mut ours = Linger::new(ours, Arc::new(AtomicBool::new(true)));
        assert!(ours.shutdown().await.is_ok());
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_carries_no_calls_is_shut_as_any_stream() {
        let (mut caller, ours) = duplex(64);
        let mut ours = Linger::new(ours, Arc::default());

        ours.shutdown().await.unwrap();

        caller.write_all(b"more").await.unwrap();
        let mut heard = [0; 4];
        let _length = ours.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, *b"more");
    }
}
