//! A process hands over to another one, started from the same path: its successor.
//!
//! The two talk over a socket that only they have, the successor's standard input. First come the
//! sockets; when the successor is ready to serve, what else is to be its own; when it serves, the
//! predecessor's farewell. Until then all can be taken back.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::channel::{Channel, Message};
use super::given::{Given, Givens};

/// Tells a process what it was started for.
const VARIABLE: &str = "VNCGATE_HANDOVER";

/// Its value for one that only starts the successor, and for the successor.
const LAUNCH: &str = "launch";
const TAKE: &str = "take";

/// How long the successor has to be started, and then to read its config and open its doors.
const START: Duration = Duration::from_secs(5);
const PREPARE: Duration = Duration::from_secs(10);

/// How long what is left may take, on either side: meanwhile viewers wait in the doors' queues.
const MOMENT: Duration = Duration::from_secs(10);

/// What was run, to be run again.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// Why there is no successor. This process goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum NoSuccessor {
    /// It could not be started.
    #[error("cannot start {}: {why}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// It said why it cannot serve.
    #[error("the successor cannot serve: {0}")]
    Failed(String),
    /// It ended, hangs, or is another program.
    #[error("the successor did not get ready: {0}")]
    Silent(io::Error),
}

/// A successor under way; killed when dropped, unless it has taken over.
#[derive(Debug)]
pub struct Successor {
    channel: Arc<Channel>,
    pid: Option<u32>,
}

/// The process that this one takes over from.
#[derive(Debug)]
pub struct Predecessor(Arc<Channel>);

impl Program {
    /// This one. To be asked at the start: the path is then still that of what was run. Errors:
    /// the system does not tell it.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let named = arguments.next().map(PathBuf::from);
        let path = match named {
            Some(named) if named.components().count() > 1 => env::current_dir()?.join(named),
            _ => env::current_exe()?,
        };
        Ok(Self {
            path,
            arguments: arguments.collect(),
        })
    }

    fn command(&self, path: &Path, role: &str) -> Command {
        let mut command = Command::new(path);
        command
            .args(&self.arguments)
            .env(VARIABLE, role)
            .env_remove("LISTEN_FDNAMES")
            .env_remove("WATCHDOG_PID");
        command
    }
}

/// Whether this process is to start the successor and end; it then does the first. So the successor
/// becomes a child of the service manager, which would not notice the end of a grandchild.
pub fn launched() -> io::Result<bool> {
    if env::var_os(VARIABLE).is_none_or(|role| role != LAUNCH) {
        return Ok(false);
    }
    let program = Program::of_this_process()?;
    let _child = program.command(&env::current_exe()?, TAKE).spawn()?;
    Ok(true)
}

/// Tells the predecessor, if there is one, why this process cannot take over.
pub fn excuse(why: &str) {
    if env::var_os(VARIABLE).is_none_or(|role| role != TAKE) {
        return;
    }
    let stream = io::stdin().as_fd().try_clone_to_owned();
    let channel = stream.and_then(|stream| Channel::new(UnixStream::from(stream)));
    let _unheard = channel.and_then(|channel| channel.say(&Message::Failed(why.to_owned())));
}

impl Successor {
    /// Starts `program` and gives it the sockets; returns when it could serve. Errors: see
    /// [`NoSuccessor`].
    pub async fn start(program: &Program, sockets: Arc<Vec<Given>>) -> Result<Self, NoSuccessor> {
        let failed = |why| NoSuccessor::Start {
            path: program.path.clone(),
            why,
        };
        let stream = launch(program).await.map_err(failed)?;
        let channel = Arc::new(Channel::new(stream).map_err(failed)?);
        let mut successor = Self { channel, pid: None };
        let given = move |channel: &Channel| channel.give(&sockets);
        successor.with(given).await.map_err(NoSuccessor::Silent)?;
        match successor.hear(PREPARE).await? {
            Message::Prepared { pid } => successor.pid = Some(pid),
            other => return Err(confused(&other)),
        }
        Ok(successor)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.unwrap_or_default()
    }

    /// Gives it what else is its own; returns when it serves, with where to find that. Errors: as
    /// above.
    pub async fn bequeath(&self, bequest: String) -> Result<Option<PathBuf>, NoSuccessor> {
        let message = Message::Bequest(bequest);
        let said = self.with(move |channel| channel.say(&message)).await;
        said.map_err(NoSuccessor::Silent)?;
        match self.hear(MOMENT).await? {
            Message::Serving(place) => Ok(place),
            other => Err(confused(&other)),
        }
    }

    /// It stands alone now. It notices the end of this process, to which it may still be of use.
    pub async fn farewell(mut self) -> Arc<impl fmt::Debug + Send + Sync> {
        self.pid = None;
        let said = self.with(|channel| channel.say(&Message::Farewell)).await;
        if let Err(error) = said {
            tracing::debug!(%error, "the successor was not told that it stands alone");
        }
        Arc::clone(&self.channel)
    }

    async fn hear(&self, limit: Duration) -> Result<Message, NoSuccessor> {
        match self.with(move |channel| channel.hear(limit)).await {
            Ok(Message::Failed(why)) => Err(NoSuccessor::Failed(why)),
            Ok(message) => Ok(message),
            Err(error) => Err(NoSuccessor::Silent(error)),
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Channel) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let channel = Arc::clone(&self.channel);
        tokio::task::spawn_blocking(move || act(&channel)).await?
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let pid = self.pid.and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _gone = kill_process(pid, Signal::KILL).is_err();
        }
    }
}

fn confused(message: &Message) -> NoSuccessor {
    let kind = match message {
        Message::Failed(_) => "a failure",
        _ => "a word out of turn",
    };
    NoSuccessor::Silent(io::Error::other(format!("it said {kind}")))
}

/// The successor's end of the stream is its standard input.
async fn launch(program: &Program) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = tokio::process::Command::from(program.command(&program.path, LAUNCH));
    command.stdin(Stdio::from(OwnedFd::from(theirs)));
    let mut launcher = command.kill_on_drop(true).spawn()?;
    // It holds their end, too.
    drop(command);
    let status = timeout(START, launcher.wait()).await;
    let status = status.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if status.success() {
        return Ok(ours);
    }
    Err(io::Error::other(format!("it ended at once ({status})")))
}

impl Predecessor {
    /// The process that started this one to take over, and its sockets; nothing if none did. Blocks.
    /// Errors: there is one that says nothing sensible.
    pub fn of_this_process() -> io::Result<Option<(Self, Givens)>> {
        if env::var_os(VARIABLE).is_none_or(|role| role != TAKE) {
            return Ok(None);
        }
        let stream = io::stdin().as_fd().try_clone_to_owned()?;
        let channel = Channel::new(UnixStream::from(stream))?;
        let given = channel.take(MOMENT)?.into_iter().collect();
        Ok(Some((Self(Arc::new(channel)), given)))
    }

    /// All is ready to be served; returns what else is this process's own from now on. Blocks.
    pub fn prepared(&self) -> io::Result<String> {
        let pid = std::process::id();
        self.0.say(&Message::Prepared { pid })?;
        match self.0.hear(PREPARE)? {
            Message::Bequest(bequest) => Ok(bequest),
            _ => Err(io::Error::other("it said a word out of turn")),
        }
    }

    /// All is served; the predecessor finds what it gave away at `place`. Returns when this process
    /// stands alone, be it that the other one is dead. Blocks.
    pub fn serving(&self, place: Option<PathBuf>) {
        let said = self.0.say(&Message::Serving(place));
        let heard = said.and_then(|()| self.0.hear(PREPARE));
        if let Err(error) = heard {
            tracing::debug!(%error, "the predecessor said no farewell");
        }
    }

    /// Waits until that process has ended.
    pub async fn gone(&self) {
        let stream = self.0.stream().try_clone().and_then(|stream| {
            stream.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(stream)
        });
        let Ok(mut stream) = stream else {
            return;
        };
        let mut byte = [0];
        while stream.read(&mut byte).await.is_ok_and(|read| read > 0) {}
    }
}
