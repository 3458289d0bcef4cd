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
        let message = in_plain_words(error.message().trim_end());
        Self::Syntax(format!("line {number}{key}: {message}"))
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

/// The parsers' sentences in the words of the file. With a near match the list of all keys is left
/// out: it hides the answer.
fn in_plain_words(message: &str) -> String {
    let message = message.replacen("unknown field", "unknown key", 1);
    if let Some(nearest) = nearest_match(&message) {
        let unknown = message.split(", expected").next().unwrap_or_default();
        return format!("{unknown}; did you mean `{nearest}`?");
    }
    if message.starts_with("relative URL without a base") {
        return "a whole URL is needed, such as \"https://console.example.org\"".to_owned();
    }
    let Some((what, expected)) = message.rsplit_once(", expected ") else {
        let wanted = plainer(&message).map(|wanted| format!("expected {wanted}"));
        return wanted.unwrap_or(message);
    };
    let expected = plainer(expected).unwrap_or(expected);
    format!("{what}, expected {expected}")
}

/// What a parser wants, said for people.
fn plainer(expected: &str) -> Option<&'static str> {
    Some(match expected {
        "a sequence" => "a list: [\"...\"], or sections [[...]]",
        "usize" | "u16" => "a whole number",
        "a string" => "text in quotes",
        "socket address" | "invalid socket address syntax" => {
            "a numeric address with a port, such as \"127.0.0.1:6080\""
        }
        "invalid IP address syntax" => {
            "a network such as \"10.0.0.0/8\", or \"10.0.0.7/32\" for one address"
        }
        section if section.starts_with("struct ") => "a section [...]",
        _ => return None,
    })
}

/// The expected name that is most like the unknown one, from serde's own sentence:
/// "unknown key `a`, expected one of `b`, `c`".
fn nearest_match(message: &str) -> Option<&str> {
    if !message.starts_with("unknown key") && !message.starts_with("unknown variant") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    let likeness = |name: &&str| strsim::jaro_winkler(unknown, name);
    let best = quoted.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.75).then_some(best)
}
