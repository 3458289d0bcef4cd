//! What happened lately, for those who ask again and again.
//!
//! A long poll: who asks names how far it has read, and hears what came after, at once if there
//! is something and else as soon as there is. Works near and far alike, because it is nothing but
//! a call that takes its time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

/// How many items are kept for those who come late.
const KEPT: usize = 1024;

/// How long a call is held that has nothing to tell: shorter than [`super::DEADLINE`].
pub const HOLD: Duration = Duration::from_secs(8);

/// Items in the order in which they were told.
#[derive(Debug)]
pub struct Feed<T> {
    /// Which life of the process this is: numbers of another one mean nothing.
    epoch: u64,
    kept: Mutex<VecDeque<T>>,
    /// How many items were ever told.
    told: watch::Sender<u64>,
}

/// How far somebody has read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    epoch: u64,
    read: u64,
}

/// What came after a cursor.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct News<T> {
    /// The items, oldest first.
    pub items: Vec<T>,
    /// Where to go on.
    pub cursor: Cursor,
    /// Whether items may have been missed, so that all there is should be looked at.
    pub missed: bool,
}

impl<T> Default for Feed<T> {
    fn default() -> Self {
        Self {
            epoch: Uuid::new_v4().as_u64_pair().0,
            kept: Mutex::default(),
            told: watch::Sender::new(0),
        }
    }
}

impl<T: Clone> Feed<T> {
    /// Tells everybody who asks from now on, and who waits.
    pub fn tell(&self, item: T) {
        let mut kept = self.lock();
        if kept.len() == KEPT {
            let _oldest = kept.pop_front();
        }
        kept.push_back(item);
        self.told.send_modify(|told| *told = told.saturating_add(1));
    }

    /// Makes everybody look at all there is: what was told elsewhere may not have come here.
    pub fn disturb(&self) {
        let mut kept = self.lock();
        kept.clear();
        self.told.send_modify(|told| *told = told.saturating_add(1));
    }

    /// What came after `cursor`; waits up to `hold` while that is nothing. Without a cursor, where
    /// to begin, at once. Cancel-safe.
    pub async fn after(&self, cursor: Option<Cursor>, hold: Duration) -> News<T> {
        let Some(cursor) = cursor else {
            return self.since(u64::MAX, false);
        };
        if cursor.epoch != self.epoch {
            return self.since(u64::MAX, true);
        }
        let mut told = self.told.subscribe();
        let more = told.wait_for(|told| *told > cursor.read);
        let _in_time = timeout(hold, more).await.is_ok();
        self.since(cursor.read, false)
    }

    fn since(&self, read: u64, missed: bool) -> News<T> {
        let kept = self.lock();
        let told = *self.told.borrow();
        let new = told.saturating_sub(read);
        let here = u64::try_from(kept.len()).unwrap_or(u64::MAX);
        let known = usize::try_from(here.saturating_sub(new)).unwrap_or(usize::MAX);
        News {
            items: kept.iter().skip(known).cloned().collect(),
            cursor: Cursor {
                epoch: self.epoch,
                read: told,
            },
            missed: missed || new > here,
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_at_once_and_who_comes_late_hears_all() {
        let feed = Arc::new(Feed::default());
        let start = feed.after(None, HOLD).await;
        assert_eq!(start.items, Vec::<u8>::new());

        let waiting = {
            let feed = Arc::clone(&feed);
            tokio::spawn(async move { feed.after(Some(start.cursor), HOLD).await })
        };
        tokio::task::yield_now().await;
        feed.tell(1);
        let heard = waiting.await.unwrap();
        feed.tell(2);
        feed.tell(3);

        assert_eq!((heard.items, heard.missed), (vec![1], false));
        let late = feed.after(Some(start.cursor), HOLD).await;
        assert_eq!((late.items, late.missed), (vec![1, 2, 3], false));
        let next = feed.after(Some(heard.cursor), HOLD).await;
        assert_eq!(next.items, vec![2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_feed_lets_go_after_its_time() {
        let feed = Feed::<u8>::default();
        let start = feed.after(None, HOLD).await;
        let asked = tokio::time::Instant::now();

        let quiet = feed.after(Some(start.cursor), HOLD).await;

        assert_eq!((quiet.items.len(), quiet.missed), (0, false));
        assert_eq!(asked.elapsed(), HOLD);
    }

    #[tokio::test]
    async fn what_was_missed_is_said_to_be() {
        let feed = Feed::default();
        let start = feed.after(None, HOLD).await;
        for item in 0..=KEPT {
            feed.tell(item);
        }

        let late = feed.after(Some(start.cursor), HOLD).await;
        let other_life = Feed::default().after(Some(late.cursor), HOLD).await;
        feed.disturb();
        let disturbed = feed.after(Some(late.cursor), HOLD).await;

        assert_eq!((late.items.len(), late.missed), (KEPT, true));
        let News { items, missed, .. } = other_life;
        assert_eq!((items, missed), (Vec::<usize>::new(), true));
        assert!(disturbed.missed);
    }
}
