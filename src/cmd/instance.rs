use std::io::{self, IsTerminal as _};

use clap::Subcommand;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Exit, Failure, Format, Question, Remote, output};
use crate::api::{InstanceView, InstancesView};

/// `vncgate instance ...`
#[derive(Debug, Subcommand)]
pub(super) enum InstanceCommand {
    /// List every instance that can be found now
    List {
        #[command(flatten)]
        question: Question,
    },
    /// Show one instance
    Show {
        /// Its name or UUID
        instance: String,
        #[command(flatten)]
        question: Question,
    },
    /// Write a picture of an instance's screen to stdout, as PNG
    Screenshot {
        /// Its name or UUID
        instance: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Write what an instance wrote to its serial line to stdout, as far as it is kept
    Log {
        /// Its name or UUID
        instance: String,
        /// The last so many lines alone
        #[arg(long, value_name = "N")]
        lines: Option<u32>,
        #[command(flatten)]
        remote: Remote,
    },
}

impl InstanceCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List { question } => {
                let Question { output, remote } = question;
                let view: InstancesView = remote.call(Method::GET, "/v1/instances", None)?;
                for fault in &view.faults {
                    output::say(&format!("vncgate: {}", output::harmless(fault)));
                }
                match output {
                    Format::Table if view.instances.is_empty() => {
                        output::say("no instances; [compute] in the config says where to look");
                        Ok(())
                    }
                    Format::Table => show(&view.instances),
                    Format::Json => output::json(&view),
                }
            }
            Self::Show { instance, question } => {
                let Question { output, remote } = question;
                let name = utf8_percent_encode(&instance, NON_ALPHANUMERIC);
                let path = format!("/v1/instances/{name}");
                let view: InstanceView = remote.call(Method::GET, &path, None)?;
                match output {
                    Format::Table => show(&[view]),
                    Format::Json => output::json(&view),
                }
            }
            Self::Screenshot { instance, remote } => {
                if io::stdout().is_terminal() {
                    let why = "a picture is no text; redirect it into a file: > screen.png";
                    return Err(Failure::new(Exit::Usage, why));
                }
                let name = utf8_percent_encode(&instance, NON_ALPHANUMERIC);
                let path = format!("/v1/instances/{name}/screenshot");
                output::write(&remote.fetch(Method::GET, &path, None)?)
            }
            Self::Log {
                instance,
                lines,
                remote,
            } => {
                let name = utf8_percent_encode(&instance, NON_ALPHANUMERIC);
                let query = lines.map(|lines| format!("?lines={lines}"));
                let path = format!("/v1/instances/{name}/log{}", query.unwrap_or_default());
                output::guest(&remote.fetch(Method::GET, &path, None)?)
            }
        }
    }
}

fn show(instances: &[InstanceView]) -> Result<(), Failure> {
    let rows: Vec<_> = instances.iter().map(row).collect();
    output::table(
        ["NAME", "UUID", "STATE", "CONSOLES", "OWNER", "SOURCE"],
        &rows,
    )
}

fn row(instance: &InstanceView) -> [String; 6] {
    let name = match &instance.display_name {
        Some(shown) => format!("{} ({shown})", instance.name),
        None => instance.name.clone(),
    };
    let consoles = instance
        .consoles
        .iter()
        .map(|console| match &console.target {
            Some(target) => format!("{}={target}", console.kind),
            None => console.kind.to_string(),
        });
    let owner = instance.owner.as_ref();
    let owner = owner.and_then(|owner| owner.project.clone().or_else(|| owner.project_id.clone()));
    [
        name,
        instance.id.to_string(),
        instance.state.as_str().to_owned(),
        consoles.collect::<Vec<_>>().join(" "),
        owner.unwrap_or_else(|| "-".to_owned()),
        match &instance.host {
            Some(host) => format!("{host}: {}", instance.source),
            None => instance.source.clone(),
        },
    ]
}
