use clap::Args;

use super::serve::start;
use super::{ConfigFile, Failure};
use crate::app::{Extras, RoleName, Roles};

/// `vncgate api`, `vncgate auth`, `vncgate compute`: one role in a process of its own
#[derive(Args, Debug)]
pub(super) struct One {
    #[command(flatten)]
    config: ConfigFile,
}

impl One {
    pub(super) fn run(self, role: RoleName) -> Result<(), Failure> {
        let extras = Extras {
            roles: Roles::of(&[role]),
            ..Extras::default()
        };
        start(self.config.read()?, self.config, Vec::new(), extras)
    }
}
