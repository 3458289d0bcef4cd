//! The compute role: where an instance's console is, now.
//!
//! Asked by the api when a URL is made ([`Client::locate`]) and by the proxy right before it dials
//! ([`Client::recheck`]). Resolves afresh each time and never hands back what it was told, because
//! a port may have become another instance's since (CVE-2013-0335). Knows its drivers, no token
//! and no viewer.

mod claim;
mod display;
pub mod domain;
pub mod driver;
mod fleet;
mod hand_out;
mod log;
mod observer;
mod picture;
mod pulse;
mod tunnels;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::drain::Watch;
use crate::live::Live;
use crate::model::{
    Address, Binding, ConsoleKind, ConsoleType, Grant, Instance, InstanceId, InstanceRef, Meeting,
    PowerState, Target,
};
use crate::rpc::{Client, Cursor, Feed, HOLD, News, Role, Unreachable};
use driver::{BoxFuture, Changes, Driver, ask_all, ask_until};
use pulse::Pulse;

pub use display::{Display, Displays, Line, Tunnelled};
pub use driver::{Change, Fault, Survey};
pub use fleet::{Fleet, HostNews, Told};
pub use hand_out::{HandOut, Opened};
pub use log::ConsoleLog;
pub use picture::{BadPicture, Picture};
pub use tunnels::{TunnelNews, Tunnels};

/// The role: some drivers, in the order in which they count.
#[derive(Clone, Debug)]
pub struct Compute {
    drivers: Drivers,
    /// What became of instances, as far as sources tell.
    changes: Changes,
    pulse: Pulse,
}

/// Those of a [`Fleet`] come and go.
type Drivers = Live<Vec<Arc<dyn Driver>>>;

/// What compute can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Where is this console?
    Locate {
        /// Of which instance.
        instance: InstanceRef,
        /// Which console.
        console_type: ConsoleType,
    },
    /// Where is it now?
    Recheck {
        /// Of which instance.
        instance: InstanceId,
        /// Which console.
        console_type: ConsoleType,
        /// Where it was.
        stored: Target,
    },
    /// Does any source answer?
    Ready,
    /// What is there?
    Instances,
    /// What is known of this one?
    Instance {
        /// Which.
        instance: InstanceRef,
    },
    /// What does its screen show?
    Screenshot {
        /// Whose.
        instance: InstanceRef,
    },
    /// How is the server behind a console to be met?
    Meeting {
        /// Whose.
        instance: InstanceId,
        /// Which console.
        kind: ConsoleKind,
    },
    /// Which running instances hold a door of this target?
    Claimants(Target),
    /// Which instances came, went, started, stopped or changed? Held until there is one, or for a
    /// while.
    Changes(Option<Cursor>),
    /// What did it write to its serial line?
    ConsoleLog {
        /// Whose.
        instance: InstanceRef,
        /// The last so many lines alone.
        lines: Option<u32>,
    },
}

/// What compute answers, one for each request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To `Locate`.
    Located(Located),
    /// To `Recheck`.
    Target(Target),
    /// To `Ready`.
    Ready,
    /// To `Instances` and `Claimants`.
    Instances(Survey),
    /// To `Instance`.
    Instance(Instance),
    /// To `Screenshot`.
    Screenshot(Picture),
    /// To `Meeting`.
    Meeting(Box<Meeting>),
    /// To `Changes`.
    Changes(News<Change>),
    /// To `ConsoleLog`.
    ConsoleLog(ConsoleLog),
}

/// A console that can be reached.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Located {
    /// Whose it is.
    pub instance: Instance,
    /// Where it is.
    pub target: Target,
}

/// Why a console cannot be reached, each with what to do about it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum ComputeError {
    /// All sources were read and none has it.
    #[error("there is no instance `{name}`, see `vncgate instance list` for those there are")]
    NoSuchInstance {
        /// As it was asked for.
        name: String,
    },
    /// Several instances have this name.
    #[error(
        "`{name}` is the name of several instances, use the UUID: {}",
        listed(candidates, ", ")
    )]
    Ambiguous {
        /// As it was asked for.
        name: String,
        /// Those it could mean.
        candidates: Vec<InstanceId>,
    },
    /// It does not run.
    #[error("`{name}` is off, start it and try again")]
    Off {
        /// Its name.
        name: String,
    },
    /// It has no console of this kind.
    #[error("`{name}` has no {kind} console, {}", offer(has))]
    NoSuchConsole {
        /// Its name.
        name: String,
        /// What was asked for.
        kind: ConsoleKind,
        /// What it has.
        has: Vec<ConsoleKind>,
    },
    /// Nobody can take a picture of it.
    #[error("nobody takes pictures of `{name}`: it has no screen, or no libvirt that may do it")]
    NoPicture {
        /// Its name.
        name: String,
    },
    /// Nobody keeps what it writes.
    #[error("nobody keeps a log of `{name}`: its XML names no `<log file=...>` on this machine")]
    NoLog {
        /// Its name.
        name: String,
    },
    /// It runs, but this console listens nowhere (yet).
    #[error("the {kind} console of `{name}` has no address yet, try again in a moment")]
    NoAddress {
        /// Its name.
        name: String,
        /// What was asked for.
        kind: ConsoleKind,
    },
    /// Two running instances say they have the address, and only one can be right.
    #[error(
        "{address} of `{instance}` is claimed by `{other}` too; remove whichever entry or XML file is outdated"
    )]
    Claimed {
        /// The address.
        address: Address,
        /// Who was asked for.
        instance: String,
        /// Who else says so.
        other: String,
    },
    /// It was not found, but not everything could be read either.
    #[error("`{name}` was not found, but it may be where this failed: {fault}")]
    Source {
        /// As it was asked for.
        name: String,
        /// The first thing that could not be read.
        fault: Fault,
    },
    /// Its hypervisor, or its own machine, cannot open it.
    #[error("the console of `{name}` cannot be opened on its own machine: {fault}")]
    NotOpened {
        /// Its name.
        name: String,
        /// Where it should be, or whose hand it should come from, and why not.
        fault: Fault,
    },
    /// Its machine carries as many consoles as it may.
    #[error(
        "the host of `{name}` carries {most} consoles already (rpc.max_tunnels), close one and try again"
    )]
    Crowded {
        /// Its name.
        name: String,
        /// How many it may carry.
        most: usize,
    },
    /// Of so many sources none answers.
    #[error("{0} sources cannot be read")]
    Unready(usize),
    /// The role did not answer.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

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

    async fn locate(
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
    async fn instance(&self, wanted: &InstanceRef) -> Result<Instance, ComputeError> {
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
    async fn meeting(&self, id: InstanceId, kind: ConsoleKind) -> Result<Meeting, ComputeError> {
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

/// What the api and the proxy ask. Every call is cancel-safe and changes nothing.
impl Client<Compute> {
    /// Where the console is that a person asks for. Errors: all.
    pub async fn locate(
        &self,
        instance: InstanceRef,
        console_type: ConsoleType,
    ) -> Result<Located, ComputeError> {
        let request = Request::Locate {
            instance,
            console_type,
        };
        match self.call(request).await? {
            Reply::Located(located) => Ok(located),
            other => Err(stray(&other)),
        }
    }

    /// Where the console of a grant is now; dial this, not `stored`. Errors: all but `Ambiguous`.
    pub async fn recheck(
        &self,
        instance: InstanceId,
        console_type: ConsoleType,
        stored: Target,
    ) -> Result<Target, ComputeError> {
        let request = Request::Recheck {
            instance,
            console_type,
            stored,
        };
        match self.call(request).await? {
            Reply::Target(target) => Ok(target),
            other => Err(stray(&other)),
        }
    }

    /// Where the console of a grant is now; dial this. What somebody else's token stands for is
    /// checked as far as its instance is known here. Errors: as of `recheck`.
    pub async fn current(&self, grant: &Grant) -> Result<Target, ComputeError> {
        let stored = grant.target.clone();
        let current = self.recheck(grant.instance, grant.console_type, stored.clone());
        match (current.await, grant.binding) {
            (Err(ComputeError::NoSuchInstance { .. }), Binding::Target) => Ok(stored),
            (current, _) => current,
        }
    }

    /// Whether any source answers; what was found is remembered there for a second. Errors:
    /// `Unready`, `Unreachable`.
    pub async fn ready(&self) -> Result<(), ComputeError> {
        match self.call(Request::Ready).await? {
            Reply::Ready => Ok(()),
            other => Err(stray(&other)),
        }
    }

    /// All instances, and what could not be read. Errors: `Unreachable`.
    pub async fn instances(&self) -> Result<Survey, ComputeError> {
        match self.call(Request::Instances).await? {
            Reply::Instances(survey) => Ok(survey),
            other => Err(stray(&other)),
        }
    }

    /// The running instances that hold a door of `target`. Errors: `Unreachable`.
    pub async fn claimants(&self, target: Target) -> Result<Survey, ComputeError> {
        match self.call(Request::Claimants(target)).await? {
            Reply::Instances(survey) => Ok(survey),
            other => Err(stray(&other)),
        }
    }

    /// What an instance's screen shows now. Errors: `NoSuchInstance`, `Ambiguous`, `Off`,
    /// `NoPicture`, `Source`, `Unreachable`.
    pub async fn screenshot(&self, instance: InstanceRef) -> Result<Picture, ComputeError> {
        match self.call(Request::Screenshot { instance }).await? {
            Reply::Screenshot(picture) => Ok(picture),
            other => Err(stray(&other)),
        }
    }

    /// How the server behind a console is to be met; holds a secret. Errors: `NoSuchInstance`,
    /// `Source`, `Unreachable`.
    pub async fn meeting(
        &self,
        instance: InstanceId,
        kind: ConsoleKind,
    ) -> Result<Meeting, ComputeError> {
        match self.call(Request::Meeting { instance, kind }).await? {
            Reply::Meeting(meeting) => Ok(*meeting),
            other => Err(stray(&other)),
        }
    }

    /// What became of instances since `cursor`, as far as sources tell: waits up to [`HOLD`] for
    /// something. One that ended may be back already, or somewhere else. Errors: `Unreachable`.
    pub async fn changes(&self, cursor: Option<Cursor>) -> Result<News<Change>, ComputeError> {
        match self.call(Request::Changes(cursor)).await? {
            Reply::Changes(news) => Ok(news),
            other => Err(stray(&other)),
        }
    }

    /// The last `lines` (or all that is kept, at most 100 KiB) of what an instance wrote to its
    /// serial line, running or not. Untrusted text. Errors: `NoSuchInstance`, `Ambiguous`, `NoLog`,
    /// `Source`, `Unreachable`.
    pub async fn console_log(
        &self,
        instance: InstanceRef,
        lines: Option<u32>,
    ) -> Result<ConsoleLog, ComputeError> {
        match self.call(Request::ConsoleLog { instance, lines }).await? {
            Reply::ConsoleLog(log) => Ok(log),
            other => Err(stray(&other)),
        }
    }

    /// One instance, running or not. Errors: `NoSuchInstance`, `Ambiguous`, `Source`,
    /// `Unreachable`.
    pub async fn instance(&self, instance: InstanceRef) -> Result<Instance, ComputeError> {
        match self.call(Request::Instance { instance }).await? {
            Reply::Instance(instance) => Ok(instance),
            other => Err(stray(&other)),
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

/// An answer to another question: that is not the role we know.
fn stray(reply: &Reply) -> ComputeError {
    tracing::error!(?reply, "compute answered another question");
    Unreachable::stray(Compute::NAME).into()
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

fn offer(has: &[ConsoleKind]) -> String {
    if has.is_empty() {
        return "nor any other".to_owned();
    }
    format!("it has: {}", listed(has, ", "))
}

fn listed(items: &[impl ToString], between: &str) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(between)
}

#[cfg(test)]
mod tests;
