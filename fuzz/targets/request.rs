//! The head of a request as anybody writes it: `GET /path?token=... HTTP/1.1`, then a header a line.
//! Nothing may panic; a token that is found is in the query or in a cookie; who is no trusted proxy
//! is who it is.

#[path = "../../src/proxy/request/mod.rs"]
mod parser;

use http::{HeaderName, HeaderValue, Request, Version};

use crate::model::Token;
use parser::{check_origin, client, handshake, token, wants_websocket};

/// Headers beyond these are more of the same.
const MOST: usize = 64;

fn read(bytes: &[u8]) -> Option<Request<()>> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let mut words = first.trim_end_matches('\r').splitn(3, ' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let version = match version {
        "HTTP/1.0" => Version::HTTP_10,
        "HTTP/2.0" => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let head = Request::builder().method(method).uri(target);
    let mut request = head.version(version).body(()).ok()?;
    let headers = lines
        .take(MOST)
        .filter_map(|line| header(line.trim_ascii_end()));
    headers.for_each(|(name, value)| {
        request.headers_mut().append(name, value);
    });
    Some(request)
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at(colon);
    let value = value[1..].trim_ascii();
    Some((
        HeaderName::from_bytes(name).ok()?,
        HeaderValue::from_bytes(value).ok()?,
    ))
}

pub(crate) fn run(bytes: &[u8]) {
    let Some(request) = read(bytes) else { return };
    let headers = request.headers();
    let _wanted = wants_websocket(&request);
    if let Ok(shaken) = handshake(request.version(), headers) {
        assert_eq!(shaken.accept.len(), 28);
        assert!(headers.contains_key("sec-websocket-version"));
    }
    if let Some(found) = token(request.uri(), headers) {
        check_token(&found, &request);
    }
    let peer = [10, 0, 0, 1].into();
    let believed = client(Some(peer), headers, &["10.0.0.0/8".parse().unwrap()]);
    let plain = client(Some(peer), headers, &["192.0.2.0/24".parse().unwrap()]);
    assert_eq!((plain.ip, &plain.forwarded_scheme), (Some(peer), &None));
    let base = "https://console.example/vnc.html".parse().unwrap();
    let allowed = ["portal.example".to_owned()];
    for viewer in [plain, believed] {
        let verdict = check_origin(headers, &viewer, &base, &allowed);
        let unnamed = headers
            .get("origin")
            .is_some_and(|it| it == "null" || it.is_empty());
        assert!(
            !(unnamed && verdict.is_ok()),
            "an origin that names no site is admitted"
        );
    }
}

/// Nothing but a query or a cookie has a token, and nobody is shown it.
fn check_token(found: &Token, request: &Request<()>) {
    let query = request
        .uri()
        .query()
        .is_some_and(|query| query.contains('='));
    assert!(query || request.headers().contains_key("cookie"));
    assert_eq!(format!("{found:?}"), "Token(***)");
}
