//! Headless Chromium on a console's page, through the command in `tests/browser`.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::gateway::{Answer, ConsoleUrl, run_within};
use super::process::{any_peer, peer, tied};
use super::wait::PATIENCE;

/// Where tests leave pictures for people and for the README.
pub(crate) fn artifact(name: &str) -> PathBuf {
    let directory = root().join("tests/artifacts");
    fs::create_dir_all(&directory).unwrap();
    directory.join(name)
}

/// Opens the URL in Chromium and has `tests/browser/console.mjs` look at the page.
///
/// The URL goes through a file: command lines are for everyone on the machine to read.
#[track_caller]
pub(crate) fn browse(url: &ConsoleUrl, arguments: &[&str]) -> Answer {
    let directory = TempDir::with_prefix("vncgate-browser-").unwrap();
    let file = directory.path().join("url");
    fs::write(&file, url.0.as_str()).unwrap();
    let modules = root().join("tests/browser/node_modules");
    assert!(
        modules.is_dir(),
        "tests/browser/node_modules is missing; `./scripts/test` fetches it before the tests"
    );
    any_peer(&[
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ]);
    let mut command = tied(&peer("node"));
    command
        .arg(root().join("tests/browser/console.mjs"))
        .arg("--url-file")
        .arg(&file);
    // Longer than one of its steps, so that a step in vain says what it saw instead.
    let limit = PATIENCE * 5;
    run_within(limit, command.args(["--timeout", "60"]).args(arguments))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
