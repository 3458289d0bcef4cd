//! The connection to one hypervisor, kept for as long as the process runs.
//!
//! One task connects, follows events, and connects again with growing pauses. Whoever asks while
//! there is no connection makes the task try at once and hears how that went.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::client::{Auth, Client, LIMIT, Rights, Topic};
use super::index::{self, Index};
use super::sasl::{self, Credentials, SaslError};
use super::transport::{self, Channel, Options, TransportError, Uri};
use super::wire::{Closed, Connection, Error, Events, Keepalive};
use crate::compute::domain::Handover;
use crate::compute::driver::Changes;
use crate::drain::Watch;
use crate::model::{Host, Security};

/// How long a connection across the network may take to come about: ssh asks several machines.
const FAR_LIMIT: Duration = Duration::from_secs(15);

/// The pauses between attempts, from the first to the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The shortest time between two attempts, however many ask.
const GAP: Duration = Duration::from_millis(50);

/// All that the index lives by. A viewer at a display says that its domain is worth a look, too.
const TOPICS: [Topic; 5] = [
    Topic::Lifecycle,
    Topic::Graphics,
    Topic::DeviceAdded,
    Topic::DeviceRemoved,
    Topic::Metadata,
];

/// Which hypervisor, and how to be let in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For people: the name of the host.
    pub name: String,
    /// The way to its daemon.
    pub uri: Uri,
    /// What listen addresses such as `0.0.0.0` mean.
    pub address: Host,
    /// Never ask for more than to look. Consoles are then dialled.
    pub readonly: bool,
    /// Who we are, where the daemon asks by SASL.
    pub credentials: Option<Arc<Credentials>>,
    /// A daemon that is not there is no fault.
    pub optional: bool,
    /// How the VNC servers of its guests are to be met.
    pub security: Security,
    /// Whether to ask for the passwords of displays, where it lets us.
    pub passwords: bool,
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(super) struct Why {
    /// In a phrase.
    pub(super) text: String,
    /// Nothing takes connections where the daemon should.
    pub(super) absent: bool,
}

impl Why {
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            absent: false,
        }
    }
}

impl From<Error> for Why {
    fn from(error: Error) -> Self {
        Self::new(&error.to_string())
    }
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        Self::new(&error.to_string())
    }
}

/// A connection that stands.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) client: Client,
    pub(super) rights: Rights,
    pub(super) handover: Handover,
    pub(super) index: Index,
}

#[derive(Clone)]
enum State {
    Starting,
    Up(Arc<Live>),
    Down(Why),
}

/// One hypervisor's connection, whether it stands or not.
pub(super) struct Link {
    pub(super) settings: Settings,
    state: watch::Sender<State>,
    asked: Notify,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.settings.name).finish()
    }
}

/// A connection on which calls can be made, for as long as `work` is held.
pub(super) struct Dialled {
    pub(super) client: Client,
    events: Events,
    pub(super) work: AbortOnDropHandle<Closed>,
    channel: Channel,
}

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Sasl(#[from] SaslError),
    #[error(
        "polkit does not let this user in ({0}): join the group `libvirt`, or set \
         unix_sock_group and auth_unix_rw in libvirtd.conf"
    )]
    Polkit(Error),
    #[error("it asks for authentication of the unknown kind {0}")]
    Auth(i32),
    #[error(transparent)]
    Call(#[from] Error),
}

impl DialError {
    fn is_forbidden(&self) -> bool {
        match self {
            Self::Transport(TransportError::Socket { why, .. }) => {
                why.kind() == io::ErrorKind::PermissionDenied
            }
            Self::Polkit(_) => true,
            _ => false,
        }
    }
}

impl From<DialError> for Why {
    fn from(error: DialError) -> Self {
        let absent = matches!(
            error,
            DialError::Transport(TransportError::NoDaemon(_) | TransportError::Socket { .. })
        );
        Self {
            text: error.to_string(),
            absent,
        }
    }
}

impl Link {
    pub(super) fn new(settings: Settings) -> Self {
        let (state, _) = watch::channel(State::Starting);
        Self {
            settings,
            state,
            asked: Notify::new(),
        }
    }

    /// The connection, if it stands.
    pub(super) fn current(&self) -> Option<Arc<Live>> {
        match &*self.state.borrow() {
            State::Up(live) => Some(Arc::clone(live)),
            State::Starting | State::Down(_) => None,
        }
    }

    /// Whether nothing took connections at the last attempt; waits for the first.
    pub(super) async fn is_absent(&self, deadline: Instant) -> bool {
        let mut states = self.state.subscribe();
        let begun = states.wait_for(|state| !matches!(state, State::Starting));
        let begun = timeout_at(deadline, begun).await;
        let State::Down(why) = &*self.state.borrow() else {
            return false;
        };
        self.asked.notify_one();
        begun.is_ok() && why.absent
    }

    /// The connection; while there is none, the outcome of the next attempt. Where nothing takes
    /// connections, the last attempt's outcome is told at once.
    pub(super) async fn live(&self, deadline: Instant) -> Result<Arc<Live>, Why> {
        let mut states = self.state.subscribe();
        let state = states.borrow_and_update().clone();
        match state {
            State::Up(live) => return Ok(live),
            State::Down(why) => {
                self.asked.notify_one();
                if why.absent && self.settings.optional {
                    return Err(why);
                }
            }
            State::Starting => {}
        }
        self.outcome(&mut states, deadline).await
    }

    /// The connection after `lost`.
    pub(super) async fn next(&self, lost: &Arc<Live>, deadline: Instant) -> Result<Arc<Live>, Why> {
        let mut states = self.state.subscribe();
        let state = states.borrow_and_update().clone();
        if let State::Up(live) = state
            && !Arc::ptr_eq(&live, lost)
        {
            return Ok(live);
        }
        self.asked.notify_one();
        loop {
            match self.outcome(&mut states, deadline).await {
                Ok(live) if Arc::ptr_eq(&live, lost) => {}
                outcome => return outcome,
            }
        }
    }

    async fn outcome(
        &self,
        states: &mut watch::Receiver<State>,
        deadline: Instant,
    ) -> Result<Arc<Live>, Why> {
        let changed = timeout_at(deadline, states.changed()).await;
        let state = states.borrow_and_update().clone();
        match (changed, state) {
            (_, State::Up(live)) => Ok(live),
            (_, State::Down(why)) => Err(why),
            (_, State::Starting) => Err(Why::new("no answer yet")),
        }
    }

    /// Connects again and again. Ends with `watch`.
    pub(super) async fn run(self: Arc<Self>, changes: Changes, watch: Watch) {
        tokio::select! {
            () = self.keep(&changes) => {}
            () = watch.closing() => {}
        }
    }

    async fn keep(&self, changes: &Changes) {
        let mut pause = PAUSE;
        loop {
            let why = match self.connect().await {
                Ok((live, dialled)) => {
                    pause = PAUSE;
                    self.follow(live, dialled, changes).await
                }
                Err(why) => why,
            };
            self.went_down(why);
            sleep(GAP).await;
            tokio::select! {
                () = sleep(pause) => {}
                () = self.asked.notified() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Says so once, not at every attempt.
    fn went_down(&self, why: Why) {
        let host = &self.settings.name;
        let already = matches!(&*self.state.borrow(), State::Down(_));
        let expected = why.absent && self.settings.optional;
        if already || expected {
            tracing::debug!(host, why = why.text, "hypervisor not reached");
        } else {
            tracing::warn!(host, why = why.text, "hypervisor not reached");
        }
        let _before = self.state.send_replace(State::Down(why));
    }

    async fn connect(&self) -> Result<(Arc<Live>, Dialled), Why> {
        let (dialled, rights) = self.dial_any().await?;
        let writes = rights == Rights::ReadWrite;
        let local = self.settings.uri.is_local();
        let live = Live {
            client: dialled.client.clone(),
            rights,
            handover: Handover {
                displays: writes && local,
                lines: writes,
            },
            index: Index::default(),
        };
        Ok((Arc::new(live), dialled))
    }

    /// To look is better than nothing, where more is forbidden.
    async fn dial_any(&self) -> Result<(Dialled, Rights), DialError> {
        let (read, write) = (Rights::ReadOnly, Rights::ReadWrite);
        if self.settings.readonly {
            return Ok((self.dial(read).await?, read));
        }
        match self.dial(write).await {
            Err(error) if error.is_forbidden() => {
                let (host, why) = (&self.settings.name, error.to_string());
                let dialled = self.dial(read).await.map_err(|_| error)?;
                tracing::debug!(host, why, "connected to look only");
                Ok((dialled, read))
            }
            dialled => Ok((dialled?, write)),
        }
    }

    /// One more connection, with the rights of the one that stands.
    pub(super) async fn dial_like_now(&self) -> Result<Dialled, Why> {
        let rights = self.current().map_or(Rights::ReadWrite, |live| live.rights);
        Ok(self.dial(rights).await?)
    }

    async fn dial(&self, rights: Rights) -> Result<Dialled, DialError> {
        let uri = &self.settings.uri;
        let limit = if uri.is_local() { LIMIT } else { FAR_LIMIT };
        let options = Options::new(rights);
        let transport = transport::connect(uri, &options, Instant::now() + limit).await?;
        let (connection, events, work) = Connection::new(transport.io, Keepalive::default());
        let work = AbortOnDropHandle::new(tokio::spawn(work));
        let client = Client::new(connection.clone()).within(limit);
        let channel = transport.channel;
        self.authenticate(&client, channel).await?;
        client.open(uri.remote(), rights).await?;
        Ok(Dialled {
            client: Client::new(connection),
            events,
            work,
            channel,
        })
    }

    async fn authenticate(&self, client: &Client, channel: Channel) -> Result<(), DialError> {
        match client.auth_list().await?.first() {
            None | Some(Auth::None) => Ok(()),
            Some(Auth::Sasl) => {
                let credentials = self.settings.credentials.as_deref();
                Ok(sasl::authenticate(client, channel, credentials).await?)
            }
            Some(Auth::Polkit) => client.auth_polkit().await.map_err(DialError::Polkit),
            Some(Auth::Other(kind)) => Err(DialError::Auth(*kind)),
        }
    }

    /// Keeps the index until the connection ends; tells why it did.
    async fn follow(&self, live: Arc<Live>, dialled: Dialled, changes: &Changes) -> Why {
        let Dialled {
            client,
            mut events,
            work,
            channel,
        } = dialled;
        let _before = self.state.send_replace(State::Up(Arc::clone(&live)));
        let (host, rights) = (&self.settings.name, live.rights);
        tracing::info!(host, ?rights, ?channel, "hypervisor reached");
        let followed = async {
            let _supported = client.keep_alive().await?;
            register(&client).await?;
            index::keep(&live, &self.settings, &mut events, changes).await
        };
        let failure = followed.await;
        live.index.give_up();
        match failure {
            Err(error) if !matches!(error, Error::Closed(_)) => error.into(),
            _ => match work.await {
                Ok(closed) => Why::new(&closed.to_string()),
                Err(panic) => Why::new(&panic.to_string()),
            },
        }
    }
}

/// Older daemons know fewer topics, and say so with any code. Without the first one, lists grow
/// old; one instance is asked for afresh all the same.
async fn register(client: &Client) -> Result<(), Error> {
    for topic in TOPICS {
        match client.register(topic).await {
            Err(Error::Remote(why)) if topic == Topic::Lifecycle => {
                tracing::warn!(%why, "the daemon does not tell what starts and ends");
            }
            Err(Error::Remote(why)) => {
                tracing::debug!(?topic, %why, "the daemon does not tell of this");
            }
            registered => drop(registered?),
        }
    }
    Ok(())
}
