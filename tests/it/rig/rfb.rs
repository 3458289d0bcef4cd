//! Just enough of RFB 3.8 to look at a pixel and to press a key, on both ends of a relay.

use std::io::{self, Read, Write};

use super::wait::until;
use super::ws::Ws;

const VERSION: &[u8; 12] = b"RFB 003.008\n";
const DESKTOP_SIZE: i32 = -223;

/// A colour: red, green, blue.
pub(crate) type Colour = [u8; 3];

/// A viewer of one console.
#[derive(Debug)]
pub(crate) struct Viewer {
    ws: Ws,
    width: u16,
    height: u16,
    pixels: Vec<Colour>,
}

/// Takes part in a handshake with security type None, up to and without the server's name.
pub(crate) fn shake_hands(ws: &mut Ws) -> (u16, u16, String) {
    assert_eq!(ws.read(12), VERSION);
    ws.send(VERSION);
    let count = usize::from(ws.read(1)[0]);
    assert!(ws.read(count).contains(&1), "security type None is offered");
    ws.send(&[1]);
    assert_eq!(ws.read(4), [0; 4], "the handshake succeeds");
    ws.send(&[1]);
    let start = ws.read(24);
    let word = |at: usize| u16::from_be_bytes([start[at], start[at + 1]]);
    let length = u32::from_be_bytes([start[20], start[21], start[22], start[23]]);
    let name = ws.read(usize::try_from(length).unwrap());
    (word(0), word(2), String::from_utf8(name).unwrap())
}

/// The server's side of [`shake_hands`].
pub(crate) fn welcome(stream: &mut (impl Read + Write), name: &str) -> io::Result<()> {
    stream.write_all(VERSION)?;
    welcome_greeted(stream, name)
}

/// The same, once the server has greeted.
pub(crate) fn welcome_greeted(stream: &mut (impl Read + Write), name: &str) -> io::Result<()> {
    let mut version = [0; 12];
    let mut byte = [0];
    stream.read_exact(&mut version)?;
    stream.write_all(&[1, 1])?;
    stream.read_exact(&mut byte)?;
    stream.write_all(&[0; 4])?;
    stream.read_exact(&mut byte)?;
    let mut start = vec![0, 64, 0, 64];
    start.extend(PIXEL_FORMAT);
    start.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
    start.extend(name.as_bytes());
    stream.write_all(&start)
}

/// 32 bits a pixel, little endian, red in the third byte.
const PIXEL_FORMAT: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

impl Viewer {
    /// Joins a console and asks for plain pixels.
    pub(crate) fn new(mut ws: Ws) -> Self {
        let (width, height, _) = shake_hands(&mut ws);
        let mut message = vec![0, 0, 0, 0];
        message.extend(PIXEL_FORMAT);
        message.extend([2, 0, 0, 2]);
        message.extend(0_i32.to_be_bytes());
        message.extend(DESKTOP_SIZE.to_be_bytes());
        ws.send(&message);
        let mut viewer = Self {
            ws,
            width: 0,
            height: 0,
            pixels: Vec::new(),
        };
        viewer.resize(width, height);
        viewer
    }

    /// Waits until the pixel has that colour.
    #[track_caller]
    pub(crate) fn wait_for_pixel(&mut self, x: u16, y: u16, colour: Colour) {
        let mut seen = None;
        let what = format!("{colour:02x?} at {x},{y}");
        until(&what, || {
            let now = self.pixel(x, y);
            if seen != Some(now) {
                seen = Some(now);
                eprintln!("the pixel at {x},{y} is {now:02x?}");
            }
            (now == colour).then_some(())
        });
    }

    /// The colour of a pixel now, asked for anew.
    #[track_caller]
    pub(crate) fn pixel(&mut self, x: u16, y: u16) -> Colour {
        let mut request = vec![3, 0];
        for number in [x, y, 1, 1] {
            request.extend(number.to_be_bytes());
        }
        self.ws.send(&request);
        while self.message() != 0 {}
        self.pixels[usize::from(y) * usize::from(self.width) + usize::from(x)]
    }

    /// Presses and releases a key, by its X11 keysym.
    pub(crate) fn press(&mut self, key: u32) {
        for down in [1, 0] {
            let mut event = vec![4, down, 0, 0];
            event.extend(key.to_be_bytes());
            self.ws.send(&event);
        }
    }

    /// Presses the keys of a text in small letters; a line feed is the Return key.
    pub(crate) fn type_text(&mut self, text: &str) {
        for letter in text.chars() {
            self.press(if letter == '\n' {
                0xff0d
            } else {
                u32::from(letter)
            });
        }
    }

    /// Moves the pointer.
    pub(crate) fn point(&mut self, x: u16, y: u16) {
        let mut event = vec![5, 0];
        event.extend(x.to_be_bytes());
        event.extend(y.to_be_bytes());
        self.ws.send(&event);
    }

    /// The WebSocket again, somewhere in the stream.
    pub(crate) fn into_ws(self) -> Ws {
        self.ws
    }

    /// Reads one message of the server; its type.
    #[track_caller]
    fn message(&mut self) -> u8 {
        let kind = self.ws.read(1)[0];
        match kind {
            0 => {
                self.ws.read(1);
                for _ in 0..self.word() {
                    self.rectangle();
                }
            }
            2 => {}
            3 => {
                let head = self.ws.read(7);
                let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
                self.ws.read(usize::try_from(length).unwrap());
            }
            other => panic!("unexpected message of type {other}"),
        }
        kind
    }

    fn rectangle(&mut self) {
        let [x, y, width, height] = [(); 4].map(|()| self.word());
        let encoding = self.ws.read(4);
        let encoding = i32::from_be_bytes(encoding.try_into().unwrap());
        if encoding == DESKTOP_SIZE {
            self.resize(width, height);
            return;
        }
        assert_eq!(encoding, 0, "only raw pixels were asked for");
        for row in y..y + height {
            let bytes = self.ws.read(usize::from(width) * 4);
            let start = usize::from(row) * usize::from(self.width) + usize::from(x);
            for (pixel, bytes) in self.pixels[start..].iter_mut().zip(bytes.chunks_exact(4)) {
                *pixel = [bytes[2], bytes[1], bytes[0]];
            }
        }
    }

    fn resize(&mut self, width: u16, height: u16) {
        (self.width, self.height) = (width, height);
        self.pixels = vec![[0; 3]; usize::from(width) * usize::from(height)];
    }

    fn word(&mut self) -> u16 {
        let bytes = self.ws.read(2);
        u16::from_be_bytes([bytes[0], bytes[1]])
    }
}
