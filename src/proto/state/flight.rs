//! What the one flight is told, and what it reports.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, LoginReason, RefreshFailure};
use crate::proto::credential::Credential;
use crate::proto::policy::Policy;
use crate::proto::state::{NEXT_LOOK, Standing, State, Unwritten};
use crate::token::{Generation, TokenSet};

/// Why a flight was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The token is over.
    Expired,
    /// The store has not been read yet.
    FirstUse,
    /// Somebody asked for a new token.
    Forced,
    /// There is no token.
    NoToken,
    /// The API refused the token.
    Rejected,
    /// The session is dead, but somebody may have logged in elsewhere.
    Revival,
    /// The token is inside the refresh window, or too near its end for one request.
    Stale,
}

/// What a flight was started for; void as soon as the generation has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) generation: Generation,
    pub(crate) cause: Cause,
}

/// What a flight does once it has read the store.
#[derive(Debug)]
pub(crate) enum AfterLoad {
    /// Another process was faster: use its tokens.
    Adopt(Arc<Credential>),
    /// Not allowed now.
    Fail(Error),
    Login(LoginReason),
    Refresh(TokenSet),
    /// Tokens were set or cleared meanwhile.
    Superseded,
}

impl State {
    /// Starts the one flight.
    pub(crate) fn launch(&mut self, cause: Cause) -> Ticket {
        debug_assert!(self.flight.is_none(), "one flight at a time");
        self.flight = Some(cause);
        Ticket { generation: self.generation, cause }
    }

    /// Ends it.
    pub(crate) fn land(&mut self) {
        self.flight = None;
    }

    /// Whether nobody has set or cleared tokens since the flight was started.
    pub(crate) fn is_current(&self, ticket: &Ticket) -> bool {
        self.generation == ticket.generation
    }

    /// Takes in what the store holds, where that is all that was wanted of it. What revived a dead
    /// session.
    pub(crate) fn after_read(
        &mut self,
        ticket: &Ticket,
        stored: Option<TokenSet>,
        policy: &Policy,
        now: Moment,
    ) -> Option<Arc<Credential>> {
        self.store.is_unread = false;
        self.store.is_outrun = false;
        self.give_way_to(stored.as_ref());
        self.put_off_next_look(now);
        let is_known = self.was_loaded(stored.as_ref());
        if !self.is_current(ticket) || is_known || !self.has_moved_to(stored.as_ref()) {
            return None;
        }
        // What cannot be sent is left alone: a store is not always written by us.
        let credential = self.kept(stored?, policy, now).ok()?;
        self.store.seen = Some(credential.tokens.clone());
        self.take_loaded();
        self.put(Arc::clone(&credential));
        (ticket.cause == Cause::Revival).then_some(credential)
    }

    /// A login that could not be saved, as it seemed, does not count more than what is newer.
    fn give_way_to(&mut self, stored: Option<&TokenSet>) {
        let current = self.credential.as_ref().map(|credential| &credential.tokens);
        if current.is_some_and(|current| self.is_newer(stored, current)) {
            self.store.unwritten = Unwritten::Nothing;
            self.forget_tries();
        }
    }

    /// Notes that the store could not be read.
    pub(crate) fn read_failed(&mut self, now: Moment) {
        if self.store.is_unread {
            self.past_mut().next_first_read = Some(Box::new(now.after(NEXT_LOOK)));
        }
        self.put_off_next_look(now);
    }

    fn put_off_next_look(&mut self, now: Moment) {
        let standing = self.past.as_mut().and_then(|past| past.standing.as_deref_mut());
        if let Some(Standing::Dead { next_look, .. }) = standing {
            *next_look = now.after(NEXT_LOOK);
        }
    }

    /// What a flight does, given what the store holds while it is locked.
    pub(crate) fn after_load(
        &mut self,
        ticket: &Ticket,
        stored: Option<TokenSet>,
        policy: &Policy,
        now: Moment,
    ) -> AfterLoad {
        if !self.is_current(ticket) {
            return AfterLoad::Superseded;
        }
        self.store.is_outrun = false;
        self.give_way_to(stored.as_ref());
        if self.store.was_cleared(stored.as_ref()) {
            self.store.seen = None;
            self.store.unwritten = Unwritten::Nothing;
            self.forget();
        }
        if let (Some(stored), Some(credential)) = (&stored, &self.credential)
            && stored.same_tokens(&credential.tokens)
        {
            // Ours: also where nobody knew that it had been saved.
            self.written(self.generation, Some(stored), true);
        } else if self.has_gone_back_to(stored.as_ref()) {
            self.store.go_back_to(stored.clone());
        }
        let moved = self.has_moved_to(stored.as_ref());
        if self.store.exists {
            let past = self.past_mut();
            past.sent = None;
            past.loaded = stored.clone().filter(|_| moved);
        }
        let tokens = match (stored, &self.credential) {
            (Some(stored), _) if moved => match self.kept(stored, policy, now) {
                Ok(kept) if self.is_usable(&kept, &now) => return AfterLoad::Adopt(kept),
                Ok(kept) => kept.tokens.clone(),
                Err(reason) => return AfterLoad::Fail(Error::new(ErrorKind::Store, reason)),
            },
            (_, Some(credential)) => credential.tokens.clone(),
            (_, None) if !policy.needs_refresh_token => TokenSet::new(""),
            (_, None) => return AfterLoad::Login(self.absence()),
        };
        if let Some(reason) = hindrance(&tokens, policy, &now) {
            return AfterLoad::Login(reason);
        }
        if let Some(error) = self.exhausted(ticket.cause, policy, now) {
            return AfterLoad::Fail(error);
        }
        let has_store = self.store.exists;
        let past = self.past_mut();
        match ticket.cause {
            Cause::Rejected => past.rejection_budget.spend(policy.rejection_budget, now),
            _ => past.budget.spend(policy.budget, now),
        }
        past.sent = has_store.then(|| tokens.clone());
        AfterLoad::Refresh(tokens)
    }

    /// Notes a refresh that failed.
    pub(crate) fn failed(&mut self, ticket: &Ticket, lost: bool) {
        let is_current = self.is_current(ticket);
        self.past_mut().answer_lost |= lost && is_current;
        self.refund(ticket);
    }

    /// Takes back what [`after_load`](Self::after_load) spent on a refresh that came to nothing.
    pub(crate) fn refund(&mut self, ticket: &Ticket) {
        match ticket.cause {
            Cause::Rejected => self.past_mut().rejection_budget.refund(),
            _ => self.past_mut().budget.refund(),
        }
    }

    /// What to adopt after the server refused `sent`: what somebody else has stored meanwhile.
    pub(crate) fn after_refusal(
        &self,
        ticket: &Ticket,
        sent: &TokenSet,
        stored: Option<TokenSet>,
        policy: &Policy,
        now: Moment,
    ) -> Option<Arc<Credential>> {
        let stored = stored.filter(|_| self.is_current(ticket))?;
        let has_moved =
            stored.refresh_token() != sent.refresh_token() && self.has_moved_to(Some(&stored));
        self.kept(stored, policy, now).ok().filter(|_| has_moved)
    }

    /// Makes `credential` the current one, unless tokens were set or cleared meanwhile.
    pub(crate) fn publish(
        &mut self,
        ticket: &Ticket,
        credential: Arc<Credential>,
        is_saved: bool,
    ) -> bool {
        if !self.is_current(ticket) {
            if is_saved && self.store.exists {
                self.store.seen = Some(credential.tokens.clone());
            }
            return false;
        }
        self.put(Arc::clone(&credential));
        self.use_up_what_was_sent();
        self.written(credential.generation, Some(&credential.tokens), is_saved);
        true
    }

    /// Puts a new refresh token behind the current access token: the old one is used up. The access
    /// token is no younger for it.
    pub(crate) fn replace_refresh_token(&mut self, ticket: &Ticket, credential: Credential) {
        if !self.is_current(ticket) {
            return;
        }
        let access_token = credential.tokens.access_token();
        let credential = match &self.credential {
            Some(current) if current.tokens.access_token() == access_token => {
                credential.no_younger_than(current)
            }
            _ => credential,
        };
        self.use_up_what_was_sent();
        self.written(credential.generation, Some(&credential.tokens), false);
        self.credential = Some(Arc::new(credential));
    }

    fn use_up_what_was_sent(&mut self) {
        if let Some(past) = &mut self.past {
            past.used_up = past.sent.take();
        }
    }

    /// Notes a refresh that failed in a way that may pass: until then, everybody fails alike.
    pub(crate) fn fail(&mut self, ticket: &Ticket, cool_down: Duration, error: Error, now: Moment) {
        if self.is_current(ticket) {
            self.stand(Standing::CoolingDown { until: now.after(cool_down), error });
        }
    }

    /// How long to leave the server alone after another failure; `None` if it is the failure of a
    /// flight that has lost.
    pub(crate) fn next_cool_down(
        &mut self,
        ticket: &Ticket,
        failure: RefreshFailure,
        retry_after: Option<Duration>,
        policy: &Policy,
    ) -> Option<Duration> {
        if !self.is_current(ticket) {
            return None;
        }
        let past = self.past_mut();
        past.failures += 1;
        Some(policy.cool_down(past.failures, failure, retry_after))
    }

    /// Notes a flight that ended without a verdict. The error for those who waited.
    pub(crate) fn interrupt(&mut self, ticket: &Ticket, error: Error, now: Moment) -> Error {
        match self.standing() {
            // It was the login hook, which is not called again for this session.
            Some(Standing::Dead { error, .. }) => error.clone(),
            _ => {
                self.read_failed(now);
                self.fail(ticket, Duration::from_secs(1), error.clone(), now);
                error
            }
        }
    }

    /// What the running flight has sent, if it was not what is `found` in the store: then it may
    /// have got there since.
    pub(crate) fn sent_beside(&self, found: Option<&TokenSet>) -> Option<TokenSet> {
        let is_found = |sent: &&TokenSet| found.is_some_and(|found| found.same_tokens(sent));
        self.past().sent.as_ref().filter(|sent| !is_found(sent)).cloned()
    }

    /// Whether an answer to the current refresh token was lost in an earlier flight.
    pub(crate) fn answer_lost(&self) -> bool {
        self.past().answer_lost
    }

    /// Declares the session dead. Whether to call the login hook.
    pub(crate) fn die(&mut self, ticket: &Ticket, error: Error, now: Moment) -> bool {
        let is_current = self.is_current(ticket);
        if is_current {
            // The verdict is about what was loaded: when it is read again, it is no news.
            self.store.seen = self.take_loaded().or_else(|| self.store.seen.take());
            self.stand(Standing::Dead { error, next_look: now.after(NEXT_LOOK) });
            self.forget_tries();
        }
        is_current
    }

    /// Why there is no credential.
    fn absence(&self) -> LoginReason {
        match self.is_logged_out {
            true => LoginReason::LoggedOut,
            false => LoginReason::NeverLoggedIn,
        }
    }
}

/// Why these tokens cannot be refreshed without a person.
pub(super) fn hindrance(tokens: &TokenSet, policy: &Policy, now: &Moment) -> Option<LoginReason> {
    if !policy.needs_refresh_token {
        return None;
    }
    if tokens.refresh_token().is_none() {
        return Some(LoginReason::NoRefreshToken);
    }
    // Clocks differ, and some servers extend what they said: unless told otherwise, ask.
    let is_over = tokens.refresh_expires_at().is_some_and(|end| now.wall >= end);
    (policy.trust_refresh_expiry && is_over).then_some(LoginReason::RefreshTokenExpired)
}
