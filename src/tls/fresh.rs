//! What is made of files, and made anew when they change.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long an answer about the files is good for: a call must not cost a look at a disk.
const PAUSE: Duration = Duration::from_secs(1);

/// A value made of files. When they change and cannot be used any more, the last good one stays.
#[derive(Debug)]
pub struct Fresh<T> {
    paths: Vec<PathBuf>,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    stamp: Vec<Option<Stamp>>,
    looked: Instant,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Eq, PartialEq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

impl<T: Clone> Fresh<T> {
    /// Makes the first value. Blocks. Errors: those of `make`.
    pub fn new<E>(paths: Vec<PathBuf>, make: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        // Before they are read, so that a change in between shows at the next look.
        let stamp = stamps(&paths);
        let state = State {
            value: make()?,
            stamp,
            looked: Instant::now(),
        };
        Ok(Self {
            paths,
            state: Mutex::new(state),
        })
    }

    /// The value, made anew with `make` if the files have changed. Looks at most once a second.
    pub fn get<E: std::fmt::Display>(&self, make: impl FnOnce() -> Result<T, E>) -> T {
        let mut state = self.lock();
        if state.looked.elapsed() < PAUSE {
            return state.value.clone();
        }
        state.looked = Instant::now();
        let stamp = stamps(&self.paths);
        if stamp != state.stamp {
            state.stamp = stamp;
            match make() {
                Ok(value) => {
                    tracing::info!(files = self.names(), "read anew, because they changed");
                    state.value = value;
                }
                Err(error) => {
                    let files = self.names();
                    tracing::warn!(files, %error, "changed and of no use; what they held goes on");
                }
            }
        }
        state.value.clone()
    }

    fn names(&self) -> String {
        let names = self.paths.iter().map(|path| path.display().to_string());
        names.collect::<Vec<_>>().join(", ")
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found: Metadata = path.metadata().ok()?;
    Some(Stamp {
        inode: (found.dev(), found.ino()),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(path: &Path) -> Result<u32, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        text.parse().map_err(|_| format!("`{text}` is no number"))
    }

    #[test]
    fn a_change_counts_and_a_bad_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        fs::write(&path, "1").unwrap();
        let fresh = Fresh::new(vec![path.clone()], || read(&path)).unwrap();
        let after = |text: &str| {
            fs::write(&path, text).unwrap();
            fresh.lock().looked -= PAUSE;
            fresh.get(|| read(&path))
        };

        assert_eq!(after("20"), 20);
        assert_eq!(after("three"), 20);
        assert_eq!(after("4000"), 4000);
    }

    #[test]
    fn the_first_must_be_good() {
        let nowhere = Path::new("/nonexistent/number");
        assert!(Fresh::new(vec![nowhere.to_owned()], || read(nowhere)).is_err());
    }
}
