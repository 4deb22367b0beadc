use std::sync::Arc;
use std::time::Duration;

use reqwest_refresh::{RefreshError, RefreshFailure, TokenSet};

use crate::simulation::machine::Stamp;
use crate::simulation::oracle::{Access, Facts, Failure, Oracle, SessionId, Unsaved};
use crate::simulation::server::{At, Family, Redeemed, Rt, Server, number, refresh_token};
use crate::simulation::world::{Actor, World};

const SECOND: Duration = Duration::from_secs(1);
/// How long a refresh may take, all its attempts together.
const DEADLINE: Duration = Duration::from_secs(30);

/// A token request, until it is answered or nobody waits for it.
pub struct Attempt {
    world: Arc<World>,
    session: SessionId,
    sent: Rt,
    family: Family,
    start: Stamp,
    /// When the attempt before it was made: perhaps by the same refresh.
    previous: Option<Duration>,
    is_over: bool,
}

impl World {
    /// A session sends its refresh token.
    pub fn sends_refresh_token(self: &Arc<Self>, session: SessionId, set: &TokenSet) -> Attempt {
        let (at, rt) =
            (number(set.access_token()), number(set.refresh_token().unwrap_or_default()));
        self.note(format_args!("s{session}: token request with rt-{rt} (for at-{at})"));
        let shares = self.plan.accounts[self.oracle().facts(session).account].excludes();
        let server = self.server();
        let mut oracle = self.oracle();
        oracle.sends(session, at, rt, shares, &server);
        let family = server.family_of(rt);
        drop(server);
        let start = oracle.facts(session).machine.now();
        let previous = oracle.facts(session).attempted.replace(start.mono);
        let world = Arc::clone(self);
        Attempt { world, session, sent: rt, family, start, previous, is_over: false }
    }

    /// The server has decided about a refresh token.
    pub fn server_has_redeemed(&self, sent: Rt, redeemed: Redeemed) {
        if redeemed == Redeemed::Reused {
            self.note(format_args!("server: rt-{sent} was used before: the session is over"));
        }
    }
}

impl Attempt {
    /// The answer has come; the server has asked for this pause, given this refresh token, or has
    /// really refused the one that was sent.
    pub fn ends(
        mut self,
        result: &Result<TokenSet, RefreshError>,
        wish: Option<Duration>,
        gave: Option<Rt>,
        refuses: bool,
    ) {
        self.is_over = true;
        let (world, session) = (&self.world, self.session);
        let mut oracle = world.oracle();
        let facts = oracle.facts(session);
        facts.in_flight -= 1;
        match result {
            Ok(tokens) => {
                world.note(format_args!("s{session}: gets at-{}", number(tokens.access_token())));
                facts.has_refreshed();
                oracle.receives(session, tokens, self.sent, self.start);
            }
            Err(error) => {
                world.note(format_args!("s{session}: {:?}, {error}", error.failure()));
                match error.failure() {
                    RefreshFailure::Terminal => {
                        oracle.require(refuses, "K-34", || {
                            format!("s{session} takes for dead what nobody has refused: {error}")
                        });
                        oracle.is_refused(session, self.sent);
                    }
                    failure => {
                        let facts = oracle.facts(session);
                        facts.fails(self.family, pause_after(failure, wish));
                        facts.refresh.extend(gave);
                    }
                }
                oracle.require(!format!("{error} {error:?}").contains("cnry-"), "K-63", || {
                    "a refresh error quotes a token".to_owned()
                });
            }
        }
    }
}

impl Drop for Attempt {
    /// K-21: the refresh goes on when a caller goes away; it ends by its own deadline, or with its
    /// process.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let actor = self.world.actor();
        let mut oracle = self.world.oracle();
        oracle.require(matches!(actor, Actor::Task | Actor::Crash), "K-21", || {
            format!("a refresh of s{} was dropped by {actor:?}", self.session)
        });
        let facts = oracle.facts(self.session);
        facts.in_flight -= 1;
        facts.fails(self.family, SECOND / 5);
        let now = facts.machine.now().mono;
        let is_late = now >= self.start.mono + DEADLINE;
        let is_second = self.previous.is_some_and(|start| now < start + 2 * DEADLINE);
        oracle.require(actor == Actor::Crash || is_late || is_second, "K-21", || {
            format!("a refresh of s{} was dropped before its time", self.session)
        });
    }
}

impl Oracle {
    /// K-25: a login counts more than another one in the store, or none, as long as the session does
    /// not know that it is there. If it has been there after all, was refreshed elsewhere, and that
    /// was followed by another login or a logout, nobody can tell.
    pub(super) fn insists_on(&self, session: SessionId, rt: Rt, server: &Server) -> bool {
        let Some(facts) = self.sessions.get(&session) else { return false };
        let stored = self.stored.get(&facts.account);
        facts.has_unsaved_login()
            && self.saved.contains_key(&rt)
            && stored.is_some_and(|stored| *stored != Some(server.family_of(rt)))
    }

    fn sends(&mut self, session: SessionId, at: At, rt: Rt, excludes: bool, server: &Server) {
        let in_flight = self.facts(session).in_flight;
        self.require(in_flight == 0, "K-20", || format!("s{session} refreshes twice at once"));
        if !self.brought_back.contains(&rt) && !self.insists_on(session, rt, server) {
            self.sends_nothing_superseded(session, rt, server);
            self.sends_under_the_lock(session, rt, excludes, server);
        }
        self.keeps_the_pause(session);
        self.has_a_reason(session, at);
        let is_dead = self.facts(session).dead.contains(&rt);
        self.require(!is_dead, "K-50", || format!("s{session} sends rt-{rt}, which is dead"));
        let facts = self.facts(session);
        facts.in_flight += 1;
        let now = facts.machine.now().mono;
        facts.successes.retain(|success| now - *success < 30 * SECOND);
        let successes = facts.successes.len();
        self.require(successes <= 25, "K-26", || format!("s{session} refreshes without end"));
    }

    /// K-32, K-60: whoever knows a successor, from the server or from the store, does not send what
    /// it was got for.
    fn sends_nothing_superseded(&mut self, session: SessionId, rt: Rt, server: &Server) {
        let known = self.facts(session).refresh.clone();
        let successor = known.into_iter().find(|known| server.follows(*known, rt));
        self.require(successor.is_none(), "K-32", || {
            format!("s{session} sends rt-{rt} and knows rt-{}", successor.unwrap_or_default())
        });
    }

    /// K-61: under the lock, after another look into the store, and nothing that had a successor in
    /// the store at that look. Where the lock ends by itself, as far as its holder can know.
    ///
    /// Who was told to refresh without the store may, while the store fails.
    fn sends_under_the_lock(
        &mut self,
        session: SessionId,
        rt: Rt,
        excludes: bool,
        server: &Server,
    ) {
        let facts = self.facts(session);
        let risks = facts.is_risky && facts.lease.as_ref().is_none_or(|lease| lease.has_failed);
        if !facts.has_store || risks {
            return;
        }
        let (account, is_held) = (facts.account, facts.holds_lease());
        let loaded = facts.lease.as_ref().and_then(|lease| lease.loaded);
        self.require(is_held, "K-61", || format!("s{session} sends rt-{rt} without the lock"));
        let Some(loaded) = loaded else {
            return self.violated("K-61", format!("s{session} sends rt-{rt} without a look"));
        };
        let early = self
            .saved
            .iter()
            .find(|(saved, since)| **since < loaded && server.follows(**saved, rt));
        let early = early.map(|(rt, _)| *rt);
        self.require(early.is_none(), "K-61", || {
            format!("s{session} sends rt-{rt}; rt-{} was stored", early.unwrap_or_default())
        });
        let others = self
            .sessions
            .values()
            .filter(|facts| facts.account == account && !facts.is_risky && facts.in_flight > 0);
        let others = others.count();
        self.require(!excludes || others == 0, "K-61", || {
            format!("s{session} sends rt-{rt} while another session refreshes")
        });
    }

    /// K-34, K-35: after a failure there is a pause, and the server's own wish is obeyed; five
    /// attempts never follow each other closely.
    fn keeps_the_pause(&mut self, session: SessionId) {
        let facts = self.facts(session);
        let now = facts.machine.now();
        let Some(failure) = &facts.failure else { return };
        // It may have been over before the wall clock was set back.
        let may_be_over = failure.times_set_back != facts.machine.times_set_back();
        let (passed, pause) = (now.since(&failure.at), failure.pause);
        facts.series = if passed < SECOND { facts.series + 1 } else { 0 };
        let series = facts.series;
        self.require(passed >= pause || may_be_over, "K-35", || {
            format!("s{session} asks again after {passed:?}, not after {pause:?}")
        });
        self.require(series < 4, "K-35", || format!("s{session} asks again and again"));
    }

    /// K-22: nobody refreshes a token that is fresh, was not rejected, and is good enough for
    /// everybody. A wall clock that was set back makes fresh again what was stale.
    fn has_a_reason(&mut self, session: SessionId, at: At) {
        let facts = self.facts(session);
        let now = facts.machine.now();
        let is_forced = facts.forcing > 0 || facts.was_forced;
        let is_rejected = facts.rejected.contains(&at);
        let set_back = facts.machine.times_set_back();
        let is_stale = |access: &Access| access.times_set_back != set_back || access.is_stale(&now);
        let has_reason = is_forced || is_rejected || facts.access.get(&at).is_none_or(is_stale);
        self.require(has_reason, "K-22", || format!("s{session} refreshes at-{at} in vain"));
    }

    /// A refresh has brought tokens.
    fn receives(&mut self, session: SessionId, tokens: &TokenSet, sent: Rt, start: Stamp) {
        let at = number(tokens.access_token());
        let whole = match tokens.refresh_token() {
            Some(_) => tokens.clone(),
            None => {
                let sent = refresh_token(sent);
                tokens.clone().with_refresh_token(sent)
            }
        };
        self.learns(session, &whole, start);
        if self.facts(session).has_store {
            self.unsaved.insert((session, at), Unsaved::default());
        }
    }

    /// The server has really said that it is dead. Who has lost its lease meanwhile may look again,
    /// and ask again.
    fn is_refused(&mut self, session: SessionId, rt: Rt) {
        let tick = self.tick();
        let facts = self.facts(session);
        facts.refused = Some(tick);
        facts.failure = None;
        if facts.lease.is_none() || facts.holds_lease() {
            facts.dead.insert(rt);
        }
    }
}

/// How long nobody asks again, at least (the table at `RefreshFailure`).
fn pause_after(failure: RefreshFailure, wish: Option<Duration>) -> Duration {
    let least = match failure {
        RefreshFailure::Configuration => 600 * SECOND,
        RefreshFailure::Unusable => SECOND,
        _ => SECOND / 5,
    };
    least.max(wish.unwrap_or_default())
}

impl Facts {
    /// Whether somebody has logged in here, and the session does not know that it is in the store.
    pub(super) fn has_unsaved_login(&self) -> bool {
        self.has_hooked || self.spoken.as_ref().is_some_and(|spoken| !spoken.is_saved)
    }

    fn has_refreshed(&mut self) {
        self.successes.push(self.machine.now().mono);
        self.was_forced = false;
        self.failure = None;
        self.series = 0;
    }

    /// A flight that has lost against the user does not count, though it may go on for a while.
    fn fails(&mut self, family: Family, pause: Duration) {
        if self.spoken.as_ref().is_some_and(|spoken| spoken.forgotten.contains(&family)) {
            return;
        }
        let times_set_back = self.machine.times_set_back();
        self.failure = Some(Failure { at: self.machine.now(), pause, times_set_back });
    }
}

impl Access {
    /// Whether a refresh window may be open: 60 seconds at most, half of the lifetime at most.
    fn is_stale(&self, now: &Stamp) -> bool {
        let window = (60 * SECOND).min(self.lifetime / 2);
        let by_wall = self.wall_end.is_some_and(|end| now.wall + window >= end);
        by_wall || self.ends.is_some_and(|(end, _)| now.mono + window >= end)
    }

    /// Whether it is over on one of the clocks.
    pub(super) fn is_over(&self, now: &Stamp) -> bool {
        let by_wall = self.wall_end.is_some_and(|end| now.wall >= end);
        by_wall || self.ends.is_some_and(|(_, end)| now.mono >= end)
    }
}
