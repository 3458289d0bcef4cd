//! What is known of a session while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The payload of one session so far. Counted by its relay once per read, read by anyone.
#[derive(Debug)]
pub struct Meter {
    up: AtomicU64,
    down: AtomicU64,
    began: Instant,
    /// When the viewer last did something, in milliseconds after `began`.
    input_ms: AtomicU64,
    is_input: fn(&[u8]) -> bool,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new(|_| true)
    }
}

impl Meter {
    /// A meter to which only what `is_input` says counts as the viewer's doing.
    pub fn new(is_input: fn(&[u8]) -> bool) -> Self {
        Self {
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            began: Instant::now(),
            input_ms: AtomicU64::new(0),
            is_input,
        }
    }

    /// Payload bytes read from the viewer for the target.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Bytes read from the target for the viewer.
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    /// When the meter was made.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// When the viewer last sent input, to the millisecond; if never, when the meter was made.
    pub fn last_input(&self) -> Instant {
        let after = Duration::from_millis(self.input_ms.load(Ordering::Relaxed));
        self.began.checked_add(after).unwrap_or(self.began)
    }

    pub(super) fn count_up(&self, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        add(&self.up, payload.len());
        if (self.is_input)(payload) {
            let after = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.input_ms.store(after, Ordering::Relaxed);
        }
    }

    pub(super) fn count_down(&self, bytes: usize) {
        add(&self.down, bytes);
    }
}

/// A load and a store: a meter has one writer, which saves the locked instruction.
fn add(counter: &AtomicU64, bytes: usize) {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let sum = counter.load(Ordering::Relaxed).saturating_add(bytes);
    counter.store(sum, Ordering::Relaxed);
}
