//! Rectangles on the screen, and which tiles of it a viewer has yet to be sent.
//!
//! Used by the picture, the encodings and the viewer. Edges are clamped instead of wrapped, so
//! whatever a viewer names is at worst empty.

/// The side of a tile: Hextile's, so that what changes and what is encoded coincide.
pub(super) const TILE: u16 = 16;

/// Width and height of a screen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Size {
    pub(super) width: u16,
    pub(super) height: u16,
}

/// The pixels from `left` and `top` up to, not including, `right` and `bottom`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Area {
    pub(super) left: u16,
    pub(super) top: u16,
    pub(super) right: u16,
    pub(super) bottom: u16,
}

impl Area {
    pub(super) fn new(left: u16, top: u16, width: u16, height: u16) -> Self {
        Self {
            left,
            top,
            right: left.saturating_add(width),
            bottom: top.saturating_add(height),
        }
    }

    pub(super) fn width(self) -> u16 {
        self.right.saturating_sub(self.left)
    }

    pub(super) fn height(self) -> u16 {
        self.bottom.saturating_sub(self.top)
    }

    /// What both cover, if they touch at all.
    pub(super) fn intersect(self, other: Self) -> Option<Self> {
        let both = Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        };
        (both.left < both.right && both.top < both.bottom).then_some(both)
    }

    /// The smallest area around both.
    pub(super) fn union(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    /// The area without `margin` pixels on each side.
    pub(super) fn inset(self, margin: u16) -> Self {
        Self {
            left: self.left.saturating_add(margin),
            top: self.top.saturating_add(margin),
            right: self.right.saturating_sub(margin),
            bottom: self.bottom.saturating_sub(margin),
        }
    }

    /// Takes a slice of `height` off the top.
    pub(super) fn cut_top(&mut self, height: u16) -> Self {
        let cut = self.top.saturating_add(height).min(self.bottom);
        let slice = Self {
            bottom: cut,
            ..*self
        };
        self.top = cut;
        slice
    }

    /// The areas of the tiles that cover it, row by row, counted from its own corner.
    pub(super) fn tiles(self) -> impl Iterator<Item = Self> {
        steps(self.top, self.bottom).flat_map(move |top| {
            steps(self.left, self.right)
                .filter_map(move |left| Self::new(left, top, TILE, TILE).intersect(self))
        })
    }
}

impl From<Size> for Area {
    fn from(size: Size) -> Self {
        Self::new(0, 0, size.width, size.height)
    }
}

fn steps(from: u16, to: u16) -> impl Iterator<Item = u16> {
    (from..to).step_by(usize::from(TILE))
}

/// The tiles of a screen that a viewer has not been sent as they are now.
#[derive(Debug)]
pub(super) struct Stale {
    whole: Area,
    columns: usize,
    tiles: Vec<bool>,
}

impl Stale {
    /// A screen of which nothing has been sent.
    pub(super) fn all(size: Size) -> Self {
        let columns = usize::from(size.width.div_ceil(TILE));
        let rows = usize::from(size.height.div_ceil(TILE));
        Self {
            whole: size.into(),
            columns,
            tiles: vec![true; columns.saturating_mul(rows)],
        }
    }

    /// Marks every tile that `area` touches.
    pub(super) fn mark(&mut self, area: Area) {
        let Some(area) = area.intersect(self.whole) else {
            return;
        };
        let (first, last) = (column(area.left), column(area.right.saturating_sub(1)));
        for (_, row) in rows_of(&mut self.tiles, self.columns, area) {
            if let Some(run) = row.get_mut(first..=last) {
                run.fill(true);
            }
        }
    }

    /// Takes the stale tiles that `area` touches, neighbours in a row joined.
    pub(super) fn take(&mut self, area: Area) -> Vec<Area> {
        let mut runs: Vec<Area> = Vec::new();
        let Some(area) = area.intersect(self.whole) else {
            return runs;
        };
        for (top, row) in rows_of(&mut self.tiles, self.columns, area) {
            for (stale, left) in row.iter_mut().zip(steps(0, self.whole.right)) {
                let tile = Area::new(left, top, TILE, TILE);
                if !*stale || tile.intersect(area).is_none() {
                    continue;
                }
                *stale = false;
                match runs.last_mut() {
                    Some(run) if run.top == top && run.right == left => run.right = tile.right,
                    _ => runs.push(tile),
                }
            }
        }
        runs.iter()
            .filter_map(|run| run.intersect(self.whole))
            .collect()
    }
}

fn column(x: u16) -> usize {
    usize::from(x / TILE)
}

fn rows_of(
    tiles: &mut [bool],
    columns: usize,
    area: Area,
) -> impl Iterator<Item = (u16, &mut [bool])> {
    tiles
        .chunks_mut(columns.max(1))
        .zip(steps(0, u16::MAX))
        .map(|(row, top)| (top, row))
        .filter(move |(top, _)| top.saturating_add(TILE) > area.top && *top < area.bottom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 40,
        height: 20,
    };

    #[test]
    fn a_new_screen_is_stale_as_a_whole_and_only_once() {
        let mut stale = Stale::all(SIZE);

        let runs = stale.take(SIZE.into());

        assert_eq!(
            runs,
            [Area::new(0, 0, 40, 16), Area::new(0, 16, 40, 4)],
            "one run for each row of tiles, cut at the edge"
        );
        assert_eq!(stale.take(SIZE.into()), []);
    }

    #[test]
    fn only_marked_tiles_inside_the_asked_area_are_taken() {
        let mut stale = Stale::all(SIZE);
        stale.take(SIZE.into());
        stale.mark(Area::new(0, 0, 1, 1));
        stale.mark(Area::new(39, 19, 500, 500));

        assert_eq!(
            stale.take(Area::new(16, 0, 24, 20)),
            [Area::new(32, 16, 8, 4)]
        );
        assert_eq!(stale.take(SIZE.into()), [Area::new(0, 0, 16, 16)]);
    }

    #[test]
    fn areas_beyond_the_number_range_are_clamped() {
        let area = Area::new(65_000, 65_000, 65_000, 65_000);

        assert_eq!((area.width(), area.height()), (535, 535));
        assert_eq!(area.intersect(SIZE.into()), None);
    }
}
