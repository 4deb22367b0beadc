//! Code that is not ours, in a hook, a store or a refresher: what it may call, and what if it panics.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest::Url;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_refresh::{
    Error, Lease, MemoryStore, Refresh, RefreshError, RefreshFailure, Session, Status, StoreError,
    TokenSet, TokenStore,
};

use crate::support::{
    Api, Hook, Issuer, Reply, Rig, SECOND, ScriptedStore, everybody_waits, outcome,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Does with the session what a hook, a store or a refresher should not do.
#[derive(Clone, Default)]
struct Inside {
    session: Arc<Mutex<Option<(Session, ClientWithMiddleware)>>>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Inside {
    fn put(&self, session: &Session, api: &Api) {
        *self.session.lock() = Some((session.clone(), Rig::client(session, api)));
    }

    async fn try_everything(&self) {
        let (session, client) = self.session.lock().clone().unwrap();
        let tokens = |result: Result<TokenSet, Error>| match result {
            Ok(tokens) => tokens.access_token().to_owned(),
            Err(error) => error.kind().to_string(),
        };
        let heard = [
            tokens(session.tokens().await),
            tokens(session.refresh().await),
            outcome(client.get("https://api.test/inside").send().await),
            session.settle().await.unwrap_err().kind().to_string(),
            session.current_tokens().unwrap().access_token().to_owned(),
            format!("{:?}", session.status()),
        ];
        self.heard.lock().extend(heard);
    }
}

const REENTRANT: &str = "request would wait for itself";

#[async_trait]
impl Refresh for Inside {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        self.try_everything().await;
        Ok(TokenSet::new("a1"))
    }

    fn endpoints(&self) -> Vec<Url> {
        vec![Url::parse("https://api.test/oauth/token").unwrap()]
    }
}

/// K-23: who waits for itself is told so at once; who asks what is known gets it. C10, C11.
#[tokio::test]
async fn k_23_a_hook_that_would_wait_for_itself_fails_at_once() {
    let inside = Inside::default();
    let hook = inside.clone();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
        b.on_login_required(move |_| {
            let hook = hook.clone();
            async move {
                hook.try_everything().await;
                Some(TokenSet::new("u1"))
            }
        })
    });
    inside.put(&rig.session, &rig.api);
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, "200");
    let expected = [REENTRANT, REENTRANT, REENTRANT, REENTRANT, "a0", "LoginRequired"];
    assert_eq!(*inside.heard.lock(), expected);
}

/// K-23: the same in a refresher.
#[tokio::test]
async fn k_23_a_refresher_that_would_wait_for_itself_fails_at_once() {
    let inside = Inside::default();
    let clock = reqwest_refresh::ManualClock::new();
    let session = Session::builder(inside.clone()).clock(clock.clone()).tokens(Rig::tokens(3600));
    let session = session.build().unwrap();
    inside.put(&session, &Api::friendly());
    clock.advance(HOUR);
    assert_eq!(session.tokens().await.unwrap().access_token(), "a1");
    let expected = [REENTRANT, REENTRANT, REENTRANT, REENTRANT, "a0", "Expired"];
    assert_eq!(*inside.heard.lock(), expected);
}

/// K-23: a hook may wait for another session: that of whoever knows the user.
#[tokio::test]
async fn k_23_a_hook_may_wait_for_another_session() {
    let other = Rig::new(Api::friendly());
    other.clock.advance(HOUR);
    let session = other.session.clone();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
        b.on_login_required(move |_| {
            let session = session.clone();
            async move { Some(TokenSet::new(session.tokens().await.unwrap().access_token())) }
        })
    });
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens(), ["a1"]);
}

/// K-23: a hook that sends with a token that is still alive waits for nobody. D07.
#[tokio::test]
async fn k_23_a_hook_may_send_with_a_token_that_is_still_alive() {
    let inside = Inside::default();
    let hook = inside.clone();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
        b.on_login_required(move |_| {
            let hook = hook.clone();
            async move {
                hook.try_everything().await;
                None
            }
        })
    });
    inside.put(&rig.session, &rig.api);
    rig.clock.advance(HOUR - SECOND);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, "200");
    everybody_waits().await;
    let expected = ["a0", REENTRANT, "200", REENTRANT, "a0", "LoginRequired"];
    assert_eq!(*inside.heard.lock(), expected);
}

/// K-23: a hook may set tokens itself, and those who wait go on with them.
#[tokio::test]
async fn k_23_a_hook_may_set_tokens_itself() {
    for stored in [false, true] {
        let handle: Arc<Mutex<Option<Session>>> = Arc::default();
        let hook = Arc::clone(&handle);
        let store = ScriptedStore::new();
        let rig = Rig::with(Api::friendly(), Issuer::new(), |mut b| {
            if stored {
                b = b.store(store.clone());
            }
            b.on_login_required(move |_| {
                let session = hook.lock().clone().unwrap();
                async move {
                    session.set_tokens(TokenSet::new("u1")).await.unwrap();
                    None
                }
            })
        });
        *handle.lock() = Some(rig.session.clone());
        rig.clock.advance(HOUR);
        rig.issuer.then_fails(RefreshFailure::Terminal);
        let requests: Vec<_> = (0..3).map(|_| rig.spawn_get()).collect();
        for request in requests {
            assert_eq!(outcome(request.await.unwrap()), "200");
        }
        assert_eq!(rig.api.tokens(), ["u1"; 3]);
        assert_eq!(rig.session.status(), Status::Fresh);
        if stored {
            assert_eq!(store.access_token().await.unwrap(), "u1");
        }
    }
}

// ---- K-24 ----

/// K-24: whatever panics or fails, everybody hears of it and the next need tries again. X22, C05.
#[tokio::test]
async fn k_24_a_panic_is_an_error_for_every_waiter_and_never_a_hang() {
    type Break = fn(&Rig, &ScriptedStore);
    let cases: [(&str, Break, &str); 8] = [
        ("refresher panics", |r, _| r.issuer.then_panics(), "refresh interrupted"),
        ("load panics", |_, s| s.panic(&["load"]), "refresh interrupted"),
        ("lock panics", |_, s| s.panic(&["lock"]), "refresh interrupted"),
        ("save panics: the pair is usable", |_, s| s.panic(&["save"]), "200"),
        (
            "refresher fails",
            |r, _| r.issuer.then_fails(RefreshFailure::Unusable),
            "authorization server unavailable",
        ),
        ("load fails", |_, s| s.fail(&["load"]), "token store"),
        ("lock fails", |_, s| s.fail(&["lock"]), "token store"),
        ("save fails: the pair is usable", |_, s| s.fail(&["save"]), "200"),
    ];
    for (case, break_it, expected) in cases {
        let store = ScriptedStore::holding(Rig::tokens(3600)).await;
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
        rig.get().await.unwrap();
        rig.clock.advance(HOUR);
        break_it(&rig, &store);
        let requests: Vec<_> = (0..20).map(|_| rig.spawn_get()).collect();
        everybody_waits().await;
        for _ in 0..5 {
            rig.clock.advance(SECOND / 4); // between the tries of a save
            everybody_waits().await;
        }
        for request in requests {
            assert!(request.is_finished(), "{case}: hangs");
            assert_eq!(outcome(request.await.unwrap()), expected, "{case}");
        }
        store.panic(&[]);
        store.fail(&[]);
        rig.clock.advance(2 * SECOND);
        assert_eq!(rig.outcome().await, "200", "{case}: the next need");
        assert_eq!(rig.api.tokens().pop().unwrap(), "a1", "{case}");
    }
}

/// K-24: a login hook that panics, in its call or in its future, is a login hook that declined.
#[tokio::test]
async fn k_24_a_hook_that_panics_fails_everybody_alike() {
    for early in [true, false] {
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
            b.on_login_required(move |_| {
                assert!(!early, "scripted panic");
                async { panic!("scripted panic") }
            })
        });
        rig.clock.advance(HOUR);
        rig.issuer.then_fails(RefreshFailure::Terminal);
        let requests: Vec<_> = (0..5).map(|_| rig.spawn_get()).collect();
        everybody_waits().await;
        for request in requests {
            assert!(request.is_finished(), "hangs");
            assert_eq!(outcome(request.await.unwrap()), "login required");
        }
        rig.session.set_tokens(TokenSet::new("u1")).await.unwrap();
        assert_eq!(rig.outcome().await, "200");
    }
}

/// K-24: a panic behind a request that does not wait costs that request nothing. D09.
#[tokio::test]
async fn k_24_a_panic_behind_a_stale_token_is_not_noticed_by_the_request() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(HOUR - 30 * SECOND);
    rig.issuer.then_panics();
    assert_eq!(rig.outcome().await, "200");
    everybody_waits().await;
    assert_eq!(rig.outcome().await, "200");
    rig.clock.advance(SECOND);
    assert_eq!(rig.outcome().await, "200");
    everybody_waits().await;
    assert_eq!((rig.issuer.calls(), rig.session.status()), (2, Status::Fresh));
}

/// K-24: a store that panics while the user's tokens are saved is an error for the user.
#[tokio::test]
async fn k_24_a_panic_while_saving_what_the_user_set_is_an_error() {
    let store = ScriptedStore::new();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    store.panic(&["save", "clear"]);
    rig.session.set_tokens(TokenSet::new("u1")).await.unwrap_err();
    assert_eq!(rig.outcome().await, "200");
    rig.session.clear().await.unwrap_err();
    assert_eq!(rig.session.status(), Status::LoggedOut);
    store.panic(&[]);
    rig.session.settle().await.unwrap();
}

/// K-23, K-24: a hook's counter shows that no lock is held while the API answers.
#[tokio::test]
async fn k_23_the_state_can_be_read_while_a_hook_a_store_and_a_refresh_are_held() {
    let store = ScriptedStore::new();
    let hook = Hook::declining();
    let rig = Rig::with(Api::new(|_| Reply::status(200)), Issuer::new(), |b| {
        hook.on(b.store(store.clone()))
    });
    store.hold();
    let waiting = rig.spawn_get();
    everybody_waits().await;
    assert_eq!(rig.session.status(), Status::Fresh);
    store.release();
    assert_eq!(outcome(waiting.await.unwrap()), "200");
    rig.clock.advance(HOUR);
    rig.issuer.hold();
    let waiting = rig.spawn_get();
    everybody_waits().await;
    assert_eq!(rig.session.status(), Status::Expired);
    rig.issuer.release();
    assert_eq!(outcome(waiting.await.unwrap()), "200");
}

/// A store whose every operation does what it should not do.
#[derive(Clone, Default)]
struct Meddling {
    inside: Inside,
    memory: MemoryStore,
}

impl Meddling {
    /// Only the first operation of a kind meddles, so that what is heard stays short.
    async fn meddle(&self) {
        if self.inside.session.lock().is_some() {
            self.inside.try_everything().await;
            *self.inside.session.lock() = None;
        }
    }
}

#[async_trait]
impl TokenStore for Meddling {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        self.meddle().await;
        self.memory.load().await
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        self.meddle().await;
        self.memory.save(tokens).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.memory.clear().await
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        self.meddle().await;
        self.memory.lock().await
    }
}

/// K-23: a store that asks its own session, in a refresh and while the user's tokens are saved.
#[tokio::test]
async fn k_23_a_store_that_would_wait_for_itself_fails_at_once() {
    let store = Meddling::default();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    store.inside.put(&rig.session, &rig.api);
    assert_eq!(rig.outcome().await, "200", "the first read");
    rig.clock.advance(HOUR);
    store.inside.put(&rig.session, &rig.api);
    assert_eq!(rig.outcome().await, "200", "a refresh");
    store.inside.put(&rig.session, &rig.api);
    rig.clock.advance(HOUR);
    rig.session.set_tokens(Rig::tokens(60).with_expires_at(rig.clock.wall())).await.unwrap();
    let heard: Vec<_> = store.inside.heard.lock().chunks(6).map(|c| c[..4].to_vec()).collect();
    assert_eq!(heard, vec![vec![REENTRANT.to_owned(); 4]; 3]);
}
