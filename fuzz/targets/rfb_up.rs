//! Whatever a viewer sends whose rights are limited as the first byte says, cut as the second
//! says: nothing may panic, what is kept must not depend on the cut, and what was kept is a stream
//! of which nothing more is taken.

use crate::model::Rights;
use crate::rfb::Filter;

fn filter(bytes: &[u8], size: usize, rights: Rights) -> (Vec<u8>, bool) {
    let mut filter = Filter::new(rights);
    let mut kept = Vec::new();
    for piece in bytes.chunks(size) {
        if filter.up(piece, &mut kept).is_err() {
            return (Vec::new(), false);
        }
    }
    (kept, true)
}

pub(crate) fn run(bytes: &[u8]) {
    let [rights, size, bytes @ ..] = bytes else {
        return;
    };
    let rights = Rights {
        input: rights & 1 != 0,
        clipboard_in: rights & 2 != 0,
        clipboard_out: rights & 4 != 0,
    };
    if !rights.are_limited() {
        return;
    }
    let whole = filter(bytes, bytes.len().max(1), rights);
    assert_eq!(whole, filter(bytes, usize::from(*size).max(1), rights));
    if whole.1 {
        assert!(whole.0.len() <= bytes.len());
        assert_eq!(filter(&whole.0, 1, rights), whole);
    }
}
