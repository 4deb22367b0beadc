//! Peers that take their time.

use std::time::Duration;

use reqwest_refresh::{ClientAuth, Error, Refresh, RefreshFailure, ServerMetadata, TokenEndpoint};
use tokio::task::JoinHandle;

use crate::bad_input::{check, pair};
use crate::hostile::{OLD, UNAVAILABLE, Victim, Villain, says_no_secret};
use crate::support::{SECOND, Then, Wire, everybody_waits, http, until};
use crate::token_request::{FINE, endpoint, tokens};

/// One refresh, which nobody helps over its pauses.
fn refreshing(victim: &Victim) -> JoinHandle<Result<(), Error>> {
    let session = victim.session.clone();
    tokio::spawn(async move { session.refresh().await.map(drop) })
}

fn drip() -> Then {
    Then::Drip(http(200, "", FINE))
}

/// K-30, K-33: a byte each second is an answer that does not come.
#[tokio::test]
async fn k_30_an_answer_that_drips_is_bounded_by_the_refreshs_deadline() {
    let villain = Villain::start().await;
    villain.says(drip());
    let victim = villain.victim();
    villain.wire.hold();
    let refresh = refreshing(&victim);
    until(|| villain.wire.requests().len() == 1).await;
    for _ in 0..29 {
        villain.wire.drip();
        everybody_waits().await;
        victim.clock.advance(SECOND);
        assert!(!refresh.is_finished());
    }
    villain.wire.drip();
    victim.clock.advance(SECOND);
    let error = refresh.await.unwrap().unwrap_err();
    check("a drip", &error, UNAVAILABLE, "too long");
    villain.wire.release();
    until(|| villain.wire.closed() == 1).await;
    villain.has_harmed_nobody("a drip", &victim, &error).await;
}

/// K-30: but one that has dripped in time is one.
#[tokio::test]
async fn k_30_an_answer_that_drips_in_time_is_taken() {
    let villain = Villain::start().await;
    villain.says(drip());
    let victim = villain.victim();
    villain.wire.hold();
    let refresh = refreshing(&victim);
    until(|| villain.wire.requests().len() == 1).await;
    for _ in 0..29 {
        (0..10).for_each(|_| villain.wire.drip());
        everybody_waits().await;
        victim.clock.advance(SECOND);
    }
    until(|| refresh.is_finished()).await;
    refresh.await.unwrap().unwrap();
    assert_eq!(pair(&victim.session), ["a1", "r1"]);
}

/// K-73: a logout does not wait for it.
#[tokio::test]
async fn k_73_a_revocation_that_drips_is_bounded_by_the_refreshs_deadline() {
    let villain = Villain::start().await;
    villain.says(drip());
    let victim = villain.victim();
    villain.wire.hold();
    let session = victim.session.clone();
    let out = tokio::spawn(async move { session.log_out().await });
    until(|| villain.wire.requests().len() == 1).await;
    for _ in 0..30 {
        assert!(!out.is_finished());
        villain.wire.drip();
        everybody_waits().await;
        victim.clock.advance(SECOND);
    }
    let error = out.await.unwrap().unwrap_err();
    check("a drip", &error, UNAVAILABLE, "nobody knows whether");
    says_no_secret("a drip", &error);
    assert_eq!(pair(&victim.session), ["-", "-"]);
}

/// K-30: 15 seconds from the beginning to the end, by a clock that nobody waits for.
#[tokio::test(start_paused = true)]
async fn k_30_metadata_that_drips_is_unavailable() {
    let villain = Villain::start().await;
    villain.says(drip());
    villain.wire.hold();
    let began = tokio::time::Instant::now();
    let issuer = villain.wire.url("");
    let dripping = async {
        loop {
            tokio::time::sleep(SECOND).await;
            villain.wire.drip();
        }
    };
    let error = tokio::select! {
        result = ServerMetadata::discover(&issuer) => result.unwrap_err(),
        () = dripping => unreachable!("it drips for ever"),
    };
    check("a drip", &error, UNAVAILABLE, "was lost");
    assert_eq!(began.elapsed().as_secs(), 15);
}

/// K-30, K-54: a peer that lets us connect, and does not shake hands.
#[tokio::test]
async fn k_30_a_tls_handshake_that_stalls_is_bounded() {
    let silent = Villain::start().await;
    let url = silent.wire.url("/token").replace("http://", "https://");
    let auth = ClientAuth::body("app", "CANARY-secret");
    let patient = TokenEndpoint::new(&url, auth).unwrap();

    let hasty = patient.clone().with_timeout(Duration::from_millis(20));
    let error = hasty.refresh(&tokens()).await.unwrap_err();
    assert!(matches!(error.failure(), RefreshFailure::Lost), "{error}");
    says_no_secret("a stall", &error);

    let victim = Victim::of(patient);
    let refresh = refreshing(&victim);
    until(|| victim.clock.sleepers() == [30 * SECOND]).await;
    victim.clock.advance(30 * SECOND);
    let error = refresh.await.unwrap().unwrap_err();
    check("a stall", &error, UNAVAILABLE, "too long");
    says_no_secret("a stall", &error);
    assert_eq!((pair(&victim.session), victim.hook.calls()), (OLD.map(str::to_owned), 0));
}

/// K-30: RFC 9110 §15.2: "A client MUST be able to parse one or more 1xx responses received prior to
/// a final response"; but not for ever.
#[tokio::test]
async fn k_30_interim_answers_are_read_over_until_the_deadline() {
    let villain = Villain::start().await;
    for (case, interim) in [
        ("go on", "HTTP/1.1 100 x\r\n\r\n"),
        ("it takes a while", "HTTP/1.1 102 x\r\nx: CANARY\r\n\r\n"),
        ("look there", "HTTP/1.1 103 x\r\nlink: </CANARY>; rel=preload\r\n\r\n"),
    ] {
        villain.says(Then::Say(interim.repeat(1000) + &http(200, "", FINE)));
        villain.victim().refresh().await.expect(case);

        let closed = villain.wire.closed();
        let arrived = villain.wire.requests().len();
        villain.says(Then::Keep(interim.repeat(10_000)));
        let victim = villain.victim();
        let refresh = refreshing(&victim);
        until(|| villain.wire.requests().len() > arrived).await;
        everybody_waits().await;
        assert!(!refresh.is_finished(), "{case}");
        victim.clock.advance(30 * SECOND);
        let error = refresh.await.unwrap().unwrap_err();
        check(case, &error, UNAVAILABLE, "too long");
        until(|| villain.wire.closed() > closed).await;
        villain.has_harmed_nobody(case, &victim, &error).await;
    }
}

/// K-30: a peer that never stops, and never says what could be too much, has the time of one attempt.
#[tokio::test]
async fn k_30_a_flood_of_nothing_is_bounded_by_the_attempts_own_time() {
    let chunked = "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n";
    for (case, head, again) in
        [("zeros before a size", chunked, "0"), ("interim answers", "", "HTTP/1.1 100 x\r\n\r\n")]
    {
        let flood = Then::Endless(head.into(), again.repeat(1000).into_bytes());
        let wire = Wire::start(move |_| flood.clone()).await;
        let endpoint = endpoint(&wire).with_timeout(Duration::from_millis(50));
        let error = endpoint.refresh(&tokens()).await.unwrap_err();
        assert_eq!(error.failure(), RefreshFailure::Lost, "{case}");
        says_no_secret(case, &error);
        until(|| wire.closed() == 1).await;
    }
}
