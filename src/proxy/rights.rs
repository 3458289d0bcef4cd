//! A viewer's rights as a filter in its relay: those it began with, and those it has by now.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::close::UNFOLLOWED;
use super::relay::{self, Ending};
use super::rfb::{self, Unfiltered};
use crate::model::{ConsoleKind, Rights};

/// What the viewer of a live session may do just now.
#[derive(Debug)]
pub(super) struct InForce(AtomicU8);

impl InForce {
    pub(super) fn new(rights: Rights) -> Self {
        Self(AtomicU8::new(bits(rights)))
    }

    /// Applies from the next message of the viewer's on that is read.
    pub(super) fn set(&self, rights: Rights) {
        self.0.store(bits(rights), Ordering::Release);
    }

    pub(super) fn get(&self) -> Rights {
        let bits = self.0.load(Ordering::Acquire);
        Rights {
            input: bits & 1 != 0,
            clipboard_in: bits & 2 != 0,
            clipboard_out: bits & 4 != 0,
        }
    }
}

/// A session has its rights in it, and shares all of itself with its filter.
pub(super) trait Entitled: fmt::Debug + Send + Sync + 'static {
    /// What its viewer may do just now.
    fn rights(&self) -> Rights;
}

fn bits(rights: Rights) -> u8 {
    u8::from(rights.input)
        | u8::from(rights.clipboard_in) << 1
        | u8::from(rights.clipboard_out) << 2
}

/// Whether the rights of a session at such a console can be changed while it lives.
pub(super) fn can_change(kind: ConsoleKind) -> bool {
    matches!(kind, ConsoleKind::Vnc | ConsoleKind::Serial)
}

/// What is to look into a session with these rights. A viewer that may do everything is followed
/// too, so that it can be stopped where one of its messages ends.
pub(super) fn filter<S: Entitled>(
    kind: ConsoleKind,
    session: &Arc<S>,
) -> Option<Box<dyn relay::Filter>> {
    let now = session.rights();
    match kind {
        ConsoleKind::Vnc => Some(Box::new(Warden {
            filter: rfb::Filter::new(now),
            known: now,
            session: Arc::clone(session),
        })),
        ConsoleKind::Spice | ConsoleKind::Mks if now.input => None,
        // Nothing is told apart here: whoever may not type says nothing at all.
        ConsoleKind::Serial | ConsoleKind::Spice | ConsoleKind::Mks => {
            Some(Box::new(Gate(Arc::clone(session))))
        }
    }
}

/// RFB, message by message.
#[derive(Debug)]
struct Warden<S> {
    filter: rfb::Filter,
    known: Rights,
    session: Arc<S>,
}

impl<S: Entitled> relay::Filter for Warden<S> {
    fn up(&mut self, bytes: &mut Vec<u8>) -> Result<(), Ending> {
        let now = self.session.rights();
        if now != self.known {
            self.filter.change(now);
            self.known = now;
        }
        let given = std::mem::take(bytes);
        self.filter.up(&given, bytes).map_err(ending)
    }

    fn down(&mut self, bytes: &mut [u8]) -> Result<usize, Ending> {
        self.filter.down(bytes).map_err(ending)
    }
}

fn ending(unfiltered: Unfiltered) -> Ending {
    Ending {
        code: UNFOLLOWED,
        reason: unfiltered.to_string(),
    }
}

/// A viewer that is heard or not.
#[derive(Debug)]
struct Gate<S>(Arc<S>);

impl<S: Entitled> relay::Filter for Gate<S> {
    fn up(&mut self, bytes: &mut Vec<u8>) -> Result<(), Ending> {
        if !self.0.rights().input {
            bytes.clear();
        }
        Ok(())
    }

    fn down(&mut self, bytes: &mut [u8]) -> Result<usize, Ending> {
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Entitled for InForce {
        fn rights(&self) -> Rights {
            self.get()
        }
    }

    fn made(kind: ConsoleKind, rights: Rights) -> (Box<dyn relay::Filter>, Arc<InForce>) {
        let rights = Arc::new(InForce::new(rights));
        (filter(kind, &rights).unwrap(), rights)
    }

    fn up(filter: &mut Box<dyn relay::Filter>, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        filter.up(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn rights_are_kept_as_they_are() {
        for bits in 0..8_u8 {
            let rights = Rights {
                input: bits & 1 != 0,
                clipboard_in: bits & 2 != 0,
                clipboard_out: bits & 4 != 0,
            };
            let kept = InForce::new(Rights::VIEW);
            kept.set(rights);
            assert_eq!(kept.get(), rights);
        }
    }

    #[test]
    fn whoever_only_looks_at_a_serial_line_is_not_heard_until_that_changes() {
        let (mut filter, rights) = made(ConsoleKind::Serial, Rights::VIEW);
        assert_eq!(up(&mut filter, b"reboot"), b"");
        assert_eq!(filter.down(&mut [1, 2, 3]), Ok(3));
        rights.set(Rights::CONTROL);
        assert_eq!(up(&mut filter, b"reboot"), b"reboot");
        rights.set(Rights::VIEW);
        assert_eq!(up(&mut filter, b"reboot"), b"");
    }

    #[test]
    fn what_cannot_be_followed_ends_the_session_in_words() {
        let (mut filter, _) = made(ConsoleKind::Vnc, Rights::VIEW);
        let ending = filter.up(&mut vec![1, 77]).unwrap_err();
        assert_eq!(ending.code, UNFOLLOWED);
        assert!(ending.reason.ends_with("unknown type 77"), "{ending:?}");
    }
}
