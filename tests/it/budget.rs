//! How often is refreshed, who waits meanwhile, and what a failure costs.

use std::time::Duration;

use reqwest_refresh::{Error, RefreshFailure, TokenSet};

use crate::support::{Api, Hook, Issuer, Reply, Rig, SECOND, everybody_waits, outcome};

const HOUR: Duration = Duration::from_secs(3600);
const EXCESSIVE: &str = "too many refreshes";

/// The next `count` tokens are over on arrival.
fn hand_out_dead_tokens(rig: &Rig, count: usize) {
    for _ in 0..count {
        let over = TokenSet::new("over").with_expires_at(rig.clock.wall() - SECOND);
        rig.issuer.then(Ok(over));
    }
}

// ---- K-26 ----

/// K-26: tokens that are over on arrival end in an error that says so. B14, E18, E19.
#[tokio::test]
async fn k_26_tokens_that_are_over_on_arrival_end_in_an_error_instead_of_a_loop() {
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.refresh_budget(2, 30 * SECOND));
    rig.clock.advance(HOUR);
    hand_out_dead_tokens(&rig, 10);
    assert_eq!(rig.outcome().await, "200");
    rig.clock.advance(10 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    for _ in 0..5 {
        let error = rig.get().await.unwrap_err();
        let error = Error::find(&error).unwrap();
        assert_eq!(error.kind().to_string(), EXCESSIVE);
        assert_eq!(error.retry_after(), Some(20 * SECOND));
    }
    assert_eq!((rig.issuer.calls(), rig.api.arrived()), (2, 2));

    // The history survives resets (E19).
    let over = Rig::tokens(60).with_expires_at(rig.clock.wall() - SECOND);
    rig.session.clear().await.unwrap();
    rig.session.set_tokens(over).await.unwrap();
    assert_eq!(rig.outcome().await, EXCESSIVE);

    // The window slides: after 20 seconds one more, not two.
    rig.clock.advance(20 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.outcome().await, EXCESSIVE);
    assert_eq!(rig.issuer.calls(), 3);
}

/// K-26: over budget all fail alike, and a budget of none refreshes never. E20.
#[tokio::test]
async fn k_26_parallel_requests_over_budget_fail_alike() {
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.refresh_budget(0, 30 * SECOND));
    rig.clock.advance(HOUR);
    let requests: Vec<_> = (0..3).map(|_| rig.spawn_get()).collect();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), EXCESSIVE);
    }
    assert_eq!((rig.issuer.calls(), rig.api.arrived()), (0, 0));
}

/// K-26: the defaults: 20 for ends, 5 for rejections, in 30 seconds. E20.
#[tokio::test]
async fn k_26_the_default_budgets_are_twenty_and_five() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(HOUR);
    hand_out_dead_tokens(&rig, 30);
    for _ in 0..30 {
        rig.outcome().await;
    }
    assert_eq!(rig.issuer.calls(), 20);
    let rig = Rig::new(Api::new(|_| Reply::status(401)));
    for _ in 0..30 {
        rig.outcome().await;
    }
    assert_eq!(rig.issuer.calls(), 5);
}

/// K-26: an endless 401 gives callers their 401 back. E02, E18.
#[tokio::test]
async fn k_26_an_endless_rejection_gives_callers_their_401_back() {
    let api = Api::new(|_| Reply::status(401).body("the API's own words"));
    let rig = Rig::with(api, Issuer::new(), |b| b.rejection_budget(2, 30 * SECOND));
    for _ in 0..10 {
        let response = rig.get().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.text().await.unwrap(), "the API's own words");
    }
    assert_eq!(rig.issuer.calls(), 2);
    assert_eq!(rig.api.arrived(), 2 * 2 + 8, "twice while there is a budget, then once");
    rig.clock.advance(30 * SECOND);
    assert_eq!(rig.outcome().await, "401");
    assert_eq!(rig.issuer.calls(), 3);
}

/// K-26: a request that is sent at the last of the budget gets its 401, not an error.
#[tokio::test]
async fn k_26_parallel_rejections_over_budget_all_get_their_401() {
    let api = Api::new(|_| Reply::status(401));
    let rig = Rig::with(api, Issuer::new(), |b| b.rejection_budget(1, 30 * SECOND));
    for _ in 0..5 {
        let requests: Vec<_> = (0..5).map(|_| rig.spawn_get()).collect();
        for request in requests {
            assert_eq!(outcome(request.await.unwrap()), "401");
        }
    }
    assert_eq!(rig.issuer.calls(), 1);
}

/// K-26: nor an error where it is the budget for ends that is spent by the time of the 401.
#[tokio::test]
async fn k_26_a_401_for_an_older_token_is_the_callers_where_the_next_may_not_be_refreshed() {
    let rig =
        Rig::with(Api::rejecting(&["a0"]), Issuer::new(), |b| b.refresh_budget(0, 30 * SECOND));
    rig.api.hold();
    let request = rig.spawn_get();
    everybody_waits().await;
    let over = TokenSet::new("over").with_refresh_token("r");
    let over = over.with_expires_at(rig.clock.wall() - SECOND);
    rig.session.set_tokens(over).await.unwrap();
    rig.api.release();
    assert_eq!(outcome(request.await.unwrap()), "401");
    assert_eq!((rig.issuer.calls(), rig.api.arrived()), (0, 1));
}

/// K-26: one path that always answers 401 starves nobody, nor do tokens over on arrival.
#[tokio::test]
async fn k_26_rejections_and_ends_have_budgets_of_their_own() {
    let api = Api::new(|seen| match seen.url.path() {
        "/bad" => Reply::status(401),
        _ => Reply::status(200),
    });
    let rig = Rig::with(api, Issuer::new(), |b| {
        b.rejection_budget(2, 60 * SECOND).refresh_budget(2, 60 * SECOND)
    });
    for _ in 0..5 {
        let bad = rig.client.get("https://api.test/bad").send().await;
        assert_eq!(outcome(bad), "401");
        assert_eq!(rig.outcome().await, "200", "the rest goes on");
    }
    assert_eq!(rig.issuer.calls(), 2, "the rejections' budget is spent");
    let short = Rig::tokens(1).with_expires_at(rig.clock.wall());
    rig.session.set_tokens(short).await.unwrap();
    assert_eq!(rig.outcome().await, "200", "a token that is over is refreshed all the same");
    assert_eq!(rig.issuer.calls(), 3);

    let rig = Rig::with(Api::rejecting(&["bad"]), Issuer::new(), |b| {
        b.rejection_budget(2, 60 * SECOND).refresh_budget(0, 60 * SECOND)
    });
    rig.session.set_tokens(TokenSet::new("bad").with_refresh_token("r")).await.unwrap();
    assert_eq!(rig.outcome().await, "200", "and the other way round");
}

// ---- K-27 ----

/// K-27: who waits while a refresh runs depends on why it runs. E14.
#[tokio::test]
async fn k_27_new_requests_wait_for_a_refresh_unless_the_token_is_only_stale() {
    for (case, age, rejected, forced, waits) in [
        ("expired", HOUR, false, false, true),
        ("rejected", Duration::ZERO, true, false, true),
        ("stale", HOUR - SECOND, false, false, false),
        ("demanded", Duration::ZERO, false, true, false),
        ("stale, then rejected", HOUR - SECOND, true, false, true),
    ] {
        let api = Api::new(move |seen| match seen.url.path() {
            "/first" if rejected && seen.token() == Some("a0") => Reply::status(401),
            _ => Reply::status(200),
        });
        let rig = Rig::new(api);
        rig.clock.advance(age);
        rig.issuer.hold();
        let (client, session) = (rig.client.clone(), rig.session.clone());
        let first = tokio::spawn(async move {
            match forced {
                true => session.refresh().await.map(drop).unwrap(),
                false => drop(client.get("https://api.test/first").send().await.unwrap()),
            }
        });
        everybody_waits().await;
        assert_eq!(rig.issuer.calls(), 1, "{case}: a refresh is running");
        let new = rig.spawn_get();
        everybody_waits().await;
        assert_eq!(!new.is_finished(), waits, "{case}");
        rig.issuer.release();
        assert_eq!(outcome(new.await.unwrap()), "200", "{case}");
        first.await.unwrap();
        let last = rig.api.seen().into_iter().rev().find(|seen| seen.url.path() == "/orders");
        let expected = if waits { "a1" } else { "a0" };
        assert_eq!(last.unwrap().token(), Some(expected), "{case}");
        assert_eq!(rig.issuer.calls(), 1, "{case}");
    }
}

// ---- K-36 ----

/// K-36, Q-08, Q-63: a refresh that fails while the token is alive disturbs nobody. D05, D06, D11,
/// X16.
#[tokio::test]
async fn k_36_a_failed_refresh_behind_a_living_token_is_not_noticed() {
    for failure in
        [RefreshFailure::Configuration, RefreshFailure::Terminal, RefreshFailure::Unusable]
    {
        let rig = Rig::new(Api::friendly());
        rig.clock.advance(HOUR - 60 * SECOND);
        rig.issuer.then_fails(failure);
        for _ in 0..10 {
            assert_eq!(rig.outcome().await, "200", "{failure:?}");
            everybody_waits().await;
        }
        assert_eq!(rig.issuer.calls(), 1, "{failure:?}: no attempt before the cool-down");
        assert_eq!(rig.api.tokens(), ["a0"; 10]);
        rig.clock.advance(5 * SECOND);
        assert_eq!(rig.outcome().await, "200");
        everybody_waits().await;
        let again = usize::from(failure == RefreshFailure::Unusable);
        assert_eq!(rig.issuer.calls(), 1 + again, "{failure:?}: after the cool-down");
    }
}

/// K-36: a demanded refresh that fails says so, and the token stays. D05.
#[tokio::test]
async fn k_36_a_demanded_refresh_that_fails_leaves_the_living_token() {
    let rig = Rig::new(Api::friendly());
    rig.issuer.then_fails(RefreshFailure::Unusable);
    assert!(rig.session.refresh().await.is_err());
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens(), ["a0"]);
}

/// K-36: a token that was rejected is not alive, whatever its end says. D16.
#[tokio::test]
async fn k_36_a_rejected_token_is_not_used_when_its_refresh_fails() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    rig.issuer.then_fails(RefreshFailure::Unusable);
    let error = rig.get().await.unwrap_err();
    let error = Error::find(&error).unwrap();
    assert_eq!(error.rejection().unwrap().status(), 401);
    assert_eq!(rig.outcome().await, "authorization server unavailable");
    assert_eq!(rig.api.tokens(), ["a0"], "not sent again");
    rig.clock.advance(error.retry_after().unwrap());
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens(), ["a0", "a1"]);
}

/// K-36: when the token is over, the failure that was hidden is not: the next request waits. D06, D03.
#[tokio::test]
async fn k_36_when_the_living_token_ends_requests_wait_for_the_next_try() {
    let hook = Hook::declining();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b));
    rig.clock.advance(HOUR - SECOND);
    rig.issuer.then_fails(RefreshFailure::Unusable);
    assert_eq!(rig.outcome().await, "200");
    everybody_waits().await;
    rig.clock.advance(SECOND);
    let early = rig.outcome().await;
    if early != "200" {
        assert_eq!(early, "authorization server unavailable");
        rig.clock.advance(2 * SECOND);
        assert_eq!(rig.outcome().await, "200");
    }
    assert_eq!((rig.api.tokens(), hook.calls()), (vec!["a0".into(), "a1".into()], 0));
}

/// K-36: tokens set after a failure are used at once, without a refresh. C21, E13.
#[tokio::test]
async fn k_36_tokens_set_after_a_failure_end_its_cool_down() {
    for failure in [RefreshFailure::Configuration, RefreshFailure::Unusable] {
        let rig = Rig::new(Api::rejecting(&["bad"]));
        rig.clock.advance(HOUR);
        rig.issuer.then_fails(failure);
        assert_ne!(rig.outcome().await, "200");
        rig.session.set_tokens(TokenSet::new("u1").with_refresh_token("ur1")).await.unwrap();
        assert_eq!((rig.outcome().await, rig.issuer.calls()), ("200".into(), 1));
        rig.session.set_tokens(TokenSet::new("bad").with_refresh_token("ur1")).await.unwrap();
        assert_eq!((rig.outcome().await, rig.issuer.calls()), ("200".into(), 2));
    }
}

/// K-26, K-36: refreshes that fail are bounded by their cool-downs; they do not use up the budget,
/// and the error goes on saying what is wrong.
#[tokio::test]
async fn k_26_refreshes_that_fail_do_not_spend_the_budget() {
    let rig = Rig::with(Api::rejecting(&["a0"]), Issuer::new(), |builder| {
        builder.rejection_budget(2, HOUR).refresh_budget(2, HOUR)
    });
    for failure in 1..=4 {
        rig.issuer.then_fails(RefreshFailure::Unusable);
        assert_eq!(rig.outcome().await, "authorization server unavailable", "failure {failure}");
        assert_eq!(rig.issuer.calls(), failure);
        rig.clock.advance(121 * SECOND);
    }
    assert_eq!(rig.outcome().await, "200");
}
