use serde::{Deserialize, Serialize};

use super::Attempt;
use crate::model::{Browser, UnixTime};

/// Which browser a single-use token belongs to, once it was used.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(in crate::auth) struct Claim {
    browser: Browser,
    /// Whether a session ever came of it.
    opened: bool,
    /// When its last session ended; none while one lives, or is about to.
    left: Option<UnixTime>,
}

impl Claim {
    /// Makes the token a browser's own, or lets that come back: while its session lives, or within
    /// the window of its end. Whether that may be.
    pub(in crate::auth) fn take(
        claim: &mut Option<Self>,
        attempt: &Attempt,
        now: UnixTime,
    ) -> bool {
        let Some(known) = claim else {
            *claim = Some(Self {
                browser: attempt.browser,
                opened: false,
                left: None,
            });
            return true;
        };
        let in_time = |left: UnixTime| left.plus(attempt.window) >= now;
        let may_return = attempt.lives || known.left.is_none_or(in_time);
        let welcome = known.browser == attempt.browser && may_return;
        if welcome {
            known.left = None;
        }
        welcome
    }

    /// The same after the process that kept it has ended: who had a session has it no more.
    pub(in crate::auth) fn interrupted(self, now: UnixTime) -> Self {
        Self {
            left: Some(self.left.unwrap_or(now)),
            opened: true,
            ..self
        }
    }

    /// A session has ended, or never came about: then the token is as good as new.
    pub(in crate::auth) fn leave(claim: &mut Option<Self>, opened: bool, now: UnixTime) {
        let Some(known) = claim else {
            return;
        };
        known.opened |= opened;
        known.left = Some(now);
        if !known.opened {
            *claim = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    fn take(claim: &mut Option<Claim>, name: &str, now: u64) -> bool {
        let attempt = Attempt {
            browser: Browser::new(None, name.as_bytes()),
            lives: false,
            window: WINDOW,
        };
        Claim::take(claim, &attempt, UnixTime(now))
    }

    #[test]
    fn the_first_browser_may_come_back_in_time_and_no_other_ever() {
        let mut claim = None;
        assert!(take(&mut claim, "a", 100));
        assert!(!take(&mut claim, "b", 100));

        Claim::leave(&mut claim, true, UnixTime(200));

        assert!(!take(&mut claim, "b", 201));
        assert!(take(&mut claim.clone(), "a", 230));
        assert!(!take(&mut claim, "a", 231));
    }

    #[test]
    fn a_token_whose_session_never_came_about_is_as_good_as_new() {
        let mut claim = None;
        assert!(take(&mut claim, "a", 100));

        Claim::leave(&mut claim, false, UnixTime(101));

        assert_eq!(claim, None);
    }

    #[test]
    fn a_failed_return_does_not_free_a_token_that_was_used() {
        let mut claim = None;
        assert!(take(&mut claim, "a", 100));
        Claim::leave(&mut claim, true, UnixTime(200));
        assert!(take(&mut claim, "a", 210));

        Claim::leave(&mut claim, false, UnixTime(211));

        assert!(!take(&mut claim.clone(), "b", 212));
        assert!(!take(&mut claim, "a", 242));
    }
}
