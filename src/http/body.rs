use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Reject;

/// Every answer's body: whole, in memory.
pub type Body = Full<Bytes>;

/// The largest body a request may have, in bytes; ours are a few hundred.
const LARGEST: usize = 64 * 1024;

/// A plain text answer.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer(status, kind, Bytes::from(text.into()))
}

/// A JSON answer that nobody keeps a copy of.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    json_as(status, value, HeaderValue::from_static("application/json"))
}

pub(super) fn json_as(
    status: StatusCode,
    value: &impl Serialize,
    kind: HeaderValue,
) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => answer(status, kind, Bytes::from(bytes)),
        Err(_) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer could not be written\n",
        ),
    }
}

/// An answer of any kind that nobody keeps a copy of.
pub fn answer(status: StatusCode, kind: HeaderValue, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let _new = headers.insert(CONTENT_TYPE, kind);
    let _new = headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Reads a request's body as JSON. Errors: another content type, over 64 KiB, no JSON, another
/// shape. The content type is demanded because a page on a foreign site can not send it unasked.
pub async fn read_json<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Reject> {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let why = "the body must be application/json";
        return Err(Reject::new(status, "unsupported-media-type", why));
    }
    let bytes = collect(body).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let no_json = error.is_syntax() || error.is_eof();
        let what = if no_json { "no JSON: " } else { "" };
        let why = format!("{what}{error}");
        Reject::new(StatusCode::BAD_REQUEST, "bad-body", why)
    })
}

/// Reads a request's body, whatever it is. Errors: it breaks off; over 64 KiB.
pub async fn read_body(request: Request<Incoming>) -> Result<Bytes, Reject> {
    collect(request.into_body()).await
}

async fn collect(body: Incoming) -> Result<Bytes, Reject> {
    let collected = Limited::new(body, LARGEST).collect().await;
    let collected = collected.map_err(|error| {
        let large = error.is::<http_body_util::LengthLimitError>();
        let (status, code) = if large {
            (StatusCode::PAYLOAD_TOO_LARGE, "too-large")
        } else {
            (StatusCode::BAD_REQUEST, "broken-body")
        };
        Reject::new(status, code, format!("the body cannot be read: {error}"))
    });
    Ok(collected?.to_bytes())
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}
