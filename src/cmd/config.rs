use std::path::PathBuf;

use clap::Subcommand;

use super::failure::chain;
use super::serve::roles;
use super::{ConfigFile, Exit, Failure, output};
use crate::app::{App, RoleName, StartError};
use crate::config::{Config, EXAMPLE};

/// `vncgate config ...`
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Tell whether a config file is good
    Check {
        /// The file, if not the usual one
        file: Option<PathBuf>,
        /// Check it for a process that runs these roles: some of api, auth, compute and proxy
        #[arg(long, value_name = "ROLE", env = "VNCGATE_ROLE", value_delimiter = ',')]
        role: Vec<RoleName>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Print the config in force, defaults included
    Show {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Print a config file with every key and what it does
    Example,
}

impl ConfigCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Check { file, role, config } => {
                let Some(path) = file.or_else(|| config.path()) else {
                    output::say("no config file; the defaults are in force");
                    return Ok(());
                };
                let good = Config::read(&path)?;
                let refused = |error: StartError| Failure::new(Exit::Config, chain(&error));
                let plan = App::check(&good, &roles(&role)).map_err(refused)?;
                note_what_is_missing(&good);
                output::say(&format!("{} is good; {plan}", path.display()));
                Ok(())
            }
            Self::Show { config } => {
                let text = toml::to_string(&config.read()?)
                    .map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
                output::write(text.as_bytes())
            }
            Self::Example => output::write(EXAMPLE.as_bytes()),
        }
    }
}

/// A directory may come later, so that a missing one makes no config bad; but it may be a typo.
fn note_what_is_missing(config: &Config) {
    let xml = config.compute.xml.iter().map(|path| ("compute.xml", path));
    let qmp = config.compute.qmp.iter().map(|path| ("compute.qmp", path));
    let root = config.web.root.iter().map(|path| ("web.root", path));
    let tokens = &config.auth.token_file;
    let tokens = tokens.iter().map(|path| ("auth.token_file", path));
    for (key, path) in xml.chain(qmp).chain(root).chain(tokens) {
        if let Err(error) = std::fs::metadata(path) {
            output::say(&format!("note: {key}: {}: {error}", path.display()));
        }
    }
}
