//! What the roles' errors are over HTTP.

use http::StatusCode;

use crate::auth::AuthError;
use crate::compute::ComputeError;
use crate::http::Reject;
use crate::rpc::Unreachable;

impl From<AuthError> for Reject {
    fn from(error: AuthError) -> Self {
        let detail = error.to_string();
        match error {
            AuthError::Unknown => Self::new(StatusCode::NOT_FOUND, "no-such-token", detail),
            AuthError::NoSession(_) => Self::new(StatusCode::NOT_FOUND, "no-such-session", detail),
            AuthError::Used | AuthError::Occupied | AuthError::Limit(_) => {
                Self::new(StatusCode::CONFLICT, "session-refused", detail)
            }
            AuthError::Full(_) => Self::retry("too-many-tokens", detail, 30),
            AuthError::Elsewhere(_) => Self::new(StatusCode::CONFLICT, "tokens-elsewhere", detail),
            AuthError::NoConsole(_) => Self::new(StatusCode::CONFLICT, "no-console", detail),
            AuthError::Source(_) | AuthError::Store(_) => {
                Self::retry("tokens-unavailable", detail, 5)
            }
            AuthError::Unreachable(error) => error.into(),
        }
    }
}

impl From<ComputeError> for Reject {
    fn from(error: ComputeError) -> Self {
        let detail = error.to_string();
        let (status, code) = match error {
            ComputeError::NoSuchInstance { .. } => (StatusCode::NOT_FOUND, "no-such-instance"),
            ComputeError::Ambiguous { .. } => (StatusCode::CONFLICT, "ambiguous-name"),
            ComputeError::NoAddress { .. } => (StatusCode::CONFLICT, "console-not-ready"),
            ComputeError::Off { .. } => (StatusCode::CONFLICT, "instance-off"),
            ComputeError::NoSuchConsole { .. } => (StatusCode::BAD_REQUEST, "no-such-console"),
            ComputeError::NoPicture { .. } => (StatusCode::BAD_REQUEST, "no-picture"),
            ComputeError::NoLog { .. } => (StatusCode::NOT_FOUND, "no-log"),
            ComputeError::Claimed { .. } => (StatusCode::CONFLICT, "address-claimed"),
            ComputeError::Source { .. }
            | ComputeError::NotOpened { .. }
            | ComputeError::Crowded { .. }
            | ComputeError::Unready(_) => {
                return Self::retry("source-unavailable", detail, 5);
            }
            ComputeError::Unreachable(error) => return error.into(),
        };
        Self::new(status, code, detail)
    }
}

impl From<Unreachable> for Reject {
    fn from(error: Unreachable) -> Self {
        Self::retry("role-unreachable", error.to_string(), 5)
    }
}
