//! The one refresh that is running: a task of its own, whose outcome everybody shares.

use std::sync::Arc;

use secrecy::ExposeSecret;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::Instrument;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, LoginReason, RefreshError, RefreshFailure};
use crate::proto::credential::{Credential, Provenance, learn_ends};
use crate::proto::policy::AfterFailure;
use crate::proto::state::{AfterLoad, Cause, Over, Ticket};
use crate::secret::secret;
use crate::session::waiting::{Arrival, Progress};
use crate::session::{Event, Guarded, Inner};
use crate::store::{Lease, TokenStore};
use crate::token::TokenSet;

mod outcome;

/// A flight that is registered but not yet under way: it is started when the lock is free again,
/// and lands whatever happens to its task.
pub(super) struct Flight {
    inner: Arc<Inner>,
    ticket: Ticket,
    progress: watch::Sender<Progress>,
    news: Vec<Event>,
    /// What the server gave, until it is in use: the old refresh token is used up by then.
    received: Option<Arc<Credential>>,
    /// What the server gave after somebody else had written to the store.
    late: Option<Arc<Credential>>,
    has_landed: bool,
}

/// How often a flight begins again because somebody else has written to the store.
const ROUNDS: usize = 3;

impl Flight {
    pub(super) fn register(inner: &Arc<Inner>, guarded: &mut Guarded, cause: Cause) -> Self {
        let progress = watch::Sender::new(Progress::Refreshing);
        guarded.flight = Some(progress.clone());
        let ticket = guarded.state.launch(cause);
        Self {
            inner: Arc::clone(inner),
            ticket,
            progress,
            news: Vec::new(),
            received: None,
            late: None,
            has_landed: false,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The one place where a flight's task is started.
    pub(super) fn start(self) {
        // Without a runtime the flight is dropped, and thereby lands with an error.
        if let Ok(runtime) = Handle::try_current() {
            let span = tracing::info_span!("token_refresh", cause = ?self.ticket.cause);
            let inner = Arc::clone(&self.inner);
            runtime.spawn(inner.inside(self.fly()).instrument(span));
        }
    }

    async fn fly(mut self) {
        let arrival = match self.ticket.cause {
            Cause::FirstUse | Cause::Revival => self.read().await,
            _ => match self.refresh().await {
                Ok(arrival) => arrival,
                Err(reason) => self.log_in(reason).await,
            },
        };
        self.land(arrival);
    }

    /// Only looks into the store.
    async fn read(&mut self) -> Arrival {
        let inner = Arc::clone(&self.inner);
        let _turn = inner.turn_at_store().await;
        let stored = match &inner.store {
            Some(store) => inner.load(&**store).await,
            None => Ok(None),
        };
        let now = self.inner.settings.clock.now();
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                self.inner.guarded.lock().state.read_failed(now);
                let goes_on = self.goes_on_without_store(&error);
                return if goes_on { Arrival::Read } else { Arrival::Failed(error) };
            }
        };
        let revived = {
            let state = &mut self.inner.guarded.lock().state;
            state.after_read(&self.ticket, stored, &self.inner.policy, now)
        };
        if let Some(credential) = revived {
            self.tell_refreshed(&credential);
        }
        Arrival::Read
    }

    /// Trades the tokens for the next, under the store's lock; or says why somebody must log in.
    ///
    /// Begins again if somebody else has written, or may be about to, while our lease was over.
    async fn refresh(&mut self) -> Result<Arrival, LoginReason> {
        for _ in 0..ROUNDS {
            if let Some(arrival) = self.round().await? {
                return Ok(arrival);
            }
        }
        let message = "the token store is written, or its lock ends, again and again";
        Ok(self.fail_by_store(Error::new(ErrorKind::Store, message)))
    }

    /// `None` if somebody else has written meanwhile, or may be about to.
    async fn round(&mut self) -> Result<Option<Arrival>, LoginReason> {
        let store = self.inner.store.clone();
        let lease = match &store {
            None => Lease::none(),
            Some(store) => match self.inner.lease(&**store).await {
                Err(error) if self.goes_on_without_store(&error) => Lease::none(),
                Err(error) => return Ok(Some(self.fail_by_store(error))),
                Ok(lease) => lease,
            },
        };
        let arrival = self.round_under(&lease, store.as_deref()).await;
        self.inner.give_back(Some(lease)).await;
        arrival
    }

    async fn round_under(
        &mut self,
        lease: &Lease,
        store: Option<&dyn TokenStore>,
    ) -> Result<Option<Arrival>, LoginReason> {
        let (over, verdict, now) = match self.look(store).await {
            Ok(seen) => seen,
            Err(error) => return Ok(Some(self.fail_by_store(error))),
        };
        let tokens = match verdict {
            AfterLoad::Adopt(credential) => return Ok(Some(self.adopt(credential, now))),
            AfterLoad::Fail(error) => return Ok(Some(Arrival::Failed(error))),
            AfterLoad::Login(reason) => {
                if let Some(late) = self.late.take() {
                    self.revoke(&late.tokens).await;
                }
                return Err(reason);
            }
            AfterLoad::Refresh(tokens) => tokens,
            AfterLoad::Superseded => {
                if let Some(late) = self.late.take() {
                    self.give_back(&late.tokens).await;
                }
                return Ok(Some(Arrival::Moved));
            }
        };
        if !lease.is_held() {
            self.inner.guarded.lock().state.refund(&self.ticket);
            return Ok(None);
        }
        let (error, lost) = match self.attempt(&tokens, lease).await {
            Ok(credential) => return Ok(self.keep(credential, &over).await),
            Err(failure) => failure,
        };
        if error.failure() == RefreshFailure::Terminal {
            if !lease.is_held() {
                // Whoever has it by now may have used the refresh token, and not have saved yet.
                self.inner.guarded.lock().state.failed(&self.ticket, lost);
                return Ok(None);
            }
            return self.refused(error, &tokens, store, lost).await.map(Some);
        }
        Ok(Some(self.failed(error, &tokens, &over, lost).await))
    }

    /// Looks into the store: what to do, and what the next tokens may be written over.
    async fn look(
        &self,
        store: Option<&dyn TokenStore>,
    ) -> Result<(Over, AfterLoad, Moment), Error> {
        let inner = &*self.inner;
        let _turn = inner.turn_at_store().await;
        let stored = match store {
            None => None,
            Some(store) => match inner.load(store).await {
                Err(error) if self.goes_on_without_store(&error) => {
                    inner.guarded.lock().state.last_seen()
                }
                stored => stored?,
            },
        };
        let now = inner.settings.clock.now();
        let state = &mut inner.guarded.lock().state;
        let over = state.over_found(stored.clone());
        Ok((over, state.after_load(&self.ticket, stored, &inner.policy, now), now))
    }

    fn goes_on_without_store(&self, error: &Error) -> bool {
        let inner = &self.inner;
        let goes_on = inner.settings.refresh_without_store
            && inner.guarded.lock().state.knows_what_to_refresh(&inner.policy);
        if goes_on {
            tracing::warn!(%error, "refreshing without the token store");
        }
        goes_on
    }

    /// Asks the server, again where that may be. With the error: whether an answer was lost.
    async fn attempt(
        &self,
        tokens: &TokenSet,
        lease: &Lease,
    ) -> Result<Arc<Credential>, (RefreshError, bool)> {
        let inner = &*self.inner;
        let end = inner.settings.clock.now().after(inner.settings.deadlines.refresh);
        let mut attempts = inner.policy.attempts();
        loop {
            let start = inner.settings.clock.now();
            let attempt = inner.settings.refresh.refresh(tokens);
            let error = match inner.settings.clock.timeout(end.left_at(&start), attempt).await {
                Some(Ok(fresh)) => match self.credential(fresh, tokens, start) {
                    Ok(credential) => return Ok(credential),
                    Err(error) => error,
                },
                Some(Err(error)) => error,
                None => RefreshError::new(RefreshFailure::Lost, "the refresh took too long"),
            };
            tracing::debug!(%error, failure = ?error.failure(), "an attempt to refresh failed");
            let now = inner.settings.clock.now();
            match attempts.after_failure(&error, end.left_at(&now)) {
                AfterFailure::GiveUp => return Err((error, attempts.lost)),
                AfterFailure::TryAgainIn(delay) => inner.settings.clock.sleep(delay).await,
            }
            // A machine that slept meanwhile has no time left for an answer.
            let is_late = end.left_at(&inner.settings.clock.now()).is_zero();
            if is_late || !lease.is_held() || self.has_lost() {
                return Err((error, attempts.lost));
            }
        }
    }

    /// What the server gave, ready for use.
    fn credential(
        &self,
        fresh: TokenSet,
        before: &TokenSet,
        start: Moment,
    ) -> Result<Arc<Credential>, RefreshError> {
        let policy = &self.inner.policy;
        let refresh_token = fresh.refresh_token().map(secret);
        let tokens = learn_ends(fresh.inherit(before), Provenance::Issued, start, policy);
        let generation = self.ticket.generation.next();
        match Credential::new(generation, tokens, start, policy) {
            Ok(credential) => Ok(Arc::new(credential)),
            Err(message) => {
                let error = RefreshError::new(RefreshFailure::Unusable, message);
                Err(match refresh_token {
                    Some(refresh_token) => error.with_refresh_token(refresh_token.expose_secret()),
                    None => error,
                })
            }
        }
    }

    /// Tells first those who wait, then those who watch.
    fn land(&mut self, arrival: Arrival) {
        self.has_landed = true;
        let arrival = {
            let mut guarded = self.inner.guarded.lock();
            let is_mine = |flight: &watch::Sender<_>| flight.same_channel(&self.progress);
            // One that was let go makes no room for another.
            if guarded.flight.as_ref().is_some_and(is_mine) {
                guarded.state.land();
                guarded.flight = None;
            }
            match arrival {
                // Set or cleared while the store's lock was given back.
                Arrival::Refreshed(credential)
                    if guarded.state.generation() != credential.generation =>
                {
                    Arrival::Moved
                }
                arrival => arrival,
            }
        };
        self.progress.send_replace(Progress::Landed(arrival));
        for event in self.news.drain(..) {
            self.inner.announce(event);
        }
    }
}

impl Drop for Flight {
    /// A panic in user code, or a runtime that shuts down, is an error for those who wait; but a pair
    /// that the server has given already is used.
    fn drop(&mut self) {
        if self.has_landed {
            return;
        }
        if self.has_lost() {
            if self.has_logged_out() {
                tracing::warn!("what came after the logout, if anything, could not be revoked");
            }
            self.land(Arrival::Moved);
        } else if let Some(credential) = self.received.take() {
            let message = "the store panicked, or the runtime shut down";
            let error = Error::new(ErrorKind::Interrupted, message);
            self.news.push(Event::NotSaved { error });
            let arrival = self.publish(credential, false);
            self.land(arrival);
        } else {
            let message = "user code panicked, or there is no Tokio runtime";
            let error = Error::new(ErrorKind::Interrupted, message);
            let now = self.inner.settings.clock.now();
            let error = self.inner.guarded.lock().state.interrupt(&self.ticket, error, now);
            self.news.push(Event::RefreshFailed { error: error.clone() });
            self.land(Arrival::Failed(error));
        }
    }
}
