use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;

use super::claim::Claim;
use super::{Answer, Attempt, Keepsakes, Store, sorted};
use crate::auth::{AuthError, Entry};
use crate::model::{Grant, InstanceId, RandomKeys, Rights, TokenHash, TokenId, UnixTime};

/// Grants in this process's memory, gone with it.
#[derive(Debug)]
pub(in crate::auth) struct Memory {
    /// By the public names of tokens. No stranger chooses one: only tokens made here are kept.
    kept: DashMap<TokenId, Kept, RandomKeys>,
    count: AtomicUsize,
    limit: usize,
}

/// What is kept of a token.
#[derive(Debug)]
struct Kept {
    hash: TokenHash,
    grant: Arc<Grant>,
    /// Who has claimed it, if it is for single use.
    claim: Option<Claim>,
}

impl Kept {
    fn is_valid(&self, now: UnixTime) -> bool {
        self.grant.expires > now
    }

    fn entry(&self) -> Entry {
        Entry {
            id: self.hash.id(),
            grant: Arc::clone(&self.grant),
        }
    }
}

impl Memory {
    pub(in crate::auth) fn new(limit: usize) -> Self {
        Self {
            kept: DashMap::default(),
            count: AtomicUsize::new(0),
            limit,
        }
    }

    /// Keeps `grant`; when full, the dead are buried before it is refused. Tells whom it buried.
    pub(super) fn put(
        &self,
        hash: TokenHash,
        grant: Arc<Grant>,
        now: UnixTime,
    ) -> Result<Vec<TokenHash>, AuthError> {
        let mut buried = Vec::new();
        if !self.take_place() {
            buried = self.bury(now);
            if !self.take_place() {
                return Err(AuthError::Full(self.limit));
            }
        }
        self.place(hash, grant)?;
        Ok(buried)
    }

    /// Keeps a grant of another life, whatever the limit says.
    pub(super) fn restore(&self, hash: TokenHash, grant: Arc<Grant>) {
        let _before = self.count.fetch_add(1, Ordering::Relaxed);
        let _known_already = self.place(hash, grant).is_err();
    }

    /// The same for a claim.
    pub(super) fn restore_claim(&self, id: TokenId, claim: Claim) {
        let _unless_gone = self.claim(id, |place| *place = Some(claim));
    }

    /// Twice the same is once. Errors: another token has the same name.
    fn place(&self, hash: TokenHash, grant: Arc<Grant>) -> Result<(), AuthError> {
        let kept = Kept {
            hash,
            grant,
            claim: None,
        };
        let known = match self.kept.entry(hash.id()) {
            Place::Vacant(place) => {
                drop(place.insert(kept));
                return Ok(());
            }
            Place::Occupied(place) => place.get().hash,
        };
        let _before = self.count.fetch_sub(1, Ordering::Relaxed);
        let taken = || AuthError::Store("two tokens have the same name".to_owned());
        (known == hash).then_some(()).ok_or_else(taken)
    }

    pub(super) fn all_claims(&self) -> Vec<(TokenId, Claim)> {
        let claims = self.kept.iter();
        claims
            .filter_map(|kept| Some((*kept.key(), kept.claim.clone()?)))
            .collect()
    }

    /// The hash of a token that is there, valid or not.
    pub(super) fn hash_of(&self, id: TokenId) -> Option<TokenHash> {
        Some(self.kept.get(&id)?.hash)
    }

    /// Who has claimed a token.
    pub(super) fn claim_of(&self, id: TokenId) -> Option<Claim> {
        self.kept.get(&id)?.claim.clone()
    }

    /// The grant, if it is valid at `now`: strictly before its expiry.
    fn get(&self, hash: TokenHash, now: UnixTime) -> Option<Arc<Grant>> {
        let kept = self.kept.get(&hash.id())?;
        let meant = kept.hash == hash && kept.is_valid(now);
        meant.then(|| Arc::clone(&kept.grant))
    }

    fn find(&self, id: TokenId, now: UnixTime) -> Option<Entry> {
        let kept = self.kept.get(&id)?;
        kept.is_valid(now).then(|| kept.entry())
    }

    fn remove(&self, id: TokenId, now: UnixTime) -> Option<Entry> {
        let kept = self.take(id)?;
        kept.is_valid(now).then(|| kept.entry())
    }

    fn list(&self, instance: Option<InstanceId>, now: UnixTime) -> Vec<Entry> {
        let wanted = |kept: &Kept| {
            kept.is_valid(now) && instance.is_none_or(|instance| kept.grant.instance == instance)
        };
        let kept = self.kept.iter().filter(|kept| wanted(kept));
        sorted(kept.map(|kept| kept.entry()).collect())
    }

    /// Changes who has claimed a single-use token, under the eyes of nobody else; nothing for a
    /// token that is not there.
    fn claim<T>(&self, id: TokenId, change: impl FnOnce(&mut Option<Claim>) -> T) -> Option<T> {
        let mut kept = self.kept.get_mut(&id)?;
        Some(change(&mut kept.claim))
    }

    /// Changes what a token opens with. Its grant as it is now, if it is valid.
    pub(super) fn change(
        &self,
        id: TokenId,
        rights: Rights,
        now: UnixTime,
    ) -> Option<(TokenHash, Arc<Grant>)> {
        let mut kept = self.kept.get_mut(&id)?;
        Arc::make_mut(&mut kept.grant).rights = rights;
        let valid = kept.is_valid(now);
        valid.then(|| (kept.hash, Arc::clone(&kept.grant)))
    }

    /// Forgets every grant that is dead at `now`, and tells which.
    pub(super) fn bury(&self, now: UnixTime) -> Vec<TokenHash> {
        let mut dead = Vec::new();
        self.kept.retain(|_, kept| {
            let valid = kept.is_valid(now);
            if !valid {
                dead.push(kept.hash);
            }
            valid
        });
        let _before = self.count.fetch_sub(dead.len(), Ordering::Relaxed);
        dead
    }

    /// Forgets a token, valid or not.
    pub(super) fn forget(&self, id: TokenId) {
        let _kept = self.take(id);
    }

    fn take(&self, id: TokenId) -> Option<Kept> {
        let (_, kept) = self.kept.remove(&id)?;
        let _before = self.count.fetch_sub(1, Ordering::Relaxed);
        Some(kept)
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
    fn insert(&self, hash: TokenHash, grant: Arc<Grant>, now: UnixTime) -> Answer<'_, ()> {
        at_once(self.put(hash, grant, now).map(drop))
    }

    fn get(&self, hash: TokenHash, now: UnixTime) -> Answer<'_, Option<Arc<Grant>>> {
        at_once(Ok(self.get(hash, now)))
    }

    fn find(&self, id: TokenId, now: UnixTime) -> Answer<'_, Option<Entry>> {
        at_once(Ok(self.find(id, now)))
    }

    fn remove(&self, id: TokenId, now: UnixTime) -> Answer<'_, Option<Entry>> {
        at_once(Ok(self.remove(id, now)))
    }

    fn list(&self, instance: Option<InstanceId>, now: UnixTime) -> Answer<'_, Vec<Entry>> {
        at_once(Ok(self.list(instance, now)))
    }

    fn claim(&self, id: TokenId, attempt: Attempt, now: UnixTime) -> Answer<'_, Option<bool>> {
        let take = |claim: &mut _| Claim::take(claim, &attempt, now);
        at_once(Ok(self.claim(id, take)))
    }

    fn set_rights(&self, id: TokenId, rights: Rights, now: UnixTime) -> Answer<'_, ()> {
        let _changed = self.change(id, rights, now);
        at_once(Ok(()))
    }

    fn leave(&self, id: TokenId, opened: bool, now: UnixTime) -> Answer<'_, ()> {
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
        let kept = self.kept.iter();
        Keepsakes {
            grants: kept
                .map(|kept| (kept.hash, Arc::clone(&kept.grant)))
                .collect(),
            claims: self.all_claims(),
        }
    }

    fn inherit(&self, keepsakes: Keepsakes, _now: UnixTime) -> Answer<'_, ()> {
        for (hash, grant) in keepsakes.grants {
            self.restore(hash, grant);
        }
        for (id, claim) in keepsakes.claims {
            self.restore_claim(id, claim);
        }
        at_once(Ok(()))
    }
}
