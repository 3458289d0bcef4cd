//! The program as its service manager and its kernel see it.
//!
//! `given` are the sockets that it was started with, `notify` tells systemd how it goes, `watchdog` that it still turns, `harden` gives up what the
//! program never needs. Called by the command that runs the program; knows no role.

mod given;
mod harden;
mod notify;
mod watchdog;

pub use given::{BadSocket, Given, Givens, Socket};
pub use harden::harden;
pub use notify::Notifier;
pub use watchdog::{Watchdog, beat};
