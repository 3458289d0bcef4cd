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
        output::say("# For the config:");
        output::say(&format!(
            "[[api.key]]\nname = {name}\nsha256 = \"{}\"",
            key.hash()
        ));
        output::say("\n# The key, shown this once:");
        output::line(key.reveal())
    }
}
