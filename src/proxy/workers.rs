//! The threads that relay: one for each processor, each with a runtime of its own.
//!
//! A session's task, its timers and both of its sockets stay on one thread: what a relay costs
//! beyond the kernel's copies is waking other processors. All that comes before a session (HTTP,
//! tokens, hypervisors) runs elsewhere and cannot hold a stream up. Called by `console`, which
//! starts a session on the thread that has the fewest.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::relay::serve_turns;
use super::target::Stream;
use crate::compute::Display;

/// The threads. They end, and with them all sessions, when this is dropped.
#[derive(Debug)]
pub struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Cloned for each session: its count is theirs.
    load: Arc<()>,
    /// Dropped to end the thread.
    _work: oneshot::Sender<()>,
}

/// A thread with room for one more session.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) runtime: Handle,
    pub(super) load: Load,
}

/// A session counts as its thread's as long as this lives.
#[derive(Debug)]
pub(super) struct Load(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Workers {
    /// Starts one thread for each processor that this process may use.
    pub fn start() -> io::Result<Self> {
        let count = thread::available_parallelism()?.get();
        (0..count)
            .map(Worker::start)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The runtime of each thread.
    pub fn runtimes(&self) -> Vec<Handle> {
        let runtimes = self.0.iter().map(|worker| worker.runtime.clone());
        runtimes.collect()
    }

    /// A place on the thread with the fewest sessions. None if there are no threads.
    pub(super) fn desk(&self) -> Option<Desk> {
        let idlest = self
            .0
            .iter()
            .min_by_key(|worker| Arc::strong_count(&worker.load))?;
        Some(Desk {
            runtime: idlest.runtime.clone(),
            load: Load(Arc::clone(&idlest.load)),
        })
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (work, done) = oneshot::channel();
        let thread = thread::Builder::new().name(format!("relay-{number}"));
        thread.spawn(move || {
            let _turns = runtime.spawn(serve_turns());
            let _done = runtime.block_on(done);
        })?;
        Ok(Self {
            runtime: handle,
            load: Arc::default(),
            _work: work,
        })
    }
}

/// Has this thread's runtime watch the sockets that another one's did. Streams that are more than
/// a socket stay where they are, and cost a wake-up of that thread for each move.
pub(super) fn adopt(stream: Stream) -> io::Result<Stream> {
    Ok(match stream {
        Stream::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream.into_std()?)?),
        Stream::Unix(stream) | Stream::Handed(Display::Socket(stream)) => {
            Stream::Unix(UnixStream::from_std(stream.into_std()?)?)
        }
        Stream::Handed(Display::Tunnel(mut tunnelled)) => {
            tunnelled.stream.adopt()?;
            Stream::Handed(Display::Tunnel(tunnelled))
        }
        more => more,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_go_to_the_thread_that_has_the_fewest() {
        let workers: io::Result<_> = (0..3).map(Worker::start).collect();
        let workers = Workers(workers.unwrap());
        let counts = || {
            let each = workers
                .0
                .iter()
                .map(|worker| Arc::strong_count(&worker.load) - 1);
            each.collect::<Vec<_>>()
        };

        let mut desks: Vec<_> = (0..7).map(|_| workers.desk().unwrap()).collect();
        assert_eq!(counts(), [3, 2, 2]);
        desks.remove(1);
        let _next = workers.desk().unwrap();

        assert_eq!(counts(), [3, 2, 2]);
    }

    #[test]
    fn what_runs_on_the_threads_ends_with_them() {
        let workers = Workers::start().unwrap();
        let (held, ended) = std::sync::mpsc::channel::<()>();
        workers.desk().unwrap().runtime.spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });

        drop(workers);

        let end = ended.recv_timeout(std::time::Duration::from_secs(10));
        assert_eq!(end, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }
}
