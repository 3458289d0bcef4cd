//! Logging in to a daemon that asks for SASL (RFC 4422).
//!
//! SCRAM-SHA-256 is taken where it is offered, else PLAIN where nobody but the right server can
//! hear it ([`Channel::keeps_secrets`]). SASL's own encryption is not supported: who wants it has
//! TLS. The mechanisms are machines without I/O; [`authenticate`] carries their messages.

mod credentials;
mod mechanism;
mod scram;

use super::client::Client;
use super::transport::Channel;
use super::wire::error::Kind;
use super::wire::xdr::{BadXdr, Decoder, Encoder};
use super::wire::{Error, Procedure};
use mechanism::{Exchange, Mechanism, Message};

pub use credentials::{BadCredentials, Credentials};
pub use scram::ScramError;

/// libvirt's own limit of a message, in bytes.
const LONGEST: usize = 65_536;

/// Messages of a server before it is held to go on for ever. SCRAM has two.
const MOST_STEPS: usize = 4;

/// Why the daemon does not let us in.
#[derive(Debug, thiserror::Error)]
pub enum SaslError {
    /// Nobody told us who we are.
    #[error("the daemon asks for a user and a password, and none are configured")]
    NoCredentials,
    /// Nothing that we speak.
    #[error(
        "the server offers only {offered}; \
         vncgate speaks SCRAM-SHA-256, and PLAIN where it is safe"
    )]
    Mechanisms {
        /// Its mechanisms.
        offered: String,
    },
    /// Without TLS, libvirt offers only mechanisms that encrypt by themselves.
    #[error(
        "the server offers only {offered}: without TLS, libvirt asks for mechanisms that encrypt \
         by themselves, which vncgate does not speak; use qemu+tls"
    )]
    NeedsTls {
        /// Its mechanisms.
        offered: String,
    },
    /// Everybody on the way could read the password.
    #[error(
        "the server takes only PLAIN, and the connection is not encrypted: \
         the password is not sent; use qemu+tls"
    )]
    PlainInTheClear,
    /// Anybody could have answered.
    #[error(
        "the server takes only PLAIN, and no_verify=1 lets anybody pose as the server: \
         the password is not sent"
    )]
    PlainToAnybody,
    /// SCRAM went wrong.
    #[error(transparent)]
    Scram(#[from] ScramError),
    /// The daemon says no. It does not say to what.
    #[error("the daemon does not accept user `{user}` with this password by {mechanism}")]
    Refused {
        /// The user.
        user: String,
        /// The mechanism.
        mechanism: &'static str,
    },
    /// The daemon lets us in before it has proved that it knows the password.
    #[error("the server ended {0} before it proved that it knows the password")]
    Unproven(&'static str),
    /// The daemon does not come to an end.
    #[error("the server goes on where the mechanism has ended")]
    Endless,
    /// A call failed.
    #[error(transparent)]
    Call(#[from] Error),
    /// The computing was broken off.
    #[error("the computing of an answer was broken off: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

impl From<BadXdr> for SaslError {
    fn from(error: BadXdr) -> Self {
        Self::Call(error.into())
    }
}

/// Logs in, on a connection whose daemon listed SASL. Each call ends at the client's limit.
///
/// Not cancel-safe: a login that was given up leaves the connection in the middle of it.
pub async fn authenticate(
    client: &Client,
    channel: Channel,
    credentials: Option<&Credentials>,
) -> Result<(), SaslError> {
    let credentials = credentials.ok_or(SaslError::NoCredentials)?;
    let mechanism = Mechanism::choose(&client.mechanisms().await?, channel)?;
    let ended = exchange(client, mechanism, credentials).await;
    ended.map_err(|error| match error {
        SaslError::Call(call) if call.kind() == Some(Kind::Auth) => SaslError::Refused {
            user: credentials.user.clone(),
            mechanism: mechanism.name(),
        },
        other => other,
    })
}

/// What a server says: whether we are in, and a message for the mechanism.
#[derive(Debug)]
struct Answer {
    complete: bool,
    message: Option<Vec<u8>>,
}

/// The other side of a mechanism.
trait Server {
    async fn mechanisms(&self) -> Result<String, SaslError>;
    async fn start(&self, mechanism: Mechanism, first: &Message) -> Result<Answer, SaslError>;
    async fn step(&self, message: Option<&Message>) -> Result<Answer, SaslError>;
}

async fn exchange(
    server: &impl Server,
    mechanism: Mechanism,
    credentials: &Credentials,
) -> Result<(), SaslError> {
    let (first, mut exchange) = Exchange::begin(mechanism, credentials)?;
    let mut answer = server.start(mechanism, &first).await?;
    for _ in 0..MOST_STEPS {
        let mut ours = None;
        if let Some(message) = answer.message {
            // on a thread of its own: proving takes as long as the server likes
            let computed = tokio::task::spawn_blocking(move || exchange.answer(&message));
            (ours, exchange) = computed.await??;
        }
        if answer.complete {
            let unproven = SaslError::Unproven(mechanism.name());
            return exchange.is_done().then_some(()).ok_or(unproven);
        }
        answer = server.step(ours.as_ref()).await?;
    }
    Err(SaslError::Endless)
}

impl Server for Client {
    async fn mechanisms(&self) -> Result<String, SaslError> {
        let reply = self.call(Procedure::AUTH_SASL_INIT, Encoder::new()).await?;
        Ok(Decoder::new(&reply.payload).string()?)
    }

    async fn start(&self, mechanism: Mechanism, first: &Message) -> Result<Answer, SaslError> {
        let arguments = message(Encoder::new().string(mechanism.name()), Some(first));
        let reply = self.call(Procedure::AUTH_SASL_START, arguments).await?;
        Ok(Answer::decode(&reply.payload)?)
    }

    async fn step(&self, ours: Option<&Message>) -> Result<Answer, SaslError> {
        let arguments = message(Encoder::new(), ours);
        let reply = self.call(Procedure::AUTH_SASL_STEP, arguments).await?;
        Ok(Answer::decode(&reply.payload)?)
    }
}

/// Whether there is no message, and the message: libvirt sends each of its bytes as a word.
fn message(encoder: Encoder, message: Option<&Message>) -> Encoder {
    let bytes = message.map_or(&[][..], |message| message);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let encoder = encoder.int(i32::from(message.is_none())).uint(length);
    let word = |encoder: Encoder, byte: &u8| encoder.uint(u32::from(*byte));
    bytes.iter().fold(encoder, word)
}

impl Answer {
    fn decode(payload: &[u8]) -> Result<Self, BadXdr> {
        let mut decoder = Decoder::new(payload);
        let complete = decoder.int()? != 0;
        let absent = decoder.int()? != 0;
        // a daemon may write a byte as a signed or an unsigned word: the last eight bits are it
        let byte = |decoder: &mut Decoder<'_>| decoder.array().map(|[_, _, _, byte]| byte);
        let message = decoder.list(LONGEST, byte)?;
        let message = (!absent).then_some(message);
        Ok(Self { complete, message })
    }
}

#[cfg(test)]
mod tests;
