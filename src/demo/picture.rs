//! The test picture: what is known goes in, a list of shapes comes out.
//!
//! Called by the screen. A [`Scene`] holds no pixels: it draws whatever part is asked for, and
//! two scenes tell what differs between them, so nobody keeps a frame buffer. The layout is made
//! for 800x600 and adapts to any size; what does not fit is cut off. Knows no viewer.

use std::collections::VecDeque;
use std::time::Duration;

use super::area::{Area, Size};
use super::canvas::Canvas;
use super::font;
use crate::model::UnixTime;

const NIGHT: u32 = 0x000f_141c;
const GRID: u32 = 0x0018_202c;
const PANEL: u32 = 0x0016_1d28;
const EDGE: u32 = 0x002c_384a;
const DIM: u32 = 0x007f_8ea3;
const WHITE: u32 = 0x00f2_f5f9;
const ACCENT: u32 = 0x005a_c8fa;
const LIT: u32 = 0x00ff_b020;

const BARS: [u32; 8] = [
    0x00ff_ffff,
    0x00bf_bf00,
    0x0000_bfbf,
    0x0000_bf00,
    0x00bf_00bf,
    0x00bf_0000,
    0x0000_00bf,
    0x0000_0000,
];
const COATS: [u32; 6] = [
    0x005a_c8fa,
    0x007b_d88f,
    0x00ff_d866,
    0x00ff_9f5a,
    0x00ff_6188,
    0x00ab_9df2,
];

/// The side of a signal square.
const SIGNAL: u16 = 16;
const KEY_IDLE: u32 = 0x0020_60c0;
const KEY_SEEN: u32 = 0x0020_c060;
const BUTTON_IDLE: u32 = 0x00c0_2060;
const BUTTON_HELD: u32 = 0x00c0_a020;

/// Everything the picture shows.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) size: Size,
    pub(super) time: UnixTime,
    /// Since the server started; moves the block.
    pub(super) elapsed: Duration,
    pub(super) viewers: usize,
    pub(super) pointer: (u16, u16),
    /// One bit for each button, the left one lowest (RFC 6143 section 7.5.5).
    pub(super) buttons: u8,
    /// Turns of the wheel, up counted positive.
    pub(super) wheel: i32,
    pub(super) key_seen: bool,
    /// Names of the last keys, the newest at the back.
    pub(super) keys: VecDeque<String>,
    pub(super) clipboard: Option<Clipboard>,
}

/// The text a viewer copied in last.
#[derive(Clone, Debug)]
pub(super) struct Clipboard {
    pub(super) length: u32,
    pub(super) start: String,
}

/// A picture as shapes, later ones over earlier ones.
#[derive(Debug)]
pub(super) struct Scene {
    size: Size,
    shapes: Vec<Shape>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Shape {
    Fill(Area, u32),
    /// One-pixel lines each `pitch` pixels.
    Grid(Area, u16, u32),
    /// From one colour at the left to another at the right.
    Ramp(Area, u32, u32),
    Text(Text),
    Arrow {
        at: (u16, u16),
        scale: u16,
        colour: u32,
    },
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Text {
    left: u16,
    top: u16,
    scale: u16,
    colour: u32,
    letters: String,
}

impl Scene {
    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// Draws the part of the picture that the canvas shows.
    pub(super) fn draw(&self, canvas: &mut Canvas) {
        let area = canvas.area();
        self.shapes
            .iter()
            .filter(|shape| shape.bounds().intersect(area).is_some())
            .for_each(|shape| shape.draw(canvas));
    }

    /// Areas outside of which both scenes look the same.
    ///
    /// Shapes are compared place by place: where no differing shape reaches, the same shapes lie
    /// in the same order.
    pub(super) fn changes<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Area> + 'a {
        let places = self.shapes.len().max(before.shapes.len());
        (0..places)
            .map(|place| (self.shapes.get(place), before.shapes.get(place)))
            .filter(|(new, old)| new != old)
            .flat_map(|(new, old)| [new, old])
            .flatten()
            .map(Shape::bounds)
    }
}

impl Shape {
    fn bounds(&self) -> Area {
        match self {
            Self::Fill(area, _) | Self::Grid(area, ..) | Self::Ramp(area, ..) => *area,
            Self::Text(text) => text.bounds(),
            Self::Arrow { at, scale, .. } => {
                let [width, height] = [12, 19].map(|side: u16| side.saturating_mul(*scale));
                Area::new(at.0, at.1, width, height)
            }
        }
    }

    fn draw(&self, canvas: &mut Canvas) {
        match self {
            Self::Fill(area, colour) => canvas.fill(*area, *colour),
            Self::Grid(area, pitch, colour) => draw_grid(*area, *pitch, *colour, canvas),
            Self::Ramp(area, from, to) => draw_ramp(*area, [*from, *to], canvas),
            Self::Text(text) => text.draw(canvas),
            Self::Arrow { at, scale, colour } => {
                stamp(canvas, *at, *scale, NIGHT, ARROW_EDGE);
                stamp(canvas, *at, *scale, *colour, ARROW);
            }
        }
    }
}

impl Text {
    fn bounds(&self) -> Area {
        let width = text_width(&self.letters, self.scale);
        let height = font::HEIGHT.saturating_mul(self.scale);
        Area::new(self.left, self.top, width, height)
    }

    fn draw(&self, canvas: &mut Canvas) {
        let advance = font::ADVANCE.saturating_mul(self.scale);
        let mut left = self.left;
        for letter in self.letters.chars() {
            let cell = Area::new(left, self.top, advance, u16::MAX);
            if cell.intersect(canvas.area()).is_none() {
                left = left.saturating_add(advance);
                continue;
            }
            // Bit 4 of a glyph is its leftmost column, bit 15 that of a stamp.
            let rows = font::glyph(letter).map(|row| u16::from(row) << 11);
            stamp(canvas, (left, self.top), self.scale, self.colour, rows);
            left = left.saturating_add(advance);
        }
    }
}

fn text_width(text: &str, scale: u16) -> u16 {
    let letters = u16::try_from(text.len()).unwrap_or(u16::MAX);
    letters.saturating_mul(font::ADVANCE).saturating_mul(scale)
}

fn draw_grid(area: Area, pitch: u16, colour: u32, canvas: &mut Canvas) {
    let step = usize::from(pitch.max(1));
    for x in (area.left..area.right).step_by(step) {
        canvas.fill(
            Area {
                left: x,
                right: x.saturating_add(1),
                ..area
            },
            colour,
        );
    }
    for y in (area.top..area.bottom).step_by(step) {
        canvas.fill(
            Area {
                top: y,
                bottom: y.saturating_add(1),
                ..area
            },
            colour,
        );
    }
}

fn draw_ramp(area: Area, ends: [u32; 2], canvas: &mut Canvas) {
    let Some(part) = area.intersect(canvas.area()) else {
        return;
    };
    let last = u32::from(area.width()).saturating_sub(1).max(1);
    for x in part.left..part.right {
        let share = u32::from(x.saturating_sub(area.left)) * 255 / last;
        let column = Area {
            left: x,
            right: x.saturating_add(1),
            ..area
        };
        canvas.fill(column, mix(ends, share));
    }
}

/// `share` 0 is the first colour, 255 the second.
fn mix(ends: [u32; 2], share: u32) -> u32 {
    let share = share.min(255);
    [16, 8, 0]
        .map(|shift| {
            let [from, to] = ends.map(|colour| (colour >> shift) & 0xff);
            ((from * (255 - share) + to * share) / 255) << shift
        })
        .iter()
        .sum()
}

/// Fills a square of `scale` pixels for every bit set, bit 15 being the leftmost column.
fn stamp(
    canvas: &mut Canvas,
    (left, top): (u16, u16),
    scale: u16,
    colour: u32,
    rows: impl IntoIterator<Item = u16>,
) {
    for (row, y) in rows.into_iter().zip((top..).step_by(usize::from(scale))) {
        for (bit, x) in (0..16).zip((left..).step_by(usize::from(scale))) {
            if row & (0x8000 >> bit) != 0 {
                canvas.fill(Area::new(x, y, scale, scale), colour);
            }
        }
    }
}

#[rustfmt::skip]
const ARROW_EDGE: [u16; 19] = [
    0b1000_0000_0000_0000,
    0b1100_0000_0000_0000,
    0b1110_0000_0000_0000,
    0b1111_0000_0000_0000,
    0b1111_1000_0000_0000,
    0b1111_1100_0000_0000,
    0b1111_1110_0000_0000,
    0b1111_1111_0000_0000,
    0b1111_1111_1000_0000,
    0b1111_1111_1100_0000,
    0b1111_1111_1110_0000,
    0b1111_1111_1111_0000,
    0b1111_1111_1111_0000,
    0b1111_1111_0000_0000,
    0b1111_1111_1000_0000,
    0b1110_0111_1000_0000,
    0b1100_0111_1100_0000,
    0b0000_0011_1100_0000,
    0b0000_0001_1000_0000,
];
#[rustfmt::skip]
const ARROW: [u16; 19] = [
    0b0000_0000_0000_0000,
    0b0000_0000_0000_0000,
    0b0100_0000_0000_0000,
    0b0110_0000_0000_0000,
    0b0111_0000_0000_0000,
    0b0111_1000_0000_0000,
    0b0111_1100_0000_0000,
    0b0111_1110_0000_0000,
    0b0111_1111_0000_0000,
    0b0111_1111_1000_0000,
    0b0111_1111_1100_0000,
    0b0111_1110_0000_0000,
    0b0111_0111_0000_0000,
    0b0110_0011_0000_0000,
    0b0100_0011_0000_0000,
    0b0000_0001_1000_0000,
    0b0000_0001_1000_0000,
    0b0000_0000_0000_0000,
    0b0000_0000_0000_0000,
];

/// Draws up the picture of `state`.
pub(super) fn paint(state: &State) -> Scene {
    let mut card = Card::new(state.size);
    let mut rest = card.backdrop();
    let unit = card.unit;
    card.header(rest.cut_top(28 * unit), state);
    let facts = 82 * unit;
    let bars = rest.height().saturating_sub(facts) / 2;
    card.bars(rest.cut_top(bars));
    rest.cut_top(6 * unit);
    card.facts(rest.cut_top(facts), state);
    rest.cut_top(6 * unit);
    card.playground(rest, state.elapsed);
    card.pointer(state);
    card.signals(state);
    Scene {
        size: state.size,
        shapes: card.shapes,
    }
}

/// A picture in the making.
struct Card {
    whole: Area,
    /// The pixels of one font pixel of running text: 2 at 800x600.
    unit: u16,
    shapes: Vec<Shape>,
}

impl Card {
    fn new(size: Size) -> Self {
        Self {
            whole: size.into(),
            unit: (size.width / 400).min(size.height / 300).clamp(1, 6),
            shapes: Vec::new(),
        }
    }

    fn fill(&mut self, area: Area, colour: u32) {
        self.shapes.push(Shape::Fill(area, colour));
    }

    fn text(
        &mut self,
        (left, top): (u16, u16),
        scale: u16,
        colour: u32,
        letters: impl Into<String>,
    ) {
        self.shapes.push(Shape::Text(Text {
            left,
            top,
            scale,
            colour,
            letters: letters.into(),
        }));
    }

    fn panel(&mut self, area: Area) {
        self.fill(area, EDGE);
        self.fill(area.inset(1), PANEL);
    }

    /// A bright line all round shows that no edge is cut off. Returns the area to lay out in.
    fn backdrop(&mut self) -> Area {
        let Self { whole, unit, .. } = *self;
        self.fill(whole, DIM);
        self.fill(whole.inset(1), NIGHT);
        let grid = Shape::Grid(whole.inset(1), 20 * unit, GRID);
        self.shapes.push(grid);
        let mut inner = whole.inset(10 * unit);
        inner.top = SIGNAL.saturating_add(4 * unit);
        inner
    }

    fn header(&mut self, area: Area, state: &State) {
        let scale = 2 * self.unit;
        let clock = clock(state.time);
        let right = area.right.saturating_sub(text_width(&clock, scale));
        self.text((area.left, area.top), scale, WHITE, "vncgate demo");
        self.text(
            (right.saturating_add(scale), area.top),
            scale,
            ACCENT,
            clock,
        );
    }

    fn bars(&mut self, mut area: Area) {
        let unit = self.unit;
        let height = area.height().saturating_sub(24 * unit);
        let bars = area.cut_top(height);
        for (place, colour) in (0..8).zip(BARS) {
            self.fill(column(bars, place, 8), colour);
        }
        let grey = area.cut_top(12 * unit);
        self.shapes.push(Shape::Ramp(grey, 0, 0x00ff_ffff));
        for colour in [0x00ff_0000, 0x0000_ff00, 0x0000_00ff] {
            let ramp = area.cut_top(4 * unit);
            self.shapes.push(Shape::Ramp(ramp, 0, colour));
        }
    }

    fn facts(&mut self, area: Area, state: &State) {
        self.panel(area);
        let unit = self.unit;
        let mut lines = area.inset(6 * unit);
        let half = area.width() / 2;
        let middle = lines.left.saturating_add(half);

        let line = lines.cut_top(15 * unit);
        let (x, y) = state.pointer;
        self.fact(line, "Pointer", format!("{x}, {y}"));
        self.buttons(
            Area {
                left: middle,
                ..line
            },
            state,
        );

        let line = lines.cut_top(30 * unit);
        let [first, second] = key_lines(&state.keys, self.letters(line));
        self.fact(line, "Keys", first);
        let below = (self.value_left(line), line.top.saturating_add(15 * unit));
        self.text(below, unit, WHITE, second);

        let line = lines.cut_top(15 * unit);
        let text = clipboard_line(state.clipboard.as_ref());
        self.fact(line, "Clipboard", text);

        let line = lines.cut_top(15 * unit);
        let Size { width, height } = state.size;
        self.fact(line, "Screen", format!("{width} x {height}"));
        let right = Area {
            left: middle,
            ..line
        };
        self.fact(right, "Viewers", state.viewers.to_string());
    }

    fn fact(&mut self, line: Area, label: &str, value: impl Into<String>) {
        let (unit, left) = (self.unit, self.value_left(line));
        self.text((line.left, line.top), unit, DIM, label);
        self.text((left, line.top), unit, WHITE, value);
    }

    /// Values stand in a column, right of the longest label.
    fn value_left(&self, line: Area) -> u16 {
        line.left.saturating_add(11 * font::ADVANCE * self.unit)
    }

    /// How many letters of a value fit in `line`.
    fn letters(&self, line: Area) -> usize {
        let width = line.right.saturating_sub(self.value_left(line));
        usize::from(width / (font::ADVANCE * self.unit))
    }

    fn buttons(&mut self, line: Area, state: &State) {
        let unit = self.unit;
        self.fact(line, "Buttons", "");
        let mut left = self.value_left(line);
        for (bit, name) in [(1, "L"), (2, "M"), (4, "R")] {
            let lit = state.buttons & bit != 0;
            let (back, front) = if lit { (LIT, NIGHT) } else { (EDGE, DIM) };
            let top = line.top.saturating_sub(2 * unit);
            self.fill(Area::new(left, top, 11 * unit, 11 * unit), back);
            let letter = left.saturating_add(3 * unit);
            self.text((letter, line.top), unit, front, name);
            left = left.saturating_add(14 * unit);
        }
        let at = (left.saturating_add(4 * unit), line.top);
        self.text(at, unit, DIM, format!("wheel {:+}", state.wheel));
    }

    fn playground(&mut self, area: Area, elapsed: Duration) {
        let unit = self.unit;
        self.panel(area);
        let hint = "Type, click, move, copy: what arrives shows above";
        let indent = area.width().saturating_sub(text_width(hint, unit)) / 2;
        let drop = area.height().saturating_sub(font::HEIGHT * unit) / 2;
        let at = (
            area.left.saturating_add(indent),
            area.top.saturating_add(drop),
        );
        self.text(at, unit, DIM, hint);
        self.block(area.inset(2), elapsed);
    }

    fn block(&mut self, room: Area, elapsed: Duration) {
        let unit = self.unit;
        let side = (18 * unit).min(room.width()).min(room.height());
        let x = bounce(elapsed, 70 * unit, room.width().saturating_sub(side));
        let y = bounce(elapsed, 43 * unit, room.height().saturating_sub(side));
        let block = Area::new(
            room.left.saturating_add(x),
            room.top.saturating_add(y),
            side,
            side,
        );
        let coat = COATS.iter().cycle().nth(seconds_of(elapsed, 6));
        self.fill(block, coat.copied().unwrap_or(ACCENT));
        self.fill(block.inset(3 * unit), NIGHT);
        self.fill(block.inset(6 * unit), WHITE);
    }

    fn pointer(&mut self, state: &State) {
        let colour = if state.buttons == 0 { WHITE } else { LIT };
        self.shapes.push(Shape::Arrow {
            at: state.pointer,
            scale: self.unit.min(2),
            colour,
        });
    }

    /// Last, so that nothing ever lies over them.
    fn signals(&mut self, state: &State) {
        let key = if state.key_seen { KEY_SEEN } else { KEY_IDLE };
        let held = state.buttons != 0;
        let button = if held { BUTTON_HELD } else { BUTTON_IDLE };
        self.fill(Area::new(0, 0, SIGNAL, SIGNAL), key);
        self.fill(Area::new(SIGNAL, 0, SIGNAL, SIGNAL), button);
    }
}

/// The `place`-th of `count` equal columns, without gaps between them.
fn column(area: Area, place: u16, count: u32) -> Area {
    let edge = |place: u16| {
        let offset = u32::from(area.width()) * u32::from(place) / count.max(1);
        area.left.saturating_add(u16::try_from(offset).unwrap_or(0))
    };
    Area {
        left: edge(place),
        right: edge(place.saturating_add(1)),
        ..area
    }
}

/// Where something is that runs at `speed` pixels a second between 0 and `range`, there and back.
fn bounce(elapsed: Duration, speed: u16, range: u16) -> u16 {
    let path = elapsed.as_millis().saturating_mul(speed.into()) / 1000;
    let round = u128::from(range).saturating_mul(2).max(1);
    let position = path % round;
    u16::try_from(position.min(round - position)).unwrap_or(0)
}

fn seconds_of(elapsed: Duration, cycle: u64) -> usize {
    usize::try_from(elapsed.as_secs() % cycle).unwrap_or(0)
}

fn clock(time: UnixTime) -> String {
    let of_day = time.0 % 86_400;
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02} UTC")
}

fn clipboard_line(clipboard: Option<&Clipboard>) -> String {
    clipboard.map_or_else(
        || "-".to_owned(),
        |Clipboard { length, start }| format!("{length} bytes  {start}"),
    )
}

/// The newest keys that fit in two lines of `letters`, the newest last.
fn key_lines(keys: &VecDeque<String>, letters: usize) -> [String; 2] {
    (0..keys.len())
        .find_map(|oldest| flow(keys.iter().skip(oldest), letters))
        .unwrap_or_else(|| ["-".to_owned(), String::new()])
}

/// The keys in two lines, if they fit.
fn flow<'a>(keys: impl Iterator<Item = &'a String>, letters: usize) -> Option<[String; 2]> {
    let [mut first, mut second] = [String::new(), String::new()];
    for key in keys {
        let fits = second.is_empty() && append(&mut first, key, letters);
        if !fits && !append(&mut second, key, letters) {
            return None;
        }
    }
    Some([first, second])
}

fn append(line: &mut String, key: &str, letters: usize) -> bool {
    let gap = if line.is_empty() { "" } else { " " };
    if line.len() + gap.len() + key.len() > letters {
        return false;
    }
    line.push_str(gap);
    line.push_str(key);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(width: u16, height: u16) -> State {
        State {
            size: Size { width, height },
            time: UnixTime(1_795_421_785),
            elapsed: Duration::from_millis(1234),
            viewers: 1,
            pointer: (width / 2, height / 2),
            buttons: 0,
            wheel: 0,
            key_seen: false,
            keys: VecDeque::new(),
            clipboard: None,
        }
    }

    fn drawn(scene: &Scene) -> Canvas {
        let mut canvas = Canvas::new(scene.size().into());
        scene.draw(&mut canvas);
        canvas
    }

    fn colours(canvas: &Canvas, area: Area) -> Vec<u32> {
        let mut found: Vec<_> = canvas.rows_in(area).flatten().copied().collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn the_signal_squares_are_solid_even_under_the_pointer() {
        let mut state = state(800, 600);
        state.pointer = (3, 3);
        let idle = drawn(&paint(&state));
        (state.key_seen, state.buttons) = (true, 4);
        let busy = drawn(&paint(&state));

        let (key, button) = (Area::new(0, 0, 16, 16), Area::new(16, 0, 16, 16));
        assert_eq!(colours(&idle, key), [0x20_60c0]);
        assert_eq!(colours(&idle, button), [0xc0_2060]);
        assert_eq!(colours(&busy, key), [0x20_c060]);
        assert_eq!(colours(&busy, button), [0xc0_a020]);
    }

    #[test]
    fn outside_the_changes_two_scenes_look_the_same() {
        let mut after = state(400, 300);
        let before = paint(&after);
        after.pointer = (30, 200);
        after.elapsed += Duration::from_millis(500);
        after.time = after.time.plus(Duration::from_secs(1));
        after.keys.push_back("Enter".to_owned());
        let after = paint(&after);
        let (mut patched, mut redrawn) = (drawn(&before), drawn(&after));

        for area in after.changes(&before) {
            patched.fill(area, 1);
            redrawn.fill(area, 1);
        }

        assert!(after.changes(&before).count() > 0);
        assert!(patched == redrawn);
    }

    #[test]
    fn any_size_can_be_painted() {
        for (width, height) in [(64, 64), (64, 4096), (4096, 64), (333, 777), (4096, 4096)] {
            let mut state = state(width, height);
            state.keys = (0..32).map(|_| "Backspace".to_owned()).collect();
            state.pointer = (width - 1, height - 1);

            let canvas = drawn(&paint(&state));

            assert!(colours(&canvas, Area::new(32, 0, 32, 64)).len() > 1);
        }
    }

    #[test]
    fn a_part_drawn_alone_is_the_part_of_the_whole() {
        let scene = paint(&state(800, 600));
        let whole = drawn(&scene);
        let part = Area::new(123, 45, 321, 400);
        let mut canvas = Canvas::new(part);

        scene.draw(&mut canvas);

        assert!(canvas.rows().eq(whole.rows_in(part)));
    }

    #[test]
    fn the_block_runs_there_and_back() {
        let at = |seconds| bounce(Duration::from_secs(seconds), 10, 25);

        assert_eq!([0, 1, 2, 3, 4, 5].map(at), [0, 10, 20, 20, 10, 0]);
        assert_eq!(bounce(Duration::MAX, u16::MAX, 0), 0);
    }

    #[test]
    fn the_clock_shows_the_time_of_day() {
        assert_eq!(clock(UnixTime(1_795_421_785)), "08:16:25 UTC");
    }

    #[test]
    fn the_newest_keys_that_fit_flow_over_two_lines() {
        let keys = ["a", "b", "Enter", "c", "d"].map(str::to_owned).into();

        assert_eq!(key_lines(&keys, 7), ["b Enter", "c d"].map(str::to_owned));
        assert_eq!(key_lines(&keys, 5), ["Enter", "c d"].map(str::to_owned));
        assert_eq!(key_lines(&keys, 0), ["-", ""].map(str::to_owned));
        assert_eq!(
            key_lines(&keys, 40),
            ["a b Enter c d", ""].map(str::to_owned)
        );
    }
}
