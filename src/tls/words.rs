//! What is wrong with a certificate, in words that say which field and until when.

use std::fmt;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error as RustlsError};

use super::weak;

/// Continues a sentence about a certificate that `ca` (a file) had to have signed.
pub fn describe(fault: &CertificateError, ca: &dyn fmt::Display) -> String {
    match fault {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("expired on {}", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("is not valid before {}", date(*not_before))
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("is signed by no CA in {ca}")
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "is not for the name {}: {}",
            expected.to_str(),
            names(presented)
        ),
        CertificateError::InvalidPurposeContext { required, .. } => {
            format!("is not meant for this (it lacks {required})")
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed in a way that is not known here (RSA with SHA-256 or more, ECDSA with P-256 or \
             P-384, and Ed25519 are)"
                .to_owned()
        }
        other => weak::found(other).map_or_else(
            || format!("is not valid: {other}"),
            |weak| weak.to_string(),
        ),
    }
}

fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "it has no subject alternative name at all".to_owned();
    }
    // `DnsName("kvm-1")` or `IpAddress(127.0.0.1)`, as the verifier writes them
    let bare = |name: &String| {
        let inside = name
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        inside.unwrap_or(name).trim_matches('"').to_owned()
    };
    let presented: Vec<_> = presented.iter().map(bare).collect();
    format!("its subject alternative names are {}", presented.join(", "))
}

/// A moment as people write it, to the second.
pub fn date(time: UnixTime) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    let time = time.filter(|time| *time < UNIX_EPOCH + MOST);
    time.map_or_else(
        || "a day beyond all calendars".to_owned(),
        |time| humantime::format_rfc3339_seconds(time).to_string(),
    )
}

/// The end of the year 9999, behind which dates cannot be written.
const MOST: Duration = Duration::from_hours(70_389_528);

/// The TLS error inside an error of a stream.
pub fn rustls_error(error: &io::Error) -> Option<&RustlsError> {
    error.get_ref()?.downcast_ref()
}

/// Whether a peer says with this that it does not like our certificate, or misses it.
pub fn is_about_certificates(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
    )
}
