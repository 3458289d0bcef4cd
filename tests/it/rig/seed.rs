//! Directories that take long to make: made once for all runs, and copied for each test.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::browser::artifact;

/// Fills the empty directory `into` with what `make` makes. `recipe` is everything that decides
/// what that is: a change of it makes a new one.
pub(crate) fn plant(name: &str, recipe: &str, into: &Path, make: impl FnOnce(&Path)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let kept = artifact("seeds").join(format!("{name}-{}", digest(recipe)));
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if !kept.is_dir() {
        fs::create_dir_all(artifact("seeds")).unwrap();
        let fresh = TempDir::new_in(artifact("seeds")).unwrap();
        make(fresh.path());
        // another run may have made it meanwhile, and the same
        let moved = fs::rename(fresh.path(), &kept);
        assert!(moved.is_ok() || kept.is_dir(), "{moved:?}");
    }
    drop(turn);
    let mut copy = Command::new("cp");
    let copied = copy.arg("-a").arg(kept.join(".")).arg(into).status();
    assert!(copied.unwrap().success(), "cannot copy {kept:?}");
}

/// SHA-256 in lower-case hex.
pub(crate) fn digest(text: &str) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(text.as_bytes()) {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}
