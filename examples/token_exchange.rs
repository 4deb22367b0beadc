//! A session behind a session: `cargo run --example token_exchange`.
//!
//! A user is logged in with one token, and an API wants another: one for this API alone, which the
//! authorization server gives in exchange for the user's (RFC 8693). Two sessions are chained: the
//! outer one belongs to the user and is refreshed as ever; the inner one belongs to the API, and
//! asks the outer one for a good token whenever it needs a new one of its own. A login hook belongs
//! to the outer one.
//!
//! [`Exchange`] is all that you have to write; the rest of this file is the server, and a story.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use reqwest::Url;
use reqwest_refresh::{
    ClientAuth, Error, ErrorKind, Provider, Refresh, RefreshError, RefreshFailure, Session,
    TokenEndpoint, TokenSet,
};
use serde_json::{Value, json};

#[path = "support/loopback.rs"]
mod loopback;

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// How the API's token is had: in exchange for the user's (RFC 8693 §2.1).
struct Exchange {
    endpoint: TokenEndpoint,
    user: Session,
}

#[async_trait]
impl Refresh for Exchange {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        let user = self.user.tokens().await.map_err(no_subject_token)?;
        let parameters = [
            ("subject_token", user.access_token()),
            ("subject_token_type", ACCESS_TOKEN),
            ("audience", "orders"),
        ];
        self.endpoint.request(TOKEN_EXCHANGE, &parameters).await
    }

    fn endpoints(&self) -> Vec<Url> {
        self.endpoint.endpoints()
    }

    fn provider(&self) -> Provider {
        self.endpoint.provider()
    }

    /// The user's session has one; this one does without.
    fn needs_refresh_token(&self) -> bool {
        false
    }
}

/// What the user's session has met, to whoever waits for the API's.
fn no_subject_token(error: Error) -> RefreshError {
    let (failure, message) = match error.kind() {
        ErrorKind::LoginRequired(_) => (RefreshFailure::Terminal, "the user must log in"),
        ErrorKind::Configuration => (RefreshFailure::Configuration, "no token of the user's"),
        _ => (RefreshFailure::Busy, "no token of the user's for now"),
    };
    let pause = error.retry_after().unwrap_or_default();
    RefreshError::new(failure, message).with_retry_after(pause).with_source(error)
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Server::default();
    let (url, _) = loopback::serve(server.router()).await?;
    let endpoint =
        TokenEndpoint::new(&format!("{url}/token"), ClientAuth::basic("shop", "secret"))?;
    let user = Session::builder(endpoint.clone()).tokens(over(server.log_in())).build()?;
    let exchange = Exchange { endpoint, user: user.clone() };
    let orders = Session::builder(exchange).build()?;
    let client = loopback::client(orders.clone())?;

    let tell = async |when: &str, requests, promised: &str| {
        let outcome = loopback::get(&client, &format!("{url}/orders"), requests).await;
        let (refreshes, exchanges) = server.take_counts();
        let then = format!("{outcome}; refreshes: {refreshes}, exchanges: {exchanges}");
        loopback::tell(when, &then, promised)
    };
    tell("both are over", 5, "200 200 200 200 200; refreshes: 1, exchanges: 1").await?;
    server.0.lock().exchanged += 1;
    tell("the API's was revoked", 1, "200; refreshes: 0, exchanges: 1").await?;

    server.0.lock().exchanged += 1;
    server.0.lock().user += 1;
    user.set_tokens(over(user.current_tokens().context("the user has tokens")?)).await?;
    tell("the user was logged out", 1, "login required; refreshes: 1, exchanges: 0").await?;

    user.set_tokens(server.log_in()).await?;
    orders.clear().await?; // whatever it has is the former user's
    tell("another user logs in", 1, "200; refreshes: 0, exchanges: 1").await
}

/// The same set, some time later.
fn over(tokens: TokenSet) -> TokenSet {
    tokens.with_expires_at(SystemTime::UNIX_EPOCH)
}

type Answer = (StatusCode, Json<Value>);

/// Authorization server and API in one. Of each kind, the last token that it gave is good.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    user: usize,
    exchanged: usize,
    refreshes: usize,
    exchanges: usize,
}

impl Server {
    fn router(&self) -> Router {
        Router::new()
            .route("/orders", get(Self::orders))
            .route("/token", post(Self::token))
            .with_state(self.clone())
    }

    async fn orders(State(server): State<Self>, headers: HeaderMap) -> StatusCode {
        loopback::judge(&headers, &format!("orders-{}", server.0.lock().exchanged))
    }

    async fn token(
        State(server): State<Self>,
        Form(form): Form<HashMap<String, String>>,
    ) -> Answer {
        let mut books = server.0.lock();
        match form["grant_type"] == TOKEN_EXCHANGE {
            true => books.exchange(&form),
            false => books.refresh(&form),
        }
    }

    fn log_in(&self) -> TokenSet {
        let mut books = self.0.lock();
        books.user += 1;
        TokenSet::new(format!("user-{}", books.user))
            .with_refresh_token(format!("refresh-{}", books.user))
    }

    /// How many refreshes and exchanges there were since the last time.
    fn take_counts(&self) -> (usize, usize) {
        let mut books = self.0.lock();
        (std::mem::take(&mut books.refreshes), std::mem::take(&mut books.exchanges))
    }
}

impl Books {
    fn refresh(&mut self, form: &HashMap<String, String>) -> Answer {
        self.refreshes += 1;
        if form["refresh_token"] != format!("refresh-{}", self.user) {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"})));
        }
        self.user += 1;
        let answer = json!({
            "access_token": format!("user-{}", self.user),
            "refresh_token": format!("refresh-{}", self.user),
            "token_type": "Bearer",
            "expires_in": 3600,
        });
        (StatusCode::OK, Json(answer))
    }

    fn exchange(&mut self, form: &HashMap<String, String>) -> Answer {
        self.exchanges += 1;
        let subject = format!("user-{}", self.user);
        if form["subject_token"] != subject || form["audience"] != "orders" {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_request"})));
        }
        self.exchanged += 1;
        let answer = json!({
            "access_token": format!("orders-{}", self.exchanged),
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": 300,
        });
        (StatusCode::OK, Json(answer))
    }
}
