use std::collections::HashMap;
use std::sync::Arc;

use redis::Script;

use super::{Redis, unreadable};
use crate::auth::AuthError;
use crate::auth::registry::{Answer, Memory, Registry};
use crate::auth::session::{Beat, Cause, LEASE, LiveSession, Order, Pulse, SessionRecord};
use crate::model::{Browser, InstanceId, Rights, SessionId, TokenId, UnixTime};

// KEYS of every script: live (id to record), lease (id by last second), order (id to cause),
// beat (id to figures), version (of what decisions are made by), rights (id to those it is to have,
// where they were changed).

/// All there is, at one moment.
const LOAD: &str = "
    return { redis.call('GET', KEYS[5]) or '0', redis.call('HGETALL', KEYS[1]),
             redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]),
             redis.call('HGETALL', KEYS[6]) }";

/// Takes a session in, and has others ended for it, if nobody else was taken in since `ARGV[1]`.
const BEGIN: &str = "
    local version = redis.call('GET', KEYS[5]) or '0'
    if version ~= ARGV[1] then return 0 end
    redis.call('INCR', KEYS[5])
    redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
    redis.call('ZADD', KEYS[2], ARGV[4], ARGV[2])
    for i = 5, #ARGV, 2 do
      if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
        redis.call('HSETNX', KEYS[3], ARGV[i], ARGV[i + 1]) end
    end
    return 1";

/// Takes sessions in: id, record, figures of each, after the lease.
const RESTORE: &str = "
    for i = 2, #ARGV, 3 do
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
      redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 2])
      redis.call('ZADD', KEYS[2], ARGV[1], ARGV[i])
    end
    return 1";

/// Renews leases: id and figures of each, after the lease. Answers with two texts for each: what is
/// ordered, nothing, or a question mark for the unknown; and the rights it is to have, if they were
/// changed.
const BEAT: &str = "
    local answers = {}
    for i = 2, #ARGV, 2 do
      if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 0 then
        table.insert(answers, '?')
        table.insert(answers, '')
      else
        redis.call('ZADD', KEYS[2], ARGV[1], ARGV[i])
        redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
        table.insert(answers, redis.call('HGET', KEYS[3], ARGV[i]) or '')
        table.insert(answers, redis.call('HGET', KEYS[6], ARGV[i]) or '')
      end
    end
    return answers";

/// Takes a session out; only one caller gets it.
const END: &str = "
    local record = redis.call('HGET', KEYS[1], ARGV[1])
    redis.call('HDEL', KEYS[1], ARGV[1])
    redis.call('ZREM', KEYS[2], ARGV[1])
    redis.call('HDEL', KEYS[3], ARGV[1])
    redis.call('HDEL', KEYS[4], ARGV[1])
    redis.call('HDEL', KEYS[6], ARGV[1])
    return record";

/// Has a session ended; the first cause stands.
const ORDER: &str = "
    if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return false end
    redis.call('HSETNX', KEYS[3], ARGV[1], ARGV[2])
    return redis.call('HGET', KEYS[3], ARGV[1])";

/// Notes what rights a session is to have.
const RIGHTS: &str = "
    if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
    redis.call('HSET', KEYS[6], ARGV[1], ARGV[2])
    return 1";

/// What [`LOAD`] answers.
type Loaded = (
    String,
    HashMap<String, Vec<u8>>,
    HashMap<String, Vec<u8>>,
    HashMap<String, Vec<u8>>,
    HashMap<String, Vec<u8>>,
);

/// Decisions are made again when somebody else was faster, so often at most.
const ATTEMPTS: u32 = 16;

impl Redis {
    fn keys(&self) -> [String; 6] {
        let names = ["live", "lease", "order", "beat", "version", "rights"];
        names.map(|name| self.joint(name))
    }

    /// Everything, as a registry in memory, and its version.
    async fn load(&self, now: UnixTime) -> Result<(String, Memory), AuthError> {
        let loaded = self
            .link
            .script(&Script::new(LOAD), &self.keys(), &[])
            .await?;
        let (version, records, causes, beats, rights): Loaded = loaded;
        let memory = Memory::new(self.limits.clone());
        let mut sessions = Vec::with_capacity(records.len());
        for (id, record) in &records {
            let mut record: SessionRecord = read(record)?;
            if let Some(rights) = rights.get(id) {
                record.rights = read(rights)?;
            }
            let beat = beats.get(id).map(|beat| read(beat)).transpose()?;
            sessions.push(LiveSession {
                beat: beat.unwrap_or_else(|| Beat::first(&record)),
                record: Arc::new(record),
            });
        }
        memory.restore(sessions, now);
        for (id, cause) in &causes {
            if let Ok(id) = id.parse() {
                let _order = memory.order(id, read(cause)?);
            }
        }
        Ok((version, memory))
    }

    async fn enter(
        &self,
        record: Arc<SessionRecord>,
        now: UnixTime,
    ) -> Result<Vec<Order>, AuthError> {
        let script = Script::new(BEGIN);
        for _attempt in 0..ATTEMPTS {
            let (version, memory) = self.load(now).await?;
            let orders = memory.begin(Arc::clone(&record), now)?;
            let mut arguments = vec![version.into_bytes(), name(record.id), write(&*record)?];
            arguments.push(lease(now));
            for order in &orders {
                // Whoever comes in only ever has others taken over.
                arguments.extend([name(order.session), write(&Cause::TakenOver)?]);
            }
            if self.link.script(&script, &self.keys(), &arguments).await? {
                for order in &orders {
                    self.link.publish(order).await;
                }
                return Ok(orders);
            }
        }
        let crowd = "too many sessions begin at once; try again";
        Err(AuthError::Store(crowd.to_owned()))
    }

    async fn renew(&self, beats: Vec<Beat>, now: UnixTime) -> Result<Pulse, AuthError> {
        let mut arguments = vec![lease(now)];
        for beat in &beats {
            arguments.extend([name(beat.session), write(beat)?]);
        }
        let script = Script::new(BEAT);
        let answers: Vec<Vec<u8>> = self.link.script(&script, &self.keys(), &arguments).await?;
        let mut pulse = Pulse::default();
        for (beat, answer) in beats.iter().zip(answers.chunks_exact(2)) {
            let [cause, rights] = answer else {
                continue;
            };
            match (cause.as_slice(), rights.as_slice()) {
                (b"", b"") => {}
                (b"?", _) => pulse.unknown.push(beat.session),
                (b"", rights) => {
                    let rights = Some(read(rights)?).filter(|rights| *rights != beat.rights);
                    let order = rights.map(|rights| Order::rights(beat.session, rights));
                    pulse.orders.extend(order);
                }
                (cause, _) => pulse.orders.push(Order::end(beat.session, read(cause)?)),
            }
        }
        Ok(pulse)
    }

    async fn wish(&self, id: SessionId, rights: Rights) -> Result<Option<Order>, AuthError> {
        let (_, memory) = self.load(UnixTime::now()).await?;
        let Some(live) = memory.find(id) else {
            return Ok(None);
        };
        let rights = live.record.changeable(rights);
        let arguments = [name(id), write(&rights)?];
        let script = Script::new(RIGHTS);
        let known: bool = self.link.script(&script, &self.keys(), &arguments).await?;
        if !known {
            return Ok(None);
        }
        let order = Order::rights(id, rights);
        self.link.publish(&order).await;
        Ok(Some(order))
    }

    async fn command_end(&self, id: SessionId, cause: Cause) -> Result<Option<Order>, AuthError> {
        let arguments = [name(id), write(&cause)?];
        let script = Script::new(ORDER);
        let cause: Option<Vec<u8>> = self.link.script(&script, &self.keys(), &arguments).await?;
        let Some(cause) = cause else {
            return Ok(None);
        };
        let order = Order::end(id, read(&cause)?);
        self.link.publish(&order).await;
        Ok(Some(order))
    }

    async fn take_out(&self, id: SessionId) -> Result<Option<Arc<SessionRecord>>, AuthError> {
        let script = Script::new(END);
        let record: Option<Vec<u8>> = self.link.script(&script, &self.keys(), &[name(id)]).await?;
        record.map(|record| read(&record)).transpose()
    }
}

impl Registry for Redis {
    fn begin(&self, record: Arc<SessionRecord>, now: UnixTime) -> Answer<'_, Vec<Order>> {
        Box::pin(self.enter(record, now))
    }

    fn restore(&self, sessions: Vec<LiveSession>, now: UnixTime) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut arguments = vec![lease(now)];
            for LiveSession { record, beat } in &sessions {
                arguments.extend([name(record.id), write(&**record)?, write(beat)?]);
            }
            let script = Script::new(RESTORE);
            let _done: bool = self.link.script(&script, &self.keys(), &arguments).await?;
            Ok(())
        })
    }

    fn beat(&self, beats: Vec<Beat>, now: UnixTime) -> Answer<'_, Pulse> {
        Box::pin(self.renew(beats, now))
    }

    fn end(&self, id: SessionId) -> Answer<'_, Option<Arc<SessionRecord>>> {
        Box::pin(self.take_out(id))
    }

    fn find(&self, id: SessionId) -> Answer<'_, Option<LiveSession>> {
        Box::pin(async move { Ok(self.load(UnixTime::now()).await?.1.find(id)) })
    }

    fn list(&self, instance: Option<InstanceId>) -> Answer<'_, Vec<LiveSession>> {
        Box::pin(async move { Ok(self.load(UnixTime::now()).await?.1.list(instance)) })
    }

    fn order(&self, id: SessionId, cause: Cause) -> Answer<'_, Option<Order>> {
        Box::pin(self.command_end(id, cause))
    }

    fn set_rights(&self, id: SessionId, rights: Rights) -> Answer<'_, Option<Order>> {
        Box::pin(self.wish(id, rights))
    }

    fn order_all(&self, token: TokenId, cause: Cause) -> Answer<'_, Vec<Order>> {
        Box::pin(async move {
            let (_, memory) = self.load(UnixTime::now()).await?;
            let mut orders = Vec::new();
            for order in memory.order_all(token, cause) {
                orders.extend(self.command_end(order.session, cause).await?);
            }
            Ok(orders)
        })
    }

    fn lives(&self, token: TokenId, browser: Browser) -> Answer<'_, bool> {
        Box::pin(async move { Ok(self.load(UnixTime::now()).await?.1.lives(token, browser)) })
    }

    fn sweep(&self, now: UnixTime) -> Answer<'_, Vec<Arc<SessionRecord>>> {
        Box::pin(async move {
            let mut dead = redis::cmd("ZRANGEBYSCORE");
            let _command = dead.arg(self.joint("lease")).arg("-inf").arg(now.0);
            let dead: Vec<String> = self.link.command(&dead).await?;
            let mut records = Vec::new();
            for id in dead.iter().filter_map(|id| id.parse().ok()) {
                records.extend(self.take_out(id).await?);
            }
            Ok(records)
        })
    }
}

fn name(id: SessionId) -> Vec<u8> {
    id.to_string().into_bytes()
}

fn lease(now: UnixTime) -> Vec<u8> {
    now.plus(LEASE).0.to_string().into_bytes()
}

fn write(value: &impl serde::Serialize) -> Result<Vec<u8>, AuthError> {
    serde_json::to_vec(value).map_err(|error| unreadable(&error))
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, AuthError> {
    serde_json::from_slice(bytes).map_err(|error| unreadable(&error))
}
