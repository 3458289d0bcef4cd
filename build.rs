//! Embeds the pages of `web/dist` as a table of static bytes, and tells the linker what to save and
//! what to keep together.
//!
//! `web/embedded.rs` includes the table. Each file is kept gzipped alone; its `ETag` is its own
//! hash. `VNCGATE_WITHOUT_WEB=1` embeds one small page instead, for those
//! who build without Node.js.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

const ROOT: &str = "web/dist";
const WITHOUT: &str = "VNCGATE_WITHOUT_WEB";
/// What stands together in the binary; `scripts/layout` makes it.
const LAYOUT: &str = "link/layout.ld";
/// Where `scripts/layout` wants to read what stands where.
const MAP: &str = "VNCGATE_MAP";
const WITHOUT_PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <title>vncgate</title>\n<p>This vncgate was built without its pages. Consoles work; for a \
    page, set <code>[web] root</code> to a noVNC on disk or build with Node.js.</p>\n</html>\n";

/// A file of the site: its path below the root, and its bytes.
type Page = (String, Vec<u8>);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={ROOT}");
    println!("cargo::rerun-if-env-changed={WITHOUT}");
    save_some();
    if let Err(error) = embed() {
        println!("cargo::error={error}");
    }
}

/// Of functions that are compiled to the same code, one is kept: a sixteenth of the released binary.
/// Only lld can, which is rustc's own linker on this target. Relocations that take bits in place of 24
/// bytes each save as much again; the C library that is linked in has to know them.
fn save_some() {
    println!("cargo::rerun-if-changed={LAYOUT}");
    println!("cargo::rerun-if-env-changed={MAP}");
    let target = env::var("TARGET").unwrap_or_default();
    if target == "x86_64-unknown-linux-gnu" && env::var("PROFILE").is_ok_and(|it| it == "release") {
        lay_out();
        if glibc() >= Some((2, 36)) {
            println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        }
    }
}

/// What runs at the start stands together, and so does what sessions need: the kernel maps 16 pages
/// around each that is touched. To find out what runs, each function has to keep its own name.
fn lay_out() {
    if let Ok(map) = env::var(MAP) {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=none,-Map={map}");
    } else {
        let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all,-T,{root}/{LAYOUT}");
    }
}

/// The version of this machine's C library, if it is glibc.
fn glibc() -> Option<(u32, u32)> {
    let told = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let told = String::from_utf8(told.ok()?.stdout).ok()?;
    let (major, minor) = told.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn embed() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut table = "&[\n".to_owned();
    for (number, (path, bytes)) in pages()?.into_iter().enumerate() {
        table.push_str(&entry(&out, number, &path, &bytes)?);
    }
    table.push_str("]\n");
    fs::write(out.join("pages.rs"), table)?;
    Ok(())
}

/// The files to embed, in the order of their paths, so that equal sources make equal binaries.
fn pages() -> Result<Vec<Page>, Box<dyn Error>> {
    if env::var(WITHOUT).is_ok_and(|value| value == "1") {
        let page = |path: &str| (path.to_owned(), WITHOUT_PAGE.as_bytes().to_vec());
        return Ok(["index.html", "serial.html", "spice_auto.html", "vnc.html"]
            .map(page)
            .into());
    }
    let root = Path::new(ROOT);
    if !root.join("vnc.html").is_file() {
        return Err(
            "web/dist is missing: run ./scripts/web first (needs Node.js 18 or later)".into(),
        );
    }
    let mut pages = Vec::new();
    collect(root, root, &mut pages)?;
    pages.sort();
    Ok(pages)
}

fn collect(root: &Path, folder: &Path, pages: &mut Vec<Page>) -> Result<(), Box<dyn Error>> {
    for found in fs::read_dir(folder)? {
        let path = found?.path();
        if path.is_dir() {
            collect(root, &path, pages)?;
        } else {
            let name = path.strip_prefix(root)?.to_str();
            let name = name.ok_or("a name in web/dist is not UTF-8")?;
            pages.push((name.to_owned(), fs::read(&path)?));
        }
    }
    Ok(())
}

/// Writes the bytes beside the table and returns their line in it.
fn entry(out: &Path, number: usize, path: &str, plain: &[u8]) -> Result<String, Box<dyn Error>> {
    let name = format!("{number}.page.gz");
    fs::write(out.join(&name), gzipped(plain)?)?;
    Ok(format!(
        "Asset {{ path: \"/{path}\", hash: \"{}\", \
         gzip: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}\")) }},\n",
        hash(plain),
    ))
}

/// No name and no time in it: the same bytes on every machine.
fn gzipped(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(plain)?;
    encoder.finish()
}

/// 128 bits of SHA-256 in hex.
fn hash(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes).iter().take(16) {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}
