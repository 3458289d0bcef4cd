use std::fs;
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net as net_unix;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::resolve;

/// Connections that wait in the kernel's queue; it caps this at its own somaxconn.
const BACKLOG: i32 = 4096;

/// Bytes that may wait in the kernel for a slow client: more would be stale pictures, up to 4 MiB of
/// them. It costs a fast one nothing; see docs/performance.md.
const UNSENT: u32 = 128 << 10;

/// Of a socket that does not say where it is.
const UNKNOWN: SocketAddr = SocketAddr::new(net::IpAddr::V4(net::Ipv4Addr::UNSPECIFIED), 0);

/// A door that is open: bound, so that its address is known, and not yet served.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket of this process's own, removed when it is dropped.
    Unix(UnixListener, OwnPath),
}

/// Why a door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// `listen` failed.
    #[error("cannot listen on {0}: {1}{hint}", hint = hint(.1))]
    Tcp(SocketAddr, #[source] io::Error),
    /// The socket's directory or the socket itself could not be made.
    #[error("cannot make the socket {}: {why}", .path.display())]
    Unix {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        why: io::Error,
    },
    /// Somebody answers there.
    #[error("another vncgate answers at {}; stop it, or set another path", .0.display())]
    Taken(PathBuf),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; stop what listens there, or choose another port",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// A path that goes when this does, unless it is another's.
#[derive(Debug)]
pub struct OwnPath(Option<PathBuf>);

impl Drop for OwnPath {
    fn drop(&mut self) {
        let _gone = self.0.take().map(fs::remove_file);
    }
}

impl Listener {
    /// Opens a TCP door; port 0 is any free one.
    pub fn tcp(address: SocketAddr) -> Result<Self, BindError> {
        Self::given_tcp(&Self::bind(address)?)
    }

    /// A socket that listens, for any number of doors.
    pub fn bind(address: SocketAddr) -> Result<net::TcpListener, BindError> {
        let open = || -> io::Result<net::TcpListener> {
            let domain = Domain::for_address(address);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        open().map_err(|error| BindError::Tcp(address, error))
    }

    /// A door at a socket that listens already. What is accepted there inherits its options.
    pub fn given_tcp(socket: &net::TcpListener) -> Result<Self, BindError> {
        let adopt = || {
            socket.set_nonblocking(true)?;
            resolve::prepare(socket)?;
            SockRef::from(socket).set_tcp_notsent_lowat(UNSENT)?;
            TcpListener::from_std(socket.try_clone()?)
        };
        let address = socket.local_addr().unwrap_or(UNKNOWN);
        adopt()
            .map(Self::Tcp)
            .map_err(|error| BindError::Tcp(address, error))
    }

    /// The same for a Unix socket at `path`, which is removed in the end if it is our `own`.
    pub fn given_unix(
        socket: &net_unix::UnixListener,
        path: &Path,
        own: bool,
    ) -> Result<Self, BindError> {
        let adopt = || {
            socket.set_nonblocking(true)?;
            UnixListener::from_std(socket.try_clone()?)
        };
        let own = OwnPath(own.then(|| path.to_owned()));
        let listener = adopt().map_err(|why| BindError::Unix {
            path: path.to_owned(),
            why,
        })?;
        Ok(Self::Unix(listener, own))
    }

    /// Closes the door without taking its path away: somebody else stands behind it now.
    pub fn leave(self) {
        if let Self::Unix(_, mut own) = self {
            let _path = own.0.take();
        }
    }

    /// Opens a Unix socket that its owner alone may use. Its directory is made (0700) if it is
    /// missing; a socket that nobody answers at is replaced. Errors: see [`BindError`].
    pub fn unix(path: &Path) -> Result<Self, BindError> {
        Self::given_unix(&Self::bind_unix(path)?, path, true)
    }

    /// The same as a socket, for any number of doors.
    pub fn bind_unix(path: &Path) -> Result<net_unix::UnixListener, BindError> {
        let failed = |why| BindError::Unix {
            path: path.to_owned(),
            why,
        };
        if is_answered(path).map_err(failed)? {
            return Err(BindError::Taken(path.to_owned()));
        }
        make_directory(path).map_err(failed)?;
        remove_dead_socket(path).map_err(failed)?;
        listen_as_owner(path).map_err(failed)
    }

    /// The address that is listened on; `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Has this thread's runtime watch the door, whichever did before.
    pub fn adopt(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener.into_std()?)?),
            Self::Unix(listener, path) => {
                Self::Unix(UnixListener::from_std(listener.into_std()?)?, path)
            }
        })
    }

    /// The next who comes. Cancel-safe.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, peer))
            }
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

/// Who came through a door.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP, with its address.
    Tcp(TcpStream, SocketAddr),
    /// Through a Unix socket.
    Unix(UnixStream),
}

/// Whether somebody listens there. Does not wait: whoever is too busy to answer is there.
fn is_answered(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

/// Listens only once the socket is its owner's alone: who connects before is refused. Made under
/// another name and moved, so that commands never meet one that does not listen yet.
fn listen_as_owner(path: &Path) -> io::Result<net_unix::UnixListener> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    remove_dead_socket(&new)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&new)?)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    fs::rename(&new, path)?;
    Ok(socket.into())
}

fn make_directory(socket: &Path) -> io::Result<()> {
    let Some(directory) = socket
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    else {
        return Ok(());
    };
    if !directory.exists() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    let refused = |why| {
        let why = format!("{} {why}", directory.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    };
    let found = fs::metadata(directory)?;
    let me = rustix::process::geteuid().as_raw();
    // In a shared directory such as /tmp the name itself may be somebody's link.
    let owners = [found.uid(), fs::symlink_metadata(directory)?.uid()];
    if owners.iter().any(|owner| *owner != me && *owner != 0) {
        return refused("belongs to another user");
    }
    if found.mode() & (WORLD_WRITABLE | STICKY) == WORLD_WRITABLE {
        return refused("lets anybody replace the socket");
    }
    Ok(())
}

const WORLD_WRITABLE: u32 = 0o002;
const STICKY: u32 = 0o1000;

fn remove_dead_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file of that name exists",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/admin.sock");

        let first = Listener::unix(&path).unwrap();
        assert!(matches!(Listener::unix(&path), Err(BindError::Taken(_))));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        drop(first);

        assert_eq!(mode & 0o777, 0o600);
        assert!(!path.exists(), "the socket goes with its listener");
        assert!(Listener::unix(&path).is_ok());
    }

    #[tokio::test]
    async fn a_socket_whose_owner_is_too_busy_to_answer_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        busy.listen(0).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();

        assert!(matches!(Listener::unix(&path), Err(BindError::Taken(_))));
    }

    #[tokio::test]
    async fn a_directory_in_which_anybody_may_replace_the_socket_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let open_to = |mode| {
            let open = fs::Permissions::from_mode(mode);
            fs::set_permissions(directory.path(), open).unwrap();
            Listener::unix(&directory.path().join("admin.sock"))
        };

        assert!(matches!(open_to(0o777), Err(BindError::Unix { .. })));
        assert!(open_to(0o1777).is_ok());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        fs::write(&path, "mine").unwrap();

        assert!(matches!(Listener::unix(&path), Err(BindError::Unix { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_taken_port_says_so() {
        let first = Listener::tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();

        let error = Listener::tcp(first.address().unwrap())
            .unwrap_err()
            .to_string();

        assert!(error.contains("choose another port"), "{error}");
    }
}
