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
    /// Whether the credential is newer than what was written.
    is_behind: bool,
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
                is_behind: false,
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

#[cfg(test)]
mod tests;
