//! Which sessions live, on all proxies.

mod memory;

pub(in crate::auth) use memory::Registry;
