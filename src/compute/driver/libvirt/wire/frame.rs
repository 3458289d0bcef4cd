//! One message: its length, its header, its payload.
//!
//! A message's length stands in front and counts itself. [`Header`] is what every message has;
//! the payload is [`super::xdr`] of a call, or a stream's plain bytes. [`decode`] reads a message
//! from bytes, the connection from a stream; both refuse what is longer than libvirt allows.

use super::procedure::{KEEPALIVE, REMOTE, VERSION};
use super::xdr::{Decoder, Encoder};

/// The length and the header, in bytes.
pub const HEADER: usize = 28;

/// The longest message, in bytes, its length included: libvirt's own limit since 1.2.
pub const LONGEST: usize = 32 * 1024 * 1024 + 4;

/// The most descriptors that one message may carry: libvirt's own limit.
pub const MOST_DESCRIPTORS: u32 = 32;

/// What a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type {
    /// A client's question.
    Call,
    /// Its answer.
    Reply,
    /// Said without being asked: events, pings.
    Message,
    /// A piece of a stream.
    Stream,
    /// A question with descriptors behind it.
    CallWithDescriptors,
    /// An answer with descriptors behind it.
    ReplyWithDescriptors,
    /// A hole in a stream; only for clients that asked for such.
    StreamHole,
}

/// How it went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// Well. On a stream: its end, as both sides agree.
    Ok,
    /// Badly; the payload says why.
    Error,
    /// On a stream: there is more; without a payload, there is no more from this side.
    Continue,
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Which program: [`REMOTE`] or [`KEEPALIVE`].
    pub program: u32,
    /// Which call, event or stream.
    pub procedure: i32,
    /// What it is.
    pub r#type: Type,
    /// The caller's number of the call; 0 for messages.
    pub serial: u32,
    /// How it went.
    pub status: Status,
}

/// A header and what follows it; the descriptors, if any, are elsewhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// The header.
    pub header: Header,
    /// XDR, or bytes of a stream.
    pub payload: Vec<u8>,
}

/// Why bytes are no message. The connection cannot go on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadFrame {
    /// Longer than libvirt allows, or too short for a header.
    #[error("a message of {0} bytes")]
    Length(u32),
    /// Neither of the two programs.
    #[error("a message of the unknown program {0:#x}, version {1}")]
    Program(u32, u32),
    /// No such type.
    #[error("a message of the unknown type {0}")]
    Type(u32),
    /// No such status.
    #[error("a message of the unknown status {0}")]
    Status(u32),
    /// More descriptors than any reply carries, or none behind the last byte.
    #[error("a message with {0} descriptors")]
    Descriptors(u32),
    /// Fewer bytes than announced.
    #[error("a message that ends too early")]
    Truncated,
}

impl Header {
    /// The header of a call of the program [`REMOTE`].
    pub fn call(procedure: i32, serial: u32) -> Self {
        Self {
            program: REMOTE,
            procedure,
            r#type: Type::Call,
            serial,
            status: Status::Ok,
        }
    }

    /// The whole message of this header and `payload`.
    pub fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len().saturating_add(HEADER)).unwrap_or(u32::MAX);
        let words = Encoder::new().uint(length).uint(self.program);
        let words = words.uint(VERSION).int(self.procedure);
        let words = words.uint(self.r#type.number()).uint(self.serial);
        let mut bytes = words.uint(self.status.number()).into_bytes();
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Reads a header and how many bytes of payload follow it.
    pub fn decode(bytes: &[u8; HEADER]) -> Result<(Self, usize), BadFrame> {
        let mut words = Decoder::new(bytes);
        let mut word = || words.uint().map_err(|_| BadFrame::Truncated);
        let length = word()?;
        let payload = usize::try_from(length).ok();
        let payload = payload.filter(|length| *length <= LONGEST);
        let payload = payload.and_then(|length| length.checked_sub(HEADER));
        let payload = payload.ok_or(BadFrame::Length(length))?;
        let (program, version) = (word()?, word()?);
        if version != VERSION || ![REMOTE, KEEPALIVE].contains(&program) {
            return Err(BadFrame::Program(program, version));
        }
        let header = Self {
            program,
            procedure: word()?.cast_signed(),
            r#type: Type::from_number(word()?)?,
            serial: word()?,
            status: Status::from_number(word()?)?,
        };
        Ok((header, payload))
    }
}

impl Type {
    const ALL: [Self; 7] = [
        Self::Call,
        Self::Reply,
        Self::Message,
        Self::Stream,
        Self::CallWithDescriptors,
        Self::ReplyWithDescriptors,
        Self::StreamHole,
    ];

    fn number(self) -> u32 {
        position(&Self::ALL, self)
    }

    fn from_number(number: u32) -> Result<Self, BadFrame> {
        at(&Self::ALL, number).ok_or(BadFrame::Type(number))
    }
}

impl Status {
    const ALL: [Self; 3] = [Self::Ok, Self::Error, Self::Continue];

    fn number(self) -> u32 {
        position(&Self::ALL, self)
    }

    fn from_number(number: u32) -> Result<Self, BadFrame> {
        at(&Self::ALL, number).ok_or(BadFrame::Status(number))
    }
}

/// The numbers of the protocol are the places in the lists above.
fn position<T: PartialEq + Copy>(all: &[T], one: T) -> u32 {
    let place = (0..).zip(all).find(|(_, it)| **it == one);
    place.map_or(0, |(place, _)| place)
}

fn at<T: Copy>(all: &[T], place: u32) -> Option<T> {
    all.get(usize::try_from(place).ok()?).copied()
}

/// Reads one whole message from the front of `bytes`, and what is behind it.
pub fn decode(bytes: &[u8]) -> Result<(Frame, &[u8]), BadFrame> {
    let (head, rest) = bytes.split_first_chunk().ok_or(BadFrame::Truncated)?;
    let (header, length) = Header::decode(head)?;
    let (payload, rest) = rest.split_at_checked(length).ok_or(BadFrame::Truncated)?;
    let frame = Frame {
        header,
        payload: payload.to_vec(),
    };
    Ok((frame, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The opening of `qemu:///system` as libvirt's own client sends it.
    const OPEN: &str = "00000038 20008086 00000001 00000001 00000000 00000001 00000000 \
                        00000001 0000000e 71656d753a2f2f2f73797374656d0000 00000000";

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: Vec<char> = hex.chars().filter(char::is_ascii_hexdigit).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        hex.chunks(2).map(byte).collect()
    }

    #[test]
    fn a_captured_call_reads_and_writes_the_same() {
        let captured = bytes(OPEN);

        let (frame, rest) = decode(&captured).unwrap();

        assert_eq!(rest, b"");
        assert_eq!(frame.header, Header::call(1, 1));
        assert_eq!(frame.header.encode(&frame.payload), captured);
        let arguments = Encoder::new().optional_string(Some("qemu:///system"));
        assert_eq!(arguments.uint(0).into_bytes(), frame.payload);
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_from_the_header_alone() {
        let mut head = [0; HEADER];
        for length in [0, 27, 33_554_437, u32::MAX] {
            head[..4].copy_from_slice(&length.to_be_bytes());
            assert_eq!(Header::decode(&head), Err(BadFrame::Length(length)));
        }
    }

    #[test]
    fn unknown_programs_types_and_statuses_are_refused() {
        let changed = |at: usize, to: u8| {
            let mut open = bytes(OPEN);
            open[at] = to;
            decode(&open).unwrap_err()
        };
        assert_eq!(changed(4, 9), BadFrame::Program(0x0900_8086, 1));
        assert_eq!(changed(11, 2), BadFrame::Program(REMOTE, 2));
        assert_eq!(changed(19, 7), BadFrame::Type(7));
        assert_eq!(changed(27, 3), BadFrame::Status(3));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_fail_badly(bytes: Vec<u8>) {
            if let Ok((frame, rest)) = decode(&bytes) {
                prop_assert!(frame.payload.len() + rest.len() <= bytes.len());
            }
        }

        #[test]
        fn messages_read_back_as_they_were_written(
            procedure: i32, serial: u32, kind in 0_u32..7, status in 0_u32..3, payload: Vec<u8>,
        ) {
            let header = Header {
                r#type: Type::from_number(kind).unwrap(),
                status: Status::from_number(status).unwrap(),
                ..Header::call(procedure, serial)
            };
            let written = header.encode(&payload);
            let (frame, rest) = decode(&written).unwrap();
            prop_assert_eq!(rest, b"");
            prop_assert_eq!(frame, Frame { header, payload });
        }
    }
}
