//! The audit log: one line of JSON for each thing that somebody did or was refused.
//!
//! Api and proxy tell of it ([`Audit::note`]), app says where it goes. To tell never waits: events
//! are gathered, and a thread of its own writes them (`writer`) to a file or to the journal
//! (`sink`). What cannot be written is kept and tried again; what is more than fits is counted as
//! lost. An operator who would rather have no console than an unwritten one asks for that, and then
//! [`Audit::accepts`] says no. An event holds no token: there is no field that takes one.

mod event;
mod sink;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::Metrics;

pub use event::{Event, What};

use sink::Sink;
use writer::Writer;

/// Where events go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// Lines at the end of a file.
    File(PathBuf),
    /// Entries of systemd's journal, by its socket.
    Journal(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Journal(path) => write!(f, "the journal at {}", path.display()),
        }
    }
}

/// An audit log that runs, or none. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Running>>);

#[derive(Debug)]
struct Running {
    writer: Writer,
    required: bool,
}

impl Audit {
    /// Opens `place` and starts to write. If `required`, nothing may happen that cannot be written.
    /// Errors: it cannot be opened now, or there is no thread to be had.
    pub fn start(place: &Place, required: bool, metrics: &Metrics) -> io::Result<Self> {
        let sink = Sink::open(place)?;
        let writer = Writer::start(sink, metrics)?;
        Ok(Self(Some(Arc::new(Running { writer, required }))))
    }

    /// Has an event written, which is only made if there is a log for it. Never waits.
    pub fn note(&self, event: impl FnOnce() -> Event) {
        if let Some(running) = &self.0 {
            running.writer.push(&event());
        }
    }

    /// Whether something that has to be told may happen now.
    pub fn accepts(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|running| !running.required || running.writer.works())
    }

    /// Waits until all is written, at most for `limit`. Blocks.
    pub fn finish(&self, limit: Duration) {
        if let Some(running) = &self.0 {
            running.writer.finish(limit);
        }
    }
}

#[cfg(test)]
mod tests;
