//! The way to a target: resolve, dial, ask for the console if there are several behind the door,
//! and hear its greeting.
//!
//! A VNC target has to greet as RFB does (RFC 6143 section 7.1.1) before a viewer is let in.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::preamble::{self, NotOpened};
use crate::compute::Display;
use crate::model::{AccessPath, Address, ConsoleKind, Target};
use crate::resolve::{self, Unresolved};

/// An open way to a target, and what was read from it so far.
#[derive(Debug)]
pub struct Connected {
    /// The stream.
    pub stream: Stream,
    /// The greeting and what came with it, to be passed on: nothing may be lost.
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
    /// It did not open the console that its access path names.
    #[error("{address} does not open the console asked for: {why}")]
    NotOpened {
        /// Where.
        address: Address,
        /// What it did instead.
        why: NotOpened,
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

/// Dials the target, asks for its console if it has an access path, and, for VNC, waits for its
/// greeting; each within `limit`. Cancel-safe: the connection is closed.
pub async fn connect(
    target: &Target,
    kind: ConsoleKind,
    limit: Duration,
) -> Result<Connected, ConnectError> {
    let address = &target.address;
    let dialled = timeout(limit, dial(address)).await;
    let late = |_| ConnectError::DialTimeout {
        address: address.clone(),
        limit,
    };
    let mut stream = dialled.map_err(late)??;
    let early = match &target.internal_access_path {
        None => Vec::new(),
        Some(path) => ask(&mut stream, path, address, limit).await?,
    };
    greeted(stream, early, address, kind, limit).await
}

/// What came behind the answer.
async fn ask(
    stream: &mut Stream,
    path: &AccessPath,
    address: &Address,
    limit: Duration,
) -> Result<Vec<u8>, ConnectError> {
    let answer = match stream {
        Stream::Tcp(stream) => preamble::ask(stream, path, limit).await,
        Stream::Unix(stream) => preamble::ask(stream, path, limit).await,
        // A hypervisor hands over one console.
        Stream::Handed(_) => Ok(Vec::new()),
    };
    answer.map_err(|why| ConnectError::NotOpened {
        address: address.clone(),
        why,
    })
}

/// With the greeting, of which `early` has been read.
async fn greeted(
    mut stream: Stream,
    early: Vec<u8>,
    address: &Address,
    kind: ConsoleKind,
    limit: Duration,
) -> Result<Connected, ConnectError> {
    let greeting = match (kind, &mut stream) {
        (ConsoleKind::Spice | ConsoleKind::Serial | ConsoleKind::Mks, _) => early,
        (ConsoleKind::Vnc, Stream::Tcp(stream)) => greeting(stream, early, address, limit).await?,
        (ConsoleKind::Vnc, Stream::Unix(stream)) => greeting(stream, early, address, limit).await?,
        (ConsoleKind::Vnc, Stream::Handed(stream)) => {
            greeting(stream, early, address, limit).await?
        }
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
    greeted(Stream::Handed(display), Vec::new(), address, kind, limit).await
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
    mut early: Vec<u8>,
    address: &Address,
    limit: Duration,
) -> Result<Vec<u8>, ConnectError> {
    let mut rest = vec![0; GREETING.saturating_sub(early.len())];
    match timeout(limit, stream.read_exact(&mut rest)).await {
        Err(_) => Err(ConnectError::Silent {
            address: address.clone(),
            limit,
        }),
        Ok(Err(_)) => Err(ConnectError::Closed(address.clone())),
        Ok(Ok(_)) => {
            early.extend(rest);
            let rfb = early.get(..GREETING).is_some_and(is_rfb);
            rfb.then_some(early)
                .ok_or_else(|| ConnectError::NotRfb(address.clone()))
        }
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

    async fn server(says: &'static [u8], lingers: bool) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = listener.local_addr().unwrap().into();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for byte in says {
                stream.write_all(&[*byte]).await.unwrap();
            }
            if lingers {
                let _end = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        });
        address.into()
    }

    #[tokio::test]
    async fn a_vnc_servers_greeting_is_kept_even_in_pieces() {
        let target = server(b"RFB 003.008\n", true).await;

        let connected = connect(&target, ConsoleKind::Vnc, LIMIT).await.unwrap();

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
        let target = server(b"", true).await;

        let limit = Duration::from_millis(50);
        let error = connect(&target, ConsoleKind::Vnc, limit).await.unwrap_err();

        assert!(matches!(error, ConnectError::Silent { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_serial_line_need_not_greet() {
        let target = server(b"", true).await;

        let connected = connect(&target, ConsoleKind::Serial, LIMIT).await.unwrap();

        assert!(connected.greeting.is_empty());
    }

    #[tokio::test]
    async fn a_greeting_that_came_with_the_answer_to_connect_is_kept_and_checked() {
        for (says, rfb) in [
            (&b"HTTP/1.1 200 OK\r\n\r\nRFB 003.008\n"[..], true),
            (b"HTTP/1.1 200 OK\r\n\r\nRFB 3.8 nope", false),
        ] {
            let path = "console-1".to_owned().try_into().unwrap();
            let target = Target {
                internal_access_path: Some(path),
                ..server(says, true).await
            };

            let connected = connect(&target, ConsoleKind::Vnc, LIMIT).await;

            match connected {
                Ok(connected) => assert!(rfb && connected.greeting == b"RFB 003.008\n"),
                Err(error) => assert!(!rfb && matches!(error, ConnectError::NotRfb(_)), "{error}"),
            }
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_in_the_hosts_file() {
        let target = server(b"RFB 003.008\n", true).await;
        let Address::Tcp(_, port) = target.address else {
            panic!("a TCP address")
        };
        let by_name = Address::Tcp("localhost".parse().unwrap(), port).into();

        assert!(connect(&by_name, ConsoleKind::Vnc, LIMIT).await.is_ok());
    }

    #[test]
    fn only_digits_make_a_version() {
        assert!(is_rfb(b"RFB 003.889\n"));
        assert!(!is_rfb(b"RFB 003.8  \n"));
        assert!(!is_rfb(b"RFB 003.008\r"));
    }
}
