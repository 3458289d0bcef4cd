//! Whether another host is worth asking just now.
//!
//! One that cannot be reached is not asked until the call that is held there has come through
//! again; one that was too slow is left alone for a while. Whoever asks meanwhile hears why at
//! once, so that a host that hangs costs nobody's time twice.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::compute::{HostNews, Told};

/// How long a host is left alone that took too long.
const REST: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Health {
    host: String,
    told: Told,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the call that is held there has come through, and nothing failed since.
    up: bool,
    /// Why it cannot be reached.
    down: Option<String>,
    /// Why it is left alone, and until when.
    resting: Option<(String, Instant)>,
}

impl Health {
    pub(super) fn new(host: &str, told: Told) -> Self {
        Self {
            host: host.to_owned(),
            told,
            state: Mutex::default(),
        }
    }

    /// Why it is not to be asked now.
    pub(super) fn why_not(&self) -> Option<String> {
        let state = self.lock();
        let now = Instant::now();
        let resting = state.resting.as_ref().filter(|(_, until)| now < *until);
        let resting = resting.map(|(why, _)| why);
        state.down.as_ref().or(resting).cloned()
    }

    /// Whether it is known to be there.
    pub(super) fn is_up(&self) -> bool {
        let up = self.lock().up;
        up && self.why_not().is_none()
    }

    /// It cannot be reached.
    pub(super) fn lost(&self, why: &str) {
        {
            let mut state = self.lock();
            (state.up, state.down) = (false, Some(why.to_owned()));
        }
        self.told.tell(&self.host, HostNews::Down);
    }

    /// It took too long.
    pub(super) fn was_late(&self, why: &str) {
        let until = Instant::now() + REST;
        self.lock().resting = Some((why.to_owned(), until));
    }

    /// The call that is held there came through.
    pub(super) fn reached(&self) {
        {
            let mut state = self.lock();
            (state.up, state.down) = (true, None);
        }
        self.told.tell(&self.host, HostNews::Up);
    }

    /// It answered a question.
    pub(super) fn answered(&self, took: Duration) {
        self.lock().resting = None;
        self.told.tell(&self.host, HostNews::Answered(took));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.told.tell(&self.host, HostNews::Gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_host_is_asked_again_after_a_while_and_a_lost_one_once_it_is_back() {
        let health = Health::new("kvm-1", Told::default());

        assert!(!health.is_up(), "nothing is known yet");
        health.reached();
        assert!(health.is_up());
        health.was_late("slow");
        assert!(!health.is_up());
        assert_eq!(health.why_not().as_deref(), Some("slow"));
        tokio::time::advance(REST).await;
        assert_eq!(health.why_not(), None);

        health.lost("gone");
        tokio::time::advance(REST * 10).await;
        assert_eq!(health.why_not().as_deref(), Some("gone"));
        assert!(!health.is_up());
        health.reached();
        assert_eq!(health.why_not(), None);
    }
}
