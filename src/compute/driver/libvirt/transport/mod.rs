//! The ways to a libvirt daemon: Unix socket, TCP, TLS and ssh.
//!
//! [`Uri`] says which, [`connect`] goes it and ends with a [`Transport`]: a stream on which the
//! first call can be made, and what is known of who can listen to it. Whether the user may come
//! in is the daemon's to say: see [`super::sasl`].

mod pki;
mod ssh;
mod tls;
mod uri;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use self::uri::Route;
use super::client::Rights;
use super::wire::Io;
use crate::model::Host;
use crate::resolve::{self, Unresolved};

pub use pki::BadPki;
pub use ssh::SshError;
pub use tls::TlsError;
pub use uri::{BadUri, Places, Uri};

/// A way to a daemon that stands.
#[derive(Debug)]
pub struct Transport {
    /// The stream.
    pub io: Io,
    /// Who can listen, and who may be at the other end.
    pub channel: Channel,
}

/// Who can read along, and how sure it is who answers. Decides what may be said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Channel {
    /// A socket of this machine.
    Local,
    /// Encrypted, and the other end has proved who it is.
    Verified,
    /// Encrypted, but `no_verify=1` lets anybody be the other end.
    Unverified,
    /// For everyone on the way to read and to change.
    Clear,
}

impl Channel {
    /// Whether a password may be sent as it is.
    pub fn keeps_secrets(self) -> bool {
        match self {
            Self::Local | Self::Verified => true,
            Self::Unverified | Self::Clear => false,
        }
    }
}

/// What the connection is for, and where this user's things are.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which socket to take, where there are two.
    pub rights: Rights,
    /// This user's own files and sockets.
    pub places: Places,
}

impl Options {
    /// For this process.
    pub fn new(rights: Rights) -> Self {
        let places = Places::of_this_process();
        Self { rights, places }
    }
}

/// Why there is no way to the daemon.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Nothing listens on this machine.
    #[error("no libvirt daemon listens here: {}", Tried(.0))]
    NoDaemon(Vec<PathBuf>),
    /// A socket that cannot be used.
    #[error("cannot connect to {}: {why}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        why: io::Error,
    },
    /// The host's name has no address.
    #[error(transparent)]
    Resolve(#[from] Unresolved),
    /// No TCP connection.
    #[error("cannot connect to {host} port {port}: {why}")]
    Dial {
        /// The host.
        host: Host,
        /// The port.
        port: u16,
        /// What the kernel said.
        why: io::Error,
    },
    /// TLS could not be agreed on.
    #[error(transparent)]
    Tls(#[from] Box<TlsError>),
    /// ssh could not be started.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// It took too long.
    #[error("{0} did not answer in time")]
    Deadline(String),
}

/// Connects to the daemon that `uri` names. Over ssh the connection counts as standing once ssh
/// runs; why ssh ended is the error of the first read. Cancel-safe: the connection is closed and
/// ssh is ended.
pub async fn connect(
    uri: &Uri,
    options: &Options,
    deadline: Instant,
) -> Result<Transport, TransportError> {
    let connected = timeout_at(deadline, go(uri, options)).await;
    connected.unwrap_or_else(|_elapsed| Err(TransportError::Deadline(peer(uri))))
}

async fn go(uri: &Uri, options: &Options) -> Result<Transport, TransportError> {
    let (io, channel) = match uri.route() {
        Route::Unix { .. } => (unix(uri, options).await?, Channel::Local),
        Route::Tcp { host, port } => {
            let stream = tcp(host, *port).await?;
            (Io::Other(Box::new(stream)), Channel::Clear)
        }
        Route::Tls(route) => {
            let stream = tcp(&route.host, route.port).await?;
            let stream = tls::connect(route, &options.places, stream).await?;
            (Io::Other(Box::new(stream)), encrypted(route.verify))
        }
        Route::Ssh(route) => {
            let stream = ssh::connect(uri, route, options.rights)?;
            (Io::Other(Box::new(stream)), encrypted(route.verify))
        }
    };
    Ok(Transport { io, channel })
}

fn encrypted(verify: bool) -> Channel {
    if verify {
        Channel::Verified
    } else {
        Channel::Unverified
    }
}

/// The first socket that answers. One that is there but shut says more than one that is missing.
async fn unix(uri: &Uri, options: &Options) -> Result<Io, TransportError> {
    let paths = uri.sockets(options.rights, &options.places);
    let mut shut = None;
    for path in &paths {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(Io::Unix(stream)),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => shut = shut.or_else(|| Some(socket(path, why))),
        }
    }
    Err(shut.unwrap_or(TransportError::NoDaemon(paths)))
}

fn socket(path: &Path, why: io::Error) -> TransportError {
    let path = path.to_owned();
    TransportError::Socket { path, why }
}

async fn tcp(host: &Host, port: u16) -> Result<TcpStream, TransportError> {
    let addresses = resolve::resolve(host).await?;
    let failed = |why| TransportError::Dial {
        host: host.clone(),
        port,
        why,
    };
    resolve::dial(&addresses, port).await.map_err(failed)
}

fn peer(uri: &Uri) -> String {
    let host = uri.host().map(ToString::to_string);
    host.unwrap_or_else(|| "the libvirt daemon".to_owned())
}

struct Tried<'a>(&'a [PathBuf]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0 else {
            return f.write_str("this user has no place for sockets (XDG_RUNTIME_DIR is not set)");
        };
        write!(f, "there is no {}", first.display())?;
        let mut rest = rest.iter();
        rest.try_for_each(|path| write!(f, " and no {}", path.display()))
    }
}

#[cfg(test)]
mod authority;
#[cfg(test)]
mod tests;
