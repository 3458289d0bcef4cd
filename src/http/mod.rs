//! The HTTP edge: listeners, the accept loop with its limits, bodies, and refusals.
//!
//! One [`serve()`] for every door (pages and WebSockets, API, admin socket, monitor); what answers
//! behind it is a [`Service`]. HTTP/1.1 on clear text. [`Outbound`] is the other direction: what we
//! ask of other services. Knows no role.

mod body;
mod client;
mod hurry;
mod listen;
mod outbound;
mod reject;
mod serve;

pub use body::{Body, answer, json, read_body, read_json, text};
pub use client::{Answer, CallError, call_over_unix};
pub use listen::{BindError, Listener};
pub use outbound::{BadTrust, Call, Failed, Fault, Outbound, OutboundSettings, Trust};
pub use reject::Reject;
pub use serve::{Limits, Peer, Service, serve, upgraded_stream};
