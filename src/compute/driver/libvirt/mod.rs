//! Instances from libvirt, asked over its own wire protocol.

pub mod client;
pub mod sasl;
pub mod transport;
pub mod wire;
