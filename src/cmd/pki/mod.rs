//! `vncgate pki`: a small authority for the roles of one deployment.
//!
//! A directory holds the CA, a certificate and a key per host, and a list of the hosts
//! (`pki.toml`), from which all can be made anew. Keys are their owner's alone and appear whole.

mod authority;
mod files;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};

use super::{Exit, Failure, output};
use crate::tls::expiries;
use authority::{Authority, Holder};
use files::Index;

/// `vncgate pki ...`
#[derive(Debug, Subcommand)]
pub(super) enum PkiCommand {
    /// Make a CA and the certificates of hosts
    Init(Init),
    /// Make all certificates anew, with the same CA; and those of more hosts
    Renew(Renew),
    /// Tell how long the certificates are valid
    Show {
        /// Where they are
        directory: PathBuf,
    },
}

/// `vncgate pki init`
#[derive(Args, Debug)]
pub(super) struct Init {
    /// Where they go; made if it is missing
    directory: PathBuf,
    /// A host's name or address, as `[rpc]` calls it, and which roles it may be: `edge-1=proxy`,
    /// `ctl-1=api,auth`. Without roles it may be all. Repeat it for more
    #[arg(
        long = "host",
        value_name = "NAME[=ROLES]",
        required = true,
        env = "VNCGATE_HOST",
        value_delimiter = ' '
    )]
    hosts: Vec<Holder>,
    /// How long the certificates are valid
    #[arg(long, env = "VNCGATE_DAYS", default_value_t = 397, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Replace what is there: no certificate made before is believed any more
    #[arg(long, env = "VNCGATE_FORCE")]
    force: bool,
}

/// `vncgate pki renew`
#[derive(Args, Debug)]
pub(super) struct Renew {
    /// Where they are
    directory: PathBuf,
    /// One more host, as with `pki init`
    #[arg(
        long = "host",
        value_name = "NAME[=ROLES]",
        env = "VNCGATE_HOST",
        value_delimiter = ' '
    )]
    hosts: Vec<Holder>,
    /// How long the certificates are valid
    #[arg(long, env = "VNCGATE_DAYS", default_value_t = 397, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

impl PkiCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.run(),
            Self::Renew(renew) => renew.run(),
            Self::Show { directory } => show(&directory),
        }
    }
}

impl Init {
    fn run(self) -> Result<(), Failure> {
        let directory = &self.directory;
        files::make_directory(directory).map_err(|why| failed(directory, &why))?;
        if !self.force
            && let Some(there) = files::there(directory)
        {
            let message = format!(
                "{} is there already; `vncgate pki renew` keeps the CA, --force makes a new one",
                there.display()
            );
            return Err(Failure::new(Exit::Failure, message));
        }
        let (authority, name, key) = Authority::new().map_err(unmade)?;
        files::write_private(directory, "ca.key", &key).map_err(|why| failed(directory, &why))?;
        files::write(directory, "ca.pem", &authority.certificate())
            .map_err(|why| failed(directory, &why))?;
        let mut index = Index {
            name,
            hosts: Vec::new(),
        };
        index.add(self.hosts);
        vouch_for_all(directory, &authority, &index, self.days)
    }
}

impl Renew {
    fn run(self) -> Result<(), Failure> {
        let directory = &self.directory;
        let mut index = Index::read(directory)?;
        index.add(self.hosts);
        let path = directory.join("ca.key");
        let key = std::fs::read_to_string(&path).map_err(|why| failed(&path, &why))?;
        let authority = Authority::of(&index.name, &key).map_err(unmade)?;
        vouch_for_all(directory, &authority, &index, self.days)
    }
}

fn vouch_for_all(
    directory: &Path,
    authority: &Authority,
    index: &Index,
    days: u32,
) -> Result<(), Failure> {
    let failed = |why: std::io::Error| failed(directory, &why);
    for holder in &index.hosts {
        let (certificate, key) = authority.vouch_for(holder, days).map_err(unmade)?;
        let stem = holder.stem();
        files::write_private(directory, &format!("{stem}.key"), &key).map_err(failed)?;
        files::write(directory, &format!("{stem}.pem"), &certificate).map_err(failed)?;
        output::line(&directory.join(format!("{stem}.pem")).display().to_string())?;
    }
    index.write(directory).map_err(failed)?;
    output::say(
        "Copy ca.pem, and each host's .pem and .key, to that host; name them in [rpc] as ca, \
         certificate and key. Keep ca.key here, where nobody else can read it.",
    );
    Ok(())
}

fn show(directory: &Path) -> Result<(), Failure> {
    let index = Index::read(directory)?;
    let mut paths = vec![directory.join("ca.pem")];
    let stems = index.hosts.iter().map(Holder::stem);
    paths.extend(stems.map(|stem| directory.join(format!("{stem}.pem"))));
    let now = SystemTime::now();
    for found in expiries(&paths) {
        let expiry = found.map_err(|bad| Failure::new(Exit::NotFound, bad.to_string()))?;
        let days = expiry.left(now).as_secs() / (24 * 60 * 60);
        let until = humantime::format_rfc3339_seconds(expiry.not_after);
        let path = expiry.path.display();
        output::line(&format!("{path}: until {until}, {days} days left"))?;
    }
    Ok(())
}

fn failed(path: &Path, why: &std::io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("{}: {why}", path.display()))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unmade(why: rcgen::Error) -> Failure {
    Failure::new(Exit::Failure, format!("cannot make a certificate: {why}"))
}
