//! The gateway as a client of a VNC server, up to the end of the security handshake.
//!
//! The caller reads exactly as many bytes as it is told to, so that what follows stays where it
//! is: in the stream, or inside TLS. RFC 6143 sections 7.1 and 7.2; `VeNCrypt` 0.2.

use std::fmt;

use super::LONGEST_REASON;
use super::names::{is_anonymous, is_ra2, name, names};
use super::version::Version;
use super::vncauth::{self, CHALLENGE, Challenge};
use crate::model::{Password, Scheme, Schemes};

/// The security type that holds all encrypted schemes.
const VENCRYPT: u32 = 19;

/// The only version of `VeNCrypt` that servers speak.
const VENCRYPT_VERSION: [u8; 2] = [0, 2];

/// What the gateway agrees to, and what it can prove.
#[derive(Clone, Debug, Default)]
pub struct Means {
    /// What may be used, the preferred first.
    pub schemes: Schemes,
    /// Whether there is a CA that a server's certificate can be known by.
    pub knows_servers: bool,
    /// Who to log in as.
    pub user: Option<String>,
    /// The password; without one, the viewer is asked where that is possible.
    pub password: Option<Password>,
}

/// What to do next: send this, then go on.
#[derive(Eq, PartialEq)]
pub struct Turn {
    /// For the server; may be empty.
    pub send: Vec<u8>,
    /// And then.
    pub next: Next,
}

impl fmt::Debug for Turn {
    /// What is sent may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Turn");
        shown.field("send", &self.send.len());
        shown.field("next", &self.next).finish()
    }
}

/// How it goes on.
#[derive(Debug, Eq, PartialEq)]
pub enum Next {
    /// With exactly this many bytes of the server, for [`Negotiation::take`].
    Read(usize),
    /// With TLS over the stream, then [`Negotiation::secured`].
    StartTls,
    /// Not at all: a viewer can be let in.
    Ready(Ready),
}

/// How far the server is once a viewer can be let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ready {
    /// It waits for `ClientInit`.
    Open,
    /// It waits for the answer to this, which the viewer has to give:
    /// [`Negotiation::answer`].
    Challenged(Challenge),
}

/// Why a server is not to be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// It greets as something else, or as RFB 2.
    #[error("it is not a VNC server, or one from before RFB 3")]
    NotRfb,
    /// It offers no security type and says why.
    #[error("it lets nobody in: {}", said(reason))]
    Closed {
        /// In its own words.
        reason: String,
    },
    /// It offers nothing that both sides may use.
    #[error("it offers {offered}: {why}")]
    NoCommon {
        /// By name.
        offered: String,
        /// What stands in the way.
        why: String,
        /// Whether it offered something beside `VeNCrypt` that may be used.
        beside: bool,
    },
    /// It speaks another `VeNCrypt`.
    #[error("it speaks VeNCrypt {0}.{1}, expected 0.2")]
    VencryptVersion(u8, u8),
    /// It took back what it had offered.
    #[error("it refused {0}, which it had offered")]
    TakenBack(&'static str),
    /// It does not accept who we are.
    #[error("it refused us with {scheme}: {}", said(reason))]
    Refused {
        /// By which scheme.
        scheme: Scheme,
        /// In its own words.
        reason: String,
        /// Whether the viewer gave the answer.
        viewer: bool,
    },
    /// The caller handed in what was not asked for.
    #[error("the handshake was fed out of turn")]
    OutOfTurn,
}

fn said(reason: &str) -> &str {
    if reason.is_empty() {
        "it did not say why"
    } else {
        reason
    }
}

/// What is waited for, as a noun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// 12 bytes.
    Version,
    /// What it offers, or decided.
    Types,
    /// Its version and its subtypes.
    Vencrypt,
    /// The handshake inside the handshake.
    Tls,
    /// Whatever comes first behind it.
    Inside,
    /// 16 bytes.
    Challenge,
    /// Yes or no, and why not.
    Result,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "the version",
            Self::Types => "the security types",
            Self::Vencrypt => "VeNCrypt",
            Self::Tls => "the end of the TLS handshake",
            Self::Inside => "the first word inside TLS",
            Self::Challenge => "the challenge",
            Self::Result => "the security result",
        })
    }
}

/// One handshake with a server.
#[derive(Debug)]
pub struct Negotiation {
    means: Means,
    version: Version,
    state: State,
    /// The scheme that was chosen.
    scheme: Option<Scheme>,
    /// The schemes outside `VeNCrypt` that the server offered.
    beside: Vec<Scheme>,
    /// Whether the viewer answers the challenge.
    viewer_answers: bool,
    /// Nothing was heard inside TLS yet.
    fresh_tls: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Version,
    Decision,
    Count,
    Types,
    VencryptVersion,
    VencryptAccepted,
    SubtypeCount,
    Subtypes,
    SubtypeAccepted,
    Tls,
    Challenge,
    Answer,
    Result,
    ReasonLength(Why),
    Reason(Why),
    Done,
}

/// What a reason is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Why {
    Closed,
    Refused,
}

impl Negotiation {
    /// A handshake that begins with the server's version, and how it goes on.
    pub fn new(means: Means) -> (Self, Turn) {
        let negotiation = Self {
            means,
            version: Version::V38,
            state: State::Version,
            scheme: None,
            beside: Vec::new(),
            viewer_answers: false,
            fresh_tls: false,
        };
        (negotiation, read(Version::LENGTH))
    }

    /// Takes the bytes that were to be read.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Turn, Fault> {
        self.fresh_tls = false;
        match self.state {
            State::Version => self.on_version(bytes),
            State::Decision => self.on_decision(word(bytes)),
            State::Count => Ok(self.on_count(first(bytes))),
            State::Types => self.on_types(bytes),
            State::VencryptVersion => self.on_vencrypt_version(bytes),
            State::VencryptAccepted => self.on_vencrypt_accepted(first(bytes)),
            State::SubtypeCount => self.on_subtype_count(first(bytes)),
            State::Subtypes => self.on_subtypes(bytes),
            State::SubtypeAccepted => self.on_subtype_accepted(first(bytes)),
            State::Challenge => self.on_challenge(bytes),
            State::Result => self.on_result(word(bytes)),
            State::ReasonLength(why) => self.on_reason_length(why, word(bytes)),
            State::Reason(why) => Err(self.end(why, bytes)),
            State::Tls | State::Answer | State::Done => Err(Fault::OutOfTurn),
        }
    }

    /// Goes on inside TLS, with a server whose certificate was found good.
    pub fn secured(&mut self) -> Result<Turn, Fault> {
        if self.state != State::Tls {
            return Err(Fault::OutOfTurn);
        }
        self.fresh_tls = true;
        match self.scheme {
            Some(Scheme::X509Vnc) => Ok(self.then(State::Challenge, CHALLENGE)),
            Some(Scheme::X509Plain) => Ok(self.log_in()),
            _ => Ok(self.then(State::Result, 4)),
        }
    }

    /// Goes on with the viewer's answer to the challenge.
    pub fn answer(&mut self, answer: &Challenge) -> Result<Turn, Fault> {
        if self.state != State::Answer {
            return Err(Fault::OutOfTurn);
        }
        Ok(Turn {
            send: answer.to_vec(),
            ..self.then(State::Result, 4)
        })
    }

    /// What is waited for.
    pub fn step(&self) -> Step {
        if self.fresh_tls {
            return Step::Inside;
        }
        match self.state {
            State::Version => Step::Version,
            State::Decision | State::Count | State::Types | State::ReasonLength(Why::Closed) => {
                Step::Types
            }
            State::Reason(Why::Closed) => Step::Types,
            State::VencryptVersion | State::VencryptAccepted | State::SubtypeCount => {
                Step::Vencrypt
            }
            State::Subtypes | State::SubtypeAccepted => Step::Vencrypt,
            State::Tls => Step::Tls,
            State::Challenge | State::Answer => Step::Challenge,
            State::Result | State::ReasonLength(_) | State::Reason(_) | State::Done => Step::Result,
        }
    }

    /// What both sides agreed on, once they have.
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    fn on_version(&mut self, bytes: &[u8]) -> Result<Turn, Fault> {
        self.version = Version::parse(bytes).ok_or(Fault::NotRfb)?;
        let turn = match self.version {
            Version::V33 => self.then(State::Decision, 4),
            Version::V37 | Version::V38 => self.then(State::Count, 1),
        };
        Ok(Turn {
            send: self.version.message().to_vec(),
            ..turn
        })
    }

    /// 3.3: the server has chosen.
    fn on_decision(&mut self, number: u32) -> Result<Turn, Fault> {
        if number == 0 {
            return Ok(self.then(State::ReasonLength(Why::Closed), 4));
        }
        let scheme = plain(number).and_then(|scheme| self.choose(&[scheme]));
        let scheme = scheme.ok_or_else(|| self.nothing_in(&[number]))?;
        self.scheme = Some(scheme);
        Ok(self.begin(scheme))
    }

    fn on_count(&mut self, count: u8) -> Turn {
        match count {
            0 => self.then(State::ReasonLength(Why::Closed), 4),
            count => self.then(State::Types, usize::from(count)),
        }
    }

    fn on_types(&mut self, types: &[u8]) -> Result<Turn, Fault> {
        let types: Vec<u32> = types.iter().copied().map(u32::from).collect();
        self.beside = types.iter().copied().filter_map(plain).collect();
        let mut candidates = self.beside.clone();
        if types.contains(&VENCRYPT) {
            let all = [Scheme::X509Plain, Scheme::X509Vnc, Scheme::X509None];
            candidates.extend(all);
        }
        let scheme = self.choose(&candidates);
        match scheme.ok_or_else(|| self.nothing_in(&types))? {
            scheme if scheme.is_encrypted() => Ok(Turn {
                send: vec![19],
                ..self.then(State::VencryptVersion, 2)
            }),
            scheme => {
                self.scheme = Some(scheme);
                let mut turn = self.begin(scheme);
                turn.send = vec![if scheme == Scheme::VncAuth { 2 } else { 1 }];
                Ok(turn)
            }
        }
    }

    /// What follows the choice of a scheme outside `VeNCrypt`.
    fn begin(&mut self, scheme: Scheme) -> Turn {
        match (scheme, self.version) {
            (Scheme::VncAuth, _) => self.then(State::Challenge, CHALLENGE),
            (_, Version::V38) => self.then(State::Result, 4),
            (_, Version::V33 | Version::V37) => self.ready(Ready::Open),
        }
    }

    fn on_vencrypt_version(&mut self, bytes: &[u8]) -> Result<Turn, Fault> {
        match bytes {
            [0, 2] => Ok(Turn {
                send: VENCRYPT_VERSION.to_vec(),
                ..self.then(State::VencryptAccepted, 1)
            }),
            [major, minor, ..] => Err(Fault::VencryptVersion(*major, *minor)),
            _ => Err(Fault::OutOfTurn),
        }
    }

    /// 0 is yes here.
    fn on_vencrypt_accepted(&mut self, status: u8) -> Result<Turn, Fault> {
        if status != 0 {
            return Err(Fault::TakenBack("VeNCrypt 0.2"));
        }
        Ok(self.then(State::SubtypeCount, 1))
    }

    fn on_subtype_count(&mut self, count: u8) -> Result<Turn, Fault> {
        if count == 0 {
            return Err(self.nothing_in(&[]));
        }
        let length = usize::from(count).saturating_mul(4);
        Ok(self.then(State::Subtypes, length))
    }

    fn on_subtypes(&mut self, bytes: &[u8]) -> Result<Turn, Fault> {
        let (words, _) = bytes.as_chunks::<4>();
        let numbers: Vec<u32> = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
        let candidates: Vec<_> = numbers.iter().copied().filter_map(encrypted).collect();
        let scheme = self.choose(&candidates);
        let scheme = scheme.ok_or_else(|| self.nothing_in(&numbers))?;
        self.scheme = Some(scheme);
        Ok(Turn {
            send: subtype(scheme).to_be_bytes().to_vec(),
            ..self.then(State::SubtypeAccepted, 1)
        })
    }

    /// 0 is no here.
    fn on_subtype_accepted(&mut self, accepted: u8) -> Result<Turn, Fault> {
        if accepted == 0 {
            let scheme = self.scheme.map_or("it", Scheme::as_str);
            return Err(Fault::TakenBack(scheme));
        }
        self.state = State::Tls;
        Ok(turn(Next::StartTls))
    }

    /// Two lengths, then user and password.
    fn log_in(&mut self) -> Turn {
        let user = self.means.user.clone().unwrap_or_default();
        let password = self.means.password.as_ref().map_or("", Password::reveal);
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(0).to_be_bytes();
        let mut send = Vec::new();
        send.extend(length(&user));
        send.extend(length(password));
        send.extend(user.as_bytes());
        send.extend(password.as_bytes());
        Turn {
            send,
            ..self.then(State::Result, 4)
        }
    }

    fn on_challenge(&mut self, bytes: &[u8]) -> Result<Turn, Fault> {
        let challenge = bytes.try_into().map_err(|_| Fault::OutOfTurn)?;
        let Some(password) = &self.means.password else {
            self.viewer_answers = true;
            self.state = State::Answer;
            return Ok(turn(Next::Ready(Ready::Challenged(challenge))));
        };
        Ok(Turn {
            send: vncauth::answer(password, &challenge).to_vec(),
            ..self.then(State::Result, 4)
        })
    }

    fn on_result(&mut self, result: u32) -> Result<Turn, Fault> {
        match (result, self.version) {
            (0, _) => Ok(self.ready(Ready::Open)),
            (_, Version::V38) => Ok(self.then(State::ReasonLength(Why::Refused), 4)),
            (_, Version::V33 | Version::V37) => Err(self.end(Why::Refused, &[])),
        }
    }

    fn on_reason_length(&mut self, why: Why, length: u32) -> Result<Turn, Fault> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        match length.min(LONGEST_REASON) {
            0 => Err(self.end(why, &[])),
            length => Ok(self.then(State::Reason(why), length)),
        }
    }

    /// What the server's no means. Its reason is somebody else's text: no control characters.
    fn end(&mut self, why: Why, reason: &[u8]) -> Fault {
        self.state = State::Done;
        let text = String::from_utf8_lossy(reason);
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        let reason = text.chars().map(shown).collect::<String>();
        let reason = reason.trim().to_owned();
        match (why, self.scheme) {
            (Why::Closed, _) | (_, None) => Fault::Closed { reason },
            (Why::Refused, Some(scheme)) => Fault::Refused {
                scheme,
                reason,
                viewer: self.viewer_answers,
            },
        }
    }

    fn then(&mut self, state: State, length: usize) -> Turn {
        self.state = state;
        read(length)
    }

    fn ready(&mut self, ready: Ready) -> Turn {
        self.state = State::Done;
        turn(Next::Ready(ready))
    }

    /// The first of our schemes that is among `offered` and that we can carry through ourselves;
    /// else the first that the viewer can.
    fn choose(&self, offered: &[Scheme]) -> Option<Scheme> {
        let common = |scheme: &Scheme| offered.contains(scheme);
        let mut alone = self.means.schemes.iter().filter(common);
        let found = alone.find(|scheme| self.means.lacks(*scheme).is_none());
        let mut with_viewer = self.means.schemes.iter().filter(common);
        found.or_else(|| with_viewer.find(|scheme| self.means.lacks(*scheme) == Some(PASSWORD)))
    }

    /// Says why nothing of what the server offers will do.
    fn nothing_in(&self, numbers: &[u32]) -> Fault {
        let mut whys: Vec<String> = Vec::new();
        for why in numbers.iter().filter_map(|number| self.objection(*number)) {
            if !whys.contains(&why) {
                whys.push(why);
            }
        }
        let offered = match numbers {
            [] => "no VeNCrypt subtype".to_owned(),
            numbers => names(numbers),
        };
        if whys.is_empty() {
            whys.push("nothing that is spoken here".to_owned());
        }
        Fault::NoCommon {
            offered,
            why: whys.join("; "),
            beside: self.choose(&self.beside).is_some(),
        }
    }

    /// What stands in the way of one type; nothing if it is just unknown.
    fn objection(&self, number: u32) -> Option<String> {
        if is_anonymous(number) {
            let why = "its TLS without a certificate (anonymous Diffie-Hellman) does not prove \
                       who it is; configure X509None, X509Vnc or X509Plain there";
            return Some(why.to_owned());
        }
        if is_ra2(number) {
            let why = "RA2 is RealVNC's own and not spoken here; configure VncAuth or VeNCrypt \
                       there";
            return Some(why.to_owned());
        }
        if number == VENCRYPT {
            let mut encrypted = self.means.schemes.iter().filter(|it| it.is_encrypted());
            return Some(match encrypted.next() {
                None => "`security` does not allow vencrypt".to_owned(),
                Some(scheme) => self.means.lacks(scheme)?.to_owned(),
            });
        }
        let scheme = plain(number).or_else(|| encrypted(number))?;
        if !self.means.schemes.contains(scheme) {
            return Some(format!("`security` does not allow {}", name(number)));
        }
        self.means.lacks(scheme).map(str::to_owned)
    }
}

/// The one thing a viewer can help out with.
const PASSWORD: &str = "there is no password for it";

impl Means {
    /// The same with nothing that is encrypted.
    #[must_use]
    pub fn beside_vencrypt(&self) -> Self {
        let plain = self.schemes.iter().filter(|scheme| !scheme.is_encrypted());
        Self {
            schemes: plain.collect::<Vec<_>>().into(),
            ..self.clone()
        }
    }

    /// What is missing on our side for a scheme.
    fn lacks(&self, scheme: Scheme) -> Option<&'static str> {
        if scheme.is_encrypted() && !self.knows_servers {
            return Some("no `ca_file` is set that its certificate could be known by");
        }
        match scheme {
            Scheme::X509Plain if self.user.is_none() || self.password.is_none() => {
                Some("x509plain needs `user` and `password_file`")
            }
            Scheme::X509Vnc | Scheme::VncAuth if self.password.is_none() => Some(PASSWORD),
            _ => None,
        }
    }
}

/// The scheme that a type outside `VeNCrypt` is.
fn plain(number: u32) -> Option<Scheme> {
    match number {
        1 => Some(Scheme::None),
        2 => Some(Scheme::VncAuth),
        _ => None,
    }
}

/// The scheme that a subtype of `VeNCrypt` is.
fn encrypted(number: u32) -> Option<Scheme> {
    match number {
        260 => Some(Scheme::X509None),
        261 => Some(Scheme::X509Vnc),
        262 => Some(Scheme::X509Plain),
        _ => None,
    }
}

fn subtype(scheme: Scheme) -> u32 {
    match scheme {
        Scheme::X509Vnc => 261,
        Scheme::X509Plain => 262,
        Scheme::X509None | Scheme::VncAuth | Scheme::None => 260,
    }
}

fn read(length: usize) -> Turn {
    turn(Next::Read(length))
}

fn turn(next: Next) -> Turn {
    let send = Vec::new();
    Turn { send, next }
}

fn first(bytes: &[u8]) -> u8 {
    bytes.first().copied().unwrap_or_default()
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests;
