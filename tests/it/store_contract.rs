//! `store::contract::check` lets good stores pass, and stops those that break a promise.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest_refresh::store::contract;
use reqwest_refresh::{Lease, MemoryStore, SharedRefreshToken, StoreError, TokenSet, TokenStore};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::support::ScriptedStore;

/// K-60, K-61.
#[tokio::test(start_paused = true)]
async fn k_61_the_stores_in_memory_keep_the_contract() {
    let store = MemoryStore::new();
    contract::check(|| store.clone(), true).await;
    contract::check(|| store.clone(), false).await;
    let shared = SharedRefreshToken::new(MemoryStore::new());
    contract::check(|| shared.resource("orders"), true).await;
    let scripted = ScriptedStore::new();
    contract::check(|| scripted.clone(), true).await;
}

/// A mistake that somebody who writes a store may make.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    AppendsInsteadOfReplacing,
    ClearFailsOnEmpty,
    ClearLeavesTheRefreshToken,
    ClearNeedsTheLock,
    CutsLongTokens,
    ForgetsBetweenHandles,
    KeepsALockThatNobodyWaitsFor,
    LoadNeedsTheLock,
    LocksNobodyOut,
    LocksNobodyOutSlowly,
    LocksOneHandleOnly,
    LosesMembers,
    LosesTheEnd,
    LosesTheLifetime,
    LosesTheRefreshToken,
    LosesTheRefreshTokensEnd,
    LosesTheScope,
    LosesTheType,
    NeverFreesTheLock,
    ReplacesWithoutALook,
    SaveFails,
    SaveIsLate,
    SavesOncePerHandle,
    StartsFull,
    WritesWhatItRefuses,
}

struct Wrong {
    mistake: Mistake,
    memory: MemoryStore,
    own: MemoryStore,
    late: Arc<Mutex<Option<TokenSet>>>,
    lock: Arc<Semaphore>,
}

impl Wrong {
    fn new(mistake: Mistake, memory: MemoryStore, lock: Arc<Semaphore>) -> Self {
        Self { mistake, memory, own: MemoryStore::new(), late: Arc::default(), lock }
    }

    fn place(&self) -> &MemoryStore {
        match self.mistake {
            Mistake::ForgetsBetweenHandles => &self.own,
            _ => &self.memory,
        }
    }

    fn refuse_while_locked(&self, mistake: Mistake) -> Result<(), StoreError> {
        match self.mistake == mistake && self.lock.available_permits() == 0 {
            true => Err("it is locked".into()),
            false => Ok(()),
        }
    }

    fn damaged(&self, tokens: &TokenSet, before: Option<TokenSet>) -> TokenSet {
        let (mut access, mut refresh) = (tokens.access_token().to_owned(), tokens.refresh_token());
        let old = before.as_ref().and_then(TokenSet::refresh_token);
        match self.mistake {
            Mistake::AppendsInsteadOfReplacing => refresh = refresh.or(old),
            Mistake::CutsLongTokens => access.truncate(4096),
            Mistake::LosesTheRefreshToken => refresh = None,
            _ => {}
        }
        let keeps = |mistake| self.mistake != mistake;
        let mut copy = TokenSet::new(access).with_refresh_token(refresh.unwrap_or_default());
        if let Some(name) = tokens.token_type().filter(|_| keeps(Mistake::LosesTheType)) {
            copy = copy.with_token_type(name);
        }
        if let Some(scope) = tokens.scope().filter(|_| keeps(Mistake::LosesTheScope)) {
            copy = copy.with_scope(scope);
        }
        if let Some(life) = tokens.expires_in().filter(|_| keeps(Mistake::LosesTheLifetime)) {
            copy = copy.with_expires_in(life);
        }
        if let Some(end) = tokens.expires_at().filter(|_| keeps(Mistake::LosesTheEnd)) {
            copy = copy.with_expires_at(end);
        }
        let end = tokens.refresh_expires_at();
        if let Some(end) = end.filter(|_| keeps(Mistake::LosesTheRefreshTokensEnd)) {
            copy = copy.with_refresh_expires_at(end);
        }
        match keeps(Mistake::LosesMembers) {
            true => copy.with_members(tokens.members().clone()),
            false => copy,
        }
    }
}

struct GiveBack(Arc<Semaphore>);

impl Drop for GiveBack {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

#[async_trait]
impl TokenStore for Wrong {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        self.refuse_while_locked(Mistake::LoadNeedsTheLock)?;
        self.place().load().await
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        if self.mistake == Mistake::SaveFails {
            return Err("the disk is full".into());
        }
        if self.mistake == Mistake::SavesOncePerHandle {
            // Takes the first set that it has written for the one that is there.
            let has_saved = self.own.load().await?.is_some();
            self.own.save(tokens).await?;
            return if has_saved { Ok(()) } else { self.memory.save(tokens).await };
        }
        let copy = self.damaged(tokens, self.place().load().await?);
        if self.mistake == Mistake::SaveIsLate {
            // Written with the next save, as from a buffer that nobody flushes.
            let before = self.late.lock().replace(copy);
            return match before {
                Some(before) => self.place().save(&before).await,
                None => Ok(()),
            };
        }
        self.place().save(&copy).await
    }

    async fn replace(
        &self,
        before: Option<&TokenSet>,
        tokens: &TokenSet,
    ) -> Result<bool, StoreError> {
        match self.mistake {
            Mistake::ReplacesWithoutALook => self.save(tokens).await.map(|()| true),
            Mistake::WritesWhatItRefuses => {
                let is_replaced = self.place().replace(before, tokens).await?;
                self.save(tokens).await.map(|()| is_replaced)
            }
            _ => self.place().replace(before, tokens).await,
        }
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.refuse_while_locked(Mistake::ClearNeedsTheLock)?;
        let held = self.place().load().await?;
        match (self.mistake, held) {
            (Mistake::ClearFailsOnEmpty, None) => Err("no such file".into()),
            (Mistake::ClearLeavesTheRefreshToken, Some(tokens)) => {
                let rest =
                    TokenSet::new("").with_refresh_token(tokens.refresh_token().unwrap_or("r"));
                self.place().save(&rest).await
            }
            _ => self.place().clear().await,
        }
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        match self.mistake {
            Mistake::LocksNobodyOutSlowly => {
                tokio::task::spawn_blocking(|| {}).await?;
                return Ok(Lease::none());
            }
            Mistake::LocksNobodyOut => return Ok(Lease::none()),
            Mistake::LocksOneHandleOnly => return self.own.lock().await,
            Mistake::KeepsALockThatNobodyWaitsFor => {
                // Waits in a task of its own, which takes the lock for somebody who has gone.
                let lock = Arc::clone(&self.lock);
                tokio::spawn(async move { lock.acquire().await.map(SemaphorePermit::forget) })
                    .await??;
                return Ok(Lease::new(GiveBack(Arc::clone(&self.lock))));
            }
            _ => {}
        }
        let permit = Arc::clone(&self.lock).acquire_owned().await?;
        match self.mistake {
            Mistake::NeverFreesTheLock => {
                permit.forget();
                Ok(Lease::none())
            }
            _ => Ok(Lease::new(permit)),
        }
    }
}

/// K-60, K-61: the contract test can fail, for each of its sentences.
#[tokio::test(start_paused = true)]
async fn k_61_a_store_that_breaks_a_promise_does_not_pass() {
    use Mistake::*;
    for (mistake, says) in [
        (AppendsInsteadOfReplacing, "the access token alone: the tokens changed"),
        (ClearFailsOnEmpty, "clearing an empty store"),
        (ClearLeavesTheRefreshToken, "a cleared store must be empty"),
        (ClearNeedsTheLock, "clearing while locked"),
        (CutsLongTokens, "long tokens: the tokens changed"),
        (ForgetsBetweenHandles, "everything was not saved"),
        (LoadNeedsTheLock, "loading"),
        (LocksNobodyOut, "two leases at once"),
        (LocksNobodyOutSlowly, "two leases at once"),
        (LocksOneHandleOnly, "two leases at once"),
        (LosesMembers, "everything"),
        (LosesTheEnd, "everything"),
        (LosesTheLifetime, "everything"),
        (LosesTheRefreshToken, "everything: the tokens changed"),
        (LosesTheRefreshTokensEnd, "everything"),
        (LosesTheScope, "everything"),
        (LosesTheType, "everything"),
        (SaveFails, "saving everything: the disk is full"),
        (SaveIsLate, "everything was not saved"),
        (KeepsALockThatNobodyWaitsFor, "the lock was not given back"),
        (NeverFreesTheLock, "the lock was not given back"),
        (ReplacesWithoutALook, "nothing is not what was found"),
        (SavesOncePerHandle, "a smaller set after a larger one"),
        (WritesWhatItRefuses, "a refused replacement wrote something"),
        (StartsFull, "the place must be empty at first"),
    ] {
        let memory = MemoryStore::new();
        if mistake == StartsFull {
            let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            memory.save(&TokenSet::new("old").with_expires_at(end)).await.unwrap();
        }
        let message = complaint(mistake, memory).await;
        assert!(message.contains(says), "{mistake:?}: {message}");
        assert!(!message.contains("refresh ä"), "K-63");
    }
}

async fn check(mistake: Mistake, memory: MemoryStore) {
    let lock = Arc::new(Semaphore::new(1));
    let open = || Wrong::new(mistake, memory.clone(), Arc::clone(&lock));
    contract::check(open, true).await;
}

/// What `check` panics with.
async fn complaint(mistake: Mistake, memory: MemoryStore) -> String {
    let panic = tokio::spawn(check(mistake, memory)).await;
    let panic = match panic {
        Ok(()) => panic!("{mistake:?} passes"),
        Err(error) => error.into_panic(),
    };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).expect("a text")
}
