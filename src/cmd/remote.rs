use std::io;
use std::path::Path;

use bytes::Bytes;
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
        let answer = self.fetch(method, path, body)?;
        serde_json::from_slice(&answer).map_err(|error| {
            let message = format!("the answer makes no sense ({error}); the same version?");
            Failure::new(Exit::Failure, message)
        })
    }

    /// The same, leaving the answer as it is.
    pub(super) fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Bytes, Failure> {
        let socket = self.socket()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let answer = runtime.block_on(call_over_unix(&socket, method, path, body));
        let answer = answer.map_err(|error| match error {
            CallError::Connect(why) => nobody_there(&socket, &why),
            other => other.into(),
        })?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        Err(refusal(answer.status, &answer.body))
    }
}

pub(super) fn nobody_there(socket: &Path, why: &io::Error) -> Failure {
    let socket = socket.display();
    if why.kind() == io::ErrorKind::PermissionDenied {
        let message = format!("{socket} is not yours: run this as the user that runs vncgate");
        return Failure::new(Exit::Denied, message);
    }
    let hint = "is `vncgate serve` running, and run by you?";
    let message = format!("no vncgate answers at {socket}: {why}; {hint}");
    Failure::new(Exit::Unreachable, message)
}

pub(super) fn refusal(status: StatusCode, body: &[u8]) -> Failure {
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
