//! What a request can ask for by an extension.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::Extensions;
use http::header::AUTHORIZATION;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result};
use reqwest_refresh::{Authenticate, Provider, RefreshFailure, Session, TokenSet};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;

use crate::support::{Api, Hook, Issuer, Reply, Rig, SECOND, everybody_waits, outcome};

async fn get(client: &ClientWithMiddleware, wish: Authenticate) -> Result<Response> {
    let request = client.get("https://api.test/orders");
    request.with_extension(wish).send().await
}

// ---- never ----

/// K-06: A07.
#[tokio::test]
async fn k_06_a_request_without_authentication_is_not_the_sessions_business() {
    for case in ["fresh", "expired", "logged out", "plain http"] {
        let hook = Hook::declining();
        let rig = Rig::with(Api::rejecting(&[]), Issuer::new(), |builder| hook.on(builder));
        match case {
            "expired" => rig.clock.advance(3600 * SECOND),
            "logged out" => rig.session.clear().await.unwrap(),
            _ => {}
        }
        let url = match case {
            "plain http" => "http://api.test/",
            _ => "https://api.test/",
        };
        let request = rig.client.get(url).with_extension(Authenticate::Never);
        assert_eq!(request.send().await.unwrap().status(), 401, "{case}");
        assert_eq!(rig.api.tokens(), ["-"], "{case}");
        assert_eq!((rig.issuer.calls(), hook.calls()), (0, 0), "{case}");
    }
}

// ---- after a refresh ----

/// K-06: E27.
#[tokio::test]
async fn k_06_a_forced_refresh_is_made_once_and_later_requests_use_its_token() {
    let rig = Rig::new(Api::friendly());
    rig.get().await.unwrap();
    get(&rig.client, Authenticate::AfterRefresh).await.unwrap();
    rig.get().await.unwrap();
    assert_eq!(rig.api.tokens(), ["a0", "a1", "a1"]);
    assert_eq!(rig.issuer.sent(), ["r0"]);
}

/// K-06: E27.
#[tokio::test]
async fn k_06_a_forced_refresh_joins_the_one_that_is_running() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(3570 * SECOND);
    rig.issuer.hold();
    rig.get().await.unwrap(); // stale: a refresh begins behind it
    let client = rig.client.clone();
    let forced = tokio::spawn(async move { get(&client, Authenticate::AfterRefresh).await });
    everybody_waits().await;
    assert_eq!((rig.issuer.calls(), rig.api.arrived()), (1, 1));
    rig.issuer.release();
    forced.await.unwrap().unwrap();
    assert_eq!(rig.api.tokens(), ["a0", "a1"]);
    assert_eq!(rig.issuer.calls(), 1);
}

/// K-06: E27. An outer retry has the same extensions.
#[tokio::test]
async fn k_06_an_outer_retry_does_not_refresh_again_once_the_wish_was_honoured() {
    let rig = Rig::new(flaky());
    let response = get(&retrying(&rig), Authenticate::AfterRefresh).await;
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(rig.api.tokens(), ["a1", "a1", "a1"]);
    assert_eq!(rig.issuer.calls(), 1);
}

/// K-06: E27.
#[tokio::test]
async fn k_06_a_wish_for_a_new_token_is_not_honoured_by_an_old_one_and_stays_until_it_is() {
    let rig = Rig::new(Api::friendly());
    let wishes = Watching::default();
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(wishes.clone())
        .with(rig.session.clone())
        .with(rig.api.clone())
        .build();
    rig.issuer.then_fails(RefreshFailure::Unusable);
    let result = get(&client, Authenticate::AfterRefresh).await;
    assert_eq!(outcome(result), "authorization server unavailable");
    assert_eq!(rig.api.arrived(), 0, "a0 is alive, but not what was asked");
    assert_eq!(wishes.left(), 1, "an outer retry must still get a new token");

    rig.clock.advance(60 * SECOND);
    get(&client, Authenticate::AfterRefresh).await.unwrap();
    assert_eq!((wishes.left(), rig.api.tokens()), (0, vec!["a1".into()]));
}

/// K-06, K-40: a forced token that is rejected is replaced like any other, once.
#[tokio::test]
async fn k_06_a_forced_token_that_is_rejected_is_refreshed_once_more() {
    let rig = Rig::new(Api::rejecting(&["a0", "a1"]));
    get(&rig.client, Authenticate::AfterRefresh).await.unwrap();
    assert_eq!(rig.api.tokens(), ["a1", "a2"]);
}

/// K-06: E27. The wish is not honoured twice: the replay takes any token that is good.
#[tokio::test]
async fn k_06_a_forced_token_that_is_too_young_to_be_refreshed_is_sent_once_more() {
    let provider = Provider::rfc6749().with_minimum_age(5 * SECOND);
    let issuer = Issuer::with(3600 * SECOND, provider);
    let rig = Rig::with(Api::rejecting(&["a1"]), issuer, |builder| builder);
    let response = get(&rig.client, Authenticate::AfterRefresh).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(rig.api.tokens(), ["a1", "a1"]);
    assert_eq!(rig.issuer.calls(), 1);
}

// ---- a minimum validity ----

/// K-06, K-36.
#[tokio::test]
async fn k_06_a_minimum_validity_is_waited_for_where_a_refresh_can_give_it() {
    // Tokens live for 3600 s, the refresh window is 60 s.
    for (case, age, wish, token) in [
        ("enough is left", 3000, 599, "a0"),
        ("just not enough", 3000, 600, "a1"),
        ("not enough", 3000, 700, "a1"),
        ("nothing special", 3000, 0, "a0"),
        ("more than half, new token", 0, 86_400, "a0"),
        ("more than half, nearly half is over", 1799, 86_400, "a0"),
        ("more than half, half is over", 1801, 86_400, "a1"),
        ("stale, and that is enough", 3550, 40, "a0"),
        ("stale, and that is not enough", 3570, 40, "a1"),
        ("expired", 3600, 0, "a1"),
    ] {
        let rig = Rig::new(Api::friendly());
        rig.clock.advance(age * SECOND);
        let wish = Authenticate::ValidFor(wish * SECOND);
        get(&rig.client, wish).await.unwrap();
        assert_eq!(rig.api.tokens(), [token], "{case}");
        rig.session.settle().await.unwrap();
    }
}

/// K-06, K-36.
#[tokio::test]
async fn k_06_a_minimum_validity_that_cannot_be_had_does_not_stop_a_request() {
    let wish = Authenticate::ValidFor(1000 * SECOND);
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(3000 * SECOND);
    rig.issuer.then_fails(RefreshFailure::Unusable);
    get(&rig.client, wish).await.unwrap();
    get(&rig.client, wish).await.unwrap();
    assert_eq!(rig.api.tokens(), ["a0", "a0"]);
    assert_eq!(rig.issuer.calls(), 1, "the second is cooling down");

    let endless = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        builder.tokens(TokenSet::new("a0").with_refresh_token("r0"))
    });
    get(&endless.client, wish).await.unwrap();
    let alone = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        builder.tokens(TokenSet::new("a0").with_expires_in(900 * SECOND))
    });
    alone.clock.advance(600 * SECOND);
    get(&alone.client, wish).await.unwrap();
    for rig in [endless, alone] {
        assert_eq!((rig.api.tokens(), rig.issuer.calls()), (vec!["a0".into()], 0));
    }
}

// ---- if somebody is logged in ----

/// K-06, K-22: E05.
#[tokio::test]
async fn k_06_if_logged_in_sends_a_token_where_there_is_one_and_none_otherwise() {
    let wish = Authenticate::IfLoggedIn;
    for (case, token) in [
        ("logged in", "a0"),
        ("expired", "a1"),
        ("logged out", "-"),
        ("dead and expired", "-"),
        ("dead, but the token is alive", "a0"),
    ] {
        let hook = Hook::declining();
        let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| hook.on(builder));
        match case {
            "expired" => rig.clock.advance(3600 * SECOND),
            "logged out" => rig.session.clear().await.unwrap(),
            "dead and expired" => {
                rig.issuer.then_fails(RefreshFailure::Terminal);
                rig.clock.advance(3600 * SECOND);
            }
            "dead, but the token is alive" => {
                rig.issuer.then_fails(RefreshFailure::Terminal);
                rig.session.refresh().await.unwrap_err();
            }
            _ => {}
        }
        get(&rig.client, wish).await.unwrap();
        get(&rig.client, wish).await.unwrap();
        assert_eq!(rig.api.tokens(), [token, token], "{case}");
        let is_dead = case.starts_with("dead");
        assert_eq!(hook.calls(), usize::from(is_dead), "{case}");
    }
}

/// K-06: what may pass is an error, not a request that looks logged out.
#[tokio::test]
async fn k_06_if_logged_in_does_not_go_bare_because_the_issuer_is_down() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(3600 * SECOND);
    rig.issuer.then_fails(RefreshFailure::Unusable);
    let result = get(&rig.client, Authenticate::IfLoggedIn).await;
    assert_eq!(outcome(result), "authorization server unavailable");
    assert_eq!(rig.api.arrived(), 0);
}

/// K-22: E05. It was sent without a token.
#[tokio::test]
async fn k_22_a_request_that_was_sent_without_a_token_is_replayed_with_the_one_that_came_since() {
    let rig = Rig::new(Api::rejecting(&[]));
    rig.session.clear().await.unwrap();
    rig.api.hold();
    let client = rig.client.clone();
    let request = tokio::spawn(async move { get(&client, Authenticate::IfLoggedIn).await });
    everybody_waits().await;
    assert_eq!(rig.api.arrived(), 1);
    rig.session.set_tokens(Rig::tokens(3600)).await.unwrap();
    rig.api.release();
    assert_eq!(request.await.unwrap().unwrap().status(), 200);
    assert_eq!(rig.api.tokens(), ["-", "a0"]);
    assert_eq!(rig.issuer.calls(), 0);
}

/// K-22: without a token there is nothing to refresh, and nobody to ask.
#[tokio::test]
async fn k_22_a_401_without_a_token_is_the_callers_while_nobody_is_logged_in() {
    let hook = Hook::returning(Rig::tokens(3600));
    let rig = Rig::with(Api::rejecting(&[]), Issuer::new(), |builder| hook.on(builder));
    rig.session.clear().await.unwrap();
    let response = get(&rig.client, Authenticate::IfLoggedIn).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.text().await.unwrap(), "rejected");
    assert_eq!(rig.api.tokens(), ["-"]);
    assert_eq!((rig.issuer.calls(), hook.calls()), (0, 0));
}

// ---- extensions ----

/// K-06: A12.
#[tokio::test]
async fn k_06_every_other_wish_outlives_an_outer_retry_and_nothing_is_added() {
    for (wish, tokens) in [
        (Authenticate::Never, ["-", "-", "-"]),
        (Authenticate::IfLoggedIn, ["a0", "a0", "a0"]),
        (Authenticate::ValidFor(9 * SECOND), ["a0", "a0", "a0"]),
    ] {
        let rig = Rig::new(flaky());
        get(&retrying(&rig), wish).await.unwrap();
        assert_eq!(rig.api.tokens(), tokens, "{wish:?}");
    }
    // Not even after a 401, a refresh and a replay.
    let rig = Rig::new(Api::rejecting(&["a0"]));
    let seen = Watching::default();
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(seen.clone())
        .with(rig.session.clone())
        .with(rig.api.clone())
        .build();
    client.get("https://api.test/").send().await.unwrap();
    assert_eq!(rig.api.tokens(), ["a0", "a1"]);
    assert_eq!(seen.extensions.load(Ordering::SeqCst), 0);
}

/// K-06: two sessions in one chain: the outer one's header is the caller's own for the inner one.
#[tokio::test]
async fn k_06_an_outer_session_does_not_disturb_an_inner_one() {
    let rig = Rig::new(Api::new(|_| Reply::status(401)));
    let inner = Issuer::new();
    let session = Session::builder(inner.clone())
        .tokens(TokenSet::new("inner").with_refresh_token("r"))
        .build()
        .unwrap();
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(rig.session.clone())
        .with(session)
        .with(rig.api.clone())
        .build();
    client.get("https://api.test/").send().await.unwrap();
    assert_eq!(rig.api.tokens(), ["a0", "a1"]);
    assert_eq!((rig.issuer.calls(), inner.calls()), (1, 0));
    let seen = rig.api.seen();
    assert!(seen.iter().all(|seen| seen.headers.get_all(AUTHORIZATION).iter().count() == 1));
}

/// Busy twice, then 200.
fn flaky() -> Api {
    let times = AtomicUsize::new(0);
    Api::new(move |_| match times.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Reply::status(503),
        _ => Reply::status(200),
    })
}

/// The rig's session below reqwest-retry, which does not wait.
fn retrying(rig: &Rig) -> ClientWithMiddleware {
    let policy = ExponentialBackoff::builder()
        .retry_bounds(Duration::ZERO, Duration::ZERO)
        .build_with_max_retries(3);
    ClientBuilder::new(reqwest::Client::new())
        .with(RetryTransientMiddleware::new_with_policy(policy))
        .with(rig.session.clone())
        .with(rig.api.clone())
        .build()
}

/// An outer middleware that looks at what is left in the extensions.
#[derive(Clone, Default)]
struct Watching {
    wishes: Arc<AtomicUsize>,
    extensions: Arc<AtomicUsize>,
}

impl Watching {
    fn left(&self) -> usize {
        self.wishes.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Middleware for Watching {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let result = next.run(request, extensions).await;
        let wishes = usize::from(extensions.get::<Authenticate>().is_some());
        self.wishes.store(wishes, Ordering::SeqCst);
        self.extensions.store(extensions.len(), Ordering::SeqCst);
        result
    }
}
