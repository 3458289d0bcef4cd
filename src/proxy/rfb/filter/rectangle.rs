//! How long a rectangle is, without looking at its pixels. RFC 6143 section 7.7, rfbproto.

use super::encodings as known;
use super::format::Format;
use super::{Unfiltered, be16, be32};

/// The head of a rectangle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rectangle {
    width: u64,
    height: u64,
    encoding: i32,
}

/// How a rectangle goes on: bytes that decide nothing, then a piece that does; without a piece it
/// is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) skip: u64,
    pub(super) wanted: usize,
}

/// A rectangle whose length shows only while it is read.
#[derive(Debug)]
pub(super) enum Body {
    /// None is left.
    Over,
    /// Begins with its length.
    Length,
    /// Begins with the number of its parts, each of this length.
    Parts(u64),
    /// Begins with the number of screens, in one byte of four.
    Screens,
    /// One tile after the other.
    Hextile(Hextile),
    /// See [`Tight`].
    Tight(Tight),
    /// Begins with its kind: so many pixels of two kinds.
    Cursor(u64),
}

/// 16 by 16 pixels a tile, each in its own way.
#[derive(Debug)]
pub(super) struct Hextile {
    width: u64,
    height: u64,
    x: u64,
    y: u64,
    /// The way of the tile whose parts are about to be counted.
    counting: Option<u8>,
}

/// One piece of data of many kinds.
#[derive(Debug)]
pub(super) struct Tight {
    width: u64,
    height: u64,
    next: TightPiece,
}

#[derive(Clone, Copy, Debug)]
enum TightPiece {
    Control,
    Filter,
    PaletteSize,
    /// A length in one to three bytes: so many bits of it are known, and what they say.
    Length(u32, u64),
}

const TILE: u64 = 16;

/// Data shorter than this is not compressed, and then has no length of its own.
const UNCOMPRESSED: u64 = 12;

impl Step {
    fn over(skip: u64) -> Self {
        Self { skip, wanted: 0 }
    }

    fn piece(wanted: usize) -> Self {
        Self { skip: 0, wanted }
    }
}

impl Rectangle {
    pub(super) const HEAD: usize = 12;

    pub(super) fn parse(head: &[u8]) -> Self {
        Self {
            width: u64::from(be16(head, 4)),
            height: u64::from(be16(head, 6)),
            encoding: be32(head, 8).cast_signed(),
        }
    }

    /// Whether no other follows, whatever the update announced.
    pub(super) fn is_last(&self) -> bool {
        self.encoding == known::LAST_RECT
    }

    pub(super) fn begin(&self, format: Format) -> Result<(Body, Step), Unfiltered> {
        let pixels = self.width.saturating_mul(self.height);
        let mask = self.width.div_ceil(8).saturating_mul(self.height);
        let pixel = usize::try_from(format.pixel).unwrap_or(4);
        let over = |skip| (Body::Over, Step::over(skip));
        Ok(match self.encoding {
            known::RAW => over(pixels.saturating_mul(format.pixel)),
            known::COPY_RECT | known::VMWARE_LEDS => over(4),
            known::RRE => (
                Body::Parts(format.pixel.saturating_add(8)),
                Step::piece(pixel.saturating_add(4)),
            ),
            known::CORRE => (
                Body::Parts(format.pixel.saturating_add(4)),
                Step::piece(pixel.saturating_add(4)),
            ),
            known::ZLIB | known::ZRLE | known::ZYWRLE | known::DESKTOP_NAME => {
                (Body::Length, Step::piece(4))
            }
            known::H264 => (Body::Length, Step::piece(8)),
            known::HEXTILE | known::X_CURSOR if pixels == 0 => over(0),
            known::HEXTILE => (Body::Hextile(self.tiles()), Step::piece(1)),
            known::TIGHT | known::TIGHT_PNG => (Body::Tight(self.tight()), Step::piece(1)),
            known::CURSOR => over(pixels.saturating_mul(format.pixel).saturating_add(mask)),
            known::X_CURSOR => over(mask.saturating_mul(2).saturating_add(6)),
            known::VMWARE_CURSOR => (Body::Cursor(pixels), Step::piece(2)),
            known::EXTENDED_DESKTOP_SIZE => (Body::Screens, Step::piece(4)),
            known::QEMU_LEDS => over(1),
            known::DESKTOP_SIZE
            | known::LAST_RECT
            | known::POINTER_POSITION
            | known::QEMU_POINTER_MOTION
            | known::QEMU_KEYS => over(0),
            unknown => return Err(Unfiltered::Encoding(unknown)),
        })
    }

    fn tiles(&self) -> Hextile {
        Hextile {
            width: self.width,
            height: self.height,
            x: 0,
            y: 0,
            counting: None,
        }
    }

    fn tight(&self) -> Tight {
        Tight {
            width: self.width,
            height: self.height,
            next: TightPiece::Control,
        }
    }
}

impl Body {
    /// Takes the piece that was wanted.
    pub(super) fn step(&mut self, piece: &[u8], format: Format) -> Result<Step, Unfiltered> {
        let byte = piece.first().copied().unwrap_or_default();
        match self {
            Self::Over => Ok(Step::over(0)),
            Self::Length => Ok(Step::over(u64::from(be32(piece, 0)))),
            Self::Screens => Ok(Step::over(u64::from(byte).saturating_mul(16))),
            Self::Parts(size) => Ok(Step::over(u64::from(be32(piece, 0)).saturating_mul(*size))),
            Self::Hextile(hextile) => Ok(hextile.step(piece, format)),
            Self::Tight(tight) => tight.step(byte, format),
            Self::Cursor(pixels) => match byte {
                0 => Ok(Step::over(pixels.saturating_mul(8))),
                1 => Ok(Step::over(pixels.saturating_mul(4))),
                _ => Err(Unfiltered::Rectangle(known::VMWARE_CURSOR)),
            },
        }
    }
}

impl Hextile {
    const RAW: u8 = 1;
    const BACKGROUND: u8 = 2;
    const FOREGROUND: u8 = 4;
    const PARTS: u8 = 8;
    const COLOURED: u8 = 16;

    fn step(&mut self, piece: &[u8], format: Format) -> Step {
        if let Some(way) = self.counting.take() {
            let count = piece.last().copied().map_or(0, u64::from);
            let colour = format
                .pixel
                .saturating_mul(u64::from(way & Self::COLOURED != 0));
            return self.end_tile(count.saturating_mul(colour.saturating_add(2)));
        }
        let way = piece.first().copied().unwrap_or_default();
        if way & Self::RAW != 0 {
            let width = self.width.saturating_sub(self.x).min(TILE);
            let height = self.height.saturating_sub(self.y).min(TILE);
            let pixels = width.saturating_mul(height);
            return self.end_tile(pixels.saturating_mul(format.pixel));
        }
        let colours = (way & (Self::BACKGROUND | Self::FOREGROUND)).count_ones();
        let colours = u64::from(colours).saturating_mul(format.pixel);
        if way & Self::PARTS == 0 {
            return self.end_tile(colours);
        }
        self.counting = Some(way);
        let wanted = usize::try_from(colours).unwrap_or_default();
        Step::piece(wanted.saturating_add(1))
    }

    fn end_tile(&mut self, skip: u64) -> Step {
        self.x = self.x.saturating_add(TILE);
        if self.x >= self.width {
            self.x = 0;
            self.y = self.y.saturating_add(TILE);
        }
        let wanted = usize::from(self.y < self.height);
        Step { skip, wanted }
    }
}

impl Tight {
    fn step(&mut self, byte: u8, format: Format) -> Result<Step, Unfiltered> {
        match self.next {
            TightPiece::Control => self.on_control(byte >> 4, format),
            TightPiece::Filter => self.on_filter(byte, format),
            TightPiece::PaletteSize => Ok(self.on_palette_size(byte, format)),
            TightPiece::Length(bits, length) => Ok(self.on_length(byte, bits, length)),
        }
    }

    fn on_control(&mut self, control: u8, format: Format) -> Result<Step, Unfiltered> {
        match control {
            8 => Ok(Step::over(format.tight_pixel)),
            9 | 10 => Ok(self.then(0, TightPiece::Length(0, 0))),
            4..=7 => Ok(self.then(0, TightPiece::Filter)),
            0..=3 => Ok(self.data(0, self.pixels(format))),
            _ => Err(Unfiltered::Rectangle(known::TIGHT)),
        }
    }

    fn on_filter(&mut self, filter: u8, format: Format) -> Result<Step, Unfiltered> {
        match filter {
            0 | 2 => Ok(self.data(0, self.pixels(format))),
            1 => Ok(self.then(0, TightPiece::PaletteSize)),
            _ => Err(Unfiltered::Rectangle(known::TIGHT)),
        }
    }

    /// One less than there are colours. Two fit into a bit, more into a byte.
    fn on_palette_size(&mut self, byte: u8, format: Format) -> Step {
        let colours = u64::from(byte).saturating_add(1);
        let row = if colours > 2 {
            self.width
        } else {
            self.width.div_ceil(8)
        };
        let palette = colours.saturating_mul(format.tight_pixel);
        self.data(palette, row.saturating_mul(self.height))
    }

    /// Seven bits a byte, the lowest first; the third byte has eight.
    fn on_length(&mut self, byte: u8, bits: u32, length: u64) -> Step {
        let third = bits == 14;
        let (more, value) = (
            byte & 0x80 != 0 && !third,
            byte & if third { 0xff } else { 0x7f },
        );
        let length = length | u64::from(value) << bits;
        if more {
            return self.then(0, TightPiece::Length(bits.saturating_add(7), length));
        }
        Step::over(length)
    }

    fn pixels(&self, format: Format) -> u64 {
        let pixels = self.width.saturating_mul(self.height);
        pixels.saturating_mul(format.tight_pixel)
    }

    /// `before` bytes, then data that is `size` bytes long before it is compressed.
    fn data(&mut self, before: u64, size: u64) -> Step {
        if size < UNCOMPRESSED {
            return Step::over(before.saturating_add(size));
        }
        self.then(before, TightPiece::Length(0, 0))
    }

    fn then(&mut self, skip: u64, next: TightPiece) -> Step {
        self.next = next;
        Step { skip, wanted: 1 }
    }
}
