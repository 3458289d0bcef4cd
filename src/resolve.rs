//! From a host's name to a TCP connection.
//!
//! Names are resolved without the host's NSS, whose modules a static binary must not load.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::model::Host;

/// A name that has no address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cannot resolve {name}: {why}")]
pub struct Unresolved {
    /// The name.
    pub name: String,
    /// What the resolver said.
    pub why: String,
}

/// The addresses of `host`, by the hosts file and DNS. Cancel-safe.
pub async fn resolve(host: &Host) -> Result<Vec<IpAddr>, Unresolved> {
    static RESOLVER: OnceCell<TokioResolver> = OnceCell::const_new();
    let name = match host {
        Host::Ip(ip) => return Ok(vec![*ip]),
        Host::Name(name) => name,
    };
    let lookup = async {
        let resolver =
            RESOLVER.get_or_try_init(|| async { TokioResolver::builder_tokio()?.build() });
        resolver.await?.lookup_ip(name.as_str()).await
    };
    let failed = |why: hickory_resolver::net::NetError| Unresolved {
        name: name.clone(),
        why: if why.is_no_records_found() {
            "no such name".to_owned()
        } else {
            why.to_string()
        },
    };
    Ok(lookup.await.map_err(failed)?.iter().collect())
}

/// Connects to the first of `ips` that answers, and prepares the connection. Cancel-safe: the
/// connection is closed.
pub async fn dial(ips: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for ip in ips {
        match TcpStream::connect(SocketAddr::new(*ip, port)).await {
            Ok(stream) => {
                prepare(&stream)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Sets what every relayed TCP connection has: no Nagle, and keepalive that finds a dead peer
/// within two minutes.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_mins(1))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
