//! The API refuses a token: refresh, replay once, and hand out what came.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use http::{Extensions, HeaderValue, Method, StatusCode};
use reqwest::{Body, Request, Response, Url, Version};
use reqwest_middleware::{ClientBuilder, Middleware, Next, Result};
use reqwest_refresh::{Error, ErrorKind, Provider, RefreshError, RefreshFailure, TokenSet};

use crate::support::{Api, Hook, Issuer, Reply, Rig, SECOND, everybody_waits, fed_body, outcome};

/// 401 for `a0`, and this for everything else.
fn then(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Api {
    Api::new(move |seen| match seen.token() {
        Some("a0") => Reply::status(401).body("first"),
        _ => reply(),
    })
}

// ---- K-40 ----

/// K-40: E01, E02, X21, R-070.
#[tokio::test]
async fn k_40_the_caller_gets_the_replays_response_whatever_it_is() {
    for status in [200, 204, 302, 400, 401, 403, 404, 429, 500, 503] {
        let api = then(move || Reply::status(status).header("from", "replay").body("second"));
        let rig = Rig::new(api);
        let response = rig.get().await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["from"], "replay", "{status}");
        assert_eq!(response.url().path(), "/orders", "{status}");
        assert_eq!(response.text().await.unwrap(), "second", "{status}");
        assert_eq!(rig.api.tokens(), ["a0", "a1"], "{status}: exactly once");
        assert_eq!(rig.issuer.sent(), ["r0"], "{status}");
    }
}

/// K-40: E03.
#[tokio::test]
async fn k_40_parallel_401s_share_one_refresh_and_each_is_replayed_once() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    rig.api.hold();
    rig.issuer.hold();
    let requests: Vec<_> = (0..6).map(|_| rig.spawn_get()).collect();
    everybody_waits().await;
    assert_eq!(rig.api.arrived(), 6);
    rig.api.release();
    everybody_waits().await;
    assert_eq!((rig.issuer.calls(), rig.api.arrived()), (1, 6));
    rig.issuer.release();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
    assert_eq!(rig.api.tokens()[..6], vec!["a0"; 6]);
    assert_eq!(rig.api.tokens()[6..], vec!["a1"; 6]);
    assert_eq!(rig.issuer.calls(), 1);
}

/// K-40: E07, E08.
#[tokio::test]
async fn k_40_other_answers_and_transport_errors_pass_through() {
    for status in [200, 204, 302, 400, 402, 403, 404, 407, 419, 429, 500, 503] {
        let hook = Hook::declining();
        let api = Api::new(move |_| Reply::status(status).body("as it came"));
        let rig = Rig::with(api, Issuer::new(), |builder| hook.on(builder));
        let response = rig.get().await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.text().await.unwrap(), "as it came");
        assert_eq!(rig.api.tokens(), ["a0"], "{status}");
        assert_eq!((rig.issuer.calls(), hook.calls()), (0, 0), "{status}");
    }
    let rig = Rig::new(Api::friendly());
    let client =
        ClientBuilder::new(reqwest::Client::new()).with(rig.session.clone()).with(Broken).build();
    let error = client.get("https://api.test/").send().await.unwrap_err();
    assert_eq!(error.to_string(), "the line is dead");
    assert!(Error::find(&error).is_none());
    assert_eq!(rig.issuer.calls(), 0);
}

/// K-40, Q-57: E28.
#[tokio::test]
async fn k_40_a_token_younger_than_the_minimum_age_is_sent_once_more_and_not_refreshed() {
    let provider = || Provider::rfc6749().with_minimum_age(5 * SECOND);
    let rig = || {
        let issuer = Issuer::with(3600 * SECOND, provider());
        Rig::with(Api::rejecting(&["a0"]), issuer, |builder| builder)
    };
    let young = rig();
    young.clock.advance(4 * SECOND);
    assert_eq!(young.get().await.unwrap().status(), 401);
    assert_eq!(young.api.tokens(), ["a0", "a0"]);
    assert_eq!(young.issuer.calls(), 0);
    // It was not young for ever.
    young.clock.advance(SECOND);
    assert_eq!(young.get().await.unwrap().status(), 200);
    assert_eq!(young.api.tokens(), ["a0", "a0", "a0", "a1"]);

    // A replica that has learnt of it meanwhile.
    let times = AtomicUsize::new(0);
    let api = Api::new(move |_| match times.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(401),
        _ => Reply::status(200),
    });
    let issuer = Issuer::with(3600 * SECOND, provider());
    let late = Rig::with(api, issuer, |builder| builder);
    assert_eq!(late.get().await.unwrap().status(), 200);
    assert_eq!((late.api.tokens().len(), late.issuer.calls()), (2, 0));
}

/// K-22, Q-57, Q-62: E04.
#[tokio::test]
async fn k_22_a_late_401_is_replayed_with_the_token_that_is_current_now() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    rig.api.hold();
    let late = rig.spawn_get();
    everybody_waits().await;
    rig.session.refresh().await.unwrap();
    rig.api.release();
    assert_eq!(outcome(late.await.unwrap()), "200");
    assert_eq!(rig.api.tokens(), ["a0", "a1"]);
    assert_eq!(rig.issuer.calls(), 1, "only the one that was asked for");
}

// ---- K-43 ----

/// K-43: E21, R-074.
#[tokio::test]
async fn k_43_the_replay_has_the_same_method_url_headers_and_bytes() {
    for body in [None, Some(""), Some("a=b"), Some("\u{0}\u{ff}")] {
        let rig = Rig::new(Api::rejecting(&["a0"]));
        let url = "https://api.test/a%20b/c?d=e&d=f%2Fg";
        let mut request = Request::new(Method::PATCH, Url::parse(url).unwrap());
        *request.body_mut() = body.map(Body::from);
        *request.version_mut() = Version::HTTP_2;
        for value in ["one", "two"] {
            request.headers_mut().append("x-many", HeaderValue::from_static(value));
        }
        request.headers_mut().insert("idempotency-key", HeaderValue::from_static("42"));
        assert_eq!(rig.client.execute(request).await.unwrap().status(), 200);
        let seen = rig.api.seen();
        assert_eq!(rig.api.tokens(), ["a0", "a1"]);
        for seen in &seen {
            assert_eq!((&seen.method, seen.url.as_str()), (&Method::PATCH, url));
            assert_eq!(seen.body.as_deref(), body.map(str::as_bytes));
            let many: Vec<_> = seen.headers.get_all("x-many").iter().collect();
            assert_eq!(many, ["one", "two"]);
            assert_eq!(seen.headers["idempotency-key"], "42");
            assert_eq!(seen.headers.len(), 4);
        }
    }
}

/// K-43: E23. (E22: reqwest's multipart forms are streams, too.)
#[tokio::test]
async fn k_43_a_body_that_cannot_be_cloned_is_sent_once_and_the_session_is_refreshed_behind_it() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    rig.issuer.hold();
    let (feed, body) = fed_body();
    feed.data("once");
    drop(feed);
    let request = rig.client.post("https://api.test/").body(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 401, "it does not wait for the refresh");
    assert_eq!(response.text().await.unwrap(), "rejected");
    assert_eq!(rig.api.tokens(), ["a0"]);
    everybody_waits().await;
    assert_eq!(rig.issuer.calls(), 1, "for the next request");
    rig.issuer.release();
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(rig.api.tokens(), ["a0", "a1"]);
    assert_eq!(rig.issuer.calls(), 1);
}

/// K-43: the token that it is sent with must last: a stale one is refreshed first.
#[tokio::test]
async fn k_43_a_body_that_cannot_be_cloned_is_not_sent_with_a_stale_token() {
    for (case, failure, token) in
        [("refreshed", None, "a1"), ("the issuer is down", Some(RefreshFailure::Unusable), "a0")]
    {
        let rig = Rig::new(Api::friendly());
        rig.clock.advance(3550 * SECOND);
        if let Some(failure) = failure {
            rig.issuer.then_fails(failure);
        }
        let request = rig.client.post("https://api.test/").body(fed_body().1);
        request.send().await.expect(case);
        assert_eq!(rig.api.tokens(), [token], "{case}");
    }
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(3550 * SECOND);
    let request = rig.client.post("https://api.test/").body("bytes");
    request.send().await.unwrap();
    assert_eq!(rig.api.tokens(), ["a0"], "what can be replayed goes at once");
}

/// K-40: without replays the caller gets the 401, and the next request a new token.
#[tokio::test]
async fn k_40_replays_can_be_switched_off() {
    let rig = Rig::with(Api::rejecting(&["a0"]), Issuer::new(), |builder| builder.replay(false));
    assert_eq!(rig.get().await.unwrap().status(), 401);
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(rig.api.tokens(), ["a0", "a1"]);
    assert_eq!(rig.issuer.calls(), 1);
}

/// K-40: E25. Only this layer and those below it run again.
#[tokio::test]
async fn k_40_a_replay_runs_the_inner_layers_again_and_not_the_outer_ones() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    let (outer, inner) = (Counting::default(), Counting::default());
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(outer.clone())
        .with(rig.session.clone())
        .with(inner.clone())
        .with(rig.api.clone())
        .build();
    let request = client.get("https://api.test/").send();
    assert_eq!(request.await.unwrap().status(), 200);
    let count = |layer: &Counting| layer.0.load(Ordering::SeqCst);
    assert_eq!((count(&outer), count(&inner)), (1, 2));
}

// ---- K-44 ----

/// K-44: E10, E15, E17, R-072.
#[tokio::test]
async fn k_44_a_failed_refresh_is_the_error_and_carries_the_401() {
    for (failure, kind) in [
        (RefreshFailure::Busy, "authorization server unavailable"),
        (RefreshFailure::Unusable, "authorization server unavailable"),
        (RefreshFailure::Configuration, "configuration"),
        (RefreshFailure::Terminal, "login required"),
    ] {
        let api = Api::new(|_| {
            let reply = Reply::status(401).header("www-authenticate", "Bearer realm=r");
            reply.body("why").coming_from("https://api.test/moved")
        });
        let rig = Rig::with(api, Issuer::new(), |builder| builder.refresh_timeout(100 * SECOND));
        let busy = RefreshError::new(failure, "scripted").with_retry_after(1000 * SECOND);
        rig.issuer.then(Err(busy));
        let error = rig.get().await.unwrap_err();
        let error = Error::find(&error).unwrap().clone();
        assert_eq!(error.kind().to_string(), kind);
        let rejection = error.rejection().expect(kind);
        assert_eq!(rejection.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(rejection.headers()["www-authenticate"], "Bearer realm=r");
        assert_eq!(rejection.url().as_str(), "https://api.test/moved");
        assert_eq!(&rejection.body()[..], b"why");
        assert!(std::ptr::eq(rejection, error.clone().rejection().unwrap()));
        assert_eq!((rig.api.arrived(), rig.issuer.calls()), (1, 1), "{kind}");
        // The next one was never sent, so no answer of the API is behind its error.
        let error = rig.get().await.unwrap_err();
        let error = Error::find(&error).unwrap();
        assert_eq!((error.kind().to_string().as_str(), error.rejection().is_none()), (kind, true));
        assert_eq!(rig.api.arrived(), 1);
    }
}

/// K-44: a body of any size is bounded in the snapshot.
#[tokio::test]
async fn k_44_the_snapshot_keeps_at_most_64_kib_of_the_body() {
    for (size, kept) in [(0, 0), (65_536, 65_536), (65_537, 65_536), (1 << 20, 65_536)] {
        let rig = Rig::new(Api::new(move |_| Reply::status(401).body(vec![7; size])));
        rig.issuer.then_fails(RefreshFailure::Configuration);
        let error = rig.get().await.unwrap_err();
        let rejection = Error::find(&error).unwrap().rejection().unwrap();
        assert_eq!(rejection.body().len(), kept);
    }
}

/// K-44: E06, E11.
#[tokio::test]
async fn k_44_parallel_401s_fail_alike_each_with_its_own_answer() {
    let api = Api::new(|seen| Reply::status(401).body(seen.url.path().to_owned()));
    let rig = Rig::new(api);
    rig.api.hold();
    rig.issuer.then_fails(RefreshFailure::Unusable);
    let requests: Vec<_> = ["/1", "/2", "/3"]
        .into_iter()
        .map(|path| {
            let request = rig.client.get(format!("https://api.test{path}"));
            (path, tokio::spawn(request.send()))
        })
        .collect();
    everybody_waits().await;
    assert_eq!(rig.api.arrived(), 3);
    rig.api.release();
    let mut messages = Vec::new();
    for (path, request) in requests {
        let error = request.await.unwrap().unwrap_err();
        let error = Error::find(&error).unwrap();
        assert_eq!(&error.rejection().unwrap().body()[..], path.as_bytes());
        messages.push(error.to_string());
    }
    assert!(messages.iter().all(|message| *message == messages[0]));
    assert_eq!((rig.issuer.calls(), rig.api.arrived()), (1, 3), "no resend");
}

/// K-44: E06.
#[tokio::test]
async fn k_44_tokens_that_were_cleared_while_the_request_was_under_way_are_missing() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    rig.api.hold();
    let request = rig.spawn_get();
    everybody_waits().await;
    rig.session.clear().await.unwrap();
    rig.api.release();
    let error = request.await.unwrap().unwrap_err();
    let error = Error::find(&error).unwrap();
    assert!(matches!(error.kind(), ErrorKind::LoginRequired(_)));
    assert_eq!(&error.rejection().unwrap().body()[..], b"rejected");
    assert_eq!((rig.api.arrived(), rig.issuer.calls()), (1, 0));
}

/// K-44: E12, E13.
#[tokio::test]
async fn k_44_after_a_failure_a_later_401_or_new_tokens_start_a_new_try() {
    let rig = Rig::new(Api::rejecting(&["a0", "b0"]));
    rig.issuer.then_fails(RefreshFailure::Unusable);
    assert_eq!(rig.outcome().await, "authorization server unavailable");
    rig.clock.advance(60 * SECOND);
    assert_eq!(rig.outcome().await, "200", "E12");
    assert_eq!(rig.issuer.sent(), ["r0", "r0"]);

    for failure in [RefreshFailure::Configuration, RefreshFailure::Terminal] {
        let rig = Rig::new(Api::rejecting(&["a0", "b0"]));
        rig.issuer.then_fails(failure);
        assert_ne!(rig.outcome().await, "200");
        let tokens = TokenSet::new("b0").with_refresh_token("s0");
        rig.session.set_tokens(tokens).await.unwrap();
        assert_eq!(rig.outcome().await, "200", "E13");
        assert_eq!(rig.issuer.sent(), ["r0", "s0"]);
    }
}

// ---- K-26 ----

/// K-26: E18, E19, E20: the budget is spent on an endless 401; callers get it, not an error.
#[tokio::test]
async fn k_26_an_endless_401_stops_refreshing_and_reaches_the_caller() {
    let endless = || Api::new(|_| Reply::status(401).body("again"));
    let rig =
        Rig::with(endless(), Issuer::new(), |builder| builder.rejection_budget(2, 30 * SECOND));
    for calls in [1, 2, 2, 2] {
        let response = rig.get().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.text().await.unwrap(), "again");
        assert_eq!(rig.issuer.calls(), calls);
    }
    rig.session.set_tokens(Rig::tokens(3600)).await.unwrap();
    rig.get().await.unwrap();
    assert_eq!(rig.issuer.calls(), 2, "E19: the history survives");
    rig.clock.advance(30 * SECOND);
    rig.get().await.unwrap();
    assert_eq!(rig.issuer.calls(), 3, "the window slides");

    let none =
        Rig::with(endless(), Issuer::new(), |builder| builder.rejection_budget(0, 30 * SECOND));
    assert_eq!(none.get().await.unwrap().status(), 401);
    assert_eq!((none.api.arrived(), none.issuer.calls()), (1, 0), "E20");
}

#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

#[async_trait]
impl Middleware for Counting {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        self.0.fetch_add(1, Ordering::SeqCst);
        next.run(request, extensions).await
    }
}

#[derive(Debug)]
struct Broken;

#[async_trait]
impl Middleware for Broken {
    async fn handle(&self, _: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        Err(reqwest_middleware::Error::middleware(std::io::Error::other("the line is dead")))
    }
}
