use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

/// The secret in a console URL.
///
/// Ours are random `UUIDv4` as text; a presented one may be any text up to 255 bytes, since only
/// its hash is ever looked up. `Debug` hides it and there is no `Display`: whoever needs the text
/// says so with [`Token::reveal`]. Serializing reveals it too and is meant for the wire between
/// roles alone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(Zeroizing<String>);

/// The text cannot be a token: empty, or over 255 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a token is 1 to 255 bytes long")]
pub struct BadToken;

impl Token {
    /// A fresh random token, 122 bits of the kernel's randomness.
    pub fn generate() -> Self {
        Self(Zeroizing::new(Uuid::new_v4().to_string()))
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored and looked up in its stead.
    pub fn hash(&self) -> TokenHash {
        TokenHash(hex_sha256(self.0.as_bytes()))
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Token {
    type Error = BadToken;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let text = Zeroizing::new(text);
        if text.is_empty() || text.len() > 255 {
            Err(BadToken)
        } else {
            Ok(Self(text))
        }
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.reveal().to_owned()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Lower-case hex SHA-256 of a token's UTF-8 text, 64 characters (Nova's `token_hash`).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(String);

impl TokenHash {
    /// Its 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name people call this token by.
    pub fn id(&self) -> TokenId {
        TokenId(Short::of(&self.0))
    }
}

/// A token's public name: the first 16 hex digits of its hash. Opens nothing.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(Short);

impl TokenId {
    /// Its 16 hex digits.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// The first 16 hex digits of a hash, in place: thousands are held.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Short([u8; Self::LENGTH]);

impl Short {
    const LENGTH: usize = 16;

    /// Of a hash in hex digits.
    pub(super) fn of(hash: &str) -> Self {
        Self(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl TryFrom<String> for Short {
    type Error = BadHash;

    fn try_from(text: String) -> Result<Self, BadHash> {
        hex_of_length(&text, Self::LENGTH).map(|text| Self::of(&text))
    }
}

impl From<Short> for String {
    fn from(short: Short) -> Self {
        short.as_str().to_owned()
    }
}

impl fmt::Debug for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no hash (or token id) of the length wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected {0} lower-case hex digits")]
pub struct BadHash(usize);

impl FromStr for TokenHash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex_of_length(text, 64).map(Self)
    }
}

impl FromStr for TokenId {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Short::try_from(text.to_owned()).map(Self)
    }
}

/// A key for the API: `vgk_` and 64 hex digits, so that secret scanners know it.
#[derive(Clone)]
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    const PREFIX: &str = "vgk_";

    /// A fresh random key.
    pub fn generate() -> Self {
        let (high, low) = (Uuid::new_v4().simple(), Uuid::new_v4().simple());
        Self(Zeroizing::new(format!("{}{high}{low}", Self::PREFIX)))
    }

    /// Whether it has the form of those made here; a presented one may be anything.
    pub fn is_ours(&self) -> bool {
        self.0.starts_with(Self::PREFIX)
    }

    /// The key a caller presented.
    pub fn presented(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the config file holds.
    pub fn hash(&self) -> KeyHash {
        KeyHash(hex_sha256(self.0.as_bytes()))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

/// Lower-case hex SHA-256 of an API key. Compared in constant time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyHash(String);

impl KeyHash {
    /// Whether `other` is the same hash, in time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl TryFrom<String> for KeyHash {
    type Error = BadHash;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        hex_of_length(&text, 64).map(Self)
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> Self {
        hash.0
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn hex_of_length(text: &str, length: usize) -> Result<String, BadHash> {
    let hex = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (hex && text.len() == length)
        .then(|| text.to_owned())
        .ok_or(BadHash(length))
}

pub(super) fn hex_sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_hashed_as_nova_hashes_it() {
        let token: Token = "abc".parse().unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(serde_json::to_value(token.hash()).unwrap(), known);
        assert_eq!(token.hash().id().to_string(), "ba7816bf8f01cfea");
    }

    #[test]
    fn debug_shows_no_secret() {
        let (token, key) = (Token::generate(), ApiKey::generate());
        assert!(!format!("{token:?}").contains(token.reveal()));
        assert!(!format!("{key:?}").contains(key.reveal()));
    }

    #[test]
    fn empty_and_huge_texts_are_no_tokens() {
        assert_eq!("".parse::<Token>().unwrap_err(), BadToken);
        assert_eq!("x".repeat(256).parse::<Token>().unwrap_err(), BadToken);
        assert!("x".repeat(255).parse::<Token>().is_ok());
    }

    #[test]
    fn a_key_matches_its_own_hash_only() {
        let key = ApiKey::generate();
        assert!(key.hash().matches(&ApiKey::presented(key.reveal()).hash()));
        assert!(!key.hash().matches(&ApiKey::generate().hash()));
        assert!(KeyHash::try_from("short".to_owned()).is_err());
    }
}
