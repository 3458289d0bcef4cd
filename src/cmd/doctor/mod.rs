//! `vncgate doctor`: walks the way of a console as its viewer would, and says where it ends.
//!
//! A list of steps ([`STEPS`]), each in the file that its name says; what a step finds out stands in
//! the [`Visit`] for those after it. The first step that fails ends the walk and tells what to
//! change. What only the gateway has to reach is a [`Found::Doubt`] where it cannot be reached from
//! here: the walk goes on, and its end tells what that was worth. Nobody's console is disturbed: the
//! doctor looks with the right to look, beside whoever is there, and revokes its token at the end.

mod admin;
mod config;
mod console;
mod instance;
mod line;
mod listener;
mod page;
mod public;
mod report;
mod screen;
mod target;
mod token;
mod words;

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, timeout};

use super::{Exit, Failure, Format, Remote};
use crate::api::{ConsoleView, InstanceView};
use crate::config::{Config, Period};
use line::Socket;
use report::{Report, Row};

pub(super) use report::EXPLAINED;

/// Walk the way to a console as a viewer would, and say where it ends and what to change
#[derive(Args, Debug)]
#[command(after_help = EXPLAINED)]
pub(super) struct Doctor {
    /// Whose console to look at, by name or UUID [default: the first that runs]
    instance: Option<String>,
    /// The CAs that the public URL's certificate is known by, in PEM [default: the system's]
    #[arg(long, value_name = "FILE", env = "VNCGATE_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// How long one step may take
    #[arg(
        long,
        value_name = "TIME",
        env = "VNCGATE_TIMEOUT",
        default_value = "5s"
    )]
    timeout: Period,
    /// How to write it
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        env = "VNCGATE_OUTPUT",
        default_value = "table"
    )]
    output: Format,
    #[command(flatten)]
    remote: Remote,
}

/// What a step that did not fail has to say.
#[derive(Debug)]
enum Found {
    /// All is well.
    Fine(String),
    /// It works, and this should be known.
    Note { what: String, change: &'static str },
    /// There was nothing to look at.
    Nothing(String),
    /// It could not be looked at, for this reason.
    Left(String),
    /// It fails, seen from here. The gateway may be somewhere else.
    Doubt(Fault),
}

/// Why a step failed, and what is to be changed.
#[derive(Debug)]
struct Fault {
    what: String,
    change: String,
    exit: Exit,
    /// Whether it may come from what lies behind the gateway.
    behind: bool,
}

impl Fault {
    fn new(what: impl Into<String>, change: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            change: change.into(),
            exit: Exit::Failure,
            behind: false,
        }
    }

    fn behind(self) -> Self {
        Self {
            behind: true,
            ..self
        }
    }
}

type Finding = Result<Found, Fault>;

type Look<'a> = Pin<Box<dyn Future<Output = Finding> + 'a>>;

/// One thing to look at.
struct Step {
    name: &'static str,
    look: for<'a> fn(&'a mut Visit) -> Look<'a>,
}

/// The way, in the order in which a console's bytes would not come if it were broken there.
const STEPS: &[Step] = &[
    Step {
        name: "config",
        look: |visit| Box::pin(async { config::look(visit) }),
    },
    Step {
        name: "admin socket",
        look: |visit| Box::pin(admin::look(visit)),
    },
    Step {
        name: "roles",
        look: |visit| Box::pin(listener::roles(visit)),
    },
    Step {
        name: "listener",
        look: |visit| Box::pin(listener::look(visit)),
    },
    Step {
        name: "certificates",
        look: |visit| Box::pin(listener::certificates(visit)),
    },
    Step {
        name: "instance",
        look: |visit| Box::pin(instance::look(visit)),
    },
    Step {
        name: "display",
        look: |visit| Box::pin(async { target::place(visit) }),
    },
    Step {
        name: "display's port",
        look: |visit| Box::pin(target::dial(visit)),
    },
    Step {
        name: "vnc server",
        look: |visit| Box::pin(target::greet(visit)),
    },
    Step {
        name: "token",
        look: |visit| Box::pin(token::issue(visit)),
    },
    Step {
        name: "public name",
        look: |visit| Box::pin(public::resolve_name(visit)),
    },
    Step {
        name: "public port",
        look: |visit| Box::pin(public::dial_port(visit)),
    },
    Step {
        name: "tls",
        look: |visit| Box::pin(public::shake_hands(visit)),
    },
    Step {
        name: "page",
        look: |visit| Box::pin(page::look(visit)),
    },
    Step {
        name: "websocket",
        look: |visit| Box::pin(console::upgrade(visit)),
    },
    Step {
        name: "console",
        look: |visit| Box::pin(console::enter(visit)),
    },
    Step {
        name: "first pixels",
        look: |visit| Box::pin(screen::look(visit)),
    },
];

/// What is known so far.
struct Visit {
    wanted: Option<String>,
    ca_file: Option<PathBuf>,
    /// How long a step may wait for one peer: less than the step itself may take.
    patience: Duration,
    remote: Remote,
    config: Config,
    instance: Option<InstanceView>,
    /// Nothing where there is no instance to look at, or no token to be had.
    console: Option<ConsoleView>,
    /// The address of what was dialled directly.
    dialled: Option<target::Dialled>,
    socket: Option<Socket>,
    /// Whether the gateway was seen to get to the display.
    is_reached: bool,
    /// Why steps are left out.
    missing: &'static str,
}

impl Visit {
    fn left(&self) -> Found {
        Found::Left(self.missing.to_owned())
    }
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (limit, output) = (self.timeout.get(), self.output);
        let mut visit = self.visit();
        let report = runtime.block_on(walk(&mut visit, limit));
        runtime.shutdown_background();
        report.write(output)
    }

    fn visit(self) -> Visit {
        Visit {
            wanted: self.instance,
            ca_file: self.ca_file,
            patience: self.timeout.get().mul_f32(0.9),
            remote: self.remote,
            config: Config::default(),
            instance: None,
            console: None,
            dialled: None,
            socket: None,
            is_reached: false,
            missing: "",
        }
    }
}

/// Takes one step after the other, up to the first that fails; and gives the token back.
async fn walk(visit: &mut Visit, limit: Duration) -> Report {
    let mut report = Report::default();
    for step in STEPS {
        if report.failed() {
            report.push(Row::unreached(step.name));
            continue;
        }
        let begun = Instant::now();
        let finding = timeout(limit, (step.look)(visit)).await;
        let finding = finding.unwrap_or_else(|_| Err(words::too_slow(limit)));
        report.push(Row::new(step.name, begun.elapsed(), finding));
    }
    report.settle(visit.is_reached);
    visit.socket = None;
    if visit.console.is_some() {
        let begun = Instant::now();
        let finding = timeout(limit, token::revoke(visit)).await;
        let finding = finding.unwrap_or_else(|_| Err(words::too_slow(limit)));
        report.push(Row::new("token revoked", begun.elapsed(), finding));
    }
    report
}

#[cfg(test)]
mod tests;
