//! A config file of an OpenStack service: it must not panic, and a line it names must be there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vncgate::cmd::migrate::ini::parse;

fuzz_target!(|text: &str| {
    let lines = text.lines().count();
    match parse(text) {
        Ok(all) => assert!(all.iter().all(|it| !it.key.is_empty() && it.line <= lines)),
        Err(bad) => assert!((1..=lines).contains(&bad.line)),
    }
});
