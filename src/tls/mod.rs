//! TLS towards hypervisors and between our own roles: whom to believe, what to show of ourselves,
//! and in which words it went wrong.
//!
//! Called by the proxy (VNC servers), by compute (libvirt daemons), by rpc (`mutual`), and by the
//! doors, whose side of TLS is in `server`. Files are read anew for every connection, or when they
//! change, so that a renewed certificate counts at the next one. No CA of the system is ever
//! believed. Knows no protocol inside TLS.

mod client;
mod expiry;
mod files;
mod fresh;
mod mutual;
mod self_signed;
mod server;
mod verify;
mod weak;
mod words;

pub use client::{Connector, Identity, Settings, TlsError};
pub use expiry::{Expiry, expiries, not_after};
pub use files::BadFile;
pub use fresh::Fresh;
pub use mutual::{BadMutual, Mutual, MutualFiles, Speech, role_name, roles_of};
pub use self_signed::self_signed;
pub use server::{Prepared, Renewal, Server, speaks_h2};
pub use verify::{Anybody, Careful};
pub use weak::is_weak;
pub use words::{date, describe, is_about_certificates, rustls_error};
