//! What Nova's config files say together: the later file wins, older names count as new ones,
//! `$name` stands for another option.
//!
//! Called by everything in [`super`] that asks for an option. The rules are oslo.config's. Knows
//! what options are, but not what becomes of them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::expand::expand;
use super::ini::{self, Assignment, BadLine};
use crate::cmd::output::harmless;

/// An option of Nova's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Opt {
    pub(super) group: &'static str,
    pub(super) name: &'static str,
    /// The groups and names it had in older releases, which still count.
    older: &'static [(&'static str, &'static str)],
    /// What it is where nobody sets it.
    pub(super) default: Option<&'static str>,
}

/// Where a value stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Origin {
    /// In a file, perhaps by an older name.
    File {
        option: String,
        path: PathBuf,
        line: usize,
    },
    /// Nowhere: it is what Nova takes.
    Default { option: String },
}

/// A value, with everything in it expanded. `Debug` hides it: it may be a secret.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) value: String,
    pub(super) origin: Origin,
    /// The first name in it that could not be expanded, and stands as it was.
    pub(super) unknown: Option<String>,
}

/// Why the files cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    #[error("cannot read {}", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("{}: there is no *.conf in this directory", .0.display())]
    Empty(PathBuf),
    #[error("{}: line {line}: it is no UTF-8", .path.display())]
    NoText { path: PathBuf, line: usize },
    #[error("{}: {bad}", .path.display())]
    Line { path: PathBuf, bad: BadLine },
    #[error("{origin}: {why}")]
    Value { origin: Origin, why: String },
}

/// All files, in the order in which they count.
#[derive(Debug, Default)]
pub(super) struct Settings {
    files: Vec<File>,
}

/// What one file says.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    assignments: Vec<Assignment>,
}

impl Opt {
    pub(super) const fn new(group: &'static str, name: &'static str) -> Self {
        Self {
            group,
            name,
            older: &[],
            default: None,
        }
    }

    /// The same option, where these names count too.
    pub(super) const fn once(self, older: &'static [(&'static str, &'static str)]) -> Self {
        Self { older, ..self }
    }

    /// The same option, which is `default` where nobody sets it.
    pub(super) const fn or(self, default: &'static str) -> Self {
        Self {
            default: Some(default),
            ..self
        }
    }

    /// Whether this is what stands at that place.
    pub(super) fn is_called(&self, group: &str, name: &str) -> bool {
        let names = self.names().into_iter();
        let mut found = names.filter(|it| *it == (group, &*name.replace('-', "_")));
        found.next().is_some()
    }

    /// All its names, the newest first.
    pub(super) fn names(&self) -> Vec<(&'static str, &'static str)> {
        let own = std::iter::once((self.group, self.name));
        own.chain(self.older.iter().copied()).collect()
    }
}

impl Settings {
    /// Reads files, and directories of `*.conf`, in their order.
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        for path in paths {
            if !path.is_dir() {
                settings.read_file(path)?;
                continue;
            }
            for path in conf_files(path)? {
                settings.read_file(&path)?;
            }
        }
        Ok(settings)
    }

    fn read_file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let bytes =
            fs::read(path).map_err(|error| SettingsError::Unreadable(path.to_owned(), error))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            SettingsError::NoText {
                path: path.to_owned(),
                line: good.split(|byte| *byte == b'\n').count(),
            }
        })?;
        self.add(path, text)
    }

    /// Takes the text of a file that counts more than those before it.
    pub(super) fn add(&mut self, path: &Path, text: &str) -> Result<(), SettingsError> {
        let assignments = ini::parse(text).map_err(|bad| SettingsError::Line {
            path: path.to_owned(),
            bad,
        })?;
        self.files.push(File {
            path: path.to_owned(),
            assignments,
        });
        Ok(())
    }

    /// The files, in the order in which they were read.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| &*file.path)
    }

    /// Everything that the files assign, with where it stands.
    pub(super) fn assignments(&self) -> impl Iterator<Item = (&Assignment, Origin)> {
        self.files
            .iter()
            .flat_map(|file| file.assignments.iter().map(|it| (it, file.origin(it))))
    }

    /// What the files say. `None` if they do not, or say nothing (`key =`).
    pub(super) fn set(&self, option: &Opt) -> Option<Setting> {
        let (file, found) = self.find(&option.names())?;
        let setting = self.expanded(&found.value, option.group, file.origin(found));
        (!setting.value.is_empty()).then_some(setting)
    }

    /// What the files say in another section, where the option has its newest name alone.
    pub(super) fn set_in(&self, section: &str, option: &Opt) -> Option<Setting> {
        let section = ini::section(section);
        let (file, found) = self.find(&[(&*section, option.name)])?;
        let setting = self.expanded(&found.value, &section, file.origin(found));
        (!setting.value.is_empty()).then_some(setting)
    }

    /// What the files say, else what Nova takes.
    pub(super) fn get(&self, option: &Opt) -> Option<Setting> {
        if self.find(&option.names()).is_some() {
            return self.set(option);
        }
        let default = option.default?;
        let option = format!("[{}] {}", option.group, option.name);
        Some(Setting {
            value: default.to_owned(),
            origin: Origin::Default { option },
            unknown: None,
        })
    }

    /// Whether it is on. Errors: a word that is neither yes nor no.
    pub(super) fn is_on(&self, option: &Opt) -> Result<bool, SettingsError> {
        let Some(setting) = self.get(option) else {
            return Ok(false);
        };
        match &*setting.value.to_ascii_lowercase() {
            "true" | "1" | "on" | "yes" => Ok(true),
            "false" | "0" | "off" | "no" => Ok(false),
            _ => Err(setting.refused("it is neither true nor false")),
        }
    }

    /// The assignment that counts: of the latest file, by the newest name, the last one.
    pub(super) fn find(&self, names: &[(&str, &str)]) -> Option<(&File, &Assignment)> {
        self.files.iter().rev().find_map(|file| {
            let found = names.iter().find_map(|name| file.last(*name));
            found.map(|found| (file, found))
        })
    }

    fn expanded(&self, text: &str, group: &str, origin: Origin) -> Setting {
        let (value, unknown) = expand(self, text, group);
        Setting {
            value: value.trim().to_owned(),
            origin,
            unknown,
        }
    }
}

/// As `--config-dir` takes them: those that end in .conf, by their names.
fn conf_files(directory: &Path) -> Result<Vec<PathBuf>, SettingsError> {
    let unreadable = |error| SettingsError::Unreadable(directory.to_owned(), error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == "conf") && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(SettingsError::Empty(directory.to_owned()));
    }
    Ok(found)
}

impl File {
    fn last(&self, (group, name): (&str, &str)) -> Option<&Assignment> {
        let called = |it: &&Assignment| it.section == group && it.key.replace('-', "_") == name;
        self.assignments.iter().rfind(called)
    }

    fn origin(&self, assignment: &Assignment) -> Origin {
        Origin::File {
            option: format!("[{}] {}", assignment.section, assignment.key),
            path: self.path.clone(),
            line: assignment.line,
        }
    }
}

impl Setting {
    /// The parts of a list.
    pub(super) fn items(&self) -> Vec<&str> {
        let items = self.value.split([',', '\n']).map(str::trim);
        items.filter(|item| !item.is_empty()).collect()
    }

    /// The value as a number. Errors: it is none, or not within the limits.
    pub(super) fn number<T: std::str::FromStr>(&self) -> Result<T, SettingsError> {
        let number = self.value.parse();
        number.map_err(|_| self.refused("it is not a number that Nova would take"))
    }

    pub(super) fn refused(&self, why: &str) -> SettingsError {
        SettingsError::Value {
            origin: self.origin.clone(),
            why: why.to_owned(),
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting")
            .field("origin", &self.origin)
            .field("unknown", &self.unknown)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { option, path, line } => {
                let path = path.display().to_string();
                write!(f, "{} ({}:{line})", harmless(option), harmless(&path))
            }
            Self::Default { option } => write!(f, "{option} (Nova's default)"),
        }
    }
}
