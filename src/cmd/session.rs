use std::collections::HashMap;
use std::time::Duration;

use clap::Subcommand;
use http::Method;

use super::{Failure, Format, Question, output};
use crate::api::{SessionView, SessionsView};
use crate::model::{Rights, SessionId};

/// How often `session watch` looks.
const LOOK: Duration = Duration::from_secs(1);

/// `vncgate session ...`
#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// List the live sessions of all proxies
    List {
        #[command(flatten)]
        question: Question,
    },
    /// Show a live session
    Show {
        /// Its id, see `session list`
        session: SessionId,
        #[command(flatten)]
        question: Question,
    },
    /// End a session; its viewer is told that an operator did
    Kill {
        /// Its id, see `session list`
        session: SessionId,
        #[command(flatten)]
        question: Question,
    },
    /// Change what a session's viewer may do, at once, and what its URL opens with from now on
    Rights {
        /// Its id, see `session list`
        session: SessionId,
        /// control (everything), view (nothing but look), or a list of input, clipboard-in and
        /// clipboard-out with commas between
        rights: Rights,
        #[command(flatten)]
        question: Question,
    },
    /// Print a line for each session that lives, begins or ends, until interrupted
    Watch {
        #[command(flatten)]
        question: Question,
    },
}

impl SessionCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List { question } => {
                let view = all(&question)?;
                match question.output {
                    Format::Table if view.sessions.is_empty() => {
                        output::say("no live sessions");
                        Ok(())
                    }
                    Format::Table => show(&view.sessions),
                    Format::Json => output::json(&view),
                }
            }
            Self::Show { session, question } => ask(Method::GET, session, &question),
            Self::Kill { session, question } => {
                ask(Method::DELETE, session, &question)?;
                output::say("ended");
                Ok(())
            }
            Self::Rights {
                session,
                rights,
                question,
            } => change(session, rights, &question),
            Self::Watch { question } => watch(&question),
        }
    }
}

fn all(question: &Question) -> Result<SessionsView, Failure> {
    question.remote.call(Method::GET, "/v1/sessions", None)
}

fn ask(method: Method, session: SessionId, question: &Question) -> Result<(), Failure> {
    let path = format!("/v1/sessions/{session}");
    let view: SessionView = question.remote.call(method, &path, None)?;
    match question.output {
        Format::Table => show(&[view]),
        Format::Json => output::json(&view),
    }
}

fn change(session: SessionId, rights: Rights, question: &Question) -> Result<(), Failure> {
    let path = format!("/v1/sessions/{session}");
    let body = serde_json::json!({ "rights": rights }).to_string();
    let view: SessionView = question.remote.call(Method::PATCH, &path, Some(body))?;
    let now = view.rights;
    if (now.input, now.clipboard_in) != (rights.input, rights.clipboard_in) {
        output::say("its proxy has not answered yet; `session show` tells when it has");
    } else if now != rights {
        output::say(&format!(
            "what it may read of the console's clipboard stays as it was when it opened; its URL opens \
             with `{rights}` from now on, so `session kill` makes the rest count at once"
        ));
    }
    match question.output {
        Format::Table => show(&[view]),
        Format::Json => output::json(&view),
    }
}

fn watch(question: &Question) -> Result<(), Failure> {
    let mut known: HashMap<SessionId, SessionView> = HashMap::new();
    loop {
        let now = all(question)?.sessions;
        let mut before = std::mem::take(&mut known);
        for session in now {
            if before.remove(&session.id).is_none() {
                tell("began", &session, question.output)?;
            }
            let _new = known.insert(session.id, session);
        }
        for session in before.values() {
            tell("ended", session, question.output)?;
        }
        std::thread::park_timeout(LOOK);
    }
}

/// One line; in JSON with the field `event`.
fn tell(event: &str, session: &SessionView, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => {
            let line = serde_json::json!({ "event": event, "session": session });
            output::line(&line.to_string())
        }
        Format::Table => {
            let cells = row(session).map(|cell| output::harmless(&cell));
            output::line(&format!("{event}  {}", cells.join("  ")))
        }
    }
}

fn show(sessions: &[SessionView]) -> Result<(), Failure> {
    let rows: Vec<_> = sessions.iter().map(row).collect();
    let head = [
        "ID",
        "INSTANCE",
        "TYPE",
        "RIGHTS",
        "HOST",
        "WAY",
        "PROXY",
        "CALLER",
        "VIEWER",
        "STARTED",
        "LAST INPUT",
        "UP",
        "DOWN",
    ];
    output::table(head, &rows)
}

fn row(session: &SessionView) -> [String; 13] {
    let viewer = session.viewer.map(|ip| ip.to_string());
    [
        session.id.to_string(),
        session.instance.name.clone(),
        session.r#type.to_string(),
        session.rights.to_string(),
        session.host.clone(),
        session.way.map(|way| way.to_string()).unwrap_or_default(),
        session.proxy.clone(),
        session.caller.clone(),
        viewer.unwrap_or_default(),
        session.started_at.clone(),
        session.last_input_at.clone(),
        session.up.to_string(),
        session.down.to_string(),
    ]
}
