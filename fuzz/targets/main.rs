//! The parsers that read what strangers send, each fed by libFuzzer: `VNCGATE_FUZZ` names which.
//! `scripts/fuzz` builds and runs them; a target is a module here with a function `run`.
//!
//! They are built from their own files in src, and nothing else of vncgate is: none of them knows more
//! than `model`, so what would take minutes to build takes seconds.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "only what parses is called of the files in src"
)]

mod announcement;
mod domain;
mod frames;
mod ini;
mod libvirt;
mod qmp;
mod request;
mod rfb_down;
mod rfb_server;
mod rfb_up;
mod rfb_viewer;
mod scram;

#[path = "../../src/http/forwarded.rs"]
mod http;
#[path = "../../src/model/mod.rs"]
mod model;
#[path = "../../src/proxy/rfb/mod.rs"]
mod rfb;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 12] = [
    ("announcement", announcement::run),
    ("domain", domain::run),
    ("frames", frames::run),
    ("ini", ini::run),
    ("libvirt", libvirt::run),
    ("qmp", qmp::run),
    ("request", request::run),
    ("rfb_down", rfb_down::run),
    ("rfb_server", rfb_server::run),
    ("rfb_up", rfb_up::run),
    ("rfb_viewer", rfb_viewer::run),
    ("scram", scram::run),
];

static TARGET: OnceLock<Target> = OnceLock::new();

/// The target that the environment names.
fn chosen() -> Target {
    let wanted = std::env::var("VNCGATE_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.expect("VNCGATE_FUZZ names a target").1
}

fuzz_target!(
    init: {
        let _target = TARGET.get_or_init(chosen);
    },
    |bytes: &[u8]| TARGET.get_or_init(chosen)(bytes)
);
