use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::authority::Holder;
use crate::cmd::{Exit, Failure};

/// The list of hosts.
const INDEX: &str = "pki.toml";

/// What all certificates of a directory are made from, beside the CA's key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Index {
    /// The CA's.
    pub(super) name: String,
    /// Who has a certificate.
    pub(super) hosts: Vec<Holder>,
}

impl Index {
    /// Errors: there is none, or it is no such list.
    pub(super) fn read(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(INDEX);
        let shown = path.display();
        let text = fs::read_to_string(&path).map_err(|why| {
            let message = format!("{shown}: {why}; `vncgate pki init` makes it");
            Failure::new(Exit::NotFound, message)
        })?;
        toml::from_str(&text)
            .map_err(|why| Failure::new(Exit::Failure, format!("{shown}: {}", why.message())))
    }

    /// Adds those who have none yet.
    pub(super) fn add(&mut self, hosts: Vec<Holder>) {
        for host in hosts {
            if !self.hosts.contains(&host) {
                self.hosts.push(host);
            }
        }
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        write(directory, INDEX, &text)
    }
}

/// What would be replaced by a new CA.
pub(super) fn there(directory: &Path) -> Option<PathBuf> {
    let files = ["ca.key", "ca.pem", INDEX].map(|name| directory.join(name));
    files
        .into_iter()
        .find(|path| path.symlink_metadata().is_ok())
}

pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// A file for anybody to read, there whole or not at all.
pub(super) fn write(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    replace(directory, name, text, 0o644)
}

/// The same for its owner alone.
pub(super) fn write_private(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    replace(directory, name, text, 0o600)
}

fn replace(directory: &Path, name: &str, text: &str, mode: u32) -> io::Result<()> {
    let new = directory.join(format!(".{name}.new-{}", std::process::id()));
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, directory.join(name))
    })();
    if written.is_err() {
        let _gone = fs::remove_file(&new);
    }
    written
}
