use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;

use super::claim::Claim;
use super::{Answer, Attempt, Keepsakes, Store, sorted};
use crate::auth::{AuthError, Entry};
use crate::model::{Grant, InstanceId, Rights, TokenHash, TokenId, UnixTime};

/// Grants in this process's memory, gone with it.
///
/// No two locks are ever held together: a hash in `by_instance` may point at nothing for a moment,
/// never the other way round after `insert`.
#[derive(Debug)]
pub(in crate::auth) struct Memory {
    grants: DashMap<TokenHash, Grant>,
    by_instance: DashMap<InstanceId, HashSet<TokenHash>>,
    by_id: DashMap<TokenId, TokenHash>,
    claims: DashMap<TokenId, Claim>,
    count: AtomicUsize,
    limit: usize,
}

impl Memory {
    pub(in crate::auth) fn new(limit: usize) -> Self {
        Self {
            grants: DashMap::new(),
            by_instance: DashMap::new(),
            by_id: DashMap::new(),
            claims: DashMap::new(),
            count: AtomicUsize::new(0),
            limit,
        }
    }

    /// Keeps `grant`; when full, the dead are buried before it is refused. Tells whom it buried.
    pub(super) fn put(
        &self,
        hash: TokenHash,
        grant: Grant,
        now: UnixTime,
    ) -> Result<Vec<TokenHash>, AuthError> {
        let mut buried = Vec::new();
        if !self.take_place() {
            buried = self.bury(now);
            if !self.take_place() {
                return Err(AuthError::Full(self.limit));
            }
        }
        self.place(hash, grant);
        Ok(buried)
    }

    /// Keeps a grant of another life, whatever the limit says.
    pub(super) fn restore(&self, hash: TokenHash, grant: Grant) {
        let _before = self.count.fetch_add(1, Ordering::Relaxed);
        self.place(hash, grant);
    }

    /// The same for a claim.
    pub(super) fn restore_claim(&self, id: &TokenId, claim: Claim) {
        let _unless_gone = self.claim(id, |place| *place = Some(claim));
    }

    fn place(&self, hash: TokenHash, grant: Grant) {
        let _new = self
            .by_instance
            .entry(grant.instance)
            .or_default()
            .insert(hash.clone());
        let _none = self.by_id.insert(hash.id(), hash.clone());
        let _none = self.grants.insert(hash, grant);
    }

    pub(super) fn all_claims(&self) -> Vec<(TokenId, Claim)> {
        let claims = self.claims.iter();
        claims
            .map(|item| (item.key().clone(), item.value().clone()))
            .collect()
    }

    /// The hash of a token that is there, valid or not.
    pub(super) fn hash_of(&self, id: &TokenId) -> Option<TokenHash> {
        Some(self.by_id.get(id)?.clone())
    }

    /// Who has claimed a token.
    pub(super) fn claim_of(&self, id: &TokenId) -> Option<Claim> {
        Some(self.claims.get(id)?.clone())
    }

    /// The grant, if it is valid at `now`: strictly before its expiry.
    fn get(&self, hash: &TokenHash, now: UnixTime) -> Option<Grant> {
        let grant = self.grants.get(hash)?;
        (grant.expires > now).then(|| grant.clone())
    }

    fn find(&self, id: &TokenId, now: UnixTime) -> Option<Entry> {
        let hash = self.by_id.get(id)?.clone();
        let grant = self.get(&hash, now)?;
        Some(Entry {
            id: id.clone(),
            grant,
        })
    }

    fn remove(&self, id: &TokenId, now: UnixTime) -> Option<Entry> {
        let hash = self.by_id.get(id)?.clone();
        let grant = self.take(&hash)?;
        (grant.expires > now).then(|| Entry {
            id: id.clone(),
            grant,
        })
    }

    fn list(&self, instance: Option<InstanceId>, now: UnixTime) -> Vec<Entry> {
        let hashes: Vec<TokenHash> = match instance {
            Some(instance) => {
                let hashes = self.by_instance.get(&instance);
                hashes
                    .map(|hashes| hashes.iter().cloned().collect())
                    .unwrap_or_default()
            }
            None => self.grants.iter().map(|item| item.key().clone()).collect(),
        };
        let live = |hash: TokenHash| {
            Some(Entry {
                id: hash.id(),
                grant: self.get(&hash, now)?,
            })
        };
        sorted(hashes.into_iter().filter_map(live).collect())
    }

    /// Changes who has claimed a single-use token, under the eyes of nobody else; nothing for a
    /// token that is not there.
    fn claim<T>(&self, id: &TokenId, change: impl FnOnce(&mut Option<Claim>) -> T) -> Option<T> {
        if !self.by_id.contains_key(id) {
            return None;
        }
        let place = self.claims.entry(id.clone());
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

    /// Changes what a token opens with. Its grant as it is now, if it is valid.
    pub(super) fn change(
        &self,
        id: &TokenId,
        rights: Rights,
        now: UnixTime,
    ) -> Option<(TokenHash, Grant)> {
        let hash = self.hash_of(id)?;
        let mut grant = self.grants.get_mut(&hash)?;
        grant.rights = rights;
        let grant = grant.clone();
        (grant.expires > now).then_some((hash, grant))
    }

    /// Forgets every grant that is dead at `now`, and tells which.
    pub(super) fn bury(&self, now: UnixTime) -> Vec<TokenHash> {
        let dead = self.grants.iter().filter(|item| item.expires <= now);
        let mut dead: Vec<TokenHash> = dead.map(|item| item.key().clone()).collect();
        dead.retain(|hash| self.take(hash).is_some());
        dead
    }

    pub(super) fn take(&self, hash: &TokenHash) -> Option<Grant> {
        let (_, grant) = self.grants.remove(hash)?;
        let _previous = self.count.fetch_sub(1, Ordering::Relaxed);
        let _hash = self.by_id.remove(&hash.id());
        let _claim = self.claims.remove(&hash.id());
        let _empty = self
            .by_instance
            .remove_if_mut(&grant.instance, |_, hashes| {
                let _present = hashes.remove(hash);
                hashes.is_empty()
            });
        Some(grant)
    }

    fn take_place(&self) -> bool {
        let one_more = |count: usize| (count < self.limit).then_some(count + 1);
        self.count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }
}

/// What memory knows, it knows at once.
fn at_once<'a, T: Send + 'a>(answer: Result<T, AuthError>) -> Answer<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Store for Memory {
    fn insert(&self, hash: TokenHash, grant: Grant, now: UnixTime) -> Answer<'_, ()> {
        at_once(self.put(hash, grant, now).map(drop))
    }

    fn get<'a>(&'a self, hash: &'a TokenHash, now: UnixTime) -> Answer<'a, Option<Grant>> {
        at_once(Ok(self.get(hash, now)))
    }

    fn find<'a>(&'a self, id: &'a TokenId, now: UnixTime) -> Answer<'a, Option<Entry>> {
        at_once(Ok(self.find(id, now)))
    }

    fn remove<'a>(&'a self, id: &'a TokenId, now: UnixTime) -> Answer<'a, Option<Entry>> {
        at_once(Ok(self.remove(id, now)))
    }

    fn list(&self, instance: Option<InstanceId>, now: UnixTime) -> Answer<'_, Vec<Entry>> {
        at_once(Ok(self.list(instance, now)))
    }

    fn claim<'a>(
        &'a self,
        id: &'a TokenId,
        attempt: Attempt,
        now: UnixTime,
    ) -> Answer<'a, Option<bool>> {
        let take = |claim: &mut _| Claim::take(claim, &attempt, now);
        at_once(Ok(self.claim(id, take)))
    }

    fn set_rights<'a>(&'a self, id: &'a TokenId, rights: Rights, now: UnixTime) -> Answer<'a, ()> {
        let _changed = self.change(id, rights, now);
        at_once(Ok(()))
    }

    fn leave<'a>(&'a self, id: &'a TokenId, opened: bool, now: UnixTime) -> Answer<'a, ()> {
        let leave = |claim: &mut _| Claim::leave(claim, opened, now);
        let _unless_gone = self.claim(id, leave);
        at_once(Ok(()))
    }

    fn sweep(&self, now: UnixTime) -> Answer<'_, ()> {
        let _buried = self.bury(now);
        at_once(Ok(()))
    }

    fn ready(&self) -> Answer<'_, ()> {
        at_once(Ok(()))
    }

    fn keepsakes(&self) -> Keepsakes {
        let grants = self.grants.iter();
        Keepsakes {
            grants: grants
                .map(|item| (item.key().clone(), item.value().clone()))
                .collect(),
            claims: self.all_claims(),
        }
    }

    fn inherit(&self, keepsakes: Keepsakes, _now: UnixTime) -> Answer<'_, ()> {
        for (hash, grant) in keepsakes.grants {
            self.restore(hash, grant);
        }
        for (id, claim) in keepsakes.claims {
            self.restore_claim(&id, claim);
        }
        at_once(Ok(()))
    }
}
