use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Fault, Finding, Found, Visit};
use crate::cmd::remote::{nobody_there, refusal};
use crate::cmd::{Exit, Failure};
use crate::http::{CallError, call_over_unix};

#[derive(Deserialize)]
struct Document {
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    version: String,
}

/// Whether a vncgate runs, and which.
pub(super) async fn look(visit: &Visit) -> Finding {
    let socket = visit.remote.socket().map_err(fault)?;
    let document: Document = visit.ask(Method::GET, "/openapi.json", None).await?;
    let (theirs, ours) = (document.info.version, env!("CARGO_PKG_VERSION"));
    let what = format!("vncgate {theirs} answers at {}", socket.display());
    if theirs == ours {
        return Ok(Found::Fine(what));
    }
    Ok(Found::Note {
        what,
        change: "this command is of another version than the program that runs: restart that one",
    })
}

impl Visit {
    /// Asks the running vncgate. Errors: with the command's exit code, and a word on what to do.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<T, Fault> {
        let socket = self.remote.socket().map_err(fault)?;
        let answer = call_over_unix(&socket, method, path, body).await;
        let answer = answer.map_err(|error| {
            fault(match error {
                CallError::Connect(why) => nobody_there(&socket, &why),
                other => other.into(),
            })
        })?;
        if !answer.status.is_success() {
            return Err(fault(refusal(answer.status, &answer.body)));
        }
        serde_json::from_slice(&answer.body).map_err(|error| {
            let what = format!("the answer at {} makes no sense: {error}", socket.display());
            Fault::new(what, "run the doctor of the version that runs")
        })
    }
}

fn fault(failure: Failure) -> Fault {
    let change = match failure.exit {
        Exit::Unreachable => {
            "start it (`systemctl start vncgate`), or name its config (--config) or its socket \
             (--admin-socket)"
        }
        Exit::Denied => "run the doctor as the user that runs vncgate, or as root",
        _ => "the log of vncgate says more, under the id at the end",
    };
    Fault {
        exit: failure.exit,
        ..Fault::new(failure.message, change)
    }
}
