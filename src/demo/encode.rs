//! Pixels to bytes: Raw and Hextile (RFC 6143 sections 7.7.1 and 7.7.4).
//!
//! Hextile suits the picture, which is flat areas and two-coloured text: a tile of one colour is
//! a handful of bytes. It keeps no state between updates, unlike the encodings on zlib, so a
//! viewer costs no dictionary. Called by the viewer.

use std::collections::BTreeMap;

use super::area::{Area, TILE};
use super::canvas::Canvas;
use super::protocol::PixelFormat;

const RAW: u8 = 1;
const BACKGROUND: u8 = 2;
const FOREGROUND: u8 = 4;
const SUBRECTS: u8 = 8;
const COLOURED: u8 = 16;

/// Writes every pixel.
pub(super) fn raw(canvas: &Canvas, format: PixelFormat, out: &mut Vec<u8>) {
    for colour in canvas.rows().flatten() {
        format.put(*colour, out);
    }
}

/// Writes tile after tile, each as what is shortest for it.
pub(super) fn hextile(canvas: &Canvas, format: PixelFormat, out: &mut Vec<u8>) {
    let mut background = None;
    for area in canvas.area().tiles() {
        let tile = Tile::cut(canvas, area);
        background = tile.put(background, format, out);
    }
}

/// Up to 16x16 pixels, rows of 16 whatever its width.
struct Tile {
    width: usize,
    height: usize,
    pixels: [u32; PIXELS],
}

const SIDE: usize = 16;
const PIXELS: usize = SIDE * SIDE;

/// A run of equal pixels inside a tile.
struct Subrect {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
    colour: u32,
}

impl Tile {
    fn cut(canvas: &Canvas, area: Area) -> Self {
        debug_assert!(area.width() <= TILE && area.height() <= TILE);
        let mut pixels = [0; PIXELS];
        for (to, from) in pixels.chunks_mut(SIDE).zip(canvas.rows_in(area)) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = *from;
            }
        }
        Self {
            width: area.width().into(),
            height: area.height().into(),
            pixels,
        }
    }

    /// Writes the tile after one that left `background`; returns the background it leaves.
    fn put(&self, background: Option<u32>, format: PixelFormat, out: &mut Vec<u8>) -> Option<u32> {
        let (common, colours) = self.palette();
        let subrects = if colours > 1 {
            self.subrects(common)
        } else {
            Vec::new()
        };
        let coloured = colours > 2;
        let subrect = 2 + if coloured { format.pixel_length() } else { 0 };
        let raw = self.width * self.height * format.pixel_length();
        // A count is one byte: more than 255 cannot be written at all.
        let count = u8::try_from(subrects.len()).ok();
        let Some(count) = count.filter(|count| usize::from(*count) * subrect < raw) else {
            self.put_raw(format, out);
            return None;
        };
        put_head(background, (common, coloured), &subrects, format, out);
        if count > 0 {
            out.push(count);
        }
        for subrect in &subrects {
            subrect.put(coloured.then_some(format), out);
        }
        Some(common)
    }

    fn put_raw(&self, format: PixelFormat, out: &mut Vec<u8>) {
        out.push(RAW);
        for colour in self.rows().flatten() {
            format.put(*colour, out);
        }
    }

    fn rows(&self) -> impl Iterator<Item = &[u32]> {
        self.pixels
            .chunks(SIDE)
            .take(self.height)
            .filter_map(|row| row.get(..self.width))
    }

    /// The most frequent colour, and how many there are.
    fn palette(&self) -> (u32, usize) {
        let mut counts = BTreeMap::<u32, usize>::new();
        let mut first = self.rows().flatten().peekable();
        let only = first.peek().map_or(0, |colour| **colour);
        if first.all(|colour| *colour == only) {
            return (only, 1);
        }
        for colour in self.rows().flatten() {
            *counts.entry(*colour).or_default() += 1;
        }
        let most = counts.iter().max_by_key(|(_, count)| **count);
        (most.map_or(only, |(colour, _)| *colour), counts.len())
    }

    /// Rectangles that cover everything that is not `background`.
    fn subrects(&self, background: u32) -> Vec<Subrect> {
        let mut rest = self.pixels;
        let mut found = Vec::new();
        for (x, y) in (0..self.height).flat_map(|y| (0..self.width).map(move |x| (x, y))) {
            let Some(colour) = at(&rest, x, y).filter(|colour| *colour != background) else {
                continue;
            };
            let subrect = self.grow(&rest, (x, y), colour);
            subrect.erase(&mut rest, background);
            found.push(subrect);
        }
        found
    }

    /// The widest run to the right, then as many equal runs below as follow.
    fn grow(&self, rest: &[u32; PIXELS], (x, y): (usize, usize), colour: u32) -> Subrect {
        let same = |x, y| at(rest, x, y) == Some(colour);
        let width = (x..self.width).take_while(|x| same(*x, y)).count();
        let below = |y: &usize| (x..x + width).all(|x| same(x, *y));
        let height = (y..self.height).take_while(below).count();
        Subrect {
            x,
            y,
            width,
            height,
            colour,
        }
    }
}

/// What stands before a tile's subrects.
fn put_head(
    background: Option<u32>,
    (common, coloured): (u32, bool),
    subrects: &[Subrect],
    format: PixelFormat,
    out: &mut Vec<u8>,
) {
    let new_background = background != Some(common);
    let foreground = subrects.first().filter(|_| !coloured);
    let mut flags = 0;
    flags |= if new_background { BACKGROUND } else { 0 };
    flags |= if foreground.is_some() { FOREGROUND } else { 0 };
    flags |= if subrects.is_empty() { 0 } else { SUBRECTS };
    flags |= if coloured { COLOURED } else { 0 };
    out.push(flags);
    if new_background {
        format.put(common, out);
    }
    if let Some(subrect) = foreground {
        format.put(subrect.colour, out);
    }
}

impl Subrect {
    fn erase(&self, rest: &mut [u32; PIXELS], background: u32) {
        let columns = self.x..self.x + self.width;
        for row in rest.chunks_mut(SIDE).skip(self.y).take(self.height) {
            if let Some(run) = row.get_mut(columns.clone()) {
                run.fill(background);
            }
        }
    }

    fn put(&self, colour_in: Option<PixelFormat>, out: &mut Vec<u8>) {
        if let Some(format) = colour_in {
            format.put(self.colour, out);
        }
        out.push(nibbles(self.x, self.y));
        out.push(nibbles(self.width - 1, self.height - 1));
    }
}

fn at(pixels: &[u32; PIXELS], x: usize, y: usize) -> Option<u32> {
    pixels.get(y * SIDE + x).copied()
}

fn nibbles(high: usize, low: usize) -> u8 {
    debug_assert!(high < SIDE && low < SIDE);
    u8::try_from((high << 4) | low).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canvas(width: u16, height: u16, fills: &[(Area, u32)]) -> Canvas {
        let mut canvas = Canvas::new(Area::new(0, 0, width, height));
        for (area, colour) in fills {
            canvas.fill(*area, *colour);
        }
        canvas
    }

    fn hextiled(canvas: &Canvas) -> Vec<u8> {
        let mut out = Vec::new();
        hextile(canvas, PixelFormat::OURS, &mut out);
        out
    }

    #[test]
    fn a_background_is_named_once_for_tiles_that_share_it() {
        let plain = canvas(40, 16, &[(Area::new(0, 0, 40, 16), 0x0a_0b0c)]);

        assert_eq!(hextiled(&plain), [2, 0x0c, 0x0b, 0x0a, 0, 0, 0]);
    }

    #[test]
    fn two_colours_are_a_foreground_with_subrects() {
        let boxed = canvas(16, 16, &[(Area::new(2, 3, 5, 7), 0x01_0203)]);

        assert_eq!(
            hextiled(&boxed),
            [2 | 4 | 8, 0, 0, 0, 0, 3, 2, 1, 0, 1, 0x23, 0x46]
        );
    }

    #[test]
    fn more_colours_are_subrects_with_their_own() {
        let fills = [(Area::new(0, 0, 1, 1), 1), (Area::new(15, 15, 1, 1), 2)];
        let dots = canvas(16, 16, &fills);

        assert_eq!(
            hextiled(&dots),
            [
                2 | 8 | 16,
                0,
                0,
                0,
                0,
                2,
                1,
                0,
                0,
                0,
                0x00,
                0x00,
                2,
                0,
                0,
                0,
                0xff,
                0x00
            ]
        );
    }

    #[test]
    fn a_tile_too_busy_for_subrects_is_raw() {
        let mut noise = canvas(2, 2, &[]);
        for (place, colour) in (0..4).zip([9, 8, 7, 6]) {
            noise.fill(Area::new(place % 2, place / 2, 1, 1), colour);
        }

        let bytes = hextiled(&noise);

        assert_eq!(bytes[0], RAW);
        assert_eq!(bytes[1..], [9, 0, 0, 0, 8, 0, 0, 0, 7, 0, 0, 0, 6, 0, 0, 0]);
    }
}
