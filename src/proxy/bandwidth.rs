//! Which bandwidth caps a session is under: its own, and one that its tenant's sessions share.

use std::num::NonZero;
use std::sync::{Arc, Weak};

use dashmap::DashMap;

use super::relay::Cap;
use crate::auth::SessionRecord;

/// Tenants known before those without sessions are forgotten.
const KNOWN: usize = 1024;

/// Bytes per second that may pass in each direction; none is any number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bandwidth {
    /// See [`crate::config::Limits::session_bandwidth`].
    pub session: Option<NonZero<u64>>,
    /// See [`crate::config::Limits::tenant_bandwidth`].
    pub tenant: Option<NonZero<u64>>,
}

/// The caps of tenants that have sessions.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    known: DashMap<(String, NonZero<u64>), Weak<Cap>>,
}

impl Tenants {
    /// The caps of a session.
    pub(super) fn caps(&self, session: &SessionRecord, bandwidth: Bandwidth) -> Vec<Arc<Cap>> {
        let own = bandwidth.session.map(|rate| Arc::new(Cap::new(rate)));
        let shared = bandwidth.tenant.map(|rate| {
            let tenant = session.project.as_ref().map_or_else(
                || format!("caller {}", session.caller),
                |project| format!("project {project}"),
            );
            self.shared(tenant, rate)
        });
        own.into_iter().chain(shared).collect()
    }

    /// A tenant's sessions of before another rate was set keep theirs.
    fn shared(&self, tenant: String, rate: NonZero<u64>) -> Arc<Cap> {
        if self.known.len() >= KNOWN {
            self.known.retain(|_, cap| cap.strong_count() > 0);
        }
        let mut known = self.known.entry((tenant, rate)).or_default();
        if let Some(cap) = known.upgrade() {
            return cap;
        }
        let cap = Arc::new(Cap::new(rate));
        *known = Arc::downgrade(&cap);
        cap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_a_tenant_share_one_cap_as_long_as_there_are_any() {
        let tenants = Tenants::default();
        let rate = NonZero::new(1000).unwrap();

        let first = tenants.shared("project a".to_owned(), rate);
        let second = tenants.shared("project a".to_owned(), rate);
        let other = tenants.shared("project b".to_owned(), rate);

        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &other));
        drop((first, second));
        assert_eq!(
            tenants
                .known
                .get(&("project a".to_owned(), rate))
                .unwrap()
                .strong_count(),
            0
        );
    }

    #[test]
    fn tenants_without_sessions_are_forgotten_in_the_end() {
        let tenants = Tenants::default();
        let rate = NonZero::new(1000).unwrap();

        for number in 0..=KNOWN {
            drop(tenants.shared(number.to_string(), rate));
        }

        assert_eq!(tenants.known.len(), 1);
    }
}
