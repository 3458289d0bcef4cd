//! vncgate's relay beside others, in one run on one machine.
//!
//! All relay the same backends for the same clients, in turns; every payload byte is checked. What
//! counts are the ratios: absolute figures are the machine's of the day. The relay has one
//! processor for itself, clients and backends share another. `scripts/bench` fetches the others and
//! starts this.

mod backends;
mod client;
mod measure;
mod peers;
mod plain;
mod process;
mod table;

use std::io::Write;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::backends::Backends;
use crate::measure::Measure;
use crate::peers::{Make, Peer};
use crate::table::Table;

/// `--relay WAY BACKEND...` makes this program one of the relays.
const USAGE: &str = "usage: [--quick] [--rounds N] [--window MS] [--only MEASURE,...] \
    [--peers PEER,...] [--unpinned] [--write FILE] [--websockify PROGRAM] [--haproxy PROGRAM]";

/// How much of what.
#[derive(Debug)]
struct Plan {
    rounds: usize,
    window: Duration,
    /// Idle sessions held, in steps.
    held: Vec<usize>,
    measures: Vec<Measure>,
    makes: Vec<Make>,
    /// Whether the relay has a processor for itself.
    pinned: bool,
    write: Option<PathBuf>,
}

/// The figures of idle sessions, for the fewer and for the more of them.
const HELD: [[&str; 3]; 2] = [
    [
        "idle session of 2,000, KiB",
        "the same after a burst of 256 KiB, KiB",
        "CPU ms of 2 idle s",
    ],
    [
        "idle session of 9,500, KiB",
        "these after a burst of 256 KiB, KiB",
        "CPU ms of their 2 idle s",
    ],
];

/// Sessions held by a peer that forks a process of several MiB for each.
const FORKED: usize = 60;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    process::raise_descriptor_limit()?;
    if let [flag, way, backends @ ..] = arguments.as_slice()
        && flag == "--relay"
    {
        return plain::run(way, backends);
    }
    let plan = Plan::read(arguments)?;
    rustix::thread::set_current_timer_slack(NonZero::new(1))?;
    process::pin_load(plan.pinned)?;
    let backends = Backends::start()?;
    let mut table = Table::default();
    measure_all(&plan, &backends, &mut table)?;
    hold_all(&plan, &backends, &mut table)?;
    let (inside, outside): (Vec<_>, Vec<_>) =
        plan.makes.iter().cloned().partition(Make::is_inside_tls);
    let mut text = table.markdown(&outside)?;
    if !inside.is_empty() {
        text.push_str("\nInside TLS, of the relay's own, with a handshake for each session:\n\n");
        text.push_str(&table.markdown(&inside)?);
    }
    text.extend(["\n", &plan.describe(), "\n"]);
    writeln!(std::io::stdout(), "{text}")?;
    plan.write
        .as_ref()
        .map_or(Ok(()), |path| table::put(path, &text))
}

fn measure_all(plan: &Plan, backends: &Backends, table: &mut Table) -> Result<()> {
    let peers = plan.makes.iter().map(|make| start(plan, make, backends));
    let peers = peers.collect::<Result<Vec<_>>>()?;
    for round in 1..=plan.rounds {
        for measure in &plan.measures {
            for peer in &peers {
                say(&format!(
                    "round {round} of {}: {} {}",
                    plan.rounds,
                    measure.name(),
                    peer.make.name()
                ))?;
                table.add(&peer.make, measure.take(peer, backends, plan.window)?);
            }
        }
    }
    Ok(())
}

/// Idle sessions are held by fresh processes: what a busy one keeps would count as theirs.
fn hold_all(plan: &Plan, backends: &Backends, table: &mut Table) -> Result<()> {
    for make in &plan.makes {
        for (count, names) in plan.held.iter().zip(HELD) {
            let count = if make.forks() { FORKED } else { *count };
            say(&format!("{count} idle sessions: {}", make.name()))?;
            let peer = start(plan, make, backends)?;
            let memory = peer.tree().memory_kib()? / 1024.0;
            let own = peer.tree().own_memory_kib()? / 1024.0;
            let figures = measure::idle(&peer, count)?;
            let took = peer.took.as_secs_f64() * 1e3;
            table.add(make, vec![("start to ready, ms", took)]);
            table.add(make, vec![("memory at start, MiB", memory)]);
            table.add(make, vec![("of it no page of a file, MiB", own)]);
            table.add(make, names.into_iter().zip(figures).collect());
            if make.forks() {
                break;
            }
        }
    }
    Ok(())
}

fn start(plan: &Plan, make: &Make, backends: &Backends) -> Result<Peer> {
    process::pin_relay(plan.pinned)?;
    let peer = make.start(backends);
    process::pin_load(plan.pinned)?;
    peer
}

fn say(what: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "{what}")?)
}

impl Plan {
    fn read(arguments: Vec<String>) -> Result<Self> {
        let mut plan = Self::full();
        let (mut websockify, mut haproxy, mut wanted) = (None, None, None);
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{argument} wants a value"))
            };
            match argument.as_str() {
                "--quick" => plan.shorten(),
                "--rounds" => plan.rounds = value()?.parse()?,
                "--window" => plan.window = Duration::from_millis(value()?.parse()?),
                "--only" => plan.choose(&value()?),
                "--peers" => wanted = Some(value()?),
                "--unpinned" => plan.pinned = false,
                "--write" => plan.write = Some(value()?.into()),
                "--websockify" => websockify = Some(PathBuf::from(value()?)),
                "--haproxy" => haproxy = Some(PathBuf::from(value()?)),
                // What cargo bench adds by itself.
                "--bench" => {}
                _ => bail!("{USAGE}"),
            }
        }
        plan.makes.extend(haproxy.clone().map(Make::Haproxy));
        plan.makes.extend([Make::Copy, Make::Relay, Make::Greedy]);
        plan.makes.extend(websockify.map(Make::Websockify));
        plan.makes.extend([Make::Direct, Make::Wss]);
        plan.makes.extend(haproxy.map(Make::HaproxyTls));
        if let Some(wanted) = wanted {
            plan.makes
                .retain(|make| wanted.split(',').any(|name| name == make.name()));
        }
        Ok(plan)
    }

    fn full() -> Self {
        Self {
            rounds: 3,
            window: Duration::from_millis(1200),
            held: vec![2000, 9500],
            measures: Measure::ALL.to_vec(),
            makes: vec![Make::Vncgate, Make::Tunnel],
            pinned: process::processors() > 1,
            write: None,
        }
    }

    /// Some seconds, to see that it works.
    fn shorten(&mut self) {
        self.rounds = 1;
        self.window = Duration::from_millis(200);
        self.held = vec![100];
    }

    /// Some measures alone; `idle` is one, too.
    fn choose(&mut self, wanted: &str) {
        let wanted: Vec<_> = wanted.split(',').collect();
        self.measures
            .retain(|measure| wanted.contains(&measure.name()));
        if !wanted.contains(&"idle") {
            self.held.clear();
        }
    }
}

impl Plan {
    /// What a reader of the table has to know.
    fn describe(&self) -> String {
        let place = if self.pinned {
            "the relay had one processor for itself, clients and backends shared another"
        } else {
            "relay, clients and backends shared all processors"
        };
        format!(
            "Medians of {} interleaved rounds of {:?} for each figure; in brackets, how many times \
             that of the column vncgate's is. {}; {place}.",
            self.rounds,
            self.window,
            process::machine()
        )
    }
}
