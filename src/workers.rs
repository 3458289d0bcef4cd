//! The threads that relay: one for each processor, each with a runtime of its own.
//!
//! A session's task, its timers and both of its sockets stay on one thread: what a relay costs
//! beyond the kernel's copies is waking other processors. Where nothing but HTTP in clear text and
//! roles of this process stand before a session, its connection begins on that thread, too ([`lobby`]);
//! the rest runs elsewhere and cannot hold a stream up. Called by the doors and the proxy.
//!
//! [`lobby`]: Workers::lobby

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

/// Connections before a session that one thread serves at one time. Whoever floods the door with
/// more finds them served elsewhere, and streams go on.
const LOBBY: usize = 64;

/// Tasks between two looks at the sockets: so many steps of openings a stream may wait for.
const STEPS: u32 = 16;

/// How often a thread's timers are looked at while connections begin there. Shorter than any of
/// theirs.
const PACE: Duration = Duration::from_millis(500);

thread_local! {
    /// Which of the threads this one is.
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The threads. Cheap to clone; they end, and with them all sessions, when the last is dropped.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Cloned for each session: its count is theirs.
    sessions: Arc<()>,
    /// The same for each connection before one.
    lobby: Arc<()>,
    pace: Arc<Pace>,
    /// Dropped to end the thread.
    _work: oneshot::Sender<()>,
}

/// A thread with room for one more session.
#[derive(Debug)]
pub struct Desk {
    /// Where its tasks go; nowhere if they are there already.
    pub runtime: Option<Handle>,
    /// Its share of that thread.
    pub load: Load,
}

/// Counts as its thread's as long as this lives.
#[derive(Debug)]
pub struct Load(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Workers {
    /// Starts one thread for each processor that this process may use; `serve` runs on each.
    pub fn start<F>(serve: fn() -> F) -> io::Result<Self>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        Self::start_some(thread::available_parallelism()?.get(), serve)
    }

    fn start_some<F>(count: usize, serve: fn() -> F) -> io::Result<Self>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let workers = (0..count).map(|number| Worker::start(number, serve));
        workers.collect::<Result<_, _>>().map(Self)
    }

    /// The runtime of each thread.
    pub fn runtimes(&self) -> Vec<Handle> {
        let runtimes = self.0.iter().map(|worker| worker.runtime.clone());
        runtimes.collect()
    }

    /// A place for a session: on this thread if it is one of them, else on the one with the
    /// fewest. None if there are no threads.
    pub fn desk(&self) -> Option<Desk> {
        let here = HERE.get().and_then(|it| Some((it, self.0.get(it)?)));
        let (number, worker) = here.or_else(|| self.idlest())?;
        Some(worker.desk(number, &worker.sessions))
    }

    /// A place for a connection before its session, on the thread with the fewest of both; none if
    /// that has as many as it may.
    pub fn lobby(&self) -> Option<Desk> {
        let (number, worker) = self.idlest()?;
        if count(&worker.lobby) >= LOBBY {
            return None;
        }
        worker.pace.begin();
        Some(worker.desk(number, &worker.lobby))
    }

    /// The thread at which doors are watched whose connections begin on all.
    pub fn first(&self) -> Option<Handle> {
        Some(self.0.first()?.runtime.clone())
    }

    fn idlest(&self) -> Option<(usize, &Worker)> {
        let workers = self.0.iter().enumerate();
        workers.min_by_key(|(_, worker)| worker.busy())
    }
}

impl Worker {
    fn start<F>(number: usize, serve: fn() -> F) -> io::Result<Self>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_all().event_interval(STEPS).build()?;
        let handle = runtime.handle().clone();
        let pace = Arc::<Pace>::default();
        let (work, done) = oneshot::channel();
        let thread = thread::Builder::new().name(format!("relay-{number}"));
        let pacing = Arc::clone(&pace);
        thread.spawn(move || {
            HERE.set(Some(number));
            let _serving = runtime.spawn(serve());
            let _pace = runtime.spawn(async move { pacing.keep().await });
            let _done = runtime.block_on(done);
        })?;
        Ok(Self {
            runtime: handle,
            sessions: Arc::default(),
            lobby: Arc::default(),
            pace,
            _work: work,
        })
    }

    fn desk(&self, number: usize, crowd: &Arc<()>) -> Desk {
        let is_here = HERE.get() == Some(number);
        Desk {
            runtime: (!is_here).then(|| self.runtime.clone()),
            load: Load(Arc::clone(crowd)),
        }
    }

    fn busy(&self) -> usize {
        count(&self.sessions).saturating_add(count(&self.lobby))
    }
}

fn count(shared: &Arc<()>) -> usize {
    Arc::strong_count(shared).saturating_sub(1)
}

/// Has a timer ring soon while connections begin. A runtime wakes itself for each timer that rings
/// before all others, with two system calls; beside this one none does.
#[derive(Debug, Default)]
struct Pace {
    /// Whether a connection began since the last look.
    begun: AtomicBool,
    /// Whether nobody looks.
    rests: AtomicBool,
    wake: Notify,
}

impl Pace {
    fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        if self.rests.swap(false, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    async fn keep(&self) {
        loop {
            while self.begun.swap(false, Ordering::AcqRel) {
                sleep(PACE).await;
            }
            self.rests.store(true, Ordering::Release);
            if !self.begun.load(Ordering::Acquire) {
                self.wake.notified().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::mpsc::{self, RecvTimeoutError};

    use super::*;

    fn some(number: usize) -> Workers {
        Workers::start_some(number, pending::<()>).unwrap()
    }

    #[test]
    fn sessions_go_to_the_thread_that_has_the_fewest() {
        let workers = some(3);
        let counts = || {
            let each = workers.0.iter().map(Worker::busy);
            each.collect::<Vec<_>>()
        };

        let mut desks: Vec<_> = (0..7).map(|_| workers.desk().unwrap()).collect();
        assert_eq!(counts(), [3, 2, 2]);
        desks.remove(1);
        let _next = workers.desk().unwrap();

        assert_eq!(counts(), [3, 2, 2]);
    }

    #[test]
    fn a_session_stays_on_the_thread_where_its_connection_began() {
        let workers = some(2);
        let _first = workers.lobby().unwrap();
        let second = workers.lobby().unwrap().runtime.unwrap();

        let (told, desk) = mpsc::channel();
        let asking = workers.clone();
        second.spawn(async move { told.send(asking.desk().unwrap()).unwrap() });
        let desk = desk.recv().unwrap();

        assert!(desk.runtime.is_none());
        let sessions: Vec<_> = workers.0.iter().map(|it| count(&it.sessions)).collect();
        assert_eq!(sessions, [0, 1]);
    }

    #[test]
    fn whoever_floods_the_door_is_served_elsewhere() {
        let workers = some(2);
        let mut flood: Vec<_> = std::iter::from_fn(|| workers.lobby()).collect();
        assert_eq!(flood.len(), 2 * LOBBY);

        flood.pop();

        assert!(workers.lobby().is_some());
    }

    #[test]
    fn a_thread_where_no_connections_begin_any_more_has_no_timer() {
        let workers = some(1);
        let pace = &workers.0[0].pace;
        for _again in 0..2 {
            while !pace.rests.load(Ordering::Acquire) {
                thread::yield_now();
            }
            pace.begin();
        }
    }

    #[test]
    fn what_runs_on_the_threads_ends_with_them() {
        let workers = some(1);
        let (held, ended) = mpsc::channel::<()>();
        workers.runtimes()[0].spawn(async move {
            let _held = held;
            pending::<()>().await;
        });

        drop(workers);

        let end = ended.recv_timeout(Duration::from_secs(10));
        assert_eq!(end, Err(RecvTimeoutError::Disconnected));
    }
}
