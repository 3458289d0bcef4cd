//! Relays of this bench's own to compare with, each in a process of its own.

use std::future::{Pending, pending};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use vncgate::proxy::relay::{self, Ending, Opening, Relay, Resident, Socket, settle};

/// Bytes read at a time by the plain copy.
const BUFFER: usize = 64 << 10;

/// What one of them does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// tokio's `copy_bidirectional`, as one would write a TCP relay in an afternoon.
    Copy,
    /// Our relay alone, behind an upgrade that asks nothing.
    Relay,
    /// The same without any fairness.
    Greedy,
}

impl Way {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Relay => "relay",
            Self::Greedy => "greedy",
        }
    }
}

/// The child's side: listens in front of each backend, prints the addresses, and relays until it
/// is ended.
pub(crate) fn run(way: &str, backends: &[String]) -> Result<()> {
    let way = match way {
        "copy" => Way::Copy,
        "relay" => Way::Relay,
        "greedy" => Way::Greedy,
        other => bail!("no such relay: {other}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if matches!(way, Way::Relay) {
            tokio::spawn(relay::serve_sessions());
        }
        for backend in backends {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
            let backend: SocketAddr = backend.parse().context("a backend's address")?;
            tokio::spawn(accept(way, listener, backend));
        }
        pending().await
    })
}

async fn accept(way: Way, listener: TcpListener, backend: SocketAddr) -> Result<()> {
    loop {
        let (viewer, _) = listener.accept().await?;
        tokio::spawn(async move { serve(way, viewer, backend).await.is_ok() });
    }
}

async fn serve(way: Way, mut viewer: TcpStream, backend: SocketAddr) -> Result<()> {
    viewer.set_nodelay(true)?;
    if !matches!(way, Way::Copy) {
        upgrade(&mut viewer).await?;
    }
    let mut target = TcpStream::connect(backend).await?;
    target.set_nodelay(true)?;
    match way {
        Way::Copy => {
            copy_bidirectional_with_sizes(&mut viewer, &mut target, BUFFER, BUFFER).await?;
        }
        Way::Relay => {
            let settings = Arc::new(relay::Settings::default());
            let viewer = Socket::from_tcp(viewer)?;
            let target = Socket::from_tcp(target)?;
            let relay = relay::run(viewer, target, Opening::default(), &settings, pending());
            settle(Box::new(Alone(relay)));
        }
        Way::Greedy => {
            let settings = Arc::new(relay::Settings {
                slot: usize::MAX,
                ..relay::Settings::default()
            });
            relay::run(viewer, target, Opening::default(), &settings, pending()).await;
        }
    }
    Ok(())
}

/// A relay with no session around it.
struct Alone(Relay<Socket, Socket, Pending<Ending>>);

impl Resident for Alone {
    fn sockets(&mut self) -> Option<[&mut Socket; 2]> {
        Some(self.0.sockets())
    }

    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

/// Reads a request's head and agrees to it.
async fn upgrade(viewer: &mut TcpStream) -> Result<()> {
    // A viewer says nothing more until it is answered.
    let mut head = Vec::with_capacity(1024);
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(viewer.read_buf(&mut head).await? > 0, "no request");
    }
    let agreed =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    viewer.write_all(agreed).await?;
    Ok(())
}
