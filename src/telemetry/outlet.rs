//! A writer that never waits: lines are gathered, and a thread of its own writes them.
//!
//! A log's reader may stop (a terminal's Ctrl-S, a stuck collector). Written by the tasks
//! themselves, the first line that does not fit into its pipe would stop a thread of the runtime
//! and with it live consoles. Here lines are dropped and counted instead.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// What may wait to be written, in bytes: some ten thousand lines.
const LIMIT: usize = 4 << 20;

/// How long lines gather after some were written: in a rush, one write and one waking of the thread
/// do for many.
const GATHER: Duration = Duration::from_millis(5);

/// Where lines go. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Outlet(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Rung for the thread where it sleeps.
    lines: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    lost: u64,
    writing: bool,
    asleep: bool,
}

impl Outlet {
    /// Starts the thread, which ends with the process. `regret` is the line for so many lost ones.
    pub(super) fn start(
        mut to: impl Write + Send + 'static,
        regret: fn(u64) -> String,
    ) -> io::Result<Self> {
        let outlet = Self::default();
        let shared = Arc::clone(&outlet.0);
        let _detached = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || shared.write_all(&mut to, regret))?;
        Ok(outlet)
    }

    /// Waits until all is written, at most for `limit`.
    pub(super) fn finish(&self, limit: Duration) {
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        let written = &self.0.written;
        let _last = written.wait_timeout_while(self.0.lock(), limit, busy);
    }
}

impl Shared {
    /// Nobody panics under the lock; a poisoned one would still hold whole lines.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, to: &mut impl Write, regret: fn(u64) -> String) {
        let mut state = self.lock();
        loop {
            while state.waiting.is_empty() {
                state.asleep = true;
                let woken = self.lines.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
            state.asleep = false;
            let mut lines = mem::take(&mut state.waiting);
            let lost = mem::take(&mut state.lost);
            state.writing = true;
            drop(state);
            if lost > 0 {
                lines.extend(regret(lost).into_bytes());
            }
            // There is nowhere to say that a log cannot be written.
            let _unread = to.write_all(&lines).and_then(|()| to.flush()).is_err();
            self.lock().writing = false;
            self.written.notify_all();
            thread::park_timeout(GATHER);
            state = self.lock();
        }
    }
}

/// One event is one write.
impl Write for &Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.waiting.len().saturating_add(line.len()) > LIMIT {
            state.lost = state.lost.saturating_add(1);
        } else {
            state.waiting.extend_from_slice(line);
            if mem::take(&mut state.asleep) {
                self.0.lines.notify_one();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Outlet {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn regret(lost: u64) -> String {
        format!("lost {lost}\n")
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let outlet = Outlet::start(theirs, regret).unwrap();

        (&outlet).write_all(b"one\n").unwrap();
        (&outlet).write_all(b"two\n").unwrap();
        outlet.finish(Duration::from_secs(30));

        let mut got = [0; 8];
        io::Read::read_exact(&mut &ours, &mut got).unwrap();
        assert_eq!(&got, b"one\ntwo\n");
    }

    #[test]
    fn a_rush_of_lines_is_a_few_writes() {
        struct Counted(std::sync::mpsc::Sender<usize>);
        impl Write for Counted {
            fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
                self.0.send(lines.len()).map_err(io::Error::other)?;
                Ok(lines.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, writes) = std::sync::mpsc::channel();
        let outlet = Outlet::start(Counted(sender), regret).unwrap();

        for _ in 0..10_000 {
            (&outlet).write_all(b"a line\n").unwrap();
        }
        outlet.finish(Duration::from_secs(30));

        let writes: Vec<usize> = writes.try_iter().collect();
        assert_eq!(writes.iter().sum::<usize>(), 70_000);
        assert!(writes.len() < 1000, "{} writes", writes.len());
    }

    #[test]
    fn a_reader_that_stops_holds_up_nobody_and_is_told_what_it_missed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let outlet = Outlet::start(theirs, regret).unwrap();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();

        for _ in 0..3 * LIMIT / line.len() {
            (&outlet).write_all(&line).unwrap();
        }
        outlet.finish(Duration::from_millis(1));

        let mut lines = io::BufRead::lines(io::BufReader::new(ours));
        let told = lines.find_map(|line| line.unwrap().strip_prefix("lost ").map(str::to_owned));
        assert!(told.unwrap().parse::<u64>().unwrap() > 0);
    }
}
