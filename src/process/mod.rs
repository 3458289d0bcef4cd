//! The program as its service manager and its kernel see it.
//!
//! `notify` tells systemd how it goes, `watchdog` that it still turns, `harden` gives up what the
//! program never needs. Called by the command that runs the program; knows no role.

mod harden;
mod notify;
mod watchdog;

pub use harden::harden;
pub use notify::Notifier;
pub use watchdog::{Watchdog, beat};
