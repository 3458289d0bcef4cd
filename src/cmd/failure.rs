use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::http::CallError;

/// Why a command ends with another code than 0; documented in `vncgate --help`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// It did not work.
    Failure = 1,
    /// It was asked wrongly.
    Usage = 2,
    /// The config file is not good.
    Config = 3,
    /// What was named does not exist.
    NotFound = 4,
    /// The caller may not.
    Denied = 5,
    /// Nobody answers.
    Unreachable = 6,
    /// The answer took too long.
    Timeout = 7,
    /// A second signal.
    Interrupted = 130,
}

/// A command's failure: how to exit, and what to say.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// One sentence; empty when there is nothing to say.
    pub message: String,
}

impl Failure {
    /// A failure with a sentence.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, chain(&error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Failure, error.to_string())
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let exit = match error {
            CallError::Connect(_) => Exit::Unreachable,
            CallError::Exchange(_) => Exit::Failure,
            CallError::Timeout => Exit::Timeout,
        };
        Self::new(exit, chain(&error))
    }
}

/// An error with all its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Says what went wrong on stderr and gives the exit code.
pub fn complain(failure: &Failure) -> ExitCode {
    if !failure.message.is_empty() {
        let _unread = writeln!(io::stderr(), "vncgate: {}", failure.message);
    }
    #[expect(clippy::as_conversions, reason = "an enum's own number")]
    ExitCode::from(failure.exit as u8)
}
