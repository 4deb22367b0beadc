//! Stores and hooks that fail or panic: an error for everybody, and the pair stays.

use async_trait::async_trait;
use reqwest_refresh::{
    Lease, LoginReason, MemoryStore, RefreshFailure, StoreError, TokenSet, TokenStore,
};

use crate::bad_input::{check, pair};
use crate::support::{Api, Issuer, Rig, SECOND, ScriptedStore, everybody_waits, outcome, told};

/// K-60, G13, X10, C18: one operation fails at a time. The pair stays, and what failed is said.
#[tokio::test]
async fn k_60_a_store_that_fails_is_an_error_of_its_own_or_an_event() {
    for (operation, at_first, at_refresh, event, after) in [
        ("load", "token store", "token store", "refresh failed: token store", ["a0", "r0"]),
        ("lock", "200", "token store", "refresh failed: token store", ["a0", "r0"]),
        ("save", "200", "200", "not saved: token store", ["a1", "r1"]),
        ("clear", "200", "200", "saved", ["a1", "r1"]),
    ] {
        let store = ScriptedStore::new();
        store.fail(&[operation]);
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
        let mut events = rig.session.events();
        let first = rig.outcome().await;
        assert!(first == at_first || first == "200", "{operation}: {first}");
        rig.clock.advance(3600 * SECOND);
        // Twice: the first read of a store is not a refresh.
        assert_eq!(outlived(&rig).await, at_refresh, "{operation}");
        assert_eq!(outlived(&rig).await, at_refresh, "{operation}");
        assert_eq!(pair(&rig.session), after, "{operation}");
        let lines = told(&mut events).await;
        assert!(lines.contains(&event.to_owned()), "{operation}: {lines:?}");

        store.fail(&[]);
        rig.clock.advance(60 * SECOND);
        assert_eq!(rig.outcome().await, "200", "{operation}: the store is well again");
        rig.session.settle().await.unwrap();
        let current = pair(&rig.session)[0].clone();
        assert_eq!(store.access_token().await, Some(current), "{operation}");
    }
}

/// What a GET comes to, while the test lets the time between two writes pass.
async fn outlived(rig: &Rig) -> String {
    let request = rig.spawn_get();
    while !request.is_finished() {
        everybody_waits().await;
        let sleeps = rig.clock.sleepers();
        if let Some(shortest) = sleeps.first().filter(|sleep| **sleep < SECOND) {
            rig.clock.advance(*shortest);
        }
    }
    outcome(request.await.unwrap())
}

/// K-60, C18, K-73: the explicit operations report the store, and what they did in memory is done.
#[tokio::test]
async fn k_60_set_clear_and_log_out_say_that_the_store_failed() {
    let store = ScriptedStore::new();
    store.fail(&["save", "clear"]);
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    let session = &rig.session;
    let words = "the token store could not be written";
    let error = while_time_passes(&rig, session.set_tokens(TokenSet::new("set"))).await;
    check("set", &error.unwrap_err(), "token store", words);
    assert_eq!(pair(session), ["set", "-"]);
    let error = while_time_passes(&rig, session.settle()).await;
    check("settle", &error.unwrap_err(), "token store", words);
    let error = while_time_passes(&rig, session.clear()).await;
    check("clear", &error.unwrap_err(), "token store", words);
    assert_eq!(pair(session), ["-", "-"]);
    let error = while_time_passes(&rig, session.log_out()).await;
    check("log out", &error.unwrap_err(), "token store", words);
    store.fail(&[]);
    session.settle().await.unwrap();
    assert_eq!(store.access_token().await, None);
}

async fn while_time_passes<T>(rig: &Rig, work: impl Future<Output = T>) -> T {
    let time = async {
        loop {
            everybody_waits().await;
            if let Some(shortest) = rig.clock.sleepers().first().filter(|s| **s < SECOND) {
                rig.clock.advance(*shortest);
            }
        }
    };
    tokio::select! {
        result = work => result,
        () = time => unreachable!(),
    }
}

/// A store that panics wherever it can.
struct Panicking(&'static str, MemoryStore);

impl Panicking {
    fn at(&self, operation: &str) {
        assert_ne!(self.0, operation, "scripted panic");
    }
}

#[async_trait]
impl TokenStore for Panicking {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        self.at("load");
        self.1.load().await
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        self.at("save");
        self.1.save(tokens).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.at("clear");
        self.1.clear().await
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        self.at("lock");
        self.1.lock().await
    }
}

/// K-24, X22.
#[tokio::test]
async fn k_24_a_store_that_panics_is_an_error_for_every_waiter_and_costs_no_pair() {
    for (operation, expected, after) in [
        ("load", "refresh interrupted", ["a0", "r0"]),
        ("lock", "refresh interrupted", ["a0", "r0"]),
        // The server had given the pair already, and the old one is burnt.
        ("save", "200", ["a1", "r1"]),
    ] {
        let store = Panicking(operation, MemoryStore::new());
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store));
        let _ = rig.outcome().await;
        rig.clock.advance(3600 * SECOND);
        let requests: Vec<_> = (0..5).map(|_| rig.spawn_get()).collect();
        for request in requests {
            let outcome = outcome(request.await.unwrap());
            assert_eq!(outcome, expected, "{operation}");
        }
        assert_eq!(pair(&rig.session), after, "{operation}");
        let error = rig.session.set_tokens(TokenSet::new("set")).await.unwrap_err();
        assert_eq!(pair(&rig.session), ["set", "-"], "{operation}");
        check(operation, &error, "refresh interrupted", "the store panicked");
    }
}

/// K-24, X22, K-50.
#[tokio::test]
async fn k_24_a_hook_that_panics_has_declined_for_everybody() {
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        builder.on_login_required(|why: LoginReason| async move { panic!("{}", why.explain()) })
    });
    rig.clock.advance(3600 * SECOND);
    rig.issuer.hold();
    rig.issuer.then_fails(RefreshFailure::Terminal);
    let requests: Vec<_> = (0..5).map(|_| rig.spawn_get()).collect();
    everybody_waits().await;
    rig.issuer.release();
    for request in requests {
        let outcome = outcome(request.await.unwrap());
        assert_eq!(outcome, "login required");
    }
    assert_eq!((rig.issuer.calls(), rig.api.arrived()), (1, 0));
    assert_eq!(pair(&rig.session), ["a0", "r0"]);
    rig.session.set_tokens(TokenSet::new("later")).await.unwrap();
    assert_eq!(rig.outcome().await, "200");
}

/// K-24, X22: a hook whose call itself panics, before there is a future.
#[tokio::test]
async fn k_24_a_hook_that_panics_at_once_has_declined_too() {
    fn no_future(_: LoginReason) -> std::future::Ready<Option<TokenSet>> {
        panic!("scripted panic")
    }
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.on_login_required(no_future));
    rig.clock.advance(3600 * SECOND);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, "login required");
    assert_eq!(pair(&rig.session), ["a0", "r0"]);
}
