//! Bugs that a review found, each as the story in which it showed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest_refresh::{
    RefreshError, RefreshFailure, Session, SessionBuilder, TokenSet, TokenStore as _,
};
use tracing_subscriber::prelude::*;

use crate::support::{Api, Hook, Issuer, Rig, SECOND, ScriptedStore, everybody_waits, outcome};

const HOUR: Duration = Duration::from_secs(3600);

/// A session whose stored token is over, and whose store has been read.
async fn over(
    store: &ScriptedStore,
    settings: impl FnOnce(SessionBuilder) -> SessionBuilder,
) -> Rig {
    store.memory.save(&Rig::tokens(3600)).await.unwrap();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| settings(b.store(store.clone())));
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    rig
}

/// K-60: two durations that are endless together are no panic.
#[tokio::test]
async fn k_60_an_endless_timeout_is_no_panic() {
    let endless = [
        (|b| b.refresh_timeout(Duration::MAX)) as fn(SessionBuilder) -> SessionBuilder,
        |b| b.store_timeout(Duration::MAX),
        |b| b.login_notice(Duration::MAX).refresh_window(Duration::MAX),
        |b| b.refresh_budget(usize::MAX, Duration::MAX).login_timeout(Duration::MAX),
    ];
    for settings in endless {
        let rig = over(&ScriptedStore::new(), settings).await;
        assert_eq!(rig.outcome().await, "200");
        rig.session.set_tokens(TokenSet::new("u")).await.unwrap();
    }
}

/// K-50, K-51: the dead set that a sibling left in the store is no news when it is read again.
#[tokio::test]
async fn k_50_a_stored_set_that_was_found_dead_does_not_revive_the_session() {
    for (refresh_token, sent) in [("r9", vec!["r9"]), ("", vec![])] {
        let (store, hook) = (ScriptedStore::new(), Hook::declining());
        let rig = over(&store, |b| hook.on(b)).await;
        let end = rig.clock.wall() - SECOND;
        let dead = TokenSet::new("a9").with_refresh_token(refresh_token).with_expires_at(end);
        store.memory.save(&dead).await.unwrap();
        for _ in 0..3 {
            rig.issuer.then_fails(RefreshFailure::Terminal);
            assert_eq!(rig.outcome().await, "login required");
            rig.clock.advance(11 * SECOND);
        }
        assert_eq!(
            (hook.calls(), rig.issuer.sent()),
            (1, sent.iter().map(|s| (*s).into()).collect())
        );
    }
}

/// K-07, K-24: a new refresh token from a useless answer survives a store that panics.
#[tokio::test]
async fn k_07_a_new_refresh_token_survives_a_store_that_panics_while_it_is_saved() {
    let store = ScriptedStore::new();
    let rig = over(&store, |b| b).await;
    store.panic(&["save"]);
    rig.issuer.then(Ok(TokenSet::new("").with_refresh_token("r9")));
    assert_ne!(rig.outcome().await, "200");
    store.panic(&[]);
    rig.clock.advance(20 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["r0", "r9"]);
}

/// K-25: what the user said, and could not be written, counts more than what a sibling wrote.
#[tokio::test]
async fn k_25_an_unwritten_word_of_the_user_wins_over_a_sibling_in_the_store() {
    for is_clear in [false, true] {
        let store = ScriptedStore::new();
        let rig = over(&store, |b| b).await;
        let sibling = TokenSet::new("a5").with_refresh_token("r5").with_expires_in(HOUR);
        store.memory.save(&sibling).await.unwrap();
        store.fail(&["save", "clear"]);
        let session = rig.session.clone();
        let said = tokio::spawn(async move {
            match is_clear {
                true => session.clear().await,
                false => session.set_tokens(TokenSet::new("u").with_refresh_token("ru")).await,
            }
        });
        while !said.is_finished() {
            everybody_waits().await;
            rig.clock.advance(SECOND);
        }
        assert!(said.await.unwrap().is_err());
        store.fail(&[]);
        if is_clear {
            assert_eq!(rig.outcome().await, "login required");
        } else {
            assert_eq!(rig.session.refresh().await.unwrap().access_token(), "a1");
            assert_eq!(rig.issuer.sent(), ["ru"]);
        }
    }
}

/// Sets tokens at the very moment at which the session says that it is dead.
struct OnDead(Session);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for OnDead {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct IsDead(bool);
        impl tracing::field::Visit for IsDead {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 |= format!("{value:?}") == "the session is dead";
            }
        }
        let mut is_dead = IsDead(false);
        event.record(&mut is_dead);
        if is_dead.0 {
            let setting = std::pin::pin!(self.0.set_tokens(Rig::tokens(60)));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(setting.poll(&mut context).is_ready());
        }
    }
}

/// K-25, K-50: tokens that are set just as the session dies spare the person the question.
#[tokio::test]
async fn k_25_tokens_set_between_the_death_and_the_hook_let_the_flight_go() {
    let calls = Arc::new(AtomicUsize::new(0));
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        let calls = Arc::clone(&calls);
        builder.on_login_required(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            std::future::pending()
        })
    });
    let subscriber = tracing_subscriber::registry().with(OnDead(rig.session.clone()));
    let _guard = subscriber.set_default();
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    rig.clock.advance(61 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["r0", "r0"]);
}

/// K-23, K-50: "forget the old tokens, then ask" is what people write into a hook.
#[tokio::test]
async fn k_23_a_hook_that_clears_first_is_called_once_and_its_tokens_count() {
    let own: Arc<OnceLock<Session>> = Arc::default();
    let calls = Arc::new(AtomicUsize::new(0));
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        let (own, calls) = (Arc::clone(&own), Arc::clone(&calls));
        builder.on_login_required(move |_| {
            let (own, count) = (Arc::clone(&own), calls.fetch_add(1, Ordering::SeqCst));
            async move {
                own.get()?.clear().await.ok()?;
                (count < 10).then(|| TokenSet::new("new"))
            }
        })
    });
    own.set(rig.session.clone()).unwrap();
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!((calls.load(Ordering::SeqCst), rig.api.tokens()), (1, vec!["new".into()]));
}

/// K-25, K-50: who logs out during the dialog is not asked a second time.
#[tokio::test]
async fn k_50_a_logout_during_the_dialog_does_not_open_a_second_one() {
    let calls = Arc::new(AtomicUsize::new(0));
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        let calls = Arc::clone(&calls);
        builder.on_login_required(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            std::future::pending()
        })
    });
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    let request = rig.spawn_get();
    everybody_waits().await;
    rig.session.clear().await.unwrap();
    assert_eq!(outcome(request.await.unwrap()), "login required");
    assert_eq!(rig.outcome().await, "login required");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// K-73: what a refresh brings after the logout is revoked as well.
#[tokio::test]
async fn k_73_tokens_that_come_after_the_logout_are_revoked_too() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(HOUR);
    rig.issuer.hold();
    let request = rig.spawn_get();
    everybody_waits().await;
    rig.session.log_out().await.unwrap();
    rig.issuer.release();
    assert_eq!(outcome(request.await.unwrap()), "login required");
    assert_eq!(rig.issuer.revoked(), ["a0", "a1"]);
}

/// K-07, K-55: the end of the old refresh token is not the new one's.
#[tokio::test]
async fn k_07_a_new_refresh_token_does_not_inherit_the_end_of_the_old() {
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.trust_refresh_token_expiry(true));
    let end = rig.clock.wall() + HOUR + 5 * SECOND;
    rig.session.set_tokens(Rig::tokens(3600).with_refresh_expires_at(end)).await.unwrap();
    rig.clock.advance(HOUR);
    rig.issuer.then(Ok(TokenSet::new("").with_refresh_token("r9")));
    assert_eq!(rig.outcome().await, "authorization server unavailable");
    rig.clock.advance(30 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["r0", "r9"]);
}

/// K-07, K-35: an error with a new refresh token is not retried with the old one.
#[tokio::test]
async fn k_35_a_failure_that_brings_a_new_refresh_token_is_not_retried_with_the_old() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(HOUR);
    let lost = RefreshError::new(RefreshFailure::Lost, "half an answer");
    rig.issuer.then(Err(lost.with_refresh_token("r9")));
    assert_eq!(rig.outcome().await, "authorization server unavailable");
    rig.clock.advance(30 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["r0", "r9"]);
}

/// K-25: a flight that has lost does not ask the server again.
#[tokio::test]
async fn k_25_a_refresh_that_the_user_has_overruled_is_not_repeated() {
    for is_login in [false, true] {
        let rig = Rig::new(Api::friendly());
        rig.clock.advance(HOUR);
        rig.issuer.then_fails(RefreshFailure::Busy);
        let waiting = rig.spawn_get();
        everybody_waits().await;
        match is_login {
            true => rig.session.set_tokens(TokenSet::new("u")).await.unwrap(),
            false => rig.session.log_out().await.unwrap(),
        }
        rig.clock.advance(SECOND);
        let expected = if is_login { "200" } else { "login required" };
        assert_eq!(outcome(waiting.await.unwrap()), expected);
        rig.session.settle().await.unwrap();
        assert_eq!(rig.issuer.sent(), ["r0"]);
    }
}

/// K-25: a login that ends after the user has logged out is no login, and nobody else knows of it.
#[tokio::test]
async fn k_25_what_the_hook_gives_after_a_logout_is_revoked() {
    for sets_itself in [false, true] {
        let (door, late) = (Arc::new(tokio::sync::Semaphore::new(0)), TokenSet::new("late"));
        let session = Arc::new(OnceLock::<Session>::new());
        let (opened, given, own) = (Arc::clone(&door), late.clone(), Arc::clone(&session));
        let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
            builder.on_login_required(move |_| {
                let (opened, given, own) = (opened.clone(), given.clone(), own.clone());
                async move {
                    opened.acquire().await.unwrap().forget();
                    if sets_itself {
                        own.get().unwrap().set_tokens(given.clone()).await.unwrap();
                    }
                    Some(given)
                }
            })
        });
        session.set(rig.session.clone()).unwrap();
        rig.clock.advance(HOUR);
        rig.issuer.then_fails(RefreshFailure::Terminal);
        let waiting = rig.spawn_get();
        everybody_waits().await;
        rig.session.log_out().await.unwrap();
        waiting.abort();
        door.add_permits(1);
        everybody_waits().await;
        let revoked = if sets_itself { vec!["a0"] } else { vec!["a0", "late"] };
        assert_eq!(rig.issuer.revoked(), revoked, "its own word is the last: {sets_itself}");
    }
}
