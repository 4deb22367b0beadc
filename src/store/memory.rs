use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::store::{Lease, StoreError, TokenStore, is_free};
use crate::token::TokenSet;

/// Tokens in memory, shared by the clones of this store: several sessions, one process.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    tokens: Arc<Mutex<Option<TokenSet>>>,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl TokenStore for MemoryStore {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        Ok(self.tokens.lock().clone())
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        *self.tokens.lock() = Some(tokens.clone());
        Ok(())
    }

    async fn clear(&self) -> Result<(), StoreError> {
        *self.tokens.lock() = None;
        Ok(())
    }

    async fn replace(
        &self,
        before: Option<&TokenSet>,
        tokens: &TokenSet,
    ) -> Result<bool, StoreError> {
        let mut held = self.tokens.lock();
        let is_free = is_free(held.as_ref(), before, tokens);
        if is_free {
            *held = Some(tokens.clone());
        }
        Ok(is_free)
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        Ok(Lease::new(Arc::clone(&self.lock).lock_owned().await))
    }
}
