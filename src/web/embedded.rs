//! The table of pages that `build.rs` made, and finding one in it.
//!
//! Exact names only: there is no file system behind it, so nothing to escape from.

use bytes::Bytes;

use super::{File, content_type};

pub(super) struct Asset {
    pub(super) path: &'static str,
    hash: &'static str,
    plain: &'static [u8],
    gzip: Option<&'static [u8]>,
}

pub(super) static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// The names noVNC and spice-html5 have given their pages; access URLs and bookmarks hold all of
/// them.
const ALIASES: &[(&str, &str)] = &[
    ("/", "/index.html"),
    ("/vnc_lite.html", "/vnc.html"),
    ("/vnc_auto.html", "/vnc.html"),
    ("/spice.html", "/spice_auto.html"),
];

/// Their names hold a hash of their content.
const IMMUTABLE: &str = "/assets/";

pub(super) fn find(path: &str, gzip: bool) -> Option<File> {
    let alias = ALIASES.iter().find(|(name, _)| *name == path);
    let path = alias.map_or(path, |(_, page)| page);
    ASSETS
        .iter()
        .find(|asset| asset.path == path)
        .map(|asset| asset.file(gzip))
}

impl Asset {
    /// Two forms are two representations, so each has its own strong tag.
    fn file(&self, gzip: bool) -> File {
        let (bytes, etag, gzip) = match self.gzip.filter(|_| gzip) {
            Some(bytes) => (bytes, format!("\"{}-gzip\"", self.hash), true),
            None => (self.plain, format!("\"{}\"", self.hash), false),
        };
        File {
            bytes: Bytes::from_static(bytes),
            content_type: content_type(self.path),
            etag,
            immutable: self.path.starts_with(IMMUTABLE),
            gzip,
        }
    }
}
