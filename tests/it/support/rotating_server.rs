use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use parking_lot::Mutex;
use reqwest_refresh::TokenSet;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::bounded;

/// An authorization server and its API on loopback, for one session that many processes share.
///
/// It rotates: refresh token `r1` is answered with `a2` and `r2`, once. A token that was used before
/// ends the session, access token included, as Okta, Auth0 and oidc-provider do. With a grace
/// period the token that was used last may be used again, as long as no successor was: then there is
/// another successor.
///
/// Its clones are the same server.
#[derive(Clone)]
pub struct RotatingServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    _task: Arc<Task>,
}

struct Shared {
    has_grace: bool,
    books: Mutex<Books>,
    snare: Mutex<Option<Snare>>,
}

/// The server's end of a [`Trap`].
struct Snare {
    at: Moment,
    caught: oneshot::Sender<usize>,
    held: oneshot::Receiver<()>,
}

#[derive(Default)]
struct Books {
    pairs: u32,
    /// The pair of the login.
    first: u32,
    /// The refresh tokens that may be used.
    live: Vec<u32>,
    /// The one that was used last.
    used: u32,
    /// The access token that the API takes.
    access: u32,
    requests: Vec<TokenRequest>,
    rejected: usize,
}

/// Who asked with which refresh token, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    pub client: usize,
    pub sent: u32,
    pub outcome: Outcome,
}

/// What the server did with a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The session was over before.
    Refused,
    /// The session has ended by it.
    Reused,
    /// It made this pair.
    Rotated(u32),
}

/// When a token request can be caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    BeforeRotation,
    AfterRotation,
    /// The answer is on its way: nothing is held.
    Answering,
}

/// Catches the next token request that gets to a moment, and holds it.
pub struct Trap {
    caught: oneshot::Receiver<usize>,
    hold: oneshot::Sender<()>,
}

impl Trap {
    /// Whose request it is.
    pub async fn caught(&mut self) -> usize {
        bounded(&mut self.caught).await.unwrap()
    }

    /// Lets the request go on. Without this it never does.
    pub fn release(self) {
        let _ = self.hold.send(());
    }
}

impl RotatingServer {
    /// For how long an access token lives. The server has no clock: those who ask have.
    pub const LIFE: Duration = Duration::from_secs(3600);

    /// Whoever uses a refresh token twice ends the session.
    pub async fn strict() -> Self {
        Self::start(false).await
    }

    /// The refresh token that was used last may be used again.
    pub async fn with_grace() -> Self {
        Self::start(true).await
    }

    async fn start(has_grace: bool) -> Self {
        let shared =
            Arc::new(Shared { has_grace, books: Mutex::default(), snare: Mutex::default() });
        let router = Router::new()
            .route("/token", post(token))
            .route("/orders", get(orders))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shared, address, _task: Arc::new(Task(task)) }
    }

    pub fn has_grace(&self) -> bool {
        self.shared.has_grace
    }

    /// `http://127.0.0.1:<port>` and this path: `/token` or `/orders`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The tokens of a new session, which ends the one before.
    pub fn log_in(&self) -> TokenSet {
        let books = &mut *self.shared.books.lock();
        books.issue();
        books.first = books.pairs;
        books.live = vec![books.pairs];
        books.used = 0;
        TokenSet::new(access_token(books.pairs))
            .with_refresh_token(format!("r{}", books.pairs))
            .with_expires_in(Self::LIFE)
    }

    /// Catches the next token request at this moment.
    pub fn trap(&self, at: Moment) -> Trap {
        let (catch, caught) = oneshot::channel();
        let (hold, held) = oneshot::channel();
        *self.shared.snare.lock() = Some(Snare { at, caught: catch, held });
        Trap { caught, hold }
    }

    /// The token requests since the last time that somebody looked.
    pub fn take_requests(&self) -> Vec<TokenRequest> {
        std::mem::take(&mut self.shared.books.lock().requests)
    }

    /// How many requests the API has rejected.
    pub fn rejected(&self) -> usize {
        self.shared.books.lock().rejected
    }
}

/// The access token of a pair.
pub fn access_token(pair: u32) -> String {
    format!("a{pair}")
}

impl Shared {
    async fn pass(&self, moment: Moment, client: usize) {
        let snare = self.snare.lock().take_if(|snare| snare.at == moment);
        let Some(Snare { caught, held, .. }) = snare else { return };
        let _ = caught.send(client);
        if moment != Moment::Answering && held.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Books {
    fn issue(&mut self) {
        self.pairs += 1;
        self.access = self.pairs;
    }

    fn redeem(&mut self, sent: u32, has_grace: bool) -> Outcome {
        if self.live.contains(&sent) {
            self.issue();
            self.used = sent;
            self.live = vec![self.pairs];
        } else if self.live.is_empty() || sent < self.first {
            return Outcome::Refused;
        } else if has_grace && sent == self.used {
            self.issue();
            self.live.push(self.pairs);
        } else {
            self.live.clear();
            self.access = 0;
            return Outcome::Reused;
        }
        Outcome::Rotated(self.pairs)
    }
}

async fn token(
    State(shared): State<Arc<Shared>>,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let client = form["client"].parse().unwrap();
    let sent = form["refresh_token"].trim_start_matches('r').parse().unwrap();
    shared.pass(Moment::BeforeRotation, client).await;
    let outcome = {
        let books = &mut *shared.books.lock();
        let outcome = books.redeem(sent, shared.has_grace);
        books.requests.push(TokenRequest { client, sent, outcome });
        outcome
    };
    let Outcome::Rotated(pair) = outcome else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    };
    shared.pass(Moment::AfterRotation, client).await;
    let answer = json!({
        "access_token": access_token(pair),
        "refresh_token": format!("r{pair}"),
        "token_type": "Bearer",
        "expires_in": RotatingServer::LIFE.as_secs(),
    });
    shared.pass(Moment::Answering, client).await;
    Json(answer).into_response()
}

async fn orders(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> StatusCode {
    let books = &mut *shared.books.lock();
    let expected = format!("Bearer {}", access_token(books.access));
    match headers.get("authorization").is_some_and(|value| *value == expected) {
        true => StatusCode::OK,
        false => {
            books.rejected += 1;
            StatusCode::UNAUTHORIZED
        }
    }
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
