//! Logging out: what is told to the revocation endpoint, and what is said if it does not follow.

use std::error::Error as _;
use std::sync::Arc;

use reqwest_refresh::{
    ClientAuth, ManualClock, Refresh, Session, SessionBuilder, Status, TokenEndpoint, TokenSet,
    TokenStore,
};

use crate::bad_input::check;
use crate::signals::Stubborn;
use crate::support::{
    Api, ClosedPort, Issuer, Log, Rig, SECOND, ScriptedStore, Then, Wire, everybody_waits, http,
    until,
};
use crate::token_request::{endpoint, tokens};

const UNAVAILABLE: &str = "authorization server unavailable";

/// A session of the server at `base`, at which tokens can be revoked. Nobody may be asked to log in.
fn session_at(base: &str) -> SessionBuilder {
    let endpoint = TokenEndpoint::new(&format!("{base}/token"), ClientAuth::none("app")).unwrap();
    Session::builder(endpoint.with_revocation_url(&format!("{base}/revoke")).unwrap())
        .on_login_required(|why| async move { panic!("K-54: nobody can log in here: {why:?}") })
}

/// The tokens that were to be revoked, as they stood in the forms.
fn revoked(wire: &Wire) -> Vec<String> {
    let token = |request: &String| {
        let (_, form) = request.split_once("\r\n\r\ntoken=")?;
        form.split('&').next().map(str::to_owned)
    };
    wire.requests().iter().filter_map(token).collect()
}

/// A server that answers to the refresh token, and then to the access token.
async fn answering(refresh_token: String, access_token: String) -> Wire {
    Wire::start(move |number| match number {
        0 => Then::Say(refresh_token.clone()),
        _ => Then::Say(access_token.clone()),
    })
    .await
}

fn unsupported() -> String {
    http(400, "", r#"{"error": "unsupported_token_type"}"#)
}

/// K-73, R-091, R-094, DIGIRUNNER.md §9: two calls, each with its hint, the password as it is.
#[tokio::test]
async fn k_73_a_logout_revokes_both_tokens_as_digirunner_wants_it() {
    for (case, password, proof) in [
        ("Scenario I", Some("tsp 123"), "&client_id=tspclient&client_secret=tsp+123"),
        ("Scenario II", None, "&client_id=tspclient"),
    ] {
        let wire = Wire::saying(http(200, "", r#"{"code":"token_revoke_success"}"#)).await;
        let endpoint = TokenEndpoint::digirunner(&wire.url(""), "tspclient", password).unwrap();
        let session = Session::builder(endpoint).tokens(tokens()).build().unwrap();
        session.log_out().await.unwrap();
        assert!(session.current_tokens().is_none());
        let bodies: Vec<_> = wire
            .requests()
            .iter()
            .map(|request| {
                let (head, body) = request.split_once("\r\n\r\n").unwrap();
                assert!(head.starts_with("POST /oauth/revocation HTTP/1.1\r\n"), "{case}");
                assert!(!head.contains("authorization"), "{case}: one proof, in the body");
                body.to_owned()
            })
            .collect();
        let expected = [
            format!("token=r0%26%2B+%C3%A4&token_type_hint=refresh_token{proof}"),
            format!("token=a0&token_type_hint=access_token{proof}"),
        ];
        assert_eq!(bodies, expected, "{case}");
    }
}

/// K-73, K-54, R-092, R-093: each token is tried once, whatever becomes of the other, and the error
/// says which of them lives on, and why.
#[tokio::test]
async fn k_73_a_logout_says_which_token_could_not_be_revoked_and_why() {
    let fine = || http(200, "", "{}");
    let busy = || http(503, "retry-after: 7\r\n", "");
    let refused = r#"{"error": "invalid_client", "error_description": "who are you? a0 r0&+ ä"}"#;
    let refused = || http(401, "", refused);
    let did_not = "could not be revoked: the revocation endpoint did not follow";
    for (case, answers, kind, message, pause) in [
        ("both", (fine(), fine()), "", String::new(), None),
        ("no content", (http(204, "", ""), http(204, "", "")), "", String::new(), None),
        ("a page", (http(200, "", "<html>"), http(200, "", "[]")), "", String::new(), None),
        (
            "an error with status 200",
            (http(200, "", r#"{"ok": false, "error": "not_allowed"}"#), fine()),
            UNAVAILABLE,
            format!("the refresh token {did_not}: status 200: not_allowed"),
            None,
        ),
        (
            "busy with the refresh token",
            (busy(), fine()),
            UNAVAILABLE,
            format!("the refresh token {did_not}: status 503"),
            Some(7 * SECOND),
        ),
        (
            "busy with the access token",
            (fine(), http(503, "retry-after: 99999999999999999999\r\n", "")),
            UNAVAILABLE,
            format!("the access token {did_not}: status 503"),
            Some(3600 * SECOND),
        ),
        (
            "the client is refused",
            (refused(), refused()),
            "configuration",
            format!(
                "the refresh token {did_not}: status 401: invalid_client: who are you? [hidden] [hidden]; \
                 the access token {did_not}: status 401: invalid_client: who are you? [hidden] [hidden]"
            ),
            None,
        ),
        (
            "broken, then busy",
            (http(500, "", "<html>"), busy()),
            UNAVAILABLE,
            format!(
                "the refresh token {did_not}: status 500; the access token {did_not}: status 503"
            ),
            Some(7 * SECOND),
        ),
        (
            "another error of the access token",
            (fine(), http(400, "", r#"{"error": "invalid_request"}"#)),
            "configuration",
            format!("the access token {did_not}: status 400: invalid_request"),
            None,
        ),
        (
            "moved",
            (http(307, "location: /elsewhere\r\n", ""), fine()),
            UNAVAILABLE,
            format!("the refresh token {did_not}: status 307"),
            None,
        ),
        (
            "no connection for the refresh token",
            (String::new(), fine()),
            UNAVAILABLE,
            "the refresh token could not be revoked: the answer of the revocation endpoint was lost"
                .into(),
            None,
        ),
        ("refresh tokens only", (fine(), unsupported()), "", String::new(), None),
        (
            "access tokens only",
            (unsupported(), fine()),
            "configuration",
            format!("the refresh token {did_not}: status 400: unsupported_token_type"),
            None,
        ),
        (
            "refresh tokens only, and busy",
            (busy(), unsupported()),
            UNAVAILABLE,
            format!("the refresh token {did_not}: status 503"),
            Some(7 * SECOND),
        ),
    ] {
        let wire = answering(answers.0, answers.1).await;
        let store = ScriptedStore::holding(tokens()).await;
        let session = session_at(&wire.url("")).store(store.clone()).build().unwrap();
        match session.log_out().await {
            Ok(()) => assert_eq!(kind, "", "{case}"),
            Err(error) => {
                assert_eq!(error.to_string(), format!("{kind}: {message}"), "{case}");
                assert_eq!(error.retry_after(), pause, "{case}");
            }
        }
        assert_eq!(revoked(&wire), ["r0%26%2B+%C3%A4", "a0"], "{case}");
        assert_eq!(session.status(), Status::LoggedOut, "{case}");
        assert_eq!(store.access_token().await, None, "{case}");
    }
}

/// K-63, K-73, R-092: RFC 7009 §2.2.1. The one whom it may concern reads it in the log.
#[tokio::test]
async fn k_73_an_access_token_that_cannot_be_revoked_is_left_to_its_end_and_the_log_says_so() {
    let (log, _guard) = Log::start();
    let wire = answering(http(200, "", ""), unsupported()).await;
    let secret = TokenSet::new("CANARY-a").with_refresh_token("CANARY-r");
    let session = session_at(&wire.url("")).tokens(secret).build().unwrap();
    session.log_out().await.unwrap();
    let lines = log.lines("does not revoke access tokens");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(" INFO "), "{lines:?}");
    assert_eq!(log.lines("CANARY"), [""; 0], "K-63");
}

/// K-73: without a refresh token there is one request.
#[tokio::test]
async fn k_73_what_is_not_there_is_not_revoked() {
    let wire = Wire::saying(http(503, "", "")).await;
    let session = session_at(&wire.url("")).tokens(TokenSet::new("a0")).build().unwrap();
    let error = session.log_out().await.unwrap_err();
    check("no refresh token", &error, UNAVAILABLE, ": the access token could not be revoked");
    assert_eq!(wire.requests().len(), 1);
    session.log_out().await.expect("nobody is logged in any more");
    assert_eq!(wire.requests().len(), 1);

    let session = Session::builder(endpoint(&wire)).tokens(tokens()).build().unwrap();
    session.log_out().await.expect("there is no revocation endpoint");
    assert_eq!(wire.requests().len(), 1);
}

/// K-73: the server is down. Nobody stays logged in because of that.
#[tokio::test]
async fn k_73_a_logout_from_a_server_that_is_down_is_a_logout() {
    let nowhere = ClosedPort::reserve();
    let store = ScriptedStore::holding(tokens()).await;
    let session = session_at(&nowhere.url("")).store(store.clone()).build().unwrap();
    let error = session.log_out().await.unwrap_err();
    let words = "the refresh token could not be revoked: no connection to the revocation endpoint; \
                 the access token could not be revoked: no connection to the revocation endpoint";
    check("down", &error, UNAVAILABLE, words);
    assert!(error.source().is_some(), "why there is no connection");
    assert_eq!((session.status(), store.access_token().await), (Status::LoggedOut, None));
}

/// K-73, R-093: the server takes the request and says nothing. Store and memory do not wait for it,
/// and the caller no longer than a refresh may take.
#[tokio::test]
async fn k_73_a_logout_from_a_server_that_hangs_ends_with_the_refresh_timeout() {
    for (case, set, words) in [
        ("both", tokens(), "nobody knows whether both tokens are revoked"),
        ("one", TokenSet::new("a0"), "nobody knows whether the access token is revoked"),
    ] {
        let wire = Wire::start(|_| Then::Keep(String::new())).await;
        let store = ScriptedStore::holding(set).await;
        let clock = ManualClock::new();
        let builder = session_at(&wire.url("")).store(store.clone()).clock(clock.clone());
        let session = builder.refresh_timeout(5 * SECOND).build().unwrap();
        let handle = session.clone();
        let out = tokio::spawn(async move { handle.log_out().await });
        until(|| wire.requests().len() == 1).await;
        assert_eq!((session.status(), store.access_token().await), (Status::LoggedOut, None));
        clock.advance(5 * SECOND - SECOND / 1000);
        everybody_waits().await;
        assert!(!out.is_finished(), "{case}");
        clock.advance(SECOND / 1000);
        check(case, &out.await.unwrap().unwrap_err(), UNAVAILABLE, words);
        assert_eq!(wire.requests().len(), 1, "{case}");
    }
}

/// What a logout comes to, with all the time that it needs.
async fn log_out(session: &Session, clock: &ManualClock) -> Result<(), reqwest_refresh::Error> {
    let session = session.clone();
    let out = tokio::spawn(async move { session.log_out().await });
    while !out.is_finished() {
        everybody_waits().await;
        clock.advance(SECOND / 10);
    }
    out.await.unwrap()
}

/// K-60, K-73: two things that fail are two things that are said.
#[tokio::test]
async fn k_73_neither_the_store_nor_the_server_hides_what_the_other_could_not_do() {
    let store = ScriptedStore::holding(tokens()).await;
    store.fail(&["clear"]);
    let clock = ManualClock::new();
    let builder = Session::builder(Stubborn("fails")).store(store.clone()).clock(clock.clone());
    let session = builder.build().unwrap();
    let error = log_out(&session, &clock).await.unwrap_err();
    check("both", &error, "token store", ": the token store could not be written; no");
    assert_eq!(error.source().unwrap().to_string(), "scripted: clear");
    assert_eq!(session.status(), Status::LoggedOut);
}

/// K-73: a program that starts only to log out, and cannot read what there is to revoke.
#[tokio::test]
async fn k_73_what_the_store_did_not_give_is_revoked_by_the_next_logout() {
    let wire = Wire::saying(http(200, "", "")).await;
    let store = ScriptedStore::holding(tokens()).await;
    store.fail(&["load", "clear"]);
    let clock = ManualClock::new();
    let builder = session_at(&wire.url("")).store(store.clone()).clock(clock.clone());
    let session = builder.build().unwrap();
    let error = log_out(&session, &clock).await.unwrap_err();
    let words = "the token store could not be written; the token store could not be read";
    check("nothing is known", &error, "token store", words);
    assert_eq!(revoked(&wire), [""; 0]);

    store.fail(&[]);
    session.log_out().await.unwrap();
    assert_eq!(revoked(&wire), ["r0%26%2B+%C3%A4", "a0"]);
    assert_eq!(store.access_token().await, None);
}

/// K-25, K-73: a login right after the logout does not save what the logout was to revoke.
#[tokio::test]
async fn k_73_what_a_refresh_brings_after_a_logout_is_revoked_whatever_is_said_next() {
    for (case, logs_out, logs_in, expected) in [
        ("a logout", true, false, vec!["a0", "a1"]),
        ("a logout and a login", true, true, vec!["a0", "a1"]),
        ("a login", false, true, vec![]),
        ("neither", false, false, vec![]),
    ] {
        let rig = Rig::new(Api::friendly());
        rig.clock.advance(3600 * SECOND);
        rig.issuer.hold();
        let request = rig.spawn_get();
        until(|| rig.issuer.calls() == 1).await;
        if logs_out {
            rig.session.log_out().await.unwrap();
        }
        if logs_in {
            rig.session.set_tokens(TokenSet::new("u1")).await.unwrap();
        }
        rig.issuer.release();
        let _ = request.await.unwrap();
        rig.session.settle().await.unwrap();
        assert_eq!(rig.issuer.revoked(), expected, "{case}");
    }
}

/// K-07, K-73: an answer that is of no use has a refresh token in it all the same.
#[tokio::test]
async fn k_73_a_refresh_token_without_an_access_token_is_revoked_after_a_logout() {
    let wire = Wire::start(|number| match number {
        0 => Then::Say(http(200, "", r#"{"refresh_token": "r1"}"#)),
        _ => Then::Say(http(200, "", "")),
    })
    .await;
    let session = session_at(&wire.url("")).tokens(tokens()).build().unwrap();
    wire.hold();
    let handle = session.clone();
    let refresh = tokio::spawn(async move { handle.refresh().await });
    until(|| wire.requests().len() == 1).await;
    refresh.abort(); // its caller; K-21
    let handle = session.clone();
    let out = tokio::spawn(async move { handle.log_out().await });
    until(|| wire.requests().len() == 2).await;
    wire.release();
    out.await.unwrap().unwrap();
    session.settle().await.unwrap();
    assert!(revoked(&wire).contains(&"r1".to_owned()), "{:?}", revoked(&wire));
}

/// K-61, K-73: what another process stores while the logout waits for it is what there is to revoke.
#[tokio::test]
async fn k_73_a_logout_revokes_what_a_sibling_stored_while_it_refreshed() {
    let store = ScriptedStore::holding(Rig::tokens(3600)).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    rig.get().await.unwrap();
    let sibling = store.memory.lock().await.unwrap();
    let handle = rig.session.clone();
    let out = tokio::spawn(async move { handle.log_out().await });
    everybody_waits().await;
    store.memory.save(&TokenSet::new("a9").with_refresh_token("r9")).await.unwrap();
    drop(sibling);
    out.await.unwrap().unwrap();
    assert_eq!((rig.issuer.revoked(), store.access_token().await), (vec!["a9".into()], None));
}

/// K-25, K-73: a set that could not be saved before the logout is in no store to be found.
#[tokio::test]
async fn k_73_a_logout_revokes_what_is_being_saved() {
    let store = ScriptedStore::holding(Rig::tokens(3600)).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
    rig.get().await.unwrap();
    rig.clock.advance(3600 * SECOND);
    store.fail(&["save"]);
    let request = rig.spawn_get();
    until(|| store.log().contains(&"save a1".to_owned())).await;
    log_out(&rig.session, &rig.clock).await.unwrap();
    let _ = request.await.unwrap();
    let mut revoked = rig.issuer.revoked();
    revoked.sort();
    assert_eq!((revoked, store.access_token().await), (vec!["a0".into(), "a1".into()], None));
}

/// K-25, K-73: what a refresh brings that began after the logout is not the logout's to revoke.
#[tokio::test]
async fn k_73_what_began_after_the_logout_is_not_revoked() {
    let wire = Wire::saying(http(200, "", r#"{"access_token": "c1"}"#)).await;
    let endpoint = TokenEndpoint::new(&wire.url("/token"), ClientAuth::body("app", "secret"));
    let endpoint = endpoint.unwrap().with_client_credentials();
    let endpoint = endpoint.with_revocation_url(&wire.url("/revoke")).unwrap();
    let session = Session::builder(endpoint).build().unwrap();
    session.log_out().await.unwrap();
    wire.hold();
    let handle = session.clone();
    let asking = tokio::spawn(async move { handle.tokens().await });
    until(|| wire.requests().len() == 1).await;
    session.set_tokens(TokenSet::new("u1")).await.unwrap();
    wire.release();
    assert_eq!(asking.await.unwrap().unwrap().access_token(), "u1");
    session.settle().await.unwrap();
    assert_eq!(revoked(&wire), [""; 0]);
}

/// K-73: a `Refresh` that is shared revokes as it does alone.
#[tokio::test]
async fn k_73_a_shared_refresh_revokes_too() {
    let issuer = Issuer::new();
    let refresh: Arc<dyn Refresh> = Arc::new(issuer.clone());
    let session = Session::builder(refresh).tokens(tokens()).build().unwrap();
    session.log_out().await.unwrap();
    assert_eq!(issuer.revoked(), ["a0"]);
}
