//! What belongs into files that one user alone may read.

use std::fmt;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The contents of a file, and its name. `Debug` hides the contents.
pub(super) struct Secret {
    pub(super) file: &'static str,
    contents: Zeroizing<String>,
}

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    #[error("cannot make the directory {}", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    #[error("{} is there already; it is not overwritten", .0.display())]
    There(PathBuf),
    #[error("cannot write {}", .0.display())]
    File(PathBuf, #[source] io::Error),
}

impl Secret {
    pub(super) fn new(file: &'static str, contents: &str) -> Self {
        let contents = Zeroizing::new(contents.to_owned());
        Self { file, contents }
    }
}

/// Writes all of them into `directory`, which is made if it is not there. Nothing is written if one
/// of the files is there.
pub(super) fn write(secrets: &[Secret], directory: &Path) -> Result<Vec<PathBuf>, SecretError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| SecretError::Directory(directory.to_owned(), error))?;
    let paths = secrets.iter().map(|secret| directory.join(secret.file));
    let paths: Vec<PathBuf> = paths.collect();
    if let Some(there) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(SecretError::There(there.clone()));
    }
    for (path, secret) in paths.iter().zip(secrets) {
        create(path, &secret.contents).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => SecretError::There(path.clone()),
            _ => SecretError::File(path.clone(), error),
        })?;
    }
    Ok(paths)
}

fn create(path: &Path, contents: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(contents.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, ***)", self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_and_their_directory_are_for_one_user_alone() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("a/b");

        let paths = write(&[Secret::new("x", "s3cret")], &directory).unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(paths, [directory.join("x")]);
        assert_eq!(fs::read_to_string(&paths[0]).unwrap(), "s3cret\n");
        assert_eq!((mode(&directory), mode(&paths[0])), (0o700, 0o600));
    }

    #[test]
    fn nothing_is_written_where_one_of_the_files_is_there() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("y"), "old").unwrap();

        let both = [Secret::new("x", "new"), Secret::new("y", "new")];
        let refused = write(&both, place.path()).unwrap_err();

        assert!(
            refused.to_string().ends_with("not overwritten"),
            "{refused}"
        );
        assert!(!place.path().join("x").exists());
        assert_eq!(fs::read_to_string(place.path().join("y")).unwrap(), "old");
    }

    #[test]
    fn debug_shows_no_contents() {
        assert!(!format!("{:?}", Secret::new("x", "s3cret")).contains("s3cret"));
    }
}
