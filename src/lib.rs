//! vncgate gives people the screens of their virtual machines in a browser, safely.

pub mod drain;
pub mod model;
pub mod proxy;
pub mod rpc;
