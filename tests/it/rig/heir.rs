//! A process that took over from another one. It is nobody's child, so it is killed by its id.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::gateway::Answer;

/// One that runs until it ends by itself, or this is dropped.
#[derive(Debug)]
pub(crate) struct Heir(i32);

impl Heir {
    /// The one that `vncgate upgrade -o json` tells of.
    #[track_caller]
    pub(crate) fn told_by(upgrade: &Answer) -> Self {
        let pid = upgrade.json()["pid"].as_i64().unwrap();
        Self(i32::try_from(pid).unwrap())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.0).unwrap()
    }

    /// The same as a number.
    pub(crate) fn number(&self) -> i32 {
        self.0
    }

    /// Whether it runs.
    pub(crate) fn is_alive(&self) -> bool {
        // One that nobody waits for is no longer alive either.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        let _gone = kill_process(self.pid(), Signal::KILL).is_err();
    }
}
