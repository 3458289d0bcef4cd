//! A call as it travels: JSON over HTTP/2, a path per role.
//!
//! What a role answers, its errors included, is the body of a 200. Any other status is about the
//! call itself: nobody of that name here, not for you, not understood.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Role, Unreachable};

/// Tells both ends what the other one is, for the case that they do not understand each other.
const VERSION_HEADER: HeaderName = HeaderName::from_static("vncgate-version");

/// What we are.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What all paths begin with; the number changes when nothing at all can be understood any more.
const PREFIX: &str = "/rpc/v1/";

/// The largest request, in bytes: 500 sessions to be registered again are a megabyte.
pub(super) const LARGEST_REQUEST: usize = 8 << 20;

/// The largest answer, in bytes: a list of 100,000 tokens is 60 MB.
pub(super) const LARGEST_ANSWER: usize = 256 << 20;

/// A body that is all there.
pub(super) type Body = Full<Bytes>;

/// A request to a role at `base`, which is a scheme and an authority. `None`: it cannot be written.
pub(super) fn request(base: &str, role: &str, body: Bytes) -> Option<Request<Body>> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{base}{PREFIX}{role}"))
        .header(CONTENT_TYPE, "application/json")
        .header(VERSION_HEADER, VERSION);
    request.body(Full::new(body)).ok()
}

/// What a connection becomes that is upgraded.
const STREAM: HeaderValue = HeaderValue::from_static("vncgate-stream");

/// What is said of a stream before its bytes come.
const OPENED: HeaderName = HeaderName::from_static("vncgate-opened");

/// Asks for a stream of this name, over HTTP/1.1. `None`: it cannot be written.
pub(super) fn stream_request(name: &str, host: &str, body: Bytes) -> Option<Request<Body>> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{PREFIX}{name}"))
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, STREAM)
        .header(CONTENT_TYPE, "application/json")
        .header(VERSION_HEADER, VERSION);
    request.body(Full::new(body)).ok()
}

/// Whether a request is for a stream.
pub(super) fn wants_stream(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE) == Some(&STREAM)
}

/// The answer that a stream follows. `None`: what is said of it is no header.
pub(super) fn stream_answer(opened: &impl Serialize) -> Option<Response<Body>> {
    let opened = HeaderValue::from_maybe_shared(write(opened).ok()?).ok()?;
    let mut response = answer(StatusCode::SWITCHING_PROTOCOLS, Bytes::new());
    let headers = response.headers_mut();
    let _new = headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let _new = headers.insert(UPGRADE, STREAM);
    let _new = headers.insert(OPENED, opened);
    Some(response)
}

/// What was said of a stream.
pub(super) fn opened<T: DeserializeOwned>(headers: &HeaderMap) -> Result<T, ()> {
    let opened = headers.get(OPENED).ok_or(())?;
    read(opened.as_bytes()).map_err(|_| ())
}

/// Why there is no stream: what the role says, or what is wrong with the request itself.
pub(super) fn refusal<E: DeserializeOwned + From<Unreachable>>(
    role: &str,
    response: &Response<Bytes>,
) -> E {
    match response.status() {
        StatusCode::OK => match read(response.body()) {
            Ok(error) => error,
            Err(_) => confused(role, response).into(),
        },
        _ => fault(role, response).into(),
    }
}

/// The role that a path names.
pub(super) fn role(path: &str) -> Option<&str> {
    path.strip_prefix(PREFIX)
}

/// An answer to a call.
pub(super) fn answer(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let _new = headers.insert(VERSION_HEADER, HeaderValue::from_static(VERSION));
    response
}

/// What a value is on the wire.
pub(super) fn write(value: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(value).map(Bytes::from)
}

/// What the wire says a value is.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes)
}

/// Reads what a role answered.
pub(super) fn open<R: Role>(response: &Response<Bytes>) -> Result<R::Reply, R::Error> {
    let fault = match response.status() {
        StatusCode::OK => match read(response.body()) {
            Ok(answered) => return answered,
            Err(error) => {
                // Where, not what: the text may hold a token.
                let (line, column) = (error.line(), error.column());
                tracing::warn!(role = R::NAME, line, column, "an answer is not understood");
                confused(R::NAME, response)
            }
        },
        _ => fault(R::NAME, response),
    };
    Err(fault.into())
}

/// What a status other than 200 says.
fn fault(role: &str, response: &Response<Bytes>) -> Unreachable {
    match response.status() {
        StatusCode::NOT_FOUND if same_version(response.headers()) => {
            Unreachable::Gone(role.to_owned())
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Unreachable::Refused(role.to_owned()),
        StatusCode::SERVICE_UNAVAILABLE => Unreachable::Busy(role.to_owned()),
        _ => confused(role, response),
    }
}

/// Whoever answered so is of another version.
pub(super) fn confused(role: &str, response: &Response<Bytes>) -> Unreachable {
    Unreachable::Confused {
        role: role.to_owned(),
        theirs: version(response.headers()),
        ours: VERSION.to_owned(),
    }
}

fn same_version(headers: &HeaderMap) -> bool {
    version(headers) == VERSION
}

/// What the other end says that it is.
pub(super) fn version(headers: &HeaderMap) -> String {
    let version = headers.get(VERSION_HEADER);
    let version = version.and_then(|version| version.to_str().ok());
    let version = version.unwrap_or("(no vncgate at all)");
    version.chars().take(64).collect()
}
