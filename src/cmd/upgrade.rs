use clap::Args;
use http::Method;

use super::{Failure, Format, Question, output};
use crate::app::{UPGRADE, Upgraded};

/// Have another process take the place of the running vncgate, which keeps its sessions
#[derive(Args, Debug)]
pub(super) struct Upgrade {
    #[command(flatten)]
    question: Question,
}

impl Upgrade {
    pub(super) fn run(self) -> Result<(), Failure> {
        let remote = &self.question.remote;
        let upgraded: Upgraded = remote.call(Method::POST, UPGRADE, None)?;
        if self.question.output == Format::Json {
            return output::json(&upgraded);
        }
        output::line(&format!("process {} has taken over", upgraded.pid))
    }
}
