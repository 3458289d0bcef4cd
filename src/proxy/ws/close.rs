//! How a WebSocket ends: close frames and the ways to break the protocol.

use tungstenite::protocol::frame::coding::{Control, OpCode};

use super::encode::control_into;

/// The longest reason a close frame can carry, in bytes: 125 less the code.
const REASON: usize = 123;

/// What a close frame said. RFC 6455 section 5.5.1.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Close {
    /// The status code, if the frame had a payload.
    pub code: Option<u16>,
    /// The reason, empty if none was given. At most 123 bytes.
    pub reason: String,
}

/// What a viewer did that RFC 6455, or our use of it, forbids.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Violation {
    /// A client frame without a mask, section 5.1.
    #[error("frames must be masked")]
    Unmasked,
    /// A reserved bit, though no extension was agreed on, section 5.2.
    #[error("reserved bits are set")]
    ReservedBits,
    /// An opcode nobody has given a meaning, section 5.2.
    #[error("the opcode is reserved")]
    ReservedOpcode,
    /// A length not in its shortest form, or with its highest bit set, section 5.2.
    #[error("the frame length is malformed")]
    Length,
    /// A text frame: a console is bytes.
    #[error("text frames are not supported")]
    Text,
    /// A continuation of nothing, section 5.4.
    #[error("unexpected continuation frame")]
    Continuation,
    /// A new message before the last one ended, section 5.4.
    #[error("unexpected new message")]
    Interleaved,
    /// A control frame that is fragmented or over 125 bytes, section 5.5.
    #[error("control frames must be short and whole")]
    ControlFrame,
    /// A close frame with half a code, a code not meant for the wire, or a reason that is not
    /// UTF-8, sections 5.5.1 and 7.4.
    #[error("the close frame is malformed")]
    CloseFrame,
    /// A frame over the configured limit.
    #[error("the frame is too big")]
    TooBig,
}

impl Close {
    /// Reads a close frame's unmasked payload.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Violation> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        let (code, reason) = payload.split_first_chunk().ok_or(Violation::CloseFrame)?;
        let code = u16::from_be_bytes(*code);
        if !may_be_sent(code) {
            return Err(Violation::CloseFrame);
        }
        let reason = str::from_utf8(reason).map_err(|_| Violation::CloseFrame)?;
        Ok(Self {
            code: Some(code),
            reason: reason.to_owned(),
        })
    }

    /// This close as a server frame. Without a code there is no reason either.
    pub fn frame(&self) -> Vec<u8> {
        if let Some(code) = self.code {
            return close_frame(code, &self.reason);
        }
        let mut frame = Vec::new();
        control_into(&mut frame, OpCode::Control(Control::Close), &[]);
        frame
    }
}

impl Violation {
    /// The close code that names it. RFC 6455 section 7.4.1.
    pub fn code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::TooBig => 1009,
            Self::Unmasked
            | Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Length
            | Self::Continuation
            | Self::Interleaved
            | Self::ControlFrame
            | Self::CloseFrame => 1002,
        }
    }
}

/// A whole close frame from the server. A `reason` over 123 bytes is cut between characters.
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let cut = reason.floor_char_boundary(REASON);
    let reason = reason.get(..cut).unwrap_or_default();
    let payload = [code.to_be_bytes().as_slice(), reason.as_bytes()].concat();
    let mut frame = Vec::new();
    control_into(&mut frame, OpCode::Control(Control::Close), &payload);
    frame
}

/// Whether a peer may put `code` into a frame: the codes RFC 6455 section 7.4 and the registry
/// it opened define for the wire, and the ranges for libraries and applications.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_frame_holds_its_code_and_reason() {
        assert_eq!(close_frame(1000, "bye"), b"\x88\x05\x03\xe8bye");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "é".repeat(100);

        let frame = close_frame(4001, &reason);

        assert_eq!(frame.len(), 2 + 2 + 122);
        assert_eq!(str::from_utf8(&frame[4..]).unwrap(), "é".repeat(61));
    }

    #[test]
    fn an_empty_close_is_echoed_empty() {
        assert_eq!(Close::default().frame(), b"\x88\x00");
    }
}
