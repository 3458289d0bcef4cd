//! The server through a real socket, with a small viewer of its own.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Demo, VIEWERS};
use crate::drain::Drain;

const BOUND: Duration = Duration::from_secs(20);
const RAW: i32 = 0;
const HEXTILE: i32 = 5;
const DESKTOP_SIZE: i32 = -223;
const EXTENDED_KEYS: i32 = -258;
const EXTENDED_DESKTOP_SIZE: i32 = -308;

const KEY_IDLE: u32 = 0x20_60c0;
const KEY_SEEN: u32 = 0x20_c060;
const BUTTON_IDLE: u32 = 0xc0_2060;
const BUTTON_HELD: u32 = 0xc0_a020;

async fn start(drain: &Drain) -> SocketAddr {
    let demo = Demo::bind().await.unwrap();
    let address = demo.address();
    drain.watch().spawn_service(demo.run(drain.watch()));
    address
}

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    timeout(BOUND, future).await.expect("in time")
}

/// A rectangle's encoding and its header numbers.
type Rectangle = (i32, [u16; 4]);

struct Viewer {
    stream: BufStream<TcpStream>,
    size: (u16, u16),
    /// Bytes of a pixel.
    depth: usize,
    pixels: Vec<u32>,
    received: usize,
}

impl Viewer {
    async fn connect(address: SocketAddr) -> Self {
        bounded(Self::greet(address, *b"RFB 003.008\n")).await
    }

    async fn greet(address: SocketAddr, version: [u8; 12]) -> Self {
        let mut viewer = Self {
            stream: BufStream::new(TcpStream::connect(address).await.unwrap()),
            size: (0, 0),
            depth: 4,
            pixels: Vec::new(),
            received: 0,
        };
        assert_eq!(viewer.read::<12>().await, *b"RFB 003.008\n");
        viewer.write(&version).await;
        match &version[8..11] {
            b"008" => {
                assert_eq!(viewer.read().await, [1, 1]);
                viewer.write(&[1]).await;
                assert_eq!(viewer.read().await, [0, 0, 0, 0]);
            }
            b"007" => {
                assert_eq!(viewer.read().await, [1, 1]);
                viewer.write(&[1]).await;
            }
            _ => assert_eq!(viewer.read().await, [0, 0, 0, 1]),
        }
        viewer.write(&[1]).await;
        let [a, b, c, d] = viewer.read().await;
        viewer.resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let format = viewer.read::<16>().await;
        assert_eq!(
            format,
            [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]
        );
        assert_eq!(viewer.read().await, [0, 0, 0, 12]);
        assert_eq!(&viewer.read::<12>().await, b"vncgate demo");
        viewer
    }

    fn resize(&mut self, width: u16, height: u16) {
        self.size = (width, height);
        self.pixels = vec![0; usize::from(width) * usize::from(height)];
    }

    async fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).await.unwrap();
        self.received += N;
        bytes
    }

    async fn write(&mut self, bytes: &[u8]) {
        bounded(self.stream.write_all(bytes)).await.unwrap();
        bounded(self.stream.flush()).await.unwrap();
    }

    async fn encodings(&mut self, numbers: &[i32]) {
        let count = u16::try_from(numbers.len()).unwrap().to_be_bytes();
        let mut bytes = vec![2, 0, count[0], count[1]];
        bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        self.write(&bytes).await;
    }

    /// Red, green and blue as (max, shift).
    async fn format(&mut self, bits: u8, big_endian: bool, channels: [(u16, u8); 3]) {
        let mut bytes = vec![0, 0, 0, 0, bits, bits, u8::from(big_endian), 1];
        bytes.extend(channels.iter().flat_map(|channel| channel.0.to_be_bytes()));
        bytes.extend(channels.map(|channel| channel.1));
        bytes.extend([0; 3]);
        self.write(&bytes).await;
        self.depth = usize::from(bits / 8);
    }

    async fn request(&mut self, incremental: bool) {
        let (width, height) = self.size;
        let mut bytes = vec![3, u8::from(incremental), 0, 0, 0, 0];
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        self.write(&bytes).await;
    }

    async fn key(&mut self, down: bool, keysym: u32) {
        let mut bytes = vec![4, u8::from(down), 0, 0];
        bytes.extend(keysym.to_be_bytes());
        self.write(&bytes).await;
    }

    async fn pointer(&mut self, buttons: u8, x: u16, y: u16) {
        let mut bytes = vec![5, buttons];
        bytes.extend([x, y].map(u16::to_be_bytes).concat());
        self.write(&bytes).await;
    }

    async fn ask_size(&mut self, width: u16, height: u16) {
        let ([a, b], [c, d]) = (width.to_be_bytes(), height.to_be_bytes());
        let mut bytes = vec![251, 0, a, b, c, d, 1, 0];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0]);
        self.write(&bytes).await;
    }

    async fn full(&mut self) -> Vec<Rectangle> {
        self.request(false).await;
        self.update().await
    }

    async fn update(&mut self) -> Vec<Rectangle> {
        bounded(self.read_update()).await
    }

    async fn read_update(&mut self) -> Vec<Rectangle> {
        let [0, _, a, b] = self.read().await else {
            panic!("not an update");
        };
        let mut rectangles = Vec::new();
        for _ in 0..u16::from_be_bytes([a, b]) {
            rectangles.push(self.rectangle().await);
        }
        rectangles
    }

    async fn rectangle(&mut self) -> Rectangle {
        let place = self.read::<8>().await;
        let encoding = i32::from_be_bytes(self.read().await);
        let at = [0, 2, 4, 6].map(|i| u16::from_be_bytes([place[i], place[i + 1]]));
        match encoding {
            RAW => self.raw(at).await,
            HEXTILE => self.hextile(at).await,
            DESKTOP_SIZE => self.resize(at[2], at[3]),
            EXTENDED_KEYS => {}
            EXTENDED_DESKTOP_SIZE => {
                assert_eq!(self.read().await, [1, 0, 0, 0], "one screen");
                let screen = self.read::<16>().await;
                assert_eq!(screen[8..10], at[2].to_be_bytes());
                if self.size != (at[2], at[3]) {
                    self.resize(at[2], at[3]);
                }
            }
            other => panic!("encoding {other}"),
        }
        (encoding, at)
    }

    async fn pixel(&mut self) -> u32 {
        let mut bytes = [0; 4];
        let pixel = bytes.get_mut(..self.depth).unwrap();
        self.stream.read_exact(pixel).await.unwrap();
        self.received += self.depth;
        u32::from_le_bytes(bytes)
    }

    async fn raw(&mut self, [x, y, width, height]: [u16; 4]) {
        for row in y..y + height {
            for column in x..x + width {
                let pixel = self.pixel().await;
                self.set(column, row, pixel);
            }
        }
    }

    async fn hextile(&mut self, [x, y, width, height]: [u16; 4]) {
        let (mut background, mut foreground) = (0, 0);
        for top in (y..y + height).step_by(16) {
            for left in (x..x + width).step_by(16) {
                let at = [
                    left,
                    top,
                    (x + width - left).min(16),
                    (y + height - top).min(16),
                ];
                let [flags] = self.read().await;
                if flags & 1 != 0 {
                    self.raw(at).await;
                    continue;
                }
                if flags & 2 != 0 {
                    background = self.pixel().await;
                }
                if flags & 4 != 0 {
                    foreground = self.pixel().await;
                }
                self.paint(at, background);
                let count = if flags & 8 == 0 {
                    [0]
                } else {
                    self.read().await
                };
                for _ in 0..count[0] {
                    if flags & 16 != 0 {
                        foreground = self.pixel().await;
                    }
                    let [xy, wh] = self.read().await.map(u16::from);
                    let (x, y) = (left + (xy >> 4), top + (xy & 15));
                    let (width, height) = ((wh >> 4) + 1, (wh & 15) + 1);
                    assert!(x + width <= at[0] + at[2] && y + height <= at[1] + at[3]);
                    self.paint([x, y, width, height], foreground);
                }
            }
        }
    }

    fn paint(&mut self, [x, y, width, height]: [u16; 4], pixel: u32) {
        for row in y..y + height {
            for column in x..x + width {
                self.set(column, row, pixel);
            }
        }
    }

    fn index(&self, x: u16, y: u16) -> usize {
        assert!(x < self.size.0 && y < self.size.1);
        usize::from(y) * usize::from(self.size.0) + usize::from(x)
    }

    fn set(&mut self, x: u16, y: u16, pixel: u32) {
        let index = self.index(x, y);
        self.pixels[index] = pixel;
    }

    fn at(&self, x: u16, y: u16) -> u32 {
        self.pixels[self.index(x, y)]
    }

    /// Takes updates until `done`, or fails.
    async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        bounded(async {
            while !done(self) {
                self.request(true).await;
                self.update().await;
            }
        })
        .await;
    }

    async fn ended(&mut self) {
        bounded(async {
            let mut bytes = [0; 4096];
            loop {
                match self.stream.read(&mut bytes).await {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                }
            }
        })
        .await;
    }
}

fn colours_of(viewer: &Viewer, from: u16, to: u16) -> Vec<u32> {
    let cells = (0..16).flat_map(|y| (from..to).map(move |x| (x, y)));
    let mut found: Vec<_> = cells.map(|(x, y)| viewer.at(x, y)).collect();
    found.dedup();
    found
}

#[tokio::test]
async fn every_version_of_the_handshake_ends_in_a_picture() {
    let drain = Drain::default();
    let address = start(&drain).await;

    for version in [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"] {
        let mut viewer = bounded(Viewer::greet(address, *version)).await;
        viewer.full().await;
        assert_eq!(viewer.size, (800, 600));
        assert_eq!(colours_of(&viewer, 0, 16), [KEY_IDLE]);
    }
}

#[tokio::test]
async fn a_viewer_that_names_no_encoding_gets_a_raw_frame_with_the_signal_squares() {
    let drain = Drain::default();
    let mut viewer = Viewer::connect(start(&drain).await).await;

    let rectangles = viewer.full().await;

    assert!(rectangles.iter().all(|(encoding, _)| *encoding == RAW));
    assert_eq!(colours_of(&viewer, 0, 16), [KEY_IDLE]);
    assert_eq!(colours_of(&viewer, 16, 32), [BUTTON_IDLE]);
}

#[tokio::test]
async fn hextile_shows_the_same_pixels_in_a_fraction_of_the_bytes() {
    let drain = Drain::default();
    let mut viewer = Viewer::connect(start(&drain).await).await;
    viewer.full().await;
    let (raw, raw_length) = (viewer.pixels.clone(), viewer.received);
    viewer.encodings(&[HEXTILE, RAW]).await;
    (viewer.pixels, viewer.received) = (vec![0; raw.len()], 0);

    let rectangles = viewer.full().await;

    assert!(rectangles.iter().all(|(encoding, _)| *encoding == HEXTILE));
    // Title and bars: nothing moves there.
    for y in 0..250 {
        let row = viewer.index(0, y)..viewer.index(500, y);
        assert_eq!(viewer.pixels[row.clone()], raw[row], "row {y}");
    }
    assert!(
        viewer.received * 20 < raw_length,
        "{} bytes",
        viewer.received
    );
}

#[tokio::test]
async fn an_incremental_update_holds_only_what_changed() {
    let drain = Drain::default();
    let mut viewer = Viewer::connect(start(&drain).await).await;
    viewer.encodings(&[HEXTILE]).await;
    viewer.full().await;
    viewer.received = 0;

    viewer.request(true).await;
    let rectangles = viewer.update().await;

    assert!(!rectangles.is_empty());
    assert!(viewer.received < 8192, "{} bytes", viewer.received);
}

#[tokio::test]
async fn a_key_turns_its_square_for_every_viewer_and_for_good() {
    let drain = Drain::default();
    let address = start(&drain).await;
    let mut typing = Viewer::connect(address).await;
    let mut watching = Viewer::connect(address).await;
    watching.full().await;
    assert_eq!(watching.at(0, 0), KEY_IDLE);

    typing.key(true, 0x61).await;
    typing.key(false, 0x61).await;

    watching.until(|viewer| viewer.at(0, 0) == KEY_SEEN).await;
    assert_eq!(colours_of(&watching, 0, 16), [KEY_SEEN]);
}

#[tokio::test]
async fn a_button_turns_its_square_while_it_is_held() {
    let drain = Drain::default();
    let mut viewer = Viewer::connect(start(&drain).await).await;
    viewer.full().await;

    viewer.pointer(4, 300, 200).await;
    viewer.until(|viewer| viewer.at(16, 0) == BUTTON_HELD).await;
    viewer.pointer(0, 300, 200).await;
    viewer.until(|viewer| viewer.at(16, 0) == BUTTON_IDLE).await;
}

#[tokio::test]
async fn a_key_with_its_scan_code_counts_where_that_was_asked_for() {
    let drain = Drain::default();
    let mut viewer = Viewer::connect(start(&drain).await).await;
    viewer.encodings(&[HEXTILE, EXTENDED_KEYS]).await;
    let offered = |rectangles: Vec<Rectangle>| {
        let mut encodings = rectangles.iter().map(|(encoding, _)| *encoding);
        encodings.any(|encoding| encoding == EXTENDED_KEYS)
    };
    assert!(offered(viewer.full().await));
    assert!(!offered(viewer.full().await), "said once");

    viewer
        .write(&[255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 30])
        .await;

    viewer.until(|viewer| viewer.at(0, 0) == KEY_SEEN).await;
}

#[tokio::test]
async fn a_resize_reaches_the_one_who_asked_and_the_others_each_in_their_way() {
    let drain = Drain::default();
    let address = start(&drain).await;
    let mut asking = Viewer::connect(address).await;
    let mut extended = Viewer::connect(address).await;
    let mut plain = Viewer::connect(address).await;
    let mut fixed = Viewer::connect(address).await;
    asking.encodings(&[HEXTILE, EXTENDED_DESKTOP_SIZE]).await;
    extended.encodings(&[HEXTILE, EXTENDED_DESKTOP_SIZE]).await;
    plain.encodings(&[HEXTILE, DESKTOP_SIZE]).await;
    for viewer in [&mut asking, &mut extended, &mut plain, &mut fixed] {
        viewer.full().await;
    }

    asking.ask_size(1000, 444).await;
    asking.until(|viewer| viewer.size == (1000, 444)).await;
    let mut told = Vec::new();
    for viewer in [&mut extended, &mut plain, &mut fixed] {
        viewer.request(true).await;
        told.push(viewer.update().await);
    }

    assert_eq!(told[0], [(EXTENDED_DESKTOP_SIZE, [2, 0, 1000, 444])]);
    assert_eq!(told[1], [(DESKTOP_SIZE, [0, 0, 1000, 444])]);
    assert_eq!(fixed.size, (800, 600));
    assert_eq!(fixed.at(799, 599), 0, "beyond the new screen is black");
    for viewer in [&mut asking, &mut extended, &mut plain] {
        let edge = |viewer: &Viewer| viewer.at(999, 443) != 0 && viewer.at(0, 0) == KEY_IDLE;
        viewer.until(edge).await;
    }
}

#[tokio::test]
async fn the_screen_is_described_to_whoever_asks_afresh_and_bad_sizes_are_refused() {
    let drain = Drain::default();
    let mut viewer = Viewer::connect(start(&drain).await).await;
    viewer.encodings(&[HEXTILE, EXTENDED_DESKTOP_SIZE]).await;
    let first = viewer.full().await;

    viewer.ask_size(800, 63).await;
    viewer.ask_size(4097, 600).await;
    viewer.request(true).await;
    let second = viewer.update().await;

    assert_eq!(first[0], (EXTENDED_DESKTOP_SIZE, [0, 0, 800, 600]));
    assert_eq!(second[0], (EXTENDED_DESKTOP_SIZE, [1, 3, 800, 600]));
}

#[tokio::test]
async fn pixels_come_in_the_format_asked_for() {
    let drain = Drain::default();
    let mut viewer = Viewer::connect(start(&drain).await).await;
    viewer.encodings(&[HEXTILE]).await;

    viewer.format(16, false, [(31, 11), (63, 5), (31, 0)]).await;
    viewer.full().await;
    assert_eq!(viewer.at(0, 0), 0x2317, "4, 24 and 23 of 31, 63 and 31");

    viewer.format(8, false, [(7, 0), (7, 3), (3, 6)]).await;
    viewer.full().await;
    assert_eq!(viewer.at(0, 0), 0x99, "1, 3 and 2 of 7, 7 and 3");

    viewer
        .format(32, true, [(255, 0), (255, 8), (255, 16)])
        .await;
    viewer.full().await;
    assert_eq!(viewer.at(0, 0).swap_bytes(), 0xc0_6020);
}

#[tokio::test]
async fn a_viewer_that_never_reads_does_not_stop_another() {
    let drain = Drain::default();
    let address = start(&drain).await;
    let mut deaf = Viewer::connect(address).await;
    deaf.ask_size(4096, 4096).await;
    deaf.request(false).await;
    deaf.request(false).await;
    let mut viewer = Viewer::connect(address).await;
    viewer.encodings(&[HEXTILE]).await;
    viewer.full().await;

    deaf.key(true, 0xff0d).await;

    viewer.until(|viewer| viewer.at(0, 0) == KEY_SEEN).await;
}

#[tokio::test]
async fn copied_text_is_read_past_and_shown() {
    let drain = Drain::default();
    let mut viewer = Viewer::connect(start(&drain).await).await;
    let length = super::protocol::TEXT_LIMIT;
    let mut bytes = vec![6, 0, 0, 0];
    bytes.extend(length.to_be_bytes());
    bytes.resize(bytes.len() + usize::try_from(length).unwrap(), b'x');

    viewer.write(&bytes).await;
    viewer.key(true, 0x61).await;
    viewer.full().await;

    viewer.until(|viewer| viewer.at(0, 0) == KEY_SEEN).await;
}

#[tokio::test]
async fn malformed_input_ends_only_that_connection() {
    let drain = Drain::default();
    let address = start(&drain).await;
    let mut bystander = Viewer::connect(address).await;
    let inputs: [&[u8]; 6] = [
        &[1],
        &[77, 0, 0],
        &[6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[
            0, 0, 0, 0, 24, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0,
        ],
        &[0, 0, 0, 0, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];

    for input in inputs {
        let mut viewer = Viewer::connect(address).await;
        viewer.write(input).await;
        viewer.ended().await;
    }

    bystander.full().await;
    assert_eq!(bystander.at(0, 0), KEY_IDLE);
}

#[tokio::test]
async fn a_handshake_that_is_none_ends_the_connection() {
    let drain = Drain::default();
    let address = start(&drain).await;

    for greeting in [&b"GET / HTTP/1"[..], b"RFB 003.008\n\x02"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        let mut heard = Vec::new();
        let end = bounded(stream.read_to_end(&mut heard)).await;
        assert!(end.is_ok_and(|length| length <= 14));
    }
}

#[tokio::test]
async fn viewers_beyond_the_limit_are_hung_up_on_until_one_leaves() {
    let drain = Drain::default();
    let address = start(&drain).await;
    let mut viewers = Vec::new();
    for _ in 0..VIEWERS {
        viewers.push(Viewer::connect(address).await);
    }

    let mut surplus = TcpStream::connect(address).await.unwrap();
    let heard = bounded(surplus.read(&mut [0; 12])).await;
    assert!(matches!(heard, Ok(0) | Err(_)));

    viewers.pop();
    bounded(async {
        loop {
            let mut next = TcpStream::connect(address).await.unwrap();
            if matches!(next.read(&mut [0; 12]).await, Ok(12)) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn closing_ends_the_viewers_and_the_server() {
    let drain = Drain::default();
    let address = start(&drain).await;
    let mut viewer = Viewer::connect(address).await;

    bounded(drain.run(Duration::ZERO, BOUND)).await;

    viewer.ended().await;
    assert!(TcpStream::connect(address).await.is_err());
}
