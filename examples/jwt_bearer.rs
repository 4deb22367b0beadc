//! A session for a service account: `cargo run --example jwt_bearer`.
//!
//! A service account has no password, no refresh token and nobody who could log in: it has a private
//! key. For each access token it signs an assertion that says who it is, and trades it in by the
//! JWT bearer grant (RFC 7523 §2.1). Google's service accounts work like this; they want RS256, and
//! the scope among the claims.
//!
//! [`ServiceAccount`] is all that you have to write; the rest of this file is the server, and a
//! story.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, get_current_timestamp,
};
use parking_lot::Mutex;
use reqwest::Url;
use reqwest_refresh::{
    ClientAuth, Provider, Refresh, RefreshError, RefreshFailure, Session, TokenEndpoint, TokenSet,
};
use serde_json::{Value, json};

#[path = "support/loopback.rs"]
mod loopback;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Who speaks for itself, by its key.
struct ServiceAccount {
    name: &'static str,
    key: EncodingKey,
    endpoint: TokenEndpoint,
}

impl ServiceAccount {
    fn new(
        name: &'static str,
        key: EncodingKey,
        url: &str,
    ) -> Result<Self, reqwest_refresh::Error> {
        // Nobody can log in here: if an assertion is refused, a developer must look.
        let provider =
            Provider::rfc6749().with_codes(&[("invalid_grant", RefreshFailure::Configuration)]);
        let endpoint = TokenEndpoint::new(url, ClientAuth::none(name))?;
        let endpoint = endpoint.with_provider(provider).with_scope("reports");
        Ok(Self { name, key, endpoint })
    }

    /// RFC 7523 §3: who, to whom, for how long; signed anew each time, good for a minute.
    fn assertion(&self) -> Result<String, RefreshError> {
        let now = get_current_timestamp();
        let claims = json!({
            "iss": self.name,
            "sub": self.name,
            "aud": self.endpoint.endpoints()[0].as_str(),
            "iat": now,
            "exp": now + 60,
        });
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key).map_err(|error| {
            let message = "the assertion cannot be signed";
            RefreshError::new(RefreshFailure::Configuration, message).with_source(error)
        })
    }
}

#[async_trait]
impl Refresh for ServiceAccount {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        self.endpoint.request(JWT_BEARER, &[("assertion", &self.assertion()?)]).await
    }

    fn endpoints(&self) -> Vec<Url> {
        self.endpoint.endpoints()
    }

    fn provider(&self) -> Provider {
        self.endpoint.provider()
    }

    /// Then the session asks for its first token too, and nobody has to log in.
    fn needs_refresh_token(&self) -> bool {
        false
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let pair = rcgen::KeyPair::generate()?;
    let server = Server::knowing(&pair)?;
    let (url, _) = loopback::serve(server.router()).await?;

    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())?;
    let account = ServiceAccount::new("nightly-report", key, &format!("{url}/token"))?;
    let session = Session::builder(account).build()?;
    let client = loopback::client(session.clone())?;

    let tell = async |when: &str, requests, promised: &str| {
        let outcome = loopback::get(&client, &format!("{url}/reports"), requests).await;
        let assertions = std::mem::take(&mut server.0.lock().assertions);
        loopback::tell(when, &format!("{outcome}; assertions: {assertions}"), promised)
    };
    tell("there is no token yet", 5, "200 200 200 200 200; assertions: 1").await?;
    tell("there is one", 1, "200; assertions: 0").await?;
    server.0.lock().token += 1;
    tell("it was revoked", 1, "200; assertions: 1").await?;
    server.0.lock().token += 1;
    server.0.lock().key = None;
    tell("the key was taken away, too", 1, "configuration; assertions: 1").await?;
    tell("still: the server is not asked all the time", 1, "configuration; assertions: 0").await
}

/// Authorization server and API in one. Its good token is the last one that it gave.
#[derive(Clone)]
struct Server(Arc<Mutex<Books>>);

struct Books {
    key: Option<DecodingKey>,
    token: usize,
    assertions: usize,
}

impl Server {
    fn knowing(pair: &rcgen::KeyPair) -> Result<Self> {
        let key = Some(DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes())?);
        Ok(Self(Arc::new(Mutex::new(Books { key, token: 0, assertions: 0 }))))
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/reports", get(Self::reports))
            .route("/token", post(Self::token))
            .with_state(self.clone())
    }

    async fn reports(State(server): State<Self>, headers: HeaderMap) -> StatusCode {
        loopback::judge(&headers, &format!("t{}", server.0.lock().token))
    }

    async fn token(
        State(server): State<Self>,
        headers: HeaderMap,
        Form(form): Form<HashMap<String, String>>,
    ) -> (StatusCode, Json<Value>) {
        let mut books = server.0.lock();
        books.assertions += 1;
        if form["grant_type"] != JWT_BEARER || !books.trusts(&form["assertion"], &headers) {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"})));
        }
        books.token += 1;
        let token = format!("t{}", books.token);
        let answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600});
        (StatusCode::OK, Json(answer))
    }
}

impl Books {
    /// Signature, issuer, audience and end.
    fn trusts(&self, assertion: &str, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
        validation.set_issuer(&["nightly-report"]);
        validation.set_audience(&[format!("http://{}/token", host.unwrap_or_default())]);
        let key = self.key.as_ref();
        key.is_some_and(|key| jsonwebtoken::decode::<Value>(assertion, key, &validation).is_ok())
    }
}
