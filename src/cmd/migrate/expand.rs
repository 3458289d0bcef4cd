//! `$name` in a value: another option's value.
//!
//! Called by [`super::settings`]. The rules are oslo.config's: `$name` and `${name}` are an option
//! of the same section, else of `[DEFAULT]`; `$group.name` is one of that section; `$$` and `\$`
//! are a dollar sign. What names nothing stays as it is, and is told.

use super::ini::{self, DEFAULT};
use super::options;
use super::settings::Settings;

/// `text` with everything in it expanded, and the first name in it that could not be.
pub(super) fn expand(settings: &Settings, text: &str, group: &str) -> (String, Option<String>) {
    let mut expansion = Expansion {
        settings,
        budget: 1000,
        unknown: None,
    };
    let value = expansion.expand(text, group, 8);
    (value, expansion.unknown)
}

/// The longest that a value may become, in bytes.
const LONGEST: usize = 64 * 1024;

/// Puts the values of options for their names.
struct Expansion<'a> {
    settings: &'a Settings,
    /// How many names may still be looked up; values may name values, and in circles.
    budget: usize,
    unknown: Option<String>,
}

impl Expansion<'_> {
    fn expand(&mut self, text: &str, group: &str, depth: usize) -> String {
        let text = text.replace("\\$", "$$");
        let mut expanded = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            rest = after;
            if let Some(after) = rest.strip_prefix('$') {
                expanded.push('$');
                rest = after;
            } else if let Some((name, written, after)) = name_at_start(rest) {
                match self.look_up(name, group, depth) {
                    Some(value) if expanded.len() + value.len() <= LONGEST => {
                        expanded.push_str(&value);
                    }
                    _ => {
                        let _first = self.unknown.get_or_insert_with(|| name.to_owned());
                        expanded.push('$');
                        expanded.push_str(written);
                    }
                }
                rest = after;
            } else {
                expanded.push('$');
            }
        }
        expanded + rest
    }

    /// What an option of this group, or `group.name`, or else of all services is.
    fn look_up(&mut self, name: &str, group: &str, depth: usize) -> Option<String> {
        self.budget = self.budget.checked_sub(1)?;
        let depth = depth.checked_sub(1)?;
        if let Some((group, name)) = name.split_once('.') {
            return self.value_of(&ini::section(group), name, depth);
        }
        let own = self.value_of(group, name, depth);
        own.or_else(|| self.value_of(DEFAULT, name, depth))
    }

    fn value_of(&mut self, group: &str, name: &str, depth: usize) -> Option<String> {
        let known = options::find(group, name);
        let names = match known {
            Some(known) => known.names(),
            None => vec![(group, name)],
        };
        if let Some((_, found)) = self.settings.find(&names) {
            return Some(self.expand(&found.value, group, depth));
        }
        known.and_then(|known| known.default).map(str::to_owned)
    }
}

/// The name that `text`, what follows a `$`, begins with: `name` or `{name}`; as it is written; and
/// the rest.
fn name_at_start(text: &str) -> Option<(&str, &str, &str)> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let other = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let braced = text.strip_prefix('{');
    let name_on = braced.unwrap_or(text);
    if !name_on.starts_with(first) {
        return None;
    }
    let end = name_on.find(|c| !other(c)).unwrap_or(name_on.len());
    let (name, after) = name_on.split_at_checked(end)?;
    let after = match braced {
        Some(_) => after.strip_prefix('}')?,
        None => after,
    };
    let written = text.get(..text.len() - after.len())?;
    Some((name, written, after))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FILE: &str = "[DEFAULT]\nmy_ip = 10.0.0.5\na = $b\nb = ${a}\n[vnc]\nport = 7\n\
                        server_listen = $my_ip\n";

    fn expanded(text: &str) -> (String, Option<String>) {
        let mut settings = Settings::default();
        settings.add(Path::new("nova.conf"), FILE).unwrap();
        expand(&settings, text, "vnc")
    }

    #[test]
    fn names_are_looked_up_in_their_section_then_in_the_default_one() {
        for (text, value) in [
            ("http://$my_ip:6080/", "http://10.0.0.5:6080/"),
            ("${my_ip}0", "10.0.0.50"),
            ("$port", "7"),
            ("$vnc.server_listen", "10.0.0.5"),
            ("${DEFAULT.my_ip}", "10.0.0.5"),
            ("$novncproxy_port", "6080"),
            ("$spice.html5proxy_port", "6082"),
        ] {
            assert_eq!(expanded(text), (value.to_owned(), None), "{text}");
        }
    }

    #[test]
    fn a_dollar_sign_that_names_nothing_is_one() {
        for (text, value) in [
            ("a$$b", "a$b"),
            ("a\\$b", "a$b"),
            ("5$", "5$"),
            ("${", "${"),
            ("$5", "$5"),
        ] {
            assert_eq!(expanded(text), (value.to_owned(), None), "{text}");
        }
    }

    #[test]
    fn what_is_not_there_stays_and_is_told() {
        let unknown = |name: &str| Some(name.to_owned());
        assert_eq!(
            expanded("x$nope y"),
            ("x$nope y".to_owned(), unknown("nope"))
        );
        assert_eq!(
            expanded("${no.pe}"),
            ("${no.pe}".to_owned(), unknown("no.pe"))
        );
        assert_eq!(
            expanded("$vnc.my_ip").1,
            unknown("vnc.my_ip"),
            "it is in another section"
        );
    }

    #[test]
    fn circles_and_floods_end() {
        assert!(expanded("$a").1.is_some());
        let level = |number| format!("a{number} = {}\n", format!("$a{}", number + 1).repeat(40));
        let levels: String = (0..30).map(level).collect();
        let flood = format!("[x]\n{levels}a30 = boom\n");
        let mut settings = Settings::default();
        settings.add(Path::new("nova.conf"), &flood).unwrap();

        let (value, unknown) = expand(&settings, "$a0", "x");

        assert!(
            unknown.is_some() && value.len() < 8 * LONGEST,
            "{}",
            value.len()
        );
    }
}
