//! The words of RFB: what viewers say, decoded, and what the server says, encoded; no I/O.
//!
//! Called by the viewer. A message that announces more (encodings, screens, text) is decoded up
//! to the announcement; the caller reads what follows piece by piece. RFC 6143; the
//! pseudo-encodings beyond it as the community's rfbproto describes them.

use thiserror::Error;

use super::area::{Area, Size};

/// The version offered: 3.8.
pub(super) const VERSION: [u8; 12] = *b"RFB 003.008\n";
/// The one security type offered.
pub(super) const SECURITY_NONE: u8 = 1;
/// The longest text a viewer may copy in: what a person copies is far shorter.
pub(super) const TEXT_LIMIT: u32 = 256 * 1024;

/// What a viewer sent that it may not send.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum Malformed {
    #[error("not an RFB version")]
    Version,
    #[error("security type {0} was not offered")]
    Security(u8),
    #[error("message of unknown type {0}")]
    Message(u8),
    #[error("pixel format that is not true colour of 8, 16 or 32 bits")]
    PixelFormat,
    #[error("text of {0} bytes is too long")]
    Text(u32),
}

/// The handshake a viewer speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Version {
    /// 3.3: the server decides on the security.
    V3,
    /// 3.7: the viewer chooses; no result for `None`.
    V7,
    /// 3.8: the viewer chooses and hears the result.
    V8,
}

impl Version {
    /// Unknown numbers mean 3.3 (RFC 6143 section 7.1.1).
    pub(super) fn parse(bytes: [u8; 12]) -> Result<Self, Malformed> {
        let [b'R', b'F', b'B', b' ', major @ .., b'.', x, y, z, b'\n'] = bytes else {
            return Err(Malformed::Version);
        };
        let minor = [x, y, z];
        if !major.iter().chain(&minor).all(u8::is_ascii_digit) {
            return Err(Malformed::Version);
        }
        Ok(match (&major, &minor) {
            (b"003", b"007") => Self::V7,
            (b"003", b"008") => Self::V8,
            _ => Self::V3,
        })
    }
}

/// A message of a viewer, without what follows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Message {
    SetPixelFormat(PixelFormat),
    /// This many encodings follow, four bytes each.
    SetEncodings(u16),
    UpdateRequest {
        incremental: bool,
        area: Area,
    },
    Key {
        down: bool,
        keysym: u32,
    },
    Pointer {
        buttons: u8,
        x: u16,
        y: u16,
    },
    /// This many bytes of text follow.
    CutText(u32),
    /// This many screens follow, sixteen bytes each.
    SetDesktopSize {
        size: Size,
        screens: u8,
    },
}

impl Message {
    /// The longest body, that of `SetPixelFormat`.
    pub(super) const LONGEST: usize = 19;

    /// How many bytes after the type to read before [`Message::parse`].
    pub(super) fn length(kind: u8) -> Result<usize, Malformed> {
        Ok(match kind {
            0 => Self::LONGEST,
            2 => 3,
            3 => 9,
            4 | 6 | 251 => 7,
            5 => 5,
            255 => 11,
            _ => return Err(Malformed::Message(kind)),
        })
    }

    /// Decodes the body of a message of type `kind`, [`Message::length`] bytes.
    pub(super) fn parse(kind: u8, body: &[u8]) -> Result<Self, Malformed> {
        let message = match (kind, body) {
            (0, [_, _, _, format @ ..]) => Self::SetPixelFormat(PixelFormat::parse(format)?),
            (2, &[_, a, b]) => Self::SetEncodings(u16::from_be_bytes([a, b])),
            (3, [incremental, place @ ..]) => {
                let [left, top, width, height] = words(place);
                Self::UpdateRequest {
                    incremental: *incremental != 0,
                    area: Area::new(left, top, width, height),
                }
            }
            (4, &[down, _, _, a, b, c, d]) | (255, &[0, _, down, a, b, c, d, _, _, _, _]) => {
                Self::Key {
                    down: down != 0,
                    keysym: u32::from_be_bytes([a, b, c, d]),
                }
            }
            (5, &[buttons, a, b, c, d]) => Self::Pointer {
                buttons,
                x: u16::from_be_bytes([a, b]),
                y: u16::from_be_bytes([c, d]),
            },
            (6, &[_, _, _, a, b, c, d]) => Self::cut_text(u32::from_be_bytes([a, b, c, d]))?,
            (251, &[_, a, b, c, d, screens, _]) => Self::SetDesktopSize {
                size: Size {
                    width: u16::from_be_bytes([a, b]),
                    height: u16::from_be_bytes([c, d]),
                },
                screens,
            },
            _ => return Err(Malformed::Message(kind)),
        };
        Ok(message)
    }

    fn cut_text(length: u32) -> Result<Self, Malformed> {
        if length > TEXT_LIMIT {
            return Err(Malformed::Text(length));
        }
        Ok(Self::CutText(length))
    }
}

/// How a viewer wants its pixels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PixelFormat {
    bits: u8,
    depth: u8,
    big_endian: bool,
    red: Channel,
    green: Channel,
    blue: Channel,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Channel {
    max: u16,
    shift: u8,
}

impl PixelFormat {
    /// What the server offers: `0x00rrggbb`, little endian.
    pub(super) const OURS: Self = Self {
        bits: 32,
        depth: 24,
        big_endian: false,
        red: Channel::new(255, 16),
        green: Channel::new(255, 8),
        blue: Channel::new(255, 0),
    };

    /// Decodes the sixteen bytes of RFC 6143 section 7.4.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let &[
            bits,
            depth,
            big_endian,
            true_colour,
            ref colours @ ..,
            _,
            _,
            _,
        ] = bytes
        else {
            return Err(Malformed::PixelFormat);
        };
        let &[ref maxima @ .., red, green, blue] = colours else {
            return Err(Malformed::PixelFormat);
        };
        let [red_max, green_max, blue_max] = words(maxima);
        let format = Self {
            bits,
            depth,
            big_endian: big_endian != 0,
            red: Channel::new(red_max, red),
            green: Channel::new(green_max, green),
            blue: Channel::new(blue_max, blue),
        };
        if true_colour == 0 || !format.is_sound() {
            return Err(Malformed::PixelFormat);
        }
        Ok(format)
    }

    fn is_sound(self) -> bool {
        matches!(self.bits, 8 | 16 | 32)
            && [self.red, self.green, self.blue]
                .iter()
                .all(|channel| channel.fits(self.bits))
    }

    /// The sixteen bytes of RFC 6143 section 7.4.
    pub(super) fn bytes(self) -> [u8; 16] {
        let big_endian = u8::from(self.big_endian);
        let [bits, depth] = [self.bits, self.depth];
        let [red, green, blue] = [self.red, self.green, self.blue];
        let maxima = [red, green, blue].map(|channel| channel.max.to_be_bytes());
        let [[r1, r0], [g1, g0], [b1, b0]] = maxima;
        let [red, green, blue] = [red.shift, green.shift, blue.shift];
        [
            bits, depth, big_endian, 1, r1, r0, g1, g0, b1, b0, red, green, blue, 0, 0, 0,
        ]
    }

    /// Bytes of a pixel.
    pub(super) fn pixel_length(self) -> usize {
        usize::from(self.bits / 8)
    }

    /// Writes the pixel that shows `colour`, given as `0x00rrggbb`.
    pub(super) fn put(self, colour: u32, out: &mut Vec<u8>) {
        let [_, red, green, blue] = colour.to_be_bytes();
        let pixel = self.red.place(red) | self.green.place(green) | self.blue.place(blue);
        let (big, little) = (pixel.to_be_bytes(), pixel.to_le_bytes());
        let ([.., b2, b3], [l0, l1, ..]) = (big, little);
        match (self.bits, self.big_endian) {
            (8, _) => out.push(l0),
            (16, true) => out.extend([b2, b3]),
            (16, false) => out.extend([l0, l1]),
            (_, true) => out.extend(big),
            (_, false) => out.extend(little),
        }
    }
}

impl Channel {
    const fn new(max: u16, shift: u8) -> Self {
        Self { max, shift }
    }

    fn fits(self, bits: u8) -> bool {
        self.shift < 32 && (u64::from(self.max) << self.shift) >> bits == 0
    }

    fn place(self, value: u8) -> u32 {
        ((u32::from(value) * u32::from(self.max) + 127) / 255) << self.shift
    }
}

/// The big-endian numbers at the start of `bytes`; zeros where it is too short.
fn words<const N: usize>(bytes: &[u8]) -> [u16; N] {
    let mut words = [0; N];
    for (word, pair) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u16::from_be_bytes(*pair);
    }
    words
}

/// How the pixels of a rectangle are written, or what else it tells.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Encoding {
    #[default]
    Raw,
    Hextile,
    DesktopSize,
    ExtendedKeys,
    ExtendedDesktopSize,
}

impl Encoding {
    const fn number(self) -> i32 {
        match self {
            Self::Raw => 0,
            Self::Hextile => 5,
            Self::DesktopSize => -223,
            Self::ExtendedKeys => -258,
            Self::ExtendedDesktopSize => -308,
        }
    }
}

/// What a viewer understands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Abilities {
    /// The first pixel encoding it named that we speak; `None` means Raw.
    pub(super) pixels: Option<Encoding>,
    pub(super) desktop_size: bool,
    pub(super) extended_desktop_size: bool,
    pub(super) extended_keys: bool,
}

impl Abilities {
    /// Takes note of one encoding of `SetEncodings`, which come in order of preference.
    pub(super) fn add(&mut self, number: i32) {
        match number {
            0 => self.prefer(Encoding::Raw),
            5 => self.prefer(Encoding::Hextile),
            -223 => self.desktop_size = true,
            -258 => self.extended_keys = true,
            -308 => self.extended_desktop_size = true,
            _ => {}
        }
    }

    fn prefer(&mut self, encoding: Encoding) {
        self.pixels = self.pixels.or(Some(encoding));
    }
}

/// Why a screen's size is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Resized {
    /// It is just so, or the viewer asked how it is.
    Told,
    /// This viewer asked for the change.
    Granted,
    /// This viewer asked for a change that will not be.
    Refused,
    /// Another viewer asked for the change.
    ByAnother,
}

impl Resized {
    /// Reason and status of the rectangle; status 3 is "invalid screen layout".
    const fn codes(self) -> (u16, u16) {
        match self {
            Self::Told => (0, 0),
            Self::Granted => (1, 0),
            Self::Refused => (1, 3),
            Self::ByAnother => (2, 0),
        }
    }
}

/// `ServerInit`: the screen and its name.
pub(super) fn server_init(size: Size, name: &str) -> Vec<u8> {
    let length = u32::try_from(name.len()).unwrap_or(0);
    let mut out = Vec::new();
    out.extend(size.width.to_be_bytes());
    out.extend(size.height.to_be_bytes());
    out.extend(PixelFormat::OURS.bytes());
    out.extend(length.to_be_bytes());
    out.extend(name.bytes().take(usize::try_from(length).unwrap_or(0)));
    out
}

/// The head of an update of `rectangles`.
pub(super) fn put_update(rectangles: u16, out: &mut Vec<u8>) {
    out.extend([0, 0]);
    out.extend(rectangles.to_be_bytes());
}

/// The head of a rectangle.
pub(super) fn put_rectangle(area: Area, encoding: Encoding, out: &mut Vec<u8>) {
    for number in [area.left, area.top, area.width(), area.height()] {
        out.extend(number.to_be_bytes());
    }
    out.extend(encoding.number().to_be_bytes());
}

/// The rectangle that tells the screen's size, with its one screen.
pub(super) fn put_extended_size(size: Size, why: Resized, out: &mut Vec<u8>) {
    let (reason, status) = why.codes();
    let area = Area::new(reason, status, size.width, size.height);
    put_rectangle(area, Encoding::ExtendedDesktopSize, out);
    out.extend([1, 0, 0, 0]);
    out.extend([0; 8]);
    out.extend(size.width.to_be_bytes());
    out.extend(size.height.to_be_bytes());
    out.extend([0; 4]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const RGB565: [u8; 16] = [16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0];

    #[test]
    fn versions_that_nobody_defined_are_spoken_to_as_3_3() {
        let versions = [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"];
        let odd = [b"RFB 003.005\n", b"RFB 003.889\n", b"RFB 004.001\n"];

        assert_eq!(
            versions.map(|bytes| Version::parse(*bytes)),
            [Ok(Version::V3), Ok(Version::V7), Ok(Version::V8)]
        );
        assert_eq!(
            odd.map(|bytes| Version::parse(*bytes)),
            [Ok(Version::V3); 3]
        );
        assert_eq!(Version::parse(*b"GET / HTTP/1"), Err(Malformed::Version));
        assert_eq!(Version::parse(*b"RFB 003.00x\n"), Err(Malformed::Version));
    }

    #[test]
    fn messages_are_decoded_byte_for_byte() {
        let request = Message::parse(3, &[1, 0, 1, 0, 2, 3, 0, 2, 0]).unwrap();
        let key = Message::parse(4, &[1, 0, 0, 0, 0, 0xff, 0x0d]).unwrap();
        let pointer = Message::parse(5, &[4, 1, 0, 0, 9]).unwrap();
        let size = Message::parse(251, &[0, 4, 0, 3, 0, 1, 0]).unwrap();

        assert_eq!(
            request,
            Message::UpdateRequest {
                incremental: true,
                area: Area::new(1, 2, 768, 512)
            }
        );
        assert_eq!(
            key,
            Message::Key {
                down: true,
                keysym: 0xff0d
            }
        );
        assert_eq!(
            pointer,
            Message::Pointer {
                buttons: 4,
                x: 256,
                y: 9
            }
        );
        assert_eq!(
            size,
            Message::SetDesktopSize {
                size: Size {
                    width: 1024,
                    height: 768
                },
                screens: 1
            }
        );
    }

    #[test]
    fn a_key_with_its_scan_code_is_the_same_key() {
        let body = [0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 0x1e];

        assert_eq!(
            Message::parse(255, &body),
            Ok(Message::Key {
                down: true,
                keysym: 0x61
            })
        );
        assert_eq!(
            Message::parse(255, &[1; 11]),
            Err(Malformed::Message(255)),
            "other extensions of QEMU were not offered"
        );
    }

    #[test]
    fn every_message_type_announces_the_length_its_parser_wants() {
        for kind in 0..=u8::MAX {
            let Ok(length) = Message::length(kind) else {
                continue;
            };
            assert!(length <= Message::LONGEST);
            let parsed = Message::parse(kind, &[0; Message::LONGEST][..length]);
            assert_ne!(parsed, Err(Malformed::Message(kind)), "type {kind}");
        }
    }

    #[test]
    fn text_beyond_the_limit_is_refused_by_its_announcement() {
        assert_eq!(
            Message::parse(6, &[0, 0, 0, 0, 4, 0, 0]),
            Ok(Message::CutText(TEXT_LIMIT))
        );
        assert_eq!(
            Message::parse(6, &[0, 0, 0, 0, 4, 0, 1]),
            Err(Malformed::Text(TEXT_LIMIT + 1))
        );
    }

    #[test]
    fn our_pixel_format_is_the_one_of_the_standard() {
        let bytes = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

        assert_eq!(PixelFormat::OURS.bytes(), bytes);
        assert_eq!(PixelFormat::parse(&bytes), Ok(PixelFormat::OURS));
    }

    #[test]
    fn pixels_are_written_in_the_width_and_order_asked_for() {
        let mut big565 = RGB565;
        big565[2] = 1;
        let rgb332 = [8, 8, 0, 1, 0, 7, 0, 7, 0, 3, 5, 2, 0, 0, 0, 0];
        let mut out = Vec::new();

        for bytes in [RGB565, big565, rgb332, PixelFormat::OURS.bytes()] {
            PixelFormat::parse(&bytes)
                .unwrap()
                .put(0x00ff_8000, &mut out);
        }

        assert_eq!(
            out,
            [0x00, 0xfc, 0xfc, 0x00, 0xf0, 0x00, 0x80, 0xff, 0x00],
            "16 little, 16 big, 8, 32 little"
        );
    }

    #[test]
    fn formats_that_cannot_hold_their_colours_are_refused() {
        let change = |index: usize, value: u8| {
            let mut bytes = RGB565;
            bytes[index] = value;
            PixelFormat::parse(&bytes)
        };

        assert!(change(15, 9).is_ok(), "padding may be anything");
        for refused in [change(0, 24), change(3, 0), change(10, 12), change(11, 200)] {
            assert_eq!(refused, Err(Malformed::PixelFormat));
        }
    }

    #[test]
    fn server_init_is_size_format_and_name() {
        let size = Size {
            width: 800,
            height: 600,
        };

        let bytes = server_init(size, "demo");

        assert_eq!(bytes[..4], [3, 32, 2, 88]);
        assert_eq!(bytes[4..20], PixelFormat::OURS.bytes());
        assert_eq!(bytes[20..], *b"\0\0\0\x04demo");
    }

    #[test]
    fn the_extended_size_names_reason_status_and_one_screen() {
        let size = Size {
            width: 0x0102,
            height: 0x0304,
        };
        let mut out = Vec::new();

        put_extended_size(size, Resized::Refused, &mut out);

        assert_eq!(out[..12], [0, 1, 0, 3, 1, 2, 3, 4, 0xff, 0xff, 0xfe, 0xcc]);
        assert_eq!(
            out[12..],
            [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0]
        );
    }

    #[test]
    fn the_first_pixel_encoding_we_speak_is_used() {
        let mut abilities = Abilities::default();

        for number in [7, 16, 5, 0, -223, -308, 12345] {
            abilities.add(number);
        }

        assert_eq!(
            abilities,
            Abilities {
                pixels: Some(Encoding::Hextile),
                desktop_size: true,
                extended_desktop_size: true,
                extended_keys: false
            }
        );
    }
}
