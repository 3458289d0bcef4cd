//! How many bytes a pixel has.

use super::{Unfiltered, be16};

/// What of a pixel format decides lengths. RFC 6143 section 7.4.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Format {
    /// Bytes a pixel.
    pub(super) pixel: u64,
    /// Bytes a pixel inside Tight, which leaves out the unused one of four.
    pub(super) tight_pixel: u64,
}

impl Format {
    /// Reads the 16 bytes of a pixel format.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Unfiltered> {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        let pixel = match byte(0) {
            8 => 1,
            16 => 2,
            32 => 4,
            other => return Err(Unfiltered::Pixels(other)),
        };
        let whole = [4, 6, 8].iter().all(|at| be16(bytes, *at) == 255);
        let shortened = pixel == 4 && byte(1) == 24 && byte(3) != 0 && whole;
        Ok(Self {
            pixel,
            tight_pixel: if shortened { 3 } else { pixel },
        })
    }
}
