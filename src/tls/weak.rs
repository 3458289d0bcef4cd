//! Keys and signatures that can be forged, in words. Pure.
//!
//! rustls believes none of them either, but it says of them only that a signature is bad, or that
//! nobody knows the issuer. RFC 5280 section 4.1, RFC 8017 appendix A, as far as that.

use rustls::{CertificateError, RootCertStore};

use super::expiry::element;

/// Bits of an RSA key below which rustls (and any browser) verifies nothing.
const LEAST: usize = 2048;

/// `rsaEncryption`, 1.2.840.113549.1.1.1.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

/// How certificates must not be signed any more.
const FORGED: [(&[u8], &str); 4] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 2], "MD2"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4], "MD5"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5], "SHA-1"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1], "SHA-1"),
];

/// What is weak about a certificate. Continues a sentence about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Weak {
    /// Its key is too short.
    #[error("is too weak: it has an RSA key of {0} bits, and {LEAST} are the least")]
    Key(usize),
    /// Its signature proves nothing.
    #[error("is too weak: it is signed with {0}, which can be forged")]
    Signature(&'static str),
    /// The key that signed it is too short.
    #[error("is too weak: its CA has an RSA key of {0} bits, and {LEAST} are the least")]
    Ca(usize),
}

/// What a verifier found weak.
pub(super) fn found(fault: &CertificateError) -> Option<Weak> {
    let CertificateError::Other(other) = fault else {
        return None;
    };
    other.0.downcast_ref().copied()
}

/// Whether it was because of a weak key or signature that a certificate is not believed.
pub fn is_weak(fault: &CertificateError) -> bool {
    found(fault).is_some()
}

/// What of a certificate is looked at.
struct Parts<'a> {
    issuer: &'a [u8],
    key: &'a [u8],
    signature: &'a [u8],
}

/// What is weak about a certificate that one of `roots` may have signed. Nothing about one that
/// cannot be read.
pub(super) fn weakness(certificate: &[u8], roots: &RootCertStore) -> Option<Weak> {
    let parts = parts(certificate)?;
    let forged = FORGED.iter().find(|(oid, _)| *oid == parts.signature);
    if let Some((_, name)) = forged {
        return Some(Weak::Signature(name));
    }
    let short = |key| bits(key).filter(|bits| *bits < LEAST);
    let of_ca = || {
        let mut issuers = roots.roots.iter();
        let issuer = issuers.find(|root| *root.subject == *parts.issuer)?;
        short(&issuer.subject_public_key_info)
    };
    short(parts.key)
        .map(Weak::Key)
        .or_else(|| of_ca().map(Weak::Ca))
}

fn parts(certificate: &[u8]) -> Option<Parts<'_>> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, after) = element(certificate)?;
    let (_, algorithm, _) = element(after)?;
    let (_, signature, _) = element(algorithm)?;
    let (version, _, behind) = element(rest)?;
    if version == 0xa0 {
        rest = behind;
    }
    // serial number, signature algorithm
    for _ in 0..2 {
        (_, _, rest) = element(rest)?;
    }
    let (_, issuer, mut rest) = element(rest)?;
    // validity, subject
    for _ in 0..2 {
        (_, _, rest) = element(rest)?;
    }
    let (_, key, _) = element(rest)?;
    Some(Parts {
        issuer,
        key,
        signature,
    })
}

/// The length of an RSA key, given what is inside its `SubjectPublicKeyInfo`.
fn bits(key: &[u8]) -> Option<usize> {
    let (_, algorithm, rest) = element(key)?;
    let (_, kind, _) = element(algorithm)?;
    if kind != RSA {
        return None;
    }
    let (_, string, _) = element(rest)?;
    let (_, pair, _) = element(string.strip_prefix(&[0])?)?;
    let (_, modulus, _) = element(pair)?;
    let zeros: u32 = match modulus.iter().position(|byte| *byte != 0)? {
        0 => modulus.first()?.leading_zeros(),
        1 => modulus.get(1)?.leading_zeros().saturating_add(8),
        _ => return None,
    };
    modulus
        .len()
        .checked_mul(8)?
        .checked_sub(usize::try_from(zeros).ok()?)
}
