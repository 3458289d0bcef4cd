use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::tls::{Fresh, Mutual};

/// Where the secret travels.
const HEADER: HeaderName = HeaderName::from_static("vncgate-secret");

/// The least length of a secret, in bytes: 128 bits in hex are 32, in base64 22.
const SHORTEST: usize = 22;

/// How the roles of different processes know each other. A Unix socket needs none of it: only its
/// owner can open it.
#[derive(Debug)]
pub enum Keys {
    /// Each shows a certificate of the same CA.
    Mutual(Mutual),
    /// Each knows the same secret, which travels as it is.
    Secret(Secret),
    /// They do not; Unix sockets alone will do.
    Nothing,
}

/// A secret in a file, a line each; the first is sent, all are accepted, so that it can be changed
/// on one machine after the other.
pub struct Secret {
    path: PathBuf,
    lines: Fresh<Arc<Lines>>,
}

struct Lines {
    sent: HeaderValue,
    accepted: Vec<[u8; 32]>,
}

/// Why a file is no secret.
#[derive(Debug, thiserror::Error)]
pub enum BadSecret {
    /// It cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: std::io::Error,
    },
    /// It would be guessed.
    #[error(
        "{} holds no secret: each line is one, of at least {SHORTEST} letters and digits; \
         `openssl rand -hex 32` prints one",
        .0.display()
    )]
    Weak(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").field(&self.path).finish()
    }
}

impl Secret {
    /// Reads the file. Blocks.
    pub fn new(path: PathBuf) -> Result<Self, BadSecret> {
        let lines = Fresh::new(vec![path.clone()], || Lines::read(&path))?;
        Ok(Self { path, lines })
    }

    fn lines(&self) -> Arc<Lines> {
        self.lines.get(|| Lines::read(&self.path))
    }
}

impl Lines {
    fn read(path: &Path) -> Result<Arc<Self>, BadSecret> {
        let text = std::fs::read_to_string(path).map_err(|why| BadSecret::Unreadable {
            path: path.to_owned(),
            why,
        });
        let text = zeroize::Zeroizing::new(text?);
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty());
        let lines: Vec<&str> = lines.collect();
        let fits = |line: &&str| {
            line.len() >= SHORTEST && line.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let weak = || BadSecret::Weak(path.to_owned());
        let first = lines.first().filter(|_| lines.iter().all(fits));
        let first = first.ok_or_else(weak)?;
        let mut sent = HeaderValue::from_str(first).map_err(|_| weak())?;
        sent.set_sensitive(true);
        let accepted = lines.iter().map(|line| hash(line.as_bytes())).collect();
        Ok(Arc::new(Self { sent, accepted }))
    }
}

fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

impl Keys {
    /// Adds to a request what shows who we are.
    pub(super) fn sign(&self, headers: &mut HeaderMap) {
        if let Self::Secret(secret) = self {
            let _new = headers.insert(HEADER, secret.lines().sent.clone());
        }
    }

    /// Whether a request over TCP shows that its sender is one of us; over TLS the handshake has
    /// shown it. Takes as long for a wrong secret as for the right one.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Mutual(_) => true,
            Self::Nothing => false,
            Self::Secret(secret) => {
                let given = headers.get(HEADER).map(HeaderValue::as_bytes);
                let given = hash(given.unwrap_or_default());
                let lines = secret.lines();
                let mut equal = lines.accepted.iter().map(|known| known.ct_eq(&given));
                let first = equal.next().unwrap_or_else(|| 0.into());
                equal.fold(first, |any, one| any | one).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    fn keys(text: &str) -> Result<Keys, BadSecret> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, text).unwrap();
        Secret::new(path).map(Keys::Secret)
    }

    fn signed(keys: &Keys) -> HeaderMap {
        let mut headers = HeaderMap::new();
        keys.sign(&mut headers);
        headers
    }

    #[test]
    fn only_who_knows_the_secret_is_admitted() {
        let ours = keys(&format!("{OLD}\n")).unwrap();
        let theirs = keys(NEW).unwrap();

        assert!(ours.admit(&signed(&ours)));
        assert!(!ours.admit(&signed(&theirs)));
        assert!(!ours.admit(&HeaderMap::new()));
    }

    #[test]
    fn a_secret_can_be_changed_on_one_machine_after_the_other() {
        let before = keys(OLD).unwrap();
        let meanwhile = keys(&format!("{NEW}\n{OLD}\n")).unwrap();
        let after = keys(NEW).unwrap();

        assert!(meanwhile.admit(&signed(&before)));
        assert!(meanwhile.admit(&signed(&after)));
        assert!(after.admit(&signed(&meanwhile)));
    }

    #[test]
    fn a_short_or_empty_secret_is_refused_and_none_is_shown() {
        assert!(matches!(keys("\n"), Err(BadSecret::Weak(_))));
        assert!(matches!(keys("secret"), Err(BadSecret::Weak(_))));
        let shown = format!("{:?}", keys(OLD).unwrap());
        assert!(!shown.contains(OLD), "{shown}");
        let shown = format!("{:?}", signed(&keys(OLD).unwrap()));
        assert!(!shown.contains(OLD), "{shown}");
    }
}
