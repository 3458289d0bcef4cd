//! Holds the `use` lines to the import table of docs/design.md: who may know whom.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may name.
const TABLE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("drain", &[]),
    ("live", &[]),
    ("process", &[]),
    ("tls", &[]),
    ("web", &[]),
    ("workers", &[]),
    ("config", &["model"]),
    ("telemetry", &["config", "model"]),
    ("audit", &["model", "telemetry"]),
    ("resolve", &["model"]),
    ("rpc", &["drain", "http", "model", "resolve", "tls"]),
    ("http", &["drain", "model", "resolve", "tls", "workers"]),
    ("keystone", &["config", "drain", "http", "model"]),
    ("demo", &["drain", "model"]),
    (
        "auth",
        &["drain", "keystone", "live", "model", "resolve", "rpc"],
    ),
    (
        "compute",
        &["drain", "live", "model", "resolve", "rpc", "tls"],
    ),
    (
        "api",
        &[
            "audit",
            "auth",
            "compute",
            "config",
            "drain",
            "http",
            "keystone",
            "model",
            "rpc",
            "telemetry",
        ],
    ),
    (
        "proxy",
        &[
            "audit",
            "auth",
            "compute",
            "drain",
            "http",
            "live",
            "model",
            "resolve",
            "rpc",
            "telemetry",
            "tls",
            "workers",
        ],
    ),
    (
        "app",
        &[
            "api",
            "audit",
            "auth",
            "compute",
            "config",
            "demo",
            "drain",
            "http",
            "keystone",
            "live",
            "model",
            "process",
            "proxy",
            "rpc",
            "telemetry",
            "tls",
            "web",
            "workers",
        ],
    ),
    (
        "cmd",
        &[
            "api",
            "app",
            "config",
            "drain",
            "http",
            "model",
            "process",
            "resolve",
            "telemetry",
            "tls",
        ],
    ),
];

/// Rooms within the proxy that carry bytes and know nothing else.
const HOT: &[&str] = &["relay", "ws"];

fn sources(place: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every `crate::a::b` of a file, as `[a, b]`; comments and tests do not count.
fn named(text: &str) -> BTreeSet<[String; 2]> {
    let code = text.split("\n#[cfg(test)]").next().unwrap();
    let code = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let paths = code.split("crate::").skip(1).map(|rest| {
        let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
        let path = rest.split(end).next().unwrap();
        let mut parts = path.split("::").map(str::to_owned);
        [parts.next().unwrap(), parts.next().unwrap_or_default()]
    });
    paths.collect()
}

fn rooms() -> Vec<(Vec<String>, BTreeSet<[String; 2]>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let place = |path: &Path| {
        let path = path.strip_prefix(&root).unwrap().with_extension("");
        path.components()
            .map(|part| part.as_os_str().to_str().unwrap().to_owned())
            .collect()
    };
    let tests = |path: &PathBuf| path.ends_with("tests.rs") || path.ends_with("house.rs");
    let files = files.into_iter().filter(|path| !tests(path));
    files
        .map(|path| (place(&path), named(&fs::read_to_string(&path).unwrap())))
        .collect()
}

#[test]
fn no_room_knows_another_that_the_table_does_not_allow() {
    for (place, names) in rooms() {
        let room = place[0].as_str();
        if matches!(room, "lib" | "main") {
            continue;
        }
        let allowed = TABLE.iter().find(|(name, _)| *name == room);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("`{room}` is not in the table"));
        for [other, _] in names {
            let fine = other == room || allowed.contains(&other.as_str());
            assert!(fine, "{} names crate::{other}", place.join("::"));
        }
    }
}

#[test]
fn what_carries_bytes_knows_nothing_else() {
    for (place, names) in rooms() {
        if place.len() < 2 || place[0] != "proxy" || !HOT.contains(&place[1].as_str()) {
            continue;
        }
        for [room, part] in names {
            let fine = room == "proxy" && HOT.contains(&part.as_str());
            assert!(fine, "{} names crate::{room}::{part}", place.join("::"));
        }
    }
}

#[test]
fn only_the_assembly_sees_drivers_and_stores() {
    for (place, names) in rooms() {
        for [room, part] in names {
            let inner = matches!(
                (&*room, &*part),
                ("compute", "driver") | ("auth", "store" | "redis")
            );
            let fine = !inner || place[0] == room || place[0] == "app";
            assert!(fine, "{} names crate::{room}::{part}", place.join("::"));
        }
    }
}

#[test]
fn the_rules_of_rfb_know_the_model_alone() {
    let rules = |place: &[String]| place.starts_with(&["proxy".to_owned(), "rfb".to_owned()]);
    for (place, names) in rooms().into_iter().filter(|(place, _)| rules(place)) {
        for [room, part] in names {
            let fine = room == "model";
            assert!(fine, "{} names crate::{room}::{part}", place.join("::"));
        }
    }
}
