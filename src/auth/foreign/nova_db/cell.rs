use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::passage::Passage;
use super::row::Row;
use super::url::{self, DatabaseUrl};
use super::wire::Wire;
use crate::drain::Watch;
use crate::model::{TokenHash, UnixTime};

/// How long one question may take, connecting included: less than a caller of auth waits.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a connection that was kept may take to answer before it counts as dead. A server that
/// lives answers in milliseconds.
const KEPT: Duration = Duration::from_secs(2);

/// How long a dial may take.
const DIAL: Duration = Duration::from_secs(5);

/// How long a server may take to greet and to let us in. Longer than a question: a server that hangs
/// counts the connections that leave before it greets, and may lock a client out for them (`MySQL`'s
/// `max_connect_errors`), so one connection waits for it to come back, and is used when it does.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections at one time.
const MOST: usize = 8;

/// One cell's database, with a few connections that are kept.
#[derive(Debug)]
pub(super) struct Cell {
    file: PathBuf,
    kept: Mutex<Vec<Wire>>,
    places: Semaphore,
    /// Held while connecting: one at a time.
    turn: tokio::sync::Mutex<()>,
    /// Whether the last question failed.
    ailing: AtomicBool,
    watch: Watch,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
enum Question<'a> {
    Token(&'a TokenHash, UnixTime),
    Probe,
}

impl Cell {
    pub(super) fn new(file: PathBuf, watch: Watch) -> Self {
        Self {
            file,
            kept: Mutex::default(),
            places: Semaphore::new(MOST),
            turn: tokio::sync::Mutex::default(),
            ailing: AtomicBool::new(false),
            watch,
        }
    }

    /// The row of a token that is valid at `now`. Errors: a sentence with the cell's name. Ends
    /// within [`DEADLINE`].
    pub(super) async fn find(
        self: Arc<Self>,
        hash: &TokenHash,
        now: UnixTime,
    ) -> Result<Option<Row>, String> {
        self.ask(Question::Token(hash, now)).await
    }

    /// Whether it can be asked. Errors: as of `find`.
    pub(super) async fn probe(self: Arc<Self>) -> Result<(), String> {
        self.ask(Question::Probe).await.map(drop)
    }

    async fn ask(self: Arc<Self>, question: Question<'_>) -> Result<Option<Row>, String> {
        let answer = timeout(DEADLINE, self.answer(question)).await;
        let answer = answer.unwrap_or_else(|_| {
            self.kept().clear();
            Err(format!("no answer within {} s", DEADLINE.as_secs()))
        });
        let answer = answer.map_err(|why| format!("{}: {why}", self.file.display()));
        self.tell(answer.as_ref().err());
        answer
    }

    /// What was kept may be dead since; what was just made is not.
    async fn answer(self: &Arc<Self>, question: Question<'_>) -> Result<Option<Row>, String> {
        let _place = self.places.acquire().await;
        let kept = self.kept().pop();
        if let Some(mut wire) = kept {
            match timeout(KEPT, question.put(&mut wire)).await {
                Ok(Ok(row)) => {
                    self.keep(wire);
                    return Ok(row);
                }
                dead => {
                    tracing::debug!(cell = %self.file.display(), ?dead, "a kept connection is dead");
                    self.kept().clear();
                }
            }
        }
        let mut wire = self.connect().await?;
        let row = question.put(&mut wire).await;
        let row = row.map_err(|error| error.to_string())?;
        self.keep(wire);
        Ok(row)
    }

    /// In a task of its own, which goes on when nobody waits any more.
    async fn connect(self: &Arc<Self>) -> Result<Wire, String> {
        let (sender, made) = oneshot::channel();
        let cell = Arc::clone(self);
        self.watch.spawn_service(cell.connect_for(sender));
        let gone = || Err("this gateway is going down".to_owned());
        made.await.unwrap_or_else(|_| gone())
    }

    async fn connect_for(self: Arc<Self>, mut asked: oneshot::Sender<Result<Wire, String>>) {
        let _turn = tokio::select! {
            turn = self.turn.lock() => turn,
            () = asked.closed() => return,
            () = self.watch.closing() => return,
        };
        let made = tokio::select! {
            made = self.make() => made,
            () = self.watch.closing() => return,
        };
        if let Err(Ok(unwanted)) = asked.send(made) {
            self.keep(unwanted);
        }
    }

    /// One that nobody waited for, or a new one.
    async fn make(&self) -> Result<Wire, String> {
        let left = self.kept().pop();
        if let Some(wire) = left {
            return Ok(wire);
        }
        let url = self.read().await?;
        let passage = timeout(DIAL, Passage::open(&url.door, &self.watch)).await;
        let passage = match passage {
            Ok(Ok(passage)) => passage,
            Ok(Err(error)) => return Err(format!("cannot connect: {error}")),
            Err(_elapsed) => return Err(format!("no connection within {} s", DIAL.as_secs())),
        };
        match timeout(PATIENCE, Wire::connect(&url, &passage)).await {
            Ok(wire) => wire.map_err(|error| error.to_string()),
            Err(_elapsed) => Err(format!("no greeting within {} s", PATIENCE.as_secs())),
        }
    }

    async fn read(&self) -> Result<DatabaseUrl, String> {
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || url::read(&file));
        let read = read.await.map_err(|panic| panic.to_string())?;
        read.map_err(|bad| bad.why().to_owned())
    }

    fn keep(&self, wire: Wire) {
        let mut kept = self.kept();
        if kept.len() < MOST {
            kept.push(wire);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Wire>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once when it begins to fail, once when it is well again.
    fn tell(&self, fault: Option<&String>) {
        let ailed = self.ailing.swap(fault.is_some(), Ordering::Relaxed);
        match (ailed, fault) {
            (false, Some(fault)) => tracing::warn!(fault, "a cell's database cannot be asked"),
            (true, None) => {
                tracing::info!(cell = %self.file.display(), "a cell's database answers again");
            }
            _ => {}
        }
    }
}

impl Question<'_> {
    async fn put(self, wire: &mut Wire) -> Result<Option<Row>, sqlx::Error> {
        match self {
            Self::Token(hash, now) => wire.find(hash, now).await,
            Self::Probe => wire.probe().await.map(|()| None),
        }
    }
}
