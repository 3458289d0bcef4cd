//! Whatever a viewer says in its security handshake, cut as the first byte says: nothing may panic,
//! and what it comes to must not depend on how it was cut.

use crate::rfb::{Heard, Reception};

/// What is sent, what is left for the server, and how it went.
fn receive(bytes: &[u8], size: usize, asks: bool) -> (Vec<u8>, Vec<u8>, String) {
    let mut reception = Reception::new(asks.then_some([7; 16]));
    let (mut sent, mut left, mut last) = (Vec::new(), Vec::new(), Heard::More);
    for piece in bytes.chunks(size) {
        if last != Heard::More {
            left.extend(piece);
            continue;
        }
        match reception.take(piece, &mut sent) {
            Ok((taken, heard)) => {
                left.extend(&piece[taken..]);
                last = heard;
            }
            Err(fault) => return (sent, Vec::new(), format!("{fault:?}")),
        }
    }
    (sent, left, format!("{last:?}"))
}

pub(crate) fn run(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let (size, asks) = (usize::from(size >> 1).max(1), size & 1 != 0);
    let whole = receive(bytes, bytes.len().max(1), asks);
    assert_eq!(whole, receive(bytes, size, asks));
    assert!(whole.1.len() <= bytes.len());
}
