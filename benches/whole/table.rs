//! Figures of several rounds as one table.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::measure::Figures;
use crate::peers::Make;

const BEGIN: &str = "<!-- bench: begin -->\n";
const END: &str = "<!-- bench: end -->\n";

/// What was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// In the order in which they first came.
    rows: Vec<&'static str>,
    cells: HashMap<(&'static str, &'static str), Vec<f64>>,
}

impl Table {
    pub(crate) fn add(&mut self, make: &Make, figures: Figures) {
        for (row, figure) in figures {
            if !self.rows.contains(&row) {
                self.rows.push(row);
            }
            self.cells
                .entry((row, make.name()))
                .or_default()
                .push(figure);
        }
    }

    /// Medians, and behind those of others how many times theirs the first one's is.
    pub(crate) fn markdown(&self, makes: &[Make]) -> Result<String> {
        let mut text = String::from("|");
        for make in makes {
            write!(text, " | {}", make.name())?;
        }
        let columns = "---:|".repeat(makes.len());
        writeln!(text, " |\n|---|{columns}")?;
        let first = makes.first().map_or("", Make::name);
        for row in &self.rows {
            write!(text, "| {row}")?;
            let ours = self.median(row, first);
            for make in makes {
                text.push_str(" | ");
                let Some(figure) = self.median(row, make.name()) else {
                    continue;
                };
                text.push_str(&short(figure));
                let ratio = ours.filter(|_| make.name() != first && figure > 0.0);
                if let Some(ours) = ratio {
                    write!(text, " ({}x)", short(ours / figure))?;
                }
            }
            writeln!(text, " |")?;
        }
        Ok(text)
    }

    fn median(&self, row: &'static str, make: &'static str) -> Option<f64> {
        let mut figures = self.cells.get(&(row, make))?.clone();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    }
}

/// Puts `text` between the two marks of a document.
pub(crate) fn put(path: &Path, text: &str) -> Result<()> {
    let document = fs::read_to_string(path)?;
    let (before, rest) = document
        .split_once(BEGIN)
        .context("no place for the table")?;
    let (_old, after) = rest.split_once(END).context("no end of the table")?;
    fs::write(path, [before, BEGIN, text, END, after].concat())?;
    Ok(())
}

/// A figure with as many digits as it deserves.
fn short(figure: f64) -> String {
    match figure {
        small if small < 10.0 => format!("{small:.2}"),
        medium if medium < 100.0 => format!("{medium:.1}"),
        large => format!("{large:.0}"),
    }
}
