//! XDR (RFC 4506), as far as libvirt uses it: big-endian words, everything padded to four bytes.
//!
//! Pure. Reading is bounded by the bytes at hand: a string or an array that claims more than is
//! there is refused before anything is allocated for it.

use bytes::Bytes;

/// Every value fills whole words of this many bytes.
const WORD: usize = 4;

/// Why bytes are not the values they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadXdr {
    /// A value goes on behind the last byte.
    #[error("the message ends in the middle of a value")]
    Truncated,
    /// A string is no text.
    #[error("a string is not UTF-8")]
    Utf8,
    /// Something that must be 0 or 1 is neither.
    #[error("an optional value is neither there nor not")]
    Optional,
    /// A list is longer than the caller allows.
    #[error("a list has more items than expected")]
    Long,
}

/// Values, one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// No values yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A signed word; also an enumeration.
    #[must_use]
    pub fn int(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// An unsigned word; also flags.
    #[must_use]
    pub fn uint(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A string: its length, its bytes, padding.
    #[must_use]
    pub fn string(self, value: &str) -> Self {
        self.opaque(value.as_bytes())
    }

    /// Bytes of any number: their number, themselves, padding.
    #[must_use]
    pub fn opaque(self, value: &[u8]) -> Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.uint(length).fixed(value)
    }

    /// Bytes whose number both sides know, padding.
    #[must_use]
    pub fn fixed(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(WORD), 0);
        self
    }

    /// A string that may not be there.
    #[must_use]
    pub fn optional_string(self, value: Option<&str>) -> Self {
        match value {
            None => self.uint(0),
            Some(value) => self.uint(1).string(value),
        }
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads values from the front of a message.
#[derive(Clone, Debug)]
pub struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    /// A reader of `bytes`. What lies behind the values asked for is left alone: newer daemons may
    /// say more.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// A signed word; also an enumeration.
    pub fn int(&mut self) -> Result<i32, BadXdr> {
        self.array().map(i32::from_be_bytes)
    }

    /// An unsigned word; also flags.
    pub fn uint(&mut self) -> Result<u32, BadXdr> {
        self.array().map(u32::from_be_bytes)
    }

    /// A string, copied.
    pub fn string(&mut self) -> Result<String, BadXdr> {
        let text = std::str::from_utf8(self.opaque()?).map_err(|_| BadXdr::Utf8)?;
        Ok(text.to_owned())
    }

    /// Bytes of any number.
    pub fn opaque(&mut self) -> Result<&'a [u8], BadXdr> {
        let length = usize::try_from(self.uint()?).map_err(|_| BadXdr::Truncated)?;
        let value = self.take(length)?;
        let padding = length.next_multiple_of(WORD).saturating_sub(length);
        let _zeros = self.take(padding)?;
        Ok(value)
    }

    /// Bytes whose number both sides know, a multiple of four.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], BadXdr> {
        let (value, rest) = self.0.split_first_chunk().ok_or(BadXdr::Truncated)?;
        self.0 = rest;
        Ok(*value)
    }

    /// A value that may not be there.
    pub fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, BadXdr>,
    ) -> Result<Option<T>, BadXdr> {
        match self.uint()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(BadXdr::Optional),
        }
    }

    /// A list of at most `most` items. It grows item by item, each of which took bytes.
    pub fn list<T>(
        &mut self,
        most: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, BadXdr>,
    ) -> Result<Vec<T>, BadXdr> {
        let count = usize::try_from(self.uint()?).map_err(|_| BadXdr::Long)?;
        if count > most {
            return Err(BadXdr::Long);
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BadXdr> {
        let (value, rest) = self.0.split_at_checked(length).ok_or(BadXdr::Truncated)?;
        self.0 = rest;
        Ok(value)
    }
}

impl<'a> From<&'a Bytes> for Decoder<'a> {
    fn from(bytes: &'a Bytes) -> Self {
        Self::new(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_is_padded_to_words() {
        let bytes = Encoder::new().string("abcde").int(-1).into_bytes();

        assert_eq!(bytes, b"\0\0\0\x05abcde\0\0\0\xff\xff\xff\xff");
    }

    #[test]
    fn a_string_of_4_gib_costs_nothing_and_is_refused() {
        let mut decoder = Decoder::new(b"\xff\xff\xff\xffabcd");

        assert_eq!(decoder.string(), Err(BadXdr::Truncated));
    }

    #[test]
    fn a_list_longer_than_allowed_or_than_its_bytes_is_refused() {
        let four_billion = b"\xff\xff\xff\xff\0\0\0\x01";

        let short = Decoder::new(four_billion).list(16, Decoder::int);
        let long = Decoder::new(four_billion).list(usize::MAX, Decoder::int);

        assert_eq!(short, Err(BadXdr::Long));
        assert_eq!(long, Err(BadXdr::Truncated));
    }

    #[test]
    fn what_must_be_text_and_what_must_be_0_or_1_is_checked() {
        assert_eq!(
            Decoder::new(b"\0\0\0\x01\xff\0\0\0").string(),
            Err(BadXdr::Utf8)
        );
        let third = Decoder::new(b"\0\0\0\x02").optional(Decoder::int);
        assert_eq!(third, Err(BadXdr::Optional));
    }

    proptest! {
        #[test]
        fn values_read_back_as_they_were_written(
            int: i32, uint: u32, text: String, maybe: Option<String>, bytes: Vec<u8>,
        ) {
            let encoder = Encoder::new().int(int).uint(uint).string(&text);
            let written = encoder.optional_string(maybe.as_deref()).opaque(&bytes).into_bytes();
            prop_assert_eq!(written.len() % WORD, 0);

            let mut decoder = Decoder::new(&written);

            prop_assert_eq!(decoder.int(), Ok(int));
            prop_assert_eq!(decoder.uint(), Ok(uint));
            prop_assert_eq!(decoder.string(), Ok(text));
            prop_assert_eq!(decoder.optional(Decoder::string), Ok(maybe));
            prop_assert_eq!(decoder.opaque(), Ok(&bytes[..]));
        }

        #[test]
        fn no_bytes_make_a_reader_fail_badly(bytes: Vec<u8>) {
            let mut decoder = Decoder::new(&bytes);
            let items = decoder.list(1 << 20, |it| it.optional(Decoder::string));
            if let Ok(items) = items {
                prop_assert!(items.len() * WORD <= bytes.len());
            }
        }
    }
}
