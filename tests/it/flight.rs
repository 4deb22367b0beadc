//! One refresh for everybody, whatever happens to those who wait for it.

use std::time::Duration;

use reqwest_middleware::ClientWithMiddleware;
use reqwest_refresh::{Error, ErrorKind, Provider, RefreshFailure, TokenSet, TokenStore};

use crate::support::{Api, Issuer, Rig, SECOND, ScriptedStore, everybody_waits, fed_body, outcome};

const HOUR: Duration = Duration::from_secs(3600);

/// A rig whose token is over.
fn expired(api: Api) -> Rig {
    let rig = Rig::new(api);
    rig.clock.advance(HOUR);
    rig
}

// ---- K-20 ----

/// K-20, Q-50, Q-52: many requests, a late one, the handle: one refresh. C01, C02, C03, C06.
#[tokio::test]
async fn k_20_whoever_needs_a_refresh_joins_the_one_that_runs() {
    let rig = expired(Api::friendly());
    for round in 1..=3 {
        rig.issuer.hold();
        let first = rig.spawn_get();
        everybody_waits().await;
        assert_eq!(rig.issuer.calls(), round, "a refresh is running");
        let late = rig.spawn_get();
        let other = Rig::client(&rig.session, &rig.api);
        let other = tokio::spawn(async move { other.get("https://api.test/x").send().await });
        let session = rig.session.clone();
        let handle = tokio::spawn(async move { session.tokens().await });
        let session = rig.session.clone();
        let forced = tokio::spawn(async move { session.refresh().await });
        everybody_waits().await;
        assert_eq!(rig.issuer.calls(), round, "a late one joins");
        rig.issuer.release();
        for request in [first, late, other] {
            assert_eq!(outcome(request.await.unwrap()), "200");
        }
        let token = format!("a{round}");
        assert_eq!(handle.await.unwrap().unwrap().access_token(), token);
        assert_eq!(forced.await.unwrap().unwrap().access_token(), token);
        assert_eq!(rig.issuer.calls(), round);
        assert_eq!(rig.api.tokens()[(round - 1) * 3..], vec![token; 3], "and no 401");
        rig.clock.advance(HOUR);
    }
}

/// K-20: a failure is shared too, and nothing is sent. C04.
#[tokio::test]
async fn k_20_a_hundred_requests_share_one_failure() {
    for (failure, expected) in [
        (RefreshFailure::Unusable, "authorization server unavailable"),
        (RefreshFailure::Configuration, "configuration"),
        (RefreshFailure::Terminal, "login required"),
    ] {
        let rig = expired(Api::friendly());
        rig.issuer.then_fails(failure);
        rig.issuer.hold();
        let requests: Vec<_> = (0..100).map(|_| rig.spawn_get()).collect();
        everybody_waits().await;
        rig.issuer.release();
        let mut messages = Vec::new();
        for request in requests {
            let error = request.await.unwrap().unwrap_err();
            let error = Error::find(&error).expect("ours");
            assert_eq!(error.kind().to_string(), expected);
            messages.push(error.to_string());
        }
        messages.dedup();
        assert_eq!(messages.len(), 1, "{messages:?}");
        assert_eq!((rig.issuer.calls(), rig.api.arrived()), (1, 0), "{expected}");
    }
}

/// K-20: parallel 401s share one refresh, and each is sent again once. E03, X03, X25.
#[tokio::test]
async fn k_20_parallel_rejections_share_one_refresh() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    rig.api.hold();
    rig.issuer.hold();
    let requests: Vec<_> = (0..6).map(|_| rig.spawn_get()).collect();
    everybody_waits().await;
    rig.api.release();
    everybody_waits().await;
    rig.issuer.release();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
    assert_eq!(rig.issuer.calls(), 1);
    assert_eq!(rig.api.tokens(), [vec!["a0"; 6], vec!["a1"; 6]].concat());
}

/// K-20: two accounts share nothing. C09, X17.
#[tokio::test]
async fn k_20_two_sessions_do_not_share_a_refresh() {
    let (one, other) = (expired(Api::friendly()), expired(Api::friendly()));
    one.issuer.hold();
    let waiting = one.spawn_get();
    everybody_waits().await;
    assert_eq!(other.outcome().await, "200");
    one.issuer.release();
    assert_eq!(outcome(waiting.await.unwrap()), "200");
    assert_eq!((one.issuer.calls(), other.issuer.calls()), (1, 1));
}

// ---- K-21 ----

/// K-21, Q-61: the leader goes, the refresh stays. C13, C14, X06.
#[tokio::test]
async fn k_21_dropping_the_request_that_started_a_refresh_does_not_lose_the_new_token() {
    let rig = expired(Api::friendly());
    rig.issuer.hold();
    let leader = rig.spawn_get();
    everybody_waits().await;
    let waiter = rig.spawn_get();
    everybody_waits().await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    rig.issuer.release();
    assert_eq!(outcome(waiter.await.unwrap()), "200");
    assert_eq!((rig.issuer.sent(), rig.api.tokens()), (vec!["r0".into()], vec!["a1".into()]));
}

/// K-21, Q-61: nobody is left, and the rotated pair is kept all the same. C14.
#[tokio::test]
async fn k_21_a_refresh_that_nobody_waits_for_any_more_is_finished_and_saved() {
    let store = ScriptedStore::holding(Rig::tokens(3600)).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    rig.get().await.unwrap(); // the store has been read
    rig.clock.advance(HOUR);
    rig.issuer.hold();
    let leader = rig.spawn_get();
    everybody_waits().await;
    leader.abort();
    everybody_waits().await;
    rig.issuer.release();
    everybody_waits().await;
    assert_eq!(store.access_token().await.unwrap(), "a1");
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["r0"]);
}

/// K-21: only the waiter that is cancelled fails. C12.
#[tokio::test]
async fn k_21_a_cancelled_waiter_disturbs_nobody() {
    let rig = expired(Api::friendly());
    rig.issuer.hold();
    let mut requests: Vec<_> = (0..10).map(|_| rig.spawn_get()).collect();
    everybody_waits().await;
    for request in requests.drain(3..7) {
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled(), "it leaves at once");
    }
    rig.issuer.release();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
    assert_eq!((rig.issuer.calls(), rig.api.arrived()), (1, 6));
}

/// K-21: a deadline is one request's own, be it the first one's or another's. X05, X06.
#[tokio::test]
async fn k_21_a_request_that_times_out_leaves_at_once_and_alone() {
    let rig = expired(Api::friendly());
    rig.issuer.hold();
    let hasty = |client: &ClientWithMiddleware| {
        let request = client.get("https://api.test/hasty").timeout(SECOND / 10);
        tokio::spawn(async move { request.send().await })
    };
    let leader = hasty(&rig.client);
    everybody_waits().await;
    let patient = rig.spawn_get();
    let waiter = hasty(&rig.client);
    everybody_waits().await;
    rig.clock.advance(SECOND / 10);
    assert_eq!(outcome(leader.await.unwrap()), "timed out");
    assert_eq!(outcome(waiter.await.unwrap()), "timed out");
    everybody_waits().await;
    assert!(!patient.is_finished());
    rig.issuer.release();
    assert_eq!(outcome(patient.await.unwrap()), "200");
    assert_eq!((rig.issuer.calls(), rig.api.arrived()), (1, 1));
}

/// K-21: a refresh that hangs ends by its own deadline, and the next one is tried. X07, D15.
#[tokio::test]
async fn k_21_a_refresh_that_hangs_is_given_up_and_another_is_tried() {
    let rig = expired(Api::friendly());
    rig.issuer.hold();
    let waiting = rig.spawn_get();
    everybody_waits().await;
    rig.clock.advance(SECOND * 30 - SECOND / 1000);
    everybody_waits().await;
    assert!(!waiting.is_finished());
    rig.clock.advance(SECOND / 1000);
    let error = waiting.await.unwrap().unwrap_err();
    let error = Error::find(&error).unwrap();
    assert!(matches!(error.kind(), ErrorKind::Unavailable));
    rig.clock.advance(error.retry_after().unwrap());
    rig.issuer.release();
    assert_eq!(rig.outcome().await, "200");
}

/// K-21: the session outlives the runtime on which its refresh ran.
#[test]
fn k_21_a_runtime_that_ends_ends_the_refresh_and_not_the_session() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let rig = expired(Api::friendly());
    rig.issuer.hold();
    let first = runtime();
    first.block_on(async {
        drop(rig.spawn_get());
        everybody_waits().await;
    });
    assert_eq!(rig.issuer.calls(), 1);
    let second = runtime();
    second.block_on(async {
        let session = rig.session.clone();
        let waiting = tokio::spawn(async move { session.tokens().await });
        everybody_waits().await;
        assert!(!waiting.is_finished());
        std::thread::spawn(move || drop(first)).join().unwrap();
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Interrupted), "{error}");
        rig.issuer.release();
        rig.clock.advance(SECOND);
        assert_eq!(rig.outcome().await, "200");
        rig.session.settle().await.unwrap();
    });
}

/// K-21, K-60: a runtime that ends during the save does not take the rotated pair with it. X11.
#[test]
fn k_21_a_runtime_that_ends_during_a_save_leaves_the_new_pair_in_memory() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = ScriptedStore::new();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    let first = runtime();
    first.block_on(async {
        rig.outcome().await; // the store has been read
        rig.clock.advance(HOUR);
        rig.issuer.hold();
        drop(rig.spawn_get());
        everybody_waits().await;
        store.hold();
        rig.issuer.release();
        everybody_waits().await;
        assert_eq!(store.log().last().unwrap(), "save a1");
    });
    drop(first);
    store.release();
    runtime().block_on(async {
        rig.clock.advance(SECOND);
        assert_eq!(rig.outcome().await, "200");
        assert_eq!(rig.issuer.sent(), ["r0"], "r0 is used up");
        rig.session.settle().await.unwrap();
        assert_eq!(store.access_token().await.unwrap(), "a1");
    });
}

/// K-21: `settle` waits for the flight, and for what is unsaved.
#[tokio::test]
async fn k_21_settle_waits_for_the_flight_and_for_the_store() {
    let store = ScriptedStore::holding(Rig::tokens(3600)).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    rig.session.settle().await.unwrap();
    rig.get().await.unwrap();
    rig.clock.advance(HOUR - SECOND);
    rig.issuer.hold();
    rig.get().await.unwrap(); // refreshes behind itself
    let session = rig.session.clone();
    let settled = tokio::spawn(async move { session.settle().await });
    everybody_waits().await;
    assert!(!settled.is_finished(), "a refresh is running");
    store.hold();
    rig.issuer.release();
    everybody_waits().await;
    assert!(!settled.is_finished(), "a save is running");
    store.release();
    settled.await.unwrap().unwrap();
    assert_eq!(store.access_token().await.unwrap(), "a1");
}

/// K-21: what is set while `settle` waits is waited for too; what cannot be saved is an error.
#[tokio::test]
async fn k_21_settle_does_not_return_while_newer_tokens_are_unsaved() {
    let store = ScriptedStore::new();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    store.fail(&["save"]);
    let set = |name: &'static str| {
        let session = rig.session.clone();
        tokio::spawn(async move { session.set_tokens(TokenSet::new(name)).await })
    };
    let first = set("u1");
    while !first.is_finished() {
        everybody_waits().await;
        rig.clock.advance(SECOND);
    }
    first.await.unwrap().unwrap_err();
    let session = rig.session.clone();
    let settled = tokio::spawn(async move { session.settle().await });
    while !settled.is_finished() {
        everybody_waits().await;
        rig.clock.advance(SECOND);
    }
    let error = settled.await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Store), "{error}");

    // u1 waits for a sibling's lock; meanwhile u2 is set, and u1 need not be saved any more.
    store.fail(&[]);
    let lease = store.memory.lock().await.unwrap();
    let session = rig.session.clone();
    let settled = tokio::spawn(async move { session.settle().await });
    everybody_waits().await;
    let second = set("u2");
    everybody_waits().await;
    store.hold();
    drop(lease);
    everybody_waits().await;
    assert_eq!(store.log().last().unwrap(), "load", "what u2 is written over");
    assert!(!settled.is_finished(), "u2 is not saved yet");
    store.release();
    settled.await.unwrap().unwrap();
    assert_eq!(store.access_token().await.unwrap(), "u2");
    second.await.unwrap().unwrap();
}

/// K-27, K-43, Q-57: a body that can be sent only once does not go out with a token that the
/// running refresh ends; with any other it does.
#[tokio::test]
async fn k_43_a_one_shot_waits_for_a_refresh_only_where_that_ends_its_token() {
    for (revokes, at_once) in [(false, 1), (true, 0)] {
        let provider = Provider::rfc6749().with_revoking_refresh(revokes);
        let rig = Rig::with(Api::friendly(), Issuer::with(HOUR, provider), |b| b);
        rig.issuer.hold();
        let session = rig.session.clone();
        let forced = tokio::spawn(async move { session.refresh().await });
        everybody_waits().await;
        let (_, body) = fed_body();
        let request = rig.client.post("https://api.test/upload").body(body);
        let request = tokio::spawn(request.send());
        everybody_waits().await;
        assert_eq!(rig.api.arrived(), at_once, "revokes: {revokes}");
        rig.issuer.release();
        forced.await.unwrap().unwrap();
        assert_eq!(outcome(request.await.unwrap()), "200", "revokes: {revokes}");
    }
}
