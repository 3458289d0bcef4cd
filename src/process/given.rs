use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use listenfd::ListenFd;

/// A socket that somebody opened for this process, which listens already.
#[derive(Debug)]
pub struct Given {
    /// What it was called by who gave it.
    pub name: String,
    /// Whether the service manager keeps it: it then takes the place of what the config says.
    pub managed: bool,
    /// The path that people know it by, where that is not the one it was made under.
    pub path: Option<PathBuf>,
    /// The socket.
    pub socket: Socket,
}

/// A socket that listens.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// What was given and not yet taken.
#[derive(Debug, Default)]
pub struct Givens(Vec<Given>);

/// A socket that was given is of no use.
#[derive(Debug, thiserror::Error)]
#[error("the socket `{name}` from the service manager: {why}")]
pub struct BadSocket {
    /// What it is called.
    pub name: String,
    /// What is wrong.
    pub why: String,
}

impl Givens {
    /// Those of a service manager, by the protocol of `sd_listen_fds(3)`. To be called once.
    /// Errors: one that is neither TCP nor a Unix stream socket.
    pub fn from_manager() -> Result<Self, BadSocket> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut found = ListenFd::from_env();
        let given = (0..found.len()).map(|index| {
            let name = names.next().unwrap_or_default();
            match socket(&mut found, index) {
                Ok(socket) => Ok(Given {
                    name,
                    managed: true,
                    path: None,
                    socket,
                }),
                Err(error) => Err(BadSocket {
                    name,
                    why: error.to_string(),
                }),
            }
        });
        given.collect::<Result<_, _>>().map(Self)
    }

    /// Takes the first of which `wanted` holds.
    pub fn take(&mut self, wanted: impl Fn(&Given) -> bool) -> Option<Given> {
        let place = self.0.iter().position(wanted)?;
        Some(self.0.remove(place))
    }

    /// The name of one that the service manager gave and nobody took.
    pub fn unwanted(&self) -> Option<&str> {
        let managed = self.0.iter().find(|given| given.managed);
        managed.map(|given| given.name.as_str())
    }
}

impl FromIterator<Given> for Givens {
    fn from_iter<I: IntoIterator<Item = Given>>(given: I) -> Self {
        Self(given.into_iter().collect())
    }
}

fn socket(found: &mut ListenFd, index: usize) -> io::Result<Socket> {
    let gone = || io::Error::other("it is not there");
    if let Ok(listener) = found.take_tcp_listener(index) {
        return listener.map(Socket::Tcp).ok_or_else(gone);
    }
    let listener = found.take_unix_listener(index);
    let neither = |_| io::Error::other("it is neither TCP nor a Unix stream socket that listens");
    listener
        .map_err(neither)?
        .map(Socket::Unix)
        .ok_or_else(gone)
}

impl Socket {
    /// Where it listens, if it is TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}
