//! Reverse proxies and balancers in front of a gateway, each with the config its operators write.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, peer, tied};
use super::redis::free_port;
use super::wait::until;

/// A front that runs. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Front {
    address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl Front {
    /// HAProxy in TCP mode, announcing each connection; `how` is `send-proxy` or `send-proxy-v2`.
    pub(crate) fn haproxy(target: SocketAddr, how: &str) -> Self {
        Self::haproxy_with("tcp", &format!("server gate {target} {how}"))
    }

    /// HAProxy in HTTP mode, saying who is behind it.
    pub(crate) fn haproxy_http(target: SocketAddr) -> Self {
        Self::haproxy_with("http", &format!("option forwardfor\n server gate {target}"))
    }

    fn haproxy_with(mode: &str, backend: &str) -> Self {
        Self::start("haproxy", |directory, port| {
            let config = directory.join("haproxy.cfg");
            let text = format!(
                "defaults\n mode {mode}\n timeout connect 5s\n timeout client 60s\n \
                 timeout server 60s\n timeout tunnel 1h\nlisten gate\n \
                 bind 127.0.0.1:{port}\n {backend}\n"
            );
            fs::write(&config, text).unwrap();
            let mut command = tied(&peer("haproxy"));
            command.arg("-db").arg("-f").arg(config);
            command
        })
    }

    /// nginx, as its documentation has it for WebSockets.
    pub(crate) fn nginx(target: SocketAddr) -> Self {
        Self::start("nginx", |directory, port| {
            let place = directory.display();
            let text = format!(
                "daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log stderr;\n\
                 events {{}}\nhttp {{\n access_log off;\n client_body_temp_path {place}/b;\n \
                 proxy_temp_path {place}/p;\n fastcgi_temp_path {place}/f;\n \
                 uwsgi_temp_path {place}/u;\n scgi_temp_path {place}/s;\n \
                 map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}\n \
                 server {{\n  listen 127.0.0.1:{port};\n  location / {{\n   \
                 proxy_pass http://{target};\n   proxy_http_version 1.1;\n   \
                 proxy_set_header Host $http_host;\n   \
                 proxy_set_header Upgrade $http_upgrade;\n   \
                 proxy_set_header Connection $connection_upgrade;\n   \
                 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n   \
                 proxy_set_header X-Forwarded-Proto $scheme;\n   \
                 proxy_read_timeout 1h;\n  }}\n }}\n}}\n"
            );
            let config = directory.join("nginx.conf");
            fs::write(&config, text).unwrap();
            let mut command = tied(&peer("nginx"));
            command.arg("-p").arg(directory).arg("-c").arg(config);
            command
        })
    }

    /// Caddy, which needs one line.
    pub(crate) fn caddy(target: SocketAddr) -> Self {
        Self::start("caddy", |directory, port| {
            let text = format!(
                "{{\n admin off\n auto_https off\n}}\n\
                 http://:{port} {{\n bind 127.0.0.1\n reverse_proxy {target}\n}}\n"
            );
            let config = directory.join("Caddyfile");
            fs::write(&config, text).unwrap();
            let mut command = tied(&peer("caddy"));
            command.env("HOME", directory).arg("run");
            command.arg("--adapter").arg("caddyfile");
            command.arg("--config").arg(config);
            command
        })
    }

    fn start(name: &str, command: impl Fn(&Path, u16) -> Command) -> Self {
        let directory = TempDir::with_prefix(format!("{name}-")).unwrap();
        let port = free_port();
        let process = Process::spawn(name, &mut command(directory.path(), port));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until(&format!("{name} to listen"), || {
            TcpStream::connect(address).ok()
        });
        Self {
            address,
            _process: process,
            _directory: directory,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
