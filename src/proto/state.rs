//! What a session knows, and every decision that depends on it.
//!
//! A plain value with `&mut self` methods: the session puts it behind a lock and does what it says.

use std::sync::{Arc, LazyLock};
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
    /// Whether there was a credential, if there is none.
    is_logged_out: bool,
    /// Whether the API refused the current credential.
    rejected: bool,
    flight: Option<Cause>,
    store: Store,
    past: Option<Box<Past>>,
}

/// What flights have left. A session that has not needed one does without.
#[derive(Debug, Default)]
struct Past {
    /// None: good.
    standing: Option<Box<Standing>>,
    failures: usize,
    /// Whether an answer to the current refresh token was lost.
    answer_lost: bool,
    budget: Budget,
    rejection_budget: Budget,
    /// What the running flight has read in the store, if that was news.
    loaded: Option<TokenSet>,
    /// What the running flight has sent.
    sent: Option<TokenSet>,
    /// What was sent for the current tokens: where it is found again, the store has lost them.
    used_up: Option<TokenSet>,
    /// What the store held when a login was first to be written over it. That seemed to fail.
    tried_over: Option<Option<TokenSet>>,
    /// When to try again to read the store for the first time.
    next_first_read: Option<Box<Moment>>,
    announced_login_due: Option<SystemTime>,
}

static NO_PAST: LazyLock<Past> = LazyLock::new(Past::default);

/// Why a refresh may not be tried.
#[derive(Debug)]
enum Standing {
    CoolingDown { until: Moment, error: Error },
    Dead { error: Error, next_look: Moment },
}

/// What is known about the store.
#[derive(Debug)]
struct Store {
    exists: bool,
    /// Whether it has to be read for the first time.
    is_unread: bool,
    /// What it held when it was last seen.
    seen: Option<TokenSet>,
    unwritten: Unwritten,
    /// Whether somebody else has written what nobody here has read: our tokens are used up.
    is_outrun: bool,
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

impl State {
    /// How many bytes the first flight adds.
    #[cfg(test)]
    pub(crate) const PAST: usize = size_of::<Past>();

    pub(crate) fn new(has_store: bool) -> Self {
        Self {
            generation: Generation::default(),
            credential: None,
            is_logged_out: false,
            rejected: false,
            flight: None,
            store: Store {
                exists: has_store,
                is_unread: has_store,
                seen: None,
                unwritten: Unwritten::Nothing,
                is_outrun: false,
            },
            past: None,
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
        self.forget_tries();
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
        self.forget_tries();
        let is_logging_in =
            self.is_dead() && self.flight.is_some_and(|cause| cause != Cause::Revival);
        if is_logging_in && by_hook {
            self.credential = None;
            return self.generation;
        }
        let standing = self.past.as_mut().and_then(|past| past.standing.take());
        self.forget();
        self.generation = self.generation.next();
        if let Some(&Standing::Dead { next_look, .. }) = standing.as_deref()
            && is_logging_in
        {
            let error = Error::login_required(LoginReason::LoggedOut);
            self.stand(Standing::Dead { error, next_look });
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
        let loaded = self.take_loaded();
        if is_saved && self.store.exists {
            self.store.seen = tokens.cloned();
            self.forget_tries();
        } else if loaded.is_some() {
            self.store.seen = loaded;
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
            Unwritten::Refreshed if self.store.is_unread => Over::Anything,
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
            self.past_mut().tried_over.get_or_insert(found);
        }
    }

    /// Whether a login may be in the store, though nobody knows it.
    pub(crate) fn has_tried(&self) -> bool {
        self.past().tried_over.is_some()
    }

    /// Whether what is `found` is newer than the login `tokens`: what has followed them; or, where
    /// they may have arrived already, neither what was there before nor what has followed that.
    pub(crate) fn is_newer(&self, found: Option<&TokenSet>, tokens: &TokenSet) -> bool {
        let Some(before) = &self.past().tried_over else {
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
            let seen = self.take_loaded().or_else(|| self.store.seen.take());
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
        self.past().loaded.clone().or_else(|| self.store.seen.clone())
    }

    /// Whether there is anything to refresh, as far as can be told without the store.
    pub(crate) fn knows_what_to_refresh(&self, policy: &Policy) -> bool {
        let has_looked = !self.store.is_unread;
        !self.store.is_outrun
            && (self.credential.is_some() || has_looked || !policy.needs_refresh_token)
    }

    /// Whether a session that begins anew, without a store, comes to the same: it has neither a login
    /// to lose nor a logout.
    pub(crate) fn can_be_had_again(&self, policy: &Policy) -> bool {
        match &self.credential {
            Some(credential) => {
                !policy.needs_refresh_token && credential.tokens.refresh_token().is_none()
            }
            None => !self.is_logged_out,
        }
    }

    /// Whether the store still has to be written.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.store.unwritten != Unwritten::Nothing
    }

    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.standing(), Some(Standing::Dead { .. }))
    }

    /// Whether the server is left alone for now.
    pub(crate) fn is_cooling_down(&self, now: &Moment) -> bool {
        let standing = self.standing();
        matches!(standing, Some(Standing::CoolingDown { until, .. }) if !now.reached(until))
    }

    /// The current token's age; `None` without one.
    pub(crate) fn current_age(&self, now: &Moment) -> Option<Age> {
        self.credential.as_ref().map(|credential| self.age(credential, now))
    }

    /// The end of the refresh token, if it is so near that a person should know. Told once.
    pub(crate) fn login_due(&mut self, policy: &Policy, now: Moment) -> Option<SystemTime> {
        let credential = self.credential.as_ref()?;
        let end = credential.tokens.refresh_expires_at()?;
        let is_news = self.past().announced_login_due != Some(end);
        // The next occasion to tell it is the next refresh: that may be too late.
        let left = end.duration_since(now.wall).unwrap_or_default();
        let is_due = left <= policy.login_notice.saturating_add(credential.left(&now));
        (is_news && is_due).then(|| *self.past_mut().announced_login_due.insert(end))
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
        if let Some(past) = &mut self.past {
            past.used_up = None;
            past.standing = None;
            past.failures = 0;
            past.answer_lost = false;
        }
    }

    fn forget(&mut self) {
        self.credential = None;
        self.is_logged_out = true;
        self.rejected = false;
        if let Some(past) = &mut self.past {
            past.used_up = None;
            past.standing = None;
        }
    }

    fn past(&self) -> &Past {
        self.past.as_deref().unwrap_or(&NO_PAST)
    }

    fn past_mut(&mut self) -> &mut Past {
        self.past.get_or_insert_default()
    }

    fn standing(&self) -> Option<&Standing> {
        self.past().standing.as_deref()
    }

    fn stand(&mut self, standing: Standing) {
        self.past_mut().standing = Some(Box::new(standing));
    }

    fn forget_tries(&mut self) {
        if let Some(past) = &mut self.past {
            past.tried_over = None;
        }
    }

    fn take_loaded(&mut self) -> Option<TokenSet> {
        self.past.as_mut()?.loaded.take()
    }

    /// Whether tokens from the store are what a refresh was wanted for: alive, and with another
    /// access token than the current one.
    fn is_usable(&self, kept: &Credential, now: &Moment) -> bool {
        let is_another = self
            .credential
            .as_ref()
            .is_none_or(|current| current.tokens.access_token() != kept.tokens.access_token());
        is_another && kept.age(now) != Age::Expired
    }

    /// Whether the store has to be read for the first time, and may be.
    fn is_first_read_due(&self, now: Moment) -> bool {
        let next = self.past().next_first_read.as_deref();
        self.store.is_unread && next.is_none_or(|next| now.reached(next))
    }

    /// Whether somebody else has written to the store since we last saw it.
    fn has_moved_to(&self, stored: Option<&TokenSet>) -> bool {
        let store = &self.store;
        match (&store.seen, stored) {
            _ if store.unwritten == Unwritten::Said || self.has_gone_back_to(stored) => false,
            (Some(seen), Some(stored)) => !seen.same_tokens(stored),
            // What could not be written is newer than what was there before anybody looked.
            (None, Some(_)) => store.unwritten == Unwritten::Nothing,
            (_, None) => false,
        }
    }

    /// Whether a flight has read this already, and could do nothing with it.
    fn was_loaded(&self, stored: Option<&TokenSet>) -> bool {
        let loaded = self.past().loaded.as_ref();
        loaded.zip(stored).is_some_and(|(loaded, stored)| loaded.same_tokens(stored))
    }

    /// Whether the store has lost what was saved last, as by a failover.
    fn has_gone_back_to(&self, stored: Option<&TokenSet>) -> bool {
        let used_up = self.past().used_up.as_ref();
        used_up.zip(stored).is_some_and(|(used_up, stored)| used_up.same_tokens(stored))
    }
}

impl Store {
    /// The user has spoken: it has to be written, and what is there does not count any more.
    fn overrule(&mut self) {
        self.is_unread = false;
        self.is_outrun = false;
        if self.exists {
            self.unwritten = Unwritten::Said;
        }
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
