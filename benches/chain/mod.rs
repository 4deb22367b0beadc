//! The ways in which one GET with three headers is sent: without a middleware, with one that does
//! as little as can be done, and with a session. None of them reaches a network.

use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderValue};
use parking_lot::Mutex;
use reqwest::{Method, Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result};
use reqwest_refresh::{
    Account, Accounts, Refresh, RefreshError, Session, SessionBuilder, TokenSet,
};

pub(crate) const ORIGIN: &str = "https://api.test";
pub(crate) const TOKEN: &str =
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJub2RlIjoiZXhlY3V0b3IxIn0.c2lnbmF0dXJl";

/// The request that is sent.
pub(crate) fn request() -> Request {
    let url = Url::parse("https://api.test/orders?page=1").unwrap();
    let mut request = Request::new(Method::GET, url);
    let headers = request.headers_mut();
    headers.insert("accept", HeaderValue::from_static("application/json"));
    headers.insert("user-agent", HeaderValue::from_static("hot-path"));
    headers.insert("x-request-id", HeaderValue::from_static("0123456789abcdef"));
    request
}

/// A way in which the request is sent.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// The way that does only what this one cannot leave out.
    pub(crate) compared_with: &'static str,
    pub(crate) client: ClientWithMiddleware,
    account: Option<u64>,
}

impl Way {
    fn new(
        name: &'static str,
        compared_with: &'static str,
        client: ClientWithMiddleware,
        account: Option<u64>,
    ) -> Self {
        Self { name, compared_with, client, account }
    }

    /// What goes with a request.
    pub(crate) fn extensions(&self) -> Extensions {
        let mut extensions = Extensions::new();
        if let Some(account) = self.account {
            extensions.insert(Account(account));
        }
        extensions
    }
}

/// All of them.
pub(crate) fn ways() -> Vec<Way> {
    vec![
        Way::new("bare", "floor", bare(), None),
        Way::new("ready_header", "floor", through(Inserting::new()), None),
        Way::new("floor", "floor", through(Floor::new()), None),
        Way::new("lock_and_clock", "floor", through(Looking::at(Clocks::Monotonic)), None),
        Way::new("lock_and_both_clocks", "floor", through(Looking::at(Clocks::Both)), None),
        Way::new("session", "floor", through(session(|builder| builder)), None),
        Way::new(
            "session_without_replay",
            "ready_header",
            through(session(|builder| builder.replay(false))),
            None,
        ),
        Way::new("accounts", "session", through(accounts()), Some(7)),
        Way::new("by_hand", "floor", through(ByHand::new()), None),
    ]
}

/// (a) Nothing between the client and the answer.
pub(crate) fn bare() -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new()).with(Answering).build()
}

/// `middleware` between the client and the answer.
pub(crate) fn through(middleware: impl Middleware) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new()).with(middleware).with(Answering).build()
}

/// (b) Puts a header in that was made beforehand.
pub(crate) struct Inserting {
    header: HeaderValue,
}

impl Inserting {
    pub(crate) fn new() -> Self {
        Self { header: header() }
    }
}

#[async_trait]
impl Middleware for Inserting {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let header = self.header.clone();
        request.headers_mut().insert(AUTHORIZATION, header);
        next.run(request, extensions).await
    }
}

/// (c) The floor: who wants to replay a request clones it.
pub(crate) struct Floor {
    header: HeaderValue,
}

impl Floor {
    pub(crate) fn new() -> Self {
        Self { header: header() }
    }
}

#[async_trait]
impl Middleware for Floor {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let spare = request.try_clone();
        request.headers_mut().insert(AUTHORIZATION, self.header.clone());
        let response = next.run(request, extensions).await;
        drop(spare);
        response
    }
}

/// The floor, a lock, and the clocks: what it costs to have a token that can be replaced, and to
/// know whether it is over.
pub(crate) struct Looking {
    header: Mutex<HeaderValue>,
    end: (SystemTime, Instant),
    clocks: Clocks,
}

/// Which clocks are read.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Clocks {
    Both,
    Monotonic,
}

impl Looking {
    pub(crate) fn at(clocks: Clocks) -> Self {
        let hour = Duration::from_secs(3600);
        let end = (SystemTime::now() + hour, Instant::now() + hour);
        Self { header: Mutex::new(header()), end, clocks }
    }
}

#[async_trait]
impl Middleware for Looking {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let spare = request.try_clone();
        let is_alive = Instant::now() < self.end.1
            && (self.clocks == Clocks::Monotonic || SystemTime::now() < self.end.0);
        if is_alive {
            let header = self.header.lock().clone();
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        let response = next.run(request, extensions).await;
        drop(spare);
        response
    }
}

/// (f) What is often written by hand: an async lock around a text, and a header made each time.
pub(crate) struct ByHand {
    token: tokio::sync::Mutex<(String, Instant)>,
}

impl ByHand {
    pub(crate) fn new() -> Self {
        let end = Instant::now() + Duration::from_secs(3600);
        Self { token: tokio::sync::Mutex::new((TOKEN.to_owned(), end)) }
    }
}

#[async_trait]
impl Middleware for ByHand {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let spare = request.try_clone();
        let token = {
            let token = self.token.lock().await;
            assert!(Instant::now() < token.1, "the token is over");
            token.0.clone()
        };
        let header = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        request.headers_mut().insert(AUTHORIZATION, header);
        let response = next.run(request, extensions).await;
        drop(spare);
        response
    }
}

/// (d) (e) A session with a fresh token.
pub(crate) fn session(settings: impl FnOnce(SessionBuilder) -> SessionBuilder) -> Session {
    settings(Session::builder(Never).tokens(tokens()).allow_origin(ORIGIN)).build().unwrap()
}

fn tokens() -> TokenSet {
    TokenSet::new(TOKEN).with_refresh_token("refresh").with_expires_in(Duration::from_secs(3600))
}

/// (g) One of many accounts.
pub(crate) fn accounts() -> Accounts<u64> {
    let sessions = Session::builder(Never).allow_origin(ORIGIN);
    let open = |_, session: SessionBuilder| async move { Ok(session.tokens(tokens())) };
    let accounts = Accounts::builder(sessions, open).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(accounts.session(&7)).unwrap();
    accounts
}

/// A token endpoint that is never asked.
struct Never;

#[async_trait]
impl Refresh for Never {
    async fn refresh(&self, _: &TokenSet) -> std::result::Result<TokenSet, RefreshError> {
        unreachable!("the token is fresh")
    }
}

/// Answers at once.
struct Answering;

#[async_trait]
impl Middleware for Answering {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        // Without its URL the answer would look as if it came from somewhere else.
        let response = http::Response::builder().url(request.url().clone());
        Ok(response.body("").unwrap().into())
    }
}

fn header() -> HeaderValue {
    let mut header = HeaderValue::try_from(format!("Bearer {TOKEN}")).unwrap();
    header.set_sensitive(true);
    header
}
