//! The `vncgate` program: parses its command line, runs, tells what went wrong.

use std::process::ExitCode;

use clap::Parser as _;
use vncgate::cmd::{Cli, complain, run};

// RUSTFLAGS in the environment would silently replace the flags of .cargo/config.toml and with
// them the static link.
#[cfg(all(
    target_os = "linux",
    not(all(target_feature = "crt-static", getrandom_backend = "linux_getrandom"))
))]
compile_error!("not a static build: is RUSTFLAGS set in the environment?");

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => complain(&failure),
    }
}
