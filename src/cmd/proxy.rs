use std::net::SocketAddr;

use clap::Args;

use super::serve::{listen_address, start};
use super::{ConfigFile, Failure};
use crate::app::{Extras, RoleName, Roles};

/// Run the proxy alone: pages and WebSockets
#[derive(Args, Debug)]
pub(super) struct Proxy {
    /// Where pages and WebSockets are served, in place of proxy.listen [default: 127.0.0.1:6080]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "VNCGATE_LISTEN",
        value_delimiter = ',',
        value_parser = listen_address
    )]
    listen: Vec<SocketAddr>,
    #[command(flatten)]
    config: ConfigFile,
}

impl Proxy {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.config.read()?;
        let extras = Extras {
            roles: Roles::of(&[RoleName::Proxy]),
            ..Extras::default()
        };
        start(config, self.config, self.listen, extras)
    }
}
