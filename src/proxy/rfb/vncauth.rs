//! VNC Authentication, RFC 6143 section 7.2.2: a challenge encrypted with the password.
//!
//! DES with a key of 56 bits is no protection against whoever listens; it is what servers speak.

use des::Des;
use des::cipher::{Array, BlockCipherEncrypt as _, KeyInit as _};

use crate::model::Password;

/// The length of a challenge and of its answer.
pub const CHALLENGE: usize = 16;

/// A challenge, or its answer.
pub type Challenge = [u8; CHALLENGE];

/// The most of a password that counts, in bytes.
const KEY: usize = 8;

/// What proves to a server that `password` is known.
pub(super) fn answer(password: &Password, challenge: &Challenge) -> Challenge {
    let cipher = Des::new(&Array::from(key(password.reveal().as_bytes())));
    let mut answer = *challenge;
    for block in answer.as_chunks_mut::<8>().0 {
        cipher.encrypt_block(block.into());
    }
    answer
}

/// Eight bytes, padded with zeros; the bits of each in reverse, as the first VNC had them.
fn key(password: &[u8]) -> [u8; KEY] {
    let mut key = [0; KEY];
    for (to, from) in key.iter_mut().zip(password) {
        *to = from.reverse_bits();
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(password: &str, challenge: Challenge) -> Challenge {
        answer(&Password::from(password.to_owned()), &challenge)
    }

    #[test]
    fn des_is_that_of_the_standard() {
        // The worked example that circulates with FIPS 46: this key, this block.
        let bits = [0x13_u8, 0x34, 0x57, 0x79, 0x9b, 0xbc, 0xdf, 0xf1];
        let cipher = Des::new(&Array::from(bits));
        let mut block = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
        cipher.encrypt_block((&mut block).into());
        assert_eq!(block, [0x85, 0xe8, 0x13, 0x54, 0x0f, 0x0a, 0xb4, 0x05]);
    }

    #[test]
    fn only_the_first_eight_bytes_of_a_password_count() {
        let challenge = [7; CHALLENGE];
        assert_eq!(of("12345678", challenge), of("123456789", challenge));
        assert_ne!(of("1234567", challenge), of("12345678", challenge));
    }

    #[test]
    fn both_halves_of_a_challenge_are_encrypted_alike() {
        let answer = of("secret", [9; CHALLENGE]);
        assert_eq!(answer[..8], answer[8..]);
        assert_ne!(answer, [9; CHALLENGE]);
    }
}
