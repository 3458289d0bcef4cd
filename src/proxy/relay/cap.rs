//! Bandwidth caps: how many bytes may pass in a second, in each direction.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// So many times a second a full bucket could be emptied: what passes at once after a pause.
const PORTIONS: u64 = 8;

/// A bucket that fills with time, for each direction. Shared by all sessions that it caps.
#[derive(Debug)]
pub struct Cap {
    per_second: u64,
    up: Mutex<Bucket>,
    down: Mutex<Bucket>,
}

/// A direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// Viewer to target.
    Up,
    /// Target to viewer.
    Down,
}

#[derive(Debug)]
struct Bucket {
    bytes: u64,
    filled: Instant,
}

impl Cap {
    /// So many bytes a second each way; bursts after a pause may have an eighth of that.
    pub fn new(bytes_per_second: NonZeroU64) -> Self {
        let per_second = bytes_per_second.get();
        let full = || {
            Mutex::new(Bucket {
                bytes: portion(per_second),
                filled: Instant::now(),
            })
        };
        Self {
            per_second,
            up: full(),
            down: full(),
        }
    }

    /// Takes up to `want` bytes, or tells how long to wait for a part worth moving.
    fn take(&self, way: Way, want: usize) -> Result<usize, Duration> {
        let mut bucket = self.bucket(way);
        self.fill(&mut bucket);
        let want = u64::try_from(want).unwrap_or(u64::MAX);
        // A fourth of a portion: 32 moves a second at most, none of them tiny.
        let worth = want.min(portion(self.per_second).div_ceil(4));
        if bucket.bytes < worth {
            let missing = worth.saturating_sub(bucket.bytes);
            return Err(self.time_for(missing));
        }
        let taken = want.min(bucket.bytes);
        bucket.bytes = bucket.bytes.saturating_sub(taken);
        Ok(usize::try_from(taken).unwrap_or(usize::MAX))
    }

    fn give_back(&self, way: Way, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut bucket = self.bucket(way);
        let most = portion(self.per_second);
        bucket.bytes = bucket.bytes.saturating_add(bytes).min(most);
    }

    /// Adds what the time since the last call is worth. The rest of a byte's time is kept.
    fn fill(&self, bucket: &mut Bucket) {
        let now = Instant::now();
        let since = now.saturating_duration_since(bucket.filled).as_nanos();
        let earned = since.saturating_mul(self.per_second.into()) / SECOND;
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        if earned > 0 {
            let most = portion(self.per_second);
            bucket.bytes = bucket.bytes.saturating_add(earned).min(most);
            bucket.filled = bucket
                .filled
                .checked_add(self.time_for(earned))
                .map_or(now, |filled| filled.min(now));
        }
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes)
            .saturating_mul(SECOND)
            .div_ceil(self.per_second.into());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn bucket(&self, way: Way) -> std::sync::MutexGuard<'_, Bucket> {
        let bucket = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SECOND: u128 = 1_000_000_000;

fn portion(per_second: u64) -> u64 {
    per_second.div_ceil(PORTIONS)
}

/// The caps of one session, and its waits for them.
pub(super) struct Throttle {
    caps: Vec<Arc<Cap>>,
    up: Option<Pin<Box<Sleep>>>,
    down: Option<Pin<Box<Sleep>>>,
}

impl Throttle {
    /// None if there are no caps, so that a session without any pays nothing.
    pub(super) fn new(caps: Vec<Arc<Cap>>) -> Option<Box<Self>> {
        let some = !caps.is_empty();
        some.then(|| {
            Box::new(Self {
                caps,
                up: None,
                down: None,
            })
        })
    }

    /// How much of `want` may be moved now; what is not is to be given back.
    pub(super) fn poll_grant(
        &mut self,
        way: Way,
        want: usize,
        cx: &mut Context<'_>,
    ) -> Poll<usize> {
        loop {
            let pause = match way {
                Way::Up => &mut self.up,
                Way::Down => &mut self.down,
            };
            if let Some(waiting) = pause
                && waiting.as_mut().poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            *pause = None;
            match take_of_all(&self.caps, way, want) {
                Ok(granted) => return Poll::Ready(granted),
                Err(rest) => *pause = Some(Box::pin(sleep(rest))),
            }
        }
    }

    pub(super) fn give_back(&self, way: Way, bytes: usize) {
        for cap in &self.caps {
            cap.give_back(way, bytes);
        }
    }
}

/// What the tightest cap grants, taken of each.
fn take_of_all(caps: &[Arc<Cap>], way: Way, want: usize) -> Result<usize, Duration> {
    let mut granted = want;
    for (before, cap) in caps.iter().enumerate() {
        let taken = cap.take(way, granted);
        let less = taken.unwrap_or(0);
        for cap in caps.iter().take(before) {
            cap.give_back(way, granted.saturating_sub(less));
        }
        granted = taken?;
    }
    Ok(granted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cap(per_second: u64) -> Arc<Cap> {
        Arc::new(Cap::new(NonZeroU64::new(per_second).unwrap()))
    }

    /// What passes in so many seconds if as much as possible is taken all the time.
    async fn passed(caps: &[Arc<Cap>], seconds: u64) -> usize {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut throttle = Throttle::new(caps.to_vec()).unwrap();
        let mut sum = 0;
        while Instant::now() < end {
            sum += std::future::poll_fn(|cx| throttle.poll_grant(Way::Down, 100_000, cx)).await;
        }
        sum
    }

    #[tokio::test(start_paused = true)]
    async fn in_the_long_run_the_rate_is_kept_whatever_it_is() {
        for rate in [1, 7, 1000, 1_000_003, 1 << 30] {
            let sum = u64::try_from(passed(&[cap(rate)], 10).await).unwrap();

            let (least, most) = (rate * 10 - rate / 10, rate * 10 + rate / 4 + 100_001);
            assert!((least..=most).contains(&sum), "{sum} at {rate}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_tightest_cap_counts_and_the_others_are_charged_what_passed() {
        let (wide, tight) = (cap(1_000_000), cap(1000));

        let sum = passed(&[Arc::clone(&wide), tight], 10).await;

        assert!((9_900..=10_300).contains(&sum), "{sum}");
        let left = wide.take(Way::Down, 1_000_000).unwrap();
        assert!(left > 124_000, "it is as good as full: {left}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_direction_does_not_use_up_the_other() {
        let cap = cap(8000);

        assert_eq!(cap.take(Way::Down, 10_000), Ok(1000));
        assert!(cap.take(Way::Down, 10_000).is_err());
        assert_eq!(cap.take(Way::Up, 10_000), Ok(1000));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_is_not_lost_and_no_more_than_a_portion_gathers() {
        let cap = cap(8000);
        assert_eq!(cap.take(Way::Up, 600), Ok(600));

        cap.give_back(Way::Up, 500);
        sleep(Duration::from_hours(1)).await;

        assert_eq!(cap.take(Way::Up, usize::MAX), Ok(1000));
    }
}
