use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

use super::Failure;

/// Writes data to stdout. A reader that has left (`| head`) is no failure.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes one line.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a value as indented JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    line(&text)
}

/// Says something to a person.
pub(super) fn say(text: &str) {
    let _unread = writeln!(io::stderr(), "{text}");
}

/// Writes rows under a head, each column as wide as its widest cell. An empty cell is a dash, so
/// that columns can be counted; what would steer the terminal, or turn text around, is replaced.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<(), Failure> {
    let head = head.map(str::to_owned);
    let rows: Vec<_> = rows
        .iter()
        .map(|row| row.each_ref().map(|text| cell(text)))
        .collect();
    let all = || std::iter::once(&head).chain(&rows);
    let mut widths = [0; N];
    for row in all() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _infallible = write!(line, "{cell:width$}  ");
        }
        let _infallible = writeln!(text, "{}", line.trim_end());
    }
    write(text.as_bytes())
}

fn cell(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal_and_nothing_is_a_dash() {
        assert_eq!(cell("web\u{1b}[2J\u{202e}1"), "web\u{fffd}[2J\u{fffd}1");
        assert_eq!(cell("B\u{fc}ro 1"), "B\u{fc}ro 1");
        assert_eq!(cell(""), "-");
    }
}
