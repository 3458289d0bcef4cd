//! The compute role: where an instance's console is, now.

pub mod domain;
