//! Until when the certificates in a file are valid.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::files::{BadFile, certificates};

/// The last moment of a file's certificates: of the one that goes first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expiry {
    /// The file.
    pub path: PathBuf,
    /// Until when.
    pub not_after: SystemTime,
}

impl Expiry {
    /// How long it is still valid at `now`; nothing once it is not.
    pub fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }
}

/// What each file's certificates are good for. Those that cannot be read come as errors. Blocks.
pub fn expiries(paths: &[PathBuf]) -> Vec<Result<Expiry, BadFile>> {
    paths.iter().map(|path| expiry(path)).collect()
}

fn expiry(path: &Path) -> Result<Expiry, BadFile> {
    let all = certificates(path)?;
    let ends = all.iter().filter_map(|certificate| not_after(certificate));
    Ok(Expiry {
        path: path.to_owned(),
        // A date that nobody can read is one to look at.
        not_after: ends.min().unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

/// The end of a certificate's validity: RFC 5280 section 4.1, as far as that.
pub fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    let (first, _, after) = element(rest)?;
    if first == 0xa0 {
        rest = after;
    }
    // serial number, signature algorithm, issuer
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, rest) = element(validity)?;
    let (kind, time, _) = element(rest)?;
    moment(kind, std::str::from_utf8(time).ok()?)
}

/// The tag and the content of a DER element, and what follows it. Tags of one byte suffice here.
pub(super) fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        short @ 0..=0x7f => (usize::from(*short), rest),
        0x81 => {
            let ([length], rest) = rest.split_first_chunk()?;
            (usize::from(*length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// `UTCTime` has two digits of the year, `GeneralizedTime` four; both end in seconds and a Z.
fn moment(kind: u8, text: &str) -> Option<SystemTime> {
    let full = match kind {
        0x17 if text.starts_with(['0', '1', '2', '3', '4']) => format!("20{text}"),
        0x17 => format!("19{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| full.get(from..to);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    humantime::parse_rfc3339(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(year: i32) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(["a".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn of(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn the_end_is_read_in_both_forms_of_time() {
        assert_eq!(not_after(&made(2031)), Some(of("2031-02-03T00:00:00Z")));
        assert_eq!(not_after(&made(2099)), Some(of("2099-02-03T00:00:00Z")));
    }

    #[test]
    fn what_is_cut_off_anywhere_has_no_end() {
        let whole = made(2031);
        let far = whole.len() / 2;
        for length in 0..far.min(100) {
            assert_eq!(not_after(&whole[..length]), None);
        }
        assert_eq!(not_after(&[0x30, 0x84, 255, 255, 255, 255]), None);
    }
}
