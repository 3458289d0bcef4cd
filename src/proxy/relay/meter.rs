//! Counts payload while a session runs.

use std::sync::atomic::{AtomicU64, Ordering};

/// The payload of one session so far. Counted by its relay, read by anyone.
#[derive(Debug, Default)]
pub struct Meter {
    up: AtomicU64,
    down: AtomicU64,
}

impl Meter {
    /// Payload bytes read from the viewer for the target.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Bytes read from the target for the viewer.
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    /// A number that changes when the viewer does something.
    pub fn inputs(&self) -> u64 {
        self.up()
    }

    pub(super) fn count_up(&self, bytes: usize) {
        add(&self.up, bytes);
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
