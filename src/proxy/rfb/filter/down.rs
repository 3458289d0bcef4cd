//! From the server to the viewer: everything but the console's clipboard.

use super::format::Format;
use super::rectangle::{Body, Rectangle};
use super::{Unfiltered, be16, be32, cut_text_length, gii_length};

/// Follows a server's messages. Nothing is held: what passes, passes at once.
pub(super) struct Downward {
    state: State,
    /// What was read of the piece that decides how it goes on.
    held: Vec<u8>,
    /// How long that piece is.
    wanted: usize,
    /// Bytes that decide nothing.
    skip: u64,
    /// This message does not reach the viewer.
    drop: bool,
    format: Format,
    /// In force from the next update on.
    next_format: Option<Format>,
}

#[derive(Debug)]
enum State {
    /// 24 bytes of `ServerInit`.
    Init,
    /// A message's first byte.
    Kind,
    /// The rest of the head of a message of this type.
    Head(u8),
    /// Rectangles still to come, the next one's head first.
    Rectangles(Left),
    /// Inside a rectangle.
    Body(Left, Body),
}

/// How many rectangles are still to come.
#[derive(Clone, Copy, Debug)]
enum Left {
    Count(u16),
    /// Until one says that it is the last.
    Open,
}

impl std::fmt::Debug for Downward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Downward");
        shown.field("state", &self.state).finish_non_exhaustive()
    }
}

impl Downward {
    pub(super) fn new() -> Self {
        Self {
            state: State::Init,
            held: Vec::new(),
            wanted: 24,
            skip: 0,
            drop: false,
            format: Format {
                pixel: 4,
                tight_pixel: 4,
            },
            next_format: None,
        }
    }

    /// The viewer has asked for other pixels; it may do so only when no update is on its way.
    pub(super) fn expect_format(&mut self, format: Format) {
        self.next_format = Some(format);
    }

    pub(super) fn filter(&mut self, bytes: &mut [u8]) -> Result<usize, Unfiltered> {
        let (mut read, mut kept): (usize, usize) = (0, 0);
        while read < bytes.len() {
            let rest = bytes.get(read..).unwrap_or_default();
            let length = if self.skip > 0 {
                self.pass(rest.len())
            } else {
                self.look_at(rest)?
            };
            let end = read.saturating_add(length);
            if !self.drop {
                bytes.copy_within(read..end, kept);
                kept = kept.saturating_add(length);
            }
            read = end;
        }
        Ok(kept)
    }

    fn pass(&mut self, available: usize) -> usize {
        let length = usize::try_from(self.skip).unwrap_or(usize::MAX);
        let length = length.min(available);
        let passed = u64::try_from(length).unwrap_or(self.skip);
        self.skip = self.skip.saturating_sub(passed);
        length
    }

    fn look_at(&mut self, rest: &[u8]) -> Result<usize, Unfiltered> {
        if matches!(self.state, State::Kind) {
            self.drop = false;
        }
        let missing = self.wanted.saturating_sub(self.held.len());
        let piece = rest.get(..missing.min(rest.len())).unwrap_or_default();
        self.held.extend_from_slice(piece);
        if self.held.len() == self.wanted {
            let held = std::mem::take(&mut self.held);
            self.on_piece(&held)?;
            self.held = held;
            self.held.clear();
        }
        Ok(piece.len())
    }

    fn on_piece(&mut self, held: &[u8]) -> Result<(), Unfiltered> {
        let state = std::mem::replace(&mut self.state, State::Kind);
        match state {
            State::Init => {
                self.format = Format::parse(held.get(4..20).unwrap_or_default())?;
                self.end_message(u64::from(be32(held, 20)));
            }
            State::Kind => self.on_kind(held.first().copied().unwrap_or_default())?,
            State::Head(kind) => self.on_head(kind, held),
            State::Rectangles(left) => self.on_rectangle(left, held)?,
            State::Body(left, mut body) => {
                let step = body.step(held, self.format)?;
                self.skip = step.skip;
                match step.wanted {
                    0 => self.next_rectangle(left),
                    wanted => self.expect(State::Body(left, body), wanted),
                }
            }
        }
        Ok(())
    }

    fn on_kind(&mut self, kind: u8) -> Result<(), Unfiltered> {
        let wanted = match kind {
            0 | 250 | 253 => 3,
            1 => 5,
            2 | 150 => 0,
            3 => 7,
            248 => 8,
            unknown => return Err(Unfiltered::Server(unknown)),
        };
        self.drop = kind == 3;
        if wanted == 0 {
            self.end_message(0);
        } else {
            self.expect(State::Head(kind), wanted);
        }
        Ok(())
    }

    /// `held` is what follows the first byte.
    fn on_head(&mut self, kind: u8, held: &[u8]) {
        match kind {
            0 => self.begin_update(be16(held, 1)),
            1 => self.end_message(u64::from(be16(held, 3)).saturating_mul(6)),
            3 => self.end_message(cut_text_length(held, 3)),
            248 => self.end_message(held.get(7).copied().map_or(0, u64::from)),
            253 => self.end_message(gii_length(held, 0)),
            _ => self.end_message(0),
        }
    }

    fn begin_update(&mut self, count: u16) {
        if let Some(format) = self.next_format.take() {
            self.format = format;
        }
        let left = match count {
            u16::MAX => Left::Open,
            count => Left::Count(count),
        };
        self.next_rectangle(left);
    }

    fn next_rectangle(&mut self, left: Left) {
        match left {
            Left::Count(0) => {
                let skip = self.skip;
                self.end_message(skip);
            }
            left => self.expect(State::Rectangles(left), Rectangle::HEAD),
        }
    }

    fn on_rectangle(&mut self, left: Left, held: &[u8]) -> Result<(), Unfiltered> {
        let rectangle = Rectangle::parse(held);
        let left = match left {
            _ if rectangle.is_last() => Left::Count(0),
            Left::Count(count) => Left::Count(count.saturating_sub(1)),
            Left::Open => Left::Open,
        };
        let (body, step) = rectangle.begin(self.format)?;
        self.skip = step.skip;
        match step.wanted {
            0 => self.next_rectangle(left),
            wanted => self.expect(State::Body(left, body), wanted),
        }
        Ok(())
    }

    /// `skip` bytes, then another message.
    fn end_message(&mut self, skip: u64) {
        self.skip = skip;
        self.expect(State::Kind, 1);
    }

    fn expect(&mut self, state: State, wanted: usize) {
        self.state = state;
        self.wanted = wanted;
    }
}
