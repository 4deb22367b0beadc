//! What the user says beats what runs: a refresh, a save, a hook, a first look into the store.

use std::sync::Arc;
use std::time::Duration;

use reqwest_refresh::{RefreshFailure, Status, TokenSet, TokenStore};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::support::{Api, Issuer, Rig, SECOND, ScriptedStore, everybody_waits, outcome, told};

const HOUR: Duration = Duration::from_secs(3600);

/// What the user says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Say {
    Clear,
    LogOut,
    Set,
}

impl Say {
    const ALL: [Self; 3] = [Self::Clear, Self::LogOut, Self::Set];

    fn spawn(self, rig: &Rig) -> JoinHandle<Result<(), reqwest_refresh::Error>> {
        let session = rig.session.clone();
        tokio::spawn(async move {
            match self {
                Self::Clear => session.clear().await,
                Self::LogOut => session.log_out().await,
                Self::Set => {
                    let tokens = TokenSet::new("u1").with_refresh_token("ur1");
                    session.set_tokens(tokens).await
                }
            }
        })
    }

    /// The access token afterwards.
    fn token(self) -> Option<&'static str> {
        (self == Self::Set).then_some("u1")
    }
}

/// A session that has read its store, and whose token is over.
async fn rig_over(store: &ScriptedStore) -> Rig {
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    store.memory.save(&Rig::tokens(3600)).await.unwrap();
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    rig
}

fn current(rig: &Rig) -> Option<String> {
    let tokens = rig.session.current_tokens();
    tokens.map(|tokens| tokens.access_token().to_owned())
}

// ---- K-25 ----

/// K-25: during the token request. C15, C17, X24.
#[tokio::test]
async fn k_25_what_the_user_says_during_a_refresh_wins_in_memory_and_in_the_store() {
    for say in Say::ALL {
        let store = ScriptedStore::new();
        let rig = rig_over(&store).await;
        rig.issuer.hold();
        let waiting = rig.spawn_get();
        everybody_waits().await;
        let said = say.spawn(&rig);
        everybody_waits().await;
        assert_eq!(current(&rig).as_deref(), say.token(), "{say:?}: at once");
        assert_eq!(waiting.is_finished(), say == Say::Set, "{say:?}: goes on at once");
        rig.issuer.release();
        said.await.unwrap().unwrap();
        rig.session.settle().await.unwrap();
        assert_eq!(current(&rig).as_deref(), say.token(), "{say:?}");
        assert_eq!(store.access_token().await.as_deref(), say.token(), "{say:?}");
        let expected = if say == Say::Set { "200" } else { "login required" };
        assert_eq!(outcome(waiting.await.unwrap()), expected);
        assert!(!store.log().contains(&"save a1".to_owned()), "{say:?}: a1 is nobody's");
    }
}

/// K-25: while the store is being written: the last write is the user's. C15, C17, X24.
#[tokio::test]
async fn k_25_what_the_user_says_during_a_save_is_written_last() {
    for say in Say::ALL {
        let store = ScriptedStore::new();
        let rig = rig_over(&store).await;
        rig.issuer.hold();
        let waiting = rig.spawn_get();
        everybody_waits().await;
        store.hold();
        rig.issuer.release();
        everybody_waits().await;
        assert_eq!(store.log().last().unwrap(), "save a1");
        let said = say.spawn(&rig);
        everybody_waits().await;
        assert_eq!(current(&rig).as_deref(), say.token(), "{say:?}: reads see it at once");
        store.release();
        said.await.unwrap().unwrap();
        waiting.await.unwrap().ok();
        rig.session.settle().await.unwrap();
        assert_eq!(current(&rig).as_deref(), say.token(), "{say:?}");
        assert_eq!(store.access_token().await.as_deref(), say.token(), "{say:?}");
        let last = if say == Say::Set { "save u1" } else { "clear" };
        let writes: Vec<_> = store.log();
        let writes: Vec<_> =
            writes.iter().filter(|l| l.contains("save") || *l == "clear").collect();
        assert_eq!(writes.last().unwrap().as_str(), last, "{say:?}");
    }
}

/// K-25: while the login hook runs; its answer comes too late. X23, X24.
#[tokio::test]
async fn k_25_what_the_user_says_during_the_hook_wins() {
    for say in Say::ALL {
        let store = ScriptedStore::new();
        let gate = Arc::new(Semaphore::new(0));
        let hook = gate.clone();
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
            b.store(store.clone()).on_login_required(move |_| {
                let gate = hook.clone();
                async move {
                    gate.acquire().await.unwrap().forget();
                    Some(TokenSet::new("late"))
                }
            })
        });
        rig.get().await.unwrap();
        rig.clock.advance(HOUR);
        rig.issuer.then_fails(RefreshFailure::Terminal);
        let waiting = rig.spawn_get();
        everybody_waits().await;
        assert_eq!(rig.session.status(), Status::LoginRequired);
        say.spawn(&rig).await.unwrap().unwrap();
        if say == Say::Set {
            assert_eq!(outcome(waiting.await.unwrap()), "200", "goes on at once");
        } else {
            waiting.abort();
        }
        gate.add_permits(1);
        everybody_waits().await;
        assert_eq!(current(&rig).as_deref(), say.token(), "{say:?}");
        assert_eq!(store.access_token().await.as_deref(), say.token(), "{say:?}");
    }
}

/// K-25: a hook that never ends does not hold up the session that was set meanwhile.
#[tokio::test]
async fn k_25_tokens_set_during_a_hook_are_refreshed_without_waiting_for_the_hook() {
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
        b.on_login_required(|_| std::future::pending())
    });
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    let waiting = rig.spawn_get();
    everybody_waits().await;
    rig.session.set_tokens(Rig::tokens(60)).await.unwrap();
    assert_eq!(outcome(waiting.await.unwrap()), "200");
    rig.clock.advance(60 * SECOND);
    let next = rig.spawn_get();
    everybody_waits().await;
    assert!(next.is_finished(), "waits for a hook that has lost");
    assert_eq!(rig.api.tokens(), ["a0", "a1"]);
    rig.clock.advance(300 * SECOND); // the hook's time is over
    everybody_waits().await;
    assert_eq!((rig.session.status(), rig.outcome().await), (Status::Fresh, "200".into()));
}

/// K-20, K-25, Q-62: a flight that was let go lands late, and makes no room for a second one.
#[tokio::test]
async fn k_20_a_flight_that_has_lost_does_not_end_the_one_that_runs_when_it_lands() {
    let gate = Arc::new(Semaphore::new(0));
    let hook = Arc::clone(&gate);
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
        b.on_login_required(move |_| {
            let gate = Arc::clone(&hook);
            async move {
                gate.acquire().await.unwrap().forget();
                None
            }
        })
    });
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    let asking = rig.spawn_get();
    everybody_waits().await;
    rig.session.set_tokens(Rig::tokens(60)).await.unwrap();
    assert_eq!(outcome(asking.await.unwrap()), "200");
    rig.clock.advance(60 * SECOND);
    rig.issuer.hold();
    let first = rig.spawn_get();
    everybody_waits().await;
    gate.add_permits(1); // the flight that asked for a login lands
    everybody_waits().await;
    let late = rig.spawn_get();
    everybody_waits().await;
    rig.issuer.release();
    for request in [first, late] {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
    assert_eq!(rig.issuer.calls(), 2, "one for the dead set, one for the new");
}

/// K-25: the failure of a refresh that has lost is nobody's failure.
#[tokio::test]
async fn k_25_a_refresh_that_has_lost_fails_nobody_and_cools_nothing_down() {
    for failure in
        [RefreshFailure::Configuration, RefreshFailure::Terminal, RefreshFailure::Unusable]
    {
        let rig = Rig::new(Api::friendly());
        let mut events = rig.session.events();
        rig.clock.advance(HOUR);
        rig.issuer.then_fails(failure);
        rig.issuer.hold();
        drop(rig.spawn_get());
        everybody_waits().await;
        // Over on arrival, so the next request needs a refresh too, and finds the old one running.
        let over = Rig::tokens(60).with_expires_at(rig.clock.wall() - SECOND);
        rig.session.set_tokens(over).await.unwrap();
        let waiting = rig.spawn_get();
        let session = rig.session.clone();
        let forced = tokio::spawn(async move { session.refresh().await });
        everybody_waits().await;
        rig.issuer.release();
        assert_eq!(outcome(waiting.await.unwrap()), "200", "{failure:?}");
        assert_eq!(forced.await.unwrap().unwrap().access_token(), "a1", "{failure:?}");
        assert_eq!(told(&mut events).await, ["refreshed 3"], "{failure:?}");
    }
}

/// K-25, Q-62: a forced refresh after new tokens were set is one of the new tokens.
#[tokio::test]
async fn k_25_a_refresh_that_is_demanded_after_set_tokens_is_not_the_one_that_has_lost() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(HOUR);
    rig.issuer.hold();
    drop(rig.spawn_get());
    everybody_waits().await;
    let tokens = TokenSet::new("u1").with_refresh_token("ur1");
    rig.session.set_tokens(tokens).await.unwrap();
    let session = rig.session.clone();
    let forced = tokio::spawn(async move { session.refresh().await });
    everybody_waits().await;
    rig.issuer.release();
    assert_ne!(forced.await.unwrap().unwrap().access_token(), "u1");
    assert_eq!(rig.issuer.sent(), ["r0", "ur1"]);
}

/// K-25, Q-62: new tokens that are set are what a refresh that was demanded before has waited for.
#[tokio::test]
async fn k_25_a_refresh_that_is_demanded_before_set_tokens_is_content_with_them() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(HOUR);
    rig.issuer.hold();
    let session = rig.session.clone();
    let forced = tokio::spawn(async move { session.refresh().await });
    everybody_waits().await;
    let tokens = TokenSet::new("u1").with_refresh_token("ur1");
    rig.session.set_tokens(tokens).await.unwrap();
    rig.issuer.release();
    assert_eq!(forced.await.unwrap().unwrap().access_token(), "u1");
    assert_eq!(rig.issuer.sent(), ["r0"]);
}

/// K-25: what could not be written is newer than what the store holds all the same.
#[tokio::test]
async fn k_25_a_write_that_failed_does_not_let_the_older_pair_come_back() {
    for (say, during_save) in
        [(Say::Set, false), (Say::Clear, false), (Say::Set, true), (Say::Clear, true)]
    {
        let case = format!("{say:?}, during a save: {during_save}");
        let store = ScriptedStore::new();
        let rig = if during_save {
            let rig = rig_over(&store).await;
            rig.issuer.hold();
            drop(rig.spawn_get());
            everybody_waits().await;
            store.hold();
            rig.issuer.release();
            everybody_waits().await;
            assert_eq!(store.log().last().unwrap(), "save a1", "{case}");
            rig
        } else {
            let old = TokenSet::new("old").with_refresh_token("ro");
            let store = store.clone();
            store.memory.save(&old).await.unwrap();
            Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store))
        };
        store.fail(&["save u1", "clear"]);
        let said = say.spawn(&rig);
        everybody_waits().await;
        if during_save {
            store.release();
        }
        while !said.is_finished() {
            everybody_waits().await;
            rig.clock.advance(SECOND);
        }
        said.await.unwrap().unwrap_err();
        let left = if during_save { "a1" } else { "old" };
        assert_eq!(store.access_token().await.unwrap(), left, "{case}");
        store.fail(&[]);
        let before = rig.issuer.calls();
        match say {
            Say::Set => {
                rig.session.refresh().await.unwrap();
                assert_eq!(rig.issuer.sent()[before..], ["ur1"], "{case}");
            }
            _ => assert_eq!(rig.outcome().await, "login required", "{case}"),
        }
    }
}

// ---- K-28 ----

/// K-28: read once, lazily; what is stored beats what was given. C18, C19, C20.
#[tokio::test]
async fn k_28_the_store_is_read_once_at_the_first_need_and_beats_the_given_pair() {
    let store = ScriptedStore::holding(TokenSet::new("stored").with_refresh_token("rs")).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    everybody_waits().await;
    assert!(store.log().is_empty(), "lazily");
    store.hold();
    let requests: Vec<_> = (0..10).map(|_| rig.spawn_get()).collect();
    everybody_waits().await;
    assert_eq!((store.log(), rig.api.arrived()), (vec!["load".into()], 0));
    store.release();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
    assert_eq!(rig.api.tokens(), ["stored"; 10]);
    for _ in 0..10 {
        rig.get().await.unwrap();
    }
    assert_eq!(store.log(), ["load"]);
}

/// K-28: an empty store leaves the given pair.
#[tokio::test]
async fn k_28_an_empty_store_leaves_the_given_pair() {
    let store = ScriptedStore::new();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    assert_eq!(rig.outcome().await, "200");
    assert_eq!((rig.api.tokens(), store.log()), (vec!["a0".into()], vec!["load".into()]));
}

/// K-28: set or clear while the first read is under way, or before it. C16.
#[tokio::test]
async fn k_28_what_the_user_says_beats_a_first_read_that_is_under_way() {
    for say in Say::ALL {
        for under_way in [true, false] {
            let store = ScriptedStore::holding(TokenSet::new("stored")).await;
            let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
            let waiting = under_way.then(|| {
                store.hold();
                rig.spawn_get()
            });
            everybody_waits().await;
            let said = say.spawn(&rig);
            everybody_waits().await;
            if under_way {
                assert_eq!(store.log()[0], "load");
                assert_eq!(current(&rig).as_deref(), say.token(), "{say:?}: at once");
                store.release();
            }
            said.await.unwrap().unwrap();
            let expected = if say == Say::Set { "200" } else { "login required" };
            if let Some(waiting) = waiting {
                assert_eq!(outcome(waiting.await.unwrap()), expected, "{say:?}");
            }
            assert_eq!(rig.outcome().await, expected, "{say:?}");
            assert_eq!(current(&rig).as_deref(), say.token(), "{say:?} {under_way}");
            assert_eq!(store.access_token().await.as_deref(), say.token(), "{say:?}");
        }
    }
}

/// K-28: a read that fails is an error once, and is not remembered. C18, G13.
#[tokio::test]
async fn k_28_a_first_read_that_fails_is_tried_again() {
    let store = ScriptedStore::holding(TokenSet::new("stored")).await;
    let empty = |b: reqwest_refresh::SessionBuilder| b.store(store.clone());
    let rig = Rig::with(Api::friendly(), Issuer::new(), empty);
    rig.clock.advance(HOUR); // the given pair is over
    store.fail(&["load"]);
    assert_eq!(rig.outcome().await, "token store");
    store.fail(&[]);
    rig.clock.advance(10 * SECOND);
    assert_eq!((rig.outcome().await, rig.api.tokens()), ("200".into(), vec!["stored".into()]));
}

/// K-28: while the store cannot be read, a given pair that is alive is used, and later the stored.
#[tokio::test]
async fn k_28_a_given_pair_is_used_while_the_store_cannot_be_read() {
    let store = ScriptedStore::holding(TokenSet::new("stored")).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    store.fail(&["load"]);
    assert_eq!(rig.outcome().await, "200");
    store.fail(&[]);
    assert_eq!(rig.outcome().await, "200");
    rig.clock.advance(10 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens(), ["a0", "a0", "stored"]);
}
