//! From the viewer to the server: every message that noVNC, TigerVNC and QEMU's own clients send.

use super::encodings::{EXTENDED_BUTTONS, offered};
use super::format::Format;
use super::pressed::Pressed;
use super::{Unfiltered, be16, be32, cut_text_length, gii_length};
use crate::model::Rights;

/// Follows a viewer's messages. Where its rights are limited, heads are held until they are whole;
/// bodies pass as they come. Where they are not, everything passes at once and is only looked at.
pub(super) struct Upward {
    rights: Rights,
    /// In force from the next message on.
    next: Rights,
    state: State,
    held: Vec<u8>,
    /// Bytes of the body still to come, and whether the server gets them.
    body: u64,
    keep: bool,
    format: Option<Format>,
    pressed: Pressed,
    /// The viewer may send pointer events of seven bytes: it told the server that it can.
    long_pointer: bool,
    /// Where an unlimited viewer could not be followed any further.
    lost: Option<Unfiltered>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The one byte of `ClientInit`.
    Init,
    /// The head of a message.
    Head,
    /// So many encodings are still to come.
    Encodings(u16),
}

impl std::fmt::Debug for Upward {
    /// What is held may be what somebody types.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Upward");
        shown.field("rights", &self.rights);
        shown.field("state", &self.state).finish_non_exhaustive()
    }
}

impl Upward {
    pub(super) fn new(rights: Rights) -> Self {
        Self {
            rights,
            next: rights,
            state: State::Init,
            held: Vec::new(),
            body: 0,
            keep: true,
            format: None,
            pressed: Pressed::default(),
            long_pointer: false,
            lost: None,
        }
    }

    pub(super) fn change(&mut self, rights: Rights) {
        self.next = rights;
    }

    pub(super) fn filter(&mut self, bytes: &[u8], kept: &mut Vec<u8>) -> Result<(), Unfiltered> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.settle(kept)?;
            rest = if self.lost.is_some() {
                kept.extend_from_slice(rest);
                &[]
            } else if self.body > 0 {
                self.pass_body(rest, kept)
            } else {
                self.take_head(rest, kept)?
            };
        }
        Ok(())
    }

    /// Between two messages, puts the latest rights in force.
    fn settle(&mut self, kept: &mut Vec<u8>) -> Result<(), Unfiltered> {
        if self.next == self.rights {
            return Ok(());
        }
        if let Some(lost) = self.lost {
            return Err(lost);
        }
        let inside = self.body > 0 || !self.held.is_empty();
        if inside || matches!(self.state, State::Encodings(_)) {
            return Ok(());
        }
        if self.rights.input && !self.next.input {
            self.pressed.release(kept);
        }
        self.rights = self.next;
        Ok(())
    }

    /// Whether everything passes, as it is and when it comes.
    fn is_open(&self) -> bool {
        !self.rights.are_limited()
    }

    /// The pixel format that the viewer asked for since this was last looked at.
    pub(super) fn new_format(&mut self) -> Option<Format> {
        self.format.take()
    }

    fn pass_body<'a>(&mut self, bytes: &'a [u8], kept: &mut Vec<u8>) -> &'a [u8] {
        let length = usize::try_from(self.body).unwrap_or(usize::MAX);
        let (body, rest) = bytes.split_at(length.min(bytes.len()));
        if self.keep {
            kept.extend_from_slice(body);
        }
        let length = u64::try_from(body.len()).unwrap_or(self.body);
        self.body = self.body.saturating_sub(length);
        rest
    }

    fn take_head<'a>(
        &mut self,
        bytes: &'a [u8],
        kept: &mut Vec<u8>,
    ) -> Result<&'a [u8], Unfiltered> {
        let missing = self.head_length()?.saturating_sub(self.held.len());
        let (piece, rest) = bytes.split_at(missing.min(bytes.len()));
        self.held.extend_from_slice(piece);
        if self.is_open() {
            kept.extend_from_slice(piece);
        }
        match self.look_at_head(kept) {
            Err(unknown) if self.is_open() => {
                self.lost = Some(unknown);
                self.held = Vec::new();
            }
            looked => looked?,
        }
        Ok(rest)
    }

    /// A first byte or two may only tell how long the head is.
    fn look_at_head(&mut self, kept: &mut Vec<u8>) -> Result<(), Unfiltered> {
        if self.held.len() == self.head_length()? {
            self.on_head(kept)?;
            self.held.clear();
        }
        Ok(())
    }

    fn head_length(&self) -> Result<usize, Unfiltered> {
        let byte = |at: usize| self.held.get(at).copied();
        Ok(match (self.state, byte(0)) {
            (State::Init, _) | (State::Head, None) => 1,
            (State::Encodings(_), _) => 4,
            (State::Head, Some(kind)) => match kind {
                0 => 20,
                5 if self.long_pointer => match byte(1) {
                    None => 2,
                    Some(buttons) if buttons & 0x80 != 0 => 7,
                    Some(_) => 6,
                },
                1 | 5 => 6,
                2 | 250 | 253 => 4,
                3 | 150 => 10,
                4 | 6 | 251 => 8,
                248 => 9,
                255 => qemu_length(byte(1), be16(&self.held, 2), self.held.len())?,
                unknown => return Err(Unfiltered::Viewer(unknown)),
            },
        })
    }

    fn on_head(&mut self, kept: &mut Vec<u8>) -> Result<(), Unfiltered> {
        match self.state {
            State::Init => self.on_init(),
            State::Head => self.on_message()?,
            State::Encodings(left) => self.on_encoding(left),
        }
        if self.keep && !self.is_open() {
            kept.extend_from_slice(&self.held);
        }
        Ok(())
    }

    /// Whoever only looks must not throw others out, which is what an unshared session does.
    fn on_init(&mut self) {
        if !self.rights.input {
            self.held = vec![1];
        }
        self.state = State::Head;
    }

    fn on_message(&mut self) -> Result<(), Unfiltered> {
        let head = self.held.as_slice();
        let kind = head.first().copied().unwrap_or_default();
        self.keep = match kind {
            6 => self.rights.clipboard_in,
            4 | 5 | 250 | 251 | 253 | 255 => self.rights.input,
            _ => true,
        };
        if self.keep {
            self.pressed.note(&self.held);
        }
        let head = self.held.as_slice();
        self.body = match kind {
            1 => u64::from(be16(head, 4)).saturating_mul(6),
            6 => cut_text_length(head, 4),
            248 => head.get(8).copied().map_or(0, u64::from),
            251 => head
                .get(6)
                .map_or(0, |count| u64::from(*count).saturating_mul(16)),
            253 => gii_length(head, 1),
            _ => 0,
        };
        match kind {
            0 => self.format = Some(Format::parse(head.get(4..).unwrap_or_default())?),
            2 => self.expect_encodings(be16(head, 2)),
            _ => {}
        }
        Ok(())
    }

    fn on_encoding(&mut self, left: u16) {
        let wanted = be32(&self.held, 0).cast_signed();
        if self.is_open() {
            self.long_pointer |= wanted == EXTENDED_BUTTONS;
        } else {
            self.held = offered(wanted, self.rights).to_be_bytes().to_vec();
        }
        self.expect_encodings(left.saturating_sub(1));
    }

    fn expect_encodings(&mut self, left: u16) {
        self.state = match left {
            0 => State::Head,
            left => State::Encodings(left),
        };
    }
}

/// QEMU's messages: keys by their codes, and what is to become of sound.
fn qemu_length(kind: Option<u8>, operation: u16, held: usize) -> Result<usize, Unfiltered> {
    match (kind, operation) {
        (None, _) => Ok(2),
        (Some(0), _) => Ok(12),
        (Some(1), 2) if held >= 4 => Ok(10),
        (Some(1), 0..=2) => Ok(4),
        (Some(_), _) => Err(Unfiltered::Viewer(255)),
    }
}
