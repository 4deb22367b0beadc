//! The one refresh that is running: a task of its own, whose outcome everybody shares.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::Instrument;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, LoginReason, RefreshError, RefreshFailure};
use crate::proto::credential::{Age, Credential, Provenance, learn_ends};
use crate::proto::policy::AfterFailure;
use crate::proto::state::{AfterLoad, Cause, Over, Ticket};
use crate::session::waiting::{Arrival, Progress};
use crate::session::{Event, Guarded, Inner};
use crate::store::{Lease, TokenStore};
use crate::token::TokenSet;

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

/// Whether the store holds what it was given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Saved {
    No,
    Outrun,
    Yes,
}

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
        let stored = match &self.inner.store {
            Some(store) => self.inner.load(&**store).await,
            None => Ok(None),
        };
        let now = self.inner.clock.now();
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
    /// Begins again if somebody else has written while our lease was over.
    async fn refresh(&mut self) -> Result<Arrival, LoginReason> {
        for _ in 0..ROUNDS {
            if let Some(arrival) = self.round().await? {
                return Ok(arrival);
            }
        }
        let message = "the token store is written, or its lock ends, again and again";
        Ok(self.fail_by_store(Error::new(ErrorKind::Store, message)))
    }

    /// `None` if somebody else has written meanwhile.
    async fn round(&mut self) -> Result<Option<Arrival>, LoginReason> {
        let store = self.inner.store.clone();
        let (lease, stored) = match &store {
            None => (Lease::none(), None),
            Some(store) => match self.lock_and_load(&**store).await {
                Ok(found) => found,
                Err(error) => return Ok(Some(self.fail_by_store(error))),
            },
        };
        let arrival = self.round_under(&lease, store.as_deref(), stored).await;
        self.inner.give_back(Some(lease)).await;
        arrival
    }

    async fn round_under(
        &mut self,
        lease: &Lease,
        store: Option<&dyn TokenStore>,
        stored: Option<TokenSet>,
    ) -> Result<Option<Arrival>, LoginReason> {
        let now = self.inner.clock.now();
        let (over, verdict) = {
            let state = &mut self.inner.guarded.lock().state;
            let over = state.over_found(stored.clone());
            (over, state.after_load(&self.ticket, stored, &self.inner.policy, now))
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
            return self.refused(error, &tokens, store, lost).await.map(Some);
        }
        Ok(Some(self.failed(error, &tokens, &over, lost).await))
    }

    async fn lock_and_load(
        &self,
        store: &dyn TokenStore,
    ) -> Result<(Lease, Option<TokenSet>), Error> {
        let lease = match self.inner.lease(store).await {
            Err(error) if self.goes_on_without_store(&error) => Lease::none(),
            lease => lease?,
        };
        let stored = match self.inner.load(store).await {
            Err(error) if self.goes_on_without_store(&error) => {
                self.inner.guarded.lock().state.last_seen()
            }
            stored => stored?,
        };
        Ok((lease, stored))
    }

    fn goes_on_without_store(&self, error: &Error) -> bool {
        let inner = &self.inner;
        let goes_on = inner.refresh_without_store
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
        let end = inner.clock.now().after(inner.deadlines.refresh);
        let mut attempts = inner.policy.attempts();
        loop {
            let start = inner.clock.now();
            let attempt = inner.refresh.refresh(tokens);
            let error = match inner.clock.timeout(end.left_at(&start), attempt).await {
                Some(Ok(fresh)) => match self.credential(fresh, tokens, start) {
                    Ok(credential) => return Ok(credential),
                    Err(error) => error,
                },
                Some(Err(error)) => error,
                None => RefreshError::new(RefreshFailure::Lost, "the refresh took too long"),
            };
            tracing::debug!(%error, failure = ?error.failure(), "an attempt to refresh failed");
            let now = inner.clock.now();
            match attempts.after_failure(&error, end.left_at(&now)) {
                AfterFailure::GiveUp => return Err((error, attempts.lost)),
                AfterFailure::TryAgainIn(delay) => inner.clock.sleep(delay).await,
            }
            if !lease.is_held() {
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
        let refresh_token = fresh.refresh_token().map(str::to_owned);
        let tokens = learn_ends(fresh.inherit(before), Provenance::Issued, start, policy);
        let generation = self.ticket.generation.next();
        match Credential::new(generation, tokens, start, policy) {
            Ok(credential) => Ok(Arc::new(credential)),
            Err(message) => {
                let error = RefreshError::new(RefreshFailure::Unusable, message);
                Err(match refresh_token {
                    Some(refresh_token) => error.with_refresh_token(refresh_token),
                    None => error,
                })
            }
        }
    }

    /// Saves, then publishes. A refresh that lost against the user does neither; `None` if it lost
    /// against somebody who shares the store.
    async fn keep(&mut self, credential: Arc<Credential>, over: &Over) -> Option<Arrival> {
        let inner = Arc::clone(&self.inner);
        self.received = Some(Arc::clone(&credential));
        let _writing = inner.writing.lock().await;
        if !self.has_lost() {
            let is_saved = match self.save(&credential.tokens, over).await {
                Saved::Outrun => {
                    self.late = self.received.take();
                    inner.guarded.lock().state.outrun(self.ticket.generation);
                    return None;
                }
                saved => saved == Saved::Yes,
            };
            let arrival = self.publish(Arc::clone(&credential), is_saved);
            if !matches!(arrival, Arrival::Moved) {
                return Some(arrival);
            }
        }
        self.give_back(&credential.tokens).await;
        Some(Arrival::Moved)
    }

    /// Whether tokens were set or cleared meanwhile.
    fn has_lost(&self) -> bool {
        !self.inner.guarded.lock().state.is_current(&self.ticket)
    }

    /// Somebody has logged out, and could not revoke what was still on its way.
    async fn give_back(&self, tokens: &TokenSet) {
        let has_logged_out = self.ticket.generation < self.inner.guarded.lock().logged_out;
        if has_logged_out {
            self.revoke(tokens).await;
        }
    }

    async fn revoke(&self, tokens: &TokenSet) {
        if let Err(error) = self.inner.revoke(tokens).await {
            tracing::warn!(%error, "tokens that came after the logout could not be revoked");
        }
    }

    fn publish(&mut self, credential: Arc<Credential>, is_saved: bool) -> Arrival {
        self.received = None;
        let is_published = {
            let state = &mut self.inner.guarded.lock().state;
            state.publish(&self.ticket, Arc::clone(&credential), is_saved)
        };
        if !is_published {
            return Arrival::Moved;
        }
        self.tell_refreshed(&credential);
        Arrival::Refreshed(credential)
    }

    /// Without a store there is nothing to be saved, and nothing fails.
    async fn save(&mut self, tokens: &TokenSet, over: &Over) -> Saved {
        let Some(store) = &self.inner.store else {
            return Saved::Yes;
        };
        match self.inner.write(&**store, Some(tokens), over).await {
            Ok(true) => {
                self.news.push(Event::Saved);
                Saved::Yes
            }
            Ok(false) => {
                tracing::warn!("another process has saved tokens while the lease was over");
                Saved::Outrun
            }
            Err(error) => {
                tracing::error!(%error, "new tokens are in use but could not be saved");
                self.news.push(Event::NotSaved { error });
                Saved::No
            }
        }
    }

    /// Uses what another process has saved.
    fn adopt(&mut self, credential: Arc<Credential>, now: Moment) -> Arrival {
        let is_over = credential.age(&now) == Age::Expired;
        tracing::debug!("another process has saved tokens");
        match self.publish(credential, true) {
            Arrival::Refreshed(_) if is_over => Arrival::Moved,
            arrival => arrival,
        }
    }

    /// The server says that the refresh token is dead: perhaps because another process has used it.
    async fn refused(
        &mut self,
        error: RefreshError,
        sent: &TokenSet,
        store: Option<&dyn TokenStore>,
        lost: bool,
    ) -> Result<Arrival, LoginReason> {
        if let Some(store) = store {
            // A store that fails now is read again later: a dead session looks now and then.
            let stored = self.inner.load(store).await.unwrap_or_default();
            let (now, policy) = (self.inner.clock.now(), &self.inner.policy);
            let moved = {
                let state = &self.inner.guarded.lock().state;
                state.after_refusal(&self.ticket, sent, stored, policy, now)
            };
            if let Some(credential) = moved {
                return Ok(self.adopt(credential, now));
            }
        }
        let lost = lost || self.inner.guarded.lock().state.answer_lost();
        Err(error.into_refusal(lost))
    }

    /// Everything else: nobody asks the server again for a while. The old set stays in place.
    async fn failed(
        &mut self,
        mut error: RefreshError,
        sent: &TokenSet,
        over: &Over,
        lost: bool,
    ) -> Arrival {
        if let Some(refresh_token) = error.refresh_token.take() {
            self.keep_refresh_token(refresh_token.expose_secret(), sent, over).await;
        }
        self.inner.guarded.lock().state.failed(&self.ticket, lost);
        let (failure, retry_after) = (error.failure(), error.retry_after);
        self.cool_down(error.into_shared(), failure, retry_after)
    }

    /// Without the store nobody knows which refresh token is the current one.
    fn fail_by_store(&mut self, error: Error) -> Arrival {
        self.cool_down(error, RefreshFailure::NotSent, None)
    }

    fn cool_down(
        &mut self,
        error: Error,
        failure: RefreshFailure,
        retry_after: Option<Duration>,
    ) -> Arrival {
        let policy = &self.inner.policy;
        let duration = {
            let state = &mut self.inner.guarded.lock().state;
            state.next_cool_down(&self.ticket, failure, retry_after, policy)
        };
        // A flight that has lost against the user: then nobody has failed.
        let Some(duration) = duration else { return Arrival::Moved };
        let error = error.retry_in(Some(duration));
        let now = self.inner.clock.now();
        self.inner.guarded.lock().state.fail(&self.ticket, duration, error.clone(), now);
        tracing::warn!(%error, cool_down = ?duration, "the refresh failed");
        self.news.push(Event::RefreshFailed { error: error.clone() });
        Arrival::Failed(error)
    }

    /// The answer was of no use, but the refresh token in it has replaced the one that was sent.
    async fn keep_refresh_token(&mut self, refresh_token: &str, sent: &TokenSet, over: &Over) {
        let inner = Arc::clone(&self.inner);
        let _writing = inner.writing.lock().await;
        let tokens = sent.clone().rotated_to(refresh_token);
        if self.has_lost() {
            return self.give_back(&tokens).await;
        }
        let (now, policy) = (inner.clock.now(), &inner.policy);
        let tokens = learn_ends(tokens, Provenance::Kept, now, policy);
        let generation = self.ticket.generation;
        // Where there was no access token before, there is none to keep it with.
        let Ok(credential) = Credential::new(generation, tokens.clone(), now, policy) else {
            return;
        };
        inner.guarded.lock().state.replace_refresh_token(&self.ticket, Arc::new(credential));
        let saved = self.save(&tokens, over).await;
        let state = &mut inner.guarded.lock().state;
        match saved {
            Saved::Outrun => state.outrun(generation),
            _ => state.written(generation, Some(&tokens), saved == Saved::Yes),
        }
    }

    /// The session is dead. Everybody waits for the person, for as long as that may take.
    async fn log_in(&mut self, reason: LoginReason) -> Arrival {
        let inner = Arc::clone(&self.inner);
        let error = Error::login_required(reason.clone());
        let now = inner.clock.now();
        {
            let state = &mut inner.guarded.lock().state;
            if !state.die(&self.ticket, error.clone(), now) {
                return Arrival::Moved;
            }
            // In one step: whoever sets tokens from now on lets this flight go.
            if inner.hook.is_some() {
                self.progress.send_replace(Progress::LoggingIn);
            }
        }
        tracing::warn!(%error, "the session is dead");
        inner.announce(Event::LoginRequired { reason: reason.clone() });
        let Some(hook) = &inner.hook else { return Arrival::Failed(error) };
        if self.has_lost() {
            return Arrival::Moved;
        }
        let answer = inner.clock.timeout(inner.deadlines.login, hook(reason)).await;
        if self.has_lost() {
            return Arrival::Moved;
        }
        let Some(Some(tokens)) = answer else { return Arrival::Failed(error) };
        let (now, policy) = (inner.clock.now(), &inner.policy);
        let tokens = learn_ends(tokens, Provenance::Kept, now, policy);
        match Credential::new(self.ticket.generation.next(), tokens, now, policy) {
            Ok(credential) => {
                let lease = match &inner.store {
                    Some(store) => inner.lease(&**store).await.ok(),
                    None => None,
                };
                // What the user says counts more than whatever is there.
                let arrival = self.keep(Arc::new(credential), &Over::Anything).await;
                inner.give_back(lease).await;
                arrival.unwrap_or(Arrival::Moved)
            }
            Err(message) => {
                tracing::error!(message, "the login hook's tokens cannot be used");
                Arrival::Failed(error)
            }
        }
    }

    fn tell_refreshed(&mut self, credential: &Credential) {
        tracing::debug!(generation = %credential.generation, "new tokens");
        let (generation, expires_at) = (credential.generation, credential.tokens.expires_at());
        self.news.push(Event::Refreshed { generation, expires_at });
        let (now, policy) = (self.inner.clock.now(), &self.inner.policy);
        let login_due = self.inner.guarded.lock().state.login_due(policy, now);
        self.news.extend(login_due.map(|at| Event::LoginDue { at }));
    }

    /// Tells first those who wait, then those who watch.
    fn land(&mut self, arrival: Arrival) {
        self.has_landed = true;
        {
            let mut guarded = self.inner.guarded.lock();
            let is_mine = |flight: &watch::Sender<_>| flight.same_channel(&self.progress);
            // One that was let go makes no room for another.
            if guarded.flight.as_ref().is_some_and(is_mine) {
                guarded.state.land();
                guarded.flight = None;
            }
        }
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
            let now = self.inner.clock.now();
            let error = self.inner.guarded.lock().state.interrupt(&self.ticket, error, now);
            self.news.push(Event::RefreshFailed { error: error.clone() });
            self.land(Arrival::Failed(error));
        }
    }
}
