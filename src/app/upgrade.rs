//! Puts another process in this one's place, on the same sockets, while people use it.
//!
//! Called for SIGUSR2 and for `vncgate upgrade`. The successor is started from the path that this
//! program was started from, so that a new binary is taken. No connection is refused: what comes
//! while neither serves waits in the sockets' queues. Sessions stay here until they end, and ask the
//! successor about their tokens, so that they are listed and killed there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::auth::{Auth, Bequest, Estate, Frozen};
use crate::drain::{Drain, Gate, Watch};
use crate::http::{BindError, Listener};
use crate::model::Address;
use crate::process::{Given, Notifier, Program, Successor};
use crate::rpc::{Client, DEADLINE, Desk, Keys, Links, Timeouts};

/// How long a connection to the successor may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How often the file of tokens is tried, and how long between.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// How long calls from the predecessor may take once it has ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// Replaces this process. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Upgrader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: Program,
    /// Gone once another process listens on them. Locked while one is started.
    doors: Mutex<Option<Arc<Vec<Given>>>>,
    gate: Gate,
    /// Of auth, where it runs here.
    estate: Option<Estate>,
    notifier: Notifier,
    replaced: CancellationToken,
    /// Its end tells the successor that this process has ended.
    bond: Mutex<Option<Bond>>,
}

type Bond = Arc<dyn fmt::Debug + Send + Sync>;

/// Who stands in this process's place now.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Upgraded {
    /// Its process id.
    pub pid: u32,
}

impl Upgrader {
    pub(super) fn new(
        program: Program,
        doors: Vec<Given>,
        gate: Gate,
        estate: Option<Estate>,
        notifier: Notifier,
    ) -> Self {
        Self(Arc::new(Inner {
            program,
            doors: Mutex::new(Some(Arc::new(doors))),
            gate,
            estate,
            notifier,
            replaced: CancellationToken::new(),
            bond: Mutex::default(),
        }))
    }

    /// Starts a successor and hands over to it. Errors: in words; then all is as it was. Runs to its
    /// end even if nobody waits for it.
    pub async fn upgrade(&self) -> Result<Upgraded, String> {
        let inner = Arc::clone(&self.0);
        let running = tokio::spawn(async move { inner.upgrade().await });
        let outcome = running.await.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(error) = &outcome {
            tracing::error!(error, "no successor, this process goes on");
        }
        outcome
    }

    /// Waits until another process stands in this one's place. Cancel-safe.
    pub async fn replaced(&self) {
        self.0.replaced.cancelled().await;
    }
}

impl Inner {
    async fn upgrade(&self) -> Result<Upgraded, String> {
        if process::id() == 1 {
            return Err(
                "process 1 of a container takes the container with it when it ends; \
                        start another container instead"
                    .to_owned(),
            );
        }
        let mut doors = self.doors.lock().await;
        let sockets = doors
            .clone()
            .ok_or("another process has taken over already")?;
        tracing::info!("starting a successor");
        let successor = Successor::start(&self.program, sockets).await;
        let successor = successor.map_err(|error| error.to_string())?;
        self.gate.hold();
        let handed = self.hand_over(successor).await;
        let successor = handed.inspect_err(|_| self.gate.open())?;
        *doors = None;
        self.gate.leave();
        let pid = successor.pid();
        self.notifier
            .successor(pid, "taken over from a process that keeps its sessions");
        *self.bond.lock().await = Some(successor.farewell().await);
        tracing::info!(
            successor = pid,
            "handed over; sessions stay here until they end"
        );
        self.replaced.cancel();
        Ok(Upgraded { pid })
    }

    async fn hand_over(&self, successor: Successor) -> Result<Successor, String> {
        let frozen = match &self.estate {
            Some(estate) => estate.freeze().await,
            None => None,
        };
        let Some(frozen) = frozen else {
            let served = successor.bequeath(String::new()).await;
            return served
                .map(|_nothing| successor)
                .map_err(|error| error.to_string());
        };
        let why = match written(frozen.bequest()) {
            Err(why) => why,
            Ok(bequest) => match successor.bequeath(bequest).await {
                Ok(Some(place)) => {
                    frozen.give_up(heir(place));
                    return Ok(successor);
                }
                Ok(None) => "the successor took no tokens".to_owned(),
                Err(error) => error.to_string(),
            },
        };
        drop(successor);
        Err(thawed(frozen, why).await)
    }
}

/// Has all be as before, and says why. A successor that was killed may hold the file of tokens for
/// a moment.
async fn thawed(mut frozen: Frozen, why: String) -> String {
    for _try in 0..TRIES {
        match frozen.thaw().await {
            Ok(()) => return why,
            Err(error) => tracing::debug!(%error, "the tokens are not back yet"),
        }
        sleep(PAUSE).await;
    }
    match frozen.thaw().await {
        Ok(()) => why,
        Err(error) => format!("{why}; and no token can be checked: {error}"),
    }
}

fn written(bequest: &Bequest) -> Result<String, String> {
    serde_json::to_string(bequest).map_err(|error| error.to_string())
}

fn heir(place: PathBuf) -> Client<Auth> {
    let timeouts = Timeouts {
        connect: CONNECT,
        call: DEADLINE,
    };
    let mut links = Links::new(Arc::new(Keys::Nothing), timeouts);
    links.client(&[Address::Unix(place)])
}

/// Where the predecessor's sessions are answered.
#[derive(Clone, Debug)]
pub struct Heir {
    /// The socket.
    pub place: PathBuf,
    gone: CancellationToken,
}

impl Heir {
    /// The predecessor has ended.
    pub fn left_alone(&self) {
        self.gone.cancel();
    }
}

/// Has the predecessor's sessions answered at a socket of their own. Errors: it cannot be made.
pub(super) fn answer_predecessor(
    auth: Client<Auth>,
    admin: &Path,
    watch: &Watch,
) -> Result<Heir, BindError> {
    let place = admin.with_file_name(format!("heir-{}.sock", process::id()));
    let listener = Listener::unix(&place)?;
    let (desk, own) = (Arc::new(Desk::default().with(auth)), Drain::default());
    let gone = CancellationToken::new();
    let serving = desk.serve(listener, Arc::new(Keys::Nothing), own.watch());
    own.watch().spawn_service(serving);
    let (waiting, closing) = (gone.clone(), watch.clone());
    watch.spawn_service(async move {
        tokio::select! {
            () = waiting.cancelled() => {}
            () = closing.closing() => {}
        }
        own.run(Duration::ZERO, FAREWELL).await;
    });
    Ok(Heir { place, gone })
}
