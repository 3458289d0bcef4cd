use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::hex::{BadHash, Hex, sha256};

/// The secret in a console URL.
///
/// Ours are random `UUIDv4` as text; a presented one may be any text up to 255 bytes, since only
/// its hash is ever looked up. `Debug` hides it and there is no `Display`: whoever needs the text
/// says so with [`Token::reveal`]. Serializing reveals it too and is meant for the wire between
/// roles alone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token {
    text: Zeroizing<String>,
    /// Of that text: whoever meets a token wants it, most of them twice.
    hash: TokenHash,
}

/// The text cannot be a token: empty, or over 255 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a token is 1 to 255 bytes long")]
pub struct BadToken;

impl Token {
    /// A fresh random token, 122 bits of the kernel's randomness.
    pub fn generate() -> Self {
        Self::of(Zeroizing::new(Uuid::new_v4().to_string()))
    }

    fn of(text: Zeroizing<String>) -> Self {
        let hash = TokenHash(sha256(&[text.as_bytes()]));
        Self { text, hash }
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is stored and looked up in its stead.
    pub fn hash(&self) -> TokenHash {
        self.hash
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
            Ok(Self::of(text))
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

/// The SHA-256 of a token's UTF-8 text; as text 64 lower-case hex digits (Nova's `token_hash`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(Hex<32>);

impl TokenHash {
    /// The name people call this token by.
    pub fn id(&self) -> TokenId {
        TokenId(self.0.beginning())
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TokenHash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A token's public name: the first 16 hex digits of its hash. Opens nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(Hex<8>);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TokenId {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
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
        KeyHash(sha256(&[self.0.as_bytes()]))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

/// The SHA-256 of an API key, as text 64 lower-case hex digits. Compared in constant time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(Hex<32>);

impl KeyHash {
    /// Whether `other` is the same hash, in time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.0.ct_eq(&other.0.0).into()
    }
}

impl FromStr for KeyHash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_hashed_as_nova_hashes_it() {
        let token: Token = "abc".parse().unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(serde_json::to_value(token.hash()).unwrap(), known);
        assert_eq!(token.hash().to_string(), known);
        assert_eq!(known.parse(), Ok(token.hash()));
        assert_eq!(token.hash().id().to_string(), "ba7816bf8f01cfea");
        assert_eq!("ba7816bf8f01cfea".parse(), Ok(token.hash().id()));
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
        assert!("short".parse::<KeyHash>().is_err());
    }
}
