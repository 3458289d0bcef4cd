//! From a host's name to a TCP connection.
//!
//! Names are resolved without the host's NSS, whose modules a static binary must not load.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::timeout;

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
    // Large, and needed for names alone.
    Ok(Box::pin(lookup).await.map_err(failed)?.iter().collect())
}

/// How long an address may take before the next one is tried beside it (RFC 8305 section 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first of `ips` that answers, and prepares the connection. Both families are
/// tried in turn, each attempt a little after the one before or as soon as that has failed
/// (RFC 8305). Cancel-safe: all attempts end.
pub async fn dial(ips: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    if let [ip] = ips {
        let stream = TcpStream::connect(SocketAddr::new(*ip, port)).await?;
        prepare(&stream)?;
        return Ok(stream);
    }
    Box::pin(race(ips, port)).await
}

async fn race(ips: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut waiting = in_turn(ips).into_iter();
    let mut attempts = JoinSet::new();
    loop {
        let next = waiting.next();
        let last = next.is_none();
        if let Some(ip) = next {
            attempts.spawn(TcpStream::connect(SocketAddr::new(ip, port)));
        }
        let ended = if last {
            attempts.join_next().await
        } else {
            let ended = timeout(HEAD_START, attempts.join_next()).await;
            ended.unwrap_or_default()
        };
        match ended {
            Some(Ok(Ok(stream))) => {
                prepare(&stream)?;
                return Ok(stream);
            }
            Some(Ok(Err(error))) => failure = error,
            Some(Err(panic)) => failure = io::Error::other(panic),
            None if last => return Err(failure),
            None => {}
        }
    }
}

/// The addresses, the family changing with each as long as there are both; the first stays first.
fn in_turn(ips: &[IpAddr]) -> Vec<IpAddr> {
    let first = ips.first().is_some_and(IpAddr::is_ipv6);
    let (same, other): (Vec<IpAddr>, Vec<IpAddr>) =
        ips.iter().partition(|ip| ip.is_ipv6() == first);
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut turns = Vec::with_capacity(ips.len());
    while turns.len() < ips.len() {
        turns.extend(same.next());
        turns.extend(other.next());
    }
    turns
}

/// Sets what every relayed TCP connection has: no Nagle, and keepalive that finds a dead peer
/// within two minutes.
pub fn prepare(stream: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_mins(1))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_first_stays_first() {
        let mixed = ips(&["::1", "::2", "::3", "1.1.1.1", "2.2.2.2"]);
        let turns = ips(&["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]);
        assert_eq!(in_turn(&mixed), turns);
        assert!(in_turn(&[]).is_empty());
    }

    #[tokio::test]
    async fn an_address_that_fails_gives_way_to_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();

        let stream = dial(&ips(&["127.9.9.9", "127.0.0.1"]), port).await.unwrap();

        assert_eq!(stream.peer_addr().unwrap().port(), port);
        let refused = dial(&ips(&["127.9.9.9"]), port).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn an_address_that_says_nothing_does_not_hold_up_the_next() {
        // A full queue swallows connections without a word.
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let silent = silent.unwrap();
        let any: SocketAddr = "127.8.8.8:0".parse().unwrap();
        silent.bind(&any.into()).unwrap();
        silent.listen(0).unwrap();
        let silent_at = silent.local_addr().unwrap().as_socket().unwrap();
        let _filling = TcpStream::connect(silent_at).await.unwrap();
        let listener = TcpListener::bind(("127.0.0.1", silent_at.port()))
            .await
            .unwrap();

        let both = ips(&["127.8.8.8", "127.0.0.1"]);
        let dialled = timeout(Duration::from_secs(20), dial(&both, silent_at.port())).await;

        let peer = dialled.unwrap().unwrap().peer_addr().unwrap();
        assert_eq!(peer, listener.local_addr().unwrap());
    }
}
