//! A token set at work: its header built once, its ends on both clocks.

use std::time::{Duration, Instant};

use http::HeaderValue;

use crate::clock::{FAR, Moment};
use crate::proto::jwt;
use crate::proto::policy::Policy;
use crate::secret::field_value;
use crate::token::{Generation, TokenSet};

/// A session's current token set, with everything that a request needs of it ready.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) generation: Generation,
    pub(crate) tokens: TokenSet,
    /// `Bearer …`, marked sensitive.
    pub(crate) header: HeaderValue,
    /// When the request for it was started, or when it was handed to the session.
    received: Instant,
    life: Option<Life>,
}

/// From here on stale, and so much later expired.
#[derive(Clone, Copy, Debug)]
struct Life {
    stale: Moment,
    window: Duration,
}

/// A token's three ages (K-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Over. Not sent.
    Expired,
    /// Far from its end, or of unknown end.
    Fresh,
    /// Inside the refresh window: still sent, and refreshed behind the request.
    Stale,
}

/// Where a token set comes from, which decides how its lifetime is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// The server has just made it: its lifetime counts from the start of the request.
    Issued,
    /// It may be of any age: a caller or a store had it.
    Kept,
}

impl Credential {
    /// Puts `tokens` to work; `start` is when the token request was started, or now.
    ///
    /// Fails with a sentence if the access token cannot be sent in a header.
    pub(crate) fn new(
        generation: Generation,
        tokens: TokenSet,
        start: Moment,
        policy: &Policy,
    ) -> Result<Self, &'static str> {
        let header = bearer(&tokens)?;
        let life = tokens.expires_at().map(|end| {
            let left = end.duration_since(start.wall).unwrap_or_default();
            let lifetime = tokens.expires_in().unwrap_or(left).min(FAR);
            // More than its lifetime nothing has left: then the wall clock was set back (K-12).
            let end = Moment { wall: end, ..start.after(left.min(lifetime)) };
            let stale = end.before(policy.window(lifetime));
            Life { stale, window: end.monotonic - stale.monotonic }
        });
        Ok(Self { generation, tokens, header, received: start.monotonic, life })
    }

    /// This one, no younger than `other`, which has the same access token.
    pub(crate) fn no_younger_than(self, other: &Self) -> Self {
        Self { received: other.received, life: other.life, ..self }
    }

    /// The age at `now`.
    #[inline]
    pub(crate) fn age(&self, now: &Moment) -> Age {
        match &self.life {
            Some(life) if now.reached(&life.stale) => match now.reached(&life.end()) {
                true => Age::Expired,
                false => Age::Stale,
            },
            _ => Age::Fresh,
        }
    }

    /// Whether at least `validity` is left, or half of the lifetime where that is less: more is
    /// not to be had by refreshing.
    pub(crate) fn lasts(&self, validity: Duration, now: &Moment) -> bool {
        let Some(life) = &self.life else { return true };
        let end = life.end();
        let lifetime = self.tokens.expires_in().unwrap_or(end.monotonic - self.received);
        !now.after(validity.min(lifetime / 2)).reached(&end)
    }

    /// What is left of it; nothing, if its end is unknown.
    pub(crate) fn left(&self, now: &Moment) -> Duration {
        self.life.as_ref().map(|life| now.until(&life.end())).unwrap_or_default()
    }

    /// How long ago it was received.
    pub(crate) fn existed_for(&self, now: &Moment) -> Duration {
        now.monotonic.saturating_duration_since(self.received)
    }
}

impl Life {
    fn end(&self) -> Moment {
        self.stale.after(self.window)
    }
}

/// Completes what `tokens` say about their own ends, counted from `start`.
///
/// `expires_in` comes first: RFC 9068 §6 says that a client MUST NOT look into an access token.
/// The `exp` of a JWT is for servers that say nothing, the provider's own lifetime for tokens that
/// say nothing either.
pub(crate) fn learn_ends(
    mut tokens: TokenSet,
    provenance: Provenance,
    start: Moment,
    policy: &Policy,
) -> TokenSet {
    let read_jwt = policy.read_jwt;
    let is_unknown = tokens.expires_at().is_none() && tokens.expires_in().is_none();
    if read_jwt
        && is_unknown
        && let Some(life) = jwt::life(tokens.access_token())
    {
        tokens = match (provenance, life.whole) {
            // The two claims are read off one clock, the server's: ours need not agree.
            (Provenance::Issued, Some(whole)) => tokens.with_expires_in(whole),
            (Provenance::Kept, Some(whole)) => {
                let end = life.end.min(start.after(whole).wall);
                tokens.with_expires_in(whole).with_expires_at(end)
            }
            (_, None) => tokens.with_expires_at(life.end),
        };
    }
    let is_unknown = tokens.expires_at().is_none() && tokens.expires_in().is_none();
    if is_unknown && let Some(lifetime) = policy.default_lifetime {
        tokens = tokens.with_expires_in(lifetime);
    }
    tokens = tokens.anchored_at(start);
    if read_jwt
        && tokens.refresh_expires_at().is_none()
        && let Some(life) = tokens.refresh_token().and_then(jwt::life)
    {
        tokens = tokens.with_refresh_expires_at(life.end);
    }
    tokens
}

/// `Authorization: Bearer <token>` (RFC 6750 §2.1).
fn bearer(tokens: &TokenSet) -> Result<HeaderValue, &'static str> {
    let access_token = tokens.access_token();
    if access_token.is_empty() {
        return Err("the access token is empty");
    }
    if !access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the access token has characters that cannot be in a header");
    }
    field_value(tokens.authorization()).map_err(|_| "the access token cannot be in a header")
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use std::time::SystemTime;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::proto::policy::tests::policy;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    fn now(clock: &ManualClock) -> Moment {
        Clock::Manual(clock.clone()).now()
    }

    /// `tokens`, received now.
    fn received(tokens: TokenSet, provenance: Provenance, clock: &ManualClock) -> Credential {
        let tokens = learn_ends(tokens, provenance, now(clock), &policy());
        Credential::new(Generation::default(), tokens, now(clock), &policy()).unwrap()
    }

    fn lasting(lifetime: Duration, clock: &ManualClock) -> Credential {
        let tokens = TokenSet::new("a").with_expires_in(lifetime);
        received(tokens, Provenance::Issued, clock)
    }

    fn jwt(claims: &str) -> String {
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        format!("{}.{}.c2ln", part(r#"{"alg":"RS256"}"#), part(claims))
    }

    /// K-11, Q-06, B01, B02, B03, B11: exactly at the border and one nanosecond before it.
    #[test]
    fn k_11_a_token_is_fresh_then_stale_then_expired() {
        const NANO: Duration = Duration::from_nanos(1);
        for (case, lifetime, passed, expected) in [
            ("new", 3600, Duration::ZERO, Age::Fresh),
            ("before the window", 3600, 3540 * SECOND - NANO, Age::Fresh),
            ("the window opens", 3600, 3540 * SECOND, Age::Stale),
            ("before the end", 3600, 3600 * SECOND - NANO, Age::Stale),
            ("the end", 3600, 3600 * SECOND, Age::Expired),
            ("long after", 3600, 30 * 24 * HOUR, Age::Expired),
            ("short, new (X14)", 10, Duration::ZERO, Age::Fresh),
            ("short, half over", 10, 5 * SECOND, Age::Stale),
            ("short, over", 10, 10 * SECOND, Age::Expired),
            ("a second, new", 1, Duration::ZERO, Age::Fresh),
            ("unknown end, for ever", 0, 24 * 365 * 10 * HOUR, Age::Fresh),
        ] {
            let clock = ManualClock::new();
            let credential = lasting(lifetime * SECOND, &clock);
            clock.advance(passed);
            assert_eq!(credential.age(&now(&clock)), expected, "{case}");
        }
    }

    /// K-12, X12, X13.
    #[test]
    fn k_12_the_clock_that_gets_there_first_decides() {
        type Move = fn(&ManualClock);
        for (case, moves, expected) in [
            ("suspended beyond the end", (|c| c.suspend(2 * HOUR)) as Move, Age::Expired),
            ("suspended into the window", |c| c.suspend(3550 * SECOND), Age::Stale),
            ("set back by an hour", |c| c.set_back(HOUR), Age::Fresh),
            (
                "set back, then over on the monotonic clock",
                |c| {
                    c.set_back(30 * 24 * HOUR);
                    c.advance(HOUR);
                },
                Age::Expired,
            ),
            (
                "set back, then stale on the monotonic clock",
                |c| {
                    c.set_back(HOUR);
                    c.advance(3550 * SECOND);
                },
                Age::Stale,
            ),
            (
                "suspended, then set right again",
                |c| {
                    c.suspend(2 * HOUR);
                    c.set_back(2 * HOUR);
                },
                Age::Fresh,
            ),
        ] {
            let clock = ManualClock::new();
            let credential = lasting(HOUR, &clock);
            moves(&clock);
            assert_eq!(credential.age(&now(&clock)), expected, "{case}");
        }
    }

    /// K-10, B03, B08, X08, Q-02, Q-03, Q-07, R-080, R-082.
    #[test]
    fn k_10_the_end_comes_from_expires_in_then_from_the_jwt_then_from_nowhere() {
        let clock = ManualClock::new();
        let wall = now(&clock).wall;
        let epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let exp_in = |seconds: u64| jwt(&format!(r#"{{"exp":{}}}"#, epoch + seconds));
        let in_whole = |end: SystemTime| {
            let seconds = end.duration_since(wall).unwrap_or_default().as_secs_f64();
            seconds.ceil() as u64
        };
        let skewed = jwt(r#"{"iat":1000000,"exp":1000600}"#);
        for (case, tokens, provenance, expected) in [
            (
                "expires_in beats exp",
                TokenSet::new(exp_in(100)).with_expires_in(HOUR),
                Provenance::Issued,
                Some(3600),
            ),
            (
                "a known end beats both",
                TokenSet::new(exp_in(100)).with_expires_in(HOUR).with_expires_at(wall + 7 * SECOND),
                Provenance::Kept,
                Some(7),
            ),
            (
                "an end and no lifetime (Q-02)",
                TokenSet::new("opaque").with_expires_at(wall + 7 * SECOND),
                Provenance::Issued,
                Some(7),
            ),
            ("exp alone", TokenSet::new(exp_in(101)), Provenance::Issued, Some(101)),
            (
                "exp and iat, by another clock",
                TokenSet::new(skewed.clone()),
                Provenance::Issued,
                Some(600),
            ),
            ("exp and iat, of unknown age", TokenSet::new(skewed), Provenance::Kept, Some(0)),
            ("opaque", TokenSet::new("opaque"), Provenance::Issued, None),
            (
                "exp in milliseconds",
                TokenSet::new(jwt(r#"{"exp":1684742522981}"#)),
                Provenance::Kept,
                None,
            ),
        ] {
            let credential = received(tokens, provenance, &clock);
            let end = credential.tokens.expires_at().map(in_whole);
            assert_eq!(end, expected, "{case}");
        }
        let ends = |token: String, read_jwt, default_lifetime| {
            let mut policy = policy();
            policy.read_jwt = read_jwt;
            policy.default_lifetime = default_lifetime;
            let tokens = learn_ends(TokenSet::new(token), Provenance::Issued, now(&clock), &policy);
            tokens.expires_at()
        };
        assert_eq!(ends(exp_in(9), false, None), None, "reading can be switched off");
        // The provider's lifetime comes last.
        assert!(ends(exp_in(9), true, Some(HOUR)) < Some(wall + HOUR));
        assert_eq!(ends(exp_in(9), false, Some(HOUR)), Some(wall + HOUR));
        assert_eq!(ends("opaque".into(), true, Some(HOUR)), Some(wall + HOUR));
        let said = TokenSet::new("opaque").with_expires_in(7 * SECOND);
        let mut policy = policy();
        policy.default_lifetime = Some(HOUR);
        let said = learn_ends(said, Provenance::Issued, now(&clock), &policy);
        assert_eq!(said.expires_at(), Some(wall + 7 * SECOND), "the server has said it");
    }

    /// K-55, Q-11, Q-12, DIGIRUNNER.md §6.2.
    #[test]
    fn k_55_the_refresh_tokens_end_is_read_from_its_jwt_where_the_server_says_nothing() {
        let clock = ManualClock::new();
        let far = jwt(r#"{"exp":4000000000}"#);
        let by_jwt = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000));
        let plain = TokenSet::new("a").with_refresh_token(far);
        let end = |tokens| {
            learn_ends(tokens, Provenance::Issued, now(&clock), &policy()).refresh_expires_at()
        };
        assert_eq!(end(plain.clone()), by_jwt);
        let said = plain.with_refresh_expires_in(Some(HOUR));
        assert_eq!(end(said), Some(now(&clock).wall + HOUR));
        assert_eq!(end(TokenSet::new("a").with_refresh_token("opaque")), None);
    }

    /// K-06, K-43.
    #[test]
    fn k_06_the_validity_asked_for_is_at_most_half_of_the_lifetime() {
        for (case, lifetime, passed, validity, expected) in [
            ("enough left", 3600, 0, 600, true),
            ("just enough left", 3600, 2999, 600, true),
            ("exactly at it", 3600, 3000, 600, false),
            ("more than the lifetime, new", 60, 0, 600, true),
            ("more than the lifetime, half over", 60, 30, 600, false),
            ("none asked for", 60, 59, 0, true),
            ("none asked for, over", 60, 60, 0, false),
            ("unknown end", 0, 9999, 600, true),
        ] {
            let clock = ManualClock::new();
            let credential = lasting(lifetime * SECOND, &clock);
            clock.advance(passed * SECOND);
            let lasts = credential.lasts(validity * SECOND, &now(&clock));
            assert_eq!(lasts, expected, "{case}");
        }
    }

    /// K-01, K-63, R-061: what cannot be in a header is not sent, and the header is not printed.
    #[test]
    fn k_01_only_what_a_header_can_carry_becomes_one() {
        let clock = ManualClock::new();
        let made = |token: &str| {
            let tokens = TokenSet::new(token);
            Credential::new(Generation::default(), tokens, now(&clock), &policy())
        };
        for (case, token) in [
            ("empty", ""),
            ("a line break", "a\r\nX-Evil: b"),
            ("a NUL", "a\0b"),
            ("a space", "a b"),
            ("not ASCII", "ä"),
            ("DEL", "a\u{7f}"),
        ] {
            let message = made(token).expect_err(case);
            assert!(message.starts_with("the access token"), "{case}: {message}");
        }
        let credential = made("CANARY.-_~+/=").unwrap();
        assert_eq!(credential.header, "Bearer CANARY.-_~+/=");
        assert!(credential.header.is_sensitive());
        let token = credential.tokens.access_token().as_bytes();
        assert!(credential.header.as_bytes().ends_with(token));
        let end = |bytes: &[u8]| bytes.as_ptr_range().end;
        assert_eq!(end(credential.header.as_bytes()), end(token), "no copy of the token");
        assert!(!format!("{credential:?}").contains("CANARY"));
    }

    /// K-11: a token that as good as never ends, and a window that is all that may be had of it.
    #[test]
    fn k_11_a_token_just_received_is_fresh_however_far_its_end_and_its_window() {
        const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);
        let clock = ManualClock::new();
        let mut policy = policy();
        policy.refresh_window = Duration::MAX;
        let tokens = TokenSet::new("a").with_expires_at(SystemTime::UNIX_EPOCH + YEAR_9999);
        let made = Credential::new(Generation::default(), tokens, now(&clock), &policy).unwrap();
        assert_eq!(made.age(&now(&clock)), Age::Fresh);
        clock.advance(FAR / 2);
        assert_eq!(made.age(&now(&clock)), Age::Stale);
    }

    proptest! {
        /// K-11, K-12, X13, X14: whatever clocks do, a token just received is fresh, ages in one
        /// direction while clocks go forward, and no end or lifetime is too absurd.
        #[test]
        fn k_11_ages_only_grow_and_begin_with_fresh(
            lifetime in prop_oneof![1_u64..100_000, Just(u64::MAX)],
            steps in prop::collection::vec((0_u64..4000, any::<bool>()), 0..30),
        ) {
            let clock = ManualClock::new();
            let credential = lasting(Duration::from_secs(lifetime), &clock);
            prop_assert_eq!(credential.age(&now(&clock)), Age::Fresh);
            let rank = |age| [Age::Fresh, Age::Stale, Age::Expired].iter().position(|a| *a == age);
            let mut before = Some(0);
            for (seconds, is_asleep) in steps {
                match is_asleep {
                    true => clock.suspend(SECOND * seconds as u32),
                    false => clock.advance(SECOND * seconds as u32),
                }
                let age = rank(credential.age(&now(&clock)));
                prop_assert!(age >= before);
                before = age;
            }
        }

        /// K-10.
        #[test]
        fn k_10_no_end_is_too_absurd(seconds in any::<i64>(), lifetime in any::<u64>()) {
            let clock = ManualClock::new();
            let away = Duration::from_secs(seconds.unsigned_abs());
            let end = match seconds < 0 {
                true => SystemTime::UNIX_EPOCH.checked_sub(away),
                false => SystemTime::UNIX_EPOCH.checked_add(away),
            };
            let mut tokens = TokenSet::new("a").with_expires_in(Duration::from_secs(lifetime));
            tokens = match end {
                Some(end) => tokens.with_expires_at(end).with_refresh_expires_at(end),
                None => tokens,
            };
            let credential = received(tokens, Provenance::Kept, &clock);
            clock.advance(FAR / 2);
            let _ = credential.age(&now(&clock));
            prop_assert!(credential.existed_for(&now(&clock)) == FAR / 2);
            let _ = credential.lasts(Duration::MAX, &now(&clock));
        }
    }
}
