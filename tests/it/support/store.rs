use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest_refresh::{Lease, MemoryStore, StoreError, TokenSet, TokenStore};
use tokio::sync::Semaphore;

/// A store in memory that writes down what is asked of it, fails on demand, and can be held.
///
/// Its clones are the same store.
#[derive(Clone)]
pub struct ScriptedStore {
    pub memory: MemoryStore,
    log: Arc<Mutex<Vec<String>>>,
    failing: Arc<Mutex<Vec<&'static str>>>,
    panicking: Arc<Mutex<Vec<&'static str>>>,
    gate: Arc<Semaphore>,
    lost: Arc<Mutex<usize>>,
}

impl ScriptedStore {
    pub fn new() -> Self {
        Self {
            memory: MemoryStore::new(),
            log: Arc::default(),
            failing: Arc::default(),
            panicking: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            lost: Arc::default(),
        }
    }

    /// With these tokens in it.
    pub async fn holding(tokens: TokenSet) -> Self {
        let store = Self::new();
        store.memory.save(&tokens).await.unwrap();
        store
    }

    /// What was asked, in its order: `load`, `save a1`, `clear`, `lock`, `unlock`.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// From now on these operations fail: `save`, or only `save a1`.
    pub fn fail(&self, operations: &[&'static str]) {
        *self.failing.lock() = operations.to_vec();
    }

    /// From now on these operations panic.
    pub fn panic(&self, operations: &[&'static str]) {
        *self.panicking.lock() = operations.to_vec();
    }

    /// So many leases are over when they are asked whether they are held.
    pub fn lose_leases(&self, count: usize) {
        *self.lost.lock() = count;
    }

    /// From now on every operation but `lock` waits until [`release`](Self::release) is called.
    pub fn hold(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets everything through again.
    pub fn release(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// The access token in the store.
    pub async fn access_token(&self) -> Option<String> {
        let tokens = self.memory.load().await.unwrap();
        tokens.map(|tokens| tokens.access_token().to_owned())
    }

    async fn note(&self, operation: &'static str, detail: &str) -> Result<(), StoreError> {
        self.log.lock().push(format!("{operation}{detail}"));
        drop(self.gate.acquire().await.unwrap());
        let panics = self.panicking.lock().contains(&operation);
        assert!(!panics, "scripted panic: {operation}");
        let line = format!("{operation}{detail}");
        let failing = self.failing.lock().clone();
        match failing.iter().any(|it| *it == operation || *it == line) {
            true => Err(format!("scripted: {operation}").into()),
            false => Ok(()),
        }
    }
}

struct Unlock {
    _lease: Lease,
    log: Arc<Mutex<Vec<String>>>,
}

impl Drop for Unlock {
    fn drop(&mut self) {
        self.log.lock().push("unlock".into());
    }
}

#[async_trait]
impl TokenStore for ScriptedStore {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        self.note("load", "").await?;
        self.memory.load().await
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        self.note("save", &format!(" {}", tokens.access_token())).await?;
        self.memory.save(tokens).await
    }

    async fn replace(
        &self,
        before: Option<&TokenSet>,
        tokens: &TokenSet,
    ) -> Result<bool, StoreError> {
        self.note("save", &format!(" {}", tokens.access_token())).await?;
        self.memory.replace(before, tokens).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.note("clear", "").await?;
        self.memory.clear().await
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        let panics = self.panicking.lock().contains(&"lock");
        assert!(!panics, "scripted panic: lock");
        if self.failing.lock().contains(&"lock") {
            return Err("scripted: lock".into());
        }
        let lease = self.memory.lock().await?;
        self.log.lock().push("lock".into());
        let lost = Arc::clone(&self.lost);
        let is_held = move || {
            let mut left = lost.lock();
            let is_held = *left == 0;
            *left = left.saturating_sub(1);
            is_held
        };
        let lease = Lease::new(Unlock { _lease: lease, log: Arc::clone(&self.log) });
        Ok(lease.held_while(is_held))
    }
}
