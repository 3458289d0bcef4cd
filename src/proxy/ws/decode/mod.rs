//! Client frames to payload and control frames, RFC 6455 sections 5 and 7.

use std::io::Cursor;
use std::mem;
use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control as ControlCode, Data, OpCode};

use super::close::{Close, Violation};
use super::mask::unmask;

/// The longest payload of a control frame, section 5.5.
const CONTROL: usize = 125;

/// The longest frame header, section 5.2: 2 bytes, 8 of length, 4 of mask.
const HEADER: usize = 14;

/// Reads a viewer's frames, however they are cut into reads.
pub struct Decoder {
    limit: usize,
    state: State,
    /// Payload bytes of this frame still to come.
    remaining: usize,
    /// Turned so that its first byte meets the next payload byte.
    mask: [u8; 4],
    /// A message has begun and its final fragment has not.
    in_message: bool,
    held: Held,
    /// The payload of a control frame under way, at most [`CONTROL`] bytes.
    control: Vec<u8>,
}

/// A control frame that does not end the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Control<'a> {
    /// To be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// An answer to a ping, or a sign of life nobody asked for.
    Pong,
}

/// What one read held.
#[derive(Debug, Eq, PartialEq)]
pub struct Decoded {
    /// Where in the bytes handed in the payload of all data frames now is.
    pub payload: Range<usize>,
    /// The last frame of the connection, if it was among them.
    pub end: Option<End>,
}

/// Why there are no more frames.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// A proper close frame.
    Close(Close),
    /// The viewer broke the protocol.
    Violation(Violation),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Between frames, or within a header whose first bytes are held.
    Header,
    Data,
    /// Within a control frame whose first payload bytes are held.
    Control(ControlCode),
    Ended,
}

/// Bytes kept from one read to the next: part of a header.
struct Held {
    bytes: [u8; HEADER],
    length: usize,
}

impl Decoder {
    /// A decoder before its first byte. Frames over `limit` payload bytes are refused by their
    /// header; a message of many frames has no limit, because it is never gathered.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            state: State::Header,
            remaining: 0,
            mask: [0; 4],
            in_message: false,
            held: Held::new(),
            control: Vec::new(),
        }
    }

    /// Takes in all of `bytes`, unmasked in place, and gives the payload of the data frames.
    ///
    /// Calls `control` for each ping and pong. Payload before an offending frame or a close
    /// frame is given, nothing of an offending frame is; after either, everything is ignored.
    pub fn decode(&mut self, bytes: &mut [u8], mut control: impl FnMut(Control<'_>)) -> Decoded {
        let mut payload = 0..0;
        let mut at = 0;
        while at < bytes.len() {
            match self.step(bytes, at, &mut payload, &mut control) {
                Ok(taken) => at = at.saturating_add(taken),
                Err(end) => {
                    self.state = State::Ended;
                    let end = Some(end);
                    return Decoded { payload, end };
                }
            }
        }
        let end = None;
        Decoded { payload, end }
    }

    /// One header, or one frame's share of `bytes[at..]`, which is not empty.
    fn step(
        &mut self,
        bytes: &mut [u8],
        at: usize,
        payload: &mut Range<usize>,
        control: &mut impl FnMut(Control<'_>),
    ) -> Result<usize, End> {
        let (_seen, rest) = bytes.split_at_mut(at);
        let taken = match self.state {
            State::Header => self.take_header(rest)?,
            State::Data => self.take_data(bytes, at, payload),
            State::Control(_) => self.take_control(rest),
            State::Ended => rest.len(),
        };
        if self.remaining == 0 {
            self.finish_frame(control)?;
        }
        Ok(taken)
    }

    fn take_header(&mut self, rest: &[u8]) -> Result<usize, Violation> {
        let before = self.held.length;
        let taken = self.held.fill(rest);
        let Some((header, length, size)) = parse(self.held.as_slice())? else {
            return Ok(taken);
        };
        self.held.clear();
        self.begin(&header, length, size)?;
        Ok(size.saturating_sub(before))
    }

    /// Starts the frame that `header`, `size` bytes on the wire, announces.
    fn begin(&mut self, header: &FrameHeader, length: u64, size: usize) -> Result<(), Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::ReservedBits);
        }
        self.mask = header.mask.ok_or(Violation::Unmasked)?;
        if header.len(length) != size || length > u64::MAX >> 1 {
            return Err(Violation::Length);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.state = match header.opcode {
            OpCode::Control(kind) => begin_control(kind, header.is_final, length)?,
            OpCode::Data(kind) => self.begin_data(kind, header.is_final, length)?,
        };
        self.remaining = length;
        Ok(())
    }

    fn begin_data(&mut self, kind: Data, is_final: bool, len: usize) -> Result<State, Violation> {
        match (kind, self.in_message) {
            (Data::Text, _) => return Err(Violation::Text),
            (Data::Reserved(_), _) => return Err(Violation::ReservedOpcode),
            (Data::Continue, false) => return Err(Violation::Continuation),
            (Data::Binary, true) => return Err(Violation::Interleaved),
            (Data::Continue, true) | (Data::Binary, false) => {}
        }
        if len > self.limit {
            return Err(Violation::TooBig);
        }
        self.in_message = !is_final;
        Ok(State::Data)
    }

    fn take_data(&mut self, bytes: &mut [u8], at: usize, payload: &mut Range<usize>) -> usize {
        let (_seen, rest) = bytes.split_at_mut(at);
        let length = rest.len().min(self.remaining);
        let (piece, _next) = rest.split_at_mut(length);
        unmask(piece, self.mask);
        self.mask.rotate_left(length % 4);
        self.remaining = self.remaining.saturating_sub(length);
        // The first piece stays where it is, so that a read of one frame is never moved.
        if payload.start == payload.end {
            payload.start = at;
            payload.end = at;
        } else {
            bytes.copy_within(at..at.saturating_add(length), payload.end);
        }
        payload.end = payload.end.saturating_add(length);
        length
    }

    fn take_control(&mut self, rest: &[u8]) -> usize {
        let (piece, _next) = rest.split_at(rest.len().min(self.remaining));
        self.control.extend_from_slice(piece);
        self.remaining = self.remaining.saturating_sub(piece.len());
        piece.len()
    }

    /// Ends the frame whose last payload byte was taken; nothing if none has begun.
    fn finish_frame(&mut self, control: &mut impl FnMut(Control<'_>)) -> Result<(), End> {
        let state = self.state;
        let State::Control(kind) = state else {
            if state == State::Data {
                self.state = State::Header;
            }
            return Ok(());
        };
        self.state = State::Header;
        let mut payload = mem::take(&mut self.control);
        unmask(&mut payload, self.mask);
        match kind {
            ControlCode::Ping => control(Control::Ping(&payload)),
            ControlCode::Pong => control(Control::Pong),
            ControlCode::Close => return Err(End::Close(Close::parse(&payload)?)),
            ControlCode::Reserved(_) => return Err(Violation::ReservedOpcode.into()),
        }
        Ok(())
    }
}

impl Held {
    fn new() -> Self {
        Self {
            bytes: [0; HEADER],
            length: 0,
        }
    }

    /// Takes bytes from `source` while there is room; returns how many it took.
    fn fill(&mut self, source: &[u8]) -> usize {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let taken = room.len().min(source.len());
        for (to, from) in room.iter_mut().zip(source) {
            *to = *from;
        }
        self.length = self.length.saturating_add(taken);
        taken
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.length = 0;
    }
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl std::fmt::Debug for Decoder {
    /// Never tells what is held: it may be what somebody typed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("state", &self.state)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

fn begin_control(kind: ControlCode, is_final: bool, length: usize) -> Result<State, Violation> {
    if !is_final || length > CONTROL {
        return Err(Violation::ControlFrame);
    }
    Ok(State::Control(kind))
}

/// A header at the start of `bytes`, its payload's length and its own; none if it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    // Reading from memory, a header can only be refused for its opcode.
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::ReservedOpcode)?;
    let size = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
    Ok(parsed.map(|(header, length)| (header, length, size)))
}

#[cfg(test)]
mod tests;
