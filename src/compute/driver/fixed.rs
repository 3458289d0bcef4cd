//! Instances that people listed by hand, in the config or for the demo.

use std::collections::HashMap;

use super::{BoxFuture, Driver, Met, Survey, is_meant};
use crate::model::{
    Console, ConsoleKind, Instance, InstanceId, InstanceRef, Meeting, Owner, PowerState, Security,
    Target,
};

/// One console, as a person lists it. Entries with the same id make one instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Derived from the name if not given: the same name has the same id at every start.
    pub id: Option<InstanceId>,
    /// What people call it.
    pub name: String,
    /// What it speaks.
    pub kind: ConsoleKind,
    /// Where it is. Several entries may have the same, as aliases.
    pub target: Target,
    /// Whose it is: a project's id.
    pub project: Option<String>,
    /// How its VNC server is to be met.
    pub security: Security,
}

/// Two entries contradict each other.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadEntry {
    /// The second one would never be used.
    #[error("instance `{name}` has two {kind} consoles, remove one")]
    Repeated {
        /// Its name.
        name: String,
        /// Of which kind.
        kind: ConsoleKind,
    },
    /// One id, two names.
    #[error("instances `{name}` and `{other}` have the same id {id}, give one of them another")]
    SharedId {
        /// The name listed first.
        name: String,
        /// The other.
        other: String,
        /// What both have.
        id: InstanceId,
    },
}

/// A list that does not change.
#[derive(Debug)]
pub struct Fixed {
    source: String,
    instances: Vec<Instance>,
    security: HashMap<InstanceId, Security>,
}

impl Fixed {
    /// Checks the entries against each other. `source` is for people: `config`, `demo`.
    pub fn new(source: &str, entries: Vec<Entry>) -> Result<Self, BadEntry> {
        let mut fixed = Self {
            source: source.to_owned(),
            instances: Vec::new(),
            security: HashMap::new(),
        };
        entries.into_iter().try_for_each(|entry| fixed.add(entry))?;
        Ok(fixed)
    }

    fn add(&mut self, entry: Entry) -> Result<(), BadEntry> {
        let derived = || InstanceId::derived("instance", &entry.name);
        let id = entry.id.unwrap_or_else(derived);
        if entry.kind == ConsoleKind::Vnc {
            let _repeated = self.security.insert(id, entry.security);
        }
        let console = Console {
            kind: entry.kind,
            target: Some(entry.target),
        };
        if let Some(known) = self.instances.iter_mut().find(|known| known.id == id) {
            return join(known, entry.name, console);
        }
        self.instances.push(Instance {
            id,
            name: entry.name,
            display_name: None,
            state: PowerState::Unknown,
            flavor: None,
            owner: entry.project.map(Owner::of_project),
            consoles: vec![console],
            source: self.source.clone(),
            host: None,
        });
        Ok(())
    }
}

fn join(known: &mut Instance, name: String, console: Console) -> Result<(), BadEntry> {
    if known.name != name {
        return Err(BadEntry::SharedId {
            name: known.name.clone(),
            other: name,
            id: known.id,
        });
    }
    let kind = console.kind;
    if known.console(kind).is_some() {
        return Err(BadEntry::Repeated { name, kind });
    }
    known.consoles.push(console);
    Ok(())
}

impl Driver for Fixed {
    fn source(&self) -> &str {
        &self.source
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        let survey = Survey {
            instances: self.instances.clone(),
            faults: Vec::new(),
        };
        Box::pin(async move { survey })
    }

    /// There may be thousands, of which one is wanted.
    fn find<'a>(&'a self, wanted: &'a InstanceRef) -> BoxFuture<'a, Survey> {
        let meant = self.instances.iter().filter(|it| is_meant(it, wanted));
        let survey = Survey {
            instances: meant.cloned().collect(),
            faults: Vec::new(),
        };
        Box::pin(async move { survey })
    }

    fn meeting<'a>(&'a self, instance: &'a Instance, _kind: ConsoleKind) -> BoxFuture<'a, Met> {
        let security = self.security.get(&instance.id).cloned();
        let meeting = security.map(|security| Meeting {
            security,
            ..Meeting::default()
        });
        Box::pin(async move { Ok(meeting) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Address;

    fn entry(name: &str, kind: ConsoleKind, address: &str) -> Entry {
        Entry {
            id: None,
            name: name.to_owned(),
            kind,
            target: address.parse::<Address>().unwrap().into(),
            project: None,
            security: Security::default(),
        }
    }

    #[tokio::test]
    async fn an_entry_without_an_id_gets_the_same_one_at_every_start() {
        let start = || {
            let web = entry("web", ConsoleKind::Vnc, "127.0.0.1:5901");
            Fixed::new("config", vec![web]).unwrap()
        };

        let id = start().survey().await.instances[0].id;

        assert_eq!(id, start().survey().await.instances[0].id);
        assert_eq!(id.to_string(), "1551e5b7-e992-809d-9893-4ca2612ec045");
    }

    #[tokio::test]
    async fn two_kinds_under_one_name_are_one_instance() {
        let vnc = entry("web", ConsoleKind::Vnc, "127.0.0.1:5901");
        let serial = entry("web", ConsoleKind::Serial, "unix:/run/web.sock");

        let fixed = Fixed::new("config", vec![vnc, serial]).unwrap();
        let survey = fixed.survey().await;

        assert_eq!(survey.instances.len(), 1);
        assert_eq!(survey.instances[0].consoles.len(), 2);
    }

    #[test]
    fn entries_that_contradict_each_other_are_refused() {
        let vnc = entry("web", ConsoleKind::Vnc, "127.0.0.1:5901");
        let id = InstanceId::derived("instance", "web");
        let mut other = entry("db", ConsoleKind::Serial, "127.0.0.1:5902");
        other.id = Some(id);

        let repeated = Fixed::new("config", vec![vnc.clone(), vnc.clone()]);
        let shared = Fixed::new("config", vec![vnc, other]);

        assert!(matches!(repeated, Err(BadEntry::Repeated { .. })));
        assert!(matches!(shared, Err(BadEntry::SharedId { .. })));
    }
}
