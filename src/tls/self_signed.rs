//! A certificate that nobody vouches for, for a machine to try things on.

use std::fmt::Write as _;
use std::io;
use std::time::SystemTime;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use sha2::{Digest as _, Sha256};

use super::client::TlsError;
use super::server::Server;

/// Makes a key and a certificate for these names and addresses, which live as long as the process.
/// Returns with them the fingerprint by which a person knows the certificate again: SHA-256, as
/// browsers write it.
pub fn self_signed(names: Vec<String>) -> Result<(Server, String), TlsError> {
    let failed = |why| TlsError::Handshake(io::Error::other(why));
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "vncgate");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let year = this_year();
    params.not_before = date_time_ymd(year, 1, 1);
    params.not_after = date_time_ymd(year.saturating_add(2), 1, 1);
    let pair = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&pair).map_err(failed)?;
    let fingerprint = fingerprint(certificate.der());
    let server = Server::from_der(certificate.into(), PrivateKeyDer::from(pair))?;
    Ok((server, fingerprint))
}

fn this_year() -> i32 {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let year = now.split('-').next().and_then(|year| year.parse().ok());
    year.unwrap_or(2020)
}

fn fingerprint(certificate: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(certificate) {
        let separator = if text.is_empty() { "" } else { ":" };
        let _infallible = write!(text, "{separator}{byte:02X}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_told_as_browsers_tell_it() {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let (_server, fingerprint) = self_signed(names).unwrap();

        let bytes: Vec<&str> = fingerprint.split(':').collect();
        assert_eq!(bytes.len(), 32);
        let hex = |byte: &&str| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok();
        assert!(bytes.iter().all(hex), "{fingerprint}");
    }
}
