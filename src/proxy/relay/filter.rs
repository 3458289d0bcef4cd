//! The seam for what may look into a session's bytes, such as a viewer's rights.

use std::fmt;

use super::Ending;

/// Sees the payload of a session in both directions, in order, between reading and writing.
///
/// Called once per read, which may end anywhere within a message. A session without one pays for
/// one look at an `Option` per read. Neither call may wait. An error ends the session with its code
/// and sentence; nothing of that read is passed on.
pub trait Filter: fmt::Debug + Send {
    /// What the viewer sent, unmasked. What is left in `bytes` goes to the target; bytes that
    /// cannot be judged yet may be held back and put in front of a later read.
    fn up(&mut self, bytes: &mut Vec<u8>) -> Result<(), Ending>;

    /// What the target sent. The first so many of `bytes` go to the viewer.
    fn down(&mut self, bytes: &mut [u8]) -> Result<usize, Ending>;
}
