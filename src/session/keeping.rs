//! Writing to the store: bounded, repeated, the newest tokens last.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, RefreshError};
use crate::proto::state::Over;
use crate::session::{Event, Inner, Session};
use crate::store::{Lease, StoreError, TokenStore};
use crate::token::{Generation, TokenSet};

/// How often a write is tried.
const TRIES: u32 = 3;

/// The turn to write to the store. It ends when this is dropped.
pub(super) struct Turn<'a> {
    inner: &'a Inner,
    _end: watch::Sender<()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.inner.guarded.lock().writing = None;
    }
}

impl Session {
    /// Does something in a task of its own: a caller who goes away does not interrupt it. `who`
    /// takes part in it, and may panic.
    pub(super) async fn apart<F>(
        &self,
        who: &str,
        work: impl FnOnce(Arc<Inner>) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let interrupted = |message| Err(Error::new(ErrorKind::Interrupted, message));
        let Ok(runtime) = Handle::try_current() else {
            return interrupted("there is no Tokio runtime".to_owned());
        };
        // A flight may wait for this, so who waits for a flight in here waits for itself.
        let task = runtime.spawn(self.inner.inside(work(Arc::clone(&self.inner))));
        let ended = |_| interrupted(format!("{who} panicked, or the runtime shut down"));
        task.await.unwrap_or_else(ended)
    }

    /// Writes the current tokens, or their absence, unless that is done.
    pub(super) async fn keep_in_store(&self) -> Result<(), Error> {
        if !self.inner.guarded.lock().state.is_unsaved() {
            return Ok(());
        }
        self.apart("the store", |inner| async move { inner.keep().await }).await
    }
}

impl Inner {
    /// Clears the store, and revokes what was in it, or else the tokens that are `known`.
    pub(super) async fn forget(
        &self,
        known: Option<TokenSet>,
        is_newest: bool,
    ) -> Result<(), Error> {
        let (stored, cleared) = match &self.store {
            Some(store) => self.clear_store(&**store, is_newest).await,
            None => (Ok(None), Ok(())),
        };
        let revoked = match (stored, known) {
            (Ok(Some(tokens)), _) | (_, Some(tokens)) => self.revoke(&tokens).await,
            (Ok(None), None) => Ok(()),
            // Nobody knows what there was to revoke.
            (Err(unread), None) => Err(unread),
        };
        match (cleared, revoked) {
            (Err(one), Err(other)) => Err(one.and(other)),
            (one, other) => one.and(other),
        }
    }

    /// Clears the store; with that, what was in it.
    ///
    /// What the server knows is what was stored last: by us, by another process, or in an earlier
    /// run that nobody has looked at yet. While it is locked nobody stores anything newer.
    async fn clear_store(
        &self,
        store: &dyn TokenStore,
        is_newest: bool,
    ) -> (Result<Option<TokenSet>, Error>, Result<(), Error>) {
        let lease = self.lease(store).await;
        // Not what a login has written since.
        let is_ours = !is_newest && self.guarded.lock().state.is_unsaved();
        let stored = match is_ours {
            true => self.load(store).await,
            false => Ok(None),
        };
        let cleared = self.keep_leased(store).await;
        self.give_back(lease.ok()).await;
        (stored, cleared)
    }

    /// Tells the server that `tokens` are not needed any more.
    pub(super) async fn revoke(&self, tokens: &TokenSet) -> Result<(), Error> {
        let revocation = self.settings.refresh.revoke(tokens);
        match self.settings.clock.timeout(self.settings.deadlines.refresh, revocation).await {
            Some(result) => result.map_err(RefreshError::into_shared),
            None => {
                let what = match tokens.refresh_token() {
                    Some(_) => "both tokens are",
                    None => "the access token is",
                };
                let message =
                    format!("the server took too long: nobody knows whether {what} revoked");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    /// See [`Session::keep_in_store`].
    pub(super) async fn keep(&self) -> Result<(), Error> {
        let Some(store) = &self.store else { return Ok(()) };
        // Without it another process could write the answer of its running refresh over ours. But
        // what the user said counts more than what a process does that never gives it back.
        let lease = self.lease(&**store).await;
        let result = self.keep_leased(&**store).await;
        self.give_back(lease.ok()).await;
        result
    }

    async fn keep_leased(&self, store: &dyn TokenStore) -> Result<(), Error> {
        let _turn = self.turn_at_store().await;
        let (generation, tokens, over) = {
            let state = &self.guarded.lock().state;
            if !state.is_unsaved() {
                return Ok(());
            }
            let tokens = state.credential().map(|credential| credential.tokens.clone());
            (state.generation(), tokens, state.over())
        };
        let result = self.write(store, generation, tokens.as_ref(), &over).await;
        {
            let state = &mut self.guarded.lock().state;
            match result {
                Ok(false) => state.outrun(generation),
                _ => state.written(generation, tokens.as_ref(), result.is_ok()),
            }
        }
        match &result {
            Ok(true) => self.announce(Event::Saved),
            Ok(false) => tracing::warn!("another process has saved tokens meanwhile"),
            Err(error) => self.announce(Event::NotSaved { error: error.clone() }),
        }
        result.map(drop)
    }

    /// Waits until nobody else writes to the store, so that the newest generation is written last.
    ///
    /// A lock that is there only while it is held: most sessions write nothing most of the time.
    pub(super) async fn turn_at_store(&self) -> Turn<'_> {
        loop {
            let mut turn = match self.guarded.lock().writing {
                Some(ref turn) => turn.subscribe(),
                ref mut free @ None => {
                    let end = free.insert(watch::Sender::new(())).clone();
                    return Turn { inner: self, _end: end };
                }
            };
            // Nothing is said in a turn: this fails when it has ended.
            let _ = turn.changed().await;
        }
    }

    /// Takes the store's lock; waits as long as another process may need for a refresh.
    pub(super) async fn lease(&self, store: &dyn TokenStore) -> Result<Lease, Error> {
        let patience =
            self.settings.deadlines.refresh.saturating_add(self.settings.deadlines.store);
        self.bounded(patience, "locked", store.lock()).await
    }

    /// Frees the store's lock, if we have it: the program may end right after.
    pub(super) async fn give_back(&self, lease: Option<Lease>) {
        let Some(lease) = lease else { return };
        if self
            .settings
            .clock
            .timeout(self.settings.deadlines.store, lease.give_back())
            .await
            .is_none()
        {
            tracing::warn!("the token store's lock could not be given back in time");
        }
    }

    pub(super) async fn load(&self, store: &dyn TokenStore) -> Result<Option<TokenSet>, Error> {
        self.bounded(self.settings.deadlines.store, "read", store.load()).await
    }

    /// Saves `tokens`, which are those of `generation` or will follow them, over what may be there, or
    /// clears the store. Says `false` if something else is there.
    pub(super) async fn write(
        &self,
        store: &dyn TokenStore,
        generation: Generation,
        tokens: Option<&TokenSet>,
        over: &Over,
    ) -> Result<bool, Error> {
        match (tokens, over) {
            (None, _) => self.repeat(|| store.clear()).await.map(|()| true),
            (Some(tokens), Over::Found(before)) => {
                self.repeat(|| store.replace(before.as_ref(), tokens)).await
            }
            (Some(tokens), Over::Anything) => self.overwrite(store, generation, tokens).await,
        }
    }

    /// Saves `tokens` over whatever is there, unless that is newer: then says `false`.
    async fn overwrite(
        &self,
        store: &dyn TokenStore,
        generation: Generation,
        tokens: &TokenSet,
    ) -> Result<bool, Error> {
        let mut failure = None;
        for tries in 1..=TRIES {
            let written = match self.load(store).await {
                Ok(found) => {
                    if self.guarded.lock().state.is_newer(found.as_ref(), tokens) {
                        return Ok(false);
                    }
                    let written = self.put(store.replace(found.as_ref(), tokens)).await;
                    if written.is_err() {
                        self.guarded.lock().state.tried_over(generation, found);
                    }
                    written
                }
                // What nobody can read is not newer than what was not tried yet.
                Err(_) if failure.is_none() && !self.guarded.lock().state.has_tried() => {
                    self.put(store.save(tokens)).await.map(|()| true)
                }
                Err(error) => Err(error),
            };
            match written {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => {
                    failure = Some(error);
                    self.pause_after(tries).await;
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => self.put(store.save(tokens)).await.map(|()| true),
        }
    }

    /// Tries to write a few times.
    async fn repeat<T, F>(&self, mut write: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut tries = 1;
        loop {
            let result = self.put(write()).await;
            if result.is_ok() || tries == TRIES {
                return result;
            }
            self.pause_after(tries).await;
            tries += 1;
        }
    }

    /// One try to write.
    async fn put<T>(&self, write: impl Future<Output = Result<T, StoreError>>) -> Result<T, Error> {
        self.bounded(self.settings.deadlines.store, "written", write).await
    }

    async fn pause_after(&self, tries: u32) {
        if tries < TRIES {
            self.settings.clock.sleep(Duration::from_millis(100) * tries).await;
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
        match self.settings.clock.timeout(patience, work).await {
            Some(result) => result.map_err(|source| error("", Some(source.into()))),
            None => Err(error(" in time", None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::{JoinHandle, yield_now};

    use super::*;
    use crate::TokenEndpoint;

    /// Takes its turn again and again, and may panic in the last. How often it was there.
    fn visitor(session: &Session, there: &Arc<AtomicUsize>, panics: bool) -> JoinHandle<usize> {
        const TURNS: usize = 20;
        let (inner, there) = (Arc::clone(&session.inner), Arc::clone(there));
        tokio::spawn(async move {
            for turn in 1..=TURNS {
                let _turn = inner.turn_at_store().await;
                assert_eq!(there.fetch_add(1, Ordering::SeqCst), 0, "somebody else is there");
                yield_now().await;
                there.fetch_sub(1, Ordering::SeqCst);
                assert!(!panics || turn < TURNS, "as a store may");
            }
            TURNS
        })
    }

    /// K-21, K-24, K-25: one at a time, and nobody waits for ever: not for who went away while
    /// waiting, and not for who panicked while it was there.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn k_25_turns_at_the_store_exclude_each_other_and_are_not_lost() {
        let endpoint = TokenEndpoint::digirunner("https://gateway.test", "client", None).unwrap();
        let session = Session::builder(endpoint).build().unwrap();
        let there = Arc::default();
        let first = session.inner.turn_at_store().await;
        let visitors: Vec<_> = (0..10).map(|_| visitor(&session, &there, false)).collect();
        let panicking: Vec<_> = (0..5).map(|_| visitor(&session, &there, true)).collect();
        let leaving: Vec<_> = (0..5)
            .map(|_| {
                let inner = Arc::clone(&session.inner);
                tokio::spawn(async move { drop(inner.turn_at_store().await) })
            })
            .collect();
        yield_now().await;
        leaving.iter().for_each(JoinHandle::abort);
        drop(first);
        for visitor in visitors {
            assert_eq!(visitor.await.unwrap(), 20);
        }
        for visitor in panicking {
            assert!(visitor.await.unwrap_err().is_panic());
        }
        assert!(session.inner.guarded.lock().writing.is_none(), "free again");
    }
}
