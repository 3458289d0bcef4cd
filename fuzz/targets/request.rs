//! What an upgrade request says: target, cookie, origin and forwarded headers from anybody.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use vncgate::proxy::request::{check_origin, client, handshake, token};

const NAMES: [&str; 8] = [
    "host",
    "origin",
    "cookie",
    "x-forwarded-for",
    "x-forwarded-proto",
    "sec-websocket-protocol",
    "sec-websocket-key",
    "connection",
];

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let uri = lines.next().and_then(|line| std::str::from_utf8(line).ok()?.parse().ok());
    let mut headers = HeaderMap::new();
    for (name, line) in NAMES.iter().cycle().zip(lines).take(32) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let _answer = handshake(http::Version::HTTP_11, &headers);
    if let Some(uri) = uri {
        let _token = token(&uri, &headers);
    }
    let viewer = client(Some([10, 0, 0, 1].into()), &headers, &["10.0.0.0/8".parse().unwrap()]);
    let base = "https://console.example/vnc.html".parse().unwrap();
    let _verdict = check_origin(&headers, &viewer, &base, &["portal.example".to_owned()]);
});
