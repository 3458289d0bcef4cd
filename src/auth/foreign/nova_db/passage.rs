use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, copy, split};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use uuid::Uuid;

use super::url::Door;
use crate::drain::Watch;
use crate::resolve::{self, dial};

/// How long sqlx may take to come.
const ARRIVAL: Duration = Duration::from_secs(5);

/// A Unix socket of our own that leads to a database, for one connection.
///
/// sqlx takes no stream of ours, and would resolve names by the host's NSS, whose modules a static
/// binary must not load. Given a socket it only goes there, and still holds a certificate against
/// the host's name. The socket's name is abstract: no file is left behind.
#[derive(Debug)]
pub(super) struct Passage(String);

impl Passage {
    /// Dials `door` and listens under a name that nobody else has. Cancel-safe.
    pub(super) async fn open(door: &Door, watch: &Watch) -> io::Result<Self> {
        let directory = format!("\0vncgate-{}", Uuid::new_v4());
        let passage = Self(directory);
        let listener = UnixListener::bind(passage.path(door))?;
        match door {
            Door::Tcp(host, port) => {
                let ips = resolve::resolve(host).await.map_err(io::Error::other)?;
                let far = dial(&ips, *port).await?;
                watch.spawn_service(carry(listener, far, watch.clone()));
            }
            Door::Unix(path) => {
                let far = UnixStream::connect(path).await?;
                watch.spawn_service(carry(listener, far, watch.clone()));
            }
        }
        Ok(passage)
    }

    /// What `PostgreSQL` calls the directory of its socket.
    pub(super) fn directory(&self) -> PathBuf {
        PathBuf::from(&self.0)
    }

    /// The socket itself; `PostgreSQL`'s clients make its name from the port.
    pub(super) fn path(&self, door: &Door) -> PathBuf {
        PathBuf::from(format!("{}/.s.PGSQL.{}", self.0, door.port()))
    }
}

/// Ends with either side, at once: a server that hangs must not keep what sqlx has given up.
async fn carry<S: AsyncRead + AsyncWrite>(listener: UnixListener, far: S, watch: Watch) {
    let Ok(Ok(near)) = timeout(ARRIVAL, accept(&listener)).await else {
        return;
    };
    drop(listener);
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (split(near), split(far));
    let (up, down) = (
        copy(&mut near_in, &mut far_out),
        copy(&mut far_in, &mut near_out),
    );
    tokio::select! {
        _ = up => {}
        _ = down => {}
        () = watch.closing() => {}
    }
}

/// The first connection of this process; every other one is a stranger's.
async fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (stream, _) = listener.accept().await?;
        let pid = stream.peer_cred()?.pid();
        if pid.and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id()) {
            return Ok(stream);
        }
    }
}
