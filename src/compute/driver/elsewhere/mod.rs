//! A compute role in another process, as one source among several.
//!
//! Asked afresh each time, like any source. What it has is known meanwhile ([`known`]) by a call
//! that is held there, so that the others need not be asked, and whether it is there at all
//! ([`health`]), so that it is not waited for while it is not.

mod health;
mod known;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    BoxFuture, Changes, Driver, Fault, Handed, Logged, Met, Pictured, Survey, Unopened, fault,
    is_meant,
};
use crate::compute::display::{Display, Tunnelled};
use crate::compute::hand_out::Wanted;
use crate::compute::{Compute, ComputeError, HandOut, Told};
use crate::drain::Watch;
use crate::model::{ConsoleKind, Instance, InstanceId, InstanceRef, Target};
use crate::rpc::{Client, Cursor, News, Unreachable, Way};
use health::Health;
use known::Known;

/// The pause before it is asked again after it could not be.
const PAUSE: Duration = Duration::from_millis(500);

/// How long an answer may take: longer than a hypervisor of its may take there, so that what the
/// others of that machine say is not lost.
const PATIENCE: Duration = Duration::from_secs(6);

/// How long it may take to say who else claims an address: that holds up what was found elsewhere.
const CLAIM: Duration = Duration::from_secs(1);

/// What the host's sources do not tell of is known after so long.
const RELIST: Duration = Duration::from_mins(1);

/// The same where it could not read all.
const RELIST_SOON: Duration = Duration::from_secs(5);

/// More changes at one time are a reason to list all.
const FEW: usize = 32;

/// Where another compute is, and how its consoles come here.
#[derive(Debug)]
pub struct Host {
    /// What it is called in lists.
    pub name: String,
    /// The role there.
    pub compute: Client<Compute>,
    /// How its consoles come here, if they may.
    pub way: Option<Way<HandOut>>,
}

/// What another process's compute knows.
#[derive(Debug)]
pub struct Elsewhere {
    inner: Arc<Inner>,
    stop: CancellationToken,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Inner {
    host: String,
    source: String,
    compute: Client<Compute>,
    way: Option<Way<HandOut>>,
    known: Mutex<Known>,
    health: Health,
}

impl Elsewhere {
    /// The role on `host`; tells `told` how it does.
    pub fn new(host: Host, told: Told) -> Self {
        let stop = CancellationToken::new();
        Self {
            inner: Arc::new(Inner {
                source: format!("compute at {}", host.name),
                health: Health::new(&host.name, told),
                host: host.name,
                compute: host.compute,
                way: host.way,
                known: Mutex::default(),
            }),
            _stop: stop.clone().drop_guard(),
            stop,
        }
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, if the host is worth asking.
    async fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, ComputeError>>,
    ) -> Result<T, ComputeError> {
        match self.health.why_not() {
            Some(why) => Err(self.absent(&why)),
            None => self.ask_anyway(PATIENCE, call).await,
        }
    }

    /// Asks what nobody else can answer.
    async fn ask_anyway<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<T, ComputeError>>,
    ) -> Result<T, ComputeError> {
        let asked = Instant::now();
        let Ok(answer) = timeout(patience, call).await else {
            let why = format!("did not answer within {} s", patience.as_secs());
            self.health.was_late(&why);
            return Err(self.absent(&why));
        };
        match &answer {
            Err(ComputeError::Unreachable(Unreachable::Busy(_))) => {}
            Err(ComputeError::Unreachable(why)) => self.health.lost(&why.to_string()),
            _ => self.health.answered(asked.elapsed()),
        }
        answer
    }

    fn absent(&self, why: &str) -> ComputeError {
        ComputeError::Source {
            name: String::new(),
            fault: fault(&self.source, &why),
        }
    }

    /// Says of what failed there that it was there.
    fn fault(&self, error: ComputeError) -> Fault {
        match error {
            ComputeError::Source { fault, .. } | ComputeError::NotOpened { fault, .. } => {
                self.placed(fault)
            }
            other => fault(&self.source, &other),
        }
    }

    fn placed(&self, fault: Fault) -> Fault {
        if fault.source == self.source {
            return fault;
        }
        let source = format!("{}: {}", self.source, fault.source);
        Fault { source, ..fault }
    }

    fn survey_of(&self, answer: Result<Survey, ComputeError>) -> Survey {
        let survey = match answer {
            Ok(survey) => survey,
            Err(error) => return self.fault(error).into(),
        };
        let instances = survey.instances.into_iter().map(|it| self.here(it));
        let faults = survey.faults.into_iter().map(|fault| self.placed(fault));
        Survey {
            instances: instances.collect(),
            faults: faults.collect(),
        }
    }

    fn here(&self, instance: Instance) -> Instance {
        let host = Some(self.host.clone());
        Instance { host, ..instance }
    }

    async fn survey(&self) -> Survey {
        self.survey_of(self.ask(self.compute.instances()).await)
    }

    /// Also notes what it hears.
    async fn find(&self, wanted: &InstanceRef) -> Survey {
        match self.ask(self.compute.instance(wanted.clone())).await {
            Ok(instance) => {
                let instance = self.here(instance);
                self.known().put(instance.clone());
                Survey {
                    instances: vec![instance],
                    faults: Vec::new(),
                }
            }
            Err(ComputeError::NoSuchInstance { .. }) => {
                if let InstanceRef::Id(id) = wanted {
                    self.known().remove(*id);
                }
                Survey::default()
            }
            Err(ComputeError::Ambiguous { .. }) => {
                self.survey().await.only(|it| is_meant(it, wanted))
            }
            Err(error) => self.fault(error).into(),
        }
    }

    /// Learns what the host has, and goes on hearing of it.
    async fn hear(&self, changes: &Changes) {
        let mut cursor = None;
        let mut relist_at = Instant::now();
        loop {
            match self.compute.changes(cursor).await {
                Ok(news) => {
                    self.health.reached();
                    let listed = cursor.is_none() || news.missed || relist_at <= Instant::now();
                    cursor = Some(news.cursor);
                    if listed || news.items.len() > FEW {
                        relist_at = Instant::now() + self.list().await;
                    } else {
                        self.look_at(&news).await;
                    }
                    news.items
                        .into_iter()
                        .for_each(|change| changes.tell(change));
                }
                Err(error) => {
                    self.known().doubt();
                    self.health.lost(&error.to_string());
                    cursor = None::<Cursor>;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Returns when to do so again.
    async fn list(&self) -> Duration {
        let survey = self.survey().await;
        if survey.faults.is_empty() {
            self.known().fill(&survey);
            return RELIST;
        }
        let mut known = self.known();
        survey.instances.into_iter().for_each(|it| known.put(it));
        known.doubt();
        RELIST_SOON
    }

    async fn look_at(&self, news: &News<super::Change>) {
        let changed: BTreeSet<InstanceId> = news.items.iter().map(|it| it.instance).collect();
        for id in changed {
            let found = self.find(&InstanceRef::Id(id)).await;
            if !found.faults.is_empty() {
                self.known().doubt();
            }
        }
    }
}

impl Driver for Elsewhere {
    fn source(&self) -> &str {
        &self.inner.source
    }

    fn is_home(&self, instance: &Instance) -> bool {
        instance.host.as_ref() == Some(&self.inner.host)
    }

    fn knows(&self, wanted: &InstanceRef) -> Option<bool> {
        self.inner.known().has(wanted)
    }

    fn patience(&self) -> Duration {
        PATIENCE + Duration::from_millis(500)
    }

    fn start(&self, watch: &Watch, changes: &Changes) {
        let (inner, changes) = (Arc::clone(&self.inner), Arc::clone(changes));
        let (stop, closing) = (self.stop.clone(), watch.clone());
        watch.spawn_service(async move {
            tokio::select! {
                () = inner.hear(&changes) => {}
                () = stop.cancelled() => {}
                () = closing.closing() => {}
            }
        });
    }

    /// The call that is held there tells, once it has come through.
    fn answers(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            let inner = &self.inner;
            if inner.health.is_up() {
                return Ok(());
            }
            let ready = inner.ask(inner.compute.ready()).await;
            ready.map_err(|error| inner.fault(error))
        })
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        Box::pin(self.inner.survey())
    }

    fn find<'a>(&'a self, wanted: &'a InstanceRef) -> BoxFuture<'a, Survey> {
        Box::pin(self.inner.find(wanted))
    }

    fn claimants<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Survey> {
        Box::pin(async {
            let inner = &self.inner;
            if inner.health.why_not().is_some() || !inner.known().may_hold(target) {
                return Survey::default();
            }
            let claimants = inner.compute.claimants(target.clone());
            inner.survey_of(inner.ask_anyway(CLAIM, claimants).await)
        })
    }

    fn meeting<'a>(&'a self, instance: &'a Instance, kind: ConsoleKind) -> BoxFuture<'a, Met> {
        Box::pin(async move {
            let meeting = self.inner.compute.meeting(instance.id, kind);
            match self.inner.ask(meeting).await {
                Ok(meeting) => Ok(Some(meeting)),
                Err(ComputeError::NoSuchInstance { .. }) => Ok(None),
                Err(error) => Err(self.inner.fault(error)),
            }
        })
    }

    fn open_display(&self, instance: InstanceId, kind: ConsoleKind) -> BoxFuture<'_, Handed> {
        Box::pin(async move {
            let Some(way) = &self.inner.way else {
                return Ok(None);
            };
            let wanted = Wanted { instance, kind };
            match self.inner.ask_anyway(PATIENCE, way.open(&wanted)).await {
                Ok((opened, stream)) => {
                    let tunnelled = Tunnelled { stream, opened };
                    Ok(Some(Display::Tunnel(Box::new(tunnelled))))
                }
                Err(ComputeError::NoSuchInstance { .. } | ComputeError::Off { .. }) => Ok(None),
                Err(ComputeError::Crowded { most, .. }) => Err(Unopened::Crowded(most)),
                Err(error) => Err(self.inner.fault(error).into()),
            }
        })
    }

    fn screenshot(&self, instance: InstanceId) -> BoxFuture<'_, Pictured> {
        Box::pin(async move {
            let picture = self.inner.compute.screenshot(InstanceRef::Id(instance));
            match self.inner.ask(picture).await {
                Ok(picture) => Ok(Some(picture.into_png())),
                Err(
                    ComputeError::NoSuchInstance { .. }
                    | ComputeError::NoPicture { .. }
                    | ComputeError::Off { .. },
                ) => Ok(None),
                Err(error) => Err(self.inner.fault(error)),
            }
        })
    }

    fn console_log(&self, instance: InstanceId) -> BoxFuture<'_, Logged> {
        Box::pin(async move {
            let log = self
                .inner
                .compute
                .console_log(InstanceRef::Id(instance), None);
            match self.inner.ask(log).await {
                Ok(log) => Ok(Some(log.into_text().into_bytes())),
                Err(ComputeError::NoSuchInstance { .. } | ComputeError::NoLog { .. }) => Ok(None),
                Err(error) => Err(self.inner.fault(error)),
            }
        })
    }
}
