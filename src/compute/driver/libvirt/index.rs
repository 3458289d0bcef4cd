//! What one hypervisor has, as its events tell it.
//!
//! Filled when a connection begins, then kept by events: whatever an event says of a domain, the
//! domain's XML is read again. Reads run side by side, never two of one domain.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::client::Domain;
use super::link::{Live, Settings};
use super::wire::xdr::{BadXdr, Decoder};
use super::wire::{Error, Event, Events};
use crate::compute::driver::{Change, Changes, Fault, Survey, fault};
use crate::model::{Instance, InstanceId, PowerState};

/// When a domain that could not be read is tried again: a guest that hangs holds up who asks.
const RETRY: Duration = Duration::from_secs(10);

/// Reads at one time. libvirt works at five calls of one client by default; two more are on
/// their way meanwhile.
const READS: usize = 7;

type Known = HashMap<Uuid, Result<Instance, Fault>>;

fn instances(known: &Known) -> impl Iterator<Item = &Instance> {
    known.values().filter_map(|known| known.as_ref().ok())
}

fn runs(known: &Result<Instance, Fault>) -> bool {
    let instance = known.as_ref();
    instance.is_ok_and(|instance| instance.state != PowerState::Off)
}

/// The instances of one connection.
#[derive(Debug)]
pub(super) struct Index {
    known: Mutex<Known>,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Filling,
    Filled,
    GivenUp,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            phase: watch::Sender::new(Phase::Filling),
        }
    }
}

impl Index {
    /// Waits until every domain was read once; false if that will never be. Cancel-safe.
    pub(super) async fn filled(&self) -> bool {
        let mut phases = self.phase.subscribe();
        let phase = phases.wait_for(|phase| *phase != Phase::Filling).await;
        phase.is_ok_and(|phase| *phase == Phase::Filled)
    }

    /// The connection has ended: who waits for the rest waits in vain.
    pub(super) fn give_up(&self) {
        let _before = self.phase.send_replace(Phase::GivenUp);
    }

    /// All instances, and what could not be read.
    pub(super) fn survey(&self) -> Survey {
        let known = self.lock();
        let faults = known.values().filter_map(|known| known.as_ref().err());
        Survey {
            instances: instances(&known).cloned().collect(),
            faults: faults.cloned().collect(),
        }
    }

    /// The instances that `keep` takes.
    pub(super) fn select(&self, mut keep: impl FnMut(&Instance) -> bool) -> Vec<Instance> {
        let known = self.lock();
        instances(&known).filter(|it| keep(it)).cloned().collect()
    }

    /// Whether this hypervisor has, or may have, that instance.
    pub(super) fn may_have(&self, id: InstanceId) -> bool {
        *self.phase.borrow() != Phase::Filled || self.lock().contains_key(&id.0)
    }

    /// The instances that people call `name`.
    pub(super) fn shown_as(&self, name: &str) -> Vec<InstanceId> {
        let known = self.lock();
        let shown = instances(&known).filter(|it| it.display_name.as_deref() == Some(name));
        shown.map(|it| it.id).collect()
    }

    /// Notes what was read; tells if it is another than before, and whether the instance ran then
    /// and does not now.
    fn set(&self, uuid: Uuid, read: Option<Result<Instance, Fault>>) -> Option<Change> {
        // What cannot be read may run as well as not.
        let runs_on = read
            .as_ref()
            .is_some_and(|read| read.is_err() || runs(read));
        let mut known = self.lock();
        let before = known.remove(&uuid);
        let changed = before != read;
        if let Some(read) = read {
            let _none = known.insert(uuid, read);
        }
        let change = Change {
            instance: InstanceId(uuid),
            ended: before.as_ref().is_some_and(runs) && !runs_on,
        };
        changed.then_some(change)
    }

    /// Forgets the others, and tells which those are.
    fn keep_only(&self, domains: &[Domain]) -> Vec<Change> {
        let listed: HashSet<Uuid> = domains.iter().map(|domain| domain.uuid).collect();
        let mut known = self.lock();
        let gone = known.extract_if(|uuid, _| !listed.contains(uuid));
        let change = |(uuid, known)| Change {
            instance: InstanceId(uuid),
            ended: runs(&known),
        };
        gone.map(change).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills the index and keeps it current. Ends with the connection. Errors: of the listing.
pub(super) async fn keep(
    live: &Arc<Live>,
    settings: &Settings,
    events: &mut Events,
    changes: &Changes,
) -> Result<(), Error> {
    let mut readers = Readers::new(live, settings, changes);
    readers.list().await?;
    loop {
        readers.begin();
        tokio::select! {
            event = events.next() => match event {
                None => return Ok(()),
                Some(Event::Lagged) => readers.list().await?,
                Some(Event::Happened { payload, .. }) => readers.want(about(&payload)),
            },
            Some(done) = readers.running.join_next() => readers.end(done),
            () = sleep_until(readers.retry_at), if !readers.failed.is_empty() => readers.retry(),
        }
    }
}

/// Every event begins with the number of its registration and the domain it is about.
fn about(payload: &[u8]) -> Result<Domain, BadXdr> {
    let mut decoder = Decoder::new(payload);
    let _registration = decoder.int()?;
    Domain::decode(&mut decoder)
}

/// Who reads which domain.
struct Readers<'a> {
    live: &'a Arc<Live>,
    settings: Arc<Settings>,
    changes: &'a Changes,
    wanted: HashMap<Uuid, Domain>,
    failed: HashMap<Uuid, Domain>,
    retry_at: Instant,
    busy: HashSet<Uuid>,
    running: JoinSet<(Domain, bool)>,
}

impl<'a> Readers<'a> {
    fn new(live: &'a Arc<Live>, settings: &Settings, changes: &'a Changes) -> Self {
        Self {
            live,
            settings: Arc::new(settings.clone()),
            changes,
            wanted: HashMap::new(),
            failed: HashMap::new(),
            retry_at: Instant::now(),
            busy: HashSet::new(),
            running: JoinSet::new(),
        }
    }

    /// Wants every domain read, and forgets those that are no more.
    async fn list(&mut self) -> Result<(), Error> {
        let domains = self.live.client.list_all().await?;
        for gone in self.live.index.keep_only(&domains) {
            self.changes.tell(gone);
        }
        for domain in domains {
            self.want(Ok(domain));
        }
        Ok(())
    }

    fn want(&mut self, domain: Result<Domain, BadXdr>) {
        match domain {
            Ok(domain) => drop(self.wanted.insert(domain.uuid, domain)),
            Err(error) => tracing::debug!(%error, "an event about no domain"),
        }
    }

    /// Starts what may run now. With nothing wanted and nothing running, the index is filled.
    fn begin(&mut self) {
        while self.running.len() < READS {
            let mut free = self.wanted.keys().filter(|uuid| !self.busy.contains(uuid));
            let Some(uuid) = free.next().copied() else {
                break;
            };
            let Some(domain) = self.wanted.remove(&uuid) else {
                break;
            };
            let _new = self.busy.insert(uuid);
            let (live, settings) = (Arc::clone(self.live), Arc::clone(&self.settings));
            let read = read(live, settings, Arc::clone(self.changes), domain);
            let _handle = self.running.spawn(read);
        }
        if self.running.is_empty() {
            let phase = &self.live.index.phase;
            let _changed = phase.send_if_modified(|phase| {
                let filling = *phase == Phase::Filling;
                if filling {
                    *phase = Phase::Filled;
                }
                filling
            });
        }
    }

    fn end(&mut self, done: Result<(Domain, bool), JoinError>) {
        match done {
            Ok((domain, read)) => {
                let _known = self.busy.remove(&domain.uuid);
                if !read {
                    if self.failed.is_empty() {
                        self.retry_at = Instant::now() + RETRY;
                    }
                    let _before = self.failed.insert(domain.uuid, domain);
                }
            }
            Err(error) => tracing::error!(%error, "a domain could not be read"),
        }
    }

    fn retry(&mut self) {
        let failed = std::mem::take(&mut self.failed);
        for (uuid, domain) in failed {
            let _wanted = self.wanted.entry(uuid).or_insert(domain);
        }
    }
}

async fn read(
    live: Arc<Live>,
    settings: Arc<Settings>,
    changes: Changes,
    domain: Domain,
) -> (Domain, bool) {
    let answer = live.read(&domain, &settings).await;
    let read = answer.is_ok();
    let known = answer.unwrap_or_else(|error| {
        let why = format_args!("{}: {error}", domain.name).to_string();
        Some(Err(fault(&settings.name, &why)))
    });
    if let Some(change) = live.index.set(domain.uuid, known) {
        changes.tell(change);
    }
    (domain, read)
}
