//! The files of OpenStack's services, as oslo.config reads them.
//!
//! Called by [`super`] for each file, and by a fuzz target. Sections in brackets, `key = value` or
//! `key: value`, continued by lines that begin with a blank; `#` and `;` begin a comment at the
//! start of a line only. Knows no option and expands nothing. A line that cannot be read is named
//! by its number and never shown: it may hold a password.

use std::fmt;

/// The section of what stands for all services.
pub const DEFAULT: &str = "DEFAULT";

/// One `key = value`. `Debug` hides the value, which may be a secret.
#[derive(Clone, Eq, PartialEq)]
pub struct Assignment {
    /// The section's name, in lower case unless it is [`DEFAULT`].
    pub section: String,
    /// The key as it is written.
    pub key: String,
    /// The value; the lines of a continued one are joined by line ends.
    pub value: String,
    /// Where it begins, counted from 1.
    pub line: usize,
}

/// A line that says nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct BadLine {
    /// Which, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Why {
    /// `[vnc`
    #[error("a section ends in `]`")]
    OpenSection,
    /// `[]`
    #[error("a section needs a name")]
    NamelessSection,
    /// A line that is neither a section, nor a comment, nor an assignment.
    #[error("expected `key = value`")]
    NoAssignment,
    /// `= value`
    #[error("there is no key before the value")]
    NoKey,
    /// A line that begins with a blank and has nothing before it to continue.
    #[error("it begins with a blank, and there is no value that it could continue")]
    NothingToContinue,
    /// An assignment before the first section.
    #[error("it stands before the first [section]")]
    NoSection,
}

/// Reads one file.
pub fn parse(text: &str) -> Result<Vec<Assignment>, BadLine> {
    let mut reader = Reader::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        let line_number = number + 1;
        let taken = reader.take(line.trim_end(), line_number);
        taken.map_err(|why| BadLine {
            line: line_number,
            why,
        })?;
    }
    Ok(reader.done)
}

#[derive(Debug, Default)]
struct Reader {
    section: Option<String>,
    done: Vec<Assignment>,
    /// Whether the last of `done` can be continued.
    open: bool,
}

impl Reader {
    /// Takes a line without its end.
    fn take(&mut self, line: &str, number: usize) -> Result<(), Why> {
        if line.starts_with([' ', '\t']) {
            return self.continue_with(line.trim_start());
        }
        self.open = false;
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.strip_suffix(']').ok_or(Why::OpenSection)?;
            if name.is_empty() {
                return Err(Why::NamelessSection);
            }
            self.section = Some(section(name));
        } else if !line.is_empty() && !line.starts_with(['#', ';']) {
            let assignment = self.assignment(line, number)?;
            self.done.push(assignment);
            self.open = true;
        }
        Ok(())
    }

    fn continue_with(&mut self, more: &str) -> Result<(), Why> {
        let last = self.done.last_mut().filter(|_| self.open);
        let last = last.ok_or(Why::NothingToContinue)?;
        last.value.push('\n');
        last.value.push_str(more);
        Ok(())
    }

    fn assignment(&self, line: &str, number: usize) -> Result<Assignment, Why> {
        let (key, value) = line.split_once(['=', ':']).ok_or(Why::NoAssignment)?;
        let key = key.trim();
        if key.is_empty() {
            return Err(Why::NoKey);
        }
        Ok(Assignment {
            section: self.section.clone().ok_or(Why::NoSection)?,
            key: key.to_owned(),
            value: unquoted(value.trim()).to_owned(),
            line: number,
        })
    }
}

/// A section's name as it is known by.
pub(super) fn section(name: &str) -> String {
    if name == DEFAULT {
        name.to_owned()
    } else {
        name.to_lowercase()
    }
}

/// Without the quotes around it, if it has the same one at both ends.
fn unquoted(value: &str) -> &str {
    let within = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assignment")
            .field("section", &self.section)
            .field("key", &self.key)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a text assigns, as `section/key=value`.
    fn read(text: &str) -> Vec<String> {
        let told = parse(text).unwrap().into_iter();
        told.map(|it| format!("{}/{}={}", it.section, it.key, it.value))
            .collect()
    }

    #[test]
    fn keys_and_values_are_split_at_the_first_equals_sign_or_colon() {
        let text = "[DEFAULT]\na = 1\nb: 2\nc=x:y=z\nd:x=y\ne =\n";
        let expected = ["a=1", "b=2", "c=x:y=z", "d=x=y", "e="];
        assert_eq!(read(text), expected.map(|it| format!("DEFAULT/{it}")));
    }

    #[test]
    fn sections_are_known_without_case_but_for_the_default_one() {
        let text = "[DEFAULT]\na = 1\n[VNC]\na = 2\n[default]\na = 3\n";
        assert_eq!(read(text), ["DEFAULT/a=1", "vnc/a=2", "default/a=3"]);
    }

    #[test]
    fn indented_lines_continue_the_value_before_them_until_a_line_that_is_not() {
        let text = "[x]\na = 1,\n  2,\n\t# 3\nb = 4\n\n[y]\nc =\n 5\n";
        assert_eq!(read(text), ["x/a=1,\n2,\n# 3", "x/b=4", "y/c=\n5"]);
    }

    #[test]
    fn comments_stand_at_the_start_of_a_line_and_nowhere_else() {
        let text = "# a\n; b\n[x]\n#c = 1\n;d = 2\ne = 3 # not a comment\n";
        assert_eq!(read(text), ["x/e=3 # not a comment"]);
    }

    #[test]
    fn one_pair_of_quotes_around_a_value_is_taken_away() {
        let text = "[x]\na = \"b c\"\nd = 'e'\nf = \"g'\nh = '\ni = a'b'\n";
        assert_eq!(
            read(text),
            ["x/a=b c", "x/d=e", "x/f=\"g'", "x/h='", "x/i=a'b'"]
        );
    }

    #[test]
    fn files_of_other_systems_are_read_too() {
        assert_eq!(read("\u{feff}[x]\r\na = 1\r\n\r\n"), ["x/a=1"]);
    }

    #[test]
    fn a_line_that_says_nothing_is_refused_by_its_number() {
        for (text, line, why) in [
            ("[x]\n\n[vnc\n", 3, Why::OpenSection),
            ("[]\n", 1, Why::NamelessSection),
            ("[x]\npassword s3cret\n", 2, Why::NoAssignment),
            ("[x]\n= s3cret\n", 2, Why::NoKey),
            ("[x]\n  s3cret\n", 2, Why::NothingToContinue),
            ("[x]\na = 1\n# no\n  2\n", 4, Why::NothingToContinue),
            ("a = 1\n", 1, Why::NoSection),
        ] {
            let refused = parse(text).unwrap_err();
            assert_eq!(refused, BadLine { line, why }, "{text}");
            assert!(!refused.to_string().contains("s3cret"), "{refused}");
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let told = format!("{:?}", parse("[x]\na = s3cret\n").unwrap());
        assert!(told.contains("\"a\"") && !told.contains("s3cret"), "{told}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_every_line_it_names_is_there(text in "[\\[\\]a=:#; \t\r\n\"'$\u{e4}]{0,80}") {
            let lines = text.lines().count();
            match parse(&text) {
                Ok(all) => prop_assert!(all.iter().all(|it| (1..=lines).contains(&it.line))),
                Err(bad) => prop_assert!((1..=lines).contains(&bad.line)),
            }
        }
    }
}
