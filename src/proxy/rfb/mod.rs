//! RFB without any I/O: both sides of its security handshake, and the rights of a viewer.
//!
//! [`Negotiation`] is the gateway before a VNC server, [`Reception`] the gateway before a viewer;
//! the viewer always meets a clean 3.8, whatever the server wants. [`Filter`] sits in the stream
//! that follows and takes out what a viewer has no right to. All are fed bytes and say what to do
//! with them. Nothing a peer announces is believed beyond a fixed length. RFC 6143 section 7, the
//! VeNCrypt and rfbproto documents. Called by `dial` and by the session; knows no stream, no token.

mod filter;
mod names;
mod server;
mod version;
mod viewer;
mod vncauth;

pub use filter::{Filter, Unfiltered};
pub use server::{Fault, Means, Negotiation, Next, Ready, Step, Turn};
pub use version::Version;
pub use viewer::{Heard, Reception, ViewerFault};
pub use vncauth::{CHALLENGE, Challenge};

/// The most of a peer's reason that is read, in bytes; a sentence, not the 4 GiB it may announce.
const LONGEST_REASON: usize = 1024;
