//! The one error type, found again wherever it ends up.

use std::error::Error as StdError;
use std::time::Duration;

use async_trait::async_trait;
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result};
use reqwest_refresh::{
    Authenticate, Error, RefreshError, RefreshFailure, ServerError, Session, SessionBuilder,
};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;

use crate::support::{Api, Issuer, Reply, Rig, SECOND, ScriptedStore};

/// Every way in which a request fails, by name and kind, with one request that fails so.
async fn failures() -> Vec<(&'static str, &'static str, Rig, Authenticate, &'static str)> {
    let api = "https://api.test/";
    let new = Authenticate::AfterRefresh;
    let rig = |settings: fn(SessionBuilder) -> SessionBuilder| {
        Rig::with(Api::friendly(), Issuer::new(), settings)
    };
    let failing = |failure: RefreshFailure| {
        let rig = rig(|builder| builder);
        let cause = std::io::Error::other("the cable is unplugged");
        let server = ServerError::new(400, Some("scripted_code".into()));
        let error = RefreshError::new(failure, "the issuer said no");
        rig.issuer.then(Err(match failure {
            RefreshFailure::Unusable => error.with_source(cause),
            _ => error.with_server_error(server),
        }));
        rig
    };
    let logged_out = rig(|builder| builder);
    logged_out.session.clear().await.unwrap();
    let store = ScriptedStore::new();
    store.fail(&["load"]);
    let by_store = Rig::with(Api::friendly(), Issuer::new(), move |b| b.store(store));
    vec![
        ("a refused client", "configuration", failing(RefreshFailure::Configuration), new, api),
        ("a dead refresh token", "login required", failing(RefreshFailure::Terminal), new, api),
        (
            "an issuer that is down",
            "authorization server unavailable",
            failing(RefreshFailure::Unusable),
            new,
            api,
        ),
        ("nobody is logged in", "login required", logged_out, new, api),
        (
            "plain http",
            "insecure URL",
            rig(|b| b.allow_origin("http://api.test")),
            new,
            "http://api.test/",
        ),
        ("no budget", "too many refreshes", rig(|b| b.refresh_budget(0, SECOND)), new, api),
        ("a broken store", "token store", by_store, new, api),
    ]
}

/// K-70: R-072.
#[tokio::test]
async fn k_70_every_failure_is_found_wherever_other_middlewares_put_it() {
    for wrapped in ["bare", "outer retry", "outer error", "outer anyhow", "all of them"] {
        for (case, kind, rig, wish, url) in failures().await {
            let case = format!("{case}, {wrapped}");
            let client = wrap(&rig, wrapped);
            let request = client.get(url).with_extension(wish);
            let error = request.send().await.expect_err(&case);
            let found = Error::find(&error).unwrap_or_else(|| panic!("{case}: {error:?}"));
            assert_eq!(found.kind().to_string(), kind, "{case}");
            assert_eq!(rig.api.arrived(), 0, "{case}");

            // After `?`, and after `?` with a context.
            let by_walking = |error: &anyhow::Error| {
                let found = Error::find(error.as_ref()).expect(&case);
                found.kind().to_string()
            };
            let error = anyhow::Error::from(error);
            assert_eq!(by_walking(&error), kind, "{case}");
            assert_eq!(by_walking(&error.context("loading orders")), kind, "{case}");
        }
    }
}

/// K-70: no link of the chain says what the next one says, so a report of all says it once.
#[tokio::test]
async fn k_70_no_message_repeats_the_one_of_its_source() {
    for (case, _, rig, wish, url) in failures().await {
        let client = wrap(&rig, "bare");
        let error = client.get(url).with_extension(wish).send().await;
        let error = error.expect_err(case);
        let mut messages = vec![error.to_string()];
        let mut next = error.source();
        while let Some(source) = next {
            messages.push(source.to_string());
            next = source.source();
        }
        assert!(messages.len() >= 2, "{case}: {messages:?}");
        for (index, message) in messages.iter().enumerate() {
            for other in &messages[index + 1..] {
                assert!(!message.contains(&**other), "{case}: {messages:?}");
            }
        }
        let report = format!("{:#}", anyhow::Error::from(error));
        for said in ["the issuer said no", "the cable is unplugged", "scripted_code"] {
            assert!(report.matches(said).count() <= 1, "{case}: {report}");
        }
    }
}

/// K-70: every cause is in the chain, down to the first.
#[tokio::test]
async fn k_70_the_first_cause_is_reached_by_walking() {
    let rig = Rig::new(Api::friendly());
    let cause = std::io::Error::from(std::io::ErrorKind::NotConnected);
    let error = RefreshError::new(RefreshFailure::Unusable, "down").with_source(cause);
    rig.issuer.then(Err(error));
    rig.clock.advance(3600 * SECOND);
    let error = anyhow::Error::from(rig.get().await.unwrap_err());
    let root = error.root_cause().downcast_ref::<std::io::Error>();
    assert_eq!(root.unwrap().kind(), std::io::ErrorKind::NotConnected);
    // With the next try, for who wants to wait.
    let found = Error::find(error.as_ref()).unwrap();
    assert!(found.retry_after().is_some_and(|wait| !wait.is_zero()));
}

/// K-70: reqwest-retry wraps what ends its retries.
#[tokio::test]
async fn k_70_a_failure_that_ends_an_outer_retry_is_found() {
    let rig = Rig::new(Api::new(|_| Reply::status(503)));
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(retry())
        .with(rig.session.clone())
        .with(LoggingOut(rig.session.clone()))
        .with(rig.api.clone())
        .build();
    let error = client.get("https://api.test/").send().await.unwrap_err();
    assert!(error.to_string().contains("retries"), "{error}");
    assert!(Error::find(&error).unwrap().is_login_required());
    let error = anyhow::Error::from(error);
    assert!(Error::find(error.as_ref()).unwrap().is_login_required());
    assert_eq!(rig.api.tokens(), ["a0"], "the second was not sent");
}

/// K-70: a failure is fatal for reqwest-retry: it does not hammer a session that is waiting.
#[tokio::test]
async fn k_70_an_outer_retry_does_not_repeat_a_failure_of_ours() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(3600 * SECOND);
    rig.issuer.then_fails(RefreshFailure::Unusable);
    let error = wrap(&rig, "outer retry").get("https://api.test/").send().await;
    assert!(Error::find(&error.unwrap_err()).is_some());
    assert_eq!(rig.issuer.calls(), 1);
}

/// K-70: what is not ours is not found.
#[tokio::test]
async fn k_70_a_failure_of_somebody_else_is_not_found() {
    let client = ClientBuilder::new(reqwest::Client::new()).with(Context);
    let sent = client.build().get("http://[::1]:0/").send().await;
    assert!(Error::find(&sent.unwrap_err()).is_none());
}

fn wrap(rig: &Rig, how: &str) -> ClientWithMiddleware {
    let mut builder = ClientBuilder::new(reqwest::Client::new());
    let is = |name: &str| how == name || how == "all of them";
    if is("outer anyhow") {
        builder = builder.with(Context);
    }
    if is("outer error") {
        builder = builder.with(Wrapping);
    }
    if is("outer retry") {
        builder = builder.with(retry());
    }
    builder.with(rig.session.clone()).with(rig.api.clone()).build()
}

fn retry() -> RetryTransientMiddleware<ExponentialBackoff> {
    let policy = ExponentialBackoff::builder()
        .retry_bounds(Duration::ZERO, Duration::ZERO)
        .build_with_max_retries(2);
    RetryTransientMiddleware::new_with_policy(policy)
}

/// Somebody logs out while an answer is on its way.
struct LoggingOut(Session);

#[async_trait]
impl Middleware for LoggingOut {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let result = next.run(request, extensions).await;
        self.0.clear().await.unwrap();
        result
    }
}

/// A middleware with an error of its own, which has what came from below as its source.
struct Wrapping;

#[derive(Debug)]
struct Wrapped(reqwest_middleware::Error);

impl std::fmt::Display for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("wrapped")
    }
}

impl StdError for Wrapped {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

#[async_trait]
impl Middleware for Wrapping {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let result = next.run(request, extensions).await;
        result.map_err(|error| reqwest_middleware::Error::middleware(Wrapped(error)))
    }
}

/// A middleware that uses anyhow.
struct Context;

#[async_trait]
impl Middleware for Context {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        use anyhow::Context as _;
        let result = next.run(request, extensions).await;
        Ok(result.context("in a middleware")?)
    }
}
