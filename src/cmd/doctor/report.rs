use std::time::Duration;

use serde::Serialize;

use super::{Fault, Finding, Found};
use crate::cmd::{Exit, Failure, Format, output};

/// What the outcomes and exit codes mean.
pub(in crate::cmd) const EXPLAINED: &str = "\
A line each: ok, note (it works, but should be looked at), none (nothing to look at), FAIL, or - (not
reached). Under the first FAIL stands what to change. Exit codes: 0 nothing failed, 3 the config is
not good, 4 there is no such instance, 5 the admin socket is another user's, 6 no vncgate answers,
1 anything else that failed. With -o json: {\"ok\", \"steps\": [{\"step\", \"outcome\", \"ms\", \"what\",
\"change\"}]}, with the outcomes ok, note, none, failed and unreached.";

/// What was found, step by step.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    ok: bool,
    steps: Vec<Row>,
    #[serde(skip)]
    exit: Option<Exit>,
}

/// One step.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    step: &'static str,
    outcome: Outcome,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<f64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    change: String,
    #[serde(skip)]
    exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Note,
    None,
    Failed,
    Unreached,
}

impl Outcome {
    /// As a person sees it.
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::None => "none",
            Self::Failed => "FAIL",
            Self::Unreached => "-",
        }
    }
}

impl Row {
    pub(super) fn new(step: &'static str, took: Duration, finding: Finding) -> Self {
        let (outcome, what, change, exit) = match finding {
            Ok(Found::Fine(what)) => (Outcome::Ok, what, String::new(), None),
            Ok(Found::Note { what, change }) => (Outcome::Note, what, change.to_owned(), None),
            Ok(Found::Nothing(why)) => (Outcome::None, why, String::new(), None),
            Err(Fault { what, change, exit }) => (Outcome::Failed, what, change, Some(exit)),
        };
        Self {
            step,
            outcome,
            ms: Some((took.as_secs_f64() * 10_000.0).round() / 10.0),
            what: output::harmless(&what),
            change: output::harmless(&change),
            exit,
        }
    }

    pub(super) fn unreached(step: &'static str) -> Self {
        Self {
            step,
            outcome: Outcome::Unreached,
            ms: None,
            what: String::new(),
            change: String::new(),
            exit: None,
        }
    }

    fn line(&self) -> String {
        let time = self.ms.map(|ms| format!("{ms:.1} ms")).unwrap_or_default();
        let (word, step, what) = (self.outcome.word(), self.step, &self.what);
        let line = format!("{word:<5} {step:<15} {time:>10}  {what}");
        let line = line.trim_end().to_owned();
        if self.change.is_empty() {
            return line + "\n";
        }
        format!("{line}\n      > {}\n", self.change)
    }
}

impl Report {
    pub(super) fn push(&mut self, row: Row) {
        self.exit = self.exit.or(row.exit);
        self.steps.push(row);
    }

    pub(super) fn failed(&self) -> bool {
        self.exit.is_some()
    }

    /// Writes it, and tells by the exit code how it is. Errors: the first failure's.
    pub(super) fn write(mut self, format: Format) -> Result<(), Failure> {
        self.ok = !self.failed();
        match format {
            Format::Json => output::json(&self)?,
            Format::Table => {
                let lines: String = self.steps.iter().map(Row::line).collect();
                output::write(lines.as_bytes())?;
            }
        }
        self.exit
            .map_or(Ok(()), |exit| Err(Failure::new(exit, String::new())))
    }
}
