use super::held::{Held, Kept, Number};
use crate::auth::AuthError;
use crate::auth::session::{Limits, Reached, SessionRecord};
use crate::model::{ConsoleKind, SecondViewer, block_of};

/// The rules by which sessions are let in.
impl Held {
    /// Which sessions have to go for `record` to come. A browser that comes back does not stand in
    /// its own way: its old session may not have noticed yet that it is over.
    pub(super) fn make_room(
        &self,
        record: &SessionRecord,
        limits: &Limits,
    ) -> Result<Vec<Number>, AuthError> {
        let own = || self.of_viewer(record.token, record.browser);
        if record.console_type.kind() == ConsoleKind::Spice && own().next().is_some() {
            // One more channel of the same viewer.
            return Ok(Vec::new());
        }
        let mut going = self.unwanted(record)?;
        if self.reached(record, limits, &going).is_none() {
            return Ok(going);
        }
        going.extend(own());
        going.sort_unstable();
        going.dedup();
        let reached = self.reached(record, limits, &going);
        reached.map_or(Ok(going), |limit| Err(AuthError::Limit(limit)))
    }

    /// Those that its terms do not suffer beside it. Errors: `Occupied`.
    fn unwanted(&self, record: &SessionRecord) -> Result<Vec<Number>, AuthError> {
        let terms = &record.terms;
        if terms.second_viewer == SecondViewer::Allow && !terms.single_use {
            // The usual case looks at nobody.
            return Ok(Vec::new());
        }
        let own = self.of_viewer(record.token, record.browser);
        let console = self.of_console(record.instance, record.console_type.kind());
        let is_other = |kept: &Kept| {
            let its = &kept.record;
            (its.token, its.browser) != (record.token, record.browser)
        };
        let mut others = console.filter(|number| {
            let kept = self.at(*number);
            kept.is_some_and(|kept| kept.stays() && is_other(kept))
        });
        match terms.second_viewer {
            SecondViewer::Refuse if others.next().is_some() => Err(AuthError::Occupied),
            SecondViewer::Allow | SecondViewer::Refuse => Ok(own.collect()),
            SecondViewer::TakeOver => Ok(own.chain(others).collect()),
        }
    }

    /// The first limit that does not allow for one more once those `going` have gone.
    fn reached(
        &self,
        record: &SessionRecord,
        limits: &Limits,
        going: &[Number],
    ) -> Option<Reached> {
        let going_of = |alike: &dyn Fn(&SessionRecord) -> bool| {
            let going = going.iter().filter_map(|number| self.at(*number));
            let counted = going.filter(|kept| kept.stays() && alike(&kept.record));
            counted.count()
        };
        let all = self.count().saturating_sub(going.len());
        if limits.all.is_some_and(|limit| all >= limit) {
            return Some(Reached::All);
        }
        if let Some(limit) = limits.instance {
            let most = limit.saturating_add(going_of(&|its| its.instance == record.instance));
            let staying = self
                .of_instance(record.instance)
                .filter(|kept| kept.stays());
            if staying.take(most).count() >= most {
                return Some(Reached::Instance);
            }
        }
        if let Some(limit) = limits.caller {
            let most = limit.saturating_add(going_of(&|its| its.caller == record.caller));
            if self.count_of_caller(&record.caller) >= most {
                return Some(Reached::Caller);
            }
        }
        let (limit, ip) = limits.address.zip(record.viewer)?;
        let alike = |its: &SessionRecord| its.viewer.map(block_of) == Some(block_of(ip));
        let most = limit.saturating_add(going_of(&alike));
        (self.count_of_address(ip) >= most).then_some(Reached::Address)
    }
}
