//! `vncgate migrate`: another program's config as one of ours.
//!
//! [`ini`] reads Nova's files, `settings` says what they mean together, `options` knows the
//! options. `proxy`, `tokens` and `rest` turn them into keys of a `draft`, which tries each on our
//! own config reader. The config goes to stdout, talk to stderr, and secrets to neither.

mod draft;
mod expand;
pub mod ini;
mod options;
mod proxy;
mod rest;
mod secrets;
mod settings;
mod tokens;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use self::draft::Draft;
use self::options::ProxyOptions;
use self::settings::{Settings, SettingsError};
use super::failure::chain;
use super::{Exit, Failure, output};

/// `vncgate migrate ...`
#[derive(Debug, Subcommand)]
pub(super) enum MigrateCommand {
    /// Turn OpenStack Nova's config files into one of vncgate's, printed on stdout
    Nova(Nova),
}

/// Turn OpenStack Nova's config files into one of vncgate's, printed on stdout
#[derive(Args, Debug)]
pub(super) struct Nova {
    /// Nova's config files, such as /etc/nova/nova.conf; of a directory, its *.conf. Later ones win
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// What the config is for
    #[arg(long, env = "VNCGATE_MIGRATE_ROLE", default_value = "proxy")]
    role: Role,
    /// Which of Nova's proxies it stands in for
    #[arg(long, env = "VNCGATE_MIGRATE_CONSOLE", default_value = "novnc")]
    console: Console,
    /// Where a proxy looks Nova's tokens up [default: nova-db if the files name a database, else
    /// nova-api]
    #[arg(long, env = "VNCGATE_MIGRATE_SOURCE")]
    source: Option<Source>,
    /// Write passwords and database URLs into files in this directory, which is made if it is not
    /// there; without it the config names the files and says what belongs into them
    #[arg(long, value_name = "DIR", env = "VNCGATE_MIGRATE_SECRETS")]
    secrets: Option<PathBuf>,
}

/// What the config is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Role {
    /// To open the consoles that Nova hands out, in place of Nova's own proxy
    Proxy,
    /// To hand out consoles too: with Nova's API for consoles, and libvirt asked directly
    All,
}

/// Which consoles.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Console {
    /// nova-novncproxy
    Novnc,
    /// nova-spicehtml5proxy
    Spice,
    /// nova-serialproxy
    Serial,
}

/// Where Nova's tokens are looked up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Source {
    /// The database of the cell
    NovaDb,
    /// Nova's API, as a user of Keystone
    NovaApi,
}

impl Console {
    const ALL: [Self; 3] = [Self::Novnc, Self::Spice, Self::Serial];

    const fn options(self) -> &'static ProxyOptions {
        match self {
            Self::Novnc => &options::NOVNC,
            Self::Spice => &options::SPICE,
            Self::Serial => &options::SERIAL,
        }
    }

    /// The word of our command line.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Novnc => "novnc",
            Self::Spice => "spice",
            Self::Serial => "serial",
        }
    }

    /// Nova's name of the consoles' type.
    const fn console_type(self) -> &'static str {
        match self {
            Self::Spice => "spice-html5",
            other => other.as_str(),
        }
    }

    /// The key of ours that holds the base of the access URLs.
    const fn url_key(self) -> &'static str {
        match self {
            Self::Novnc => "novnc_url",
            Self::Spice => "spice_url",
            Self::Serial => "serial_url",
        }
    }
}

/// Where files with secrets are looked for, if nobody says.
const SECRETS: &str = "/etc/vncgate";

impl MigrateCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self::Nova(nova) = self;
        nova.run()
    }
}

impl Nova {
    fn run(self) -> Result<(), Failure> {
        let settings = Settings::read(&self.paths)?;
        self.note_other_files();
        let directory = self.secrets.clone().unwrap_or_else(|| SECRETS.into());
        let directory = std::path::absolute(directory)?;
        let plan = Plan::new(&self, &settings, &directory);
        let draft = plan.draft()?;
        let text = draft.text(&self.head(&settings));
        if self.secrets.is_some() {
            let written = secrets::write(draft.secrets(), &directory);
            let written = written.map_err(|error| Failure::new(Exit::Failure, chain(&error)))?;
            for path in written {
                output::say(&format!("wrote {}", path.display()));
            }
        }
        output::write(text.as_bytes())?;
        for warning in draft.warnings() {
            output::say(&format!("note: {}", output::harmless(warning)));
        }
        output::say(&summary(&draft));
        Ok(())
    }

    fn head(&self, settings: &Settings) -> String {
        let (what, command) = match self.role {
            Role::Proxy => {
                let program = self.console.options().program;
                (format!("in place of {program}"), "proxy")
            }
            Role::All => ("as a cloud's console service".to_owned(), "serve --all"),
        };
        let paths = settings
            .paths()
            .map(|path| format!("- {}\n", path.display()));
        let paths: String = paths.collect();
        format!(
            "vncgate {what}, as `vncgate migrate nova` makes it of what stands in\n{paths}Above each \
             key stands the option it comes from. Below all stands what changes. `vncgate {command}` \
             runs it."
        )
    }

    /// Nova's programs read such a directory unasked.
    fn note_other_files(&self) {
        for path in &self.paths {
            let mut directory = path.clone().into_os_string();
            directory.push(".d");
            let directory = PathBuf::from(directory);
            if directory.is_dir() && !self.paths.contains(&directory) {
                output::say(&format!(
                    "note: Nova reads {} too; name it behind {}",
                    directory.display(),
                    path.display()
                ));
            }
        }
    }
}

fn summary(draft: &Draft) -> String {
    format!(
        "{} no equivalent; the remarks say why. `vncgate config check FILE` tells whether an edited \
         config is good.",
        match draft.lost() {
            1 => "1 option has".to_owned(),
            number => format!("{number} options have"),
        }
    )
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::new(Exit::Config, chain(&error))
    }
}

/// What is made of which settings.
#[derive(Debug)]
struct Plan<'a> {
    settings: &'a Settings,
    role: Role,
    console: Console,
    source: Source,
    /// Where files with secrets are, or will be.
    directory: &'a Path,
    draft: Draft,
}

impl<'a> Plan<'a> {
    fn new(wanted: &Nova, settings: &'a Settings, directory: &'a Path) -> Self {
        let usual = match settings.set(&options::DATABASE) {
            Some(_) => Source::NovaDb,
            None => Source::NovaApi,
        };
        Self {
            settings,
            role: wanted.role,
            console: wanted.console,
            source: wanted.source.unwrap_or(usual),
            directory,
            draft: Draft::default(),
        }
    }

    fn draft(mut self) -> Result<Draft, SettingsError> {
        self.proxy()?;
        self.tokens()?;
        self.rest()?;
        Ok(self.draft)
    }
}

#[cfg(test)]
mod tests;
