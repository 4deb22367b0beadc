//! Tokens in a store: saved before they are used, and shared with other processes.

use std::time::Duration;

use reqwest_refresh::{ErrorKind, RefreshFailure, Session, Status, TokenSet, TokenStore};

use crate::support::{Api, Issuer, Rig, SECOND, ScriptedStore, everybody_waits, outcome, told};

const HOUR: Duration = Duration::from_secs(3600);

/// A session that has read its store, and whose token is over.
async fn rig_over(store: &ScriptedStore) -> Rig {
    store.memory.save(&Rig::tokens(3600)).await.unwrap();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    rig
}

/// Lets time pass, second by second, until the task is done; how many that took.
async fn seconds_until_done<T>(rig: &Rig, task: &tokio::task::JoinHandle<T>) -> u32 {
    for second in 0..1000 {
        everybody_waits().await;
        if task.is_finished() {
            return second;
        }
        rig.clock.advance(SECOND);
    }
    panic!("hangs")
}

// ---- K-60 ----

/// K-60, Q-50, Q-55: locked, read, saved, then used and told; nothing is saved without a refresh. G07,
/// X10, X11.
#[tokio::test]
async fn k_60_a_rotated_pair_is_saved_before_it_is_used_or_announced() {
    let store = ScriptedStore::new();
    let rig = rig_over(&store).await;
    let mut events = rig.session.events();
    rig.issuer.hold();
    let request = rig.spawn_get();
    everybody_waits().await;
    store.hold();
    rig.issuer.release();
    everybody_waits().await;
    assert_eq!(store.log().last().unwrap(), "save a1");
    assert_eq!(rig.api.tokens(), ["a0"], "not used");
    assert_eq!(told(&mut events).await, [""; 0], "not announced");
    assert_eq!(rig.session.current_tokens().unwrap().access_token(), "a0");
    store.release();
    assert_eq!(outcome(request.await.unwrap()), "200");
    assert_eq!(store.log(), ["load", "lock", "load", "save a1", "unlock"]);
    assert_eq!(told(&mut events).await, ["saved", "refreshed 3"]);
    let saved = store.memory.load().await.unwrap().unwrap();
    assert_eq!(saved.refresh_token(), Some("r1"));
    assert_eq!(saved.expires_at(), Some(rig.clock.wall() + HOUR), "an end, not a lifetime");
}

/// K-60, Q-55: a save that fails is tried three times and told; the pair is used. X10.
#[tokio::test]
async fn k_60_a_save_that_fails_is_repeated_reported_and_leaves_the_pair_usable() {
    let store = ScriptedStore::new();
    let rig = rig_over(&store).await;
    let mut events = rig.session.events();
    store.fail(&["save"]);
    let request = rig.spawn_get();
    seconds_until_done(&rig, &request).await;
    assert_eq!(outcome(request.await.unwrap()), "200");
    assert_eq!(rig.api.tokens(), ["a0", "a1"]);
    let saves = store.log().iter().filter(|line| *line == "save a1").count();
    assert_eq!(saves, 3);
    assert_eq!(told(&mut events).await, ["not saved: token store", "refreshed 3"]);

    // settle() says so, and tries again.
    let session = rig.session.clone();
    let settled = tokio::spawn(async move { session.settle().await });
    seconds_until_done(&rig, &settled).await;
    let error = settled.await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Store), "{error}");
    store.fail(&[]);
    rig.session.settle().await.unwrap();
    assert_eq!(store.access_token().await.unwrap(), "a1");

    // The store held the older pair for a while: nobody went back to it.
    rig.clock.advance(HOUR);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["r0", "r1"]);
}

/// K-60: a save that fails once is a save.
#[tokio::test]
async fn k_60_a_save_that_fails_once_is_repeated_and_is_no_failure() {
    let store = ScriptedStore::new();
    let rig = rig_over(&store).await;
    let mut events = rig.session.events();
    store.fail(&["save"]);
    let request = rig.spawn_get();
    everybody_waits().await;
    store.fail(&[]);
    seconds_until_done(&rig, &request).await;
    assert_eq!(told(&mut events).await, ["saved", "refreshed 3"]);
    assert_eq!(store.access_token().await.unwrap(), "a1");
}

/// K-60: an unsaved pair is the newest, whatever the store holds: the next refresh goes from it. X26.
#[tokio::test]
async fn k_60_the_refresh_after_a_failed_save_sends_the_unsaved_refresh_token() {
    let store = ScriptedStore::new();
    let rig = rig_over(&store).await;
    store.fail(&["save"]);
    let request = rig.spawn_get();
    seconds_until_done(&rig, &request).await;
    store.fail(&[]);
    rig.clock.advance(HOUR);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["r0", "r1"]);
    assert_eq!(store.access_token().await.unwrap(), "a2");
}

/// K-60: what the user sets and cannot be saved is an error of its own kind, and usable.
#[tokio::test]
async fn k_60_what_the_user_sets_and_cannot_be_saved_is_used_all_the_same() {
    let store = ScriptedStore::new();
    let rig = rig_over(&store).await;
    store.fail(&["save", "clear"]);
    for clear in [false, true] {
        let session = rig.session.clone();
        let said = tokio::spawn(async move {
            match clear {
                false => session.set_tokens(TokenSet::new("u1")).await,
                true => session.clear().await,
            }
        });
        seconds_until_done(&rig, &said).await;
        let error = said.await.unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Store), "{error}");
        let expected = if clear { Status::LoggedOut } else { Status::Fresh };
        assert_eq!(rig.session.status(), expected);
    }
}

/// K-60: the refresh's deadline does not cut a save, which has one of its own. X07.
#[tokio::test]
async fn k_60_a_slow_save_is_not_cut_by_the_refreshs_deadline_and_a_hanging_one_is_bounded() {
    for (case, hangs_for, told_first) in
        [("slow", 9, "saved"), ("hanging", 999, "not saved: token store")]
    {
        let store = ScriptedStore::new();
        store.memory.save(&Rig::tokens(3600)).await.unwrap();
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
            b.store(store.clone()).refresh_timeout(SECOND)
        });
        rig.get().await.unwrap();
        rig.clock.advance(HOUR);
        let mut events = rig.session.events();
        rig.issuer.hold();
        let request = rig.spawn_get();
        everybody_waits().await;
        store.hold();
        rig.issuer.release();
        for _ in 0..hangs_for.min(60) {
            everybody_waits().await;
            rig.clock.advance(SECOND);
        }
        everybody_waits().await;
        if hangs_for < 60 {
            assert!(!request.is_finished(), "{case}");
            store.release();
        }
        everybody_waits().await;
        assert!(request.is_finished(), "{case}: bounded");
        assert_eq!(outcome(request.await.unwrap()), "200", "{case}");
        assert_eq!(rig.api.tokens(), ["a0", "a1"], "{case}");
        assert_eq!(told(&mut events).await, [told_first, "refreshed 3"], "{case}");
    }
}

/// K-60: an answer that is of no use brings a refresh token all the same, which is kept. X08.
#[tokio::test]
async fn k_60_the_refresh_token_of_an_unusable_answer_is_saved_and_sent_next() {
    let store = ScriptedStore::new();
    let rig = rig_over(&store).await;
    rig.issuer.then(Ok(TokenSet::new("").with_refresh_token("r9")));
    assert_eq!(rig.outcome().await, "authorization server unavailable");
    let saved = store.memory.load().await.unwrap().unwrap();
    assert_eq!((saved.access_token(), saved.refresh_token()), ("a0", Some("r9")));
    rig.clock.advance(2 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["r0", "r9"]);
}

/// K-60: that refresh token is saved once, or with the next occasion where that failed.
#[tokio::test]
async fn k_60_the_refresh_token_of_an_unusable_answer_is_saved_until_it_is() {
    for (case, fails, saves, stored) in [("at once", false, 1, "r9"), ("later", true, 4, "r9")] {
        let store = ScriptedStore::new();
        let rig = rig_over(&store).await;
        rig.issuer.then(Ok(TokenSet::new("").with_refresh_token("r9")));
        store.fail(if fails { &["save"] } else { &[] });
        let request = rig.spawn_get();
        seconds_until_done(&rig, &request).await;
        store.fail(&[]);
        rig.session.settle().await.unwrap();
        let saved = store.memory.load().await.unwrap().unwrap();
        assert_eq!(saved.refresh_token(), Some(stored), "{case}");
        let count = store.log().iter().filter(|line| *line == "save a0").count();
        assert_eq!(count, saves, "{case}");
    }
}

/// K-25, K-60: of many who want something written, each writes what is newest, and only if nobody
/// has done so before.
#[tokio::test]
async fn k_60_nothing_is_written_twice() {
    let store = ScriptedStore::new();
    let rig = rig_over(&store).await;
    store.hold();
    let mut said = Vec::new();
    for name in ["u1", "u2", "u3"] {
        let session = rig.session.clone();
        let set = async move { session.set_tokens(TokenSet::new(name)).await };
        said.push(tokio::spawn(set));
        everybody_waits().await;
    }
    for _ in 0..2 {
        let session = rig.session.clone();
        said.push(tokio::spawn(async move { session.settle().await }));
    }
    everybody_waits().await;
    store.release();
    for task in said {
        task.await.unwrap().unwrap();
    }
    let log = store.log();
    let saves: Vec<_> = log.iter().filter(|line| line.starts_with("save")).collect();
    assert_eq!(saves, ["save u1", "save u3"]);
}

/// K-60: a store that is busy gets more time for each try.
#[tokio::test]
async fn k_60_the_pause_before_the_third_try_is_longer() {
    let store = ScriptedStore::new();
    let rig = rig_over(&store).await;
    store.fail(&["save"]);
    let request = rig.spawn_get();
    let saves = || store.log().iter().filter(|line| line.starts_with("save")).count();
    for (milliseconds, expected) in [(0, 1), (99, 1), (1, 2), (199, 2), (1, 3)] {
        rig.clock.advance(Duration::from_millis(milliseconds));
        everybody_waits().await;
        assert_eq!(saves(), expected, "{milliseconds} ms later");
    }
    assert_eq!(outcome(request.await.unwrap()), "200");
}

/// K-60: a store that fails before the server is asked costs no refresh token. G13.
#[tokio::test]
async fn k_60_without_the_store_the_server_is_not_asked() {
    for operation in ["lock", "load"] {
        let store = ScriptedStore::new();
        let rig = rig_over(&store).await;
        store.fail(&[operation]);
        for _ in 0..3 {
            assert_eq!(rig.outcome().await, "token store", "{operation}");
        }
        assert_eq!(rig.issuer.calls(), 0, "{operation}");
        store.fail(&[]);
        rig.clock.advance(2 * SECOND);
        assert_eq!(rig.outcome().await, "200", "{operation}: the pair stayed usable");
    }
}

/// K-60: a token that is alive is used while the store fails.
#[tokio::test]
async fn k_60_a_store_that_fails_is_not_noticed_while_the_token_is_alive() {
    let store = ScriptedStore::new();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    store.fail(&["load", "lock", "save"]);
    rig.clock.advance(HOUR - SECOND);
    for _ in 0..5 {
        assert_eq!(rig.outcome().await, "200");
        everybody_waits().await;
    }
}

// ---- K-61 ----

/// Two processes: a session each over one store, one clock and one issuer. Both have read the pair
/// in it, which is over by now.
async fn two_processes(store: &ScriptedStore) -> (Rig, Rig) {
    let end = |rig: &Rig| Rig::tokens(3600).with_expires_at(rig.clock.wall() + HOUR);
    let one = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    store.memory.save(&end(&one)).await.unwrap();
    let session = Session::builder(one.issuer.clone())
        .clock(one.clock.clone())
        .jitter(0.0)
        .store(store.clone())
        .build()
        .unwrap();
    let api = Api::friendly();
    let other = Rig {
        clock: one.clock.clone(),
        issuer: one.issuer.clone(),
        client: Rig::client(&session, &api),
        session,
        api,
    };
    for rig in [&one, &other] {
        assert_eq!(rig.session.tokens().await.unwrap().access_token(), "a0");
    }
    one.clock.advance(HOUR);
    (one, other)
}

/// K-61, Q-60: one refreshes, the other waits for the lock and adopts. X01, X25.
#[tokio::test]
async fn k_61_two_processes_share_one_refresh() {
    let store = ScriptedStore::new();
    let (one, other) = two_processes(&store).await;
    one.issuer.hold();
    let requests = [one.spawn_get(), other.spawn_get(), one.spawn_get(), other.spawn_get()];
    everybody_waits().await;
    assert_eq!(one.issuer.calls(), 1, "the other waits for the lock");
    one.issuer.release();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
    assert_eq!(one.issuer.sent(), ["r0"]);
    assert_eq!(other.api.tokens(), ["a1", "a1"]);
    let log = store.log();
    let tail = ["lock", "load", "save a1", "unlock", "lock", "load", "unlock"];
    assert_eq!(log[log.len() - 7..], tail);
}

/// K-61: what is stored is what is sent, if it is over by now. X01, X26.
#[tokio::test]
async fn k_61_the_stored_refresh_token_is_sent_and_not_the_remembered_one() {
    let store = ScriptedStore::new();
    let (one, other) = two_processes(&store).await;
    assert_eq!(one.outcome().await, "200"); // r0 is used up
    one.clock.advance(HOUR); // a1 is over
    assert_eq!(other.outcome().await, "200");
    assert_eq!(one.issuer.sent(), ["r0", "r1"]);
    assert_eq!(one.outcome().await, "200");
    assert_eq!(one.api.tokens().pop().unwrap(), "a2", "and back");
    assert_eq!(one.issuer.calls(), 2);
}

/// K-61: a rejected token is not adopted again; another one is. E04.
#[tokio::test]
async fn k_61_a_rejected_token_is_replaced_by_what_the_sibling_has() {
    let store = ScriptedStore::new();
    let rig = Rig::with(Api::rejecting(&["a0", "dead"]), Issuer::new(), |b| b.store(store.clone()));
    store.memory.save(&Rig::tokens(3600)).await.unwrap();
    rig.session.tokens().await.unwrap();
    let sibling = TokenSet::new("a9").with_refresh_token("r9").with_expires_in(HOUR);
    store.memory.save(&sibling).await.unwrap();
    assert_eq!(rig.outcome().await, "200");
    assert_eq!((rig.api.tokens(), rig.issuer.calls()), (vec!["a0".into(), "a9".into()], 0));

    rig.session.set_tokens(TokenSet::new("dead").with_refresh_token("x")).await.unwrap();
    let same = TokenSet::new("dead").with_refresh_token("y");
    store.memory.save(&same).await.unwrap();
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["y"], "the stored refresh token, at once");
}

/// K-61: a sibling's logout is a logout.
#[tokio::test]
async fn k_61_a_logout_by_a_sibling_is_a_logout() {
    let store = ScriptedStore::new();
    let (one, other) = two_processes(&store).await;
    one.session.log_out().await.unwrap();
    let error = other.session.tokens().await.unwrap_err();
    assert_eq!(error.to_string(), "login required: the session was logged out");
    assert_eq!(one.issuer.calls(), 0);
    assert_eq!(other.session.current_tokens().map(|_| ()), None);
}

/// K-61: a lock that is never given back is an error in the end, and no hang. X07.
#[tokio::test]
async fn k_61_a_lock_that_is_never_given_back_is_an_error() {
    let store = ScriptedStore::new();
    let rig = rig_over(&store).await;
    let lease = store.memory.lock().await.unwrap();
    let request = rig.spawn_get();
    let took = seconds_until_done(&rig, &request).await;
    assert_eq!((took, outcome(request.await.unwrap())), (40, "token store".into()));
    assert_eq!(rig.issuer.calls(), 0);
    drop(lease);
    rig.clock.advance(2 * SECOND);
    assert_eq!(rig.outcome().await, "200");
}

/// K-61: what the user sets waits for a sibling's refresh, so it is written last. X24.
#[tokio::test]
async fn k_61_what_the_user_sets_is_written_after_a_siblings_refresh() {
    let store = ScriptedStore::new();
    let (one, other) = two_processes(&store).await;
    one.issuer.hold();
    let refreshing = one.spawn_get();
    everybody_waits().await;
    let session = other.session.clone();
    let set = tokio::spawn(async move { session.set_tokens(TokenSet::new("u1")).await });
    everybody_waits().await;
    assert_eq!(other.outcome().await, "200", "in use at once");
    one.issuer.release();
    refreshing.await.unwrap().unwrap();
    set.await.unwrap().unwrap();
    assert_eq!(store.access_token().await.unwrap(), "u1");
}

/// K-61: the lease is given back when a refresh fails, whichever way.
#[tokio::test]
async fn k_61_a_refresh_that_fails_gives_the_lock_back() {
    for failure in
        [RefreshFailure::Terminal, RefreshFailure::Unusable, RefreshFailure::Configuration]
    {
        let store = ScriptedStore::new();
        let rig = rig_over(&store).await;
        rig.issuer.then_fails(failure);
        assert_ne!(rig.outcome().await, "200");
        let log = store.log();
        let count = |what: &str| log.iter().filter(|line| *line == what).count();
        assert_eq!(count("lock"), count("unlock"), "{failure:?}: {log:?}");
    }
}
