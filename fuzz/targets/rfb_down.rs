//! Whatever a VNC server sends to a viewer that may only look, cut as the first byte says, with
//! the pixel format that the next 16 bytes ask for: nothing may panic, and what is kept must not
//! depend on the cut.

use crate::model::Rights;
use crate::rfb::Filter;

fn filter(format: &[u8], bytes: &[u8], size: usize) -> (Vec<u8>, bool) {
    let mut filter = Filter::new(Rights::VIEW);
    let mut kept = Vec::new();
    let asked = [&[1, 0, 0, 0, 0][..], format].concat();
    if filter.up(&asked, &mut Vec::new()).is_err() {
        return (kept, false);
    }
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        match filter.down(&mut piece) {
            Ok(length) => kept.extend(&piece[..length]),
            Err(_) => return (Vec::new(), false),
        }
    }
    (kept, true)
}

pub(crate) fn run(bytes: &[u8]) {
    let Some((size, rest)) = bytes.split_first() else {
        return;
    };
    let Some((format, bytes)) = rest.split_at_checked(16) else {
        return;
    };
    let whole = filter(format, bytes, bytes.len().max(1));
    assert_eq!(whole, filter(format, bytes, usize::from(*size).max(1)));
    assert!(whole.0.len() <= bytes.len());
}
