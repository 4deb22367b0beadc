//! Knowing when a token is over.

use std::time::{Duration, SystemTime};

use reqwest_refresh::{Provider, RefreshFailure, Session, Status, TokenSet};
use serde_json::json;

use crate::support::{Api, Issuer, Rig, SECOND, everybody_waits, jwt};

const HOUR: Duration = Duration::from_secs(3600);
const UNAVAILABLE: &str = "authorization server unavailable";
const NANOSECOND: Duration = Duration::from_nanos(1);

type Jump = fn(&Rig);

/// Seconds since 1970 by the rig's clock.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A rig whose session has just got `tokens` from the issuer.
async fn refreshed(tokens: TokenSet) -> Rig {
    let rig = Rig::new(Api::friendly());
    rig.issuer.then(Ok(tokens.with_refresh_token("r1")));
    rig.session.refresh().await.unwrap();
    rig
}

/// K-10, Q-07: `expires_in` counts from the start of the token request. B03.
#[tokio::test]
async fn k_10_a_lifetime_counts_from_the_moment_the_token_request_was_started() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(2 * HOUR);
    let start = rig.clock.wall();
    rig.issuer.hold();
    let request = rig.spawn_get();
    everybody_waits().await;
    rig.clock.advance(20 * SECOND); // a slow answer makes no token live longer
    rig.issuer.release();
    request.await.unwrap().unwrap();
    let tokens = rig.session.current_tokens().unwrap();
    assert_eq!(tokens.expires_at(), Some(start + HOUR));
    rig.clock.advance(HOUR - 20 * SECOND - NANOSECOND);
    assert_eq!(rig.session.status(), Status::Stale);
    rig.clock.advance(NANOSECOND);
    assert_eq!(rig.session.status(), Status::Expired);
}

/// K-10: every attempt of one refresh counts from its own start.
#[tokio::test]
async fn k_10_after_a_retry_the_lifetime_counts_from_the_attempt_that_was_answered() {
    let rig = Rig::new(Api::friendly());
    rig.issuer.then_fails(RefreshFailure::NotSent);
    let session = rig.session.clone();
    let start = rig.clock.wall();
    let refresh = tokio::spawn(async move { session.refresh().await });
    everybody_waits().await;
    rig.clock.advance(5 * SECOND);
    let tokens = refresh.await.unwrap().unwrap();
    assert_eq!(tokens.expires_at(), Some(start + 5 * SECOND + HOUR));
}

/// K-10, Q-07, Q-13: `expires_in`, else the JWT, else unknown. B02, B05, B07, X08.
#[tokio::test]
async fn k_10_where_the_end_comes_from_is_a_table() {
    let opaque = || TokenSet::new("opaque");
    let long_ago = jwt(&json!({"iat": 1_000_000_000, "exp": 1_000_000_600, "stime": 1}));
    let jwe = "eyJhbGciOiJSU0EtT0FFUCJ9.a2V5.aXY.Y2lwaGVy.dGFn";
    for (case, tokens, expected) in [
        ("expires_in", opaque().with_expires_in(HOUR), Some(HOUR)),
        ("expires_in beats a JWT", TokenSet::new(&*long_ago).with_expires_in(HOUR), Some(HOUR)),
        (
            "exp - iat, whatever the server's clock says",
            TokenSet::new(&*long_ago),
            Some(600 * SECOND),
        ),
        ("opaque", opaque(), None),
        ("JWE", TokenSet::new(jwe), None),
        ("broken", TokenSet::new("a.b.c"), None),
        ("no claim", TokenSet::new(jwt(&json!({"sub": "x"}))), None),
        ("stime alone", TokenSet::new(jwt(&json!({"stime": 1_700_000_000_000_u64}))), None),
        ("exp of a wrong type", TokenSet::new(jwt(&json!({"exp": "soon"}))), None),
        ("zero is unknown", opaque().with_expires_in(Duration::ZERO), None),
    ] {
        let rig = refreshed(tokens).await;
        let end = rig.session.current_tokens().unwrap().expires_at();
        assert_eq!(end, expected.map(|left| rig.clock.wall() + left), "{case}");
    }
    let rig = refreshed(opaque().with_expires_in(Duration::MAX)).await;
    assert_eq!(rig.session.status(), Status::Fresh, "absurd");
}

/// K-10: the `exp` of a JWT without `iat` is taken as it is.
#[tokio::test]
async fn k_10_an_exp_alone_is_an_absolute_end() {
    let rig = Rig::new(Api::friendly());
    let exp = seconds(rig.clock.wall()) + 600;
    let tokens = TokenSet::new(jwt(&json!({ "exp": exp }))).with_refresh_token("r");
    rig.session.set_tokens(tokens).await.unwrap();
    let end = rig.session.current_tokens().unwrap().expires_at().unwrap();
    assert_eq!(seconds(end), exp);
}

/// K-10: reading a JWT can be turned off.
#[tokio::test]
async fn k_10_without_reading_jwts_their_end_is_unknown() {
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.read_jwt_expiry(false));
    let tokens = TokenSet::new(jwt(&json!({"iat": 1000, "exp": 1600})));
    rig.session.set_tokens(tokens).await.unwrap();
    assert_eq!(rig.session.current_tokens().unwrap().expires_at(), None);
}

/// K-10, Q-03: of unknown end, so only a 401 tells. B02.
#[tokio::test]
async fn k_10_a_token_of_unknown_end_is_used_until_it_is_rejected() {
    let rig = Rig::with(Api::rejecting(&["bad"]), Issuer::new(), |b| {
        b.tokens(TokenSet::new("good").with_refresh_token("r0"))
    });
    rig.clock.advance(24 * 365 * HOUR);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!((rig.api.tokens(), rig.issuer.calls()), (vec!["good".to_owned()], 0));
    rig.session.set_tokens(TokenSet::new("bad").with_refresh_token("r0")).await.unwrap();
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens(), ["good", "bad", "a1"]);
}

/// K-10: a JWT from a login or a store is of any age; its own end is believed.
#[tokio::test]
async fn k_10_a_jwt_that_was_kept_too_long_is_refreshed_before_it_is_sent() {
    let rig = Rig::new(Api::friendly());
    let now = seconds(rig.clock.wall());
    for (case, claims, sent) in [
        ("over", json!({"iat": now - 7200, "exp": now - 3600}), "a1"),
        ("alive", json!({"iat": now - 60, "exp": now + 3600}), "the JWT"),
        // Issued "in the future": the server's clock is ahead, the token lives for ten minutes.
        ("ahead", json!({"iat": now + 900, "exp": now + 1500}), "the JWT"),
    ] {
        let token = jwt(&claims);
        let tokens = TokenSet::new(&*token).with_refresh_token("r");
        rig.session.set_tokens(tokens).await.unwrap();
        rig.get().await.unwrap();
        let last = rig.api.tokens().pop().unwrap();
        let expected = if sent == "the JWT" { &token } else { sent };
        assert_eq!(last, *expected, "{case}");
    }
    let left = rig.session.current_tokens().unwrap().expires_at().unwrap();
    assert!(left <= rig.clock.wall() + 600 * SECOND, "never more than exp - iat");
}

/// K-11, Q-06, Q-09: three ages, to the nanosecond; a window of zero refreshes nothing beforehand.
/// B01, B11.
#[tokio::test]
async fn k_11_a_token_is_fresh_then_stale_then_expired() {
    for (case, window, lifetime, at, expected) in [
        ("new", 60, 3600, Duration::ZERO, Status::Fresh),
        ("before the window", 60, 3600, 3540 * SECOND - NANOSECOND, Status::Fresh),
        ("in the window", 60, 3600, 3540 * SECOND, Status::Stale),
        ("before the end", 60, 3600, 3600 * SECOND - NANOSECOND, Status::Stale),
        ("at the end", 60, 3600, 3600 * SECOND, Status::Expired),
        ("after the end", 60, 3600, 36_000 * SECOND, Status::Expired),
        ("other window", 600, 3600, 3000 * SECOND - NANOSECOND, Status::Fresh),
        ("in the other window", 600, 3600, 3000 * SECOND, Status::Stale),
        ("window as long as the life", 3600, 3600, 1800 * SECOND - NANOSECOND, Status::Fresh),
        ("half at most", 3600, 3600, 1800 * SECOND, Status::Stale),
        ("short life", 60, 10, 5 * SECOND - NANOSECOND, Status::Fresh),
        ("half of a short life", 60, 10, 5 * SECOND, Status::Stale),
        ("no window", 0, 3600, 3600 * SECOND - NANOSECOND, Status::Fresh),
        ("no window, over", 0, 3600, 3600 * SECOND, Status::Expired),
    ] {
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
            b.refresh_window(SECOND * window).tokens(Rig::tokens(lifetime))
        });
        rig.clock.advance(at);
        assert_eq!(rig.session.status(), expected, "{case}");
    }
}

/// K-11: the window of the provider is the default. B09.
#[tokio::test]
async fn k_11_the_window_is_the_providers_unless_it_is_set() {
    for (case, provider, window) in [
        ("RFC", Provider::rfc6749(), 60 * SECOND),
        ("digiRunner", Provider::digirunner(), 10 * SECOND),
    ] {
        let rig = Rig::with(Api::friendly(), Issuer::with(HOUR, provider), |b| b);
        rig.clock.advance(HOUR - window - NANOSECOND);
        assert_eq!(rig.session.status(), Status::Fresh, "{case}");
        rig.clock.advance(NANOSECOND);
        assert_eq!(rig.session.status(), Status::Stale, "{case}");
    }
}

/// K-11: stale: still sent, refreshed behind the request; expired: not sent. D01, D02, D03.
#[tokio::test]
async fn k_11_stale_tokens_are_sent_and_refreshed_behind_expired_ones_are_not_sent() {
    let rig = Rig::new(Api::friendly());
    rig.issuer.hold();
    rig.clock.advance(HOUR - 60 * SECOND);
    for _ in 0..3 {
        assert_eq!(rig.outcome().await, "200");
    }
    everybody_waits().await;
    assert_eq!((rig.api.tokens(), rig.issuer.calls()), (vec!["a0".to_owned(); 3], 1));
    rig.issuer.release();
    everybody_waits().await;
    rig.get().await.unwrap();
    assert_eq!(rig.api.tokens().pop().unwrap(), "a1");

    rig.clock.advance(HOUR);
    rig.issuer.hold();
    let requests: Vec<_> = (0..3).map(|_| rig.spawn_get()).collect();
    everybody_waits().await;
    assert_eq!(rig.api.arrived(), 4, "nothing is sent while everybody waits");
    rig.issuer.release();
    for request in requests {
        request.await.unwrap().unwrap();
    }
    assert_eq!(rig.api.tokens()[4..], ["a2", "a2", "a2"]);
}

/// K-11, Q-06: however long the window, one refresh per token. X14.
#[tokio::test]
async fn k_11_a_window_longer_than_the_life_refreshes_once_per_token() {
    let issuer = Issuer::with(30 * SECOND, Provider::rfc6749());
    let rig =
        Rig::with(Api::friendly(), issuer, |b| b.refresh_window(HOUR).tokens(Rig::tokens(30)));
    for _ in 0..10 {
        rig.get().await.unwrap();
        everybody_waits().await;
    }
    assert_eq!(rig.issuer.calls(), 0, "fresh for half of its life");
    rig.clock.advance(15 * SECOND);
    for _ in 0..10 {
        rig.get().await.unwrap();
        everybody_waits().await;
    }
    assert_eq!(rig.issuer.calls(), 1, "and the next is fresh again");
}

/// K-11, Q-06: a token just received counts as fresh once. B14.
#[tokio::test]
async fn k_11_a_token_that_is_over_on_arrival_is_sent_once_by_all_who_waited() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(2 * HOUR);
    let over = TokenSet::new("over").with_expires_at(rig.clock.wall() - SECOND);
    rig.issuer.then(Ok(over));
    rig.issuer.hold();
    let requests: Vec<_> = (0..5).map(|_| rig.spawn_get()).collect();
    everybody_waits().await;
    rig.issuer.release();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!((rig.api.tokens(), rig.issuer.calls()), (vec!["over".to_owned(); 5], 1));
    rig.get().await.unwrap();
    assert_eq!(rig.api.tokens().pop().unwrap(), "a1", "once");
}

/// K-12, Q-07: neither clock alone keeps a token alive. X12.
#[tokio::test]
async fn k_12_the_earlier_end_of_both_clocks_wins() {
    let cases: [(&str, Jump, Status); 6] = [
        ("both", |r| r.clock.advance(HOUR), Status::Expired),
        ("suspended", |r| r.clock.suspend(HOUR), Status::Expired),
        ("suspended into the window", |r| r.clock.suspend(HOUR - SECOND), Status::Stale),
        (
            "set back, then over",
            |r| {
                r.clock.set_back(5 * HOUR);
                r.clock.advance(HOUR);
            },
            Status::Expired,
        ),
        ("set back", |r| r.clock.set_back(5 * HOUR), Status::Fresh),
        (
            "set forward and back",
            |r| {
                r.clock.suspend(5 * HOUR);
                r.clock.set_back(5 * HOUR);
            },
            Status::Fresh,
        ),
    ];
    for (case, jump, expected) in cases {
        let rig = Rig::new(Api::friendly());
        jump(&rig);
        assert_eq!(rig.session.status(), expected, "{case}");
    }
}

/// K-12: a jump costs one refresh at most, and no token lives for ever. X13.
#[tokio::test]
async fn k_12_a_clock_jump_never_causes_more_than_one_refresh() {
    let rig = Rig::new(Api::friendly());
    let jumps: [(&str, Jump); 6] = [
        ("an hour ahead", |rig| rig.clock.suspend(HOUR)),
        ("an hour back", |rig| rig.clock.set_back(HOUR)),
        ("a year ahead", |rig| rig.clock.suspend(365 * 24 * HOUR)),
        ("a year back", |rig| rig.clock.set_back(365 * 24 * HOUR)),
        ("five hours back", |rig| rig.clock.set_back(5 * HOUR)),
        ("five hours ahead", |rig| rig.clock.suspend(5 * HOUR)),
    ];
    for (case, jump) in jumps {
        let before = rig.issuer.calls();
        jump(&rig);
        for _ in 0..20 {
            assert_eq!(rig.outcome().await, "200", "{case}");
            everybody_waits().await;
            rig.clock.advance(SECOND);
        }
        assert!(rig.issuer.calls() <= before + 1, "{case}: a storm");
        let calls = rig.issuer.calls();
        rig.clock.advance(HOUR);
        rig.get().await.unwrap();
        assert_eq!(rig.issuer.calls(), calls + 1, "{case}: a stale token for ever");
    }
}

/// K-12: a pair that was stored before the clock was set back lives no longer than its lifetime.
#[tokio::test]
async fn k_12_a_stored_token_lives_no_longer_than_its_lifetime_after_the_clock_was_set_back() {
    let rig = Rig::new(Api::friendly());
    let stored = TokenSet::new("stored")
        .with_refresh_token("r")
        .with_expires_in(HOUR)
        .with_expires_at(rig.clock.wall() + HOUR);
    rig.clock.set_back(24 * HOUR);
    rig.session.set_tokens(stored).await.unwrap();
    assert_eq!(rig.session.status(), Status::Fresh);
    rig.clock.advance(HOUR);
    assert_eq!(rig.session.status(), Status::Expired);
}

/// K-12: a clock that jumps while a failed attempt waits for its retry costs no attempt.
#[tokio::test]
async fn k_12_a_jump_during_a_retry_does_not_cut_the_refresh_short() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(2 * HOUR);
    rig.issuer.then_fails(RefreshFailure::NotSent);
    let request = rig.spawn_get();
    everybody_waits().await;
    rig.clock.suspend(8 * HOUR);
    rig.issuer.hold();
    rig.clock.advance(5 * SECOND);
    everybody_waits().await;
    rig.issuer.release();
    assert_eq!(request.await.unwrap().unwrap().status(), 200);
    assert_eq!(rig.issuer.calls(), 2);
}

/// K-12: a cool-down ends on whichever clock gets there first, so none lasts for ever. X13.
#[tokio::test]
async fn k_12_a_cool_down_outlives_neither_a_suspended_machine_nor_a_clock_set_back() {
    let jumps: [(&str, Jump); 2] = [
        ("suspended", |rig| rig.clock.suspend(4 * HOUR)),
        ("set back", |rig| {
            rig.clock.set_back(24 * HOUR);
            rig.clock.advance(4 * HOUR);
        }),
    ];
    for (case, jump) in jumps {
        let rig = Rig::new(Api::friendly());
        rig.clock.advance(2 * HOUR);
        rig.issuer.then_fails(RefreshFailure::Unusable);
        let outcome = rig.outcome().await;
        assert_eq!(outcome, UNAVAILABLE, "{case}");
        jump(&rig);
        assert_eq!(rig.outcome().await, "200", "{case}");
    }
}

/// When a session's token turns stale, in seconds before its end.
fn place(session: &Session, clock: &reqwest_refresh::ManualClock) -> u64 {
    let mut left = 3600;
    while session.status() == Status::Fresh {
        clock.advance(SECOND);
        left -= 1;
    }
    left
}

/// K-13: sessions differ, within the range. B10.
#[tokio::test]
async fn k_13_sessions_that_start_together_do_not_refresh_together() {
    let mut places: Vec<u64> = Vec::new();
    for _ in 0..30 {
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
            b.refresh_window(SECOND * 1000).jitter(0.5)
        });
        places.push(place(&rig.session, &rig.clock));
    }
    assert!(places.iter().all(|place| (499..=1000).contains(place)), "{places:?}");
    places.sort_unstable();
    places.dedup();
    assert!(places.len() >= 8, "{places:?}");
}

/// K-13: one session keeps its place from token to token. B10.
#[tokio::test]
async fn k_13_the_jitter_of_one_session_is_stable() {
    let rig =
        Rig::with(Api::friendly(), Issuer::new(), |b| b.refresh_window(SECOND * 1000).jitter(1.0));
    let first = place(&rig.session, &rig.clock);
    for _ in 0..5 {
        rig.session.refresh().await.unwrap();
        assert_eq!(place(&rig.session, &rig.clock), first);
    }
}
