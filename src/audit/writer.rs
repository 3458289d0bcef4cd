use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::event::{Event, What};
use super::sink::Sink;
use crate::telemetry::Metrics;

/// What may wait to be written, in bytes: some ten thousand events.
const LIMIT: usize = 4 << 20;

/// Lines written at a time.
const BATCH: usize = 256;

/// Between two attempts at what cannot be written.
const PAUSE: Duration = Duration::from_secs(1);

/// A line that waits for so long is as good as one that cannot be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// A queue of lines, and the thread that writes them.
#[derive(Debug)]
pub(super) struct Writer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<String>,
    bytes: usize,
    /// Not told yet.
    lost: u64,
    /// Since when the first of those that wait does.
    since: Option<Instant>,
    failing: bool,
}

impl State {
    fn push(&mut self, line: String) {
        self.bytes = self.bytes.saturating_add(line.len());
        let now = Instant::now;
        let _since = self.since.get_or_insert_with(now);
        self.waiting.push_back(line);
    }

    fn pop(&mut self, count: usize) {
        for line in self.waiting.drain(..count.min(self.waiting.len())) {
            self.bytes = self.bytes.saturating_sub(line.len());
        }
        self.since = (!self.waiting.is_empty()).then(Instant::now);
    }

    fn is_full(&self) -> bool {
        self.bytes >= LIMIT
    }
}

impl Writer {
    /// Starts the thread, which ends with the process.
    pub(super) fn start(mut sink: Sink, metrics: &Metrics) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            metrics: metrics.clone(),
        });
        let writing = Arc::clone(&shared);
        let _detached = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writing.write_all(&mut sink))?;
        Ok(Self(shared))
    }

    pub(super) fn push(&self, event: &Event) {
        let shared = &self.0;
        let line = line(event);
        let mut state = shared.lock();
        if state.is_full() {
            state.lost = state.lost.saturating_add(1);
            let _counted = shared.metrics.audit_lost.inc();
            return;
        }
        let _counted = shared.metrics.audit_events.inc();
        state.push(line);
        shared.changed.notify_all();
    }

    /// Whether what is told now will be written, as far as can be seen.
    pub(super) fn works(&self) -> bool {
        let state = self.0.lock();
        let late = state.since.is_some_and(|since| since.elapsed() > PATIENCE);
        !(state.failing || state.is_full() || late)
    }

    pub(super) fn finish(&self, limit: Duration) {
        let busy = |state: &mut State| !state.waiting.is_empty();
        let changed = &self.0.changed;
        let _last = changed.wait_timeout_while(self.0.lock(), limit, busy);
    }
}

impl Shared {
    /// Nobody panics under the lock; a poisoned one would still hold whole lines.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, sink: &mut Sink) {
        loop {
            let batch = self.next_batch();
            let (written, outcome) = sink.write(batch.iter());
            self.note(written, outcome);
        }
    }

    fn next_batch(&self) -> Vec<String> {
        let mut state = self.lock();
        if state.failing {
            // What comes meanwhile does not make the disk any larger.
            let pause = self.changed.wait_timeout_while(state, PAUSE, |_| true);
            state = pause.unwrap_or_else(PoisonError::into_inner).0;
        }
        while state.waiting.is_empty() {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.iter().take(BATCH).cloned().collect()
    }

    fn note(&self, written: usize, outcome: io::Result<()>) {
        let mut state = self.lock();
        state.pop(written);
        let failed = outcome.is_err();
        let before = std::mem::replace(&mut state.failing, failed);
        if !failed && state.lost > 0 {
            let mut regret = Event::new(What::Lost);
            regret.count = Some(std::mem::take(&mut state.lost));
            state.push(line(&regret));
        }
        drop(state);
        self.changed.notify_all();
        let _before = self.metrics.audit_failing.set(i64::from(failed));
        match outcome {
            Err(error) if !before => {
                tracing::error!(%error, "the audit log cannot be written; events wait");
            }
            Ok(()) if before => tracing::info!("the audit log is written again"),
            _ => {}
        }
    }
}

#[derive(serde::Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

/// One line of JSON.
fn line(event: &Event) -> String {
    let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    serde_json::to_string(&Line { time, event }).unwrap_or_default()
}
