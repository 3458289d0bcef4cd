//! The table of pages that `build.rs` made, and finding one in it.
//!
//! Exact names only: there is no file system behind it, so nothing to escape from.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::GzDecoder;

use super::{File, content_type};

pub(super) struct Asset {
    pub(super) path: &'static str,
    hash: &'static str,
    /// In no other form: the binary carries each page once.
    gzip: &'static [u8],
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
        .and_then(|asset| asset.file(gzip))
}

impl Asset {
    /// Two forms are two representations, so each has its own strong tag. The few clients that take
    /// no gzip wait while it is undone for them.
    fn file(&self, gzip: bool) -> Option<File> {
        let (bytes, form) = if gzip {
            (Bytes::from_static(self.gzip), "-gzip")
        } else {
            (inflated(self.gzip)?, "")
        };
        Some(File {
            bytes,
            content_type: content_type(self.path),
            etag: format!("\"{}{form}\"", self.hash),
            immutable: self.path.starts_with(IMMUTABLE),
            gzip,
        })
    }
}

/// Never nothing: `build.rs` packed it.
fn inflated(gzip: &[u8]) -> Option<Bytes> {
    let mut plain = Vec::new();
    let read = GzDecoder::new(gzip).read_to_end(&mut plain);
    read.ok().map(|_length| plain.into())
}
