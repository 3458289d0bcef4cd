use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// An instance's UUID, the one its hypervisor knows it by.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub Uuid);

impl InstanceId {
    /// The same id for the same words at every start: a UUID of version 8 (RFC 9562 section 5.8).
    pub fn derived(space: &str, name: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(format!("vncgate {space}\n{name}")).into();
        let half = digest.first_chunk().copied().unwrap_or_default();
        Self(uuid::Builder::from_custom_bytes(half).into_uuid())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for InstanceId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// How a person or a script names an instance: by UUID, else by name.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub enum InstanceRef {
    /// Anything that reads as a UUID.
    Id(InstanceId),
    /// Anything else.
    Name(String),
}

impl From<&str> for InstanceRef {
    fn from(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Name(text.to_owned()), Self::Id)
    }
}

impl fmt::Display for InstanceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// One live session. No secret: it stands in logs, lists and commands.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub Uuid);

impl SessionId {
    /// A fresh random id.
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }
}

impl FromStr for SessionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Ties what a person was told to the log line about it.
///
/// Ten hex digits, so that it fits beside a sentence in a close frame's 123 bytes
/// (RFC 6455 section 5.5.1).
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct CorrelationId([u8; 5]);

impl CorrelationId {
    /// A fresh random id.
    pub fn generate() -> Self {
        let mut bytes = [0; 5];
        bytes
            .iter_mut()
            .zip(Uuid::new_v4().as_bytes())
            .for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As a UUID's first digits: those are written all at once.
        let mut whole = [0; 16];
        let bytes = whole.iter_mut().zip(&self.0);
        bytes.for_each(|(to, from)| *to = *from);
        let mut digits = Uuid::encode_buffer();
        let digits = Uuid::from_bytes(whole).simple().encode_lower(&mut digits);
        f.write_str(digits.get(..10).unwrap_or_default())
    }
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correlation_id_is_ten_digits_with_their_zeros() {
        let id = CorrelationId([0, 0x0a, 0xff, 0x10, 0x9c]);
        assert_eq!(id.to_string(), "000aff109c");
        assert_eq!(format!("{id:?}"), "000aff109c");
    }
}
