//! The words of the program as types: instances, consoles, targets, grants, tokens.
//!
//! Every constructor parses, so a value that exists is valid; `Debug` of a secret hides it.
//! Everything may use this module; it knows nothing of the rest.

mod block;
mod console;
mod grant;
mod id;
mod instance;
mod ip;
mod rights;
mod role;
mod secret;
mod security;
mod target;
mod terms;
mod time;
mod way;

pub use block::block_of;
pub use console::{ConsoleKind, ConsoleType, UnknownConsoleType};
pub use grant::{AccessUrl, Binding, Grant};
pub use id::{CorrelationId, InstanceId, InstanceRef, SessionId};
pub use instance::{Console, Instance, Owner, PowerState};
pub use ip::Ip;
pub use rights::{Rights, UnknownRight};
pub use role::Role;
pub use secret::{ApiKey, BadHash, BadToken, KeyHash, Token, TokenHash, TokenId};
pub use security::{BadSchemes, Meeting, Password, Scheme, Schemes, Security, Verify};
pub use target::{AccessPath, Address, BadAccessPath, BadAddress, Host, Target};
pub use terms::{BadSecondViewer, Browser, SecondViewer, Terms};
pub use time::UnixTime;
pub use way::Way;
