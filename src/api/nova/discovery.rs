//! The version documents, which clients read before anything else and without a token.

use http::header::{ACCEPT, HOST};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::super::Api;
use super::version::{NEWEST, OLDEST};
use super::{CURRENT, Dialect, LEGACY, extend};
use crate::http::{Body, Peer, Secure, json as answer};

/// Whether a request for the root is a client's that looks for versions, and no browser's.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("json") && !accept.contains("html"))
}

/// `GET /`: all versions.
pub(super) fn versions(own: &str) -> Response<Body> {
    let all = [Dialect::Legacy, Dialect::Current].map(|dialect| {
        let mut entry = common(dialect);
        let links = json!([self_link(own, dialect, "")]);
        extend(&mut entry, json!({ "links": links }));
        entry
    });
    answer(StatusCode::OK, &json!({ "versions": all }))
}

/// `GET /v2.1`: one version.
pub(super) fn version(own: &str, dialect: Dialect) -> Response<Body> {
    let mut document = common(dialect);
    let about = json!({
        "rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"
    });
    let links = json!([self_link(own, dialect, ""), about]);
    extend(
        &mut document,
        json!({ "links": links, "media-types": media_types(dialect) }),
    );
    answer(StatusCode::OK, &json!({ "version": document }))
}

/// `GET /v9`: which versions there are in its stead (300).
pub(super) fn choices(own: &str, path: &str) -> Response<Body> {
    let all = [Dialect::Current, Dialect::Legacy].map(|dialect| {
        json!({
            "id": id(dialect),
            "status": status(dialect),
            "links": [self_link(own, dialect, path.trim_start_matches('/'))],
            "media-types": media_types(dialect),
        })
    });
    answer(StatusCode::MULTIPLE_CHOICES, &json!({ "choices": all }))
}

/// How the client reached this API, without a slash at the end.
///
/// What the config says; else the `Host` of the request, and https if it came inside TLS of ours or,
/// as a trusted proxy says, of that proxy's.
pub(super) fn own_url(api: &Api, request: &Request<Incoming>, peer: Peer) -> String {
    if let Some(url) = &api.nova.public_url {
        return url.as_str().trim_end_matches('/').to_owned();
    }
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    let authority = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let authority = authority.map_or_else(|| "localhost".to_owned(), |it| it.to_string());
    let ours = request.extensions().get::<Secure>().is_some();
    let secure = ours || api.nova.is_trusted(peer) && forwarded_https(headers);
    let scheme = if secure { "https" } else { "http" };
    format!("{scheme}://{authority}")
}

fn forwarded_https(headers: &HeaderMap) -> bool {
    let scheme = headers.get("x-forwarded-proto");
    scheme.is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"))
}

fn common(dialect: Dialect) -> Value {
    let (newest, oldest, updated) = match dialect {
        Dialect::Current => (
            NEWEST.to_string(),
            OLDEST.to_string(),
            "2013-07-23T11:33:21Z",
        ),
        Dialect::Legacy => (String::new(), String::new(), "2011-01-21T11:33:21Z"),
    };
    json!({
        "id": id(dialect),
        "status": status(dialect),
        "version": newest,
        "min_version": oldest,
        "updated": updated,
    })
}

fn id(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Current => "v2.1",
        Dialect::Legacy => "v2.0",
    }
}

fn status(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Current => "CURRENT",
        Dialect::Legacy => "DEPRECATED",
    }
}

fn self_link(own: &str, dialect: Dialect, rest: &str) -> Value {
    let mount = match dialect {
        Dialect::Current => CURRENT,
        Dialect::Legacy => LEGACY,
    };
    json!({ "rel": "self", "href": format!("{own}{mount}/{rest}") })
}

fn media_types(dialect: Dialect) -> Value {
    let number = match dialect {
        Dialect::Current => "2.1",
        Dialect::Legacy => "2",
    };
    let kind = format!("application/vnd.openstack.compute+json;version={number}");
    json!([{ "base": "application/json", "type": kind }])
}
