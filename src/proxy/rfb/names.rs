//! What security types are called, for sentences.

use std::fmt::Write as _;

/// Types of RFB, as IANA and the servers around call them.
const TYPES: [(u32, &str); 15] = [
    (1, "None"),
    (2, "VncAuth"),
    (5, "RA2"),
    (6, "RA2ne"),
    (16, "Tight"),
    (17, "Ultra"),
    (18, "TLS"),
    (19, "VeNCrypt"),
    (20, "SASL"),
    (21, "MD5"),
    (22, "xvp"),
    (30, "ARD"),
    (113, "MSLogonII"),
    (129, "RA2_256"),
    (130, "RA2ne_256"),
];

/// Subtypes of `VeNCrypt`.
const SUBTYPES: [(u32, &str); 9] = [
    (256, "Plain"),
    (257, "TLSNone"),
    (258, "TLSVnc"),
    (259, "TLSPlain"),
    (260, "X509None"),
    (261, "X509Vnc"),
    (262, "X509Plain"),
    (263, "X509SASL"),
    (264, "TLSSASL"),
];

/// A type's name, or its number.
pub(super) fn name(number: u32) -> String {
    let mut all = TYPES.iter().chain(&SUBTYPES);
    let known = all.find(|(known, _)| *known == number);
    known.map_or_else(|| format!("type {number}"), |(_, name)| (*name).to_owned())
}

/// The names of what a server offers; of a long list the beginning.
pub(super) fn names(numbers: &[u32]) -> String {
    const MOST: usize = 8;
    let first: Vec<_> = numbers.iter().take(MOST).copied().map(name).collect();
    let mut list = first.join(", ");
    if numbers.len() > MOST {
        let _infallible = write!(list, " and {} more", numbers.len().saturating_sub(MOST));
    }
    list
}

/// Whether TLS is spoken without a certificate.
pub(super) fn is_anonymous(number: u32) -> bool {
    matches!(number, 18 | 257..=259 | 264)
}

/// Whether it is one of `RealVNC`'s own.
pub(super) fn is_ra2(number: u32) -> bool {
    matches!(number, 5 | 6 | 129 | 130)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        assert_eq!(names(&[1, 19, 200]), "None, VeNCrypt, type 200");
        assert!(names(&[7; 255]).ends_with("type 7 and 247 more"));
    }
}
