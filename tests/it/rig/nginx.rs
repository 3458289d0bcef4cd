//! A real nginx, in front of a gateway.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use tempfile::TempDir;

use super::process::{Process, peer, tied};
use super::wait::until;

/// What a location needs to let WebSockets through.
pub(crate) const UPGRADES: &str = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
                                   proxy_set_header Connection \"upgrade\"; proxy_set_header Host \
                                   $http_host;";

/// A running nginx.
#[derive(Debug)]
pub(crate) struct Nginx {
    _process: Process,
    _place: TempDir,
}

impl Nginx {
    /// One that listens at `listen` and whose only server block is `block`.
    pub(crate) fn start(listen: &str, block: &str) -> Self {
        let place = TempDir::with_prefix("vncgate-nginx-").unwrap();
        let config = place.path().join("nginx.conf");
        fs::write(&config, whole(place.path(), listen, block)).unwrap();
        let mut command = tied(&peer("nginx"));
        command.arg("-e").arg("stderr").arg("-p").arg(place.path());
        command.arg("-c").arg(&config).args(["-g", "daemon off;"]);
        let process = Process::spawn("nginx", &mut command);
        let address = listen.split(' ').next().unwrap().to_owned();
        until("nginx to listen", || TcpStream::connect(&address).ok());
        Self {
            _process: process,
            _place: place,
        }
    }

    /// One that passes all on to a gateway, with these lines in its only location.
    pub(crate) fn before(gateway: &str, listen: &str, lines: &str) -> Self {
        let block = format!("location / {{ proxy_pass http://{gateway}; {lines} }}");
        Self::start(listen, &block)
    }
}

fn whole(place: &Path, listen: &str, block: &str) -> String {
    let place = place.display();
    format!(
        "pid {place}/pid; error_log stderr; events {{}}\n\
         http {{ access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p;\n\
         fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n\
         server {{ listen {listen}; {block} }} }}\n"
    )
}
