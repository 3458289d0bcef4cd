//! What an upgrade request says: handshake, token, origin, subprotocol, client address.
//!
//! Pure over headers. The rules are those of nova-novncproxy and websockify with their holes
//! closed; docs/design.md (decision 6) lists each difference. RFC 6455 section 4.2, RFC 6454.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Request, Uri, Version};
use percent_encoding::percent_decode_str;
use tungstenite::handshake::derive_accept_key;
use url::{Host, Url};

pub use crate::http::{Client, client};

use crate::http::words;
use crate::model::Token;

/// Whether the request asks for a WebSocket at all; all else gets pages.
pub fn wants_websocket<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET && has_word(request.headers(), &UPGRADE, "websocket")
}

/// What a correct opening handshake is answered with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Handshake {
    /// `Sec-WebSocket-Accept`.
    pub accept: String,
    /// Whether `binary` was offered, and is to be named in the answer.
    pub binary: bool,
}

/// Why a handshake is no handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadHandshake {
    /// HTTP/1.0 cannot upgrade (RFC 9110 section 7.8).
    #[error("a WebSocket needs HTTP/1.1; does a reverse proxy speak 1.0 to us?")]
    Http,
    /// Its bytes would be taken for frames.
    #[error("a WebSocket request has no body")]
    Body,
    /// `Connection` does not name `Upgrade`.
    #[error("a WebSocket request needs `Connection: Upgrade`; does a reverse proxy drop it?")]
    Connection,
    /// Another version than 13.
    #[error("only WebSocket version 13 is spoken here")]
    Version,
    /// No key of 16 bytes in base64.
    #[error("Sec-WebSocket-Key is missing or malformed")]
    Key,
    /// Subprotocols are offered, and `binary` is not among them.
    #[error("the only subprotocol spoken here is `binary`")]
    Subprotocol,
}

/// Checks the opening handshake (RFC 6455 section 4.2.1).
pub fn handshake(version: Version, headers: &HeaderMap) -> Result<Handshake, BadHandshake> {
    if version < Version::HTTP_11 {
        return Err(BadHandshake::Http);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if headers.contains_key(TRANSFER_ENCODING) || lengths.any(|length| length != "0") {
        return Err(BadHandshake::Body);
    }
    if !has_word(headers, &CONNECTION, "upgrade") {
        return Err(BadHandshake::Connection);
    }
    if sole(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(BadHandshake::Version);
    }
    let key = sole(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
    let accept = derive_accept_key(key.ok_or(BadHandshake::Key)?.as_bytes());
    let offered: Vec<&str> = words(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    let binary = offered.contains(&"binary");
    if !binary && !offered.is_empty() {
        return Err(BadHandshake::Subprotocol);
    }
    Ok(Handshake { accept, binary })
}

/// Sixteen bytes in base64: 22 digits and two of padding.
fn is_key(key: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.strip_suffix("==")
        .is_some_and(|digits| digits.len() == 22 && digits.bytes().all(digit))
}

/// The token: the last non-empty `token` of the query, else the last one among the cookies. A
/// token in the query counts even where it is wrong and the cookie's is right.
pub fn token(uri: &Uri, headers: &HeaderMap) -> Option<Token> {
    let text = query_token(uri.query().unwrap_or_default()).or_else(|| cookie_token(headers))?;
    Token::try_from(text).ok()
}

fn query_token(query: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let values = pairs
        .filter(|(key, _)| form_decode(key) == "token")
        .map(|(_, value)| value);
    values.map(form_decode).rfind(|value| !value.is_empty())
}

fn form_decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned()
}

fn cookie_token(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter();
    // Bytes, since other programs on this host may set cookies that are no ASCII.
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let pairs = pairs.filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='));
    let values = pairs
        .filter(|(name, _)| name.trim() == "token")
        .map(|(_, value)| unquoted(value.trim()));
    let mut values = values.filter(|value| !value.is_empty());
    values.next_back().map(str::to_owned)
}

fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(value)
}

/// Why a page on this origin may not open the console.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadOrigin {
    /// It names no host or no scheme: empty, `null`, no URL.
    #[error("origin `{0}` names no site")]
    Invalid(String),
    /// Its host is neither the gateway's nor allowed.
    #[error("origin `{origin}` is not `{expected}`")]
    Host {
        /// The page's host.
        origin: String,
        /// The host the request was sent to.
        expected: String,
    },
    /// Its scheme is not that of the URL that was handed out.
    #[error("origin scheme `{origin}` is not `{expected}`")]
    Scheme {
        /// The page's scheme.
        origin: String,
        /// The scheme of the console's URL.
        expected: String,
    },
}

/// Checks that the page asking is one of ours (against cross-site WebSocket hijacking).
///
/// No `Origin` at all is no browser, and passes. Else its host must be the request's own, that
/// of `base`, or in `allowed`; its scheme (or what a trusted proxy says it was) must be that of
/// `base`, where `ws` and `wss` admit `http` and `https` too. Ports do not count, nor does case.
pub fn check_origin(
    headers: &HeaderMap,
    client: &Client,
    base: &Url,
    allowed: &[String],
) -> Result<(), BadOrigin> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return Ok(());
    };
    if origins.next().is_some() {
        return Err(BadOrigin::Invalid("two at once".to_owned()));
    }
    let text = String::from_utf8_lossy(origin.as_bytes()).into_owned();
    let parsed = Url::parse(&text).ok();
    let host = parsed
        .as_ref()
        .and_then(Url::host_str)
        .filter(|host| !host.is_empty());
    let (Some(parsed), Some(host)) = (&parsed, host) else {
        return Err(BadOrigin::Invalid(shortened(&text)));
    };
    let expected = own_host(headers).unwrap_or_default();
    let admitted = |name: &str| same_host(name, host);
    if !admitted(&expected)
        && !base.host_str().is_some_and(admitted)
        && !allowed.iter().any(|name| admitted(name))
    {
        return Err(BadOrigin::Host {
            origin: shortened(host),
            expected: shortened(&expected),
        });
    }
    let scheme = client
        .forwarded_scheme
        .as_deref()
        .unwrap_or_else(|| parsed.scheme());
    let pages = match base.scheme() {
        "ws" => "http",
        "wss" => "https",
        other => other,
    };
    if scheme != base.scheme() && scheme != pages {
        return Err(BadOrigin::Scheme {
            origin: shortened(scheme),
            expected: pages.to_owned(),
        });
    }
    Ok(())
}

/// The host part of the one `Host` header, without port and brackets.
fn own_host(headers: &HeaderMap) -> Option<String> {
    let authority: http::uri::Authority = sole(headers, &HOST)?.parse().ok()?;
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host)?;
    let plain = port.is_empty() || authority.port_u16().is_some();
    (!host.is_empty() && plain).then(|| host.to_owned())
}

/// Compares names without case, and addresses by what they are.
fn same_host(a: &str, b: &str) -> bool {
    let normal = |host: &str| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let ip = bare
            .parse::<IpAddr>()
            .ok()
            .map(|ip| ip.to_canonical().to_string());
        ip.or_else(|| Host::parse(host).ok().map(|host| host.to_string()))
    };
    normal(a).is_some_and(|a| normal(b).is_some_and(|b| a == b))
}

/// What of a foreign text fits a close frame.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    words(headers, name).any(|found| found.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests;
