//! What only a real socket shows: redirects, connections, bodies on their way.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_refresh::{
    ClientAuth, Error, ManualClock, Provider, RefreshFailure, Session, SessionBuilder,
    TokenEndpoint, TokenSet,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{
    Answer, ClosedPort, Hook, Issuer, Rig, SECOND, Server, answer, everybody_waits, fed_body,
    outcome, redirect,
};

/// A session with `a0`/`r0` that may send its token to these, and a client with real sockets.
fn session(issuer: &Issuer, allowed: &[&Server]) -> Session {
    build(issuer, allowed, |builder| builder)
}

fn build(
    issuer: &Issuer,
    allowed: &[&Server],
    settings: impl FnOnce(SessionBuilder) -> SessionBuilder,
) -> Session {
    let builder = Session::builder(issuer.clone()).tokens(Rig::tokens(3600));
    let allow = |builder: SessionBuilder, server: &&Server| builder.allow_origin(server.url(""));
    settings(allowed.iter().fold(builder, allow)).build().unwrap()
}

fn client(session: &Session) -> ClientWithMiddleware {
    with(session, reqwest::Client::new())
}

fn with(session: &Session, client: reqwest::Client) -> ClientWithMiddleware {
    ClientBuilder::new(client).with(session.clone()).build()
}

// ---- K-02 ----

/// K-02: A06. reqwest adds default headers below every middleware, only where there is none.
#[tokio::test]
async fn k_02_a_default_header_of_the_client_loses_and_one_header_arrives() {
    let server = Server::start(|_| answer(200, "")).await;
    let own = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Basic default"))]);
    let inner = reqwest::Client::builder().default_headers(own).build();
    let client = with(&session(&Issuer::new(), &[&server]), inner.unwrap());
    client.get(server.url("/")).send().await.unwrap();
    let request = client.get(server.url("/")).header(AUTHORIZATION, "Basic own");
    request.send().await.unwrap();
    let seen = server.seen();
    let headers = |index: usize| -> Vec<_> {
        let values = seen[index].headers.get_all(AUTHORIZATION);
        values.iter().cloned().collect()
    };
    assert_eq!(headers(0), ["Bearer a0"]);
    assert_eq!(headers(1), ["Basic own"]);
}

// ---- K-05 ----

/// K-05: redirects within an origin keep the token.
#[tokio::test]
async fn k_05_a_redirect_within_the_origin_keeps_the_token_and_its_401_is_refreshed() {
    let server = Server::start(|seen| match (seen.url.path(), seen.token()) {
        ("/old", _) => redirect(307, "/new"),
        (_, Some("a0")) => answer(401, "rejected"),
        _ => answer(200, seen.body.clone().unwrap()),
    })
    .await;
    let issuer = Issuer::new();
    let client = client(&session(&issuer, &[&server]));
    let request = client.post(server.url("/old")).body("bytes");
    let response = request.send().await.unwrap();
    assert_eq!(response.url().path(), "/new");
    assert_eq!(response.text().await.unwrap(), "bytes");
    assert_eq!(server.log(), ["/old a0", "/new a0", "/old a1", "/new a1"]);
    assert_eq!(issuer.calls(), 1);
}

/// K-05: X04, R-044, golang/oauth2#805: nothing is added again behind a redirect.
#[tokio::test]
async fn k_05_another_origin_never_sees_the_token_and_its_401_is_returned() {
    for (case, status, is_allowed, is_stream) in [
        ("a stranger", 302, false, false),
        ("a stranger, method kept", 307, false, false),
        ("an allowed origin", 302, true, false),
        ("an allowed origin, a body that is sent once", 303, true, true),
    ] {
        let theirs = Server::start(|_| answer(401, "theirs")).await;
        let target = theirs.url("/b");
        let ours = Server::start(move |_| redirect(status, &target)).await;
        let issuer = Issuer::new();
        let allowed = match is_allowed {
            true => vec![&ours, &theirs],
            false => vec![&ours],
        };
        let session = session(&issuer, &allowed);
        let request = client(&session).post(ours.url("/a"));
        let (feed, body) = fed_body();
        drop(feed);
        let request = if is_stream { request.body(body) } else { request };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401, "{case}");
        assert_eq!(response.url().as_str(), theirs.url("/b"), "{case}");
        assert_eq!(response.text().await.unwrap(), "theirs", "{case}");
        session.settle().await.unwrap();
        assert_eq!((ours.log(), theirs.log()), (vec!["/a a0".into()], vec!["/b -".into()]));
        assert_eq!(issuer.calls(), 0, "{case}");
    }
}

/// K-05: I01: also not behind the redirect of a replay.
#[tokio::test]
async fn k_05_a_401_and_then_a_redirect_shows_the_new_token_to_nobody_else() {
    let theirs = Server::start(|_| answer(200, "theirs")).await;
    let target = theirs.url("/b");
    let ours = Server::start(move |seen| match seen.token() {
        Some("a0") => answer(401, ""),
        _ => redirect(302, &target),
    })
    .await;
    let issuer = Issuer::new();
    let client = client(&session(&issuer, &[&ours]));
    let response = client.get(ours.url("/a")).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "theirs");
    assert_eq!(ours.log(), ["/a a0", "/a a1"]);
    assert_eq!(theirs.log(), ["/b -"]);
    assert_eq!(theirs.seen()[0].headers.get(AUTHORIZATION), None);
}

/// K-05: reqwest has dropped the header when the request comes home, which nobody can see.
#[tokio::test]
async fn k_05_there_and_back_again_costs_one_bounded_refresh() {
    let away = Arc::new(std::sync::OnceLock::<String>::new());
    let to = Arc::clone(&away);
    let ours = Server::start(move |seen| match seen.url.path() {
        "/start" => redirect(302, to.get().unwrap()),
        _ => answer(401, "home, without a token"),
    })
    .await;
    let home = ours.url("/home");
    let theirs = Server::start(move |_| redirect(302, &home)).await;
    away.set(theirs.url("/away")).unwrap();
    let issuer = Issuer::new();
    let session =
        build(&issuer, &[&ours], |builder| builder.rejection_budget(2, Duration::from_secs(3600)));
    for calls in [1, 2, 2, 2] {
        let response = client(&session).get(ours.url("/start")).send().await;
        let response = response.unwrap();
        assert_eq!(response.text().await.unwrap(), "home, without a token");
        assert_eq!(issuer.calls(), calls);
    }
    assert_eq!(ours.log()[..4], ["/start a0", "/home -", "/start a1", "/home -"]);
    assert!(theirs.log().iter().all(|entry| entry == "/away -"));
}

/// K-03: sent on from elsewhere, the token is not added at the end of the way.
#[tokio::test]
async fn k_03_a_redirect_from_elsewhere_to_an_allowed_origin_carries_no_token() {
    let ours = Server::start(|_| answer(401, "")).await;
    let target = ours.url("/b");
    let theirs = Server::start(move |_| redirect(302, &target)).await;
    let issuer = Issuer::new();
    let client = client(&session(&issuer, &[&ours]));
    let response = client.get(theirs.url("/a")).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!((ours.log(), issuer.calls()), (vec!["/b -".into()], 0));
}

// ---- K-07 ----

/// K-07: A05, A09, Q-81, R-029.
#[tokio::test]
async fn k_07_the_token_type_is_matched_without_case_and_an_unknown_one_is_an_error() {
    for (case, members, any_type, expected) in [
        ("as usual", json!({"token_type": "Bearer"}), false, Ok(())),
        ("digiRunner", json!({"token_type": "bearer"}), false, Ok(())),
        ("without case", json!({"token_type": "beAREr"}), false, Ok(())),
        ("absent", json!({}), false, Ok(())),
        ("null", json!({"token_type": null}), false, Ok(())),
        ("empty", json!({"token_type": ""}), false, Ok(())),
        ("unknown", json!({"token_type": "mac"}), false, Err("configuration")),
        ("DPoP", json!({"token_type": "dPoP"}), false, Err("configuration")),
        ("eBay", json!({"token_type": "User Access Token"}), true, Ok(())),
        (
            "no access token",
            json!({"access_token": null}),
            false,
            Err("authorization server unavailable"),
        ),
        (
            "an empty one",
            json!({"access_token": ""}),
            false,
            Err("authorization server unavailable"),
        ),
        (
            "one that is no text",
            json!({"access_token": 7}),
            false,
            Err("authorization server unavailable"),
        ),
        (
            "one with a line break",
            json!({"access_token": "a\nb"}),
            false,
            Err("authorization server unavailable"),
        ),
    ] {
        let mut answers = json!({"access_token": "a1", "refresh_token": "r1", "expires_in": 3600});
        merge(&mut answers, members);
        let server = Server::start(move |seen| match seen.url.path() {
            "/token" => answer(200, answers.to_string()),
            _ => answer(200, ""),
        })
        .await;
        let endpoint = TokenEndpoint::new(&server.url("/token"), ClientAuth::none("app")).unwrap();
        let endpoint = match any_type {
            true => endpoint.with_any_token_type(),
            false => endpoint,
        };
        let clock = ManualClock::new();
        let session = Session::builder(endpoint)
            .clock(clock.clone())
            .tokens(Rig::tokens(3600))
            .build()
            .unwrap();
        clock.advance(3600 * SECOND);
        let get = || client(&session).get(server.url("/api")).send();
        let result = outcome(get().await);
        assert_eq!(result, expected.err().unwrap_or("200"), "{case}");
        let last = || server.log().last().unwrap().clone();
        if expected.is_ok() {
            assert_eq!(last(), "/api a1", "{case}");
            continue;
        }
        // The old refresh token is burnt, the new one is not.
        clock.advance(3600 * SECOND);
        outcome(get().await);
        assert_eq!(last(), "/token -", "{case}: nothing was sent to the API");
        let forms: Vec<_> = server.seen().iter().map(form).collect();
        assert!(forms[0].contains("refresh_token=r0"), "{case}: {forms:?}");
        assert!(forms[1].contains("refresh_token=r1"), "{case}: {forms:?}");
    }
}

fn form(seen: &crate::support::Seen) -> String {
    String::from_utf8(seen.body.clone().unwrap()).unwrap()
}

fn merge(object: &mut Value, members: Value) {
    let Value::Object(members) = members else { unreachable!() };
    object.as_object_mut().unwrap().extend(members);
}

// ---- K-42 ----

/// K-42: Q-90: what hyper knows of a response, and a body that breaks off.
#[tokio::test]
async fn k_42_a_real_response_survives_the_look_its_address_and_broken_body_included() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let head = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nx: y\r\n";
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let length = socket.read(&mut request).await.unwrap();
            let path = String::from_utf8_lossy(&request[..length]).into_owned();
            let body = match path.starts_with("GET /whole") {
                true => "content-length: 2\r\n\r\n{}",
                false => "content-length: 99\r\n\r\n{\"error\":",
            };
            let answer = [head, body].concat();
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let issuer = Issuer::with(3600 * SECOND, Provider::digirunner());
    let session = Session::builder(issuer.clone())
        .tokens(Rig::tokens(3600))
        .allow_origin(format!("http://{address}"))
        .build()
        .unwrap();
    let client = client(&session);
    let get = |path: &str| client.get(format!("http://{address}{path}")).send();
    let whole = get("/whole").await.unwrap();
    assert_eq!((whole.status().as_u16(), whole.version()), (403, http::Version::HTTP_11));
    assert_eq!(whole.remote_addr(), Some(address));
    assert_eq!((whole.content_length(), whole.headers()["x"].as_bytes()), (Some(2), &b"y"[..]));
    assert_eq!(whole.text().await.unwrap(), "{}");

    let mut broken = get("/broken").await.unwrap();
    assert_eq!((broken.status().as_u16(), issuer.calls()), (403, 0));
    assert_eq!(broken.chunk().await.unwrap().unwrap(), "{\"error\":");
    assert!(broken.chunk().await.is_err());
}

// ---- K-43 ----

/// K-43: E21, E23: the bytes as they arrive.
#[tokio::test]
async fn k_43_a_replay_sends_the_bytes_again_and_a_stream_is_sent_once() {
    let server = Server::start(|seen| match seen.token() {
        Some("a0") => answer(401, ""),
        _ => answer(200, ""),
    })
    .await;
    let bodies = |server: &Server| -> Vec<_> {
        let seen = server.seen();
        seen.into_iter().map(|seen| seen.body.unwrap()).collect()
    };
    let issuer = Issuer::new();
    let once = session(&issuer, &[&server]);
    let request = client(&once).post(server.url("/")).body("bytes");
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(bodies(&server), [b"bytes", b"bytes"]);

    let twice = session(&issuer, &[&server]);
    let (feed, body) = fed_body();
    for part in ["str", "eam"] {
        feed.data(part);
    }
    drop(feed);
    let request = client(&twice).post(server.url("/")).body(body);
    assert_eq!(request.send().await.unwrap().status(), 401);
    assert_eq!(bodies(&server)[2..], [b"stream"]);
    twice.settle().await.unwrap();
    assert_eq!(twice.current_tokens().unwrap().access_token(), "a2");
}

// ---- K-45 ----

fn chunked(status: u16, size: usize) -> Answer {
    let (feed, body) = fed_body();
    (0..size).step_by(1024).for_each(|_| feed.data(vec![b'x'; 1024]));
    answer(status, axum::body::Body::new(body))
}

/// K-45: E24.
#[tokio::test]
async fn k_45_the_connection_of_a_thrown_away_401_is_used_again_for_the_replay() {
    for (case, script, connections) in [
        ("no body", (|| answer(401, "")) as fn() -> Answer, 1),
        ("a small one", || answer(401, "rejected"), 1),
        ("60 KiB", || answer(401, vec![b'x'; 60 * 1024]), 1),
        ("60 KiB in chunks", || chunked(401, 60 * 1024), 1),
        ("1 MiB", || answer(401, vec![b'x'; 1 << 20]), 2),
    ] {
        let server = Server::start(move |seen| match seen.token() {
            Some("a0") => script(),
            _ => answer(200, "replayed"),
        })
        .await;
        let client = client(&session(&Issuer::new(), &[&server]));
        let response = client.get(server.url("/")).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "replayed", "{case}");
        assert_eq!(server.connections(), connections, "{case}");
    }
}

/// K-45: E24: also if the refresh fails, or the hook panics.
#[tokio::test]
async fn k_45_the_connection_is_free_after_a_refresh_that_failed_or_panicked() {
    for case in ["refused", "hook panics"] {
        let server = Server::start(|seen| match seen.token() {
            Some("a0") => answer(401, vec![b'x'; 60 * 1024]),
            _ => answer(200, ""),
        })
        .await;
        let issuer = Issuer::new();
        issuer.then_fails(RefreshFailure::Terminal);
        let hook = Hook::declining();
        let session = build(&issuer, &[&server], |builder| match case {
            "refused" => hook.on(builder),
            _ => builder.on_login_required(|_| async { panic!("scripted panic") }),
        });
        let client = client(&session);
        let error = client.get(server.url("/")).send().await.unwrap_err();
        let error = Error::find(&error).unwrap();
        assert!(error.rejection().is_some(), "{case}");
        session.set_tokens(TokenSet::new("b0")).await.unwrap();
        let response = client.get(server.url("/")).send().await.unwrap();
        assert_eq!(response.status(), 200, "{case}");
        assert_eq!(server.connections(), 1, "{case}");
        everybody_waits().await;
    }
}

// ---- E08 ----

/// K-40: E08: no answer, no verdict.
#[tokio::test]
async fn k_40_a_connection_that_is_refused_is_reqwests_error_and_no_refresh() {
    let closed = ClosedPort::reserve();
    let url = closed.url("/");
    let issuer = Issuer::new();
    let session = Session::builder(issuer.clone())
        .tokens(Rig::tokens(3600))
        .allow_origin(&*url)
        .build()
        .unwrap();
    let error = client(&session).get(&url).send().await.unwrap_err();
    assert!(error.is_connect(), "{error}");
    assert!(Error::find(&error).is_none());
    assert_eq!(issuer.calls(), 0);
}
