//! Refusals as Nova says them: `{"conflictingRequest": {"code": 409, "message": "..."}}`.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::extend;
use crate::auth::AuthError;
use crate::http::{Body, Reject};

/// A refusal.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    pub(super) message: Cow<'static, str>,
    retry_after: Option<u16>,
}

/// What webob says where the reason is left to the reader.
const MALFORMED: &str = "The server could not comply with the request since it is either malformed or otherwise \
     incorrect.";

/// What is said of a method that the version asked for does not have.
pub(super) const NOT_FOUND: &str = "The resource could not be found.";

impl Fault {
    pub(super) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400 without a reason of its own.
    pub(super) fn malformed() -> Self {
        Self::bad_request(MALFORMED)
    }

    /// 404 for what the version asked for does not have.
    pub(super) fn no_such_method() -> Self {
        Self::new(StatusCode::NOT_FOUND, NOT_FOUND)
    }

    /// 404 for an instance, whether it is not there or another project's.
    pub(super) fn no_such_instance(id: &str) -> Self {
        let shown: String = id.chars().take(64).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            format!("Instance {shown} could not be found."),
        )
    }

    /// 403 by the policy of this name.
    pub(super) fn forbidden(policy: &str) -> Self {
        let why = format!("Policy doesn't allow {policy} to be performed.");
        Self::new(StatusCode::FORBIDDEN, why)
    }

    /// 503, to be tried again.
    pub(super) fn unavailable(message: impl Into<Cow<'static, str>>, seconds: u16) -> Self {
        Self {
            retry_after: Some(seconds),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut inner = json!({ "code": self.status.as_u16(), "message": self.message });
        if let (true, Some(seconds)) = (self.name() == OVER_LIMIT, self.retry_after) {
            extend(&mut inner, json!({ "retryAfter": seconds.to_string() }));
        }
        let mut response = crate::http::json(self.status, &json!({ self.name(): inner }));
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/json; charset=UTF-8");
        let _plain = headers.insert(CONTENT_TYPE, kind);
        if let Some(seconds) = self.retry_after {
            let _new = headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn name(&self) -> &'static str {
        match self.status.as_u16() {
            400 => "badRequest",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "itemNotFound",
            405 => "badMethod",
            409 => "conflictingRequest",
            413 | 429 => OVER_LIMIT,
            415 => "badMediaType",
            501 => "notImplemented",
            503 => "serviceUnavailable",
            _ => "computeFault",
        }
    }
}

const OVER_LIMIT: &str = "overLimit";

/// How long to wait before asking again for what failed outside.
pub(super) const SOON: u16 = 5;

impl From<AuthError> for Fault {
    fn from(error: AuthError) -> Self {
        let message = error.to_string();
        match error {
            AuthError::Unknown => Self::new(StatusCode::NOT_FOUND, "Token not found"),
            AuthError::Elsewhere(_)
            | AuthError::NoConsole(_)
            | AuthError::Used
            | AuthError::Occupied
            | AuthError::Limit(_)
            | AuthError::NoSession(_) => Self::new(StatusCode::CONFLICT, message),
            AuthError::Full(_)
            | AuthError::Source(_)
            | AuthError::Store(_)
            | AuthError::Unreachable(_) => Self::unavailable(message, SOON),
        }
    }
}

/// What the HTTP edge and the identity refuse, in this dialect.
impl From<Reject> for Fault {
    fn from(reject: Reject) -> Self {
        let retry = reject.status == StatusCode::SERVICE_UNAVAILABLE;
        Self {
            retry_after: retry.then_some(SOON),
            ..Self::new(reject.status, reject.detail)
        }
    }
}
