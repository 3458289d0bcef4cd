//! The life of the process in three phases: run, drain, close.
//!
//! The first signal drains: nothing new is taken, what runs lives on. The second signal, the
//! drain's time limit or the last session's end closes. Every task that should be waited for is
//! spawned through its [`Watch`]. Knows nothing of the rest.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The side that decides; held by the one who runs the process.
#[derive(Debug, Default)]
pub struct Drain(Watch);

/// The side that obeys; cloned into every task.
#[derive(Clone, Debug)]
pub struct Watch {
    doors: Arc<watch::Sender<Doors>>,
    connections: TaskTracker,
    draining: CancellationToken,
    closing: CancellationToken,
    /// Cancelled with `closing`, or before: see [`Watch::parting`].
    parting: CancellationToken,
    sessions: TaskTracker,
    services: TaskTracker,
}

/// A session that is waited for as long as this lives.
#[derive(Debug)]
pub struct Tracked(#[expect(dead_code, reason = "it is counted")] TaskTrackerToken);

/// Whether doors take connections.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Doors {
    #[default]
    Open,
    /// Those that come wait.
    Held,
    /// Another process takes them.
    Left,
}

/// Holds, opens and leaves the doors. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(Watch);

impl Gate {
    /// Has those who come wait in the kernel's queues.
    pub fn hold(&self) {
        let _before = self.0.doors.send_replace(Doors::Held);
    }

    /// Takes them again.
    pub fn open(&self) {
        let _before = self.0.doors.send_replace(Doors::Open);
    }

    /// Leaves the doors to another process. Who is in stays.
    pub fn leave(&self) {
        let _before = self.0.doors.send_replace(Doors::Left);
        self.0.parting.cancel();
    }

    /// Waits until all who were in when the doors were left are gone. Cancel-safe.
    pub async fn deserted(&self) {
        // A connection may become a session, never the other way round.
        self.0.connections.close();
        self.0.connections.wait().await;
        self.0.sessions.close();
        self.0.sessions.wait().await;
    }
}

impl Drain {
    /// The doors of this process.
    pub fn gate(&self) -> Gate {
        Gate(self.0.clone())
    }

    /// A watch on this drain.
    pub fn watch(&self) -> Watch {
        self.0.clone()
    }

    /// Drains, waits up to `limit` for the sessions to end, then closes and waits for the rest.
    ///
    /// Returns early through its caller only: drop the future to close at once. `grace` bounds
    /// the time after closing, for close frames to leave.
    pub async fn run(self, limit: Duration, grace: Duration) {
        let watch = self.0;
        watch.draining.cancel();
        watch.sessions.close();
        let _sessions_ended = timeout(limit, watch.sessions.wait()).await.is_ok();
        watch.closing.cancel();
        watch.services.close();
        watch.connections.close();
        let everything = async {
            watch.sessions.wait().await;
            watch.connections.wait().await;
            watch.services.wait().await;
        };
        let _all_ended = timeout(grace, everything).await.is_ok();
    }
}

impl Default for Watch {
    fn default() -> Self {
        let closing = CancellationToken::new();
        Self {
            doors: Arc::default(),
            connections: TaskTracker::new(),
            draining: CancellationToken::new(),
            parting: closing.child_token(),
            closing,
            sessions: TaskTracker::new(),
            services: TaskTracker::new(),
        }
    }
}

impl Watch {
    /// Whether new work is to be refused.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until new work is to be refused. Cancel-safe.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Whether everything is to end.
    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Waits until everything is to end. Cancel-safe.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Waits until a door may take a connection; `false` once another process does.
    pub async fn may_accept(&self) -> bool {
        let mut doors = self.doors.subscribe();
        let settled = doors.wait_for(|doors| *doors != Doors::Held).await;
        settled.is_ok_and(|doors| *doors == Doors::Open)
    }

    /// Waits until doors take no connections for now. Cancel-safe.
    pub async fn held(&self) {
        let mut doors = self.doors.subscribe();
        let _held = doors.wait_for(|doors| *doors != Doors::Open).await.is_ok();
    }

    /// Waits until the doors are another process's, or everything is to end. Cancel-safe.
    pub async fn parting(&self) {
        self.parting.cancelled().await;
    }

    /// Spawns a connection, which ends by itself once the doors are left or everything closes.
    pub fn spawn_connection(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_connection_on(None, task);
    }

    /// The same on another runtime, if one is given.
    pub fn spawn_connection_on(
        &self,
        runtime: Option<&Handle>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        spawn_on(&self.connections, runtime, task);
    }

    /// Spawns a session: draining waits for it.
    pub fn spawn_session(&self, task: impl Future<Output = ()> + Send + 'static) {
        let _handle = self.sessions.spawn(task);
    }

    /// The same on another runtime, if one is given.
    pub fn spawn_session_on(
        &self,
        runtime: Option<&Handle>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        spawn_on(&self.sessions, runtime, task);
    }

    /// Has draining wait for a session that is no task.
    pub fn track_session(&self) -> Tracked {
        Tracked(self.sessions.token())
    }

    /// Spawns a task that serves until closing and then ends by itself.
    pub fn spawn_service(&self, task: impl Future<Output = ()> + Send + 'static) {
        let _handle = self.services.spawn(task);
    }
}

fn spawn_on(
    tasks: &TaskTracker,
    runtime: Option<&Handle>,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let _handle = match runtime {
        Some(runtime) => tasks.spawn_on(task, runtime),
        None => tasks.spawn(task),
    };
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// `SIGTERM`, from a service manager.
    Terminate,
    /// `SIGINT`, from a terminal.
    Interrupt,
    /// `SIGHUP`: read the config again.
    Reload,
    /// `SIGUSR2`: hand over to another process.
    Upgrade,
}

/// The signals that mean something to the process, one after the other.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    user: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes the signals over from their default, which is sudden death.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user.recv() => Signal::Upgrade,
        }
    }

    /// The next signal that asks for an end. Cancel-safe.
    pub async fn end(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            if matches!(signal, Signal::Terminate | Signal::Interrupt) {
                return signal;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_sessions_and_closes_services_after_them() {
        let drain = Drain::default();
        let (session, service) = (drain.watch(), drain.watch());
        let (done, ended) = tokio::sync::oneshot::channel::<()>();
        drain
            .watch()
            .spawn_service(async move { service.closing().await });
        drain.watch().spawn_session(async move {
            session.draining().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(done);
        });

        drain
            .run(Duration::from_secs(30), Duration::from_secs(1))
            .await;

        assert!(ended.await.is_err(), "the session ran to its own end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_does_not_end_is_closed_at_the_limit() {
        let drain = Drain::default();
        let watch = drain.watch();
        drain
            .watch()
            .spawn_session(async move { watch.closing().await });
        let started = tokio::time::Instant::now();

        drain
            .run(Duration::from_secs(30), Duration::from_secs(1))
            .await;

        assert_eq!(started.elapsed(), Duration::from_secs(30));
    }
}
