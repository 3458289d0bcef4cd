use std::time::Duration;

use serde::Serialize;

use super::{Finding, Found};
use crate::cmd::{Exit, Failure, Format, output};

/// What the outcomes and exit codes mean.
pub(in crate::cmd) const EXPLAINED: &str = "\
A line each: ok, note (it works, but should be looked at), none (nothing to look at), FAIL, or - (not
reached). Under the first FAIL stands what to change. Exit codes: 0 nothing failed, 3 the config is
not good, 4 there is no such instance, 5 the admin socket is another user's, 6 no vncgate answers,
1 anything else that failed. With -o json: {\"ok\", \"steps\": [{\"step\", \"outcome\", \"ms\", \"what\",
\"change\"}], \"not_walked\"}, with the outcomes ok, note, none, failed and unreached.";

/// What was found, step by step.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    ok: bool,
    steps: Vec<Row>,
    /// Which steps were left out, and why, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_walked: Option<String>,
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
    #[serde(skip)]
    remark: Remark,
}

/// What else is known of a step.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Remark {
    #[default]
    Nothing,
    /// It was left out.
    Left,
    /// Only the gateway has to get there, and this machine does not.
    Doubt,
    /// What failed may lie behind the gateway.
    Behind,
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
        let row = |outcome, what: String, change: &str| Self {
            outcome,
            what: output::harmless(&what),
            change: output::harmless(change),
            ms: Some((took.as_secs_f64() * 10_000.0).round() / 10.0),
            ..Self::unreached(step)
        };
        match finding {
            Ok(Found::Fine(what)) => row(Outcome::Ok, what, ""),
            Ok(Found::Note { what, change }) => row(Outcome::Note, what, change),
            Ok(Found::Nothing(why)) => row(Outcome::None, why, ""),
            Ok(Found::Left(why)) => row(Outcome::None, why, "").with(Remark::Left),
            Ok(Found::Doubt(fault)) => {
                row(Outcome::None, fault.what, &fault.change).with(Remark::Doubt)
            }
            Err(fault) => Self {
                exit: Some(fault.exit),
                remark: if fault.behind {
                    Remark::Behind
                } else {
                    Remark::Nothing
                },
                ..row(Outcome::Failed, fault.what, &fault.change)
            },
        }
    }

    fn with(self, remark: Remark) -> Self {
        Self { remark, ..self }
    }

    pub(super) fn unreached(step: &'static str) -> Self {
        Self {
            step,
            outcome: Outcome::Unreached,
            ms: None,
            what: String::new(),
            change: String::new(),
            exit: None,
            remark: Remark::Nothing,
        }
    }

    /// What cannot be reached from here is no fault after all, for this reason.
    fn relieve(&mut self, but: &str) {
        self.what = format!("not reachable from this machine ({}); {but}", self.what);
        self.change.clear();
    }

    /// What cannot be reached from here is what ended the walk.
    fn convict(&mut self, seen: Option<&str>) {
        self.outcome = Outcome::Failed;
        self.exit = Some(Exit::Failure);
        if let Some(seen) = seen {
            self.what = format!("{}; nor does the gateway get there: {seen}", self.what);
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

    /// Says at the end of the walk what was left out, and what doubts were worth: nothing where the
    /// gateway gets to what this machine does not reach; all where it does not either, or where
    /// nobody could see.
    pub(super) fn settle(&mut self, is_reached: bool) {
        self.not_walked = self.left_out();
        if !self.steps.iter().any(|row| row.remark == Remark::Doubt) {
            return;
        }
        let failed = self.steps.iter_mut().find(|row| row.exit.is_some());
        let relief = match failed {
            _ if is_reached => Ok("the gateway reaches it"),
            Some(row) if row.remark != Remark::Behind => {
                Ok("the way ended before it showed whether the gateway reaches it")
            }
            Some(row) => {
                let unreached = Row::unreached(row.step);
                Err(Some(std::mem::replace(row, unreached).what))
            }
            None => Err(None),
        };
        let doubts = self.steps.iter_mut();
        for row in doubts.filter(|row| row.remark == Remark::Doubt) {
            match &relief {
                Ok(but) => row.relieve(but),
                Err(seen) => row.convict(seen.as_deref()),
            }
        }
        self.exit = self.steps.iter().find_map(|row| row.exit);
    }

    fn left_out(&self) -> Option<String> {
        let left = self.steps.iter().filter(|row| row.remark == Remark::Left);
        let why = &left.clone().next()?.what;
        let names: Vec<_> = left.map(|row| row.step).collect();
        Some(format!("not walked, because {why}: {}", names.join(", ")))
    }

    /// Writes it, and tells by the exit code how it is. Errors: the first failure's.
    pub(super) fn write(mut self, format: Format) -> Result<(), Failure> {
        self.ok = !self.failed();
        match format {
            Format::Json => output::json(&self)?,
            Format::Table => {
                let lines = self.steps.iter().map(Row::line);
                let last = self.not_walked.iter().map(|it| format!("{it}\n"));
                let lines: String = lines.chain(last).collect();
                output::write(lines.as_bytes())?;
            }
        }
        self.exit
            .map_or(Ok(()), |exit| Err(Failure::new(exit, String::new())))
    }
}
