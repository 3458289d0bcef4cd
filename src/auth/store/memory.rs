use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;

use super::Claim;
use crate::auth::{AuthError, Entry};
use crate::model::{Grant, InstanceId, TokenHash, TokenId, UnixTime};

/// Grants in this process's memory, gone with it. Cheap to clone: all clones are one store.
#[derive(Clone, Debug)]
pub(in crate::auth) struct Memory(Arc<Maps>);

/// No two locks are ever held together: a hash in `by_instance` may point at nothing for a moment, never the other way round after `insert`.
#[derive(Debug)]
struct Maps {
    grants: DashMap<TokenHash, Grant>,
    by_instance: DashMap<InstanceId, HashSet<TokenHash>>,
    by_id: DashMap<TokenId, TokenHash>,
    claims: DashMap<TokenId, Claim>,
    count: AtomicUsize,
    limit: usize,
}

impl Memory {
    pub(in crate::auth) fn new(limit: usize) -> Self {
        Self(Arc::new(Maps {
            grants: DashMap::new(),
            by_instance: DashMap::new(),
            by_id: DashMap::new(),
            claims: DashMap::new(),
            count: AtomicUsize::new(0),
            limit,
        }))
    }

    /// Keeps `grant`; when full, the dead are swept before it is refused.
    pub(in crate::auth) fn insert(
        &self,
        hash: TokenHash,
        grant: Grant,
        now: UnixTime,
    ) -> Result<(), AuthError> {
        if !self.take_place() {
            self.sweep(now);
            if !self.take_place() {
                return Err(AuthError::Full(self.0.limit));
            }
        }
        let _new = self
            .0
            .by_instance
            .entry(grant.instance)
            .or_default()
            .insert(hash.clone());
        let _none = self.0.by_id.insert(hash.id(), hash.clone());
        let _none = self.0.grants.insert(hash, grant);
        Ok(())
    }

    /// The grant, if it is valid at `now`: strictly before its expiry.
    pub(in crate::auth) fn get(&self, hash: &TokenHash, now: UnixTime) -> Option<Grant> {
        let grant = self.0.grants.get(hash)?;
        (grant.expires > now).then(|| grant.clone())
    }

    pub(in crate::auth) fn find(&self, id: &TokenId, now: UnixTime) -> Option<Entry> {
        let hash = self.0.by_id.get(id)?.clone();
        let grant = self.get(&hash, now)?;
        Some(Entry {
            id: id.clone(),
            grant,
        })
    }

    pub(in crate::auth) fn remove(&self, id: &TokenId, now: UnixTime) -> Option<Entry> {
        let hash = self.0.by_id.get(id)?.clone();
        let grant = self.take(&hash)?;
        (grant.expires > now).then(|| Entry {
            id: id.clone(),
            grant,
        })
    }

    pub(in crate::auth) fn list(&self, instance: Option<InstanceId>, now: UnixTime) -> Vec<Entry> {
        let hashes: Vec<TokenHash> = match instance {
            Some(instance) => {
                let hashes = self.0.by_instance.get(&instance);
                hashes
                    .map(|hashes| hashes.iter().cloned().collect())
                    .unwrap_or_default()
            }
            None => self
                .0
                .grants
                .iter()
                .map(|item| item.key().clone())
                .collect(),
        };
        let live = |hash: TokenHash| {
            Some(Entry {
                id: hash.id(),
                grant: self.get(&hash, now)?,
            })
        };
        let mut entries: Vec<Entry> = hashes.into_iter().filter_map(live).collect();
        entries.sort_by(|a, b| (a.grant.expires, &a.id).cmp(&(b.grant.expires, &b.id)));
        entries
    }

    /// Changes who has claimed a single-use token, under the eyes of nobody else; nothing for a
    /// token that is not there.
    pub(in crate::auth) fn claim<T>(
        &self,
        id: &TokenId,
        change: impl FnOnce(&mut Option<Claim>) -> T,
    ) -> Option<T> {
        if !self.0.by_id.contains_key(id) {
            return None;
        }
        let place = self.0.claims.entry(id.clone());
        let mut claim = match &place {
            Place::Occupied(place) => Some(place.get().clone()),
            Place::Vacant(_) => None,
        };
        let outcome = change(&mut claim);
        match (place, claim) {
            (Place::Occupied(place), None) => drop(place.remove()),
            (Place::Vacant(_), None) => {}
            (place, Some(claim)) => drop(place.insert(claim)),
        }
        Some(outcome)
    }

    /// Forgets every grant that is dead at `now`.
    pub(in crate::auth) fn sweep(&self, now: UnixTime) {
        let dead = self.0.grants.iter().filter(|item| item.expires <= now);
        let dead: Vec<TokenHash> = dead.map(|item| item.key().clone()).collect();
        for hash in dead {
            let _grant = self.take(&hash);
        }
    }

    fn take(&self, hash: &TokenHash) -> Option<Grant> {
        let (_, grant) = self.0.grants.remove(hash)?;
        let _previous = self.0.count.fetch_sub(1, Ordering::Relaxed);
        let _hash = self.0.by_id.remove(&hash.id());
        let _claim = self.0.claims.remove(&hash.id());
        let _empty = self
            .0
            .by_instance
            .remove_if_mut(&grant.instance, |_, hashes| {
                let _present = hashes.remove(hash);
                hashes.is_empty()
            });
        Some(grant)
    }

    fn take_place(&self) -> bool {
        let one_more = |count: usize| (count < self.0.limit).then_some(count + 1);
        self.0
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }
}
