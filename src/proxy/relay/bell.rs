//! The two things a relay waits for besides its streams: a decision, and time.
//!
//! They are polled only after they rang, so that a read costs one look at a flag instead of a
//! lock on what all sessions share and a visit to the timer.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// A decision and a timer behind one bell.
pub(super) struct Rare<S> {
    stop: Option<S>,
    timer: Option<Pin<Box<Sleep>>>,
    timer_runs: bool,
    bell: Arc<Bell>,
    /// The task the bell wakes, to notice when it changes.
    task: Waker,
}

/// What rang.
pub(super) enum Ring<D> {
    Stop(D),
    Timer,
}

struct Bell {
    rang: AtomicBool,
    task: Mutex<Waker>,
}

impl<S: Future + Unpin> Rare<S> {
    pub(super) fn new(stop: S) -> Self {
        let bell = Arc::new(Bell {
            // Nothing has been polled yet, so nothing could ring.
            rang: AtomicBool::new(true),
            task: Mutex::new(Waker::noop().clone()),
        });
        Self {
            stop: Some(stop),
            timer: None,
            timer_runs: false,
            bell,
            task: Waker::noop().clone(),
        }
    }

    /// Lets the timer ring once, `delay` from now, instead of whenever it was to ring.
    pub(super) fn set_timer(&mut self, delay: Duration) {
        match &mut self.timer {
            Some(timer) => timer.set(sleep(delay)),
            None => self.timer = Some(Box::pin(sleep(delay))),
        }
        self.timer_runs = true;
        self.bell.rang.store(true, Ordering::Release);
    }

    /// What rang since the last time, one thing at a time. The task is woken for the next ring
    /// only after this was none.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Option<Ring<S::Output>> {
        if !self.task.will_wake(cx.waker()) {
            self.task.clone_from(cx.waker());
            self.bell.lock().clone_from(&self.task);
        }
        // The task is in place before the flag is read: a ring between the two is not lost.
        if !self.bell.rang.load(Ordering::Acquire) {
            return None;
        }
        self.bell.rang.swap(false, Ordering::AcqRel);
        let ring = self.poll_both();
        if ring.is_some() {
            self.bell.rang.store(true, Ordering::Release);
        }
        ring
    }

    fn poll_both(&mut self) -> Option<Ring<S::Output>> {
        let rope = Waker::from(Arc::clone(&self.bell));
        let mut cx = Context::from_waker(&rope);
        if let Some(stop) = &mut self.stop
            && let Poll::Ready(decision) = Pin::new(stop).poll(&mut cx)
        {
            self.stop = None;
            return Some(Ring::Stop(decision));
        }
        if self.timer_runs
            && let Some(timer) = &mut self.timer
            && timer.as_mut().poll(&mut cx).is_ready()
        {
            self.timer_runs = false;
            return Some(Ring::Timer);
        }
        None
    }
}

impl Bell {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        let task = self.lock().clone();
        task.wake();
    }
}
