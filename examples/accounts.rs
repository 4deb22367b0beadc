//! One client for many customers, each with tokens of its own: `cargo run --example accounts`.
//!
//! The first part is what a service writes; the rest of this file is a server with the customers'
//! orders, and a story.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use parking_lot::Mutex;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_refresh::{
    Account, Accounts, ClientAuth, MemoryStore, Session, TokenEndpoint, TokenSet, TokenStore,
};
use serde_json::{Value, json};

#[path = "support/loopback.rs"]
#[allow(dead_code)] // there is more in it than this needs
mod loopback;

type Customer = &'static str;
const CUSTOMERS: [Customer; 3] = ["ann", "bob", "cid"];

/// Where the service keeps its customers' tokens; yours may be a table of a database.
#[derive(Clone, Default)]
struct Database(Arc<HashMap<Customer, MemoryStore>>);

/// One session for each customer, opened when its first request is sent.
fn accounts(endpoint: TokenEndpoint, database: Database) -> Result<Accounts<Customer>> {
    let accounts = Accounts::builder(Session::builder(endpoint), move |customer, session| {
        let store = database.0.get(customer).cloned();
        async move {
            let store = store.ok_or("nobody has heard of this customer")?;
            Ok(session.store(store).on_login_required(move |_| async move {
                println!("  (a mail to {customer}: please log in again)");
                None
            }))
        }
    });
    Ok(accounts.idle_time(Duration::ZERO).build()?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Server::default();
    let (url, _) = loopback::serve(server.router()).await?;
    let endpoint =
        TokenEndpoint::new(&format!("{url}/token"), ClientAuth::basic("shop", "secret"))?;
    let accounts = accounts(endpoint, server.log_in().await?)?;
    let client = loopback::client(accounts.clone())?;

    let tell = async |when: &str, customers: &[Customer], promised: &str| {
        let outcome = orders(&client, &url, customers).await;
        let refreshes = std::mem::take(&mut server.0.lock().refreshes);
        loopback::tell(when, &format!("{outcome}; refreshes: {refreshes}"), promised)
    };
    let ann_twice = ["ann", "ann", "bob", "cid"];
    tell("all tokens are over", &ann_twice, "200 200 200 200; refreshes: 3").await?;
    tell("they are fresh", &ann_twice, "200 200 200 200; refreshes: 0").await?;

    server.0.lock().revoke("bob");
    tell("bob has revoked his", &CUSTOMERS, "200 login required 200; refreshes: 1").await?;

    loopback::tell("nobody uses them", &format!("{} let go", accounts.evict_idle()), "3 let go")?;
    tell("ann comes back", &["ann"], "200; refreshes: 0").await?;
    tell("a stranger", &["dan"], "token store; refreshes: 0").await
}

/// What a request for each of these comes to.
async fn orders(client: &ClientWithMiddleware, url: &str, customers: &[Customer]) -> String {
    let request = |customer: &Customer| {
        client.get(format!("{url}/orders/{customer}")).with_extension(Account(*customer))
    };
    loopback::outcomes(customers.iter().map(request)).await
}

/// Authorization server and API in one. Of each customer's tokens, the last are good.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    /// The number of each customer's last tokens.
    last: HashMap<String, usize>,
    refreshes: usize,
}

impl Server {
    fn router(&self) -> Router {
        Router::new()
            .route("/orders/{customer}", get(Self::orders))
            .route("/token", post(Self::token))
            .with_state(self.clone())
    }

    /// Logs all customers in, some time ago: their access tokens are over.
    async fn log_in(&self) -> Result<Database> {
        let mut database = HashMap::new();
        for customer in CUSTOMERS {
            self.0.lock().last.insert(customer.to_owned(), 0);
            let store = MemoryStore::new();
            let tokens = TokenSet::new(format!("{customer}-0"))
                .with_refresh_token(format!("{customer}/0"))
                .with_expires_at(SystemTime::UNIX_EPOCH);
            store.save(&tokens).await.map_err(anyhow::Error::from_boxed)?;
            database.insert(customer, store);
        }
        Ok(Database(Arc::new(database)))
    }

    async fn orders(
        State(server): State<Self>,
        Path(customer): Path<String>,
        headers: HeaderMap,
    ) -> StatusCode {
        let last = server.0.lock().last[&customer];
        loopback::judge(&headers, &format!("{customer}-{last}"))
    }

    async fn token(
        State(server): State<Self>,
        Form(form): Form<HashMap<String, String>>,
    ) -> (StatusCode, Json<Value>) {
        match server.0.lock().refresh(&form["refresh_token"]) {
            Some(answer) => (StatusCode::OK, Json(answer)),
            None => (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))),
        }
    }
}

impl Books {
    /// The last refresh token of a customer is good, once.
    fn refresh(&mut self, token: &str) -> Option<Value> {
        self.refreshes += 1;
        let (customer, number) = token.split_once('/')?;
        let last = self.last.get_mut(customer).filter(|last| last.to_string() == number)?;
        *last += 1;
        Some(json!({
            "access_token": format!("{customer}-{last}"),
            "refresh_token": format!("{customer}/{last}"),
            "token_type": "Bearer",
            "expires_in": 3600,
        }))
    }

    fn revoke(&mut self, customer: &str) {
        *self.last.entry(customer.to_owned()).or_default() += 1;
    }
}
