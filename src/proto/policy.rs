//! The settings by which a session decides, and the decisions that need no memory.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::clock::Moment;
use crate::error::{RefreshError, RefreshFailure};

/// A server is not left alone for longer than this, whatever it says.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The settings by which a session decides: rules, which it may share with others, and a place of
/// its own.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) rules: Arc<Rules>,
    /// This session's own place within the jitter, 0 to 1; stable for its life (K-13).
    pub(crate) place: f64,
}

/// What sessions decide alike.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) refresh_window: Duration,
    /// The part of the window by which sessions differ, 0 to 1.
    pub(crate) jitter: f64,
    pub(crate) minimum_age: Duration,
    pub(crate) budget: Limit,
    pub(crate) rejection_budget: Limit,
    pub(crate) login_notice: Duration,
    pub(crate) read_jwt: bool,
    pub(crate) default_lifetime: Option<Duration>,
    pub(crate) trust_refresh_expiry: bool,
    /// Whether a refresh needs a refresh token at all.
    pub(crate) needs_refresh_token: bool,
    /// Whether a refresh ends the old access token at once.
    pub(crate) refresh_revokes_access_token: bool,
}

impl Deref for Policy {
    type Target = Rules;

    fn deref(&self) -> &Rules {
        &self.rules
    }
}

impl Policy {
    /// For how long before its end a token of this lifetime is stale.
    ///
    /// At most half of the lifetime, so that a token is fresh for a while however short it lives:
    /// a window as long as the lifetime would refresh at every request.
    pub(crate) fn window(&self, lifetime: Duration) -> Duration {
        let window = self.refresh_window.min(lifetime / 2);
        window.mul_f64(1.0 - self.jitter * self.place)
    }

    /// How long everybody leaves the server alone after the `failures`th failure in a row.
    pub(crate) fn cool_down(
        &self,
        failures: usize,
        failure: RefreshFailure,
        retry_after: Option<Duration>,
    ) -> Duration {
        if failure == RefreshFailure::Configuration {
            // A wrong password that is repeated locks a digiRunner client.
            return Duration::from_secs(600);
        }
        let mut backoff = ExponentialBuilder::new()
            .without_max_times()
            .with_jitter()
            .with_jitter_seed(self.seed())
            .build();
        let own = backoff.nth(failures.saturating_sub(1).min(16)).unwrap_or(LONGEST_PAUSE);
        own.max(retry_after.unwrap_or_default()).min(LONGEST_PAUSE)
    }

    /// The attempts of one refresh.
    pub(crate) fn attempts(&self) -> Attempts {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .with_jitter()
            .with_jitter_seed(self.seed())
            .build();
        Attempts { made: 0, lost: false, backoff }
    }

    fn seed(&self) -> u64 {
        self.place.to_bits()
    }
}

/// The attempts of one refresh so far. See the table at [`RefreshFailure`].
pub(crate) struct Attempts {
    made: u32,
    pub(crate) lost: bool,
    backoff: ExponentialBackoff,
}

/// What to do after an attempt failed.
#[derive(Debug, PartialEq)]
pub(crate) enum AfterFailure {
    GiveUp,
    TryAgainIn(Duration),
}

impl Attempts {
    /// What to do after `error`, with `left` until the refresh as a whole is over.
    pub(crate) fn after_failure(&mut self, error: &RefreshError, left: Duration) -> AfterFailure {
        self.made += 1;
        let had_lost = self.lost;
        self.lost |= error.failure() == RefreshFailure::Lost;
        let may_retry = match error.failure() {
            // A new refresh token came with it: the one that was sent is used up.
            _ if error.refresh_token.is_some() => false,
            // The refresh token cannot have been used up.
            RefreshFailure::Busy | RefreshFailure::NotSent => self.made < 3,
            // It can. Servers with a grace period accept it once more, if it comes quickly; with
            // the others nothing is lost that was not lost already.
            RefreshFailure::Lost => !had_lost,
            _ => false,
        };
        let delay = self.backoff.next().unwrap_or_default();
        let delay = delay.max(error.retry_after.unwrap_or_default());
        match may_retry && delay < left {
            true => AfterFailure::TryAgainIn(delay),
            false => AfterFailure::GiveUp,
        }
    }
}

/// At most so many refreshes within so much time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) refreshes: usize,
    pub(crate) within: Duration,
}

/// What of a [`Limit`] is used up: a sliding window.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    spent: Box<[Moment]>,
}

impl Budget {
    /// How long there is nothing left to spend; `None` if there is something now.
    pub(crate) fn exhausted_for(&self, limit: Limit, now: Moment) -> Option<Duration> {
        let live = || self.spent.iter().filter(|spent| !now.reached(&spent.after(limit.within)));
        let first_that_matters = live().count().checked_sub(limit.refreshes)?;
        Some(match live().nth(first_that_matters) {
            Some(spent) => now.until(&spent.after(limit.within)),
            None => limit.within, // a limit of none
        })
    }

    /// Notes a refresh.
    pub(crate) fn spend(&mut self, limit: Limit, now: Moment) {
        let live = |spent: &Moment| !now.reached(&spent.after(limit.within));
        self.spent = self.spent.iter().copied().filter(live).chain([now]).collect();
    }

    /// Takes the last one back: it came to nothing, and a cool-down follows it.
    pub(crate) fn refund(&mut self) {
        if let Some((_, earlier)) = self.spent.split_last() {
            self.spent = earlier.into();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::ops::DerefMut;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock, ManualClock};

    const SECOND: Duration = Duration::from_secs(1);

    /// Without jitter; two refreshes within half a minute.
    pub(crate) fn policy() -> Policy {
        let limit = Limit { refreshes: 2, within: 30 * SECOND };
        let rules = Rules {
            refresh_window: 60 * SECOND,
            jitter: 0.0,
            minimum_age: Duration::ZERO,
            budget: limit,
            rejection_budget: limit,
            login_notice: Duration::ZERO,
            read_jwt: true,
            default_lifetime: None,
            trust_refresh_expiry: false,
            needs_refresh_token: true,
            refresh_revokes_access_token: false,
        };
        Policy { rules: Arc::new(rules), place: 0.0 }
    }

    impl DerefMut for Policy {
        fn deref_mut(&mut self) -> &mut Rules {
            Arc::make_mut(&mut self.rules)
        }
    }

    #[test]
    fn k_35_what_may_be_retried_is_a_table() {
        use AfterFailure::GiveUp;
        use RefreshFailure::{Busy, Configuration, Lost, NotSent, Terminal, Unusable};
        for (case, failures, retried) in [
            ("no connection", &[NotSent, NotSent, NotSent][..], &[true, true, false][..]),
            ("busy", &[Busy, Busy, Busy], &[true, true, false]),
            ("lost", &[Lost, Lost], &[true, false]),
            ("lost, then no connection", &[Lost, NotSent, Lost], &[true, true, false]),
            ("no connection, then lost", &[NotSent, Lost, Lost], &[true, true, false]),
            ("nonsense", &[Unusable], &[false]),
            ("configuration", &[Configuration], &[false]),
            ("terminal", &[Terminal], &[false]),
        ] {
            let mut attempts = policy().attempts();
            for (failure, retried) in failures.iter().zip(retried) {
                let verdict = attempts.after_failure(&RefreshError::new(*failure, ""), 60 * SECOND);
                assert_eq!(verdict != GiveUp, *retried, "{case}: {verdict:?}");
            }
        }
    }

    /// K-07, K-35: the refresh token that was sent is used up where a new one came.
    #[test]
    fn k_35_what_brings_a_new_refresh_token_is_not_retried_with_the_old() {
        for failure in [RefreshFailure::Busy, RefreshFailure::Lost, RefreshFailure::NotSent] {
            let error = RefreshError::new(failure, "").with_refresh_token("new");
            let verdict = policy().attempts().after_failure(&error, 60 * SECOND);
            assert_eq!(verdict, AfterFailure::GiveUp, "{failure:?}");
        }
    }

    /// K-26: what came to nothing costs nothing.
    #[test]
    fn k_26_what_is_refunded_can_be_spent_again() {
        let clock = ManualClock::new();
        let now = Clock::Manual(clock.clone()).now();
        let limit = Limit { refreshes: 1, within: 30 * SECOND };
        let mut budget = Budget::default();
        budget.spend(limit, now);
        assert_eq!(budget.exhausted_for(limit, now), Some(30 * SECOND));
        budget.refund();
        assert_eq!(budget.exhausted_for(limit, now), None);
    }

    #[test]
    fn k_35_retry_after_is_obeyed_within_a_refresh_and_ends_it_when_there_is_no_time() {
        let busy = |wait| RefreshError::new(RefreshFailure::Busy, "").with_retry_after(wait);
        let verdict = policy().attempts().after_failure(&busy(7 * SECOND), 30 * SECOND);
        assert_eq!(verdict, AfterFailure::TryAgainIn(7 * SECOND));
        let verdict = policy().attempts().after_failure(&busy(30 * SECOND), 30 * SECOND);
        assert_eq!(verdict, AfterFailure::GiveUp, "no time is left for it");
    }

    #[test]
    fn k_35_cool_downs_grow_obey_the_server_and_are_capped() {
        let lost = |failures| policy().cool_down(failures, RefreshFailure::Lost, None);
        let (first, fifth) = (lost(1), lost(5));
        assert!(first >= SECOND && first < fifth && fifth <= 120 * SECOND, "{first:?} {fifth:?}");
        let year = Some(SECOND * 31_536_000);
        assert_eq!(policy().cool_down(1, RefreshFailure::Busy, year), 3600 * SECOND);
        let client = policy().cool_down(1, RefreshFailure::Configuration, None);
        assert!(client > first);
    }

    #[test]
    fn k_11_the_window_is_at_most_half_of_the_lifetime() {
        assert_eq!(policy().window(3600 * SECOND), 60 * SECOND);
        assert_eq!(policy().window(60 * SECOND), 30 * SECOND);
        assert_eq!(policy().window(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn k_13_sessions_differ_within_the_jitter_and_one_session_does_not() {
        let mut spread = policy();
        spread.jitter = 0.5;
        let at = |place| Policy { place, ..spread.clone() }.window(3600 * SECOND);
        assert_eq!(at(0.0), 60 * SECOND);
        assert_eq!(at(1.0), 30 * SECOND);
        assert_eq!(at(0.25), at(0.25));
    }

    /// K-35, B10: a fleet whose server fails does not come back as one.
    #[test]
    fn k_13_sessions_come_back_to_a_failing_server_at_different_times() {
        let after = |place| {
            let policy = Policy { place, ..policy() };
            let lost = RefreshError::new(RefreshFailure::Lost, "");
            let cool_down = policy.cool_down(1, RefreshFailure::Lost, None);
            (cool_down, policy.attempts().after_failure(&lost, 60 * SECOND))
        };
        let (one, other) = (after(0.25), after(0.75));
        assert_ne!(one.0, other.0);
        assert_ne!(one.1, other.1);
        assert_eq!(one, after(0.25));
    }

    proptest! {
        #[test]
        fn k_26_never_more_than_the_limit_within_any_window(
            steps in prop::collection::vec(0_u32..40, 1..60),
            refreshes in 0_usize..5,
        ) {
            let limit = Limit { refreshes, within: 30 * SECOND };
            let clock = ManualClock::new();
            let now = || Clock::Manual(clock.clone()).now();
            let (mut budget, mut spent) = (Budget::default(), Vec::new());
            for step in steps {
                clock.advance(SECOND * step);
                match budget.exhausted_for(limit, now()) {
                    None => {
                        budget.spend(limit, now());
                        spent.push(now().monotonic);
                    }
                    Some(wait) if refreshes > 0 => {
                        let later = now().after(wait);
                        prop_assert!(budget.exhausted_for(limit, later).is_none());
                    }
                    Some(_) => {}
                }
                let live = spent.iter().filter(|at| now().monotonic - **at < limit.within);
                prop_assert!(live.count() <= refreshes);
            }
        }
    }
}
