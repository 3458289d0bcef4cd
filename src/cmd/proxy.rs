use std::net::SocketAddr;

use clap::Args;

use super::serve::{listen_address, start};
use super::{ConfigFile, Exit, Failure};
use crate::app::Extras;

/// Run the proxy alone: pages and WebSockets, for tokens that somebody else makes
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
        if !config.auth.source.is_foreign() {
            let why = "auth.source: a proxy alone makes no tokens; name who does (nova-db, nova-api, \
                       websockify-file), or run `vncgate serve --all`";
            return Err(Failure::new(Exit::Config, why));
        }
        let extras = Extras {
            proxy_alone: true,
            ..Extras::default()
        };
        start(config, self.config, self.listen, extras)
    }
}
