//! Pictures of screens: PNG, whatever the hypervisor drew them in.
//!
//! Pure. QEMU writes PNG since 7.2, before that PPM (<https://netpbm.sourceforge.net/doc/ppm.html>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What every PNG begins with.
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The widest and highest screen there is, in pixels.
const LARGEST: u32 = 16_384;

/// A PNG.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Picture(Vec<u8>);

/// Why bytes are no picture.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadPicture {
    /// Another format.
    #[error("the picture is neither PNG nor PPM")]
    Format,
    /// The bytes do not fit what their head says.
    #[error("the picture is broken")]
    Broken,
}

impl Picture {
    /// Takes what a hypervisor drew. PNG stays as it is, PPM becomes PNG.
    pub fn from_hypervisor(bytes: Vec<u8>) -> Result<Self, BadPicture> {
        if bytes.starts_with(SIGNATURE) {
            return Ok(Self(bytes));
        }
        let (width, height, pixels) = ppm(&bytes)?;
        encode(width, height, pixels).map(Self)
    }

    /// The PNG.
    pub fn into_png(self) -> Vec<u8> {
        self.0
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture of {} bytes", self.0.len())
    }
}

/// Base64, because bytes are no JSON.
impl From<Picture> for String {
    fn from(picture: Picture) -> Self {
        STANDARD.encode(picture.0)
    }
}

impl TryFrom<String> for Picture {
    type Error = BadPicture;

    fn try_from(text: String) -> Result<Self, BadPicture> {
        let bytes = STANDARD.decode(text).map_err(|_| BadPicture::Broken)?;
        let png = bytes.starts_with(SIGNATURE);
        png.then_some(Self(bytes)).ok_or(BadPicture::Format)
    }
}

/// `P6 WIDTH HEIGHT 255`, a white space, then three bytes a pixel.
fn ppm(bytes: &[u8]) -> Result<(u32, u32, &[u8]), BadPicture> {
    let mut rest = bytes.strip_prefix(b"P6").ok_or(BadPicture::Format)?;
    let (width, height) = (number(&mut rest)?, number(&mut rest)?);
    let most = number(&mut rest)?;
    let fits = |side: u32| (1..=LARGEST).contains(&side);
    match rest.split_first() {
        Some((_space, pixels)) if most == 255 && fits(width) && fits(height) => {
            Ok((width, height, pixels))
        }
        _ => Err(BadPicture::Broken),
    }
}

/// Takes the digits behind some white space.
fn number(rest: &mut &[u8]) -> Result<u32, BadPicture> {
    let text = rest.trim_ascii_start();
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    let digits = end.and_then(|end| text.split_at_checked(end));
    let (digits, behind) = digits.ok_or(BadPicture::Broken)?;
    *rest = behind;
    let digits = std::str::from_utf8(digits).map_err(|_| BadPicture::Broken)?;
    digits.parse().map_err(|_| BadPicture::Broken)
}

fn encode(width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>, BadPicture> {
    let expected = u64::from(width) * u64::from(height) * 3;
    if u64::try_from(pixels.len()).ok() != Some(expected) {
        return Err(BadPicture::Broken);
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(pixels)?;
        writer.finish()
    });
    written.map(|()| bytes).map_err(|_| BadPicture::Broken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ppm_becomes_a_png_of_the_same_pixels() {
        let picture = Picture::from_hypervisor(b"P6\n2 1\n255\n\x01\x02\x03\n\n\n".to_vec());

        let png = std::io::Cursor::new(picture.unwrap().into_png());
        let mut reader = png::Decoder::new(png).read_info().unwrap();
        let mut pixels = vec![0; 6];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (2, 1));
        assert_eq!(pixels, b"\x01\x02\x03\n\n\n");
    }

    #[test]
    fn a_png_stays_as_it_is_and_goes_through_json() {
        let bytes = [SIGNATURE, b"rest"].concat();
        let picture = Picture::from_hypervisor(bytes.clone()).unwrap();
        let json = serde_json::to_string(&picture).unwrap();
        let read: Picture = serde_json::from_str(&json).unwrap();
        assert_eq!(read.into_png(), bytes);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let refuse = |bytes: &[u8]| Picture::from_hypervisor(bytes.to_vec()).unwrap_err();
        assert_eq!(refuse(b"GIF89a"), BadPicture::Format);
        for bytes in [
            &b"P6"[..],
            b"P6 99999999 99999999 255 ",
            b"P6 2 2 255 xxx",
            b"P6 0 0 255 ",
            b"P6 1 1 65535 xxxxxx",
        ] {
            assert_eq!(refuse(bytes), BadPicture::Broken);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_badly(head in "P6[ 0-9\n]{0,20}", tail: Vec<u8>) {
            let _any = Picture::from_hypervisor([head.as_bytes(), &tail].concat());
        }
    }
}
