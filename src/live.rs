//! A value that is exchanged while others use it, such as settings that are read again.
//!
//! Who reads takes hold of the value as it is and keeps that for as long as it likes; what comes
//! later is seen by who reads later. Knows nothing of what it holds.

use std::sync::{Arc, PoisonError, RwLock};

/// A value, or rather the newest one. Cheap to clone: all clones are one.
#[derive(Debug, Default)]
pub struct Live<T>(Arc<RwLock<Arc<T>>>);

impl<T> Live<T> {
    /// Begins with `value`.
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// The value as it is now.
    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another in its place.
    pub fn exchange(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_took_hold_of_a_value_keeps_it_and_who_comes_later_sees_the_next() {
        let live = Live::new(1);
        let other = live.clone();
        let held = live.now();

        other.exchange(2);

        assert_eq!((*held, *live.now()), (1, 2));
    }
}
