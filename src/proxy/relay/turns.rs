//! Whose turn it is on a thread: small moves at once, bulk in slots, one after the other.
//!
//! A direction whose last move was small is served as soon as its socket is ready. One that moves
//! more stands in line for a slot. [`serve_turns`] gives out one slot, lets the runtime look at all
//! sockets and serve what is small, then gives out the next. So a keystroke waits for one slot at
//! most, however many sessions stream; and a stream moves a whole slot at once, however many
//! others do, which wakes its peers seldom. On a thread where nobody gives out slots a stream lets
//! all others go first after each.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use tokio::task::yield_now;

/// A move up to here is small: longer than any keystroke, and than what a desktop at rest sends.
pub(super) const SMALL: usize = 16 << 10;

/// So many slots without a small move between them, and slots become longer: nobody waits. That is
/// a thirtieth of a second of streaming.
const QUIET: u32 = 256;

/// How many times longer.
const LONGER: usize = 4;

thread_local! {
    static LINE: Line = const { Line::new() };
}

/// The streams of a thread that stand in line.
struct Line {
    waiting: RefCell<VecDeque<Waker>>,
    /// Whoever stands in line has a number above this.
    called: Cell<u64>,
    /// Slots given out since something small was moved.
    quiet: Cell<u32>,
    served: Cell<bool>,
    /// The task that gives out slots, while nobody stands in line.
    server: Cell<Option<Waker>>,
}

/// A session's place in the line of its thread. Bounded: a session has one at most.
#[derive(Debug, Default)]
pub(super) struct Place(Option<u64>);

/// Gives out slots to the streams of this thread, until it is dropped. For a runtime of one thread;
/// there can be one on a thread.
pub(super) async fn serve_turns() -> Infallible {
    let _open = Counter::open();
    loop {
        poll_fn(|cx| LINE.with(|line| line.poll_somebody(cx))).await;
        // This comes back after the sockets were looked at and all that are ready had their turn.
        yield_now().await;
        LINE.with(Line::call);
    }
}

impl Place {
    /// How much this session's streams may move now, a slot being `slot` bytes: none while it
    /// stands in line, or if it does not.
    pub(super) fn slot(&mut self, slot: usize) -> Option<usize> {
        LINE.with(|line| {
            if !line.served.get() {
                self.0 = None;
                return Some(slot);
            }
            self.0.take_if(|number| *number <= line.called.get())?;
            let longer = line.quiet.get() >= QUIET;
            Some(if longer {
                slot.saturating_mul(LONGER)
            } else {
                slot
            })
        })
    }

    /// Puts the session in line, if it is not; `false` where nobody gives out slots.
    pub(super) fn stand_in_line(&mut self, cx: &Context<'_>) -> bool {
        LINE.with(|line| {
            if line.served.get() && self.0.is_none() {
                self.0 = Some(line.join(cx.waker().clone()));
            }
            line.served.get()
        })
    }
}

/// Notes that something small was moved on this thread.
pub(super) fn note_small() {
    LINE.with(|line| line.quiet.set(0));
}

impl Line {
    const fn new() -> Self {
        Self {
            waiting: RefCell::new(VecDeque::new()),
            called: Cell::new(0),
            quiet: Cell::new(0),
            served: Cell::new(false),
            server: Cell::new(None),
        }
    }

    fn join(&self, stream: Waker) -> u64 {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(stream);
        if let Some(server) = self.server.take() {
            server.wake();
        }
        let length = u64::try_from(waiting.len()).unwrap_or(u64::MAX);
        self.called.get().saturating_add(length)
    }

    fn poll_somebody(&self, cx: &Context<'_>) -> Poll<()> {
        if self.waiting.borrow().is_empty() {
            self.server.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Calls the first in line. If it has ended meanwhile, nobody comes, and the next is called soon.
    fn call(&self) {
        let first = self.waiting.borrow_mut().pop_front();
        if let Some(stream) = first {
            self.called.set(self.called.get().saturating_add(1));
            self.quiet.set(self.quiet.get().saturating_add(1));
            stream.wake();
        }
    }
}

/// The place where slots are given out, as long as it is open.
struct Counter;

impl Counter {
    fn open() -> Self {
        LINE.with(|line| line.served.set(true));
        Self
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // At the thread's end the line may be gone already, and all who stood in it.
        let _gone = LINE.try_with(|line| {
            line.served.set(false);
            line.server.take();
            for stream in line.waiting.take() {
                stream.wake();
            }
        });
    }
}
