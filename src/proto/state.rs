//! What a session knows, and every decision that depends on it.
//!
//! A plain value with `&mut self` methods: the session puts it behind a lock and does what it says.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Moment;
use crate::error::{Error, LoginReason};
use crate::proto::credential::{Age, Credential, Provenance, learn_ends};
use crate::proto::policy::{Budget, Policy};
use crate::token::{Generation, TokenSet};

mod flight;
mod request;

pub(crate) use self::flight::{AfterLoad, Cause, Ticket};
pub(crate) use self::request::{AfterRejection, BeforeRequest, Need};

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
    /// What the running flight has read there, if that was news.
    loaded: Option<TokenSet>,
    /// What the running flight has sent.
    sent: Option<TokenSet>,
    /// What was sent for the current tokens: where it is found again, the store has lost them.
    used_up: Option<TokenSet>,
    unwritten: Unwritten,
    /// Whether somebody else has written what nobody here has read: our tokens are used up.
    is_outrun: bool,
    /// What was there when a login was first to be written over it. That seemed to fail.
    tried_over: Option<Option<TokenSet>>,
}

/// What the store does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unwritten {
    Nothing,
    /// A refreshed set: if somebody else writes another one, that is the newer one.
    Refreshed,
    /// What the user said: it counts more than whatever is found there.
    Said,
}

/// What a set may be written over.
#[derive(Debug)]
pub(crate) enum Over {
    Anything,
    /// What was found in the store, and nothing else.
    Found(Option<TokenSet>),
}

#[derive(Clone, Copy, Debug)]
enum FirstRead {
    AtOnce,
    NotBefore(Moment),
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
                loaded: None,
                sent: None,
                used_up: None,
                unwritten: Unwritten::Nothing,
                is_outrun: false,
                tried_over: None,
            },
            announced_login_due: None,
        }
    }

    /// Takes tokens from the user; a flight under way loses.
    pub(crate) fn set(
        &mut self,
        tokens: TokenSet,
        policy: &Policy,
        now: Moment,
    ) -> Result<Arc<Credential>, &'static str> {
        let credential = self.kept(tokens, policy, now)?;
        self.store.overrule();
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
    ///
    /// A login hook may do this as its first step (`by_hook`): that does not make it lose. If
    /// somebody else does it while the hook runs, the hook is not called again for those who wait.
    pub(crate) fn clear(&mut self, by_hook: bool) -> Generation {
        self.store.overrule();
        let is_logging_in =
            self.is_dead() && self.flight.is_some_and(|cause| cause != Cause::Revival);
        if is_logging_in && by_hook {
            self.credential = None;
            return self.generation;
        }
        let standing = std::mem::replace(&mut self.standing, Standing::Good);
        self.forget();
        self.generation = self.generation.next();
        if let Standing::Dead { next_look, .. } = standing
            && is_logging_in
        {
            let error = Error::login_required(LoginReason::LoggedOut);
            self.standing = Standing::Dead { error, next_look };
        }
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
            self.store.loaded = None;
            self.store.tried_over = None;
        } else if let Some(loaded) = self.store.loaded.take() {
            self.store.seen = Some(loaded);
        }
        if self.generation == generation {
            self.store.unwritten = match self.store.unwritten {
                _ if is_saved || !self.store.exists => Unwritten::Nothing,
                Unwritten::Nothing if tokens.is_some_and(TokenSet::is_login) => Unwritten::Said,
                Unwritten::Nothing => Unwritten::Refreshed,
                still => still,
            };
        }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn credential(&self) -> Option<&Arc<Credential>> {
        self.credential.as_ref()
    }

    /// What the current tokens may be written over.
    pub(crate) fn over(&self) -> Over {
        match self.store.unwritten {
            // What could not be written is newer than what was there before anybody looked.
            Unwritten::Refreshed if self.store.first_read.is_some() => Over::Anything,
            _ => self.over_found(self.store.seen.clone()),
        }
    }

    /// What their successors may be written over, where `found` is in the store.
    pub(crate) fn over_found(&self, found: Option<TokenSet>) -> Over {
        match self.store.unwritten {
            Unwritten::Said => Over::Anything,
            Unwritten::Nothing | Unwritten::Refreshed => Over::Found(found),
        }
    }

    /// Notes that a login, that of `generation` or one that follows it, was to be written over what was
    /// `found`, and that nobody knows whether it was.
    pub(crate) fn tried_over(&mut self, generation: Generation, found: Option<TokenSet>) {
        if self.generation == generation {
            self.store.tried_over.get_or_insert(found);
        }
    }

    /// Whether a login may be in the store, though nobody knows it.
    pub(crate) fn has_tried(&self) -> bool {
        self.store.tried_over.is_some()
    }

    /// Whether what is `found` is newer than the login `tokens`: what has followed them; or, where
    /// they may have arrived already, neither what was there before nor what has followed that.
    pub(crate) fn is_newer(&self, found: Option<&TokenSet>, tokens: &TokenSet) -> bool {
        let Some(before) = &self.store.tried_over else {
            return found.is_some_and(|found| found.succeeds(tokens));
        };
        let Some(found) = found else { return before.is_some() };
        let is_of = |set: &TokenSet| found.same_tokens(set) || found.shares_login(set);
        found.succeeds(tokens) || !is_of(tokens) && !before.as_ref().is_some_and(is_of)
    }

    /// Notes that somebody else has written what is newer than the tokens of `generation`, or those
    /// that followed them: the next look will find it.
    pub(crate) fn outrun(&mut self, generation: Generation) {
        if self.generation == generation {
            let seen = self.store.loaded.take().or_else(|| self.store.seen.take());
            // Something is there, though nobody knows what: if that is gone later, it was a logout.
            let ours = || self.credential.as_ref().map(|credential| credential.tokens.clone());
            self.store.seen = seen.or_else(ours);
            self.store.unwritten = Unwritten::Nothing;
            self.store.is_outrun = true;
        }
    }

    /// What the store held when it was last seen, by a flight that came to nothing too: all that is
    /// known while it fails.
    pub(crate) fn last_seen(&self) -> Option<TokenSet> {
        self.store.loaded.clone().or_else(|| self.store.seen.clone())
    }

    /// Whether there is anything to refresh, as far as can be told without the store.
    pub(crate) fn knows_what_to_refresh(&self, policy: &Policy) -> bool {
        let has_looked = self.store.first_read.is_none();
        !self.store.is_outrun
            && (self.credential.is_some() || has_looked || !policy.needs_refresh_token)
    }

    /// Whether the store still has to be written.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.store.unwritten != Unwritten::Nothing
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
        let credential = self.credential.as_ref()?;
        let end = credential.tokens.refresh_expires_at()?;
        let is_news = self.announced_login_due != Some(end);
        // The next occasion to tell it is the next refresh: that may be too late.
        let left = end.duration_since(now.wall).unwrap_or_default();
        let is_due = left <= policy.login_notice.saturating_add(credential.left(&now));
        (is_news && is_due).then(|| *self.announced_login_due.insert(end))
    }

    fn age(&self, credential: &Credential, now: &Moment) -> Age {
        match self.rejected {
            true => Age::Expired,
            false => credential.age(now),
        }
    }

    fn kept(
        &self,
        tokens: TokenSet,
        policy: &Policy,
        now: Moment,
    ) -> Result<Arc<Credential>, &'static str> {
        let tokens = learn_ends(tokens, Provenance::Kept, now, policy);
        Credential::new(self.generation.next(), tokens, now, policy).map(Arc::new)
    }

    fn put(&mut self, credential: Arc<Credential>) {
        self.generation = credential.generation;
        self.credential = Some(credential);
        self.store.used_up = None;
        self.rejected = false;
        self.standing = Standing::Good;
        self.failures = 0;
        self.answer_lost = false;
    }

    fn forget(&mut self) {
        self.credential = None;
        self.absence = LoginReason::LoggedOut;
        self.store.used_up = None;
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

    /// The user has spoken: it has to be written, and what is there does not count any more.
    fn overrule(&mut self) {
        self.first_read = None;
        self.is_outrun = false;
        self.tried_over = None;
        if self.exists {
            self.unwritten = Unwritten::Said;
        }
    }

    /// Whether somebody else has written since we last saw it.
    fn has_moved_to(&self, stored: Option<&TokenSet>) -> bool {
        match (&self.seen, stored) {
            _ if self.unwritten == Unwritten::Said || self.has_gone_back_to(stored) => false,
            (Some(seen), Some(stored)) => !seen.same_tokens(stored),
            // What could not be written is newer than what was there before anybody looked.
            (None, Some(_)) => self.unwritten == Unwritten::Nothing,
            (_, None) => false,
        }
    }

    /// Whether a flight has read this already, and could do nothing with it.
    fn was_loaded(&self, stored: Option<&TokenSet>) -> bool {
        let loaded = self.loaded.as_ref();
        loaded.zip(stored).is_some_and(|(loaded, stored)| loaded.same_tokens(stored))
    }

    /// Whether it has lost what was saved last, as by a failover.
    fn has_gone_back_to(&self, stored: Option<&TokenSet>) -> bool {
        let used_up = self.used_up.as_ref();
        used_up.zip(stored).is_some_and(|(used_up, stored)| used_up.same_tokens(stored))
    }

    /// The current tokens have to be written again, over what is `stored`.
    fn go_back_to(&mut self, stored: Option<TokenSet>) {
        self.seen = stored;
        if self.unwritten == Unwritten::Nothing {
            self.unwritten = Unwritten::Refreshed;
        }
    }

    /// Whether somebody else has logged out.
    fn was_cleared(&self, stored: Option<&TokenSet>) -> bool {
        stored.is_none() && self.seen.is_some() && self.unwritten != Unwritten::Said
    }
}

#[cfg(test)]
mod tests;
