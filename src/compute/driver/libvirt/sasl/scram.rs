//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side. No I/O.
//!
//! The password never leaves this side, and the server has to prove that it knows it too. Each
//! step takes the value of the one before, so that none can be left out or done twice.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Credentials;

/// No channel binding, no other identity: what stands before the bare first message.
const GS2_HEADER: &str = "n,,";

/// [`GS2_HEADER`] in base64, as the final message repeats it.
const CHANNEL: &str = "c=biws";

/// RFC 7677 asks for no fewer.
const FEWEST_ITERATIONS: u32 = 4096;

/// A server that asks for more wants our time, not our proof.
const MOST_ITERATIONS: u32 = 1_000_000;

/// The longest message of a server that is read.
const LONGEST: usize = 4096;

type Key = Zeroizing<[u8; 32]>;

/// Why the exchange cannot go on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ScramError {
    /// Text that would have to be normalized first (RFC 4013).
    #[error("SCRAM-SHA-256 is supported with ASCII in users and passwords only")]
    NotAscii,
    /// The server's message is not what stands in the RFC.
    #[error("the server's message of SCRAM-SHA-256 cannot be read: {0}")]
    Malformed(&'static str),
    /// The answer belongs to another exchange.
    #[error("the server answered with a nonce that does not begin with ours")]
    Nonce,
    /// Too few or too many.
    #[error("the server wants {0} iterations; 4096 to 1000000 are accepted")]
    Iterations(u32),
    /// The server says so.
    #[error("the server refuses the user or the password ({0})")]
    Refused(String),
    /// The server cannot prove that it knows the password.
    #[error("the server's proof is wrong: it does not know this password itself")]
    Impostor,
}

/// The first step: who we are, and a nonce.
#[derive(Debug)]
pub(super) struct Scram {
    credentials: Credentials,
    nonce: String,
    first_bare: String,
}

/// The last step: what the server has to prove.
#[derive(Debug)]
pub(super) struct Expected {
    signature: [u8; 32],
}

/// What a server says first.
struct Challenge<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl Scram {
    pub(super) fn new(credentials: Credentials) -> Result<Self, ScramError> {
        let (high, low) = (Uuid::new_v4().simple(), Uuid::new_v4().simple());
        Self::with_nonce(credentials, format!("{high}{low}"))
    }

    fn with_nonce(credentials: Credentials, nonce: String) -> Result<Self, ScramError> {
        let plain = |text: &str| text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
        if !plain(&credentials.user) || !plain(&credentials.password) {
            return Err(ScramError::NotAscii);
        }
        let user = credentials.user.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={user},r={nonce}");
        Ok(Self {
            credentials,
            nonce,
            first_bare,
        })
    }

    /// The client's first message.
    pub(super) fn first(&self) -> Vec<u8> {
        format!("{GS2_HEADER}{}", self.first_bare).into_bytes()
    }

    /// The client's final message, and what the server must answer. Takes up to a second of
    /// computing.
    pub(super) fn prove(self, server_first: &[u8]) -> Result<(Vec<u8>, Expected), ScramError> {
        let server_first = text(server_first)?;
        let challenge = Challenge::parse(server_first)?;
        let more = challenge.nonce.strip_prefix(&self.nonce);
        if more.is_none_or(str::is_empty) {
            return Err(ScramError::Nonce);
        }
        let without_proof = format!("{CHANNEL},r={}", challenge.nonce);
        let signed = format!("{},{server_first},{without_proof}", self.first_bare);
        let salted = self.salted(&challenge);
        let proof = proof(&salted, &signed);
        let signature = *hmac(&hmac(&salted, b"Server Key"), signed.as_bytes());
        let message = format!("{without_proof},p={}", BASE64.encode(proof));
        Ok((message.into_bytes(), Expected { signature }))
    }

    fn salted(&self, challenge: &Challenge<'_>) -> Key {
        let mut salted = Zeroizing::new([0; 32]);
        let password = self.credentials.password.as_bytes();
        let iterations = challenge.iterations.get();
        pbkdf2::pbkdf2_hmac::<Sha256>(password, &challenge.salt, iterations, &mut *salted);
        salted
    }
}

impl Expected {
    /// Whether the server has proved that it knows the password.
    pub(super) fn check(&self, server_final: &[u8]) -> Result<(), ScramError> {
        let message = text(server_final)?;
        let first = message.split(',').next().unwrap_or_default();
        if let Some(why) = first.strip_prefix("e=") {
            let why = why.chars().filter(|c| !c.is_control()).take(80);
            return Err(ScramError::Refused(why.collect()));
        }
        let signature = first
            .strip_prefix("v=")
            .and_then(|it| BASE64.decode(it).ok());
        let signature = signature.ok_or(ScramError::Malformed("no signature"))?;
        let same: bool = signature.ct_eq(&self.signature).into();
        same.then_some(()).ok_or(ScramError::Impostor)
    }
}

impl<'a> Challenge<'a> {
    fn parse(message: &'a str) -> Result<Self, ScramError> {
        if message.starts_with("m=") {
            return Err(ScramError::Malformed("an extension that is not known"));
        }
        let mut attributes = message.split(',');
        let mut take = |name, what| {
            let attribute = attributes.next().and_then(|it| it.strip_prefix(name));
            attribute.ok_or(ScramError::Malformed(what))
        };
        let nonce = take("r=", "no nonce")?;
        let salt = take("s=", "no salt")?;
        let iterations = take("i=", "no number of iterations")?;
        let salt = BASE64.decode(salt).ok().filter(|salt| !salt.is_empty());
        Ok(Self {
            nonce,
            salt: salt.ok_or(ScramError::Malformed("no salt"))?,
            iterations: count(iterations)?,
        })
    }
}

fn count(text: &str) -> Result<NonZeroU32, ScramError> {
    let no_number = ScramError::Malformed("no number of iterations");
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return Err(no_number);
    }
    let number = text.parse().unwrap_or(u32::MAX);
    let accepted = (FEWEST_ITERATIONS..=MOST_ITERATIONS).contains(&number);
    let number = NonZeroU32::new(number).filter(|_| accepted);
    number.ok_or_else(|| ScramError::Iterations(text.parse().unwrap_or(u32::MAX)))
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    let text = std::str::from_utf8(message).ok();
    let text = text.filter(|text| text.len() <= LONGEST);
    text.ok_or(ScramError::Malformed("it is no text, or too long"))
}

fn proof(salted: &[u8; 32], signed: &str) -> [u8; 32] {
    let client_key = hmac(salted, b"Client Key");
    let stored_key: [u8; 32] = Sha256::digest(*client_key).into();
    let mut proof = *hmac(&stored_key, signed.as_bytes());
    for (byte, key) in proof.iter_mut().zip(client_key.iter()) {
        *byte ^= key;
    }
    proof
}

fn hmac(key: &[u8; 32], message: &[u8]) -> Key {
    // a key shorter than a block is the same key followed by zeros
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let mut hmac = Hmac::<Sha256>::new((&*block).into());
    hmac.update(message);
    Zeroizing::new(hmac.finalize().into_bytes().into())
}

/// For the fuzzer: `bytes` as either message of a server.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    if let Ok(text) = text(bytes) {
        drop(Challenge::parse(text).map(|challenge| challenge.salt));
    }
    drop(Expected { signature: [0; 32] }.check(bytes));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The exchange of RFC 7677 section 3.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn scram(user: &str, password: &str) -> Result<Scram, ScramError> {
        Scram::with_nonce(Credentials::of(user, password), NONCE.to_owned())
    }

    fn prove(server_first: &str) -> Result<(Vec<u8>, Expected), ScramError> {
        scram("user", "pencil")?.prove(server_first.as_bytes())
    }

    fn text_of(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_example_of_rfc_7677_comes_out_as_printed() {
        let scram = scram("user", "pencil").unwrap();
        assert_eq!(text_of(scram.first()), format!("n,,n=user,r={NONCE}"));

        let (answer, expected) = scram.prove(SERVER_FIRST.as_bytes()).unwrap();

        assert_eq!(text_of(answer), CLIENT_FINAL);
        assert_eq!(expected.check(SERVER_FINAL.as_bytes()), Ok(()));
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        let (_, expected) = prove(SERVER_FIRST).unwrap();
        let check = |message: &str| expected.check(message.as_bytes());

        let zeros = format!("v={}", BASE64.encode([0; 32]));
        assert_eq!(check(&zeros), Err(ScramError::Impostor));
        assert_eq!(check("v="), Err(ScramError::Impostor));
        assert_eq!(check(""), Err(ScramError::Malformed("no signature")));
        assert_eq!(check("v=!"), Err(ScramError::Malformed("no signature")));
    }

    #[test]
    fn a_servers_refusal_is_heard() {
        let (_, expected) = prove(SERVER_FIRST).unwrap();

        let refused = expected.check(b"e=unknown-user");

        assert_eq!(refused, Err(ScramError::Refused("unknown-user".to_owned())));
    }

    #[test]
    fn a_nonce_that_is_not_ours_and_more_is_refused() {
        let salted = |nonce: &str| format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        for nonce in ["", "other", NONCE] {
            assert_eq!(prove(&salted(nonce)).unwrap_err(), ScramError::Nonce);
        }
    }

    #[test]
    fn only_a_sensible_number_of_iterations_is_computed() {
        let with = |count: &str| prove(&format!("r={NONCE}x,s=W22ZaA==,i={count}"));
        assert!(with("4096").is_ok());
        for (count, number) in [("0", 0), ("4095", 4095), ("1000001", 1_000_001)] {
            assert_eq!(with(count).unwrap_err(), ScramError::Iterations(number));
        }
        let endless = with("99999999999999").unwrap_err();
        assert_eq!(endless, ScramError::Iterations(u32::MAX));
        for count in ["", "-1", "+4096", "4096x"] {
            assert!(
                matches!(with(count), Err(ScramError::Malformed(_))),
                "{count}"
            );
        }
    }

    #[test]
    fn what_parts_attributes_is_escaped_in_a_user_s_name() {
        let first = scram("a,b=c", "x").unwrap().first();
        assert_eq!(text_of(first), format!("n,,n=a=2Cb=3Dc,r={NONCE}"));
    }

    #[test]
    fn an_extension_that_must_be_understood_is_refused() {
        let error = prove(&format!("m=x,{SERVER_FIRST}")).unwrap_err();
        assert_eq!(
            error,
            ScramError::Malformed("an extension that is not known")
        );
    }

    #[test]
    fn text_that_needs_normalizing_is_refused() {
        assert_eq!(scram("jürgen", "x").unwrap_err(), ScramError::NotAscii);
        assert_eq!(scram("user", "ﬁ").unwrap_err(), ScramError::NotAscii);
    }

    #[test]
    fn every_exchange_has_a_nonce_of_its_own() {
        let first = || Scram::new(Credentials::of("a", "b")).unwrap().first();
        assert_ne!(first(), first());
    }

    proptest! {
        #[test]
        fn no_message_of_a_server_is_too_much(message: Vec<u8>) {
            let scram = scram("user", "pencil").unwrap();
            prop_assert!(scram.prove(&message).is_err());
            let expected = Expected { signature: [7; 32] };
            prop_assert!(expected.check(&message).is_err());
        }

        #[test]
        fn nothing_like_a_message_is_too_much(
            message in "[rsime]=[rOp!-~]{0,20},s=[A-Za-z=]{0,9},i=[0-9]{0,4}(,.*)?",
        ) {
            let scram = scram("user", "pencil").unwrap();
            prop_assert!(scram.prove(message.as_bytes()).is_err());
        }
    }
}
