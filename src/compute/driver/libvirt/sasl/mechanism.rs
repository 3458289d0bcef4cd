//! Which mechanism is taken, and its messages in their order. No I/O.

use zeroize::Zeroizing;

use super::scram::{Expected, Scram};
use super::{Credentials, SaslError};
use crate::compute::driver::libvirt::transport::Channel;

/// A mechanism that vncgate speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mechanism {
    ScramSha256,
    Plain,
}

/// How much of what a server offers is repeated.
const LONGEST: usize = 200;

impl Mechanism {
    /// As IANA has it registered.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
        }
    }

    /// The best of what the server offers, names parted by commas or spaces.
    pub(super) fn choose(offered: &str, channel: Channel) -> Result<Self, SaslError> {
        let offers = |wanted: Self| {
            let mut names = offered.split([',', ' ']);
            names.any(|name| name.eq_ignore_ascii_case(wanted.name()))
        };
        if offers(Self::ScramSha256) {
            return Ok(Self::ScramSha256);
        }
        if !offers(Self::Plain) {
            let offered = shown(offered);
            return Err(if channel == Channel::Clear {
                SaslError::NeedsTls { offered }
            } else {
                SaslError::Mechanisms { offered }
            });
        }
        match channel {
            Channel::Local | Channel::Verified => Ok(Self::Plain),
            Channel::Unverified => Err(SaslError::PlainToAnybody),
            Channel::Clear => Err(SaslError::PlainInTheClear),
        }
    }
}

fn shown(offered: &str) -> String {
    let plain = |c: &char| c.is_ascii_graphic() || *c == ' ';
    let offered: String = offered.chars().filter(plain).take(LONGEST).collect();
    let names = offered.split([',', ' ']).filter(|name| !name.is_empty());
    let names = names.collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names
    }
}

/// Where an exchange is: what the server's next message is taken for.
#[derive(Debug)]
pub(super) enum Exchange {
    /// The server's first message.
    Scram(Box<Scram>),
    /// The server's proof.
    Proof(Expected),
    /// Nothing more: whether we may come in is all that is left to say.
    Done,
}

/// A message of ours; may hold a password.
pub(super) type Message = Zeroizing<Vec<u8>>;

impl Exchange {
    /// The first message, and what comes after it.
    pub(super) fn begin(
        mechanism: Mechanism,
        credentials: &Credentials,
    ) -> Result<(Message, Self), SaslError> {
        match mechanism {
            Mechanism::Plain => Ok((plain(credentials), Self::Done)),
            Mechanism::ScramSha256 => {
                let scram = Scram::new(credentials.clone())?;
                let first = Zeroizing::new(scram.first());
                Ok((first, Self::Scram(Box::new(scram))))
            }
        }
    }

    /// Our answer to a message of the server's. May compute for a second.
    pub(super) fn answer(self, message: &[u8]) -> Result<(Option<Message>, Self), SaslError> {
        match self {
            Self::Scram(scram) => {
                let (answer, expected) = scram.prove(message)?;
                Ok((Some(Zeroizing::new(answer)), Self::Proof(expected)))
            }
            Self::Proof(expected) => {
                expected.check(message)?;
                Ok((None, Self::Done))
            }
            Self::Done if message.is_empty() => Ok((None, Self::Done)),
            Self::Done => Err(SaslError::Endless),
        }
    }

    /// Whether the server has said all that it must.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

/// RFC 4616: no other identity, the user, the password. None of them holds a NUL.
fn plain(credentials: &Credentials) -> Message {
    let (user, password) = (credentials.user.as_bytes(), credentials.password.as_bytes());
    // all at once, so that no growth leaves a copy of the password behind
    let mut message = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 2));
    message.push(0);
    message.extend_from_slice(user);
    message.push(0);
    message.extend_from_slice(password);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(offered: &str, channel: Channel) -> String {
        Mechanism::choose(offered, channel).unwrap_err().to_string()
    }

    #[test]
    fn scram_comes_before_plain_on_every_channel() {
        for channel in [
            Channel::Local,
            Channel::Verified,
            Channel::Unverified,
            Channel::Clear,
        ] {
            let chosen = Mechanism::choose("PLAIN,scram-sha-256,GSSAPI", channel);
            assert_eq!(chosen.unwrap(), Mechanism::ScramSha256);
        }
    }

    #[test]
    fn plain_is_spoken_only_where_the_password_reaches_the_right_one_alone() {
        for channel in [Channel::Local, Channel::Verified] {
            let chosen = Mechanism::choose("PLAIN LOGIN", channel).unwrap();
            assert_eq!(chosen, Mechanism::Plain);
        }
        let clear = refusal("PLAIN", Channel::Clear);
        assert!(clear.contains("not encrypted"), "{clear}");
        let anybody = refusal("PLAIN", Channel::Unverified);
        assert!(anybody.contains("no_verify"), "{anybody}");
    }

    #[test]
    fn other_mechanisms_are_refused_by_name() {
        assert_eq!(
            refusal("GSSAPI,DIGEST-MD5", Channel::Verified),
            "the server offers only GSSAPI, DIGEST-MD5; \
             vncgate speaks SCRAM-SHA-256, and PLAIN where it is safe"
        );
        let nothing = refusal("\u{7}", Channel::Verified);
        assert!(nothing.contains("only nothing"), "{nothing}");
    }

    #[test]
    fn a_name_that_only_contains_another_is_not_it() {
        assert!(Mechanism::choose("SCRAM-SHA-256-PLUS", Channel::Verified).is_err());
        assert!(Mechanism::choose("XPLAIN", Channel::Verified).is_err());
    }

    #[test]
    fn plain_is_one_message_of_two_words() {
        let credentials = Credentials::of("ops", "pass word");

        let (message, after) = Exchange::begin(Mechanism::Plain, &credentials).unwrap();

        assert_eq!(*message, b"\0ops\0pass word");
        assert!(after.is_done());
        assert!(matches!(after.answer(b"more?"), Err(SaslError::Endless)));
    }
}
