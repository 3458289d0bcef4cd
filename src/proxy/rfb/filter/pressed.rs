//! What a viewer holds down, so that it can be let go when the viewer may press nothing any more.

use super::{be16, be32};

/// More than anybody has fingers; what is pressed beyond that stays pressed.
const MOST: usize = 32;

/// Keys and buttons that are down, each as the message that releases it.
#[derive(Debug, Default)]
pub(super) struct Pressed(Vec<(Held, Vec<u8>)>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Held {
    /// By its X11 symbol.
    Key(u32),
    /// By its place on the keyboard.
    Code(u32),
    /// Any of the pointer's.
    Buttons,
}

impl Pressed {
    /// Notes a message that the server gets.
    pub(super) fn note(&mut self, message: &[u8]) {
        match message {
            [4, down, ..] => {
                let key = Held::Key(be32(message, 4));
                self.set(key, *down != 0, message, &[1]);
            }
            [255, 0, ..] => {
                let key = Held::Code(be32(message, 8));
                self.set(key, be16(message, 2) != 0, message, &[2, 3]);
            }
            [5, buttons, ..] => {
                // The highest only says that there is one byte more, with buttons of its own.
                let more = message.get(6).copied().unwrap_or_default();
                let down = buttons & 0x7f != 0 || more != 0;
                self.set(Held::Buttons, down, message, &[1]);
            }
            _ => {}
        }
    }

    fn set(&mut self, held: Held, down: bool, message: &[u8], zeros: &[usize]) {
        self.0.retain(|(other, _)| *other != held);
        if !down || self.0.len() == MOST {
            return;
        }
        // A pointer's release is of the plain form: that names no button at all.
        let length = if held == Held::Buttons {
            6
        } else {
            message.len()
        };
        let mut release = message.get(..length).unwrap_or_default().to_vec();
        for at in zeros {
            if let Some(byte) = release.get_mut(*at) {
                *byte = 0;
            }
        }
        self.0.push((held, release));
    }

    /// Appends what lets all go, and forgets it.
    pub(super) fn release(&mut self, kept: &mut Vec<u8>) {
        for (_, release) in self.0.drain(..) {
            kept.extend(release);
        }
    }
}
