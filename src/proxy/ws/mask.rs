//! Masking of client payload, RFC 6455 section 5.3.

/// Applies `mask` to `bytes`, whose first byte meets the mask's first byte.
///
/// The mask applied twice is the identity. A caller that holds a frame in pieces turns the mask
/// by the piece's length (`mask.rotate_left(length % 4)`) before the next piece.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = [a, b, c, d, a, b, c, d];
    let word = u64::from_ne_bytes(wide);
    // Whole words become vector instructions; see benches/relay.rs.
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(wide) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn wide_words_and_single_bytes_agree(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            mask in any::<[u8; 4]>(),
        ) {
            let plain: Vec<u8> =
                bytes.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();

            unmask(&mut bytes, mask);

            prop_assert_eq!(bytes, plain);
        }
    }
}
