//! vncgate gives people the screens of their virtual machines in a browser, safely.

pub mod demo;
pub mod drain;
pub mod model;
pub mod rpc;
