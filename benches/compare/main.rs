//! vncgate's relay beside websockify's, in one run on one machine.
//!
//! Both relay the same backends for the same clients, in turns; every payload byte is checked.
//! What counts is the last column: absolute figures are the machine's of the day.
//! `scripts/compare` fetches websockify and starts this.

mod backends;
mod client;
mod measure;
mod proxies;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::backends::Backends;
use crate::measure::Figures;
use crate::proxies::Proxy;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    window: Duration,
    idle_sessions: usize,
    idle_sessions_of_websockify: usize,
}

const FULL: Plan = Plan {
    rounds: 5,
    window: Duration::from_secs(2),
    idle_sessions: 1000,
    // It forks a process of several MiB for each.
    idle_sessions_of_websockify: 60,
};

const QUICK: Plan = Plan {
    rounds: 1,
    window: Duration::from_millis(500),
    idle_sessions: 200,
    idle_sessions_of_websockify: 10,
};

fn main() -> Result<()> {
    let (websockify, plan) = arguments()?;
    raise_descriptor_limit()?;
    let backends = Backends::start()?;
    let ours = Proxy::vncgate(&backends)?;
    let theirs = Proxy::websockify(&websockify, &backends)?;
    let mut figures = [Vec::new(), Vec::new()];
    for round in 1..=plan.rounds {
        for (proxy, figures) in [&ours, &theirs].into_iter().zip(&mut figures) {
            writeln!(
                std::io::stderr(),
                "round {round} of {}: {}",
                plan.rounds,
                proxy.name
            )?;
            figures.push(Figures::take(proxy, &backends, plan.window)?);
        }
    }
    let memory = [
        measure::idle_session(&ours, plan.idle_sessions)?,
        measure::idle_session(&theirs, plan.idle_sessions_of_websockify)?,
    ];
    print(&figures, memory, plan)
}

fn arguments() -> Result<(PathBuf, Plan)> {
    let mut websockify = None;
    let mut plan = FULL;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--websockify" => websockify = arguments.next().map(PathBuf::from),
            "--quick" => plan = QUICK,
            // what cargo bench adds by itself
            "--bench" => {}
            other => bail!("unknown argument {other}; see scripts/compare"),
        }
    }
    let websockify = websockify.context("--websockify PROGRAM is missing; run scripts/compare")?;
    Ok((websockify, plan))
}

/// Two thousand sessions need four thousand descriptors here alone.
fn raise_descriptor_limit() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("the limit on open files")
}

/// One line of the table.
struct Row {
    what: &'static str,
    of: fn(&Figures) -> f64,
    /// Whether a larger figure is the better one.
    more_is_better: bool,
}

const ROWS: [Row; 7] = [
    Row {
        what: "down, MiB per CPU second",
        of: |figures| figures.down,
        more_is_better: true,
    },
    Row {
        what: "up in frames of 64 KiB, MiB per CPU second",
        of: |figures| figures.up_large,
        more_is_better: true,
    },
    Row {
        what: "up in frames of 1 KiB, MiB per CPU second",
        of: |figures| figures.up_small,
        more_is_better: true,
    },
    Row {
        what: "echo of 16 bytes, median µs",
        of: |figures| figures.echo_median,
        more_is_better: false,
    },
    Row {
        what: "echo of 16 bytes, 99th percentile µs",
        of: |figures| figures.echo_late,
        more_is_better: false,
    },
    Row {
        what: "new sessions per second",
        of: |figures| figures.sessions,
        more_is_better: true,
    },
    Row {
        what: "new sessions per CPU second",
        of: |figures| figures.sessions_per_cpu,
        more_is_better: true,
    },
];

fn print([ours, theirs]: &[Vec<Figures>; 2], memory: [f64; 2], plan: Plan) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "| | vncgate | websockify | vncgate is better by |")?;
    writeln!(out, "|---|---:|---:|---:|")?;
    for row in &ROWS {
        let [a, b] = [ours, theirs].map(|all| measure::median(all.iter().map(row.of).collect()));
        let ratio = if row.more_is_better { a / b } else { b / a };
        writeln!(
            out,
            "| {} | {} | {} | {ratio:.1}x |",
            row.what,
            short(a),
            short(b)
        )?;
    }
    let [a, b] = memory;
    let what = "memory of an idle session, KiB (PSS)";
    writeln!(
        out,
        "| {what} | {} | {} | {:.1}x |",
        short(a),
        short(b),
        b / a
    )?;
    writeln!(
        out,
        "\nMedians of {} interleaved runs of {:?} each; idle memory over {} and {} sessions.",
        plan.rounds, plan.window, plan.idle_sessions, plan.idle_sessions_of_websockify
    )?;
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
