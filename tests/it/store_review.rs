//! What a second pair of eyes broke in the keeping of tokens, each as the test that showed it. The
//! other process is the test, which writes to the store directly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use reqwest_refresh::{
    ErrorKind, Lease, LoginReason, ManualClock, Session, StoreError, TokenSet, TokenStore,
};

use crate::fenced::{after_three_tries, rig_over, set_of};
use crate::simulated::{log_in_in_vain, login_and_successor};
use crate::support::{
    Api, Hook, Issuer, Rig, SECOND, ScriptedStore, everybody_waits, outcome, told,
};

const HOUR: Duration = Duration::from_secs(3600);

/// K-71: `Saved` was told although the store had refused: somebody else had written a newer pair.
#[tokio::test]
async fn k_71_what_somebody_has_outrun_is_not_told_as_saved() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    store.fail(&["save"]);
    after_three_tries(&rig).await.unwrap();
    store.fail(&[]);
    store.memory.save(&set_of(9)).await.unwrap();
    let mut events = rig.session.events();
    rig.session.settle().await.unwrap();
    assert_eq!(told(&mut events).await, [""; 0]);
    assert_eq!(store.access_token().await.as_deref(), Some("a9"));
}

/// K-26: a lease that was over before anything was sent cost a refresh of the budget.
#[tokio::test]
async fn k_26_a_lease_that_is_over_before_the_request_costs_no_budget() {
    let store = ScriptedStore::new();
    store.memory.save(&Rig::tokens(3600)).await.unwrap();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        builder.store(store.clone()).refresh_budget(1, HOUR)
    });
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    store.lose_leases(2);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.calls(), 1);
}

/// K-25, K-53: a logout elsewhere was undone by the refresh after a save that had failed.
#[tokio::test]
async fn k_25_a_logout_elsewhere_counts_more_than_a_pair_that_could_not_be_saved() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    store.fail(&["save"]);
    after_three_tries(&rig).await.unwrap();
    store.fail(&[]);
    store.memory.clear().await.unwrap();
    rig.clock.advance(HOUR);
    assert_eq!(rig.outcome().await, "login required");
    assert_eq!(*hook.reasons.lock(), [LoginReason::LoggedOut]);
    assert_eq!(rig.issuer.sent(), ["r0"]);
    assert_eq!(store.access_token().await, None);
    store.memory.save(&set_of(9)).await.unwrap();
    rig.session.settle().await.unwrap();
    assert_eq!(store.access_token().await.as_deref(), Some("a9"), "nothing is left to be written");
}

/// K-25: the same for a pair that was found in the store and had never been in use here: after the
/// logout the session went back to its own old pair.
#[tokio::test]
async fn k_25_a_logout_during_the_first_refresh_of_a_found_pair_is_a_logout() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b.store(store.clone())));
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    let over = set_of(9).with_expires_at(SystemTime::UNIX_EPOCH);
    store.memory.save(&over).await.unwrap();
    rig.issuer.hold();
    let waiting = rig.spawn_get();
    everybody_waits().await;
    store.memory.clear().await.unwrap();
    rig.issuer.release();
    assert_eq!(outcome(waiting.await.unwrap()), "login required");
    assert_eq!(*hook.reasons.lock(), [LoginReason::LoggedOut]);
    assert_eq!(rig.issuer.sent(), ["r9"]);
    assert_eq!(rig.issuer.revoked(), ["a1"]);
    assert_eq!(store.access_token().await, None);
}

/// K-25, K-60: what the user said could not be saved yet, and another process wrote during the next
/// refresh: the refresh token that the user gave was sent twice.
#[tokio::test]
async fn k_60_a_refresh_of_what_the_user_said_is_not_outrun() {
    let (store, hook) = (ScriptedStore::new(), Hook::declining());
    let rig = rig_over(&store, &hook).await;
    let [login, successor] = login_and_successor().await;
    store.memory.save(&login).await.unwrap();
    log_in_in_vain(&rig, &store, set_of(7)).await;
    rig.clock.advance(10 * HOUR);
    rig.issuer.hold();
    let waiting = rig.spawn_get();
    everybody_waits().await;
    store.memory.save(&successor).await.unwrap();
    rig.issuer.release();
    assert_eq!(outcome(waiting.await.unwrap()), "200");
    assert_eq!(rig.issuer.sent(), ["r7"]);
    assert_eq!(store.access_token().await.as_deref(), Some("a1"));
}

/// K-60: a pair that was refreshed before anybody could look into the store was never saved: an old
/// one was there, and `settle` said that all was well.
#[tokio::test]
async fn k_60_a_pair_from_before_the_first_look_replaces_the_one_that_it_came_from() {
    let store = ScriptedStore::holding(Rig::tokens(3600)).await;
    store.fail(&["lock", "load", "save"]);
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        builder.store(store.clone()).refresh_without_store(true)
    });
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    assert_eq!(outcome(after_three_tries(&rig).await), "200");
    assert_eq!(rig.issuer.sent(), ["r0"]);
    store.fail(&[]);
    rig.session.settle().await.unwrap();
    assert_eq!(store.access_token().await.as_deref(), Some("a1"));
    rig.clock.advance(HOUR);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["r0", "r1"]);
}

/// K-61: with a store that can be locked but not read, the lock was given back before the refresh.
#[tokio::test]
async fn k_61_a_lease_is_held_although_the_store_cannot_be_read() {
    let store = ScriptedStore::holding(Rig::tokens(3600)).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        builder.store(store.clone()).refresh_without_store(true)
    });
    rig.get().await.unwrap();
    store.fail(&["load"]);
    rig.clock.advance(HOUR);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(store.log(), ["load", "lock", "load", "save a1", "unlock"]);
}

/// K-53: with a store that nobody has looked into yet, and that is away, somebody was asked to log in.
#[tokio::test]
async fn k_53_nobody_logs_in_because_the_store_is_away() {
    let (store, hook) = (ScriptedStore::holding(Rig::tokens(3600)).await, Hook::declining());
    let clock = ManualClock::new();
    let builder = Session::builder(Issuer::new()).allow_origin("https://api.test");
    let builder = builder.clock(clock.clone()).store(store.clone()).refresh_without_store(true);
    let session = hook.on(builder).build().unwrap();
    store.fail(&["lock", "load"]);
    for _ in 0..3 {
        let error = session.tokens().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Store), "{error}");
        clock.advance(SECOND);
    }
    assert_eq!(hook.calls(), 0);
    store.fail(&[]);
    clock.advance(60 * SECOND);
    assert_eq!(session.tokens().await.unwrap().access_token(), "a0");
}

/// A store whose `replace` is done but says that it failed, or waits in its middle.
#[derive(Clone)]
struct Odd {
    scripted: ScriptedStore,
    lies: Arc<AtomicBool>,
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl Odd {
    async fn new() -> Self {
        let scripted = ScriptedStore::holding(Rig::tokens(3600)).await;
        Self { scripted, lies: Arc::default(), gate: Arc::default() }
    }
}

#[async_trait]
impl TokenStore for Odd {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        self.scripted.load().await
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        self.scripted.save(tokens).await
    }

    async fn replace(
        &self,
        before: Option<&TokenSet>,
        tokens: &TokenSet,
    ) -> Result<bool, StoreError> {
        drop(self.gate.lock().await);
        let is_replaced = self.scripted.replace(before, tokens).await?;
        match self.lies.load(Ordering::Relaxed) {
            true => Err("the answer was lost".into()),
            false => Ok(is_replaced),
        }
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.scripted.clear().await
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        self.scripted.lock().await
    }
}

/// K-60, K-73: the session's own pair, whose save had been done without its knowing, was taken for
/// that of another process: whoever asked for a new one got the same again.
#[tokio::test]
async fn k_60_a_save_that_was_done_without_our_knowing_is_no_news() {
    let store = Odd::new().await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    store.lies.store(true, Ordering::Relaxed);
    assert_eq!(outcome(after_three_tries(&rig).await), "200");
    store.lies.store(false, Ordering::Relaxed);
    assert_eq!(store.scripted.access_token().await.as_deref(), Some("a1"));
    assert_eq!(rig.session.refresh().await.unwrap().access_token(), "a2");
    assert_eq!(rig.issuer.sent(), ["r0", "r1"]);
}

/// K-25: a logout while a new pair was being saved revoked the old pair, and the new one lived on.
#[tokio::test]
async fn k_25_a_logout_during_a_save_revokes_what_is_saved() {
    let store = Odd::new().await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    let saving = store.gate.lock().await;
    let request = rig.spawn_get();
    everybody_waits().await;
    let session = rig.session.clone();
    let logout = tokio::spawn(async move { session.log_out().await });
    everybody_waits().await;
    drop(saving);
    logout.await.unwrap().unwrap();
    assert_eq!(outcome(request.await.unwrap()), "login required");
    assert!(rig.issuer.revoked().contains(&"a1".into()), "{:?}", rig.issuer.revoked());
    assert_eq!(store.scripted.access_token().await, None);
}

/// K-25, K-51: what a login hook brings after a logout is not what the logout meant.
#[tokio::test]
async fn k_25_a_login_after_a_logout_is_not_revoked() {
    let (store, hook) = (ScriptedStore::new(), Hook::returning(set_of(7)));
    let rig = rig_over(&store, &hook).await;
    rig.session.log_out().await.unwrap();
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.revoked(), ["a0"]);
    assert_eq!(store.access_token().await.as_deref(), Some("a7"));
}
