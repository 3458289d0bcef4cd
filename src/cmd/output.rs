use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

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

/// Writes what a guest wrote: as it is into a file or a pipe, harmless to a terminal.
pub(super) fn guest(bytes: &[u8]) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return write(bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| harmless(line) + "\n");
    write(lines.collect::<String>().as_bytes())
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

/// Text that a terminal obeys in nothing, and that turns nothing around: names of instances are
/// their owners' to choose.
pub(super) fn harmless(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Writes rows under a head, each column as wide as its widest cell. An empty cell is a dash, so
/// that columns can be counted.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<(), Failure> {
    write(lay_out(head, rows).as_bytes())
}

fn lay_out<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
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
    text
}

fn cell(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    harmless(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_moves_no_cursor_and_makes_no_line() {
        let row = |name: &str| [name.to_owned(), "on".to_owned()];

        let text = lay_out(["NAME", "STATE"], &[row("a\n\u{1b}[2J\u{9b}H"), row("web")]);

        assert_eq!(text.lines().count(), 3, "{text:?}");
        assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal_and_nothing_is_a_dash() {
        assert_eq!(cell("web\u{1b}[2J\u{202e}1"), "web\u{fffd}[2J\u{fffd}1");
        assert_eq!(cell("B\u{fc}ro 1"), "B\u{fc}ro 1");
        assert_eq!(cell(""), "-");
    }
}
