//! A config in the making: keys with the remarks that stand above them, and what is said below all.
//!
//! Called by everything in [`super`] that turns options into keys. Each key is tried on the config
//! reader of this program before it is taken; one that would be refused stands behind a `#`, with
//! the reason, so that what is printed is always a good config. Knows nothing of Nova.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::secrets::Secret;
use crate::app::{App, Roles};
use crate::cmd::output::harmless;
use crate::config::Config;

/// The sections that can be written, in their order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    Proxy,
    ProxyVnc,
    Tls,
    Api,
    Auth,
    Compute,
    Host,
    Keystone,
    Monitor,
    Admin,
    Web,
    Log,
}

const ORDER: [Place; 12] = [
    Place::Proxy,
    Place::ProxyVnc,
    Place::Tls,
    Place::Api,
    Place::Auth,
    Place::Compute,
    Place::Host,
    Place::Keystone,
    Place::Monitor,
    Place::Admin,
    Place::Web,
    Place::Log,
];

impl Place {
    fn heading(self) -> &'static str {
        match self {
            Self::Proxy => "[proxy]",
            Self::ProxyVnc => "[proxy.vnc]",
            Self::Tls => "[tls]",
            Self::Api => "[api]",
            Self::Auth => "[auth]",
            Self::Compute => "[compute]",
            Self::Host => "[[compute.host]]",
            Self::Keystone => "[keystone]",
            Self::Monitor => "[monitor]",
            Self::Admin => "[admin]",
            Self::Web => "[web]",
            Self::Log => "[log]",
        }
    }

    /// The table of this section in `config`, made if it is not there.
    fn table(self, config: &mut Table) -> Option<&mut Table> {
        let mut at = config;
        let heading = self.heading();
        let is_list = heading.starts_with("[[");
        let names: Vec<&str> = heading.trim_matches(['[', ']']).split('.').collect();
        for (number, name) in names.iter().enumerate() {
            let list = is_list && number + 1 == names.len();
            let empty = if list {
                Value::Array(vec![Value::Table(Table::new())])
            } else {
                Value::Table(Table::new())
            };
            at = match at.entry((*name).to_owned()).or_insert(empty) {
                Value::Array(entries) => entries.last_mut()?.as_table_mut()?,
                other => other.as_table_mut()?,
            };
        }
        Some(at)
    }
}

/// A key with the remark above it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    remark: String,
    name: &'static str,
    value: Value,
}

impl Key {
    pub(super) fn new(
        remark: impl Into<String>,
        name: &'static str,
        value: impl Into<Value>,
    ) -> Self {
        Self {
            remark: remark.into(),
            name,
            value: value.into(),
        }
    }

    /// The same under another name.
    pub(super) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

/// What stands in a section.
#[derive(Debug)]
struct Entry {
    place: Place,
    /// Why the keys are not in force, or what else is to be said.
    remark: String,
    keys: Vec<Key>,
    stands: bool,
}

/// What will be printed.
#[derive(Debug, Default)]
pub(super) struct Draft {
    entries: Vec<Entry>,
    accepted: Table,
    changes: Vec<String>,
    losses: Vec<(String, Vec<String>)>,
    warnings: Vec<String>,
    secrets: Vec<Secret>,
}

impl Draft {
    /// Takes a key, unless this program would refuse it. Whether it did.
    pub(super) fn key(&mut self, place: Place, key: Key) -> bool {
        self.keys(place, vec![key])
    }

    /// Takes keys that are refused or accepted as one.
    pub(super) fn keys(&mut self, place: Place, keys: Vec<Key>) -> bool {
        let outcome = self.with(place, &keys);
        let stands = outcome.is_ok();
        let remark = match outcome {
            Ok(config) => {
                self.accepted = config;
                String::new()
            }
            Err(why) => format!("Not taken over, since vncgate refuses it: {why}"),
        };
        self.entries.push(Entry {
            place,
            remark,
            keys,
            stands,
        });
        stands
    }

    /// Shows a key behind a `#`, for a person to fill in.
    pub(super) fn suggest(&mut self, place: Place, key: Key) {
        self.entries.push(Entry {
            place,
            remark: String::new(),
            keys: vec![key],
            stands: false,
        });
    }

    /// Says something within a section.
    pub(super) fn remark(&mut self, place: Place, remark: impl Into<String>) {
        self.entries.push(Entry {
            place,
            remark: remark.into(),
            keys: Vec::new(),
            stands: false,
        });
    }

    /// Whether the config so far would be good with this key.
    pub(super) fn would_take(&self, place: Place, key: Key) -> bool {
        self.with(place, &[key]).is_ok()
    }

    /// Says below the config what will be different.
    pub(super) fn change(&mut self, text: impl Into<String>) {
        self.changes.push(text.into());
    }

    /// Says below the config what of Nova's becomes nothing, and why.
    pub(super) fn loss(&mut self, option: String, why: &str) {
        let known = self.losses.iter_mut().find(|(reason, _)| reason == why);
        match known {
            Some((_, options)) => options.push(option),
            None => self.losses.push((why.to_owned(), vec![option])),
        }
    }

    /// Says on stderr what must be looked at before the config can work.
    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Remembers what belongs into a file and not into the config.
    pub(super) fn secret(&mut self, secret: Secret) {
        self.secrets.push(secret);
    }

    pub(super) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How many options of Nova's became nothing.
    pub(super) fn lost(&self) -> usize {
        self.losses.iter().map(|(_, options)| options.len()).sum()
    }

    /// The config so far with these keys. Errors: why this program would refuse it.
    fn with(&self, place: Place, keys: &[Key]) -> Result<Table, String> {
        let mut table = self.accepted.clone();
        if let Some(section) = place.table(&mut table) {
            for key in keys {
                let _old = section.insert(key.name.to_owned(), key.value.clone());
            }
        }
        let config = Config::parse(&table.to_string());
        let config = config.map_err(|error| without_line(&error.to_string()).to_owned())?;
        // Files with secrets may be still to come; the ways to hypervisors can be judged now.
        let ways = Config {
            compute: config.compute,
            ..Config::default()
        };
        App::check(&ways, &Roles::default()).map_err(|error| error.to_string())?;
        Ok(table)
    }

    /// The config as text.
    pub(super) fn text(&self, head: &str) -> String {
        let mut text = commented(head);
        for place in ORDER {
            text.push_str(&self.section(place));
        }
        text.push_str(&list("What changes:", &self.changes));
        let losses = self.losses.iter();
        let losses: Vec<String> = losses
            .map(|(why, options)| format!("{}: {why}.", options.join(", ")))
            .collect();
        text.push_str(&list("What has no equivalent:", &losses));
        text
    }

    fn section(&self, place: Place) -> String {
        let entries = self.entries.iter().filter(|it| it.place == place);
        let entries: Vec<&Entry> = entries.collect();
        if entries.is_empty() {
            return String::new();
        }
        // Without a key a section says nothing, or too little.
        let empty = entries.iter().all(|it| !it.stands);
        let mark = if empty { "#" } else { "" };
        let body: String = entries.into_iter().map(Entry::text).collect();
        format!("\n{mark}{}\n{body}", place.heading())
    }
}

/// The line is of a text that nobody sees.
fn without_line(message: &str) -> &str {
    let rest = message
        .strip_prefix("line ")
        .and_then(|rest| rest.split_once(": "));
    rest.map_or(message, |(_, rest)| rest)
}

impl Entry {
    fn text(&self) -> String {
        let mut text = commented(&self.remark);
        for Key {
            remark,
            name,
            value,
        } in &self.keys
        {
            text.push_str(&commented(remark));
            let line = format!("{name} = {value}");
            let line = if self.stands {
                line
            } else {
                format!("#{}", harmless(&line))
            };
            let _infallible = writeln!(text, "{line}");
        }
        text
    }
}

fn list(title: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let mut text = format!("\n# {title}\n");
    for item in items {
        for (number, line) in folded(&harmless(item), 96).iter().enumerate() {
            let mark = if number == 0 { "- " } else { "  " };
            let _infallible = writeln!(text, "# {mark}{line}");
        }
    }
    text
}

/// Text as comment lines; nothing in it can end the comment.
fn commented(text: &str) -> String {
    let lines = text.lines().flat_map(|line| folded(&harmless(line), 98));
    let lines = lines.flat_map(|line| ["# ".to_owned(), line, "\n".to_owned()]);
    lines.collect()
}

/// Lines of at most `width` characters, as far as words allow.
fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        if let Some(line) = lines.last_mut() {
            let fits = line.chars().count() + 1 + word.chars().count() <= width;
            if line.is_empty() {
                line.push_str(word);
            } else if fits {
                line.push(' ');
                line.push_str(word);
            } else {
                lines.push(word.to_owned());
            }
        }
    }
    lines
}
