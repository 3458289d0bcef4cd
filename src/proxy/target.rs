//! The way to a target: resolve, dial, and hear its greeting.
//!
//! A VNC target has to greet as RFB does (RFC 6143 section 7.1.1) before a viewer is let in.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::compute::Display;
use crate::model::{Address, ConsoleKind};
use crate::resolve::{self, Unresolved};

/// An open way to a target, and what was read from it so far.
#[derive(Debug)]
pub struct Connected {
    /// The stream.
    pub stream: Stream,
    /// The greeting, to be passed on: nothing may be lost.
    pub greeting: Vec<u8>,
}

/// A stream to a target.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// A socket or a line that the hypervisor handed over.
    Handed(Display),
}

impl Stream {
    /// Which way was taken, in a word for the log.
    pub fn way(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Unix(_) => "unix",
            Self::Handed(_) => "libvirt",
        }
    }
}

/// Why there is no way. For the log: a viewer is told less (see `close`).
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error(transparent)]
    Resolve(#[from] Unresolved),
    /// No connection.
    #[error("cannot connect to {address}: {why}")]
    Dial {
        /// Where.
        address: Address,
        /// What the kernel said.
        why: io::Error,
    },
    /// No connection in time.
    #[error("{address} did not accept a connection within {} s", limit.as_secs())]
    DialTimeout {
        /// Where.
        address: Address,
        /// The limit.
        limit: Duration,
    },
    /// It took the connection and hung up.
    #[error("{0} hung up before it greeted")]
    Closed(Address),
    /// It took the connection and said nothing.
    #[error("{address} sent no greeting within {} s", limit.as_secs())]
    Silent {
        /// Where.
        address: Address,
        /// The limit.
        limit: Duration,
    },
    /// It speaks something else.
    #[error("{0} is not a VNC server")]
    NotRfb(Address),
    /// It listens nowhere, and nobody handed it over.
    #[error("it listens nowhere; only a gateway on its hypervisor's machine can open it")]
    Nowhere,
}

/// Dials `address` and, for VNC, waits for its greeting; each within `limit`. Cancel-safe: the
/// connection is closed.
pub async fn connect(
    address: &Address,
    kind: ConsoleKind,
    limit: Duration,
) -> Result<Connected, ConnectError> {
    let dialled = timeout(limit, dial(address)).await;
    let late = |_| ConnectError::DialTimeout {
        address: address.clone(),
        limit,
    };
    greeted(dialled.map_err(late)??, address, kind, limit).await
}

async fn greeted(
    mut stream: Stream,
    address: &Address,
    kind: ConsoleKind,
    limit: Duration,
) -> Result<Connected, ConnectError> {
    let greeting = match (kind, &mut stream) {
        (ConsoleKind::Spice | ConsoleKind::Serial | ConsoleKind::Mks, _) => Vec::new(),
        (ConsoleKind::Vnc, Stream::Tcp(stream)) => greeting(stream, address, limit).await?,
        (ConsoleKind::Vnc, Stream::Unix(stream)) => greeting(stream, address, limit).await?,
        (ConsoleKind::Vnc, Stream::Handed(stream)) => greeting(stream, address, limit).await?,
    };
    Ok(Connected { stream, greeting })
}

/// Goes on with what the hypervisor handed over, whose address would be `address`, as
/// [`connect`] does.
pub async fn take_over(
    display: Display,
    address: &Address,
    kind: ConsoleKind,
    limit: Duration,
) -> Result<Connected, ConnectError> {
    greeted(Stream::Handed(display), address, kind, limit).await
}

async fn dial(address: &Address) -> Result<Stream, ConnectError> {
    let failed = |why| ConnectError::Dial {
        address: address.clone(),
        why,
    };
    match address {
        Address::Unix(path) => UnixStream::connect(path)
            .await
            .map(Stream::Unix)
            .map_err(failed),
        Address::Tcp(host, port) => {
            let ips = resolve::resolve(host).await?;
            let stream = resolve::dial(&ips, *port).await;
            stream.map(Stream::Tcp).map_err(failed)
        }
        Address::Hypervisor => Err(ConnectError::Nowhere),
    }
}

/// The length of `RFB 003.008\n`.
const GREETING: usize = 12;

async fn greeting(
    stream: &mut (impl AsyncRead + Unpin),
    address: &Address,
    limit: Duration,
) -> Result<Vec<u8>, ConnectError> {
    let mut greeting = vec![0; GREETING];
    match timeout(limit, stream.read_exact(&mut greeting)).await {
        Err(_) => Err(ConnectError::Silent {
            address: address.clone(),
            limit,
        }),
        Ok(Err(_)) => Err(ConnectError::Closed(address.clone())),
        Ok(Ok(_)) if is_rfb(&greeting) => Ok(greeting),
        Ok(Ok(_)) => Err(ConnectError::NotRfb(address.clone())),
    }
}

/// `RFB ddd.ddd\n`
fn is_rfb(greeting: &[u8]) -> bool {
    let shape = b"RFB ddd.ddd\n";
    let fits = |(is, shall): (&u8, &u8)| match shall {
        b'd' => is.is_ascii_digit(),
        _ => is == shall,
    };
    greeting.len() == shape.len() && greeting.iter().zip(shape).all(fits)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn server(says: &'static [u8], lingers: bool) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().into();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for byte in says {
                stream.write_all(&[*byte]).await.unwrap();
            }
            if lingers {
                let _end = stream.read(&mut [0]).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_vnc_servers_greeting_is_kept_even_in_pieces() {
        let address = server(b"RFB 003.008\n", true).await;

        let connected = connect(&address, ConsoleKind::Vnc, LIMIT).await.unwrap();

        assert_eq!(connected.greeting, b"RFB 003.008\n");
    }

    #[tokio::test]
    async fn what_is_no_vnc_server_is_called_so() {
        let http = server(b"HTTP/1.1 400 Bad Request\r\n", true).await;
        let brief = server(b"RFB", false).await;

        let web = connect(&http, ConsoleKind::Vnc, LIMIT).await.unwrap_err();
        let gone = connect(&brief, ConsoleKind::Vnc, LIMIT).await.unwrap_err();

        assert!(matches!(web, ConnectError::NotRfb(_)), "{web}");
        assert!(matches!(gone, ConnectError::Closed(_)), "{gone}");
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up() {
        let address = server(b"", true).await;

        let limit = Duration::from_millis(50);
        let error = connect(&address, ConsoleKind::Vnc, limit)
            .await
            .unwrap_err();

        assert!(matches!(error, ConnectError::Silent { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_serial_line_need_not_greet() {
        let address = server(b"", true).await;

        let connected = connect(&address, ConsoleKind::Serial, LIMIT).await.unwrap();

        assert!(connected.greeting.is_empty());
    }

    #[tokio::test]
    async fn a_name_is_looked_up_in_the_hosts_file() {
        let address = server(b"RFB 003.008\n", true).await;
        let Address::Tcp(_, port) = address else {
            panic!("a TCP address")
        };
        let by_name = Address::Tcp("localhost".parse().unwrap(), port);

        assert!(connect(&by_name, ConsoleKind::Vnc, LIMIT).await.is_ok());
    }

    #[test]
    fn only_digits_make_a_version() {
        assert!(is_rfb(b"RFB 003.889\n"));
        assert!(!is_rfb(b"RFB 003.8  \n"));
        assert!(!is_rfb(b"RFB 003.008\r"));
    }
}
