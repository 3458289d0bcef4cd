use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Exit, Failure, Remote, output};
use crate::http::{CallError, call_over_unix};

/// The part of a problem document that a person reads.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    correlation: String,
}

impl Remote {
    /// Asks the running vncgate, and reads its answer.
    pub(super) fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<T, Failure> {
        let socket = self.socket()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let answer = runtime.block_on(call_over_unix(&socket, method, path, body));
        let answer = answer.map_err(|error| match error {
            CallError::Connect(why) => {
                let hint = "is `vncgate serve` running, and run by you?";
                let message = format!("no vncgate answers at {}: {why}; {hint}", socket.display());
                let denied = why.kind() == std::io::ErrorKind::PermissionDenied;
                let exit = if denied {
                    Exit::Denied
                } else {
                    Exit::Unreachable
                };
                Failure::new(exit, message)
            }
            other => other.into(),
        })?;
        if answer.status.is_success() {
            return serde_json::from_slice(&answer.body).map_err(|error| {
                let message = format!("the answer makes no sense ({error}); the same version?");
                Failure::new(Exit::Failure, message)
            });
        }
        Err(refusal(answer.status, &answer.body))
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let exit = match status {
        StatusCode::BAD_REQUEST => Exit::Usage,
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Denied,
        StatusCode::SERVICE_UNAVAILABLE => Exit::Unreachable,
        _ => Exit::Failure,
    };
    let message = serde_json::from_slice::<Problem>(body).map_or_else(
        |_| format!("refused with status {status}"),
        |problem| output::harmless(&format!("{} [{}]", problem.detail, problem.correlation)),
    );
    Failure::new(exit, message)
}
