use std::cell::RefCell;
use std::collections::VecDeque;

use hmac::{Hmac, KeyInit as _, Mac as _};
use proptest::prelude::*;
use sha2::Sha256;

use super::*;

/// A server that says what the test wrote down, and keeps what it heard.
#[derive(Default)]
struct Script {
    answers: RefCell<VecDeque<Answer>>,
    heard: RefCell<Vec<Option<Vec<u8>>>>,
}

impl Script {
    fn of(answers: impl IntoIterator<Item = (bool, Option<&'static [u8]>)>) -> Self {
        let answer = |(complete, message): (bool, Option<&[u8]>)| Answer {
            complete,
            message: message.map(<[u8]>::to_vec),
        };
        Self {
            answers: RefCell::new(answers.into_iter().map(answer).collect()),
            heard: RefCell::default(),
        }
    }

    fn next(&self, message: Option<&Message>) -> Answer {
        let message = message.map(|message| message.to_vec());
        self.heard.borrow_mut().push(message);
        self.answers.borrow_mut().pop_front().expect("an answer")
    }
}

impl Server for Script {
    async fn mechanisms(&self) -> Result<String, SaslError> {
        Ok("PLAIN,SCRAM-SHA-256".to_owned())
    }

    async fn start(&self, _mechanism: Mechanism, first: &Message) -> Result<Answer, SaslError> {
        Ok(self.next(Some(first)))
    }

    async fn step(&self, message: Option<&Message>) -> Result<Answer, SaslError> {
        Ok(self.next(message))
    }
}

/// A server that knows the password, and sends its proof with its yes or in a step before it.
struct Honest {
    password: &'static str,
    proof_first: bool,
    first: RefCell<String>,
    steps: RefCell<usize>,
}

impl Honest {
    fn new(password: &'static str, proof_first: bool) -> Self {
        Self {
            password,
            proof_first,
            first: RefCell::default(),
            steps: RefCell::default(),
        }
    }

    fn challenge(&self) -> String {
        let first = self.first.borrow();
        let (_, nonce) = first.split_once("r=").unwrap();
        format!("r={nonce}server,s=c2FsdA==,i=4096")
    }

    fn proof(&self, client_final: &str) -> String {
        use base64::Engine as _;
        let (without_proof, _) = client_final.split_once(",p=").unwrap();
        let signed = format!(
            "{},{},{without_proof}",
            self.first.borrow(),
            self.challenge()
        );
        let hmac = |key: &[u8], message: &[u8]| {
            let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            hmac.update(message);
            hmac.finalize().into_bytes()
        };
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(self.password.as_bytes(), b"salt", 4096, &mut salted);
        let signature = hmac(&hmac(&salted, b"Server Key"), signed.as_bytes());
        let engine = base64::engine::general_purpose::STANDARD;
        format!("v={}", engine.encode(signature))
    }
}

impl Server for Honest {
    async fn mechanisms(&self) -> Result<String, SaslError> {
        Ok("SCRAM-SHA-256".to_owned())
    }

    async fn start(&self, _mechanism: Mechanism, first: &Message) -> Result<Answer, SaslError> {
        let first = std::str::from_utf8(first).unwrap();
        *self.first.borrow_mut() = first.strip_prefix("n,,").unwrap().to_owned();
        let message = Some(self.challenge().into_bytes());
        Ok(Answer {
            complete: false,
            message,
        })
    }

    async fn step(&self, message: Option<&Message>) -> Result<Answer, SaslError> {
        *self.steps.borrow_mut() += 1;
        let Some(message) = message else {
            return Ok(Answer {
                complete: true,
                message: None,
            });
        };
        let proof = self.proof(std::str::from_utf8(message).unwrap());
        let message = Some(proof.into_bytes());
        Ok(Answer {
            complete: !self.proof_first,
            message,
        })
    }
}

async fn run(server: &impl Server, mechanism: Mechanism) -> Result<(), SaslError> {
    exchange(server, mechanism, &Credentials::of("ops", "pass word")).await
}

#[tokio::test]
async fn scram_ends_well_whether_the_proof_comes_with_the_yes_or_before_it() {
    for proof_first in [false, true] {
        let server = Honest::new("pass word", proof_first);

        run(&server, Mechanism::ScramSha256).await.unwrap();

        assert_eq!(*server.steps.borrow(), 1 + usize::from(proof_first));
    }
}

#[tokio::test]
async fn a_yes_without_a_proof_is_refused() {
    let early = Script::of([(true, None)]);
    let wrong = Honest::new("another", false);

    let early = run(&early, Mechanism::ScramSha256).await.unwrap_err();
    let wrong = run(&wrong, Mechanism::ScramSha256).await.unwrap_err();

    assert!(
        matches!(early, SaslError::Unproven("SCRAM-SHA-256")),
        "{early}"
    );
    assert!(
        matches!(wrong, SaslError::Scram(ScramError::Impostor)),
        "{wrong}"
    );
}

#[tokio::test]
async fn plain_needs_one_message_and_a_yes() {
    let server = Script::of([(true, None)]);

    run(&server, Mechanism::Plain).await.unwrap();

    assert_eq!(*server.heard.borrow(), [Some(b"\0ops\0pass word".to_vec())]);
}

#[tokio::test]
async fn a_server_that_never_ends_is_left() {
    let server = Script::of(std::iter::repeat_n((false, Some(&b""[..])), 5));

    let error = run(&server, Mechanism::Plain).await.unwrap_err();

    assert!(matches!(error, SaslError::Endless), "{error}");
    assert_eq!(server.heard.borrow().len(), 5);
}

#[test]
fn every_byte_of_a_message_travels_as_a_word() {
    let some = message(Encoder::new(), Some(&vec![1, 0xff].into()));
    assert_eq!(some.into_bytes(), b"\0\0\0\0\0\0\0\x02\0\0\0\x01\0\0\0\xff");
    let none = message(Encoder::new(), None);
    assert_eq!(none.into_bytes(), b"\0\0\0\x01\0\0\0\0");

    let answer = Answer::decode(b"\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0v\xff\xff\xff\xff").unwrap();
    assert!(answer.complete);
    assert_eq!(answer.message.unwrap(), b"v\xff");
}

#[test]
fn a_message_longer_than_libvirts_limit_is_refused() {
    let huge = b"\0\0\0\0\0\0\0\0\xff\xff\xff\xff";
    assert_eq!(Answer::decode(huge).unwrap_err(), BadXdr::Long);
}

proptest! {
    #[test]
    fn no_bytes_of_a_daemon_are_too_much(payload: Vec<u8>) {
        let _answer = Answer::decode(&payload);
    }
}
