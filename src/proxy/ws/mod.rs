//! The frame layer of RFC 6455 as a server speaks it to a console's viewer, without I/O inside.
//!
//! [`Decoder`] is fed with whatever was read, unmasks it in place and leaves the payload of all
//! frames of one read side by side, so that the caller makes one write of them. Between reads
//! it keeps fixed-size state only; it allocates for a close frame's reason and nothing else.
//! Binary frames carry the console; text and extensions are refused. Called by the relay and by
//! refusals; knows neither sockets nor sessions.

mod close;
mod decode;
mod encode;
mod mask;

pub use self::close::{Close, Violation, close_frame};
pub use self::decode::{Control, Decoded, Decoder, End};
pub use self::encode::{HEADROOM, PING, frame, frame_in_place, pong_into};
pub use self::mask::unmask;
