//! When a person must log in, and when not.

use std::time::Duration;

use reqwest_refresh::{
    Authenticate, Error, ErrorKind, LoginReason, RefreshFailure, Status, TokenSet, TokenStore,
};
use serde_json::json;

use crate::support::{
    Api, Hook, Issuer, Rig, SECOND, ScriptedStore, everybody_waits, jwt, outcome, told,
};

const HOUR: Duration = Duration::from_secs(3600);
const LOGIN: &str = "login required";

fn login() -> TokenSet {
    TokenSet::new("u1").with_refresh_token("ur1").with_expires_in(HOUR)
}

/// A rig whose token is over and whose refresh token is dead.
fn dead(hook: &Hook) -> Rig {
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b));
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    rig
}

// ---- K-50 ----

/// K-50, Q-63: one call, with a typed reason, and no more requests for the dead token. G08, G10,
/// X23.
#[tokio::test]
async fn k_50_the_hook_is_called_once_for_a_dead_session_and_the_token_is_left_alone() {
    let hook = Hook::declining();
    let rig = dead(&hook);
    let requests: Vec<_> = (0..20).map(|_| rig.spawn_get()).collect();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), LOGIN);
    }
    for _ in 0..20 {
        rig.clock.advance(60 * SECOND);
        assert_eq!(rig.outcome().await, LOGIN);
        assert!(rig.session.refresh().await.unwrap_err().is_login_required());
    }
    assert_eq!((hook.calls(), rig.issuer.calls(), rig.api.arrived()), (1, 1, 0));
    let reason = hook.reasons.lock()[0].clone();
    let LoginReason::Refused { error, after_lost_answer, .. } = reason else {
        panic!("{reason:?}")
    };
    assert_eq!((error.code(), error.status(), after_lost_answer), (Some("scripted"), 400, false));
}

/// K-35, K-50: who asks why learns that an answer was lost, in this refresh or in an earlier one of
/// the same token: the server may have rotated then.
#[tokio::test]
async fn k_50_the_reason_says_whether_an_answer_was_lost_before() {
    use RefreshFailure::{Lost, NotSent, Terminal, Unusable};
    for (case, failures, expected) in [
        ("nothing was lost", &[Terminal][..], false),
        ("in the same refresh", &[Lost, Terminal], true),
        ("in an earlier refresh", &[Lost, Lost, Terminal], true),
        ("and one without an answer in between", &[Lost, Lost, Unusable, Terminal], true),
        ("never sent", &[NotSent, NotSent, NotSent, Terminal], false),
    ] {
        let hook = Hook::declining();
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b));
        rig.clock.advance(HOUR);
        failures.iter().for_each(|failure| rig.issuer.then_fails(*failure));
        while hook.calls() == 0 {
            let request = rig.spawn_get();
            while !request.is_finished() {
                everybody_waits().await;
                rig.clock.advance(SECOND);
            }
            rig.clock.advance(60 * SECOND);
        }
        let LoginReason::Refused { after_lost_answer, .. } = hook.reasons.lock()[0] else {
            panic!("{case}")
        };
        assert_eq!(after_lost_answer, expected, "{case}");
    }
}

/// K-50: another session, another call; another refresh token goes out. G10.
#[tokio::test]
async fn k_50_the_next_dead_session_calls_the_hook_again() {
    let hook = Hook::declining();
    let rig = dead(&hook);
    assert_eq!(rig.outcome().await, LOGIN);
    rig.session.set_tokens(login()).await.unwrap();
    assert_eq!(rig.outcome().await, "200");
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, LOGIN);
    assert_eq!((hook.calls(), rig.issuer.sent()), (2, vec!["r0".into(), "ur1".into()]));
}

/// K-50, Q-11: why somebody must log in is a table. A03, A04, G03.
#[tokio::test]
async fn k_50_the_reason_for_a_login_is_a_table() {
    #[derive(Debug, Clone, Copy)]
    enum Before {
        Cleared,
        EndOver,
        EndOverTrusted,
        NoRefreshToken,
        NoTokens,
        RefusedAfterLoss,
    }
    use Before::*;
    for (before, expected, calls) in [
        (NoTokens, "nobody has logged in yet", 0),
        (Cleared, "the session was logged out", 0),
        (NoRefreshToken, "the access token is over and there is no refresh token", 0),
        (EndOverTrusted, "the refresh token is over", 0),
        (EndOver, "the refresh token was refused: status 400: scripted", 1),
        (
            RefusedAfterLoss,
            "the refresh token was refused after an earlier answer was lost: status 400: scripted",
            2,
        ),
    ] {
        let hook = Hook::declining();
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
            hook.on(b.trust_refresh_token_expiry(matches!(before, EndOverTrusted)))
        });
        let end = rig.clock.wall() + HOUR / 2;
        match before {
            NoTokens => {}
            Cleared => rig.session.clear().await.unwrap(),
            NoRefreshToken => {
                let tokens = TokenSet::new("u").with_expires_in(HOUR);
                rig.session.set_tokens(tokens).await.unwrap();
            }
            EndOver | EndOverTrusted => {
                let tokens = Rig::tokens(3600).with_refresh_expires_at(end);
                rig.session.set_tokens(tokens).await.unwrap();
                rig.issuer.then_fails(RefreshFailure::Terminal);
            }
            RefusedAfterLoss => {
                rig.issuer.then_fails(RefreshFailure::Lost);
                rig.issuer.then_fails(RefreshFailure::Terminal);
            }
        }
        rig.clock.advance(HOUR);
        if let NoTokens = before {
            let (clock, issuer) = (rig.clock.clone(), rig.issuer.clone());
            let builder = reqwest_refresh::Session::builder(issuer).clock(clock);
            let session = hook.on(builder).build().unwrap();
            assert!(session.tokens().await.unwrap_err().is_login_required());
        } else {
            let request = rig.spawn_get();
            while !request.is_finished() {
                everybody_waits().await;
                rig.clock.advance(SECOND / 2);
            }
            assert_eq!(outcome(request.await.unwrap()), LOGIN, "{before:?}");
        }
        assert_eq!(hook.calls(), 1, "{before:?}");
        assert_eq!(hook.reasons.lock()[0].explain(), expected, "{before:?}");
        assert_eq!(rig.issuer.calls(), calls, "{before:?}");
    }
}

/// K-50, Q-11: the server may know better than the end that it told.
#[tokio::test]
async fn k_50_a_refresh_token_over_its_known_end_is_tried_once_all_the_same() {
    let hook = Hook::declining();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b));
    let end = rig.clock.wall() + HOUR / 2;
    let tokens = Rig::tokens(3600).with_refresh_expires_at(end);
    rig.session.set_tokens(tokens).await.unwrap();
    rig.clock.advance(HOUR);
    assert_eq!((rig.outcome().await, hook.calls()), ("200".into(), 0));
}

// ---- K-51 ----

/// K-51: those who wait go on with what the hook returns, which is saved. X23.
#[tokio::test]
async fn k_51_waiting_requests_go_on_with_the_hooks_tokens() {
    let hook = Hook::returning(login());
    let store = ScriptedStore::new();
    let rig =
        Rig::with(Api::rejecting(&["a0"]), Issuer::new(), |b| hook.on(b.store(store.clone())));
    rig.issuer.then_fails(RefreshFailure::Terminal);
    rig.api.hold();
    let requests: Vec<_> = (0..3).map(|_| rig.spawn_get()).collect();
    everybody_waits().await;
    rig.api.release();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), "200", "a 401, a login, a replay");
    }
    assert_eq!((hook.calls(), rig.issuer.calls()), (1, 1));
    assert_eq!(rig.api.tokens(), ["a0", "a0", "a0", "u1", "u1", "u1"]);
    assert_eq!(store.access_token().await.unwrap(), "u1");
    assert_eq!(rig.session.status(), Status::Fresh);
}

/// K-51: who comes while the person logs in waits too.
#[tokio::test]
async fn k_51_requests_that_come_during_the_login_wait_for_it() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let hook = gate.clone();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
        b.on_login_required(move |_| {
            let gate = hook.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Some(login())
            }
        })
    });
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    let first = rig.spawn_get();
    everybody_waits().await;
    let late = rig.spawn_get();
    let hasty = rig.client.get("https://api.test/").timeout(SECOND);
    let hasty = tokio::spawn(async move { hasty.send().await });
    everybody_waits().await;
    rig.clock.advance(200 * SECOND);
    everybody_waits().await;
    assert!(!first.is_finished() && !late.is_finished() && !hasty.is_finished());
    gate.add_permits(1);
    for request in [first, late, hasty] {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
}

/// K-51: a hook that declines, has no answer in time, or an unusable one: all fail alike. X23.
#[tokio::test]
async fn k_51_without_an_answer_all_fail_with_the_same_error_until_tokens_are_set() {
    for case in ["declines", "never answers", "unusable", "no hook"] {
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| match case {
            "declines" => b.on_login_required(|_| async { None }),
            "never answers" => b.on_login_required(|_| std::future::pending()),
            "unusable" => b.on_login_required(|_| async { Some(TokenSet::new("")) }),
            _ => b,
        });
        rig.clock.advance(HOUR);
        rig.issuer.then_fails(RefreshFailure::Terminal);
        let requests: Vec<_> = (0..3).map(|_| rig.spawn_get()).collect();
        everybody_waits().await;
        rig.clock.advance(300 * SECOND);
        let mut messages = Vec::new();
        for request in requests {
            messages.push(Error::find(&request.await.unwrap().unwrap_err()).unwrap().to_string());
        }
        let late = rig.spawn_get();
        everybody_waits().await;
        assert!(late.is_finished(), "{case}: at once");
        messages.push(Error::find(&late.await.unwrap().unwrap_err()).unwrap().to_string());
        messages.dedup();
        assert_eq!(messages.len(), 1, "{case}: {messages:?}");
        assert!(messages[0].starts_with(LOGIN), "{case}");
        assert_eq!((rig.issuer.calls(), rig.api.arrived()), (1, 0), "{case}: no traffic");
        assert_eq!(rig.session.status(), Status::LoginRequired, "{case}");
        rig.session.set_tokens(login()).await.unwrap();
        assert_eq!(rig.outcome().await, "200", "{case}");
    }
}

/// K-51: a request that can do without a token does not ask for a login.
#[tokio::test]
async fn k_51_a_request_that_may_go_without_a_token_does_when_nobody_logs_in() {
    let hook = Hook::declining();
    let rig = dead(&hook);
    let request = rig.client.get("https://api.test/").with_extension(Authenticate::IfLoggedIn);
    assert_eq!(outcome(request.send().await), "200");
    assert_eq!(rig.api.tokens(), ["-"]);
}

/// K-51: a dead session looks into the store every ten seconds: a sibling's login revives it.
#[tokio::test]
async fn k_51_a_login_by_a_sibling_process_revives_a_dead_session() {
    let hook = Hook::declining();
    let store = ScriptedStore::holding(Rig::tokens(3600)).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b.store(store.clone())));
    let mut events = rig.session.events();
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, LOGIN);
    let loads = || store.log().iter().filter(|line| *line == "load").count();
    let before = loads();
    for _ in 0..5 {
        rig.clock.advance(10 * SECOND - SECOND / 1000);
        assert_eq!(rig.outcome().await, LOGIN);
        assert_eq!(rig.outcome().await, LOGIN);
        rig.clock.advance(SECOND / 1000);
        let requests: Vec<_> = (0..5).map(|_| rig.spawn_get()).collect();
        for request in requests {
            assert_eq!(outcome(request.await.unwrap()), LOGIN);
        }
    }
    assert_eq!(loads() - before, 5, "one look in ten seconds, whoever asks");
    store.memory.save(&login()).await.unwrap();
    assert_eq!(rig.outcome().await, LOGIN, "not yet");
    rig.clock.advance(10 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens(), ["a0", "u1"]);
    assert_eq!((hook.calls(), rig.issuer.calls(), rig.session.status()), (1, 1, Status::Fresh));
    assert_eq!(told(&mut events).await.pop().unwrap(), "refreshed 3");
}

/// K-51: a store that fails does not revive, and is asked again.
#[tokio::test]
async fn k_51_a_dead_session_survives_a_store_that_fails() {
    let store = ScriptedStore::holding(Rig::tokens(3600)).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, LOGIN);
    store.fail(&["load"]);
    rig.clock.advance(10 * SECOND);
    rig.outcome().await;
    assert_eq!(rig.outcome().await, LOGIN);
    store.fail(&[]);
    store.memory.save(&login()).await.unwrap();
    rig.clock.advance(10 * SECOND);
    assert_eq!((rig.outcome().await, rig.issuer.calls()), ("200".into(), 1));
}

// ---- K-52 ----

/// K-52: the hook is called now, and requests go on until the token is over. D07, X16.
#[tokio::test]
async fn k_52_a_dead_refresh_token_calls_the_hook_while_the_access_token_goes_on() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (hook, counter) = (gate.clone(), calls.clone());
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| {
        b.on_login_required(move |_| {
            let gate = hook.clone();
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move {
                gate.acquire().await.unwrap().forget();
                None
            }
        })
    });
    let calls = || calls.load(std::sync::atomic::Ordering::SeqCst);
    rig.clock.advance(HOUR - 60 * SECOND);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    assert_eq!(rig.outcome().await, "200");
    everybody_waits().await;
    assert_eq!((calls(), rig.session.status()), (1, Status::LoginRequired), "now");
    for _ in 0..5 {
        let request = rig.spawn_get();
        everybody_waits().await;
        assert!(request.is_finished(), "waits for a person");
        assert_eq!(outcome(request.await.unwrap()), "200");
        rig.clock.advance(SECOND);
    }
    gate.add_permits(1);
    everybody_waits().await;
    rig.clock.advance(55 * SECOND - SECOND / 1000);
    assert_eq!(rig.outcome().await, "200", "declined, but alive");
    rig.clock.advance(SECOND / 1000);
    assert_eq!(rig.outcome().await, LOGIN, "over");
    assert_eq!((calls(), rig.issuer.calls()), (1, 1), "that session is dead");
}

/// K-52: what the hook returns is used from then on.
#[tokio::test]
async fn k_52_the_hooks_tokens_replace_the_living_token() {
    let hook = Hook::returning(login());
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b));
    rig.clock.advance(HOUR - SECOND);
    rig.issuer.then_fails(RefreshFailure::Terminal);
    rig.get().await.unwrap();
    everybody_waits().await;
    rig.get().await.unwrap();
    assert_eq!(rig.api.tokens(), ["a0", "u1"]);
}

// ---- K-53 ----

/// K-53, Q-53, Q-60: what another process has stored meanwhile decides. X01, X02.
#[tokio::test]
async fn k_53_a_refused_token_that_is_no_longer_the_stored_one_is_not_the_end() {
    let fresh = || TokenSet::new("a9").with_refresh_token("r9").with_expires_in(HOUR);
    type Sibling = Option<Option<TokenSet>>;
    for (case, sibling, expected, sent) in [
        ("rotated", Some(Some(fresh())) as Sibling, "a9", vec!["r0"]),
        (
            "rotated, and over again",
            Some(Some(TokenSet::new("a9").with_refresh_token("r9"))),
            "a1",
            vec!["r0", "r9"],
        ),
        ("nothing", None, "", vec!["r0"]),
        ("logged out", Some(None), "", vec!["r0"]),
        (
            "another access token for the same refresh token",
            Some(Some(TokenSet::new("a9").with_refresh_token("r0"))),
            "",
            vec!["r0"],
        ),
    ] {
        let hook = Hook::declining();
        let store = ScriptedStore::holding(Rig::tokens(3600)).await;
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b.store(store.clone())));
        rig.get().await.unwrap();
        rig.clock.advance(HOUR);
        rig.issuer.then_fails(RefreshFailure::Terminal);
        rig.issuer.hold();
        let request = rig.spawn_get();
        everybody_waits().await;
        match sibling {
            Some(Some(tokens)) => {
                let is_over = case.contains("over");
                let end = rig.clock.wall() + if is_over { Duration::ZERO } else { HOUR };
                store.memory.save(&tokens.with_expires_at(end)).await.unwrap();
            }
            Some(None) => store.memory.clear().await.unwrap(),
            None => {}
        }
        rig.issuer.release();
        let got = outcome(request.await.unwrap());
        if expected.is_empty() {
            assert_eq!((got.as_str(), hook.calls()), (LOGIN, 1), "{case}");
        } else {
            assert_eq!((got.as_str(), hook.calls()), ("200", 0), "{case}");
            assert_eq!(rig.api.tokens().pop().unwrap(), expected, "{case}");
            assert_eq!(store.access_token().await.unwrap(), expected, "{case}: not wiped");
        }
        assert_eq!(rig.issuer.sent(), sent, "{case}");
    }
}

// ---- K-54 ----

/// K-54, Q-37: what may pass, and what no login helps against, calls no hook. D08, D14, G09.
#[tokio::test]
async fn k_54_only_a_dead_refresh_token_calls_the_hook() {
    for failure in [
        RefreshFailure::Busy,
        RefreshFailure::Configuration,
        RefreshFailure::Lost,
        RefreshFailure::NotSent,
        RefreshFailure::Unusable,
    ] {
        let hook = Hook::returning(login());
        let store = ScriptedStore::holding(Rig::tokens(3600)).await;
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| hook.on(b.store(store.clone())));
        rig.get().await.unwrap();
        rig.clock.advance(HOUR);
        for _ in 0..3 {
            rig.issuer.then_fails(failure);
        }
        let request = rig.spawn_get();
        while !request.is_finished() {
            everybody_waits().await;
            rig.clock.advance(SECOND);
        }
        let error = request.await.unwrap().unwrap_err();
        let error = Error::find(&error).unwrap();
        let is_configuration = matches!(error.kind(), ErrorKind::Configuration);
        assert_eq!(is_configuration, failure == RefreshFailure::Configuration, "{error}");
        assert!(is_configuration || matches!(error.kind(), ErrorKind::Unavailable), "{error}");
        assert_eq!(hook.calls(), 0, "{failure:?}");
        assert_eq!(store.access_token().await.unwrap(), "a0", "{failure:?}: untouched");
        assert_ne!(rig.session.status(), Status::LoginRequired, "{failure:?}");
    }
}

// ---- K-55 ----

/// K-55: the refresh token's own end is known, and that it is near is told once, before.
#[tokio::test]
async fn k_55_a_login_that_is_due_soon_is_told_before_it_is_due() {
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.login_notice(600 * SECOND));
    let mut events = rig.session.events();
    let end = rig.clock.wall() + HOUR;
    for (case, ahead, expected) in [
        ("far", Duration::ZERO, vec!["refreshed 2"]),
        ("the next refresh is early enough", HOUR - 661 * SECOND, vec!["refreshed 3"]),
        ("the next refresh is too late to tell", SECOND, vec!["refreshed 4", "login due"]),
        ("told already", SECOND, vec!["refreshed 5"]),
    ] {
        rig.clock.advance(ahead);
        let tokens = TokenSet::new("a").with_refresh_token("r").with_expires_in(60 * SECOND);
        rig.issuer.then(Ok(tokens.with_refresh_expires_at(end)));
        rig.session.refresh().await.unwrap();
        assert_eq!(told(&mut events).await, expected, "{case}");
        let known = rig.session.current_tokens().unwrap().refresh_expires_at();
        assert_eq!(known, Some(end), "{case}");
    }
}

/// K-55: where access tokens live longer than the notice, there may be no refresh within it.
#[tokio::test]
async fn k_55_a_login_is_told_in_time_where_access_tokens_live_long() {
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.login_notice(600 * SECOND));
    let mut events = rig.session.events();
    let tokens = TokenSet::new("a").with_refresh_token("r").with_expires_in(HOUR);
    let end = rig.clock.wall() + HOUR + 600 * SECOND;
    rig.issuer.then(Ok(tokens.with_refresh_expires_at(end)));
    rig.session.refresh().await.unwrap();
    assert_eq!(told(&mut events).await, ["refreshed 2", "login due"]);
}

/// K-55: the end may be in the refresh token itself, and stays known when it is not rotated.
#[tokio::test]
async fn k_55_the_end_of_a_refresh_token_that_is_a_jwt_is_known() {
    let rig = Rig::new(Api::friendly());
    let wall = rig.clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap();
    let exp = wall.as_secs() + 7200;
    let tokens = TokenSet::new("u").with_refresh_token(jwt(&json!({ "exp": exp })));
    rig.session.set_tokens(tokens).await.unwrap();
    let end = Some(std::time::UNIX_EPOCH + SECOND * u32::try_from(exp).unwrap());
    let known = || rig.session.current_tokens().unwrap().refresh_expires_at();
    assert_eq!(known(), end);
    rig.issuer.then(Ok(TokenSet::new("a1")));
    rig.session.refresh().await.unwrap();
    assert_eq!(known(), end);
}
