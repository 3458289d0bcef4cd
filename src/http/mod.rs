//! The HTTP edge: listeners, the accept loop with its limits, bodies, and refusals.
//!
//! One [`serve()`] for every door (pages and WebSockets, API, admin socket, monitor); what answers
//! behind it is a [`Service`]. HTTP/1.1 in clear text, HTTP/1.1 and HTTP/2 inside TLS; WebSockets over
//! HTTP/1.1 alone (decision 57). `guard` says who is turned away. [`Outbound`] is the other direction: what we
//! ask of other services. Knows no role.

pub mod announcement;
mod body;
mod client;
mod connection;
mod door;
mod forwarded;
mod guard;
mod hurry;
mod listen;
mod outbound;
mod redirect;
mod reject;
mod serve;
mod upgraded;

pub use body::{Body, answer, json, read_body, read_json, text};
pub use client::{Answer, CallError, call_over_unix};
pub use door::{Door, Limits, Peer, Secure, Tls};
pub use forwarded::{Client, client, words};
pub use guard::{Guard, Place, Rules, Turned};
pub use listen::{Accepted, BindError, Listener};
pub use outbound::{BadTrust, Call, Failed, Fault, Outbound, OutboundSettings, Trust};
pub use redirect::Redirect;
pub use reject::Reject;
pub use serve::{Service, serve, serve_door};
pub use upgraded::{Upgraded, upgraded_stream};
