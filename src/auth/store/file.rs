//! Grants in a file that outlives the process, however that ends.
//!
//! Memory answers every question; the file is a journal of what changed, read once at the start. A
//! change is answered for only when it is on the disk, so that no issued token is lost and no
//! revoked one comes back. One thread writes, and what waits while it does goes with the next
//! commit: many changes cost little more than one.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::claim::Claim;
use super::memory::Memory;
use super::{Answer, Attempt, Keepsakes, Store};
use crate::auth::{AuthError, Entry};
use crate::model::{Grant, InstanceId, Rights, TokenHash, TokenId, UnixTime};

/// Grants as JSON, by the hash of their token.
const GRANTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("grants");

/// Claims as JSON, by the public name of their token.
const CLAIMS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("claims");

/// Changes that wait for the disk, and that go into one commit, at most.
const QUEUE: usize = 1024;

/// Why there is no file to keep grants in.
#[derive(Debug, thiserror::Error)]
#[error("the token file {} cannot be used: {why}", path.display())]
pub struct BadFile {
    /// The file.
    path: PathBuf,
    /// What is wrong.
    why: String,
}

/// A durable store.
#[derive(Debug)]
pub(in crate::auth) struct File {
    memory: Memory,
    journal: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    /// Held while a claim changes, so that the file hears of changes in their order.
    claims: Mutex<()>,
}

/// A change, and who waits for it.
#[derive(Debug)]
struct Job {
    change: Change,
    written: oneshot::Sender<Result<(), String>>,
}

#[derive(Debug)]
enum Change {
    Grant(TokenHash, Vec<u8>),
    Claim(TokenId, Option<Vec<u8>>),
    Forget(Vec<TokenHash>),
}

impl File {
    /// Opens the file at `path`, or makes one that its owner alone may read. Errors: another
    /// process has it, or it is no such file.
    pub(in crate::auth) fn open(path: &Path, limit: usize) -> Result<Self, BadFile> {
        let bad = |why: String| BadFile {
            path: path.to_owned(),
            why,
        };
        let database = open(path).map_err(bad)?;
        let memory = Memory::new(limit);
        let loaded = load(&database, &memory, UnixTime::now());
        loaded.map_err(|error| bad(error.to_string()))?;
        let (journal, jobs) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new().name("token file".to_owned());
        let writing = writer.spawn(move || write(&database, jobs));
        let writer = writing.map_err(|error| bad(error.to_string()))?;
        Ok(Self {
            memory,
            journal: Some(journal),
            writer: Some(writer),
            claims: Mutex::default(),
        })
    }

    /// Waits until `change` is on the disk. What is dropped while it waits is written all the same.
    async fn record(&self, change: Change) -> Result<(), AuthError> {
        let (written, done) = oneshot::channel();
        let gone = || AuthError::Store("the file's writer has ended".to_owned());
        let job = Job { change, written };
        let journal = self.journal.as_ref().ok_or_else(gone)?;
        journal.send(job).await.map_err(|_| gone())?;
        let outcome = done.await.map_err(|_| gone())?;
        outcome.map_err(AuthError::Store)
    }

    async fn keep_claim(&self, id: TokenId, claim: Option<Claim>) -> Result<(), AuthError> {
        let claim = claim.map(|claim| serde_json::to_vec(&claim)).transpose();
        let claim = claim.map_err(|error| AuthError::Store(error.to_string()))?;
        self.record(Change::Claim(id, claim)).await
    }
}

/// Waits until all is written and the file is free.
impl Drop for File {
    fn drop(&mut self) {
        drop(self.journal.take());
        let _ended = self.writer.take().map(JoinHandle::join);
    }
}

fn open(path: &Path) -> Result<Database, String> {
    let text = |error: io::Error| error.to_string();
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(text)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    let file = options.open(path).map_err(text)?;
    let backend = FileBackend::new(file).map_err(|error| error.to_string())?;
    let database = Database::builder().create_with_backend(backend);
    database.map_err(|error| error.to_string())
}

/// Fills `memory` with what is still valid. A browser that had a session when the process ended has
/// from now on to come back.
fn load(database: &Database, memory: &Memory, now: UnixTime) -> Result<(), redb::Error> {
    // Tables come into being when they are first opened to be written.
    commit(database, &[])?;
    let mut dead = Vec::new();
    let reading = database.begin_read()?;
    for row in reading.open_table(GRANTS)?.iter()? {
        let (hash, grant) = row?;
        let grant = serde_json::from_slice::<Arc<Grant>>(grant.value()).ok();
        let Ok(hash) = hash.value().parse::<TokenHash>() else {
            continue;
        };
        match grant.filter(|grant| grant.expires > now) {
            Some(grant) => memory.restore(hash, grant),
            None => dead.push(hash),
        }
    }
    for row in reading.open_table(CLAIMS)?.iter()? {
        let (id, claim) = row?;
        let id = id.value().parse::<TokenId>().ok();
        let claim = serde_json::from_slice::<Claim>(claim.value()).ok();
        if let (Some(id), Some(claim)) = (id, claim) {
            memory.restore_claim(id, claim.interrupted(now));
        }
    }
    commit(database, &[Change::Forget(dead)])
}

/// Writes until nobody can ask for it any more.
fn write(database: &Database, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::with_capacity(QUEUE);
    while jobs.blocking_recv_many(&mut batch, QUEUE) > 0 {
        let (changes, waiting): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|job| (job.change, job.written)).unzip();
        let outcome = commit(database, &changes).map_err(|error| error.to_string());
        if let Err(error) = &outcome {
            tracing::error!(error, "the token file cannot be written");
        }
        for written in waiting {
            let _nobody_waits = written.send(outcome.clone()).is_err();
        }
    }
}

fn commit(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    {
        let mut grants = writing.open_table(GRANTS)?;
        let mut claims = writing.open_table(CLAIMS)?;
        for change in changes {
            match change {
                Change::Grant(hash, grant) => drop(grants.insert(&*hash.to_string(), &**grant)?),
                Change::Claim(id, Some(claim)) => drop(claims.insert(&*id.to_string(), &**claim)?),
                Change::Claim(id, None) => drop(claims.remove(&*id.to_string())?),
                Change::Forget(hashes) => {
                    for hash in hashes {
                        drop(grants.remove(&*hash.to_string())?);
                        drop(claims.remove(&*hash.id().to_string())?);
                    }
                }
            }
        }
    }
    writing.commit()?;
    Ok(())
}

impl Store for File {
    fn insert(&self, hash: TokenHash, grant: Arc<Grant>, now: UnixTime) -> Answer<'_, ()> {
        Box::pin(async move {
            let bytes = serde_json::to_vec(&grant);
            let bytes = bytes.map_err(|error| AuthError::Store(error.to_string()))?;
            // Nobody knows the token before this is answered.
            let buried = self.memory.put(hash, grant, now)?;
            if !buried.is_empty() {
                self.record(Change::Forget(buried)).await?;
            }
            let written = self.record(Change::Grant(hash, bytes)).await;
            if written.is_err() {
                self.memory.forget(hash.id());
            }
            written
        })
    }

    fn get(&self, hash: TokenHash, now: UnixTime) -> Answer<'_, Option<Arc<Grant>>> {
        Store::get(&self.memory, hash, now)
    }

    fn find(&self, id: TokenId, now: UnixTime) -> Answer<'_, Option<Entry>> {
        Store::find(&self.memory, id, now)
    }

    fn remove(&self, id: TokenId, now: UnixTime) -> Answer<'_, Option<Entry>> {
        Box::pin(async move {
            let _order = self.claims.lock().await;
            if let Some(hash) = self.memory.hash_of(id) {
                self.record(Change::Forget(vec![hash])).await?;
            }
            Store::remove(&self.memory, id, now).await
        })
    }

    fn list(&self, instance: Option<InstanceId>, now: UnixTime) -> Answer<'_, Vec<Entry>> {
        Store::list(&self.memory, instance, now)
    }

    fn claim(&self, id: TokenId, attempt: Attempt, now: UnixTime) -> Answer<'_, Option<bool>> {
        Box::pin(async move {
            let _order = self.claims.lock().await;
            let welcome = Store::claim(&self.memory, id, attempt, now).await?;
            if welcome == Some(true) {
                self.keep_claim(id, self.memory.claim_of(id)).await?;
            }
            Ok(welcome)
        })
    }

    fn set_rights(&self, id: TokenId, rights: Rights, now: UnixTime) -> Answer<'_, ()> {
        Box::pin(async move {
            // Or a token that is being revoked would be written again behind that.
            let _order = self.claims.lock().await;
            let Some((hash, grant)) = self.memory.change(id, rights, now) else {
                return Ok(());
            };
            let bytes = serde_json::to_vec(&grant);
            let bytes = bytes.map_err(|error| AuthError::Store(error.to_string()))?;
            self.record(Change::Grant(hash, bytes)).await
        })
    }

    fn leave(&self, id: TokenId, opened: bool, now: UnixTime) -> Answer<'_, ()> {
        Box::pin(async move {
            let _order = self.claims.lock().await;
            Store::leave(&self.memory, id, opened, now).await?;
            self.keep_claim(id, self.memory.claim_of(id)).await
        })
    }

    fn sweep(&self, now: UnixTime) -> Answer<'_, ()> {
        Box::pin(async move {
            let buried = self.memory.bury(now);
            if buried.is_empty() {
                return Ok(());
            }
            self.record(Change::Forget(buried)).await
        })
    }

    fn ready(&self) -> Answer<'_, ()> {
        Box::pin(async {
            // An empty change is a commit like any other: it shows whether the disk takes one.
            self.record(Change::Forget(Vec::new())).await
        })
    }

    /// The grants are in the file.
    fn keepsakes(&self) -> Keepsakes {
        Keepsakes {
            grants: Vec::new(),
            claims: self.memory.all_claims(),
        }
    }

    fn inherit(&self, keepsakes: Keepsakes, now: UnixTime) -> Answer<'_, ()> {
        Box::pin(async move {
            for (hash, grant) in keepsakes.grants {
                self.insert(hash, grant, now).await?;
            }
            let _order = self.claims.lock().await;
            for (id, claim) in keepsakes.claims {
                self.memory.restore_claim(id, claim.clone());
                self.keep_claim(id, Some(claim)).await?;
            }
            Ok(())
        })
    }
}
