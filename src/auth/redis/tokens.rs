use std::sync::Arc;

use redis::{Cmd, Script};

use super::{Redis, unreadable};
use crate::auth::store::claim::Claim;
use crate::auth::store::{Answer, Attempt, Store, sorted};
use crate::auth::{AuthError, Entry};
use crate::model::{Grant, InstanceId, Rights, TokenHash, TokenId, UnixTime};

/// Keeps a grant until it expires. Twice the same is once.
const INSERT: &str = "
    local known = redis.call('HGET', KEYS[1], 'hash')
    if known then return known == ARGV[1] and 1 or 0 end
    redis.call('HSET', KEYS[1], 'hash', ARGV[1], 'grant', ARGV[2])
    redis.call('EXPIREAT', KEYS[1], ARGV[3])
    return 1";

/// Takes a grant out.
const REMOVE: &str = "
    local grant = redis.call('HGET', KEYS[1], 'grant')
    redis.call('DEL', KEYS[1])
    return grant";

/// Changes a claim that nobody else has changed since it was read.
const CLAIM: &str = "
    if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
    local known = redis.call('HGET', KEYS[1], 'claim') or ''
    if known ~= ARGV[1] then return 0 end
    if ARGV[2] == '' then redis.call('HDEL', KEYS[1], 'claim')
    else redis.call('HSET', KEYS[1], 'claim', ARGV[2]) end
    return 1";

/// Changes a grant that nobody else has changed since it was read.
const CHANGE: &str = "
    local known = redis.call('HGET', KEYS[1], 'grant')
    if not known then return -1 end
    if known ~= ARGV[1] then return 0 end
    redis.call('HSET', KEYS[1], 'grant', ARGV[2])
    return 1";

impl Redis {
    fn token(&self, id: TokenId) -> String {
        self.key("token", &id.to_string())
    }

    /// When which token expires: a name may stand here whose token is gone, never the other way
    /// round.
    fn index(&self) -> String {
        self.joint("tokens")
    }

    async fn read(&self, id: TokenId) -> Result<Option<(String, Arc<Grant>)>, AuthError> {
        let mut command = redis::cmd("HMGET");
        let _command = command.arg(self.token(id)).arg("hash").arg("grant");
        let (hash, grant): (Option<String>, Option<Vec<u8>>) = self.link.command(&command).await?;
        let (Some(hash), Some(grant)) = (hash, grant) else {
            return Ok(None);
        };
        let grant = serde_json::from_slice(&grant).map_err(|error| unreadable(&error))?;
        Ok(Some((hash, grant)))
    }

    async fn entry(&self, id: TokenId, now: UnixTime) -> Result<Option<Entry>, AuthError> {
        let read = self.read(id).await?;
        let valid = read.filter(|(_, grant)| grant.expires > now);
        Ok(valid.map(|(_, grant)| Entry { id, grant }))
    }

    async fn keep(&self, hash: TokenHash, grant: &Grant, now: UnixTime) -> Result<(), AuthError> {
        let mut count = redis::cmd("ZCOUNT");
        let _command = count
            .arg(self.index())
            .arg(format!("({}", now.0))
            .arg("+inf");
        if self.link.command::<usize>(&count).await? >= self.max_tokens {
            return Err(AuthError::Full(self.max_tokens));
        }
        let (id, expires) = (hash.id(), grant.expires.0.to_string());
        let mut index = redis::cmd("ZADD");
        let _command = index.arg(self.index()).arg(&expires).arg(id.to_string());
        self.link.command::<()>(&index).await?;
        let grant = serde_json::to_vec(grant).map_err(|error| unreadable(&error))?;
        let arguments = [hash.to_string().into(), grant, expires.into_bytes()];
        let script = Script::new(INSERT);
        let kept: bool = self
            .link
            .script(&script, &[self.token(id)], &arguments)
            .await?;
        let taken = || AuthError::Store("two tokens have the same name".to_owned());
        kept.then_some(()).ok_or_else(taken)
    }

    async fn take(&self, id: TokenId, now: UnixTime) -> Result<Option<Entry>, AuthError> {
        let script = Script::new(REMOVE);
        let keys = [self.token(id)];
        let grant: Option<Vec<u8>> = self.link.script(&script, &keys, &[]).await?;
        let mut index = redis::cmd("ZREM");
        let _command = index.arg(self.index()).arg(id.to_string());
        self.link.command::<()>(&index).await?;
        let Some(grant) = grant else {
            return Ok(None);
        };
        let grant: Arc<Grant> =
            serde_json::from_slice(&grant).map_err(|error| unreadable(&error))?;
        Ok((grant.expires > now).then_some(Entry { id, grant }))
    }

    async fn entries(
        &self,
        instance: Option<InstanceId>,
        now: UnixTime,
    ) -> Result<Vec<Entry>, AuthError> {
        let mut names = redis::cmd("ZRANGEBYSCORE");
        let _command = names
            .arg(self.index())
            .arg(format!("({}", now.0))
            .arg("+inf");
        let names: Vec<String> = self.link.command(&names).await?;
        let mut entries = Vec::new();
        for id in names.iter().filter_map(|name| name.parse().ok()) {
            entries.extend(self.entry(id, now).await?);
        }
        entries.retain(|entry| instance.is_none_or(|id| entry.grant.instance == id));
        Ok(sorted(entries))
    }

    async fn give(&self, id: TokenId, rights: Rights) -> Result<(), AuthError> {
        let script = Script::new(CHANGE);
        loop {
            let mut read = redis::cmd("HGET");
            let _command = read.arg(self.token(id)).arg("grant");
            let Some(known) = self.link.command::<Option<Vec<u8>>>(&read).await? else {
                return Ok(());
            };
            let grant = serde_json::from_slice(&known).map_err(|error| unreadable(&error))?;
            let grant = Grant { rights, ..grant };
            let grant = serde_json::to_vec(&grant).map_err(|error| unreadable(&error))?;
            let keys = [self.token(id)];
            let changed: i64 = self.link.script(&script, &keys, &[known, grant]).await?;
            if changed != 0 {
                return Ok(());
            }
        }
    }

    /// Changes a claim; nothing if the token is not there.
    async fn change<T>(
        &self,
        id: TokenId,
        change: impl Fn(&mut Option<Claim>) -> T,
    ) -> Result<Option<T>, AuthError> {
        let script = Script::new(CLAIM);
        loop {
            let mut read = redis::cmd("HGET");
            let _command = read.arg(self.token(id)).arg("claim");
            let known: Option<Vec<u8>> = self.link.command(&read).await?;
            let claim = known.as_deref().map(serde_json::from_slice).transpose();
            let mut claim = claim.map_err(|error| unreadable(&error))?;
            let outcome = change(&mut claim);
            let claim = claim.map(|claim| serde_json::to_vec(&claim)).transpose();
            let claim = claim.map_err(|error| unreadable(&error))?;
            let arguments = [known.unwrap_or_default(), claim.unwrap_or_default()];
            match self
                .link
                .script(&script, &[self.token(id)], &arguments)
                .await?
            {
                1 => return Ok(Some(outcome)),
                0 => {}
                _ => return Ok(None),
            }
        }
    }
}

impl Store for Redis {
    fn insert(&self, hash: TokenHash, grant: Arc<Grant>, now: UnixTime) -> Answer<'_, ()> {
        Box::pin(async move { self.keep(hash, &grant, now).await })
    }

    fn get(&self, hash: TokenHash, now: UnixTime) -> Answer<'_, Option<Arc<Grant>>> {
        Box::pin(async move {
            let read = self.read(hash.id()).await?;
            let meant = read.filter(|(known, _)| known.parse() == Ok(hash));
            let grant = meant.map(|(_, grant)| grant);
            Ok(grant.filter(|grant| grant.expires > now))
        })
    }

    fn find(&self, id: TokenId, now: UnixTime) -> Answer<'_, Option<Entry>> {
        Box::pin(self.entry(id, now))
    }

    fn remove(&self, id: TokenId, now: UnixTime) -> Answer<'_, Option<Entry>> {
        Box::pin(self.take(id, now))
    }

    fn list(&self, instance: Option<InstanceId>, now: UnixTime) -> Answer<'_, Vec<Entry>> {
        Box::pin(self.entries(instance, now))
    }

    fn claim(&self, id: TokenId, attempt: Attempt, now: UnixTime) -> Answer<'_, Option<bool>> {
        Box::pin(async move {
            let take = |claim: &mut _| Claim::take(claim, &attempt, now);
            self.change(id, take).await
        })
    }

    fn set_rights(&self, id: TokenId, rights: Rights, _now: UnixTime) -> Answer<'_, ()> {
        Box::pin(self.give(id, rights))
    }

    fn leave(&self, id: TokenId, opened: bool, now: UnixTime) -> Answer<'_, ()> {
        Box::pin(async move {
            let leave = |claim: &mut _| Claim::leave(claim, opened, now);
            let _unless_gone = self.change(id, leave).await?;
            Ok(())
        })
    }

    fn sweep(&self, now: UnixTime) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut command = redis::cmd("ZREMRANGEBYSCORE");
            let _command = command.arg(self.index()).arg("-inf").arg(now.0);
            self.link.command(&command).await
        })
    }

    fn ready(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let command: &Cmd = &{
                let mut command = redis::cmd("ZCARD");
                let _command = command.arg(self.index());
                command
            };
            let _count: usize = self.link.command(command).await?;
            Ok(())
        })
    }
}
