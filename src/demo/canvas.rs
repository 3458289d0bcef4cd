//! A cut-out of the screen that can be drawn on, in colours `0x00rrggbb`.
//!
//! Coordinates are the screen's; what falls outside the cut-out is dropped.

use super::area::Area;

/// The pixels of an area, row by row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Canvas {
    area: Area,
    pixels: Vec<u32>,
}

impl Canvas {
    /// A black canvas.
    pub(super) fn new(area: Area) -> Self {
        let mut canvas = Self {
            area,
            pixels: Vec::new(),
        };
        canvas.move_to(area);
        canvas
    }

    /// Makes it a black canvas of `area`; its memory is used again.
    pub(super) fn move_to(&mut self, area: Area) {
        let length = usize::from(area.width()).saturating_mul(usize::from(area.height()));
        self.area = area;
        self.pixels.clear();
        self.pixels.resize(length, 0);
    }

    pub(super) fn area(&self) -> Area {
        self.area
    }

    /// Every row from the top.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[u32]> {
        self.pixels.chunks(usize::from(self.area.width()).max(1))
    }

    /// The rows of the part that `area` covers.
    pub(super) fn rows_in(&self, area: Area) -> impl Iterator<Item = &[u32]> {
        let part = area.intersect(self.area).unwrap_or(self.area);
        let columns = distance(self.area.left, part.left)..distance(self.area.left, part.right);
        self.rows()
            .skip(distance(self.area.top, part.top))
            .take(usize::from(part.height()))
            .filter_map(move |row| row.get(columns.clone()))
    }

    pub(super) fn fill(&mut self, area: Area, colour: u32) {
        let Some(part) = area.intersect(self.area) else {
            return;
        };
        let columns = distance(self.area.left, part.left)..distance(self.area.left, part.right);
        self.pixels
            .chunks_mut(usize::from(self.area.width()).max(1))
            .skip(distance(self.area.top, part.top))
            .take(usize::from(part.height()))
            .filter_map(|row| row.get_mut(columns.clone()))
            .for_each(|run| run.fill(colour));
    }
}

fn distance(from: u16, to: u16) -> usize {
    usize::from(to.saturating_sub(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_outside_is_dropped() {
        let mut canvas = Canvas::new(Area::new(10, 10, 3, 2));

        canvas.fill(Area::new(0, 11, 12, 100), 7);

        assert_eq!(canvas.rows().collect::<Vec<_>>(), [[0, 0, 0], [7, 7, 0]]);
        assert_eq!(
            canvas.rows_in(Area::new(11, 11, 9, 9)).collect::<Vec<_>>(),
            [[7, 0]]
        );
    }
}
