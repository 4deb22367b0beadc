//! An authorization server and its API, for the client to be tried with: whoever logs in is let in,
//! refresh tokens rotate, and a refresh token that comes twice ends the session.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;

use crate::{DEVICE_CODE, loopback};

/// Where it listens by itself.
pub(crate) const ADDRESS: &str = "127.0.0.1:8087";

/// Be the server until somebody interrupts it.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind(ADDRESS).await?;
    println!("listening on http://{ADDRESS}; Ctrl-C ends it");
    Ok(axum::serve(listener, Server::default().router()).await?)
}

/// Its tokens are numbered.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    pair: u32,
    is_logged_in: bool,
    has_asked: bool,
    refreshes: usize,
    reuses: usize,
}

impl Server {
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/device", post(Self::device))
            .route("/token", post(Self::token))
            .route("/revoke", post(Self::revoke))
            .route("/orders", get(Self::orders))
            .with_state(self)
    }

    /// What it saw of refresh tokens.
    pub(crate) fn told(&self) -> String {
        let books = self.0.lock();
        format!("{} refresh, {} tokens that came twice", books.refreshes, books.reuses)
    }

    async fn device(headers: HeaderMap) -> Response {
        let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
        let answer = json!({
            "device_code": "d1",
            "user_code": "WDJB-MJHT",
            "verification_uri": format!("http://{host}/device"),
            "interval": 1,
            "expires_in": 600,
        });
        Json(answer).into_response()
    }

    async fn token(
        State(server): State<Self>,
        Form(form): Form<HashMap<String, String>>,
    ) -> Response {
        let mut books = server.0.lock();
        let is = |name: &str, value: &str| form.get(name).is_some_and(|sent| sent == value);
        if is("grant_type", DEVICE_CODE) {
            // The person takes a moment to say yes; and this first token is soon over.
            return match std::mem::replace(&mut books.has_asked, true) {
                true => books.tokens(1),
                false => refused("authorization_pending"),
            };
        }
        let is_current = books.is_logged_in && is("refresh_token", &refresh_token(books.pair));
        if !is_current {
            books.reuses += usize::from(books.is_logged_in);
            books.is_logged_in = false;
            return refused("invalid_grant");
        }
        books.refreshes += 1;
        books.tokens(3600)
    }

    async fn revoke(State(server): State<Self>) -> StatusCode {
        server.0.lock().is_logged_in = false;
        StatusCode::OK
    }

    async fn orders(State(server): State<Self>, headers: HeaderMap) -> Response {
        let books = server.0.lock();
        match loopback::judge(&headers, &access_token(books.pair)) {
            StatusCode::OK if books.is_logged_in => {
                Json(json!(["tea", "biscuits"])).into_response()
            }
            _ => StatusCode::UNAUTHORIZED.into_response(),
        }
    }
}

impl Books {
    fn tokens(&mut self, lifetime: u64) -> Response {
        self.pair += 1;
        self.is_logged_in = true;
        let answer = json!({
            "access_token": access_token(self.pair),
            "refresh_token": refresh_token(self.pair),
            "token_type": "Bearer",
            "expires_in": lifetime,
        });
        Json(answer).into_response()
    }
}

fn access_token(pair: u32) -> String {
    format!("SECRET-access-{pair}")
}

fn refresh_token(pair: u32) -> String {
    format!("SECRET-refresh-{pair}")
}

fn refused(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
}
