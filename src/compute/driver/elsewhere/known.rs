//! What another host's compute is known to have: which host to ask first, and never an answer.

use std::collections::HashMap;

use crate::compute::claim::claims;
use crate::compute::driver::Survey;
use crate::model::{Instance, InstanceId, InstanceRef, Target};

/// The instances of one host, as of the last that was heard of each.
#[derive(Debug, Default)]
pub(super) struct Known {
    instances: HashMap<InstanceId, Instance>,
    /// How many have each name, by whomever it was given.
    names: HashMap<String, usize>,
    /// Whether it has no others.
    complete: bool,
}

impl Known {
    /// Takes in all that the host has. What it could not read may be anything.
    pub(super) fn fill(&mut self, survey: &Survey) {
        *self = Self::default();
        for instance in &survey.instances {
            self.put(instance.clone());
        }
        self.complete = survey.faults.is_empty();
    }

    /// It has this one, which is now so.
    pub(super) fn put(&mut self, instance: Instance) {
        self.remove(instance.id);
        for name in names(&instance) {
            let count = self.names.entry(name.to_owned()).or_default();
            *count = count.saturating_add(1);
        }
        let _none = self.instances.insert(instance.id, instance);
    }

    /// It does not have this one any more.
    pub(super) fn remove(&mut self, id: InstanceId) {
        let Some(gone) = self.instances.remove(&id) else {
            return;
        };
        for name in names(&gone) {
            if let Some(count) = self.names.get_mut(name) {
                *count = count.saturating_sub(1);
            }
        }
        self.names.retain(|_, count| *count > 0);
    }

    /// It may have others by now.
    pub(super) fn doubt(&mut self) {
        self.complete = false;
    }

    /// Whether it has what `wanted` could mean, if that is known.
    pub(super) fn has(&self, wanted: &InstanceRef) -> Option<bool> {
        let has = match wanted {
            InstanceRef::Id(id) => self.instances.contains_key(id),
            InstanceRef::Name(name) => self.names.contains_key(name),
        };
        (has || self.complete).then_some(has)
    }

    /// Whether one of its instances may hold a door of `target`.
    pub(super) fn may_hold(&self, target: &Target) -> bool {
        let mut instances = self.instances.values();
        !self.complete || instances.any(|instance| claims(instance, target))
    }
}

fn names(instance: &Instance) -> impl Iterator<Item = &str> {
    let shown = instance.display_name.as_deref();
    let shown = shown.filter(|shown| *shown != instance.name);
    [Some(instance.name.as_str()), shown].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::driver::fault;
    use crate::model::PowerState;

    fn instance(number: u128, name: &str) -> Instance {
        Instance {
            id: InstanceId(uuid::Uuid::from_u128(number)),
            name: name.to_owned(),
            display_name: Some("Web shop".to_owned()),
            flavor: None,
            state: PowerState::Running,
            owner: None,
            consoles: Vec::new(),
            source: "libvirt".to_owned(),
            host: None,
        }
    }

    fn survey(instances: &[Instance]) -> Survey {
        Survey {
            instances: instances.to_vec(),
            faults: Vec::new(),
        }
    }

    #[test]
    fn a_host_that_told_all_is_known_not_to_have_the_rest() {
        let mut known = Known::default();
        assert_eq!(known.has(&"web-1".into()), None);

        known.fill(&survey(&[instance(1, "web-1"), instance(2, "web-2")]));
        known.remove(InstanceId(uuid::Uuid::from_u128(1)));

        assert_eq!(known.has(&"web-1".into()), Some(false));
        assert_eq!(known.has(&"Web shop".into()), Some(true));
        assert_eq!(known.has(&InstanceRef::Id(instance(2, "").id)), Some(true));
    }

    #[test]
    fn a_host_that_could_not_tell_all_may_have_anything() {
        let mut known = Known::default();
        let mut partial = survey(&[instance(1, "web-1")]);
        partial.faults.push(fault("libvirt", &"is away"));

        known.fill(&partial);

        assert_eq!(known.has(&"web-1".into()), Some(true));
        assert_eq!(known.has(&"web-2".into()), None);
        known.fill(&survey(&[]));
        known.doubt();
        assert_eq!(known.has(&"web-2".into()), None);
    }

    #[test]
    fn an_instance_that_is_renamed_loses_its_name() {
        let mut known = Known::default();
        known.fill(&survey(&[instance(1, "web-1")]));

        known.put(instance(1, "shop-1"));

        assert_eq!(known.has(&"web-1".into()), Some(false));
        assert_eq!(known.has(&"shop-1".into()), Some(true));
    }
}
