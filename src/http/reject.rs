use std::borrow::Cow;

use http::header::{HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::body::{Body, json_as};
use crate::model::CorrelationId;

/// The only way from an error to an answer: an RFC 9457 problem document with a stable `code`,
/// a sentence for people, and the correlation id that the log line about it has too.
#[derive(Debug)]
pub struct Reject {
    /// The HTTP status.
    pub status: StatusCode,
    /// A stable word for programs.
    pub code: &'static str,
    /// What failed, on which value, what to do.
    pub detail: Cow<'static, str>,
    /// Ties this answer to the log.
    pub correlation: CorrelationId,
    /// One more header.
    header: Option<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Document<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    correlation: String,
}

impl Reject {
    /// A refusal.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let correlation = CorrelationId::generate();
        Self {
            status,
            code,
            detail: detail.into(),
            correlation,
            header: None,
        }
    }

    /// No such path.
    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "there is nothing at this address",
        )
    }

    /// No host, or two.
    pub fn bad_host() -> Self {
        let why = "a request names one host";
        Self::new(StatusCode::BAD_REQUEST, "bad-host", why)
    }

    /// Too much of something from one address: come back in `seconds`.
    pub fn too_many(detail: impl Into<Cow<'static, str>>, seconds: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", detail)
            .with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Busy or draining: come back in `seconds`.
    pub fn retry(code: &'static str, detail: impl Into<Cow<'static, str>>, seconds: u16) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
            .with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The same with a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The header of that name that the answer will carry.
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let (known, value) = self.header.as_ref()?;
        (known == name).then_some(value)
    }

    /// The answer.
    pub fn into_response(self) -> Response<Body> {
        let document = Document {
            title: self.status.canonical_reason().unwrap_or("Refused"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            correlation: self.correlation.to_string(),
        };
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = json_as(self.status, &document, kind);
        if let Some((name, value)) = self.header {
            let _new = response.headers_mut().insert(name, value);
        }
        response
    }
}
