use std::io;
use std::path::{Path, PathBuf};

/// Why there is no config. Each message names the place and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// No TOML, an unknown key, or a value of the wrong shape.
    #[error("{0}")]
    Syntax(String),
    /// The value can be read but cannot work.
    #[error("{key}: {why}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Any of these, in a file.
    #[error("{}: {error}", .path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        error: Box<Self>,
    },
}

impl ConfigError {
    pub(super) fn syntax(error: &toml::de::Error) -> Self {
        let nearest = nearest_match(error.message());
        let hint = nearest.map_or_else(String::new, |name| format!("did you mean `{name}`?\n"));
        Self::Syntax(format!("{error}{hint}").trim_end().to_owned())
    }

    pub(super) fn in_file(self, path: &Path) -> Self {
        Self::InFile {
            path: path.to_owned(),
            error: Box::new(self),
        }
    }
}

/// The expected name that is most like the unknown one, from serde's own sentence:
/// "unknown field `a`, expected one of `b`, `c`".
fn nearest_match(message: &str) -> Option<&str> {
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    let likeness = |name: &&str| strsim::jaro_winkler(unknown, name);
    let best = quoted.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.75).then_some(best)
}
