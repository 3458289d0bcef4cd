//! A viewer's rights as a filter in its relay.

use super::close::UNFOLLOWED;
use super::relay::{self, Ending};
use super::rfb::{self, Unfiltered};
use crate::model::{ConsoleKind, Rights};

/// What is to look into a session with these rights; nothing where all is allowed.
pub(super) fn filter(kind: ConsoleKind, rights: Rights) -> Option<Box<dyn relay::Filter>> {
    if !rights.are_limited() {
        return None;
    }
    match kind {
        ConsoleKind::Vnc => {
            let filter = rfb::Filter::new(rights)?;
            Some(Box::new(Warden(filter)))
        }
        // Nothing else is told apart here: whoever may not type says nothing at all.
        ConsoleKind::Serial | ConsoleKind::Spice | ConsoleKind::Mks if rights.input => None,
        ConsoleKind::Serial | ConsoleKind::Spice | ConsoleKind::Mks => Some(Box::new(Mute)),
    }
}

/// RFB, message by message.
#[derive(Debug)]
struct Warden(rfb::Filter);

impl relay::Filter for Warden {
    fn up(&mut self, bytes: &mut Vec<u8>) -> Result<(), Ending> {
        let given = std::mem::take(bytes);
        self.0.up(&given, bytes).map_err(ending)
    }

    fn down(&mut self, bytes: &mut [u8]) -> Result<usize, Ending> {
        self.0.down(bytes).map_err(ending)
    }
}

fn ending(unfiltered: Unfiltered) -> Ending {
    Ending {
        code: UNFOLLOWED,
        reason: unfiltered.to_string(),
    }
}

/// A viewer that is not heard.
#[derive(Debug)]
struct Mute;

impl relay::Filter for Mute {
    fn up(&mut self, bytes: &mut Vec<u8>) -> Result<(), Ending> {
        bytes.clear();
        Ok(())
    }

    fn down(&mut self, bytes: &mut [u8]) -> Result<usize, Ending> {
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_only_looks_at_a_serial_line_is_not_heard() {
        let mut filter = filter(ConsoleKind::Serial, Rights::VIEW).unwrap();
        let mut typed = b"reboot".to_vec();
        filter.up(&mut typed).unwrap();
        assert_eq!(typed, b"");
        assert_eq!(filter.down(&mut [1, 2, 3]), Ok(3));
        assert!(super::filter(ConsoleKind::Serial, Rights::CONTROL).is_none());
    }

    #[test]
    fn what_cannot_be_followed_ends_the_session_in_words() {
        let mut filter = filter(ConsoleKind::Vnc, Rights::VIEW).unwrap();
        let ending = filter.up(&mut vec![1, 77]).unwrap_err();
        assert_eq!(ending.code, UNFOLLOWED);
        assert!(ending.reason.ends_with("unknown type 77"), "{ending:?}");
    }
}
