use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{Identity, NotValid, Verdict};
use crate::model::UnixTime;

/// Tokens that are known to be good, at one time.
const KNOWN: usize = 4096;

/// Tokens that are known to be none. Kept apart from the good ones, so that a flood of guesses
/// pushes out none of those.
const UNKNOWN: usize = 1024;

/// How long "no such token" is kept at most: a token may reach one Keystone of several late.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// A token's SHA-256.
pub(super) type Key = [u8; 32];

/// The key of a token.
pub(super) fn key(token: &str) -> Key {
    Sha256::digest(token.as_bytes()).into()
}

/// What Keystone said of tokens, for a while.
#[derive(Debug)]
pub(super) struct Cache {
    keep: Duration,
    known: Shelf<Arc<Identity>>,
    unknown: Shelf<()>,
}

impl Cache {
    /// One that keeps a verdict for `keep`; zero keeps nothing.
    pub(super) fn new(keep: Duration) -> Self {
        Self {
            keep,
            known: Shelf::new(KNOWN),
            unknown: Shelf::new(UNKNOWN),
        }
    }

    /// A verdict that still counts: not past its time, and never past the token's own.
    pub(super) fn get(&self, key: &Key, now: UnixTime) -> Option<Verdict> {
        if let Some(identity) = self.known.get(key) {
            return (identity.expires > now).then_some(Ok(identity));
        }
        self.unknown.get(key).map(|()| Err(NotValid::Unknown))
    }

    /// Keeps a verdict; what is none is not kept.
    pub(super) fn put(&self, key: Key, verdict: &Verdict, now: UnixTime) {
        if self.keep.is_zero() {
            return;
        }
        match verdict {
            Ok(identity) => {
                let keep = self.keep.min(identity.expires.after(now));
                self.known.put(key, Arc::clone(identity), keep);
            }
            Err(NotValid::Unknown) => {
                self.known.forget(&key);
                self.unknown.put(key, (), self.keep.min(UNKNOWN_FOR));
            }
            Err(NotValid::Unavailable(_)) => {}
        }
    }
}

/// A bounded map whose items have an end each.
#[derive(Debug)]
struct Shelf<T> {
    items: Mutex<HashMap<Key, (Instant, T)>>,
    most: usize,
}

impl<T: Clone> Shelf<T> {
    fn new(most: usize) -> Self {
        Self {
            items: Mutex::default(),
            most,
        }
    }

    fn get(&self, key: &Key) -> Option<T> {
        let items = self.lock();
        let (end, item) = items.get(key)?;
        (*end > Instant::now()).then(|| item.clone())
    }

    /// When full, the dead go first, else what would have gone next.
    fn put(&self, key: Key, item: T, keep: Duration) {
        let now = Instant::now();
        let mut items = self.lock();
        if items.len() >= self.most && !items.contains_key(&key) {
            items.retain(|_, (end, _)| *end > now);
        }
        if items.len() >= self.most && !items.contains_key(&key) {
            let next = items.iter().min_by_key(|(_, (end, _))| *end);
            if let Some(next) = next.map(|(key, _)| *key) {
                drop(items.remove(&next));
            }
        }
        drop(items.insert(key, (now + keep, item)));
    }

    fn forget(&self, key: &Key) {
        drop(self.lock().remove(key));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Instant, T)>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::super::{Named, Scope, Unavailable};
    use super::*;

    const NOW: UnixTime = UnixTime(1000);
    const MINUTE: Duration = Duration::from_mins(1);

    fn until(expires: u64) -> Arc<Identity> {
        let named = Named {
            id: "n".to_owned(),
            name: "n".to_owned(),
        };
        Arc::new(Identity {
            user: named.clone(),
            user_domain: named,
            scope: Scope::Nowhere,
            roles: Vec::new(),
            expires: UnixTime(expires),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_is_kept_for_its_time_and_no_longer() {
        let cache = Cache::new(MINUTE);
        cache.put(key("good"), &Ok(until(5000)), NOW);
        cache.put(key("bad"), &Err(NotValid::Unknown), NOW);

        advance(UNKNOWN_FOR.saturating_sub(Duration::from_secs(1))).await;
        assert_eq!(cache.get(&key("bad"), NOW), Some(Err(NotValid::Unknown)));
        advance(Duration::from_secs(1)).await;
        assert_eq!(cache.get(&key("bad"), NOW), None);
        assert_eq!(cache.get(&key("good"), NOW), Some(Ok(until(5000))));
        advance(MINUTE).await;
        assert_eq!(cache.get(&key("good"), NOW), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_token_outlives_its_own_end() {
        let cache = Cache::new(MINUTE);
        cache.put(key("t"), &Ok(until(1010)), NOW);

        assert_eq!(cache.get(&key("t"), UnixTime(1009)), Some(Ok(until(1010))));
        assert_eq!(cache.get(&key("t"), UnixTime(1010)), None);
        advance(Duration::from_secs(10)).await;
        assert_eq!(
            cache.get(&key("t"), NOW),
            None,
            "whatever the wall clock says"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_keystone_could_not_say_is_not_kept_and_a_revocation_is() {
        let cache = Cache::new(MINUTE);
        let unavailable = Err(Unavailable("down".to_owned()).into());

        cache.put(key("t"), &unavailable, NOW);
        assert_eq!(cache.get(&key("t"), NOW), None);
        cache.put(key("t"), &Ok(until(5000)), NOW);
        cache.put(key("t"), &Err(NotValid::Unknown), NOW);
        assert_eq!(cache.get(&key("t"), NOW), Some(Err(NotValid::Unknown)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_guesses_pushes_out_no_good_token_and_takes_no_more_room() {
        let cache = Cache::new(MINUTE);
        cache.put(key("good"), &Ok(until(5000)), NOW);

        for guess in 0..3 * UNKNOWN {
            cache.put(key(&guess.to_string()), &Err(NotValid::Unknown), NOW);
        }

        assert_eq!(cache.get(&key("good"), NOW), Some(Ok(until(5000))));
        assert_eq!(cache.unknown.lock().len(), UNKNOWN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_shelf_gives_up_what_would_go_next() {
        let shelf = Shelf::new(2);
        shelf.put(key("a"), 'a', MINUTE);
        shelf.put(key("b"), 'b', MINUTE / 2);
        shelf.put(key("c"), 'c', MINUTE);

        let kept = ["a", "b", "c"].map(|name| shelf.get(&key(name)));
        assert_eq!(kept, [Some('a'), None, Some('c')]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_time_nothing_is_kept() {
        let cache = Cache::new(Duration::ZERO);
        cache.put(key("t"), &Ok(until(5000)), NOW);
        assert_eq!(cache.get(&key("t"), NOW), None);
    }
}
