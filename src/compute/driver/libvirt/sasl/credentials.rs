use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The largest password file; what is larger is a mistake.
const LONGEST: u64 = 1024;

/// Who logs in, and with what. `Debug` hides the password.
#[derive(Clone)]
pub struct Credentials {
    pub(super) user: String,
    pub(super) password: Zeroizing<String>,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum BadCredentials {
    /// The file cannot be read.
    #[error("the password file {} cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        why: io::Error,
    },
    /// The file holds no password.
    #[error("the password file {} {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The user's name cannot be one.
    #[error("the name of a user is not empty and holds no control characters")]
    User,
}

impl Credentials {
    /// A user, and the password in the first and only line of a file. Blocks.
    pub fn read(user: &str, password_file: &Path) -> Result<Self, BadCredentials> {
        let unreadable = |why| BadCredentials::Unreadable {
            path: password_file.to_owned(),
            why,
        };
        let bad = |why| BadCredentials::Content {
            path: password_file.to_owned(),
            why,
        };
        // as large as it can get, so that no growth leaves a copy behind
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * 1024));
        let file = File::open(password_file).map_err(unreadable)?;
        let _read = file
            .take(LONGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| bad("is not UTF-8"))?;
        let password = text.strip_suffix('\n').unwrap_or(text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST) {
            return Err(bad("is larger than 1024 bytes"));
        }
        if password.is_empty() {
            return Err(bad("is empty"));
        }
        if password.contains(char::is_control) {
            return Err(bad("holds more than one line of text"));
        }
        Self::new(user, password)
    }

    fn new(user: &str, password: &str) -> Result<Self, BadCredentials> {
        if user.is_empty() || user.contains(char::is_control) {
            return Err(BadCredentials::User);
        }
        Ok(Self {
            user: user.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        })
    }

    #[cfg(test)]
    pub(super) fn of(user: &str, password: &str) -> Self {
        Self::new(user, password).unwrap()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ***)", self.user)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(content: &[u8]) -> Result<Credentials, String> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("password");
        fs::write(&path, content).unwrap();
        let read = Credentials::read("ops", &path);
        read.map_err(|error| error.to_string().replace(path.to_str().unwrap(), "FILE"))
    }

    #[test]
    fn a_line_end_is_no_part_of_a_password() {
        for content in ["se cret", "se cret\n", "se cret\r\n"] {
            assert_eq!(*read(content.as_bytes()).unwrap().password, "se cret");
        }
    }

    #[test]
    fn what_holds_no_password_is_refused_by_its_fault() {
        let why = |content: &[u8]| read(content).unwrap_err();
        assert_eq!(why(b"\n"), "the password file FILE is empty");
        assert_eq!(why(b"\xff"), "the password file FILE is not UTF-8");
        let lines = why(b"one\ntwo\n");
        assert_eq!(
            lines,
            "the password file FILE holds more than one line of text"
        );
        let large = why(&[b'x'; 1025]);
        assert_eq!(large, "the password file FILE is larger than 1024 bytes");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Credentials::read("ops", Path::new("/nowhere/password")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/password"), "{error}");
    }

    #[test]
    fn debug_shows_no_password() {
        let shown = format!("{:?}", Credentials::of("ops", "hunter2"));
        assert_eq!(shown, "Credentials(ops, ***)");
    }
}
