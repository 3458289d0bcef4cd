//! The role itself: what becomes of each request.

use std::sync::Arc;

use tokio::time::timeout;

use super::driver::{self, BoxFuture, Changes, Driver, ask_all, ask_until};
use super::pulse::{self, Pulse};
use super::{
    ComputeError, ConsoleLog, Displays, Fault, HandOut, Located, Picture, Reply, Request, Survey,
    Tunnels, observer,
};
use crate::drain::Watch;
use crate::live::Live;
use crate::model::{ConsoleKind, Instance, InstanceId, InstanceRef, Meeting, PowerState, Target};
use crate::rpc::{Feed, HOLD, Role, Unreachable};

/// The role: some drivers, in the order in which they count.
#[derive(Clone, Debug)]
pub struct Compute {
    pub(super) drivers: Drivers,
    /// What became of instances, as far as sources tell.
    pub(super) changes: Changes,
    pulse: Pulse,
}

/// Those of a [`Fleet`] come and go.
pub(super) type Drivers = Live<Vec<Arc<dyn Driver>>>;

impl Compute {
    /// `drivers` in the order in which they count when two know the same instance.
    pub fn new(drivers: Vec<Box<dyn Driver>>) -> Self {
        Self {
            drivers: Live::new(drivers.into_iter().map(Arc::from).collect()),
            changes: Arc::new(Feed::default()),
            pulse: Pulse::default(),
        }
    }

    /// The consoles that its hypervisors hand over: for a proxy on the same machine.
    pub fn displays(&self) -> Displays {
        Displays::new(self.drivers.clone())
    }

    /// The same for proxies on other machines, as many at one time as `tunnels` allows.
    pub fn hand_out(&self, tunnels: Tunnels) -> HandOut {
        HandOut::new(self.clone(), tunnels)
    }

    /// Lets the drivers do what they do on their own. Ends with `watch`.
    pub fn start(&self, watch: &Watch) {
        let start = |driver: &Arc<dyn Driver>| driver.start(watch, &self.changes);
        self.drivers.now().iter().for_each(start);
    }

    /// Looks all the time at sources that tell nothing by themselves, for the sake of other
    /// processes that want to know. Ends with `watch`.
    pub fn observe(&self, watch: &Watch) {
        observer::start(self.drivers.clone(), Arc::clone(&self.changes), watch);
    }

    pub(super) async fn locate(
        &self,
        wanted: &InstanceRef,
        kind: ConsoleKind,
    ) -> Result<Located, ComputeError> {
        let instance = self.instance(wanted).await?;
        let target = target(&instance, kind)?.clone();
        self.refuse_claimed(&instance, &target).await?;
        Ok(Located { instance, target })
    }

    async fn recheck(
        &self,
        id: InstanceId,
        kind: ConsoleKind,
        stored: &Target,
    ) -> Result<Target, ComputeError> {
        let Located { target, .. } = self.locate(&InstanceRef::Id(id), kind).await?;
        if target != *stored {
            tracing::debug!(instance = %id, %stored, %target, "console moved since its grant");
        }
        Ok(target)
    }

    async fn ready(&self) -> Result<(), ComputeError> {
        let drivers = self.drivers.now();
        let felt = self
            .pulse
            .feel(|| async move { any_answers(&drivers).await });
        match felt.await {
            Some(outcome) => outcome.map_err(ComputeError::Unready),
            None => Err(Unreachable::Gone(Self::NAME.to_owned()).into()),
        }
    }

    async fn instances(&self) -> Survey {
        let drivers = self.drivers.now();
        let survey = ask_all(&drivers, |driver| async move { driver.survey().await });
        merge(survey.await)
    }

    /// Those that surely have it not are asked only where the others have none that runs: it may
    /// have come there this moment.
    pub(super) async fn instance(&self, wanted: &InstanceRef) -> Result<Instance, ComputeError> {
        let drivers = self.drivers.now();
        let (likely, others): (Vec<_>, Vec<_>) = drivers
            .iter()
            .cloned()
            .partition(|driver| driver.knows(wanted) != Some(false));
        let mut survey = find(&likely, wanted).await;
        if !has_running(&survey, wanted) && !others.is_empty() {
            survey.extend(find(&others, wanted).await);
        }
        choose(wanted, merge(survey))
    }

    /// Who told of the instance, and then all that may know of it.
    fn about(&self, instance: &Instance) -> Vec<Arc<dyn Driver>> {
        let id = InstanceRef::Id(instance.id);
        let drivers = self.drivers.now();
        let (mut home, others): (Vec<_>, Vec<_>) = drivers
            .iter()
            .cloned()
            .partition(|driver| driver.is_home(instance));
        let others = others.into_iter();
        home.extend(others.filter(|driver| driver.knows(&id) != Some(false)));
        home
    }

    async fn screenshot(&self, wanted: &InstanceRef) -> Result<Picture, ComputeError> {
        let instance = self.instance(wanted).await?;
        let name = instance.shown_name().to_owned();
        if instance.state == PowerState::Off {
            return Err(ComputeError::Off { name });
        }
        let taken = self.first(&instance, |driver| Box::pin(picture(driver, instance.id)));
        match taken.await {
            Ok(Some(picture)) => Ok(picture),
            Ok(None) => Err(ComputeError::NoPicture { name }),
            Err(fault) => Err(ComputeError::Source { name, fault }),
        }
    }

    /// A log outlives its instance's run, so it need not run.
    async fn console_log(
        &self,
        wanted: &InstanceRef,
        lines: Option<u32>,
    ) -> Result<ConsoleLog, ComputeError> {
        let instance = self.instance(wanted).await?;
        let name = instance.shown_name().to_owned();
        let kept = self.first(&instance, |driver| Box::pin(kept(driver, instance.id)));
        match kept.await {
            Ok(Some(bytes)) => Ok(ConsoleLog::new(&bytes, lines)),
            Ok(None) => Err(ComputeError::NoLog { name }),
            Err(fault) => Err(ComputeError::Source { name, fault }),
        }
    }

    /// What the first driver has that has something; else the first fault.
    async fn first<T>(
        &self,
        instance: &Instance,
        ask: impl for<'a> Fn(&'a dyn Driver) -> BoxFuture<'a, Result<Option<T>, Fault>>,
    ) -> Result<Option<T>, Fault> {
        let mut fault = None;
        for driver in self.about(instance) {
            match ask(&*driver).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(failed) => fault = fault.or(Some(failed)),
            }
        }
        fault.map_or(Ok(None), Err)
    }

    /// Of the driver that knows where it is, else of the first that has something to say.
    pub(super) async fn meeting(
        &self,
        id: InstanceId,
        kind: ConsoleKind,
    ) -> Result<Meeting, ComputeError> {
        let instance = self.instance(&InstanceRef::Id(id)).await?;
        for driver in self.about(&instance) {
            match meeting(&*driver, &instance, kind).await {
                Ok(None) => {}
                Ok(Some(meeting)) => return Ok(meeting),
                Err(fault) => {
                    let name = instance.shown_name().to_owned();
                    return Err(ComputeError::Source { name, fault });
                }
            }
        }
        Ok(Meeting::default())
    }

    async fn claimants(&self, target: &Target) -> Survey {
        let asked = Arc::new(target.clone());
        let drivers = self.drivers.now();
        let claimants = ask_all(&drivers, |driver| {
            let asked = Arc::clone(&asked);
            async move { driver.claimants(&asked).await }
        });
        claimants.await
    }

    /// A driver that fails here claims nothing: it must not lock out what the others know.
    async fn refuse_claimed(&self, one: &Instance, target: &Target) -> Result<(), ComputeError> {
        let claimants = self.claimants(target).await.instances;
        match claimants.into_iter().find(|other| other.id != one.id) {
            None => Ok(()),
            Some(other) => Err(ComputeError::Claimed {
                address: target.address.clone(),
                instance: one.name.clone(),
                other: other.name,
            }),
        }
    }
}

impl Role for Compute {
    const NAME: &'static str = "compute";
    type Request = Request;
    type Reply = Reply;
    type Error = ComputeError;

    fn callers(request: &Request) -> &'static [&'static str] {
        match request {
            Request::Locate { .. } | Request::Screenshot { .. } | Request::ConsoleLog { .. } => {
                &["api"]
            }
            // where a console is, and with what secret: for whoever dials
            Request::Meeting { .. } => &["proxy"],
            Request::Recheck { .. }
            | Request::Ready
            | Request::Instances
            | Request::Instance { .. }
            | Request::Claimants(_)
            | Request::Changes(_) => &["api", "proxy"],
        }
    }

    async fn call(&self, request: Request) -> Result<Reply, ComputeError> {
        match request {
            Request::Locate {
                instance,
                console_type,
            } => {
                let located = self.locate(&instance, console_type.kind()).await;
                located.map(Reply::Located)
            }
            Request::Recheck {
                instance,
                console_type,
                stored,
            } => {
                let target = self.recheck(instance, console_type.kind(), &stored).await;
                target.map(Reply::Target)
            }
            Request::Ready => self.ready().await.map(|()| Reply::Ready),
            Request::Instances => Ok(Reply::Instances(self.instances().await)),
            Request::Instance { instance } => self.instance(&instance).await.map(Reply::Instance),
            Request::Screenshot { instance } => {
                self.screenshot(&instance).await.map(Reply::Screenshot)
            }
            Request::Meeting { instance, kind } => {
                let meeting = self.meeting(instance, kind).await;
                meeting.map(|meeting| Reply::Meeting(Box::new(meeting)))
            }
            Request::Claimants(target) => Ok(Reply::Instances(self.claimants(&target).await)),
            Request::Changes(cursor) => Ok(Reply::Changes(self.changes.after(cursor, HOLD).await)),
            Request::ConsoleLog { instance, lines } => {
                let log = self.console_log(&instance, lines).await;
                log.map(Reply::ConsoleLog)
            }
        }
    }
}

/// One that does is enough: the others are not waited for. Errors: how many were asked in vain.
async fn any_answers(drivers: &[Arc<dyn Driver>]) -> pulse::Outcome {
    let ask = |driver: Arc<dyn Driver>| async move {
        let answered = driver.answers().await;
        answered.map_or_else(Survey::from, |()| Survey::default())
    };
    let asked = ask_until(drivers, ask, |answer| answer.faults.is_empty()).await;
    let none = !drivers.is_empty() && asked.faults.len() == drivers.len();
    if none { Err(drivers.len()) } else { Ok(()) }
}

async fn find(drivers: &[Arc<dyn Driver>], wanted: &InstanceRef) -> Survey {
    let asked = Arc::new(wanted.clone());
    let named = Arc::clone(&asked);
    let ask = |driver: Arc<dyn Driver>| {
        let asked = Arc::clone(&asked);
        async move { driver.find(&asked).await }
    };
    ask_until(drivers, ask, move |survey| has_running(survey, &named)).await
}

fn has_running(survey: &Survey, wanted: &InstanceRef) -> bool {
    let mut found = survey.instances.iter();
    found.any(|it| it.state != PowerState::Off && is(it, wanted))
}

async fn picture(driver: &dyn Driver, id: InstanceId) -> Result<Option<Picture>, Fault> {
    let taken = timeout(driver.patience(), driver.screenshot(id)).await;
    let taken = taken.unwrap_or_else(|_| Err(driver::silent(driver.source())))?;
    let picture = taken.map(Picture::from_hypervisor).transpose();
    picture.map_err(|bad| driver::fault(driver.source(), &bad))
}

async fn meeting(
    driver: &dyn Driver,
    instance: &Instance,
    kind: ConsoleKind,
) -> Result<Option<Meeting>, Fault> {
    let told = timeout(driver.patience(), driver.meeting(instance, kind)).await;
    told.unwrap_or_else(|_| Err(driver::silent(driver.source())))
}

async fn kept(driver: &dyn Driver, id: InstanceId) -> Result<Option<Vec<u8>>, Fault> {
    let kept = timeout(driver.patience(), driver.console_log(id)).await;
    kept.unwrap_or_else(|_| Err(driver::silent(driver.source())))
}

/// One instance per id: the first that runs, else the first.
fn merge(survey: Survey) -> Survey {
    let mut instances: Vec<Instance> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for instance in survey.instances {
        let place = *places.entry(instance.id).or_insert(instances.len());
        match instances.get_mut(place) {
            None => instances.push(instance),
            Some(known) if runs(&instance) && !runs(known) => *known = instance,
            Some(_) => {}
        }
    }
    Survey {
        instances,
        faults: survey.faults,
    }
}

fn runs(instance: &Instance) -> bool {
    instance.state == PowerState::Running
}

/// By what the hypervisor calls it, not by what people do.
fn is(instance: &Instance, wanted: &InstanceRef) -> bool {
    match wanted {
        InstanceRef::Id(id) => instance.id == *id,
        InstanceRef::Name(name) => instance.name == *name,
    }
}

fn choose(wanted: &InstanceRef, found: Survey) -> Result<Instance, ComputeError> {
    let name = wanted.to_string();
    let (mut first, other): (Vec<_>, Vec<_>) =
        found.instances.into_iter().partition(|it| is(it, wanted));
    if first.is_empty() {
        first = other;
    }
    let candidates = first.iter().map(|it| it.id).collect();
    match (first.pop(), first.is_empty()) {
        (Some(instance), true) => Ok(instance),
        (Some(_), false) => Err(ComputeError::Ambiguous { name, candidates }),
        (None, _) => Err(match found.faults.into_iter().next() {
            Some(fault) => ComputeError::Source { name, fault },
            None => ComputeError::NoSuchInstance { name },
        }),
    }
}

fn target(instance: &Instance, kind: ConsoleKind) -> Result<&Target, ComputeError> {
    let name = || instance.shown_name().to_owned();
    let Some(console) = instance.console(kind) else {
        return Err(ComputeError::NoSuchConsole {
            name: name(),
            kind,
            has: kinds(instance),
        });
    };
    if instance.state == PowerState::Off {
        return Err(ComputeError::Off { name: name() });
    }
    let no_address = || ComputeError::NoAddress { name: name(), kind };
    console.target.as_ref().ok_or_else(no_address)
}

fn kinds(instance: &Instance) -> Vec<ConsoleKind> {
    let mut kinds: Vec<_> = instance.consoles.iter().map(|it| it.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}
