use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Whole seconds since 1970-01-01 UTC; what expiry is decided by.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The machine's wall clock; a clock before 1970 reads as 0.
    pub fn now() -> Self {
        Self(
            SystemTime::UNIX_EPOCH
                .elapsed()
                .map_or(0, |elapsed| elapsed.as_secs()),
        )
    }

    /// This time plus `duration`, fractions of a second dropped.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// How long from `now` until this time; zero if it has passed.
    pub fn after(self, now: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(now.0))
    }
}

/// RFC 3339 in UTC, to the second: `2026-11-23T08:16:25Z`.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.min(MAX_SECONDS));
        write!(f, "{}", humantime::format_rfc3339_seconds(time))
    }
}

/// 9999-12-31T23:59:59Z, the last second RFC 3339 can write.
const MAX_SECONDS: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_rfc_3339_even_at_the_end_of_time() {
        assert_eq!(UnixTime(1_795_421_785).to_string(), "2026-11-23T08:16:25Z");
        assert_eq!(UnixTime(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }
}
