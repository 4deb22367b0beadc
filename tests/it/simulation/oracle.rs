//! Who sees everything, at the edges: what was sent, answered, saved and asked; and knows what must
//! never be. An exception that the contract makes stands beside the rule, as narrow as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest_refresh::TokenSet;

use crate::simulation::machine::{Machine, Stamp};
use crate::simulation::plan::AccountPlan;
use crate::simulation::server::{At, Family, Rt, Server, number};

mod login;
mod refreshing;
mod requests;
mod user;

pub use self::requests::{Outcome, RequestId, Told};

/// One session of one process; after a crash there is another one.
pub type SessionId = usize;

/// A moment in the order of events.
pub type Tick = u64;

#[derive(Default)]
pub struct Oracle {
    ticks: Tick,
    sessions: BTreeMap<SessionId, Facts>,
    requests: BTreeMap<RequestId, requests::Request>,
    /// When a token came into a store for the first time.
    saved: BTreeMap<Rt, Tick>,
    saved_access: BTreeMap<At, Tick>,
    /// Whose tokens each account's store holds.
    stored: BTreeMap<usize, Option<Family>>,
    /// What came into a store again over another login: who saved it had not been told that it had
    /// arrived before.
    brought_back: BTreeSet<Rt>,
    /// How often a session has failed to save what it had got.
    unsaved: BTreeMap<(SessionId, At), Unsaved>,
    violation: Option<String>,
}

#[derive(Default)]
struct Unsaved {
    failures: u32,
    is_given_up: bool,
}

/// What is known of a session.
pub struct Facts {
    pub process: usize,
    pub account: usize,
    pub has_store: bool,
    /// Whether it refreshes although the store fails.
    pub is_risky: bool,
    pub machine: Arc<Machine>,
    pub is_gone: bool,
    access: BTreeMap<At, Access>,
    refresh: BTreeSet<Rt>,
    in_flight: u32,
    /// When it last sent its refresh token.
    attempted: Option<Duration>,
    lease: Option<LeaseFacts>,
    /// What the API has refused it.
    rejected: BTreeSet<At>,
    /// How many callers demand a new token, and whether one has since the last.
    forcing: u32,
    was_forced: bool,
    failure: Option<Failure>,
    series: u32,
    successes: Vec<Duration>,
    /// What the server has called dead.
    dead: BTreeSet<Rt>,
    refused: Option<Tick>,
    looked: Tick,
    was_asked: bool,
    spoken: Option<Spoken>,
    /// Whether its hook has logged in, and it does not know yet that this is in the store.
    pub has_hooked: bool,
}

/// What a session knows of an access token's end.
struct Access {
    /// Since when requests get it without having waited for it, as far as can be seen.
    since: Option<Tick>,
    refresh: Option<Rt>,
    wall_end: Option<SystemTime>,
    /// On the monotonic clock: not before, and not after.
    ends: Option<(Duration, Duration)>,
    lifetime: Duration,
    times_set_back: u64,
}

struct LeaseFacts {
    number: u64,
    end: Option<Stamp>,
    loaded: Option<Tick>,
    has_failed: bool,
}

/// When the last attempt failed, and for how long there must be no other.
struct Failure {
    at: Stamp,
    pause: Duration,
    times_set_back: u64,
}

/// The user's last word at a session.
struct Spoken {
    at: Tick,
    /// What must not come back.
    forgotten: BTreeSet<Family>,
    /// Whether it is in the store, and whether the session knows.
    is_written: bool,
    is_saved: bool,
    /// Whether it was tried to write it, and nobody knows whether it was.
    has_failed: bool,
}

impl Oracle {
    /// The first promise that was broken.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub fn violated(&mut self, promise: &str, how: impl Into<String>) {
        let how = how.into();
        self.violation.get_or_insert_with(|| format!("{promise}: {how}"));
    }

    fn require(&mut self, is_kept: bool, promise: &str, how: impl FnOnce() -> String) {
        if !is_kept {
            self.violated(promise, how());
        }
    }

    pub fn tick(&mut self) -> Tick {
        self.ticks += 1;
        self.ticks
    }

    pub fn begins(
        &mut self,
        session: SessionId,
        process: usize,
        account: usize,
        plan: &AccountPlan,
        machine: &Arc<Machine>,
    ) {
        let facts = Facts {
            process,
            account,
            has_store: plan.store.is_some(),
            is_risky: plan.is_risky,
            machine: Arc::clone(machine),
            is_gone: false,
            access: BTreeMap::new(),
            refresh: BTreeSet::new(),
            in_flight: 0,
            attempted: None,
            lease: None,
            rejected: BTreeSet::new(),
            forcing: 0,
            was_forced: false,
            failure: None,
            series: 0,
            successes: Vec::new(),
            dead: BTreeSet::new(),
            refused: None,
            looked: 0,
            was_asked: false,
            spoken: None,
            has_hooked: false,
        };
        self.sessions.insert(session, facts);
    }

    /// Its process has died.
    pub fn dies(&mut self, session: SessionId) {
        self.facts(session).is_gone = true;
    }

    pub fn facts(&mut self, session: SessionId) -> &mut Facts {
        self.sessions.get_mut(&session).expect("a session that has begun")
    }

    /// A session has got to know tokens; `start` is from when a lifetime counts.
    pub fn learns(&mut self, session: SessionId, tokens: &TokenSet, start: Stamp) {
        let facts = self.facts(session);
        let now = facts.machine.now();
        let at = number(tokens.access_token());
        let rt = tokens.refresh_token().map(number);
        let lifetime = tokens.expires_in();
        let wall_end = tokens.expires_at().or_else(|| Some(start.wall + lifetime?));
        let ends = wall_end.map(|end| {
            let left = end.duration_since(now.wall).unwrap_or_default();
            let whole = lifetime.unwrap_or(left);
            (start.mono + left.min(whole), now.mono + whole)
        });
        let is_news =
            !facts.access.contains_key(&at) || rt.is_some_and(|rt| !facts.refresh.contains(&rt));
        if is_news {
            let refused = facts.refused;
            facts.is_renewed();
            // What was refused still is, whatever access token comes with it.
            facts.refused = refused.filter(|_| rt.is_some_and(|rt| facts.refresh.contains(&rt)));
        }
        facts.refresh.extend(rt);
        let times_set_back = facts.machine.times_set_back();
        let known = facts.access.entry(at).or_insert_with(|| Access {
            since: None,
            refresh: rt,
            wall_end,
            ends,
            lifetime: lifetime.unwrap_or_default(),
            times_set_back,
        });
        known.refresh = rt;
        known.ends = match (known.ends, ends) {
            (Some((first, last)), Some((other_first, other_last))) => {
                Some((first.min(other_first), last.max(other_last)))
            }
            (known, new) => known.or(new),
        };
    }

    /// A session has told that it has new tokens: whoever asks from now on has not waited for them.
    pub fn is_told_of_tokens(&mut self, session: SessionId) {
        let tick = self.tick();
        for access in self.facts(session).access.values_mut() {
            access.since.get_or_insert(tick);
        }
    }

    /// The user sets tokens or forgets them: what was known before must not come back.
    pub fn user_speaks(&mut self, session: SessionId, server: &Server) -> Tick {
        let tick = self.tick();
        let facts = self.facts(session);
        let families = facts.access.keys().map(|at| server.family_of_access(*at));
        let forgotten = families.collect();
        let is_saved = !facts.has_store;
        facts.spoken =
            Some(Spoken { at: tick, forgotten, is_written: is_saved, is_saved, has_failed: false });
        facts.is_renewed();
        tick
    }
}

impl Facts {
    /// Something is new: a refresh may be tried again, and somebody asked to log in again.
    fn is_renewed(&mut self) {
        self.failure = None;
        self.series = 0;
        self.was_asked = false;
        self.refused = None;
    }

    /// Whether the session can believe that its lease lives.
    fn holds_lease(&self) -> bool {
        let now = self.machine.now();
        self.lease.as_ref().is_some_and(|lease| lease.end.is_none_or(|end| !now.reached(&end)))
    }
}
