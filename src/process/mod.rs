//! The program as its service manager and its kernel see it.
//!
//! `given` are the sockets that it was started with, `notify` tells systemd how it goes, `watchdog` that it still turns, `handover` puts another process in its place, `harden` gives up what the
//! program never needs. Called by the command that runs the program; knows no role.

mod channel;
mod given;
mod handover;
mod harden;
mod notify;
mod watchdog;

pub use given::{BadSocket, Given, Givens, Socket};
pub use handover::{NoSuccessor, Predecessor, Program, Successor, excuse, launched};
pub use harden::harden;
pub use notify::Notifier;
pub use watchdog::{Watchdog, beat};
