//! What of a viewer's bytes is a person's doing.
//!
//! Pages talk on their own: they ask for the next picture, acknowledge, answer pings. Called by the
//! relay's meter with the payload of one read, which for pages is whole messages; what does not
//! look like nothing but such talk is taken for input, so that a doubt costs a later end and never
//! a session in use. RFC 6143 section 7.5; the SPICE protocol's common client messages.

use crate::model::ConsoleKind;

/// What counts as input to a console of this kind.
pub(super) fn of(kind: ConsoleKind) -> fn(&[u8]) -> bool {
    match kind {
        ConsoleKind::Vnc => rfb,
        ConsoleKind::Spice => spice,
        ConsoleKind::Serial | ConsoleKind::Mks => |_| true,
    }
}

fn rfb(bytes: &[u8]) -> bool {
    !is_all(bytes, quiet_rfb)
}

fn spice(bytes: &[u8]) -> bool {
    !is_all(bytes, quiet_spice)
}

/// Whether `bytes` are messages of which `length` knows each.
fn is_all(mut bytes: &[u8], length: fn(&[u8]) -> Option<usize>) -> bool {
    while !bytes.is_empty() {
        let rest = length(bytes).and_then(|length| bytes.get(length..));
        let Some(rest) = rest else {
            return false;
        };
        bytes = rest;
    }
    true
}

/// The length of a message that no person causes.
fn quiet_rfb(bytes: &[u8]) -> Option<usize> {
    match bytes {
        // SetPixelFormat
        [0, ..] => Some(20),
        // SetEncodings
        [2, _, high, low, ..] => {
            let count = usize::from(u16::from_be_bytes([*high, *low]));
            count.checked_mul(4)?.checked_add(4)
        }
        // FramebufferUpdateRequest, EnableContinuousUpdates
        [3 | 150, ..] => Some(10),
        // ClientFence
        [248, _, _, _, _, _, _, _, length, ..] => Some(9 + usize::from(*length)),
        _ => None,
    }
}

/// `ACK_SYNC`, `ACK` and `PONG`, behind the short header that SPICE clients of today use.
fn quiet_spice(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [1..=3, 0, a, b, c, d, ..] => {
            let length = u32::from_le_bytes([*a, *b, *c, *d]);
            usize::try_from(length).ok()?.checked_add(6)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT_PICTURE: [u8; 10] = [3, 1, 0, 0, 0, 0, 4, 0, 3, 0];
    const KEY: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 0x61];

    #[test]
    fn asking_for_pictures_is_nobodys_doing_and_a_key_is() {
        let encodings = [2, 0, 0, 1, 0, 0, 0, 7];
        let fence = [248, 0, 0, 0, 0, 0, 0, 0, 1, 9];

        assert!(!rfb(&NEXT_PICTURE.repeat(3)));
        assert!(!rfb(&[&encodings[..], &fence, &NEXT_PICTURE].concat()));
        assert!(rfb(&KEY));
        assert!(rfb(&[&NEXT_PICTURE[..], &KEY].concat()));
    }

    #[test]
    fn half_a_message_is_taken_for_input() {
        assert!(rfb(&NEXT_PICTURE[..9]));
        assert!(rfb(&[2, 0]));
        assert!(rfb(&[2, 0, 255, 255]));
        assert!(spice(&[3, 0, 255, 255, 255, 255]));
    }

    #[test]
    fn answers_to_pings_are_nobodys_doing_and_a_key_is_in_spice_too() {
        let pong = [3, 0, 2, 0, 0, 0, 7, 7];
        let key = [101, 0, 4, 0, 0, 0, 30, 0, 0, 0];

        assert!(!spice(&pong.repeat(2)));
        assert!(spice(&key));
        assert!(spice(&[&pong[..], &key].concat()));
    }
}
