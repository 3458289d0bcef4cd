//! The role that carries a viewer's bytes to a console and back.

pub mod relay;
pub mod ws;
