//! The gateway as a VNC server, up to the viewer's `ClientInit`.
//!
//! What is behind is never seen here: one security type is offered, None, or VNC Authentication
//! where the server wants a password that only the viewer has.

use super::version::Version;
use super::vncauth::{CHALLENGE, Challenge};

/// One handshake with a viewer.
#[derive(Debug)]
pub struct Reception {
    challenge: Option<Challenge>,
    version: Version,
    state: State,
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Version,
    Choice,
    Answer,
    Done,
}

/// What a viewer's bytes came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// It has more to say.
    More,
    /// This is its answer to the challenge; it waits for [`Reception::verdict`].
    Answer(Challenge),
    /// It is in: what follows is for the server.
    In,
}

/// What a viewer said that no viewer says.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ViewerFault {
    /// It is no viewer.
    #[error("the viewer does not speak RFB")]
    NotRfb,
    /// It wants a security type that was not on offer.
    #[error("the viewer chose security type {0}, which was not offered")]
    Choice(u8),
}

impl Reception {
    /// A handshake that begins with [`Reception::GREETING`]. With a `challenge`, the viewer has
    /// to answer it.
    pub fn new(challenge: Option<Challenge>) -> Self {
        Self {
            challenge,
            version: Version::V38,
            state: State::Version,
            held: Vec::new(),
        }
    }

    /// What a viewer is sent first.
    pub const GREETING: &'static [u8] = Version::V38.message();

    /// Takes what belongs to the handshake from the front of `bytes`, appends the answers to
    /// `send`, and tells how many bytes it took. The rest is for the server.
    pub fn take(
        &mut self,
        bytes: &[u8],
        send: &mut Vec<u8>,
    ) -> Result<(usize, Heard), ViewerFault> {
        let mut taken: usize = 0;
        loop {
            let wanted = self.wanted().saturating_sub(self.held.len());
            let rest = bytes.get(taken..).unwrap_or_default();
            let piece = rest.get(..wanted.min(rest.len())).unwrap_or_default();
            self.held.extend_from_slice(piece);
            taken = taken.saturating_add(piece.len());
            if piece.len() < wanted {
                return Ok((taken, Heard::More));
            }
            let whole = std::mem::take(&mut self.held);
            match self.step(&whole, send)? {
                Heard::More => {}
                heard => return Ok((taken, heard)),
            }
        }
    }

    /// Whether it is the answer to the challenge that is missing, which a person may have to give.
    pub fn waits_for_answer(&self) -> bool {
        self.state == State::Answer
    }

    /// Tells the viewer what the server said to its answer.
    pub fn verdict(&mut self, verdict: Result<(), &str>, send: &mut Vec<u8>) {
        self.state = State::Done;
        match verdict {
            Ok(()) => send.extend([0; 4]),
            Err(reason) => self.fail(reason, send),
        }
    }

    fn wanted(&self) -> usize {
        match self.state {
            State::Version => Version::LENGTH,
            State::Choice => 1,
            State::Answer => CHALLENGE,
            State::Done => 0,
        }
    }

    fn step(&mut self, bytes: &[u8], send: &mut Vec<u8>) -> Result<Heard, ViewerFault> {
        match self.state {
            State::Version => self.on_version(bytes, send),
            State::Choice => self.on_choice(bytes.first().copied().unwrap_or_default(), send),
            State::Answer => {
                self.state = State::Done;
                let answer = bytes.try_into().unwrap_or_default();
                Ok(Heard::Answer(answer))
            }
            State::Done => Ok(Heard::In),
        }
    }

    fn on_version(&mut self, bytes: &[u8], send: &mut Vec<u8>) -> Result<Heard, ViewerFault> {
        self.version = Version::parse(bytes).ok_or(ViewerFault::NotRfb)?;
        if self.version == Version::V33 {
            send.extend([0, 0, 0, self.offer()]);
            return Ok(self.begin(send));
        }
        send.extend([1, self.offer()]);
        self.state = State::Choice;
        Ok(Heard::More)
    }

    fn on_choice(&mut self, choice: u8, send: &mut Vec<u8>) -> Result<Heard, ViewerFault> {
        if choice != self.offer() {
            self.fail("that security type was not offered", send);
            return Err(ViewerFault::Choice(choice));
        }
        if self.challenge.is_none() && self.version == Version::V38 {
            send.extend([0; 4]);
        }
        Ok(self.begin(send))
    }

    fn begin(&mut self, send: &mut Vec<u8>) -> Heard {
        let Some(challenge) = self.challenge else {
            self.state = State::Done;
            return Heard::In;
        };
        send.extend(challenge);
        self.state = State::Answer;
        Heard::More
    }

    fn fail(&self, reason: &str, send: &mut Vec<u8>) {
        send.extend([0, 0, 0, 1]);
        if self.version == Version::V38 {
            let length = u32::try_from(reason.len()).unwrap_or_default();
            send.extend(length.to_be_bytes());
            send.extend(reason.as_bytes());
        }
    }

    fn offer(&self) -> u8 {
        if self.challenge.is_some() { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the viewer is sent for all of `bytes`, however they are cut, and what is left.
    fn talk(reception: &mut Reception, bytes: &[u8], cut: usize) -> (Vec<u8>, Vec<u8>, Heard) {
        let (mut sent, mut left, mut last) = (Vec::new(), Vec::new(), Heard::More);
        for piece in bytes.chunks(cut) {
            if last == Heard::More {
                let (taken, heard) = reception.take(piece, &mut sent).unwrap();
                left.extend(&piece[taken..]);
                last = heard;
            } else {
                left.extend(piece);
            }
        }
        (sent, left, last)
    }

    #[test]
    fn a_viewer_sees_none_and_its_hasty_bytes_are_left_for_the_server() {
        for cut in [1, 2, 13, 64] {
            let mut reception = Reception::new(None);
            let (sent, left, heard) = talk(&mut reception, b"RFB 003.008\n\x01\x01rest", cut);
            assert_eq!(sent, [1, 1, 0, 0, 0, 0]);
            assert_eq!((left.as_slice(), heard), (&b"\x01rest"[..], Heard::In));
        }
    }

    #[test]
    fn older_viewers_are_met_in_their_own_dialect() {
        let (sent, _, heard) = talk(&mut Reception::new(None), b"RFB 003.003\n", 64);
        assert_eq!((sent, heard), (vec![0, 0, 0, 1], Heard::In));
        let (sent, _, heard) = talk(&mut Reception::new(None), b"RFB 003.007\n\x01", 64);
        assert_eq!((sent, heard), (vec![1, 1], Heard::In));
    }

    #[test]
    fn a_challenge_is_passed_on_and_so_is_its_answer() {
        let mut reception = Reception::new(Some([7; CHALLENGE]));
        let bytes = [&b"RFB 003.008\n\x02"[..], &[9; CHALLENGE], b"\x01"].concat();

        let (mut sent, left, heard) = talk(&mut reception, &bytes, 5);
        assert_eq!(heard, Heard::Answer([9; CHALLENGE]));
        assert_eq!(left, [1]);
        assert_eq!(sent[..2], [1, 2]);
        assert_eq!(sent[2..], [7; CHALLENGE]);

        sent.clear();
        reception.verdict(Err("no"), &mut sent);
        assert_eq!(sent, b"\0\0\0\x01\0\0\0\x02no");
    }

    #[test]
    fn a_type_that_was_not_offered_is_refused_in_words() {
        let mut reception = Reception::new(None);
        let mut sent = Vec::new();
        let refused = reception.take(b"RFB 003.008\n\x02", &mut sent);
        assert_eq!(refused, Err(ViewerFault::Choice(2)));
        assert_eq!(sent[..6], [1, 1, 0, 0, 0, 1]);
        assert!(sent.ends_with(b"not offered"));
    }

    #[test]
    fn what_is_no_viewer_is_refused() {
        let refused = Reception::new(None).take(b"GET / HTTP/1.1", &mut Vec::new());
        assert_eq!(refused, Err(ViewerFault::NotRfb));
    }
}
