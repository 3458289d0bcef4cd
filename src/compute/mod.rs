//! The compute role: where an instance's console is, now.

mod claim;
pub mod domain;
pub mod driver;
