//! The compute role: where an instance's console is, now.
//!
//! Asked by the api when a URL is made (`locate`) and by the proxy right before it dials
//! (`recheck`), both through `client`; what can be asked and answered is here, what becomes of it in
//! `role`. Resolves afresh each time and never hands back what it was told, because a port may have become
//! another instance's since (CVE-2013-0335). Knows its drivers, no token and no viewer.

mod claim;
mod client;
mod display;
pub mod domain;
pub mod driver;
mod fleet;
mod hand_out;
mod log;
mod observer;
mod picture;
mod pulse;
mod role;
mod tunnels;

use serde::{Deserialize, Serialize};

use crate::model::{
    Address, ConsoleKind, ConsoleType, Instance, InstanceId, InstanceRef, Meeting, Target,
};
use crate::rpc::{Cursor, News, Unreachable};
use role::Drivers;

pub use display::{Display, Displays, Line, Tunnelled};
pub use driver::{Change, Fault, Survey};
pub use fleet::{Fleet, HostNews, Told};
pub use hand_out::{HandOut, Opened};
pub use log::ConsoleLog;
pub use picture::{BadPicture, Picture};
pub use role::Compute;
pub use tunnels::{TunnelNews, Tunnels};

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
