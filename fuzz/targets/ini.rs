//! A config file of an OpenStack service: it must not panic, and a line it names must be there.

#[path = "../../src/cmd/migrate/ini.rs"]
mod parser;

use parser::parse;

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let lines = text.lines().count();
    match parse(text) {
        Ok(all) => assert!(all.iter().all(|it| !it.key.is_empty() && it.line <= lines)),
        Err(bad) => assert!((1..=lines).contains(&bad.line)),
    }
}
