//! libvirt's remote protocol: messages, calls, events and streams over any byte stream.
//!
//! Written as if for a crate of its own: knows nothing of consoles, instances or vncgate.
//! [`xdr`] writes and reads values, [`frame`] the messages around them, [`Connection`] pairs calls
//! with replies, [`procedure`] has the numbers, [`error`] what a daemon may answer instead. What a
//! daemon announces is never believed: memory is taken for bytes that have arrived.
//!
//! The protocol is libvirt's own (`virnetprotocol.x`, `remote_protocol.x`); its numbers are only
//! ever added to, so that one client serves all daemons since 0.9.

mod connection;
pub mod error;
pub mod frame;
mod io;
pub mod procedure;
mod stream;
mod table;
pub mod xdr;

pub use connection::{Connection, Event, Events, Keepalive, Reply};
pub use error::{Closed, Error, Remote};
pub use io::{Duplex, Io};
pub use procedure::Procedure;
pub use stream::Stream;

#[cfg(test)]
mod tests;
