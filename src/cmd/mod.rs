//! The command line: one file per command.
//!
//! Data goes to stdout, talk to stderr. Flags beat the environment (`VNCGATE_...`), which beats
//! the config file, which beats defaults. `serve` runs the program; the others talk to a running
//! one over its admin socket and know nothing of its roles.

mod config;
mod doctor;
mod failure;
mod instance;
mod key;
mod man;
pub mod migrate;
mod output;
mod paths;
mod pki;
mod proxy;
mod reload;
mod remote;
mod roles;
mod serve;
mod session;
mod token;
mod upgrade;

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::process::{excuse, launched};

pub use failure::{Exit, Failure, complain};

use crate::app::RoleName;

/// Gives people the screens of their virtual machines in a browser, safely.
#[derive(Debug, Parser)]
#[command(
    name = "vncgate",
    version,
    max_term_width = 100,
    propagate_version = true
)]
#[command(after_help = format!("First steps:\n{FIRST_STEPS}\n\nExit codes: {EXIT_CODES}"))]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const FIRST_STEPS: &str = "  \
  vncgate serve --all --demo                     a console without any hypervisor
  vncgate serve --all --target 127.0.0.1:5901    a console of any VNC server
  vncgate serve --all                            consoles of what this machine runs
  vncgate instance list                          their names
  vncgate token issue NAME                       a URL that opens one";

const EXIT_CODES: &str = "\
0 ok, 1 failure, 2 usage, 3 config, 4 not found, 5 denied, 6 unreachable, 7 timeout,
130 interrupted.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::Serve),
    /// Run the proxy alone: pages and WebSockets, for tokens that somebody else makes, or with auth
    /// and compute in other processes
    Proxy(proxy::Proxy),
    /// Run the api alone: who may ask for consoles over HTTP
    Api(roles::One),
    /// Run auth alone: tokens and sessions
    Auth(roles::One),
    /// Run compute alone: where consoles are
    Compute(roles::One),
    /// Have the running vncgate read its config again
    Reload(reload::Reload),
    /// Have another process take the place of the running vncgate, which keeps its sessions
    Upgrade(upgrade::Upgrade),
    /// Make, look at and revoke console URLs
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// See who looks at what, and end it
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// See what instances there are
    #[command(subcommand)]
    Instance(instance::InstanceCommand),
    /// Walk the way to a console as a viewer would, and say where it ends and what to change
    Doctor(doctor::Doctor),
    /// Check and show the config file
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Make keys for the HTTP API
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Make certificates by which roles in different processes know each other
    #[command(subcommand)]
    Pki(pki::PkiCommand),
    /// Turn another program's config into one of vncgate's
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff)
    Man,
    /// Print the version
    Version,
}

/// How to find the config file.
#[derive(Args, Debug)]
struct ConfigFile {
    /// The config file [default: /etc/vncgate/vncgate.toml if it exists, else none]
    #[arg(long, value_name = "FILE", env = "VNCGATE_CONFIG")]
    config: Option<PathBuf>,
}

/// How to find a running vncgate.
#[derive(Args, Debug)]
struct Remote {
    /// The running vncgate's admin socket [default: as its config says, else
    /// `/run/vncgate/admin.sock` for root, else `$XDG_RUNTIME_DIR/vncgate/admin.sock`]
    #[arg(long, value_name = "PATH", env = "VNCGATE_ADMIN_SOCKET")]
    admin_socket: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
}

/// How an answer is asked for, and written.
#[derive(Args, Debug)]
struct Question {
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

/// How answers are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    /// For eyes
    Table,
    /// For scripts; stable
    Json,
}

/// Runs a command to its end.
pub fn run(cli: Cli) -> Result<(), Failure> {
    if launched()? {
        return Ok(());
    }
    let outcome = dispatch(cli);
    outcome.inspect_err(|failure| excuse(&failure.message))
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Proxy(proxy) => proxy.run(),
        Command::Api(one) => one.run(RoleName::Api),
        Command::Auth(one) => one.run(RoleName::Auth),
        Command::Compute(one) => one.run(RoleName::Compute),
        Command::Reload(reload) => reload.run(),
        Command::Upgrade(upgrade) => upgrade.run(),
        Command::Token(command) => command.run(),
        Command::Session(command) => command.run(),
        Command::Instance(command) => command.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Config(command) => command.run(),
        Command::Key(command) => command.run(),
        Command::Pki(command) => command.run(),
        Command::Migrate(command) => command.run(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "vncgate", &mut script);
            output::write(&script)
        }
        Command::Man => output::write(&man::page(Cli::command())?),
        Command::Version => output::line(concat!("vncgate ", env!("CARGO_PKG_VERSION"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
