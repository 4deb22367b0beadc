//! Writing to the store: bounded, repeated, the newest generation last.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, RefreshError};
use crate::session::{Event, Inner, Session};
use crate::store::{Lease, StoreError, TokenStore};
use crate::token::{Generation, TokenSet};

impl Session {
    /// Writes the tokens of `generation`, or their absence, unless that is done or outdated.
    ///
    /// In a task of its own: a caller who goes away does not interrupt it.
    pub(super) async fn keep_in_store(&self, generation: Generation) -> Result<(), Error> {
        let Some(store) = self.inner.store.clone() else {
            return Ok(());
        };
        if !self.inner.guarded.lock().state.is_unsaved() {
            return Ok(());
        }
        let inner = Arc::clone(&self.inner);
        // A flight waits for this, so a store that waits for a flight in here waits for itself.
        let inside = Arc::clone(&inner);
        let work = async move { inner.keep(&*store, generation).await };
        let task = tokio::spawn(inside.inside(work));
        task.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Interrupted, "the store panicked")))
    }

    /// Tells the server, in a task of its own.
    pub(super) async fn revoke(&self, tokens: TokenSet) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            let revocation = inner.refresh.revoke(&tokens);
            match inner.clock.timeout(inner.deadlines.refresh, revocation).await {
                Some(result) => result.map_err(RefreshError::into_shared),
                None => Err(Error::new(ErrorKind::Unavailable, "the revocation took too long")),
            }
        });
        let panicked = || Error::new(ErrorKind::Interrupted, "the revocation panicked");
        task.await.unwrap_or_else(|_| Err(panicked()))
    }
}

impl Inner {
    async fn keep(&self, store: &dyn TokenStore, generation: Generation) -> Result<(), Error> {
        // Without it another process could write the answer of its running refresh over ours. But
        // what the user said counts more than what a process does that never gives it back.
        let lease = self.lease(store).await;
        let _writing = self.writing.lock().await;
        let tokens = {
            let state = &self.guarded.lock().state;
            if state.generation() != generation || !state.is_unsaved() {
                return Ok(());
            }
            state.credential().map(|credential| credential.tokens.clone())
        };
        let result = self.write(store, tokens.as_ref()).await;
        self.guarded.lock().state.written(generation, tokens.as_ref(), result.is_ok());
        drop(lease);
        self.announce(match &result {
            Ok(()) => Event::Saved,
            Err(error) => Event::NotSaved { error: error.clone() },
        });
        result
    }

    /// Takes the store's lock; waits as long as another process may need for a refresh.
    pub(super) async fn lease(&self, store: &dyn TokenStore) -> Result<Lease, Error> {
        let patience = self.deadlines.refresh + self.deadlines.store;
        self.bounded(patience, "locked", store.lock()).await
    }

    pub(super) async fn load(&self, store: &dyn TokenStore) -> Result<Option<TokenSet>, Error> {
        self.bounded(self.deadlines.store, "read", store.load()).await
    }

    /// Saves `tokens` or clears the store: up to three tries, each bounded.
    pub(super) async fn write(
        &self,
        store: &dyn TokenStore,
        tokens: Option<&TokenSet>,
    ) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            let writing = async {
                match tokens {
                    Some(tokens) => store.save(tokens).await,
                    None => store.clear().await,
                }
            };
            let result = self.bounded(self.deadlines.store, "written", writing).await;
            tries += 1;
            if result.is_ok() || tries == 3 {
                return result;
            }
            self.clock.sleep(Duration::from_millis(100) * tries).await;
        }
    }

    async fn bounded<T>(
        &self,
        patience: Duration,
        what: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        let error = |why, source| {
            let message = format!("the token store could not be {what}{why}");
            Error::with_source(ErrorKind::Store, message, source)
        };
        match self.clock.timeout(patience, work).await {
            Some(result) => result.map_err(|source| error("", Some(source.into()))),
            None => Err(error(" in time", None)),
        }
    }
}
