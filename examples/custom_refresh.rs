//! A session for an API that does not speak OAuth: `cargo run --example custom_refresh`.
//!
//! This API has sessions that last a quarter of an hour, and keys that renew them, each once:
//!
//! ```text
//! POST /session/renew {"session": "…", "key": "…"}
//! 200 {"data": {"session": "…", "key": "…", "valid_for_minutes": 15}}
//! 410 {"problem": "key_gone"}
//! ```
//!
//! [`Renewal`] says so to this crate. It is all that you have to write; the rest of this file is the
//! API, and a story.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use reqwest_refresh::{Refresh, RefreshError, RefreshFailure, ServerError, Session, TokenSet};
use serde_json::{Value, json};

#[path = "support/loopback.rs"]
mod loopback;

/// How this API renews a session: one attempt. The crate does the rest.
struct Renewal {
    http: Client,
    url: Url,
}

impl Renewal {
    fn new(url: &str) -> Result<Self> {
        let http = Client::builder()
            .timeout(Duration::from_secs(10))
            .redirect(Policy::none()) // the key would go along
            .pool_max_idle_per_host(0); // a kept connection may break, and an answer with it
        Ok(Self { http: http.build()?, url: url.parse()? })
    }
}

#[async_trait]
impl Refresh for Renewal {
    async fn refresh(&self, tokens: &TokenSet) -> Result<TokenSet, RefreshError> {
        let old = json!({"session": tokens.access_token(), "key": tokens.refresh_token()});
        let request = self.http.post(self.url.clone());
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let answer = request.body(old.to_string()).send().await.map_err(not_answered)?;
        let (status, pause) = (answer.status().as_u16(), pause_demanded(answer.headers()));
        let body = answer.bytes().await.map_err(not_answered)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (failure, message) = match status {
            200 => match renewed(&body["data"]) {
                Some(tokens) => return Ok(tokens),
                None => (RefreshFailure::Unusable, "no session in the answer"),
            },
            // Only what the server says in so many words costs a login.
            410 if body["problem"] == "key_gone" => (RefreshFailure::Terminal, "the key is gone"),
            429 | 503 => (RefreshFailure::Busy, "the API is busy"),
            502 | 504 => (RefreshFailure::Lost, "a gateway has lost the answer"),
            _ => (RefreshFailure::Unusable, "an answer that is not in the manual"),
        };
        // The code alone: other members may repeat the key.
        let code = body["problem"].as_str().map(str::to_owned);
        let error = RefreshError::new(failure, message);
        Err(error.with_server_error(ServerError::new(status, code)).with_retry_after(pause))
    }

    /// Requests to it need no session; and its origin is where the session goes.
    fn endpoints(&self) -> Vec<Url> {
        vec![self.url.clone()]
    }
}

/// The new session and the new key, by which the old one is used up.
fn renewed(data: &Value) -> Option<TokenSet> {
    let minutes = data["valid_for_minutes"].as_u64()?;
    let tokens = TokenSet::new(data["session"].as_str()?)
        .with_refresh_token(data["key"].as_str()?)
        .with_expires_in(Duration::from_secs(minutes.saturating_mul(60)));
    Some(tokens)
}

/// Whether the key may be used up decides how often the crate tries again. The URL stays out of the
/// error: it may have a secret in it.
fn not_answered(error: reqwest::Error) -> RefreshError {
    let (failure, message) = match error.is_connect() {
        true => (RefreshFailure::NotSent, "no connection"),
        false => (RefreshFailure::Lost, "no answer"),
    };
    RefreshError::new(failure, message).with_source(error.without_url())
}

fn pause_demanded(headers: &HeaderMap) -> Duration {
    let value = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = value.and_then(|value| value.parse().ok());
    Duration::from_secs(seconds.unwrap_or_default())
}

#[tokio::main]
async fn main() -> Result<()> {
    let api = Api::default();
    let (url, server) = loopback::serve(api.router()).await?;
    let renewal = Arc::new(Renewal::new(&format!("{url}/session/renew"))?);
    let person = api.clone();
    let session = Session::builder(Arc::clone(&renewal))
        .tokens(api.log_in())
        .on_login_required(move |why| {
            println!("Please log in again: {}", why.explain());
            std::future::ready(Some(person.log_in()))
        })
        .build()?;
    let client = loopback::client(session.clone())?;

    for (when, requests, answers, promised) in [
        ("the session is over", 5, vec![], "200 200 200 200 200; renewals: 1"),
        ("the API is busy, and says for how long", 1, vec![503], "200; renewals: 2"),
        ("its answer is lost: once more, quickly", 1, vec![504], "200; renewals: 2"),
        ("the key is gone: a person logs in", 1, vec![410], "200; renewals: 1"),
        ("nonsense", 1, vec![200], "authorization server unavailable; renewals: 1"),
    ] {
        api.end_session(answers);
        let outcome = loopback::get(&client, &format!("{url}/orders"), requests).await;
        loopback::tell(when, &format!("{outcome}; renewals: {}", api.renewals()), promised)?;
    }

    let tokens = session.current_tokens().context("no refresh loses tokens")?;
    server.abort();
    let _ = server.await;
    let error = renewal.refresh(&tokens).await.err().context("nobody has answered")?;
    loopback::tell("nobody listens", &format!("{:?}", error.failure()), "NotSent")
}

/// The API, in memory: session `s1` with key `k1`, then `s2` with `k2`, and so on.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    pair: u32,
    is_over: bool,
    renewals: usize,
    /// What the next renewals come to, instead of the next pair.
    answers: VecDeque<u16>,
}

impl Api {
    fn router(&self) -> Router {
        Router::new()
            .route("/orders", get(Self::orders))
            .route("/session/renew", post(Self::renew))
            .with_state(self.clone())
    }

    async fn orders(State(api): State<Self>, headers: HeaderMap) -> StatusCode {
        let books = api.0.lock();
        match books.is_over {
            true => StatusCode::UNAUTHORIZED,
            false => loopback::judge(&headers, &format!("s{}", books.pair)),
        }
    }

    async fn renew(State(api): State<Self>, Json(old): Json<Value>) -> Response {
        let mut books = api.0.lock();
        books.renewals += 1;
        match books.answers.pop_front() {
            Some(503) => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response(),
            Some(504) => StatusCode::GATEWAY_TIMEOUT.into_response(),
            Some(200) => "<h1>Welcome</h1>".into_response(),
            None if old["key"] == format!("k{}", books.pair) => {
                let (session, key) = books.next_pair();
                let data = json!({"session": session, "key": key, "valid_for_minutes": 15});
                Json(json!({"data": data})).into_response()
            }
            _ => (StatusCode::GONE, Json(json!({"problem": "key_gone"}))).into_response(),
        }
    }

    fn log_in(&self) -> TokenSet {
        let (session, key) = self.0.lock().next_pair();
        TokenSet::new(session).with_refresh_token(key)
    }

    /// Ends the session before its time, and prepares these answers.
    fn end_session(&self, answers: Vec<u16>) {
        let mut books = self.0.lock();
        books.is_over = true;
        books.answers = answers.into();
    }

    /// How many there were since the last time.
    fn renewals(&self) -> usize {
        std::mem::take(&mut self.0.lock().renewals)
    }
}

impl Books {
    fn next_pair(&mut self) -> (String, String) {
        self.pair += 1;
        self.is_over = false;
        (format!("s{}", self.pair), format!("k{}", self.pair))
    }
}
