//! Server frames, RFC 6455 section 5.2: never masked, never fragmented.

use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Bytes to leave free before a payload: the longest header without a mask.
pub const HEADROOM: usize = 10;

/// A ping without payload.
pub const PING: [u8; 2] = [0x89, 0x00];

/// Puts a binary frame's header in front of the `length` bytes at `buffer[HEADROOM..]`.
///
/// Returns where in `buffer` the whole frame now is.
///
/// # Panics
///
/// If `buffer` is shorter than [`HEADROOM`].
pub fn frame_in_place(buffer: &mut [u8], length: usize) -> Range<usize> {
    let header = FrameHeader {
        opcode: OpCode::Data(Data::Binary),
        ..FrameHeader::default()
    };
    let size = wide(length);
    let start = HEADROOM.saturating_sub(header.len(size));
    let (headroom, _payload) = buffer.split_at_mut(HEADROOM);
    let (_unused, mut slot) = headroom.split_at_mut(start);
    let written = header.format(size, &mut slot);
    debug_assert!(
        written.is_ok(),
        "a header without a mask is at most 10 bytes"
    );
    start..HEADROOM.saturating_add(length)
}

/// A binary frame with `payload`, copied.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut buffer = [[0; HEADROOM].as_slice(), payload].concat();
    let frame = frame_in_place(&mut buffer, payload.len());
    buffer.drain(..frame.start);
    buffer
}

/// Replaces what is in `frame` by a pong with `payload` (at most 125 bytes).
pub fn pong_into(frame: &mut Vec<u8>, payload: &[u8]) {
    frame.clear();
    control_into(frame, OpCode::Control(Control::Pong), payload);
}

/// Appends a control frame; `payload` is at most 125 bytes.
pub(super) fn control_into(frame: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    debug_assert!(payload.len() <= 125, "a control frame is short");
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    let written = header.format(wide(payload.len()), frame);
    debug_assert!(written.is_ok(), "a Vec takes every write");
    frame.extend_from_slice(payload);
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(length: usize) -> Vec<u8> {
        let mut buffer = vec![7; HEADROOM + length];
        let frame = frame_in_place(&mut buffer, length);
        buffer[frame][..10.min(length)].to_vec()
    }

    #[test]
    fn a_short_frame_has_a_header_of_two_bytes() {
        assert_eq!(framed(125)[..3], [0x82, 125, 7]);
    }

    #[test]
    fn a_middle_frame_has_a_header_of_four_bytes() {
        assert_eq!(framed(126)[..5], [0x82, 126, 0, 126, 7]);
    }

    #[test]
    fn a_long_frame_has_a_header_of_ten_bytes() {
        assert_eq!(framed(65_536)[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_pong_carries_the_payload_of_its_ping() {
        let mut frame = b"stale".to_vec();

        pong_into(&mut frame, b"hi");

        assert_eq!(frame, b"\x8a\x02hi");
    }
}
