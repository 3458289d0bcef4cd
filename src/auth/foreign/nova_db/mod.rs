//! Tokens that Nova made, read where it keeps them: in the databases of its cells.
//!
//! A proxy that has nothing but the database cannot ask the hypervisor whether a port is still the
//! instance's. It holds the token's row against the instance's own, and against later rows with the
//! same address. All cells are asked at once, and whichever has the token answers; where none has
//! it, all must have said so. Nothing is ever written. Columns and rules are Nova's
//! (`console_auth_tokens`, releases 14.0 to 34.0).

mod cell;
mod passage;
mod row;
mod url;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Bases, BoxFuture, Source};
use crate::auth::AuthError;
use crate::drain::Watch;
use crate::model::{Grant, Token, TokenHash, UnixTime};
use cell::Cell;
use row::Row;

pub use self::url::BadDatabase;

/// The databases of Nova's cells as a source of tokens.
#[derive(Debug)]
pub struct NovaDb {
    cells: Vec<Arc<Cell>>,
    bases: Bases,
    watch: Watch,
}

impl NovaDb {
    /// One cell for each of `files`, which hold their databases' URLs. A file is read again whenever
    /// a connection is made, so that a password can change. Nothing is connected to yet.
    pub fn new(files: &[PathBuf], bases: Bases, watch: &Watch) -> Self {
        let cell = |file: &PathBuf| Arc::new(Cell::new(file.clone(), watch.clone()));
        Self {
            cells: files.iter().map(cell).collect(),
            bases,
            watch: watch.clone(),
        }
    }

    /// Whether the files hold URLs that can be used. Blocks.
    pub fn check(files: &[PathBuf]) -> Result<(), BadDatabase> {
        files.iter().try_for_each(|file| url::read(file).map(drop))
    }

    /// The first cell that has it; a cell that cannot be asked counts only where no other has it.
    async fn row(&self, hash: TokenHash, now: UnixTime) -> Result<Row, AuthError> {
        let hash = Arc::new(hash);
        let mut answers = self.ask(|cell| {
            let hash = Arc::clone(&hash);
            async move { cell.find(&hash, now).await }
        });
        let mut fault = None;
        while let Some(answer) = answers.recv().await {
            match answer {
                Ok(Some(row)) => return Ok(row),
                Ok(None) => {}
                Err(why) => fault = Some(why),
            }
        }
        Err(fault.map_or(AuthError::Unknown, AuthError::Source))
    }

    /// One that answers is enough: its consoles open.
    async fn any_answers(&self) -> Result<(), AuthError> {
        let mut answers = self.ask(|cell| async move { cell.probe().await });
        let mut fault = None;
        while let Some(answer) = answers.recv().await {
            match answer {
                Ok(()) => return Ok(()),
                Err(why) => fault = Some(why),
            }
        }
        fault.map_or(Ok(()), |why| Err(AuthError::Source(why)))
    }

    /// Every cell is asked to the end, whoever still waits for it, so that no connection is given up
    /// that would have answered.
    fn ask<T, A>(&self, question: impl Fn(Arc<Cell>) -> A) -> mpsc::Receiver<T>
    where
        T: Send + 'static,
        A: Future<Output = T> + Send + 'static,
    {
        let (sender, answers) = mpsc::channel(self.cells.len().max(1));
        for cell in &self.cells {
            let (answer, sender) = (question(Arc::clone(cell)), sender.clone());
            self.watch.spawn_service(async move {
                let _nobody_waits = sender.send(answer.await).await.is_err();
            });
        }
        answers
    }
}

impl Source for NovaDb {
    fn name(&self) -> &'static str {
        "Nova"
    }

    fn redeem<'a>(
        &'a self,
        token: &'a Token,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Grant, AuthError>> {
        Box::pin(async move { self.row(token.hash(), now).await?.grant(now, &self.bases) })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), AuthError>> {
        Box::pin(self.any_answers())
    }
}
