use clap::Subcommand;

use super::{Failure, output};
use crate::model::ApiKey;

/// `vncgate key ...`
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key: printed once on stdout, and on stderr the config lines that admit it
    New {
        /// Whose it is, for logs and lists
        name: String,
    },
}

impl KeyCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self::New { name } = self;
        let key = ApiKey::generate();
        let name = toml::Value::String(name);
        output::say("# Put this into the config; the key itself is nowhere kept:");
        output::say(&format!(
            "[[api.key]]\nname = {name}\nsha256 = \"{}\"",
            key.hash()
        ));
        output::line(key.reveal())
    }
}
