//! Tables whose keys are random bytes already: ids made here, and hashes.
//!
//! To hash such a key again tells nothing new. Whoever may choose a key, or try many, could have
//! all of a table's keys meet in one place; what strangers name is never a key of such a table.

use std::hash::{BuildHasherDefault, Hasher};

/// How a table with random keys finds them.
pub type RandomKeys = BuildHasherDefault<AsIs>;

/// Takes keys for what they are: arrays of eight random bytes, or of several times eight.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, bytes: &[u8]) {
        // All of them count: a few bits of a UUID are the same in each.
        for eight in bytes.as_chunks().0 {
            self.0 ^= u64::from_ne_bytes(*eight);
        }
    }

    /// The length of an array says nothing.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher as _;

    use super::super::{SessionId, Token};
    use super::*;

    /// How many of 64 groups there are in those bits of 1024 hashes that are `shift` from the left.
    fn groups(hashes: &[u64], shift: u32) -> usize {
        let groups = hashes.iter().map(|hash| hash << shift >> 58);
        groups.collect::<HashSet<_>>().len()
    }

    #[test]
    fn keys_made_here_spread_over_all_bits() {
        let hasher = RandomKeys::default();
        let sessions = (0..1024).map(|_| hasher.hash_one(SessionId::generate()));
        let tokens = (0..1024).map(|_| hasher.hash_one(Token::generate().hash().id()));
        for hashes in [sessions.collect::<Vec<_>>(), tokens.collect()] {
            for shift in 0..=58 {
                assert!(groups(&hashes, shift) > 48, "{shift}");
            }
        }
    }
}
