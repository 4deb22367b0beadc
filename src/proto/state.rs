//! What a session knows, and every decision that depends on it.
//!
//! A plain value with `&mut self` methods: the session puts it behind a lock and does what it says.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, LoginReason, RefreshError};
use crate::proto::credential::{Age, Credential, Provenance, learn_ends, left_until};
use crate::proto::policy::{Budget, Policy};
use crate::token::{Generation, TokenSet};

/// How long after a look into the store a dead or failing session looks again.
const NEXT_LOOK: Duration = Duration::from_secs(10);

/// What a session knows.
#[derive(Debug)]
pub(crate) struct State {
    generation: Generation,
    credential: Option<Arc<Credential>>,
    /// Why there is no credential, if there is none.
    absence: LoginReason,
    /// Whether the API refused the current credential.
    rejected: bool,
    standing: Standing,
    failures: usize,
    /// Whether an answer to the current refresh token was lost.
    answer_lost: bool,
    flight: Option<Cause>,
    budget: Budget,
    rejection_budget: Budget,
    store: Store,
    announced_login_due: Option<SystemTime>,
}

/// Whether a refresh may be tried.
#[derive(Debug)]
enum Standing {
    CoolingDown { until: Moment, error: Error },
    Dead { error: Error, next_look: Moment },
    Good,
}

/// What is known about the store.
#[derive(Debug)]
struct Store {
    exists: bool,
    /// When to read it for the first time; `None` once that is done.
    first_read: Option<FirstRead>,
    /// What it held when it was last seen.
    seen: Option<TokenSet>,
    /// Whether the credential is newer than what was written.
    is_behind: bool,
}

#[derive(Clone, Copy, Debug)]
enum FirstRead {
    AtOnce,
    NotBefore(Moment),
}

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

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Need {
    /// A token that is newer than the current one.
    pub(crate) new: bool,
    /// None, if nobody is logged in.
    pub(crate) optional: bool,
    /// A token that lasts at least so long.
    pub(crate) valid_for: Duration,
    /// Whether the request can be sent again if the token turns out to be over.
    pub(crate) replayable: bool,
}

impl Need {
    /// Any token that is not over.
    pub(crate) const ANY: Self =
        Self { new: false, optional: false, valid_for: Duration::ZERO, replayable: true };
}

/// What to do before a request.
#[derive(Debug)]
pub(crate) enum BeforeRequest {
    Fail(Error),
    Join,
    Launch(Cause),
    Send(Arc<Credential>),
    SendAndLaunch(Arc<Credential>, Cause),
    SendBare,
}

/// What to do after an answer that rejects the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterRejection {
    /// Refresh, then send the request again.
    Refresh,
    /// Give the answer to the caller, and refresh for the next request.
    RefreshBehind,
    /// Send the request again, with the token that is current now.
    Replay,
    /// Give the answer to the caller.
    Return,
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
    pub(crate) fn new(has_store: bool) -> Self {
        Self {
            generation: Generation::default(),
            credential: None,
            absence: LoginReason::NeverLoggedIn,
            rejected: false,
            standing: Standing::Good,
            failures: 0,
            answer_lost: false,
            flight: None,
            budget: Budget::default(),
            rejection_budget: Budget::default(),
            store: Store {
                exists: has_store,
                first_read: has_store.then_some(FirstRead::AtOnce),
                seen: None,
                is_behind: false,
            },
            announced_login_due: None,
        }
    }

    // ---- requests ----

    /// What to do for a request that needs `need`, at `now`.
    #[inline]
    pub(crate) fn before_request(
        &self,
        need: &Need,
        policy: &Policy,
        now: Moment,
    ) -> BeforeRequest {
        if let Some(credential) = &self.credential {
            let is_plain = *need == Need::ANY && !self.rejected && self.store.first_read.is_none();
            if is_plain && credential.age(&now) == Age::Fresh {
                return BeforeRequest::Send(Arc::clone(credential));
            }
        }
        self.before_unusual_request(need, policy, now)
    }

    fn before_unusual_request(&self, need: &Need, policy: &Policy, now: Moment) -> BeforeRequest {
        if self.store.is_due(now) {
            return self.join_or_launch(Cause::FirstUse);
        }
        let Some(credential) = &self.credential else {
            return match need.optional {
                true => BeforeRequest::SendBare,
                false => self.refresh_first(Cause::NoToken, policy, now),
            };
        };
        let cause = match self.age(credential, &now) {
            Age::Expired if self.rejected => Cause::Rejected,
            Age::Expired => Cause::Expired,
            _ if need.new => Cause::Forced,
            _ if !credential.lasts(need.valid_for, &now) => Cause::Stale,
            Age::Fresh => return BeforeRequest::Send(Arc::clone(credential)),
            Age::Stale if need.replayable => return self.refresh_behind(credential, policy, now),
            Age::Stale => Cause::Stale,
        };
        match self.refresh_first(cause, policy, now) {
            BeforeRequest::Fail(error) => self.after_failure(error, need, now),
            // The flight may be waiting for a person.
            BeforeRequest::Join if cause == Cause::Stale && self.is_dead() => {
                BeforeRequest::Send(Arc::clone(credential))
            }
            BeforeRequest::Launch(Cause::Stale) if !self.can_refresh(policy, &now) => {
                BeforeRequest::Send(Arc::clone(credential))
            }
            verdict => verdict,
        }
    }

    /// What a request does that could not get a refresh, or waited for one that failed.
    pub(crate) fn after_failure(&self, error: Error, need: &Need, now: Moment) -> BeforeRequest {
        match &self.credential {
            Some(credential) if self.age(credential, &now) != Age::Expired && !need.new => {
                BeforeRequest::Send(Arc::clone(credential))
            }
            _ if need.optional && error.is_login_required() => BeforeRequest::SendBare,
            _ => BeforeRequest::Fail(error),
        }
    }

    /// What to do after the API rejected the credential of generation `sent`, or a request without
    /// one.
    pub(crate) fn after_rejection(
        &mut self,
        sent: Option<Generation>,
        replayable: bool,
        policy: &Policy,
        now: Moment,
    ) -> AfterRejection {
        let replay = if replayable { AfterRejection::Replay } else { AfterRejection::Return };
        let Some(current) = &self.credential else {
            return match (sent, replayable) {
                (Some(_), true) => AfterRejection::Refresh,
                _ => AfterRejection::Return,
            };
        };
        if sent != Some(current.generation) {
            return replay;
        }
        // A token that is seconds old may simply not have arrived at every replica.
        if current.existed_for(&now) < policy.minimum_age {
            return replay;
        }
        if self.rejection_budget.exhausted_for(policy.rejection_budget, now).is_some() {
            return AfterRejection::Return;
        }
        self.rejected = true;
        match replayable {
            true => AfterRejection::Refresh,
            false => AfterRejection::RefreshBehind,
        }
    }

    fn age(&self, credential: &Credential, now: &Moment) -> Age {
        match self.rejected {
            true => Age::Expired,
            false => credential.age(now),
        }
    }

    fn refresh_behind(
        &self,
        credential: &Arc<Credential>,
        policy: &Policy,
        now: Moment,
    ) -> BeforeRequest {
        let credential = Arc::clone(credential);
        match self.refresh_first(Cause::Stale, policy, now) {
            BeforeRequest::Launch(Cause::Stale) if self.can_refresh(policy, &now) => {
                BeforeRequest::SendAndLaunch(credential, Cause::Stale)
            }
            _ => BeforeRequest::Send(credential),
        }
    }

    fn refresh_first(&self, cause: Cause, policy: &Policy, now: Moment) -> BeforeRequest {
        if self.flight.is_some() {
            return BeforeRequest::Join;
        }
        match &self.standing {
            Standing::CoolingDown { until, error } if !now.reached(until) => {
                BeforeRequest::Fail(error.clone().retry_in(Some(now.until(until))))
            }
            Standing::Dead { error, next_look } => {
                match self.store.exists && now.reached(next_look) {
                    true => BeforeRequest::Launch(Cause::Revival),
                    false => BeforeRequest::Fail(error.clone()),
                }
            }
            _ => match self.exhausted(cause, policy, now) {
                Some(error) => BeforeRequest::Fail(error),
                None => BeforeRequest::Launch(cause),
            },
        }
    }

    fn join_or_launch(&self, cause: Cause) -> BeforeRequest {
        match self.flight {
            Some(_) => BeforeRequest::Join,
            None => BeforeRequest::Launch(cause),
        }
    }

    fn can_refresh(&self, policy: &Policy, now: &Moment) -> bool {
        self.credential.as_ref().is_some_and(|credential| {
            hindrance(&credential.tokens, credential.refresh_token_is_over(now), policy).is_none()
        })
    }

    /// The error for a `cause` whose budget is spent.
    fn exhausted(&self, cause: Cause, policy: &Policy, now: Moment) -> Option<Error> {
        let wait = match cause {
            Cause::FirstUse | Cause::NoToken | Cause::Revival => None,
            Cause::Rejected => self.rejection_budget.exhausted_for(policy.rejection_budget, now),
            Cause::Expired | Cause::Forced | Cause::Stale => {
                self.budget.exhausted_for(policy.budget, now)
            }
        };
        let message = "more refreshes than the budget allows; are the tokens over on arrival?";
        wait.map(|wait| Error::new(ErrorKind::ExcessiveRefresh, message).retry_in(Some(wait)))
    }

    // ---- the flight ----

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

    /// Takes in what the store holds, where that is all that was wanted of it.
    pub(crate) fn after_read(
        &mut self,
        ticket: &Ticket,
        stored: Option<TokenSet>,
        policy: &Policy,
        now: Moment,
    ) {
        self.store.first_read = None;
        if let Standing::Dead { next_look, .. } = &mut self.standing {
            *next_look = now.after(NEXT_LOOK);
        }
        if !self.is_current(ticket) || !self.store.has_moved_to(stored.as_ref()) {
            return;
        }
        if let Some(stored) = stored {
            // What cannot be sent is left alone: a store is not always written by us.
            if let Ok(credential) = self.kept(stored, policy, now) {
                self.store.seen = Some(credential.tokens.clone());
                self.put(credential);
            }
        }
    }

    /// Notes that the store could not be read.
    pub(crate) fn read_failed(&mut self, now: Moment) {
        if self.store.first_read.is_some() {
            self.store.first_read = Some(FirstRead::NotBefore(now.after(NEXT_LOOK)));
        }
        if let Standing::Dead { next_look, .. } = &mut self.standing {
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
        if stored.is_none() && !self.store.is_behind && self.store.seen.take().is_some() {
            self.forget();
            return AfterLoad::Login(LoginReason::LoggedOut);
        }
        let moved = self.store.has_moved_to(stored.as_ref());
        let tokens = match (stored, &self.credential) {
            (Some(stored), _) if moved => match self.kept(stored, policy, now) {
                Ok(kept) if self.is_usable(&kept, &now) => return AfterLoad::Adopt(kept),
                Ok(kept) => kept.tokens.clone(),
                Err(reason) => return AfterLoad::Fail(Error::new(ErrorKind::Store, reason)),
            },
            (_, Some(credential)) => credential.tokens.clone(),
            (_, None) => return AfterLoad::Login(self.absence.clone()),
        };
        let is_over = tokens.refresh_expires_at().is_some_and(|end| now.wall >= end);
        if let Some(reason) = hindrance(&tokens, is_over, policy) {
            return AfterLoad::Login(reason);
        }
        if let Some(error) = self.exhausted(ticket.cause, policy, now) {
            return AfterLoad::Fail(error);
        }
        match ticket.cause {
            Cause::Rejected => self.rejection_budget.spend(policy.rejection_budget, now),
            _ => self.budget.spend(policy.budget, now),
        }
        AfterLoad::Refresh(tokens)
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
        let has_moved = stored.refresh_token() != sent.refresh_token()
            && self.store.has_moved_to(Some(&stored));
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
        self.written(credential.generation, Some(&credential.tokens), is_saved);
        true
    }

    /// Puts a new refresh token behind the current access token: the old one is used up.
    pub(crate) fn replace_refresh_token(
        &mut self,
        ticket: &Ticket,
        credential: Arc<Credential>,
        is_saved: bool,
    ) {
        if self.is_current(ticket) {
            self.written(credential.generation, Some(&credential.tokens), is_saved);
            self.credential = Some(credential);
        }
    }

    /// Notes a refresh that failed in a way that may pass: until then, everybody fails alike.
    pub(crate) fn fail(&mut self, ticket: &Ticket, cool_down: Duration, error: Error, now: Moment) {
        if self.is_current(ticket) {
            self.standing = Standing::CoolingDown { until: now.after(cool_down), error };
        }
    }

    /// How long to leave the server alone after another failure; `None` if it is the failure of a
    /// flight that has lost.
    pub(crate) fn next_cool_down(
        &mut self,
        ticket: &Ticket,
        error: &RefreshError,
        lost: bool,
        policy: &Policy,
    ) -> Option<Duration> {
        if !self.is_current(ticket) {
            return None;
        }
        self.failures += 1;
        self.answer_lost |= lost;
        Some(policy.cool_down(self.failures, error))
    }

    /// Notes a flight that ended without a verdict. The error for those who waited.
    pub(crate) fn interrupt(&mut self, ticket: &Ticket, error: Error, now: Moment) -> Error {
        match &self.standing {
            // It was the login hook, which is not called again for this session.
            Standing::Dead { error, .. } => error.clone(),
            _ => {
                self.read_failed(now);
                self.fail(ticket, Duration::from_secs(1), error.clone(), now);
                error
            }
        }
    }

    /// Whether an answer to the current refresh token was lost in an earlier flight.
    pub(crate) fn answer_lost(&self) -> bool {
        self.answer_lost
    }

    /// Declares the session dead. Whether to call the login hook.
    pub(crate) fn die(&mut self, ticket: &Ticket, error: Error, now: Moment) -> bool {
        let is_current = self.is_current(ticket);
        if is_current {
            self.standing = Standing::Dead { error, next_look: now.after(NEXT_LOOK) };
        }
        is_current
    }

    // ---- the user ----

    /// Takes tokens from the user; a flight under way loses.
    pub(crate) fn set(
        &mut self,
        tokens: TokenSet,
        policy: &Policy,
        now: Moment,
    ) -> Result<Arc<Credential>, &'static str> {
        let credential = self.kept(tokens, policy, now)?;
        self.store.first_read = None;
        self.store.is_behind = self.store.exists;
        self.put(Arc::clone(&credential));
        Ok(credential)
    }

    /// Takes the tokens given when the session was built; stored ones will beat them.
    pub(crate) fn start_with(
        &mut self,
        tokens: TokenSet,
        policy: &Policy,
        now: Moment,
    ) -> Result<(), &'static str> {
        let credential = self.kept(tokens, policy, now)?;
        self.put(credential);
        Ok(())
    }

    /// Forgets the tokens; a flight under way loses. The generation of the emptiness.
    pub(crate) fn clear(&mut self) -> Generation {
        self.store.first_read = None;
        self.store.is_behind = self.store.exists;
        self.forget();
        self.generation = self.generation.next();
        self.generation
    }

    /// Notes that the tokens of `generation`, or their absence, were written to the store, or
    /// could not be.
    pub(crate) fn written(
        &mut self,
        generation: Generation,
        tokens: Option<&TokenSet>,
        is_saved: bool,
    ) {
        if is_saved && self.store.exists {
            self.store.seen = tokens.cloned();
        }
        if self.generation == generation {
            self.store.is_behind = self.store.exists && !is_saved;
        }
    }

    // ---- what is known ----

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn credential(&self) -> Option<&Arc<Credential>> {
        self.credential.as_ref()
    }

    /// Whether the store still has to be written.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.store.is_behind
    }

    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.standing, Standing::Dead { .. })
    }

    /// The current token's age; `None` without one.
    pub(crate) fn current_age(&self, now: &Moment) -> Option<Age> {
        self.credential.as_ref().map(|credential| self.age(credential, now))
    }

    /// The end of the refresh token, if it is so near that a person should know. Told once.
    pub(crate) fn login_due(&mut self, policy: &Policy, now: Moment) -> Option<SystemTime> {
        let end = self.credential.as_ref()?.tokens.refresh_expires_at()?;
        let is_news = self.announced_login_due != Some(end);
        let is_due = is_news && left_until(end, &now) <= policy.login_notice;
        is_due.then(|| *self.announced_login_due.insert(end))
    }

    // ---- private ----

    fn kept(
        &self,
        tokens: TokenSet,
        policy: &Policy,
        now: Moment,
    ) -> Result<Arc<Credential>, &'static str> {
        let tokens = learn_ends(tokens, Provenance::Kept, now, policy.read_jwt);
        Credential::new(self.generation.next(), tokens, now, policy).map(Arc::new)
    }

    fn put(&mut self, credential: Arc<Credential>) {
        self.generation = credential.generation;
        self.credential = Some(credential);
        self.rejected = false;
        self.standing = Standing::Good;
        self.failures = 0;
        self.answer_lost = false;
    }

    fn forget(&mut self) {
        self.credential = None;
        self.absence = LoginReason::LoggedOut;
        self.rejected = false;
        self.standing = Standing::Good;
    }

    /// Whether tokens from the store can be sent: alive, and not what was just rejected.
    fn is_usable(&self, kept: &Credential, now: &Moment) -> bool {
        let is_rejected = self.rejected
            && self
                .credential
                .as_ref()
                .is_some_and(|current| current.tokens.access_token() == kept.tokens.access_token());
        !is_rejected && kept.age(now) != Age::Expired
    }
}

impl Store {
    fn is_due(&self, now: Moment) -> bool {
        match &self.first_read {
            None => false,
            Some(FirstRead::AtOnce) => true,
            Some(FirstRead::NotBefore(moment)) => now.reached(moment),
        }
    }

    /// Whether somebody else has written since we last saw it.
    fn has_moved_to(&self, stored: Option<&TokenSet>) -> bool {
        match (&self.seen, stored) {
            (Some(seen), Some(stored)) => !seen.same_tokens(stored),
            // What the user said before anybody looked, and what could not be written, is newer.
            (None, Some(_)) => !self.is_behind,
            (_, None) => false,
        }
    }
}

/// Why these tokens cannot be refreshed without a person.
fn hindrance(tokens: &TokenSet, is_over: bool, policy: &Policy) -> Option<LoginReason> {
    if !policy.needs_refresh_token {
        return None;
    }
    if tokens.refresh_token().is_none() {
        return Some(LoginReason::NoRefreshToken);
    }
    // Clocks differ, and some servers extend what they said: unless told otherwise, ask.
    (policy.trust_refresh_expiry && is_over).then_some(LoginReason::RefreshTokenExpired)
}

#[cfg(test)]
mod tests;
