//! What becomes of a flight's news: kept, adopted, refused, failed, or a matter for a person.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;

use crate::clock::Moment;
use crate::error::{Error, LoginReason, RefreshError, RefreshFailure};
use crate::proto::credential::{Age, Credential, Provenance, learn_ends};
use crate::proto::state::Over;
use crate::session::flight::Flight;
use crate::session::waiting::{Arrival, Progress};
use crate::session::{Event, as_login};
use crate::store::TokenStore;
use crate::token::TokenSet;

/// Whether the store holds what it was given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Saved {
    No,
    Outrun,
    Yes,
}

impl Flight {
    /// Saves, then publishes. A refresh that lost against the user does neither; `None` if it lost
    /// against somebody who shares the store.
    pub(super) async fn keep(
        &mut self,
        credential: Arc<Credential>,
        over: &Over,
    ) -> Option<Arrival> {
        let inner = Arc::clone(&self.inner);
        self.received = Some(Arc::clone(&credential));
        let _turn = inner.turn_at_store().await;
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
    pub(super) fn has_lost(&self) -> bool {
        !self.inner.guarded.lock().state.is_current(&self.ticket)
    }

    /// Whether somebody has logged out meanwhile, and could not revoke what was still on its way.
    pub(super) fn has_logged_out(&self) -> bool {
        self.ticket.generation < self.inner.guarded.lock().logged_out
    }

    /// Whether a hook has set its tokens itself, too.
    fn are_current(&self, tokens: &TokenSet) -> bool {
        let guarded = self.inner.guarded.lock();
        guarded.state.credential().is_some_and(|current| current.tokens.same_tokens(tokens))
    }

    pub(super) async fn give_back(&self, tokens: &TokenSet) {
        if self.has_logged_out() {
            self.revoke(tokens).await;
        }
    }

    pub(super) async fn revoke(&self, tokens: &TokenSet) {
        if let Err(error) = self.inner.revoke(tokens).await {
            tracing::warn!(%error, "tokens that came after the logout could not be revoked");
        }
    }

    pub(super) fn publish(&mut self, credential: Arc<Credential>, is_saved: bool) -> Arrival {
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
        let (inner, generation) = (&self.inner, self.ticket.generation);
        let mut written = inner.write(&**store, generation, Some(tokens), over).await;
        // An earlier write of what was sent may have got there, though it seemed to fail.
        if let (Ok(false), Over::Found(found)) = (&written, over)
            && let Some(sent) = self.sent_beside(found.as_ref())
        {
            let over = Over::Found(Some(sent));
            written = inner.write(&**store, generation, Some(tokens), &over).await;
        }
        match written {
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

    fn sent_beside(&self, found: Option<&TokenSet>) -> Option<TokenSet> {
        self.inner.guarded.lock().state.sent_beside(found)
    }

    /// Uses what another process has saved.
    pub(super) fn adopt(&mut self, credential: Arc<Credential>, now: Moment) -> Arrival {
        let is_over = credential.age(&now) == Age::Expired;
        tracing::debug!("another process has saved tokens");
        match self.publish(credential, true) {
            Arrival::Refreshed(_) if is_over => Arrival::Moved,
            arrival => arrival,
        }
    }

    /// The server says that the refresh token is dead: perhaps because another process has used it.
    pub(super) async fn refused(
        &mut self,
        error: RefreshError,
        sent: &TokenSet,
        store: Option<&dyn TokenStore>,
        lost: bool,
    ) -> Result<Arrival, LoginReason> {
        if let Some(store) = store {
            let inner = Arc::clone(&self.inner);
            let _turn = inner.turn_at_store().await;
            // A store that fails now is read again later: a dead session looks now and then.
            let stored = inner.load(store).await.unwrap_or_default();
            let (now, policy) = (inner.settings.clock.now(), &inner.policy);
            let moved = {
                let state = &inner.guarded.lock().state;
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
    pub(super) async fn failed(
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
    pub(super) fn fail_by_store(&mut self, error: Error) -> Arrival {
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
        let now = self.inner.settings.clock.now();
        self.inner.guarded.lock().state.fail(&self.ticket, duration, error.clone(), now);
        tracing::warn!(%error, cool_down = ?duration, "the refresh failed");
        self.news.push(Event::RefreshFailed { error: error.clone() });
        Arrival::Failed(error)
    }

    /// The answer was of no use, but the refresh token in it has replaced the one that was sent.
    async fn keep_refresh_token(&mut self, refresh_token: &str, sent: &TokenSet, over: &Over) {
        let inner = Arc::clone(&self.inner);
        let _turn = inner.turn_at_store().await;
        let tokens = sent.clone().rotated_to(refresh_token);
        if self.has_lost() {
            return self.give_back(&tokens).await;
        }
        let (now, policy) = (inner.settings.clock.now(), &inner.policy);
        let tokens = learn_ends(tokens, Provenance::Kept, now, policy);
        let generation = self.ticket.generation;
        // Where there was no access token before, there is none to keep it with.
        let Ok(credential) = Credential::new(generation, tokens.clone(), now, policy) else {
            return;
        };
        inner.guarded.lock().state.replace_refresh_token(&self.ticket, credential);
        let saved = self.save(&tokens, over).await;
        let state = &mut inner.guarded.lock().state;
        match saved {
            Saved::Outrun => state.outrun(generation),
            _ => state.written(generation, Some(&tokens), saved == Saved::Yes),
        }
    }

    /// The session is dead. Everybody waits for the person, for as long as that may take.
    pub(super) async fn log_in(&mut self, reason: LoginReason) -> Arrival {
        let inner = Arc::clone(&self.inner);
        let error = Error::login_required(reason.clone());
        let now = inner.settings.clock.now();
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
        let settings = &inner.settings;
        let answer = settings.clock.timeout(settings.deadlines.login, hook(reason)).await.flatten();
        if self.has_lost() {
            if let Some(tokens) = answer.filter(|tokens| !self.are_current(tokens)) {
                self.give_back(&tokens).await;
            }
            return Arrival::Moved;
        }
        let Some(tokens) = answer else { return Arrival::Failed(error) };
        let (now, policy) = (inner.settings.clock.now(), &inner.policy);
        let tokens = learn_ends(as_login(tokens), Provenance::Kept, now, policy);
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

    pub(super) fn tell_refreshed(&mut self, credential: &Credential) {
        tracing::debug!(generation = %credential.generation, "new tokens");
        let (generation, expires_at) = (credential.generation, credential.tokens.expires_at());
        self.news.push(Event::Refreshed { generation, expires_at });
        let (now, policy) = (self.inner.settings.clock.now(), &self.inner.policy);
        let login_due = self.inner.guarded.lock().state.login_due(policy, now);
        self.news.extend(login_due.map(|at| Event::LoginDue { at }));
    }
}
