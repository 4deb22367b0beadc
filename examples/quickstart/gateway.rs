//! A gateway on loopback that behaves like digiRunner where a client can see it: the same JSON, the
//! same signed tokens, the same errors in the same words.
//!
//! It counts what it does and can be steered: [`Gateway::counters`], [`Gateway::set_outage`], …
//! It prints nothing and has no globals, so that tests use it too, by
//! `#[path = "../../examples/quickstart/gateway.rs"] mod gateway;`: hence `super::` and the paths
//! of the modules below.

#![allow(clippy::disallowed_methods)] // a server has a clock of its own
#![allow(dead_code)] // each user of this file steers something else

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::routing::post;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

#[path = "gateway/answer.rs"]
mod answer;
#[path = "gateway/ledger.rs"]
mod ledger;
#[path = "gateway/revocation_endpoint.rs"]
mod revocation_endpoint;
#[path = "gateway/signer.rs"]
mod signer;
#[path = "gateway/token_endpoint.rs"]
mod token_endpoint;

pub(crate) use self::ledger::Counters;

use self::ledger::{Ledger, Verdict, now_in_seconds};
use self::signer::Signer;

/// Who may use the gateway, and how long tokens live.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The one client.
    pub(crate) client_id: String,
    /// Its password as it was registered; `None` for a public client.
    pub(crate) client_password: Option<String>,
    /// The one user.
    pub(crate) user_name: String,
    /// Their password as they type it.
    pub(crate) user_password: String,
    /// Whole seconds from the issue of an access token to its `exp`. `expires_in` is one less.
    pub(crate) access_validity: Duration,
    /// Whole seconds from a login to the `exp` of its refresh tokens.
    pub(crate) refresh_validity: Duration,
    /// How long the token endpoint thinks before it looks at a request.
    pub(crate) token_delay: Duration,
    /// How long an API below `/slow/` takes before the gateway looks at the token.
    pub(crate) slow_delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            client_id: "tspclient".into(),
            client_password: Some("tsp123abcd".into()),
            user_name: "tspuser".into(),
            user_password: "tspuser-password".into(),
            access_validity: Duration::from_secs(600),
            refresh_validity: Duration::from_secs(86_400),
            token_delay: Duration::ZERO,
            slow_delay: Duration::from_millis(500),
        }
    }
}

/// The gateway at work. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: AbortHandle,
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    config: Config,
    signer: Signer,
    ledger: Mutex<Ledger>,
}

impl Gateway {
    /// Starts a gateway on a free port of 127.0.0.1, with a new signing key.
    ///
    /// Its endpoints are `/oauth/token` and `/oauth/revocation`; every other path is an API.
    pub(crate) async fn start(config: Config) -> Result<Self> {
        let shared = Arc::new(Shared {
            ledger: Mutex::new(Ledger::new(config.access_validity, config.refresh_validity)),
            signer: Signer::generate()?,
            config,
        });
        let router = Router::new()
            .route("/oauth/token", post(token_endpoint::answer))
            .route("/oauth/revocation", post(revocation_endpoint::answer))
            .fallback(api)
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, shared, server: server.abort_handle() })
    }

    /// Scheme, host and port, such as `http://127.0.0.1:40123`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has happened so far.
    pub(crate) fn counters(&self) -> Counters {
        self.shared.ledger.lock().counters.clone()
    }

    /// Revokes every access token, as an administrator does. Refresh tokens go on.
    pub(crate) fn revoke_access_tokens(&self) {
        self.shared.ledger.lock().revoke_access_tokens();
    }

    /// Revokes every refresh token, as an administrator does. Access tokens go on.
    pub(crate) fn revoke_refresh_tokens(&self) {
        self.shared.ledger.lock().revoke_refresh_tokens();
    }

    /// Begins or ends an outage: 503 for every token request. The API goes on.
    pub(crate) fn set_outage(&self, outage: bool) {
        self.shared.ledger.lock().outage = outage;
    }

    /// Sets how long access tokens live that are issued from now on, in whole seconds.
    pub(crate) fn set_access_validity(&self, validity: Duration) {
        self.shared.ledger.lock().access_validity = validity.as_secs();
    }

    /// Lets the refresh tokens that exist now end after `life`, in whole seconds, if they would
    /// have lived longer. What a refresh gives back says so in its `exp`.
    pub(crate) fn shorten_refresh_life(&self, life: Duration) {
        let end = now_in_seconds() + life.as_secs();
        self.shared.ledger.lock().end_refresh_tokens_at(end);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A call of an API: served, or or rejected by digiRunner's checks, in their order.
async fn api(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    if uri.path().starts_with("/slow/") {
        tokio::time::sleep(shared.config.slow_delay).await;
    }
    let ledger = || shared.ledger.lock();
    let Some(token) = bearer_token(&headers) else {
        ledger().counters.rejected_otherwise += 1;
        return answer::about_the_client(StatusCode::UNAUTHORIZED, "Unauthorized", uri.path());
    };
    let Some(claims) = shared.signer.verify(token) else {
        ledger().counters.rejected_otherwise += 1;
        let text = "Cannot convert access token to JSON";
        return answer::about_the_token(StatusCode::BAD_REQUEST, "invalid_token", text);
    };
    let verdict = ledger().call(&claims);
    match verdict {
        Verdict::Good => answer::json(StatusCode::OK, &serde_json::json!({ "path": uri.path() })),
        Verdict::Expired => {
            let text = format!("Access token expired: {token}");
            answer::about_the_token(StatusCode::UNAUTHORIZED, "invalid_token", &text)
        }
        Verdict::Revoked => {
            let text = format!("Access token revoked, jti: {}", claims.jti());
            answer::about_the_token(StatusCode::FORBIDDEN, "invalid_token", &text)
        }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
