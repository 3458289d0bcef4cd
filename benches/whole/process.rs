//! What a relay's processes cost, as the kernel counts it, and where they may run.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Two processes at most and all their children; or none, which costs nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree(pub(crate) [Option<u32>; 2]);

impl Tree {
    /// The seconds of processor used so far, by all children, living or waited for.
    pub(crate) fn cpu_seconds(self) -> Result<f64> {
        let ticks_each = rustix::param::clock_ticks_per_second();
        let mut seconds = 0.0;
        for process in self.processes()? {
            seconds += float(process.waited_ticks) / float(ticks_each);
            seconds += float(scheduled_ns(process.pid)) / 1e9;
        }
        Ok(seconds)
    }

    /// The memory in use, shared pages divided by their users.
    pub(crate) fn memory_kib(self) -> Result<f64> {
        self.pages_kib("Pss:")
    }

    /// That part of it which is no page of a file, such as of the program itself.
    pub(crate) fn own_memory_kib(self) -> Result<f64> {
        self.pages_kib("Pss_Anon:")
    }

    fn pages_kib(self, which: &str) -> Result<f64> {
        let mut kib = 0;
        for process in self.processes()? {
            let path = format!("/proc/{}/smaps_rollup", process.pid);
            // A child may have ended since.
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(which));
            let number = line.and_then(|line| line.split_whitespace().next());
            kib += number.map_or(Ok(0), str::parse::<u64>)?;
        }
        Ok(float(kib))
    }

    fn processes(self) -> Result<Vec<Process>> {
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let process = name.to_str().and_then(|name| name.parse().ok());
            all.extend(process.and_then(Process::look));
        }
        let mut tree: Vec<Process> = Vec::new();
        let mut wanted: Vec<u32> = self.0.into_iter().flatten().collect();
        while let Some(pid) = wanted.pop() {
            let children = all.iter().filter(|process| process.parent == pid);
            wanted.extend(children.map(|process| process.pid));
            tree.extend(all.iter().find(|process| process.pid == pid));
        }
        Ok(tree)
    }
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug)]
struct Process {
    pid: u32,
    parent: u32,
    /// Processor time of children that have ended.
    waited_ticks: u64,
}

impl Process {
    fn look(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in brackets that may hold anything.
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            pid,
            parent: u32::try_from(number(1)?).ok()?,
            waited_ticks: number(13)? + number(14)?,
        })
    }
}

/// Processor time of all threads of a process, which is finer than ticks.
fn scheduled_ns(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let each = threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
    each.sum()
}

/// Gives what this thread starts from now on the relay's processor.
pub(crate) fn pin_relay(pinned: bool) -> Result<()> {
    if pinned {
        pin(processors() - 1)
    } else {
        Ok(())
    }
}

/// Gives this thread, and what it starts from now on, the clients' processor.
pub(crate) fn pin_load(pinned: bool) -> Result<()> {
    if pinned { pin(0) } else { Ok(()) }
}

fn pin(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).context("cannot choose a processor")
}

/// Puts this thread before others of its processor, as far as that is allowed: what measures time
/// must not wait for what makes load.
pub(crate) fn hurry() {
    let _not_allowed = setpriority_process(None, -10).is_err();
}

/// How many processors the machine has, whatever this process may use.
pub(crate) fn processors() -> usize {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let each = text.lines().filter(|line| line.starts_with("processor"));
    each.count().max(1)
}

/// Thousands of sessions need twice as many descriptors here alone.
pub(crate) fn raise_descriptor_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("the limit on open files")
}

/// A figure for people, far below 2^52.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "figures are rounded"
)]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

/// The machine in some words.
pub(crate) fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (model, kernel) = (model.unwrap_or("unknown processor"), kernel.trim());
    format!("{} x {model}, Linux {kernel}", processors())
}
