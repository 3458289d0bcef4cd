//! Bytes whose text is lower-case hex digits: hashes, and names made of their beginnings.
//!
//! Thousands are held and compared and few are ever shown, so the digits are made where a text
//! leaves (lists, logs, files, the wire) and read where one comes in.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// `N` bytes; their text has twice as many digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Hex<const N: usize>(pub(super) [u8; N]);

/// The text is no hash (or token id) of the length wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected {0} lower-case hex digits")]
pub struct BadHash(usize);

/// The SHA-256 of what `parts` are one after the other.
pub(super) fn sha256(parts: &[&[u8]]) -> Hex<32> {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    Hex(digest.finalize().into())
}

impl Hex<32> {
    /// Its first 16 digits.
    pub(super) fn beginning(&self) -> Hex<8> {
        Hex(self.0.first_chunk().copied().unwrap_or_default())
    }
}

impl<const N: usize> Hex<N> {
    fn digits(&self) -> [[u8; 2]; N] {
        self.0.map(|byte| [digit(byte >> 4), digit(byte & 15)])
    }
}

/// Without a branch, so that many are made at once.
fn digit(value: u8) -> u8 {
    let letter = u8::from(value > 9) * (b'a' - b'9' - 1);
    b'0' + value + letter
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn text(digits: &[[u8; 2]]) -> &str {
    std::str::from_utf8(digits.as_flattened()).unwrap_or_default()
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(text(&self.digits()))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text(&self.digits()).fmt(f)
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, BadHash> {
        let bad = BadHash(2 * N);
        let (pairs, rest) = text.as_bytes().as_chunks();
        let pairs: &[[u8; 2]; N] = pairs.try_into().map_err(|_| bad)?;
        if !rest.is_empty() {
            return Err(bad);
        }
        let mut bytes = [0; N];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = value(*high).ok_or(bad)? << 4 | value(*low).ok_or(bad)?;
        }
        Ok(Self(bytes))
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text(&self.digits()))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_every_byte_in_two_digits_and_is_read_back() {
        let all: [u8; 256] = std::array::from_fn(|byte| u8::try_from(byte).unwrap());
        let text = Hex(all).to_string();
        let shown = text.as_bytes().chunks(2).map(|two| str::from_utf8(two));
        let expected = all.map(|byte| format!("{byte:02x}"));
        assert!(
            shown.eq(expected.iter().map(|two| Ok(two.as_str()))),
            "{text}"
        );
        assert_eq!(text.parse(), Ok(Hex(all)));
        assert_eq!(format!("{:?}", Hex([1, 255])), "\"01ff\"");
    }

    #[test]
    fn json_has_the_text_also_where_it_is_a_key() {
        let known = std::collections::BTreeMap::from([(Hex([1, 255]), 7)]);
        let json = serde_json::to_string(&known).unwrap();
        assert_eq!(json, "{\"01ff\":7}");
        assert_eq!(serde_json::from_str(&json).ok(), Some(known));
    }

    #[test]
    fn what_is_no_such_text_is_refused_with_the_length_it_should_have() {
        for text in [
            "", "0", "01f", "01ff0", "01ff02", "01fF", "0g1f", "+1ff", "é1f",
        ] {
            let bad = text.parse::<Hex<2>>().unwrap_err();
            assert_eq!(
                bad.to_string(),
                "expected 4 lower-case hex digits",
                "{text}"
            );
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<Hex<2>>(&json).is_err(), "{text}");
        }
        assert_eq!(
            serde_json::from_str::<Hex<2>>("\"01ff\"").ok(),
            Some(Hex([1, 255]))
        );
    }
}
