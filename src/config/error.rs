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
    /// Tells the line and what is wrong, but shows nothing of the line beyond its key: the value
    /// might be a secret that was put into the wrong place.
    pub(super) fn syntax(error: &toml::de::Error, text: &str) -> Self {
        let before = error
            .span()
            .and_then(|span| text.get(..span.start))
            .unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default();
        let key = line
            .split_once('=')
            .map(|(key, _)| key.trim())
            .filter(|key| is_plain(key));
        let key = key.map_or_else(String::new, |key| format!(", {key}"));
        let message = error.message().trim_end();
        let nearest = nearest_match(message);
        let hint = nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
        Self::Syntax(format!("line {number}{key}: {message}{hint}"))
    }

    pub(super) fn in_file(self, path: &Path) -> Self {
        Self::InFile {
            path: path.to_owned(),
            error: Box::new(self),
        }
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
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
