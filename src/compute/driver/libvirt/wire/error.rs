//! What can go wrong between a client and a daemon.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::frame::BadFrame;
use super::xdr::{BadXdr, Decoder};

/// A call that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The daemon refused it.
    #[error(transparent)]
    Remote(#[from] Remote),
    /// No reply in time. The daemon may have acted.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Deadline(Duration),
    /// The connection has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The reply makes no sense.
    #[error("a reply that makes no sense: {0}")]
    Reply(#[from] BadXdr),
    /// The reply lacks the descriptor it was asked for.
    #[error("a reply without the descriptor it should carry")]
    NoDescriptor,
    /// A stream grew beyond what the caller takes.
    #[error("more than {0} bytes")]
    Large(usize),
}

impl Error {
    /// The daemon's reason, if it was the daemon that refused.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Remote(remote) => Some(remote.kind()),
            _ => None,
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Closed {
    /// The stream under it failed.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// The daemon hung up.
    #[error("the daemon hung up")]
    HungUp,
    /// The daemon broke the protocol.
    #[error("the daemon broke the protocol: {0}")]
    Frame(#[from] BadFrame),
    /// The daemon did not answer pings.
    #[error("the daemon does not answer pings")]
    Silent,
    /// This side let go of it.
    #[error("the connection was closed")]
    Dropped,
}

impl From<io::Error> for Closed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::HungUp,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

/// A daemon's own words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Remote {
    /// `virErrorNumber`.
    pub code: i32,
    /// `virErrorDomain`: which part of libvirt says so.
    pub domain: i32,
    /// For people, bounded and without control characters.
    pub message: String,
}

/// The reasons that callers tell apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Something inside failed; among others: no such display.
    Internal,
    /// This driver or daemon cannot do that.
    Unsupported,
    /// The connection is read-only, or may not do that.
    Denied,
    /// Authentication is needed first, or failed.
    Auth,
    /// No such domain.
    NoDomain,
    /// Not while the domain is in its present state (off, mostly).
    InvalidNow,
    /// Anything else.
    Other,
}

/// The longest message kept, in characters.
const LONGEST: usize = 400;

impl Remote {
    /// Reads the payload of a message with status 1. Never fails: a daemon that cannot even say
    /// what went wrong is an error as well.
    pub fn decode(payload: &[u8]) -> Self {
        let mut decoder = Decoder::new(payload);
        let (code, domain) = (decoder.int(), decoder.int());
        let message = decoder.optional(Decoder::string).ok().flatten();
        Self {
            code: code.unwrap_or_default(),
            domain: domain.unwrap_or_default(),
            message: message.map_or_else(|| "an error without a message".to_owned(), plain),
        }
    }

    /// What the code means (`virErrorNumber` in libvirt's `virterror.h`).
    pub fn kind(&self) -> Kind {
        match self.code {
            1 => Kind::Internal,
            3 | 39 | 74 | 84 => Kind::Unsupported,
            29 | 88 => Kind::Denied,
            45 | 79 | 94 => Kind::Auth,
            42 => Kind::NoDomain,
            55 => Kind::InvalidNow,
            _ => Kind::Other,
        }
    }
}

fn plain(text: impl AsRef<str>) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let text = text.as_ref().trim().chars();
    text.take(LONGEST).map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::super::xdr::Encoder;
    use super::*;

    #[test]
    fn an_error_is_read_with_its_code_and_message() {
        let payload = Encoder::new().int(42).int(10);
        let payload = payload.optional_string(Some("Domain not found\n")).uint(2);

        let error = Remote::decode(&payload.into_bytes());

        assert_eq!(error.kind(), Kind::NoDomain);
        assert_eq!(error.to_string(), "Domain not found");
    }

    #[test]
    fn an_error_of_no_bytes_is_still_an_error() {
        assert_eq!(Remote::decode(&[]).kind(), Kind::Other);
    }
}
