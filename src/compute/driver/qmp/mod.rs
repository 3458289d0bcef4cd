//! Instances of QEMUs that run without libvirt, from their own monitors (QMP).
//!
//! Each look-up asks every monitor afresh, all at once. A monitor serves one client at a time, so
//! talks are short, and look-ups that waited together share one. One that does not answer is a
//! fault of its own, and is given little time until it answers again. A socket that nobody listens
//! on is a QEMU that does not run.

mod answer;
mod monitor;
mod picture;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{BoxFuture, Driver, Fault, Pictured, Survey, fault};
use crate::compute::claim::claims;
use crate::model::{Host, Instance, InstanceId, PowerState, Target};
use monitor::{Monitor, Trouble};

/// A monitor answers in a millisecond; a QEMU that waits for its disks may take longer. Two in a
/// row stay below [`super::DEADLINE`].
const DEADLINE: Duration = Duration::from_secs(2);

/// What is left to a monitor that did not answer last time, so that a QEMU that is stopped, or
/// whose monitor is another program's, delays nobody else's console for long.
const SECOND_CHANCE: Duration = Duration::from_millis(250);

/// Monitors that are asked at one time: each is a descriptor, of which there may be 1,024.
const MAX_TALKS: usize = 128;

/// A monitor's socket, or a directory of such.
#[derive(Debug)]
pub struct Qmp {
    site: Arc<Site>,
    desks: Arc<Mutex<Desks>>,
    talks: Arc<Semaphore>,
}

/// What all monitors of one driver have in common.
#[derive(Debug)]
struct Site {
    source: String,
    path: PathBuf,
    /// Where wildcard listeners are reached.
    here: Host,
}

/// What is known of each socket that there was at the last look-up.
type Desks = BTreeMap<PathBuf, Arc<Desk>>;

impl Qmp {
    /// `path` is a socket, or a directory in which the sockets called `*.qmp` and `*qmp.sock`
    /// count; others there may be displays or serial lines, which a mere connection disturbs. What
    /// is missing does not run. `here` stands for listen addresses such as `0.0.0.0`.
    pub fn new(path: PathBuf, here: Host) -> Self {
        let source = path.display().to_string();
        Self {
            site: Arc::new(Site { source, path, here }),
            desks: Arc::default(),
            talks: Arc::new(Semaphore::new(MAX_TALKS)),
        }
    }

    async fn look(&self) -> Survey {
        let answers = match self.ask().await {
            Ok(answers) => answers,
            Err(error) => return fault(self.source(), &error).into(),
        };
        let mut survey = Survey::default();
        for (desk, answer) in answers {
            match answer {
                Ok(instance) => survey.instances.extend(instance),
                Err(why) => survey.faults.push(desk.fault(&why)),
            }
        }
        survey
    }

    /// What each monitor says, in the order of their names.
    async fn ask(&self) -> io::Result<Vec<(Arc<Desk>, Answer)>> {
        let desks = self.desks().await?;
        let mut talks = JoinSet::new();
        for (place, desk) in desks.into_iter().enumerate() {
            let slots = Arc::clone(&self.talks);
            talks.spawn(async move {
                let _slot = slots.acquire().await;
                let answer = desk.ask().await;
                (place, desk, answer)
            });
        }
        let mut answers = talks.join_all().await;
        answers.sort_unstable_by_key(|(place, ..)| *place);
        let answers = answers.into_iter().map(|(_, desk, answer)| (desk, answer));
        Ok(answers.collect())
    }

    async fn picture(&self, instance: InstanceId) -> Pictured {
        let answers = self.ask().await;
        let answers = answers.map_err(|error| fault(self.source(), &error))?;
        let is_it = |it: &Instance| it.id == instance && it.state != PowerState::Off;
        let mut its = answers.into_iter().filter(|(_, answer)| match answer {
            Ok(Some(found)) => is_it(found),
            Ok(None) | Err(_) => false,
        });
        match its.next() {
            Some((desk, _)) => desk.picture().await.map(Some),
            None => Ok(None),
        }
    }

    /// The lock goes to the thread, so that a directory that hangs costs one.
    async fn desks(&self) -> io::Result<Vec<Arc<Desk>>> {
        let mut desks = Arc::clone(&self.desks).lock_owned().await;
        let site = Arc::clone(&self.site);
        let listed = tokio::task::spawn_blocking(move || {
            let mut before = std::mem::take(&mut *desks);
            for socket in sockets(&site.path)? {
                let desk = before.remove(&socket);
                let desk = desk.unwrap_or_else(|| Arc::new(Desk::of(&site, &socket)));
                desks.insert(socket, desk);
            }
            Ok(desks.values().cloned().collect())
        });
        listed.await.map_err(io::Error::other).flatten()
    }
}

impl Driver for Qmp {
    fn source(&self) -> &str {
        &self.site.source
    }

    fn survey(&self) -> BoxFuture<'_, Survey> {
        Box::pin(self.look())
    }

    fn screenshot(&self, instance: InstanceId) -> BoxFuture<'_, Pictured> {
        Box::pin(self.picture(instance))
    }

    fn claimants<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Survey> {
        Box::pin(async move { self.look().await.only(|it| claims(it, target)) })
    }
}

fn sockets(path: &Path) -> io::Result<Vec<PathBuf>> {
    let kind = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?.file_type(),
    };
    if kind.is_socket() {
        return Ok(vec![path.to_owned()]);
    }
    if !kind.is_dir() {
        return Err(io::Error::other("is neither a socket nor a directory"));
    }
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if is_monitor(&path) && std::fs::metadata(&path).is_ok_and(|it| it.file_type().is_socket())
        {
            sockets.push(path);
        }
    }
    Ok(sockets)
}

fn is_monitor(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let named = name.ends_with(b".qmp") || name.ends_with(b"qmp.sock");
    named && !name.starts_with(b".")
}

/// Where one monitor is asked, by one look-up at a time.
#[derive(Debug)]
struct Desk {
    site: Arc<Site>,
    socket: PathBuf,
    /// The file's name and a space, where the source is not the socket itself.
    name: String,
    /// How many look-ups have ever come.
    arrivals: AtomicU64,
    last: Mutex<Last>,
}

/// What the monitor said last.
#[derive(Debug)]
struct Last {
    /// Look-ups that came before this one are answered by what is here.
    covered: u64,
    answer: Answer,
    /// What it said when it last said anything, to tell a QEMU that is off from one never seen.
    known: Option<Instance>,
    patience: Duration,
}

/// Nothing where nobody listens; else why it told nothing.
type Answer = Result<Option<Instance>, String>;

impl Desk {
    fn of(site: &Arc<Site>, socket: &Path) -> Self {
        let name = socket.file_name().filter(|_| site.path != socket);
        let last = Last {
            covered: 0,
            answer: Ok(None),
            known: None,
            patience: DEADLINE,
        };
        Self {
            site: Arc::clone(site),
            socket: socket.to_owned(),
            name: name.map_or_else(String::new, |name| format!("{} ", name.display())),
            arrivals: AtomicU64::default(),
            last: Mutex::new(last),
        }
    }

    fn fault(&self, why: &dyn Display) -> Fault {
        fault(&self.site.source, &format_args!("{}{why}", self.name))
    }

    /// Look-ups of this monitor wait meanwhile, as they would at the monitor itself.
    async fn picture(&self) -> Result<Vec<u8>, Fault> {
        let _last = self.last.lock().await;
        let talk = async {
            let mut monitor = Monitor::open(&self.socket).await?;
            picture::take(&mut monitor).await
        };
        let taken = timeout(DEADLINE, talk).await;
        let taken = taken.unwrap_or(Err(Trouble::Silent));
        taken.map_err(|trouble| self.fault(&trouble))
    }

    /// What the monitor says now, or said to another look-up that began after this one came.
    async fn ask(&self) -> Answer {
        let ticket = self.arrivals.fetch_add(1, Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if ticket >= last.covered {
            let covered = self.arrivals.load(Ordering::SeqCst);
            let answer = timeout(last.patience, self.talk()).await;
            // Nothing is awaited from here on: who is dropped leaves the last answer whole.
            last.covered = covered;
            last.patience = answer.as_ref().map_or(SECOND_CHANCE, |_| DEADLINE);
            last.take_in(answer.unwrap_or(Err(Trouble::Silent)));
        }
        last.answer.clone()
    }

    async fn talk(&self) -> Result<Instance, Trouble> {
        let mut monitor = Monitor::open(&self.socket).await?;
        let answers = monitor.ask(&answer::questions()).await?;
        let Site { source, here, .. } = &*self.site;
        answer::instance(answers, &self.socket, here, source).map_err(Trouble::Senseless)
    }
}

impl Last {
    fn take_in(&mut self, answer: Result<Instance, Trouble>) {
        self.answer = match answer {
            Ok(instance) => {
                self.known = Some(instance.clone());
                Ok(Some(instance))
            }
            Err(Trouble::Gone) => Ok(self.known.clone().map(answer::off)),
            Err(trouble) => Err(trouble.to_string()),
        };
    }
}

#[cfg(test)]
mod tests;
