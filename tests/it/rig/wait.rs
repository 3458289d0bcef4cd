//! Waiting for the thing itself, never for a time to pass. Every wait has an end.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what must come: far beyond a busy machine's need.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long for a program of Python's, which imports for a second and more before it does a thing.
pub(crate) const LONG_PATIENCE: Duration = Duration::from_mins(3);

/// Between two looks at something that cannot announce itself (a file, a page, an exit code).
const STEP: Duration = Duration::from_millis(10);

/// Looks until `probe` finds something, at most for [`PATIENCE`].
#[track_caller]
pub(crate) fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// Looks until `probe` finds something, at most for `limit`.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain for {what}"
        );
        thread::park_timeout(STEP);
    }
}

/// Waits until `value` has been the same for `calm`, and returns it.
#[track_caller]
pub(crate) fn until_settled<T: PartialEq + Copy>(
    what: &str,
    calm: Duration,
    mut value: impl FnMut() -> T,
) -> T {
    let mut last = value();
    let mut since = Instant::now();
    until(what, || {
        let now = value();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() >= calm).then_some(now)
    })
}
