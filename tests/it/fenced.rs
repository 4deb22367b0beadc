//! Leases that end before their holder is done, and stores that are away: K-25 and K-61 between
//! processes. The other process is the test, which writes to the store directly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reqwest_refresh::{
    Authenticate, ErrorKind, Lease, LoginReason, MemoryStore, RefreshFailure, StoreError, TokenSet,
    TokenStore,
};
use tokio::sync::Semaphore;

use crate::support::{
    Api, Hook, Issuer, Rig, SECOND, ScriptedStore, everybody_waits, outcome, told,
};

const HOUR: Duration = Duration::from_secs(3600);

pub fn set_of(number: u32) -> TokenSet {
    TokenSet::new(format!("a{number}"))
        .with_refresh_token(format!("r{number}"))
        .with_expires_in(10 * HOUR)
}

/// A session whose token is over, and which has seen its store.
pub async fn rig_over(store: &ScriptedStore, hook: &Hook) -> Rig {
    store.memory.save(&Rig::tokens(3600)).await.unwrap();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b.store(store.clone())));
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    rig
}

/// One GET behind a save that fails, and is tried again.
pub async fn after_three_tries(rig: &Rig) -> reqwest_middleware::Result<reqwest::Response> {
    let request = rig.spawn_get();
    for _ in 0..3 {
        everybody_waits().await;
        rig.clock.advance(SECOND);
    }
    request.await.unwrap()
}

/// K-61, K-20, X25: the process was paused for longer than its lease, and another one has rotated.
#[tokio::test]
async fn k_61_a_holder_whose_lease_was_over_does_not_overwrite_a_newer_pair() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    rig.issuer.hold();
    let mut events = rig.session.events();
    let waiting = [rig.spawn_get(), rig.spawn_get()];
    everybody_waits().await;
    store.memory.save(&set_of(9)).await.unwrap();
    rig.issuer.release();
    for request in waiting {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
    assert_eq!(rig.api.tokens(), ["a0", "a9", "a9"]);
    assert_eq!(store.access_token().await.as_deref(), Some("a9"));
    assert_eq!(told(&mut events).await, ["refreshed 3"]);
    assert_eq!((rig.issuer.calls(), rig.issuer.revoked(), hook.calls()), (1, vec![], 0));
}

/// K-61: what the other process wrote is over already: the stored refresh token gets the next pair.
#[tokio::test]
async fn k_61_a_holder_whose_lease_was_over_begins_again_with_the_stored_token() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    rig.issuer.hold();
    let waiting = rig.spawn_get();
    everybody_waits().await;
    let over = set_of(9).with_expires_at(std::time::SystemTime::UNIX_EPOCH);
    store.memory.save(&over).await.unwrap();
    rig.issuer.release();
    assert_eq!(outcome(waiting.await.unwrap()), "200");
    assert_eq!(rig.issuer.sent(), ["r0", "r9"]);
    assert_eq!(store.access_token().await.as_deref(), Some("a2"));
}

/// K-25, K-50: a logout by another process is not undone by a refresh that was under way here, and
/// what that refresh brought is revoked.
#[tokio::test]
async fn k_25_a_holder_whose_lease_was_over_does_not_undo_a_logout() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    rig.issuer.hold();
    let waiting = rig.spawn_get();
    everybody_waits().await;
    store.memory.clear().await.unwrap();
    rig.issuer.release();
    assert_eq!(outcome(waiting.await.unwrap()), "login required");
    assert_eq!(*hook.reasons.lock(), [LoginReason::LoggedOut]);
    assert_eq!(rig.issuer.revoked(), ["a1"]);
    assert_eq!(store.access_token().await, None);
}

/// K-61, Q-50: nobody sends the refresh token by a lease that is over.
#[tokio::test]
async fn k_61_a_lease_that_is_over_before_the_request_is_taken_again() {
    for (lost, expected, calls) in [(1, "200", 1), (2, "200", 1), (3, "token store", 0)] {
        let (store, hook) = (ScriptedStore::new(), Hook::declining());
        let rig = rig_over(&store, &hook).await;
        store.lose_leases(lost);
        assert_eq!(rig.outcome().await, expected, "{lost} lost");
        assert_eq!(rig.issuer.calls(), calls, "{lost} lost");
        let locks = store.log().iter().filter(|line| *line == "lock").count();
        assert_eq!(locks, (lost + 1).min(3), "{lost} lost");
        rig.clock.advance(2 * SECOND);
        assert_eq!(rig.outcome().await, "200", "{lost} lost: not for ever");
    }
}

/// K-61, K-50: somebody else has used the refresh token after our lease was over, and has not saved
/// yet: nobody is asked to log in before that was looked at.
#[tokio::test]
async fn k_61_a_refusal_after_the_lease_was_over_waits_for_who_has_it_now() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    rig.issuer.then_fails(RefreshFailure::Terminal);
    rig.issuer.hold();
    let waiting = rig.spawn_get();
    everybody_waits().await;
    store.lose_leases(1);
    let memory = store.memory.clone();
    let other = tokio::spawn(async move { memory.lock().await.unwrap() });
    everybody_waits().await;
    rig.issuer.release();
    let lease = other.await.unwrap();
    everybody_waits().await;
    store.memory.save(&set_of(9)).await.unwrap();
    drop(lease);
    assert_eq!(outcome(waiting.await.unwrap()), "200");
    assert_eq!((rig.issuer.calls(), hook.calls()), (1, 0));
}

/// K-61, K-35: nor for a second attempt.
#[tokio::test]
async fn k_61_a_lease_that_ends_between_two_attempts_ends_the_refresh() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    rig.issuer.then_fails(RefreshFailure::Busy);
    rig.issuer.hold();
    let waiting = rig.spawn_get();
    everybody_waits().await;
    store.lose_leases(1);
    rig.issuer.release();
    everybody_waits().await;
    rig.clock.advance(5 * SECOND); // the time between two attempts
    assert_eq!(outcome(waiting.await.unwrap()), "authorization server unavailable");
    assert_eq!((rig.issuer.calls(), hook.calls()), (1, 0));
    rig.clock.advance(60 * SECOND);
    assert_eq!(rig.outcome().await, "200");
}

/// K-36, K-60: without the store nobody knows which refresh token is current, so the token in memory
/// is used up, and no other is got; unless the user takes the risk.
#[tokio::test]
async fn k_60_without_the_store_a_refresh_is_only_tried_if_the_user_allows_it() {
    for (failing, is_allowed) in [("lock", false), ("lock", true), ("load", false), ("load", true)]
    {
        let case = format!("{failing} fails, allowed: {is_allowed}");
        let store = ScriptedStore::new();
        store.memory.save(&Rig::tokens(3600)).await.unwrap();
        let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
            builder.store(store.clone()).refresh_without_store(is_allowed)
        });
        rig.get().await.unwrap();
        store.fail(&["lock", "load", "save"]);
        if failing == "load" {
            store.fail(&["load", "save"]);
        }
        rig.clock.advance(HOUR - 30 * SECOND);
        assert_eq!(rig.outcome().await, "200", "{case}: alive");
        everybody_waits().await;
        rig.clock.advance(60 * SECOND);
        if !is_allowed {
            assert_eq!(rig.outcome().await, "token store", "{case}");
            assert_eq!(rig.issuer.calls(), 0, "{case}");
            continue;
        }
        assert_eq!(outcome(after_three_tries(&rig).await), "200", "{case}");
        assert_eq!(rig.issuer.sent(), ["r0"], "{case}");
        assert_eq!(store.access_token().await.as_deref(), Some("a0"), "{case}");
        store.fail(&[]);
        rig.session.settle().await.unwrap();
        assert_eq!(store.access_token().await.as_deref(), Some("a1"), "{case}: saved later");
    }
}

/// K-60, K-61: a pair that could not be saved at once is saved later, unless somebody else has
/// written a newer one meanwhile; also where it was refreshed from a pair that was found there.
#[tokio::test]
async fn k_60_what_is_saved_late_overwrites_only_what_was_found() {
    for (found_first, written_meanwhile, expected) in
        [(false, false, "a1"), (true, false, "a1"), (false, true, "a9"), (true, true, "a9")]
    {
        let case = format!("found: {found_first}, written meanwhile: {written_meanwhile}");
        let (store, hook) = (ScriptedStore::new(), Hook::declining());
        let rig = rig_over(&store, &hook).await;
        if found_first {
            let over = set_of(5).with_expires_at(std::time::SystemTime::UNIX_EPOCH);
            store.memory.save(&over).await.unwrap();
        }
        store.fail(&["save"]);
        assert_eq!(outcome(after_three_tries(&rig).await), "200", "{case}");
        assert_eq!(rig.issuer.sent(), [if found_first { "r5" } else { "r0" }], "{case}");
        store.fail(&[]);
        if written_meanwhile {
            store.memory.save(&set_of(9)).await.unwrap();
        }
        rig.session.settle().await.unwrap();
        assert_eq!(store.access_token().await.as_deref(), Some(expected), "{case}");
        rig.clock.advance(2 * HOUR);
        rig.get().await.unwrap();
        let next = if written_meanwhile { "a9" } else { "a2" };
        assert_eq!(rig.api.tokens().last().unwrap(), next, "{case}: and the next flight finds it");
    }
}

/// K-25, K-61: a pair that could not be saved, and was overtaken by another process, ends with that
/// process's logout.
#[tokio::test]
async fn k_61_a_logout_elsewhere_counts_for_a_pair_that_was_overtaken() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b.store(store.clone())));
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    store.fail(&["save"]);
    assert_eq!(outcome(after_three_tries(&rig).await), "200");
    store.fail(&[]);
    store.memory.save(&set_of(9)).await.unwrap();
    rig.session.settle().await.unwrap();
    assert_eq!(store.access_token().await.as_deref(), Some("a9"));
    store.memory.clear().await.unwrap();
    rig.clock.advance(HOUR);
    assert_eq!(rig.outcome().await, "login required");
    assert_eq!(rig.issuer.sent(), ["r0"]);
}

/// K-07, K-61: nor is a refresh token kept, from an answer of no other use, over a newer pair.
#[tokio::test]
async fn k_07_a_refresh_token_alone_does_not_overwrite_a_newer_pair() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    rig.issuer.then(Ok(TokenSet::new("").with_refresh_token("r5")));
    rig.issuer.hold();
    let request = rig.spawn_get();
    everybody_waits().await;
    store.memory.save(&set_of(9)).await.unwrap();
    rig.issuer.release();
    assert_eq!(outcome(request.await.unwrap()), "authorization server unavailable");
    let log = store.log();
    rig.session.settle().await.unwrap();
    assert_eq!(store.log(), log, "there is nothing left to write");
    rig.clock.advance(60 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens().last().unwrap(), "a9");
    assert_eq!(rig.issuer.sent(), ["r0"]);
}

/// K-06, K-61: what another process has saved is good for everybody who waited, if it is alive.
#[tokio::test]
async fn k_61_an_adopted_pair_is_as_good_as_a_refreshed_one() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    let end = rig.clock.wall() + 10 * SECOND;
    store.memory.save(&set_of(9).with_expires_at(end)).await.unwrap();
    let request = rig.client.get("https://api.test/orders");
    let wish = Authenticate::ValidFor(HOUR);
    assert_eq!(outcome(request.with_extension(wish).send().await), "200");
    assert_eq!((rig.api.tokens().pop().as_deref(), rig.issuer.calls()), (Some("a9"), 0));
}

/// K-60, K-61: a store that lost its last save, as Redis may by a crash or a failover, holds a pair
/// that is used up: it is not taken for news, whether its access token still lives or not.
#[tokio::test]
async fn k_60_a_store_that_goes_back_to_the_pair_before_is_no_news() {
    for lives in [true, false] {
        let (store, hook) = (ScriptedStore::new(), Hook::declining());
        let rig = rig_over(&store, &hook).await;
        rig.get().await.unwrap();
        let before = Rig::tokens(if lives { 10 * 3600 } else { 0 });
        store.memory.save(&before).await.unwrap();
        rig.clock.advance(HOUR);
        assert_eq!(rig.outcome().await, "200", "lives: {lives}");
        assert_eq!(rig.issuer.sent(), ["r0", "r1"], "lives: {lives}");
        assert_eq!(store.access_token().await.as_deref(), Some("a2"), "lives: {lives}");
    }
}

/// K-50, K-60: nor does it revive a session whose later pair was refused.
#[tokio::test]
async fn k_50_a_store_that_goes_back_to_the_pair_before_revives_nobody() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, "login required");
    store.memory.save(&Rig::tokens(10 * 3600)).await.unwrap();
    rig.clock.advance(60 * SECOND);
    assert_eq!(rig.outcome().await, "login required");
    store.memory.save(&set_of(9)).await.unwrap();
    rig.clock.advance(60 * SECOND);
    assert_eq!(rig.outcome().await, "200");
}

/// K-61, K-70: a store that is written again and again while it is locked is an error, not a loop.
#[tokio::test]
async fn k_61_beginning_again_has_an_end() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    store.lose_leases(usize::MAX);
    let error = rig.session.tokens().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Store), "{error}");
    assert!(error.retry_after().is_some());
    assert_eq!((rig.issuer.calls(), hook.calls()), (0, 0));
}

/// A store whose lock is free some time after it was given back: when there is a permit.
#[derive(Clone)]
struct FarAway {
    memory: MemoryStore,
    is_free: Arc<Semaphore>,
    is_unreadable: Arc<AtomicBool>,
}

#[async_trait]
impl TokenStore for FarAway {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        match self.is_unreadable.load(Ordering::Relaxed) {
            true => Err("scripted".into()),
            false => self.memory.load().await,
        }
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        self.memory.save(tokens).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.memory.clear().await
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        let is_free = Arc::clone(&self.is_free);
        Ok(self.memory.lock().await?.free_after(async move {
            is_free.acquire().await.unwrap().forget();
        }))
    }
}

/// K-61: who ends a program after a refresh, a login or a logout has freed the lock, also where what
/// is locked could not be read; a store that does not say when it is free is waited for only so long.
#[tokio::test]
async fn k_61_a_session_does_not_settle_before_the_lock_is_free() {
    for (what, is_freed) in [
        ("refresh", true),
        ("login", true),
        ("logout", true),
        ("hook", true),
        ("unreadable", true),
        ("refresh", false),
    ] {
        let case = format!("{what}, freed: {is_freed}");
        let store = FarAway {
            memory: MemoryStore::new(),
            is_free: Arc::new(Semaphore::new(0)),
            is_unreadable: Arc::default(),
        };
        store.memory.save(&Rig::tokens(3600)).await.unwrap();
        let hook = Hook::returning(set_of(7));
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b.store(store.clone())));
        rig.get().await.unwrap();
        rig.clock.advance(HOUR);
        if what == "hook" {
            rig.issuer.then_fails(RefreshFailure::Terminal);
            store.is_free.add_permits(1); // for the refresh that is refused
        }
        store.is_unreadable.store(what == "unreadable", Ordering::Relaxed);
        let session = rig.session.clone();
        let working = tokio::spawn(async move {
            match what {
                "login" => session.set_tokens(set_of(8)).await?,
                "logout" => session.clear().await?,
                "unreadable" => drop(session.tokens().await.unwrap_err()),
                _ => drop(session.tokens().await?),
            }
            session.settle().await
        });
        everybody_waits().await;
        assert!(!working.is_finished(), "{case}");
        match is_freed {
            true => store.is_free.add_permits(1),
            false => rig.clock.advance(10 * SECOND), // what a store is given for anything
        }
        working.await.unwrap().unwrap();
    }
}

/// K-25: tokens that are cleared after they came, while the lock is still given back, go to nobody.
#[tokio::test]
async fn k_25_what_is_cleared_while_the_lock_is_given_back_is_not_sent() {
    let store = FarAway {
        memory: MemoryStore::new(),
        is_free: Arc::new(Semaphore::new(0)),
        is_unreadable: Arc::default(),
    };
    store.memory.save(&Rig::tokens(3600)).await.unwrap();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    let before = rig.spawn_get();
    everybody_waits().await;
    assert_eq!(rig.issuer.calls(), 1);
    let session = rig.session.clone();
    let clearing = tokio::spawn(async move { session.clear().await });
    everybody_waits().await;
    let after = rig.spawn_get();
    everybody_waits().await;
    store.is_free.add_permits(10);
    clearing.await.unwrap().unwrap();
    for request in [before, after] {
        assert_eq!(outcome(request.await.unwrap()), "login required");
    }
    assert_eq!(rig.api.tokens(), ["a0"]);
}
