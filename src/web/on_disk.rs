//! Files below one folder, read when asked for.
//!
//! Follows links only as long as they stay inside: Debian's noVNC has `vnc_auto.html` as a link
//! to `vnc.html`. Everything that touches the disk runs on the blocking pool.

use std::fs::Metadata;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::{BadPages, File, content_type, path};

/// The largest file that is read; noVNC's largest is 120 KB. Each of `proxy.max_connections` may
/// hold one in memory while it is slow to read it.
const LARGEST: u64 = 1024 * 1024;

/// What stands for the folder itself, in order of preference.
const INDEXES: &[&str] = &["index.html", "vnc.html"];

/// A folder that exists, by its real name.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn open(path: PathBuf) -> Result<Self, BadPages> {
        let root = path.canonicalize().and_then(|root| {
            root.read_dir()?;
            Ok(root)
        });
        match root {
            Ok(root) => Ok(Self { root }),
            Err(source) => Err(BadPages::Root { path, source }),
        }
    }

    /// The file a request path names, if it may be served.
    pub(super) async fn read(self: Arc<Self>, path: String) -> Option<File> {
        let reading = tokio::task::spawn_blocking(move || self.find(&path));
        reading.await.ok().flatten()
    }

    fn find(&self, path: &str) -> Option<File> {
        if path == "/" {
            return INDEXES.iter().find_map(|index| self.load(index));
        }
        self.load(&path::relative(path)?)
    }

    fn load(&self, relative: &str) -> Option<File> {
        let place = self.inside(relative)?;
        match read(&place) {
            Ok((bytes, about)) => Some(File {
                bytes: bytes.into(),
                content_type: content_type(relative),
                etag: etag(&about),
                immutable: false,
                gzip: false,
            }),
            Err(error) => {
                tracing::debug!(path = %place.display(), %error, "page not served");
                None
            }
        }
    }

    /// The real place of a file, unless that is outside or hidden.
    fn inside(&self, relative: &str) -> Option<PathBuf> {
        let place = self.root.join(relative).canonicalize().ok()?;
        let below = place.strip_prefix(&self.root).ok()?;
        let hidden = below
            .components()
            .any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
        (!hidden).then_some(place)
    }
}

/// Looks before it opens: opening a pipe would wait for its other end.
fn read(place: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let about = place.metadata()?;
    if !about.is_file() || about.len() > LARGEST {
        return Err(io::Error::other("not a file of at most 1 MiB"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(place)?
        .take(LARGEST)
        .read_to_end(&mut bytes)?;
    Ok((bytes, about))
}

/// Weak: a file written twice within one tick of the clock could differ.
fn etag(about: &Metadata) -> String {
    let modified = about.modified().ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let nanos = since.map_or(0, |since| since.as_nanos());
    format!("W/\"{:x}-{nanos:x}\"", about.len())
}
