//! Why a console did not open, in a close code and a sentence.
//!
//! A browser cannot read the HTTP status of a refused upgrade, so a refusal for people is a
//! WebSocket that closes at once (docs/design.md section 6 has the table of codes). The viewer
//! is told what it may know; addresses and inner errors stand in the log, under the same
//! correlation id.

use rustls::CertificateError;

use crate::auth::{AuthError, Cause, NoConsole};
use crate::compute::ComputeError;
use crate::model::CorrelationId;
use crate::tls::{TlsError, is_weak};

use super::entry::{EntryError, Why};
use super::preamble::NotOpened;
use super::relay::Ending;
use super::request::BadOrigin;
use super::rfb::Fault;
use super::target::ConnectError;

/// A normal end.
pub const ENDED: u16 = 1000;
/// The gateway goes down.
pub const GOING_AWAY: u16 = 1001;
/// The host cannot be reached, or is no longer.
pub const LOST: u16 = 4005;
/// The security handshake with the host failed.
pub const REFUSED: u16 = 4006;
/// The viewer answers nothing.
pub const UNHEARD: u16 = 4008;
/// What comes is no RFB, or cannot be checked against the viewer's rights.
pub const UNFOLLOWED: u16 = 4012;
/// A close frame without a code: never sent, only counted (RFC 6455 section 7.1.5).
pub const NO_CODE: u16 = 1005;
/// No close frame came: never sent, only counted (RFC 6455 section 7.1.5).
pub const ABNORMAL: u16 = 1006;

/// A decision to end a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The gateway goes down.
    Closing,
    /// Auth wants it.
    Ordered(Cause),
    /// The instance was stopped, or is no more.
    Stopped,
    /// The viewer does nothing.
    Idle,
    /// The session has lasted as long as it may.
    Longest,
}

/// What the viewer is told of a verdict.
pub(super) fn ending(verdict: Verdict) -> Ending {
    let (code, reason) = match verdict {
        Verdict::Closing => (GOING_AWAY, "the gateway is going down; connect again"),
        Verdict::Ordered(Cause::Operator) => (4007, "an operator ended this session"),
        Verdict::Ordered(Cause::Revoked) => (4007, "this console URL was revoked"),
        Verdict::Ordered(Cause::TakenOver) => (4010, "another viewer took this console over"),
        Verdict::Stopped => (4004, "the instance was stopped or deleted"),
        Verdict::Idle => (
            4008,
            "nothing was typed or moved for too long; connect again",
        ),
        Verdict::Longest => (
            4009,
            "this session has lasted as long as it may; connect again",
        ),
    };
    Ending {
        code,
        reason: reason.to_owned(),
    }
}

/// The longest reason a close frame holds, in bytes (RFC 6455 section 5.5).
const LONGEST: usize = 123;

/// Why a console did not open. `Display` is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody could tell later who was here.
    #[error("the audit log cannot be written (audit.required)")]
    Unwritten,
    /// No token came with the request.
    #[error("no token")]
    NoToken,
    /// Auth does not know it, or did not answer.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The page is foreign.
    #[error(transparent)]
    Origin(#[from] BadOrigin),
    /// Compute has no target.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// The target cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The target does not let us in, or we do not believe it.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl Refusal {
    /// The close code.
    pub fn code(&self) -> u16 {
        match self {
            Self::NoToken | Self::Auth(AuthError::Unknown) => 4001,
            Self::Auth(AuthError::Used) => 4002,
            Self::Auth(AuthError::Occupied | AuthError::Limit(_))
            | Self::Compute(ComputeError::Crowded { .. }) => 4010,
            Self::Origin(_) => 4003,
            Self::Compute(
                ComputeError::Source { .. }
                | ComputeError::NotOpened { .. }
                | ComputeError::Unready(_),
            )
            | Self::Connect(_) => LOST,
            Self::Entry(_) => REFUSED,
            Self::Auth(AuthError::NoConsole(_)) => 4004,
            Self::Unwritten | Self::Auth(_) | Self::Compute(ComputeError::Unreachable(_)) => 4011,
            Self::Compute(_) => 4004,
        }
    }

    /// What the viewer reads: the sentence, and the id to ask about.
    pub fn reason(&self, correlation: CorrelationId) -> String {
        reason(&self.sentence(), correlation)
    }

    fn sentence(&self) -> String {
        match self {
            Self::NoToken | Self::Auth(AuthError::Unknown) => {
                "unknown or expired token; ask for a new console URL".to_owned()
            }
            Self::Unwritten => INTERNAL.to_owned(),
            Self::Origin(error) => error.to_string(),
            Self::Compute(error) => compute_sentence(error).to_owned(),
            Self::Connect(error) => connect_sentence(error).to_owned(),
            Self::Entry(error) => error.sentence().to_owned(),
            Self::Auth(error) => auth_sentence(error).to_owned(),
        }
    }
}

const INTERNAL: &str = "the gateway cannot open consoles just now";

fn auth_sentence(error: &AuthError) -> &'static str {
    match error {
        AuthError::Used => "this console URL was used already; ask for a new one",
        AuthError::Occupied => "somebody else is viewing this console",
        AuthError::Limit(_) => "too many consoles are open; close one and try again",
        AuthError::Source(_) => "whoever made the token cannot be asked just now; try again",
        AuthError::Store(_) => "tokens cannot be checked just now; try again",
        AuthError::NoConsole(why) => no_console_sentence(why),
        AuthError::Unknown
        | AuthError::Elsewhere(_)
        | AuthError::NoSession(_)
        | AuthError::Full(_)
        | AuthError::Unreachable(_) => INTERNAL,
    }
}

fn no_console_sentence(why: &NoConsole) -> &'static str {
    match why {
        NoConsole::Off => "the instance is not running",
        NoConsole::Deleting => "the instance is being deleted",
        NoConsole::Moving(_) => "the instance is being moved; try again in a moment",
        NoConsole::Taken => "the console's address is another instance's by now; ask for a new URL",
        NoConsole::Foreign(_) => "this gateway does not show consoles of this type",
    }
}

fn compute_sentence(error: &ComputeError) -> &'static str {
    match error {
        ComputeError::Off { .. } => "the instance is not running",
        ComputeError::NoSuchConsole { .. }
        | ComputeError::NoPicture { .. }
        | ComputeError::NoLog { .. } => "the instance has no such console",
        ComputeError::NoAddress { .. } => "the instance's console is not ready yet",
        ComputeError::NoSuchInstance { .. } | ComputeError::Ambiguous { .. } => {
            "the instance does not exist any more"
        }
        ComputeError::Claimed { .. } => "the console's address belongs to another instance too",
        ComputeError::Source { .. } | ComputeError::Unready(_) => {
            "the instance's host cannot be asked where its console is"
        }
        ComputeError::NotOpened { .. } => "the console's host cannot open it",
        ComputeError::Crowded { .. } => {
            "too many consoles of this host are open; close one and try again"
        }
        ComputeError::Unreachable(_) => INTERNAL,
    }
}

fn connect_sentence(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Resolve(_) => "the name of the console's host cannot be resolved",
        ConnectError::Dial { .. } => "the console's host refused the connection",
        ConnectError::DialTimeout { .. } => "the console's host does not answer",
        ConnectError::Closed(_) => "the console's host hung up at once",
        ConnectError::Silent { .. } => "the console's host takes the connection but says nothing",
        ConnectError::Nowhere => "the console can only be opened on its own host",
        ConnectError::NotOpened { why, .. } => not_opened_sentence(why),
        ConnectError::OutOfBounds(_) => "the console's address is outside the allowed networks",
        ConnectError::NotRfb(_) => "what answers at the console's address is not a VNC server",
    }
}

fn not_opened_sentence(why: &NotOpened) -> &'static str {
    match why {
        NotOpened::Status(_) => "the console's host does not open this console",
        NotOpened::Closed | NotOpened::Broken(_) => "the console's host hung up when asked for it",
        NotOpened::Late(_) => "the console's host does not answer when asked for it",
        NotOpened::Endless | NotOpened::NotHttp => {
            "the console's host does not understand what it is asked"
        }
    }
}

impl EntryError {
    /// What a viewer may know of it: which side, which step, and nothing that stands in a file or
    /// that the server said.
    pub(super) fn sentence(&self) -> &'static str {
        match &self.why {
            Why::Fault(fault) => fault_sentence(fault),
            Why::Tls(error) => tls_sentence(error),
            Why::HungUp(_) => "the console's host hung up during the security handshake",
            Why::Stream { .. } => "the connection was lost during the security handshake",
            Why::Late { .. } => "the console's host does not finish the security handshake",
            Why::Password { .. } => "the gateway cannot read its password for this console",
        }
    }
}

fn fault_sentence(fault: &Fault) -> &'static str {
    match fault {
        Fault::NotRfb => "what answers at the console's address is not a VNC server",
        Fault::Closed { .. } => "the console's VNC server lets nobody in just now",
        Fault::NoCommon { .. } => {
            "the console's VNC server offers no security that this gateway may use"
        }
        Fault::Refused { viewer: true, .. } => {
            "the console's VNC server does not accept the password"
        }
        Fault::Refused { .. } => "the console's VNC server does not accept the gateway's password",
        Fault::VencryptVersion(..) | Fault::TakenBack(_) | Fault::OutOfTurn => {
            "the console's VNC server breaks the rules of the security handshake"
        }
    }
}

fn tls_sentence(error: &TlsError) -> &'static str {
    match error {
        TlsError::File(_) | TlsError::Own { .. } => "the gateway cannot read its own certificates",
        TlsError::Server { fault, .. } => match fault {
            CertificateError::ExpiredContext { .. } | CertificateError::Expired => {
                "the certificate of the console's host has expired"
            }
            CertificateError::NotValidYetContext { .. } | CertificateError::NotValidYet => {
                "the certificate of the console's host is not valid yet"
            }
            CertificateError::NotValidForNameContext { .. } | CertificateError::NotValidForName => {
                "the certificate of the console's host is for another name"
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the certificate of the console's host is from a CA that is not known here"
            }
            _ if is_weak(fault) => "the certificate of the console's host is too weak",
            _ => "the certificate of the console's host is not valid",
        },
        TlsError::CertificateWanted => {
            "the console's host wants a client certificate, and the gateway has none"
        }
        TlsError::CertificateRefused { .. } => {
            "the console's host does not accept the gateway's client certificate"
        }
        TlsError::Handshake(_) => "no TLS connection with the console's host comes about",
    }
}

/// `sentence [id]`, the sentence cut to what a close frame holds.
fn reason(sentence: &str, correlation: CorrelationId) -> String {
    let id = format!(" [{correlation}]");
    let room = LONGEST.saturating_sub(id.len());
    let kept = sentence.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = kept.take_while(|end| *end <= room).last().unwrap_or(0);
    format!("{}{id}", sentence.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_ends_in_the_id_and_fits_a_close_frame() {
        let id = CorrelationId::generate();
        for sentence in ["short", &"long ".repeat(40), &"ü".repeat(80)] {
            let reason = reason(sentence, id);
            assert!(
                reason.len() <= LONGEST && reason.ends_with(&format!("[{id}]")),
                "{reason}"
            );
        }
    }

    #[test]
    fn a_dead_token_and_none_at_all_read_the_same() {
        let id = CorrelationId::generate();
        let unknown = Refusal::from(AuthError::Unknown);
        assert_eq!(unknown.reason(id), Refusal::NoToken.reason(id));
        assert_eq!(unknown.code(), 4001);
    }

    #[test]
    fn no_address_reaches_the_viewer() {
        let address = "10.9.8.7:5900".parse().unwrap();
        let refusal = Refusal::from(ConnectError::NotRfb(address));
        assert!(
            !refusal
                .reason(CorrelationId::generate())
                .contains("10.9.8.7")
        );
        assert!(refusal.to_string().contains("10.9.8.7:5900"));
    }
}
