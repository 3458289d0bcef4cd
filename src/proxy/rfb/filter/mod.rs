//! A viewer's rights, enforced in the stream itself: what it may not do never reaches the server,
//! and what it may not see never reaches the viewer.
//!
//! Both directions are read message by message from `ClientInit` and `ServerInit` on. What cannot
//! be told apart ends the session: a filter that guesses is none. So that the server's messages
//! can be told apart, it is only ever offered encodings whose length is known here; whatever else
//! the viewer asks for is replaced by a number that means nothing. RFC 6143 section 7, rfbproto.
//!
//! Rights may change while a session lives, from the next message of the viewer's on. For that a
//! viewer with all rights is followed too, but nothing of it is held or changed, and one that sends
//! what nobody knows is let go on until it is to have less. What the viewer may see (the console's
//! clipboard) stays as it began: to follow a server one must have chosen what it may send.

mod down;
mod encodings;
mod format;
mod pressed;
mod rectangle;
mod up;

use self::down::Downward;
use self::up::Upward;
use crate::model::Rights;

/// A stream that cannot be followed any further.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unfiltered {
    /// The viewer sent a message nobody here knows the length of.
    #[error("the viewer sent a message of the unknown type {0}")]
    Viewer(u8),
    /// The viewer wants pixels of a size that there is not.
    #[error("the viewer asks for pixels of {0} bits")]
    Pixels(u8),
    /// The server did.
    #[error("the console sent a message of the unknown type {0}")]
    Server(u8),
    /// The server sent pixels in an encoding that it was not offered.
    #[error("the console sent the encoding {0}, which it was not offered")]
    Encoding(i32),
    /// The server sent something that the encoding does not allow.
    #[error("the console sent a broken rectangle in the encoding {0}")]
    Rectangle(i32),
}

/// Takes out of one session's stream what its viewer has no right to.
#[derive(Debug)]
pub struct Filter {
    up: Upward,
    /// Only where something must be kept from the viewer.
    down: Option<Box<Downward>>,
}

impl Filter {
    /// A filter before `ClientInit`.
    pub fn new(rights: Rights) -> Self {
        Self {
            up: Upward::new(rights),
            down: (!rights.clipboard_out).then(|| Box::new(Downward::new())),
        }
    }

    /// Other rights, from the viewer's next message on; but for the console's clipboard, which
    /// stays as it was.
    pub fn change(&mut self, rights: Rights) {
        self.up.change(Rights {
            clipboard_out: self.down.is_none(),
            ..rights
        });
    }

    /// Appends to `kept` what of the viewer's bytes the server gets, up to 20 bytes later than it
    /// came.
    pub fn up(&mut self, bytes: &[u8], kept: &mut Vec<u8>) -> Result<(), Unfiltered> {
        self.up.filter(bytes, kept)?;
        if let (Some(format), Some(down)) = (self.up.new_format(), &mut self.down) {
            down.expect_format(format);
        }
        Ok(())
    }

    /// Moves what of the server's bytes the viewer gets to the front, and tells how much that is.
    pub fn down(&mut self, bytes: &mut [u8]) -> Result<usize, Unfiltered> {
        match &mut self.down {
            None => Ok(bytes.len()),
            Some(down) => down.filter(bytes),
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u16::from_be_bytes(found.copied().unwrap_or_default())
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_be_bytes(found.copied().unwrap_or_default())
}

/// The length of a cut text: its absolute value, since the extended clipboard's is negative.
fn cut_text_length(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at).cast_signed().unsigned_abs())
}

/// The length in a `gii` message, whose first byte tells the order of its bytes.
fn gii_length(bytes: &[u8], at: usize) -> u64 {
    let big = bytes.get(at).is_some_and(|byte| byte & 0x80 != 0);
    let length = be16(bytes, at.saturating_add(1));
    u64::from(if big { length } else { length.swap_bytes() })
}

#[cfg(test)]
mod tests;
