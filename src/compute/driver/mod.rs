//! The ways to learn of instances: a list in the config, directories of XML, QEMU's own monitors,
//! what this machine has.
//!
//! The role asks all drivers at once and gives each its own time. A driver answers afresh each
//! time, never from what it once knew, and reports what it could not read beside what it could.

mod directory;
mod discover;
mod elsewhere;
mod fixed;
pub mod libvirt;
mod qmp;

use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use directory::Directory;
pub use discover::Discover;
pub use elsewhere::{Elsewhere, Host};
pub use fixed::{BadEntry, Entry, Fixed};
pub use qmp::Qmp;

use super::display::Display;
use crate::drain::Watch;
use crate::model::{ConsoleKind, Instance, InstanceId, InstanceRef, Meeting, Target};
use crate::rpc::Feed;

/// What happened to instances, for those who want to know.
pub type Changes = Arc<Feed<Change>>;

/// Something happened to an instance: it came, went, started, stopped or is another now. Look at it
/// to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub instance: InstanceId,
    /// Whether it ran until now and its hypervisor says that it does not any more.
    pub ended: bool,
}

/// What an async method of a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How long one driver may take for one question. A look-up asks two, one after the other, inside
/// the 15 s of a call.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// How long the other drivers have once one has found what was asked for: two names that are the
/// same should be noticed wherever both hypervisors are well.
const GRACE: Duration = Duration::from_millis(250);

/// How many are asked at one time: more would not be answered sooner.
const AT_ONCE: usize = 128;

/// One way to learn of instances.
pub trait Driver: Send + Sync + fmt::Debug {
    /// For people: `config`, `demo`, a directory's path.
    fn source(&self) -> &str;

    /// Does on its own what it has to, such as to keep a connection; ends with `watch`. Tells
    /// `changes` of what its hypervisor tells. Called once, before anything is asked.
    fn start(&self, _watch: &Watch, _changes: &Changes) {}

    /// Whether it tells nothing by itself, and is cheap enough to be looked at all the time.
    fn wants_watching(&self) -> bool {
        false
    }

    /// How long it may take to answer.
    fn patience(&self) -> Duration {
        DEADLINE
    }

    /// Whether it has what `wanted` could mean, as far as that is known without asking: who surely
    /// has it not is asked last.
    fn knows(&self, _wanted: &InstanceRef) -> Option<bool> {
        None
    }

    /// Whether it is the one that told of `instance`.
    fn is_home(&self, instance: &Instance) -> bool {
        self.source() == instance.source
    }

    /// Whether it can be asked at all. Worth its own answer where that is known, or cheaper than all
    /// instances. Cancel-safe.
    fn answers(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            let Survey { instances, faults } = self.survey().await;
            let fault = faults.into_iter().next().filter(|_| instances.is_empty());
            fault.map_or(Ok(()), Err)
        })
    }

    /// All instances it knows, and one sentence per thing it could not read. Cancel-safe.
    fn survey(&self) -> BoxFuture<'_, Survey>;

    /// The instances that `wanted` could mean: by id, by the hypervisor's name or by the name
    /// people gave. Worth its own answer where one instance is cheaper than all. Cancel-safe.
    fn find<'a>(&'a self, wanted: &'a InstanceRef) -> BoxFuture<'a, Survey> {
        Box::pin(async move { self.survey().await.only(|it| is_meant(it, wanted)) })
    }

    /// The running instances that hold a door of `target`, as far as a hypervisor said so. None
    /// where people wrote the addresses themselves and may repeat them. Cancel-safe.
    fn claimants<'a>(&'a self, _target: &'a Target) -> BoxFuture<'a, Survey> {
        Box::pin(async { Survey::default() })
    }

    /// A running instance's console, if the hypervisor hands such over: a stream that needs no
    /// address, and that belongs to this instance whatever became of its address. Cancel-safe.
    fn open_display(&self, _instance: InstanceId, _kind: ConsoleKind) -> BoxFuture<'_, Handed> {
        Box::pin(async { Ok(None) })
    }

    /// How the server behind a console of a running instance is to be met, where this driver has
    /// something to say of it. Cancel-safe.
    fn meeting<'a>(&'a self, _instance: &'a Instance, _kind: ConsoleKind) -> BoxFuture<'a, Met> {
        Box::pin(async { Ok(None) })
    }

    /// What a running instance shows now. Cancel-safe.
    fn screenshot(&self, _instance: InstanceId) -> BoxFuture<'_, Pictured> {
        Box::pin(async { Ok(None) })
    }

    /// The end of what an instance wrote to its serial line, running or not. Cancel-safe.
    fn console_log(&self, _instance: InstanceId) -> BoxFuture<'_, Logged> {
        Box::pin(async { Ok(None) })
    }
}

/// What [`Driver::open_display`] gives: nothing from a driver that does not know the instance or
/// cannot hand over this console.
pub type Handed = Result<Option<Display>, Unopened>;

/// Why [`Driver::open_display`] gives nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unopened {
    /// It could not be asked, or it failed.
    Failed(Fault),
    /// The machine carries as many consoles as it may: so many.
    Crowded(usize),
}

impl From<Fault> for Unopened {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

/// What [`Driver::meeting`] gives: nothing from a driver that does not know the instance, or knows
/// no more than where it is.
pub type Met = Result<Option<Meeting>, Fault>;

/// What [`Driver::screenshot`] gives: nothing from a driver that does not know the instance or
/// takes no pictures. PPM will do, too.
pub type Pictured = Result<Option<Vec<u8>>, Fault>;

/// What [`Driver::console_log`] gives: nothing from a driver that does not know the instance, or
/// for which nobody keeps a log on this machine. At most 100 KiB.
pub type Logged = Result<Option<Vec<u8>>, Fault>;

/// What a driver, or all of them, found.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// The instances, in the order of the drivers.
    pub instances: Vec<Instance>,
    /// What could not be read; instances may be missing because of it.
    pub faults: Vec<Fault>,
}

/// Something that could not be read.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Which driver, in its own words: [`Driver::source`].
    pub source: String,
    /// What is wrong, naming the file if there is one.
    pub why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.why)
    }
}

impl From<Fault> for Survey {
    fn from(fault: Fault) -> Self {
        Self {
            instances: Vec::new(),
            faults: vec![fault],
        }
    }
}

impl Survey {
    fn only(mut self, keep: impl FnMut(&Instance) -> bool) -> Self {
        self.instances.retain(keep);
        self
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.instances.extend(other.instances);
        self.faults.extend(other.faults);
    }
}

/// Asks all drivers at once; a driver that hangs or panics becomes a fault of its own.
pub(super) async fn ask_all<F, Answer>(drivers: &[Arc<dyn Driver>], ask: F) -> Survey
where
    F: Fn(Arc<dyn Driver>) -> Answer,
    Answer: Future<Output = Survey> + Send + 'static,
{
    ask_until(drivers, ask, |_| false).await
}

/// The same; once an answer is `enough`, the others have no more than [`GRACE`]: a hypervisor that
/// hangs must not hold up what is on another.
pub(super) async fn ask_until<F, Answer>(
    drivers: &[Arc<dyn Driver>],
    ask: F,
    enough: impl Fn(&Survey) -> bool + Clone + Send + 'static,
) -> Survey
where
    F: Fn(Arc<dyn Driver>) -> Answer,
    Answer: Future<Output = Survey> + Send + 'static,
{
    let found = CancellationToken::new();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let start = |driver: &Arc<dyn Driver>| {
        let (patience, asking) = (driver.patience(), ask(Arc::clone(driver)));
        let (found, enough) = (found.clone(), enough.clone());
        let places = Arc::clone(&places);
        Asked::begin(Box::pin(async move {
            let answer = timeout(patience, async {
                let _place = places.acquire().await;
                asking.await
            });
            let answer = answer.await.ok();
            if answer.as_ref().is_some_and(enough) {
                found.cancel();
            }
            answer
        }))
    };
    let asked: Vec<_> = drivers.iter().map(start).collect();
    let mut end = pin!(async {
        found.cancelled().await;
        sleep(GRACE).await;
    });
    let mut ended = false;
    let mut all = Survey::default();
    for (driver, mut answer) in drivers.iter().zip(asked) {
        let answer = if ended && !answer.is_finished() {
            None
        } else {
            tokio::select! {
                biased;
                answer = answer.get() => Some(answer),
                () = &mut end, if !ended => None,
            }
        };
        ended |= answer.is_none();
        all.extend(match answer {
            Some(Ok(Some(survey))) => survey,
            Some(Ok(None)) => silent(driver.source()).into(),
            Some(Err(panic)) => fault(driver.source(), &panic).into(),
            None => fault(driver.source(), &"was not waited for").into(),
        });
    }
    all
}

/// A driver that was asked.
enum Asked {
    /// It knew at once, which needs no task.
    Answered(Told),
    Asking(AbortOnDropHandle<Option<Survey>>),
}

/// What a driver says; nothing if it was not in time, and an error if it panicked.
type Told = Result<Option<Survey>, String>;

impl Asked {
    fn begin(mut asking: BoxFuture<'static, Option<Survey>>) -> Self {
        let mut nobody = Context::from_waker(Waker::noop());
        // The task polls it again.
        let begun = AssertUnwindSafe(|| asking.as_mut().poll(&mut nobody));
        match catch_unwind(begun) {
            Ok(Poll::Ready(answer)) => Self::Answered(Ok(answer)),
            Ok(Poll::Pending) => Self::Asking(AbortOnDropHandle::new(tokio::spawn(asking))),
            Err(_panic) => Self::Answered(Err("panicked".to_owned())),
        }
    }

    fn is_finished(&self) -> bool {
        match self {
            Self::Answered(_) => true,
            Self::Asking(asking) => asking.is_finished(),
        }
    }

    /// Once; cancel-safe until then.
    async fn get(&mut self) -> Told {
        match self {
            Self::Answered(told) => mem::replace(told, Ok(None)),
            Self::Asking(asking) => asking.await.map_err(|panic| panic.to_string()),
        }
    }
}

/// Reads the log that a domain's XML names, away from the threads that everything runs on.
async fn read_log(source: &str, path: Option<PathBuf>) -> Logged {
    let Some(path) = path else {
        return Ok(None);
    };
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || super::log::read(&path)).await;
    let read = read.map_err(std::io::Error::other).flatten();
    read.map_err(|why| {
        fault(
            source,
            &format_args!("the log {shown} cannot be read: {why}"),
        )
    })
}

pub(super) fn silent(source: &str) -> Fault {
    let why = format_args!("did not answer within {} s", DEADLINE.as_secs());
    fault(source, &why)
}

pub(super) fn fault(source: &str, why: &dyn fmt::Display) -> Fault {
    Fault {
        source: source.to_owned(),
        why: why.to_string(),
    }
}

fn is_meant(instance: &Instance, wanted: &InstanceRef) -> bool {
    match wanted {
        InstanceRef::Id(id) => instance.id == *id,
        InstanceRef::Name(name) => {
            instance.name == *name || instance.display_name.as_ref() == Some(name)
        }
    }
}
