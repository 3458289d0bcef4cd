//! The frame decoder on whatever a viewer sends, cut as the first byte says: it must not panic,
//! and what it makes of the bytes must not depend on how they were cut.

#[path = "../../src/proxy/ws/mod.rs"]
mod ws;

use ws::{Control, Decoder};

const LIMIT: usize = 4096;

/// Payload, pings and how it ended, with the bytes handed over in pieces of `size`.
fn decode(bytes: &[u8], size: usize) -> (Vec<u8>, Vec<Vec<u8>>, String) {
    let mut decoder = Decoder::new(LIMIT);
    let (mut payload, mut pings) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        let found = decoder.decode(&mut piece, |control| {
            if let Control::Ping(payload) = control {
                pings.push(payload.to_vec());
            }
        });
        payload.extend_from_slice(&piece[found.payload]);
        if let Some(end) = found.end {
            return (payload, pings, format!("{end:?}"));
        }
    }
    (payload, pings, String::new())
}

pub(crate) fn run(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = decode(bytes, bytes.len().max(1));
    let pieces = decode(bytes, usize::from(*size).max(1));
    assert_eq!(whole, pieces);
    assert!(whole.0.len() <= bytes.len());
}
