use clap::Args;
use http::Method;

use super::{Failure, Format, Question, output};
use crate::app::{RELOAD, Reloaded};

/// Have the running vncgate read its config again
#[derive(Args, Debug)]
pub(super) struct Reload {
    #[command(flatten)]
    question: Question,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), Failure> {
        let remote = &self.question.remote;
        let reloaded: Reloaded = remote.call(Method::POST, RELOAD, None)?;
        if self.question.output == Format::Json {
            return output::json(&reloaded);
        }
        for key in &reloaded.changed {
            output::line(&format!("{key}: in force"))?;
        }
        for key in &reloaded.restart {
            output::line(&format!("{key}: needs a restart"))?;
        }
        if reloaded == Reloaded::default() {
            output::say("nothing has changed");
        }
        Ok(())
    }
}
