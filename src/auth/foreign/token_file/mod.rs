//! websockify's token files: a file, or a directory of files, of `token: host:port` lines.
//!
//! Every look-up takes in what changed before it came, as websockify's `TokenFile` does; files whose
//! stamp is the same are not read again. Reading happens on a blocking thread, one at a time, so a
//! mount that hangs costs that one thread. The texts of tokens are forgotten at once, their hashes
//! are what is looked up.

mod line;
mod shelf;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;
use url::Url;

use super::{BoxFuture, Source};
use crate::auth::AuthError;
use crate::model::{
    Address, Binding, ConsoleType, Grant, InstanceId, Rights, Terms, Token, TokenHash, UnixTime,
};
use shelf::Shelf;

/// How long reading may take.
const DEADLINE: Duration = Duration::from_secs(4);

/// What the file itself does not tell.
#[derive(Clone, Debug)]
pub struct TokenFileSettings {
    /// The file, or the directory.
    pub path: PathBuf,
    /// Tokens at one time.
    pub most: usize,
    /// What the targets speak.
    pub console_type: ConsoleType,
    /// What a page's origin is held against.
    pub base: Url,
    /// How long grants last. A line lasts until it is taken out.
    pub ttl: Duration,
}

/// Token files as a source of tokens.
#[derive(Debug)]
pub struct TokenFile {
    settings: TokenFileSettings,
    shelf: Arc<Mutex<Shelf>>,
}

impl TokenFile {
    /// Nothing is read yet.
    pub fn new(settings: TokenFileSettings) -> Self {
        let shelf = Shelf::new(settings.path.clone(), settings.most);
        Self {
            settings,
            shelf: Arc::new(Mutex::new(shelf)),
        }
    }

    /// Where `wanted` leads; with nothing wanted, nowhere. Errors: `Source`.
    async fn find(&self, wanted: Option<TokenHash>) -> Result<Option<Address>, AuthError> {
        let path = self.settings.path.display();
        match timeout(DEADLINE, self.read(wanted)).await {
            Ok(found) => found.map_err(AuthError::Source),
            Err(_elapsed) => {
                let limit = DEADLINE.as_secs();
                Err(AuthError::Source(format!(
                    "{path} cannot be read within {limit} s"
                )))
            }
        }
    }

    /// The lock goes to the thread and stays there until it is done, whoever still waits for it.
    async fn read(&self, wanted: Option<TokenHash>) -> Result<Option<Address>, String> {
        let mut locked = Arc::clone(&self.shelf).lock_owned().await;
        let read = tokio::task::spawn_blocking(move || {
            let faults = locked.refresh();
            match wanted.and_then(|token| locked.find(&token)) {
                Some(address) => Ok(Some(address)),
                None => faults.into_iter().next().map_or(Ok(None), Err),
            }
        });
        read.await.unwrap_or_else(|panic| Err(panic.to_string()))
    }

    /// Two tokens for one address open one instance.
    fn grant(&self, address: Address, now: UnixTime) -> Grant {
        let name = address.to_string();
        Grant {
            instance: InstanceId::derived("target", &name),
            instance_name: name.into(),
            console_type: self.settings.console_type,
            target: address.into(),
            binding: Binding::Target,
            rights: Rights::CONTROL,
            base: self.settings.base.clone(),
            project: None,
            caller: "token-file".into(),
            terms: Terms::default(),
            issued: now,
            expires: now.plus(self.settings.ttl),
        }
    }
}

impl Source for TokenFile {
    fn name(&self) -> &'static str {
        "websockify's token file"
    }

    fn redeem<'a>(
        &'a self,
        token: &'a Token,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Grant, AuthError>> {
        Box::pin(async move {
            let address = self.find(Some(token.hash())).await?;
            let address = address.ok_or(AuthError::Unknown)?;
            Ok(self.grant(address, now))
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), AuthError>> {
        Box::pin(async move { self.find(None).await.map(drop) })
    }
}

#[cfg(test)]
mod tests;
