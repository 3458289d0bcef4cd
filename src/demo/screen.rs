//! The one screen all viewers share: input changes it, time moves it, viewers ask for its scene.
//!
//! Nothing ticks here. The picture is painted anew when a viewer asks for it, so without viewers
//! it costs nothing. Called by the viewers; knows no protocol.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::area::Size;
use super::keys;
use super::picture::{Clipboard, Scene, State, paint};
use crate::model::UnixTime;

const START: Size = Size {
    width: 800,
    height: 600,
};
/// The sides a screen may have. Smaller shows nothing; 4096 is the widest common display and
/// keeps an update's rectangles countable in its 16 bits.
const SIDES: std::ops::RangeInclusive<u16> = 64..=4096;
/// Keys the picture remembers.
const KEYS: usize = 32;
const WHEEL_UP: u8 = 8;
const WHEEL_DOWN: u8 = 16;

/// Paints within this time are taken from the last: several viewers share one scene a frame.
const FRESH: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Screen {
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// The last scene and when it was painted; none if something changed since.
    painted: Option<(Arc<Scene>, Instant)>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let state = State {
            size: START,
            time: UnixTime::now(),
            elapsed: Duration::ZERO,
            viewers: 0,
            pointer: (START.width / 2, START.height / 2),
            buttons: 0,
            wheel: 0,
            key_seen: false,
            keys: VecDeque::with_capacity(KEYS),
            clipboard: None,
        };
        Self {
            started: Instant::now(),
            inner: Mutex::new(Inner {
                state,
                painted: None,
            }),
        }
    }

    /// The picture as it is now.
    pub(super) fn scene(&self) -> Arc<Scene> {
        let now = Instant::now();
        let mut inner = self.lock();
        if let Some((scene, at)) = &inner.painted
            && now.duration_since(*at) < FRESH
        {
            return Arc::clone(scene);
        }
        inner.state.time = UnixTime::now();
        inner.state.elapsed = now.duration_since(self.started);
        let scene = Arc::new(paint(&inner.state));
        inner.painted = Some((Arc::clone(&scene), now));
        scene
    }

    /// Counts a viewer in; it leaves when the visit is dropped.
    pub(super) fn enter(&self) -> Visit<'_> {
        self.change(|state| state.viewers = state.viewers.saturating_add(1));
        Visit {
            screen: self,
            held: false,
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut inner = self.lock();
        inner.painted = None;
        change(&mut inner.state)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A state is whole after every single assignment, so a poisoned one serves as well.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A viewer's presence, through which its input comes.
#[derive(Debug)]
pub(super) struct Visit<'a> {
    screen: &'a Screen,
    held: bool,
}

impl Visit<'_> {
    /// Releases of keys show nothing.
    pub(super) fn key(&self, down: bool, keysym: u32) {
        if !down {
            return;
        }
        self.screen.change(|state| {
            state.key_seen = true;
            if state.keys.len() >= KEYS {
                state.keys.pop_front();
            }
            state.keys.push_back(keys::name(keysym));
        });
    }

    pub(super) fn pointer(&mut self, x: u16, y: u16, buttons: u8) {
        self.held = buttons != 0;
        self.screen.change(|state| {
            let pressed = buttons & !state.buttons;
            let turn = i32::from(pressed & WHEEL_UP != 0) - i32::from(pressed & WHEEL_DOWN != 0);
            state.wheel = state.wheel.saturating_add(turn);
            state.buttons = buttons;
            state.pointer = inside(state.size, x, y);
        });
    }

    /// `start` is the beginning of the text in Latin-1.
    pub(super) fn clipboard(&self, length: u32, start: &[u8]) {
        let start = start.iter().copied().map(printable).collect();
        self.screen
            .change(|state| state.clipboard = Some(Clipboard { length, start }));
    }

    /// Whether the screen has this size now.
    pub(super) fn resize(&self, size: Size) -> bool {
        if !SIDES.contains(&size.width) || !SIDES.contains(&size.height) {
            return false;
        }
        self.screen.change(|state| {
            state.size = size;
            state.pointer = inside(size, state.pointer.0, state.pointer.1);
        });
        true
    }
}

/// A viewer that leaves lets go of the buttons it held.
impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.screen.change(|state| {
            state.viewers = state.viewers.saturating_sub(1);
            if self.held {
                state.buttons = 0;
            }
        });
    }
}

fn inside(size: Size, x: u16, y: u16) -> (u16, u16) {
    (
        x.min(size.width.saturating_sub(1)),
        y.min(size.height.saturating_sub(1)),
    )
}

fn printable(byte: u8) -> char {
    match byte {
        b' '..=b'~' => char::from(byte),
        b'\n' | b'\r' | b'\t' => ' ',
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_remembered_up_to_their_limit() {
        let screen = Screen::new();
        let visit = screen.enter();

        for keysym in 0x21..0x7e {
            visit.key(true, keysym);
            visit.key(false, keysym);
        }

        let inner = screen.lock();
        assert_eq!(inner.state.keys.len(), KEYS);
        assert_eq!(inner.state.keys.back().unwrap(), "}");
    }

    #[test]
    fn a_viewer_that_leaves_lets_go_of_the_buttons() {
        let screen = Screen::new();
        let mut visit = screen.enter();
        visit.pointer(9000, 3, 1);
        assert_eq!(screen.lock().state.pointer, (799, 3));

        drop(visit);

        assert_eq!(screen.lock().state.buttons, 0);
        assert_eq!(screen.lock().state.viewers, 0);
    }

    #[test]
    fn a_turn_of_the_wheel_counts_once() {
        let screen = Screen::new();
        let mut visit = screen.enter();

        for buttons in [8, 8, 0, 8, 0, 16, 0, 16, 0, 16] {
            visit.pointer(0, 0, buttons);
        }

        assert_eq!(screen.lock().state.wheel, -1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_scene_is_shared_until_it_ages_or_something_happens() {
        let screen = Screen::new();
        let visit = screen.enter();
        let first = screen.scene();

        assert!(Arc::ptr_eq(&first, &screen.scene()));
        visit.key(true, 0x61);
        let second = screen.scene();
        assert!(!Arc::ptr_eq(&first, &second));
        tokio::time::advance(FRESH).await;
        assert!(!Arc::ptr_eq(&second, &screen.scene()));
    }
}
