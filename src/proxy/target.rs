//! The way to a target: resolve, dial, ask for the console if there are several behind the door,
//! and hear its greeting.
//!
//! A VNC target has to greet as RFB does (RFC 6143 section 7.1.1) before a viewer is let in. Nothing
//! is dialled outside the networks it may be in.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::preamble::{self, NotOpened};
use crate::compute::{Display, Line};
use crate::model::{AccessPath, Address, ConsoleKind, Host, Target, Way};
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
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// A socket or a line that the hypervisor handed over.
    Handed(Display),
    /// Inside TLS.
    Tls(Box<dyn Line>),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.way()).finish()
    }
}

/// Where a target may be.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// In these networks; with none, where `hosts` are.
    pub networks: Vec<IpNet>,
    /// On these hosts; nothing where people named the address themselves.
    pub hosts: Option<Vec<Host>>,
}

impl Stream {
    /// Which way was taken.
    pub fn way(&self) -> Way {
        match self {
            Self::Tcp(_) => Way::Tcp,
            Self::Unix(_) => Way::Unix,
            Self::Handed(Display::Tunnel(_)) => Way::Tunnel,
            Self::Handed(_) => Way::Libvirt,
            Self::Tls(_) => Way::Tls,
        }
    }

    /// Has this thread's runtime watch the socket that another one's did. What is more than a
    /// socket stays where it is, and costs a wake-up of that thread for each move.
    pub(super) fn adopt(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Self::Unix(stream) | Self::Handed(Display::Socket(stream)) => {
                Self::Unix(UnixStream::from_std(stream.into_std()?)?)
            }
            Self::Handed(Display::Tunnel(mut tunnelled)) => {
                tunnelled.stream.adopt()?;
                Self::Handed(Display::Tunnel(tunnelled))
            }
            more => more,
        })
    }

    fn line(self: Pin<&mut Self>) -> Pin<&mut dyn Line> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Unix(stream) => Pin::new(stream),
            Self::Handed(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.line().poll_read(context, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.line().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line().poll_shutdown(context)
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
    /// It listens nowhere, or on a Unix socket of another machine, and nobody handed it over.
    #[error("it listens nowhere; only a gateway on its hypervisor's machine can open it")]
    Nowhere,
    /// It is somewhere else than its kind may be.
    #[error(
        "{0} is in no network that may be dialled: it is not on the host that names it; put its \
         network into proxy.allowed_networks if it is right"
    )]
    OutOfBounds(Address),
}

/// Dials the target inside `bounds`, asks for its console if it has an access path, and, for VNC,
/// waits for its greeting; each within `limit`. Cancel-safe: the connection is closed.
pub async fn connect(
    target: &Target,
    bounds: &Bounds,
    kind: ConsoleKind,
    limit: Duration,
) -> Result<Connected, ConnectError> {
    let address = &target.address;
    let dialled = timeout(limit, dial(address, bounds)).await;
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
    let answer = Box::pin(preamble::ask(stream, path, limit)).await;
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
    let greeting = match kind {
        ConsoleKind::Spice | ConsoleKind::Serial | ConsoleKind::Mks => early,
        ConsoleKind::Vnc => greeting(&mut stream, early, address, limit).await?,
    };
    Ok(Connected { stream, greeting })
}

/// Goes on with what was opened elsewhere, whose address would be `address`, as [`connect`] does;
/// asks for the console at `path` if it is a door to several.
pub async fn take_over(
    display: Display,
    address: &Address,
    path: Option<&AccessPath>,
    kind: ConsoleKind,
    limit: Duration,
) -> Result<Connected, ConnectError> {
    let mut stream = Stream::Handed(display);
    let early = match path {
        None => Vec::new(),
        Some(path) => ask(&mut stream, path, address, limit).await?,
    };
    greeted(stream, early, address, kind, limit).await
}

async fn dial(address: &Address, bounds: &Bounds) -> Result<Stream, ConnectError> {
    let failed = |why| ConnectError::Dial {
        address: address.clone(),
        why,
    };
    match address {
        // The path is one of the machine that named it.
        Address::Unix(_) if bounds.hosts.is_some() => Err(ConnectError::Nowhere),
        Address::Unix(path) => UnixStream::connect(path)
            .await
            .map(Stream::Unix)
            .map_err(failed),
        Address::Tcp(host, port) => {
            let mut ips = resolve::resolve(host).await?;
            bounds.keep(host, &mut ips).await;
            if ips.is_empty() {
                return Err(ConnectError::OutOfBounds(address.clone()));
            }
            let stream = resolve::dial(&ips, *port).await;
            stream.map(Stream::Tcp).map_err(failed)
        }
        Address::Hypervisor => Err(ConnectError::Nowhere),
    }
}

impl Bounds {
    /// Leaves of the addresses of `host` what may be dialled.
    async fn keep(&self, host: &Host, ips: &mut Vec<IpAddr>) {
        if !self.networks.is_empty() {
            let inside = |ip: IpAddr| self.networks.iter().any(|net| net.contains(&ip));
            ips.retain(|ip| inside(ip.to_canonical()));
            return;
        }
        let Some(hosts) = self.hosts.as_ref().filter(|hosts| !hosts.contains(host)) else {
            return;
        };
        let mut known = Vec::new();
        for host in hosts {
            // Some names mean something to ssh alone.
            known.extend(resolve::resolve(host).await.unwrap_or_default());
        }
        let same = |one: &IpAddr, other: &IpAddr| one.to_canonical() == other.to_canonical();
        ips.retain(|ip| known.iter().any(|it| same(it, ip)));
    }
}

/// The length of `RFB 003.008\n`.
const GREETING: usize = 12;

/// Room to read it in. What comes with it is kept, and that there is no more is known without
/// asking again.
const READ: usize = 64;

async fn greeting(
    stream: &mut (impl AsyncRead + Unpin),
    mut early: Vec<u8>,
    address: &Address,
    limit: Duration,
) -> Result<Vec<u8>, ConnectError> {
    let hear = async {
        while early.len() < GREETING {
            early.reserve(READ);
            if !stream.read_buf(&mut early).await.is_ok_and(|read| read > 0) {
                return None;
            }
        }
        Some(early)
    };
    match timeout(limit, hear).await {
        Err(_) => Err(ConnectError::Silent {
            address: address.clone(),
            limit,
        }),
        Ok(None) => Err(ConnectError::Closed(address.clone())),
        Ok(Some(early)) => {
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

        let connected = connect(&target, &Bounds::default(), ConsoleKind::Vnc, LIMIT)
            .await
            .unwrap();

        assert_eq!(connected.greeting, b"RFB 003.008\n");
    }

    #[tokio::test]
    async fn what_is_no_vnc_server_is_called_so() {
        let http = server(b"HTTP/1.1 400 Bad Request\r\n", true).await;
        let brief = server(b"RFB", false).await;

        let web = connect(&http, &Bounds::default(), ConsoleKind::Vnc, LIMIT)
            .await
            .unwrap_err();
        let gone = connect(&brief, &Bounds::default(), ConsoleKind::Vnc, LIMIT)
            .await
            .unwrap_err();

        assert!(matches!(web, ConnectError::NotRfb(_)), "{web}");
        assert!(matches!(gone, ConnectError::Closed(_)), "{gone}");
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up() {
        let target = server(b"", true).await;

        let limit = Duration::from_millis(50);
        let error = connect(&target, &Bounds::default(), ConsoleKind::Vnc, limit)
            .await
            .unwrap_err();

        assert!(matches!(error, ConnectError::Silent { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_serial_line_need_not_greet() {
        let target = server(b"", true).await;

        let connected = connect(&target, &Bounds::default(), ConsoleKind::Serial, LIMIT)
            .await
            .unwrap();

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

            let connected = connect(&target, &Bounds::default(), ConsoleKind::Vnc, LIMIT).await;

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

        assert!(
            connect(&by_name, &Bounds::default(), ConsoleKind::Vnc, LIMIT)
                .await
                .is_ok()
        );
    }

    async fn dialled_within(bounds: &Bounds, to: &str) -> Result<(), ConnectError> {
        let Address::Tcp(_, port) = server(b"", true).await.address else {
            panic!("a TCP address")
        };
        let target = Address::Tcp(to.parse().unwrap(), port).into();
        let connected = connect(&target, bounds, ConsoleKind::Serial, LIMIT).await;
        connected.map(drop)
    }

    #[tokio::test]
    async fn nothing_is_dialled_outside_the_networks_that_are_allowed() {
        let allowing = |network: &str| Bounds {
            networks: vec![network.parse().unwrap()],
            hosts: Some(vec!["10.0.0.7".parse().unwrap()]),
        };

        let inside = dialled_within(&allowing("127.0.0.0/8"), "127.0.0.1").await;
        let outside = dialled_within(&allowing("10.0.0.0/8"), "127.0.0.1").await;
        let by_name = dialled_within(&allowing("10.0.0.0/8"), "localhost").await;

        assert!(inside.is_ok(), "{inside:?}");
        assert!(matches!(outside, Err(ConnectError::OutOfBounds(_))));
        assert!(matches!(by_name, Err(ConnectError::OutOfBounds(_))));
    }

    #[tokio::test]
    async fn a_host_can_name_no_address_but_its_own() {
        let of = |hosts: &[&str]| Bounds {
            networks: Vec::new(),
            hosts: Some(hosts.iter().map(|host| host.parse().unwrap()).collect()),
        };

        let own = dialled_within(&of(&["no.such.name", "localhost"]), "127.0.0.1").await;
        let foreign = dialled_within(&of(&["10.0.0.7"]), "127.0.0.1").await;
        let path = Address::Unix("/run/own.sock".into()).into();
        let path = connect(&path, &of(&["localhost"]), ConsoleKind::Vnc, LIMIT).await;

        assert!(own.is_ok(), "{own:?}");
        assert!(matches!(foreign, Err(ConnectError::OutOfBounds(_))));
        assert!(matches!(path, Err(ConnectError::Nowhere)));
    }

    #[test]
    fn only_digits_make_a_version() {
        assert!(is_rfb(b"RFB 003.889\n"));
        assert!(!is_rfb(b"RFB 003.8  \n"));
        assert!(!is_rfb(b"RFB 003.008\r"));
    }
}
