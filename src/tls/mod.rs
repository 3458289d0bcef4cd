//! TLS towards hypervisors: whom to believe, what to show of ourselves, and in which words it went
//! wrong.
//!
//! Called by the proxy (VNC servers) and by compute (libvirt daemons). Files are read anew for
//! every connection, so that a renewed certificate counts at the next one. No CA of the system is
//! ever believed. Knows no protocol inside TLS.

mod client;
mod expiry;
mod files;
mod verify;
mod words;

pub use client::{Connector, Identity, Settings, TlsError};
pub use expiry::{Expiry, expiries, not_after};
pub use files::BadFile;
pub use verify::Anybody;
pub use words::{date, describe, is_about_certificates, rustls_error};
