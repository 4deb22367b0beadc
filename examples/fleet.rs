//! Eight services, each a process of its own, and one session that they share by Redis:
//! `cargo run --features redis --example fleet`. Needs `redis-server` on the PATH.
//!
//! The authorization server rotates refresh tokens, and takes one that comes twice for a theft: then
//! everybody is logged out. Access tokens live for two seconds. Each service has what every service
//! of yours would have, [`service`]; the rest of this file is the server, and the reckoning.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use parking_lot::Mutex;
use reqwest_refresh::{ClientAuth, RedisStore, Session, TokenEndpoint, TokenSet, TokenStore};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

#[path = "support/loopback.rs"]
mod loopback;

const SERVICES: usize = 8;
const LIVES: usize = 5;
const LIFETIME: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["service", redis, url] => service(redis, url).await,
        _ => fleet().await,
    }
}

/// Works until there is nothing to do any more, and says how many requests were served and failed.
async fn service(redis: &str, url: &str) -> Result<()> {
    let endpoint =
        TokenEndpoint::new(&format!("{url}/token"), ClientAuth::basic("shop", "secret"))?;
    let session = Session::builder(endpoint)
        .store(RedisStore::new(redis, "orders")?)
        .refresh_window(LIFETIME / 8)
        .build()?;
    let client = loopback::client(session.clone())?;
    let (mut served, mut failed) = (0, 0);
    let orders = format!("{url}/orders/for/{}", std::process::id());
    loop {
        match loopback::get(&client, &orders, 1).await.as_str() {
            "200" => served += 1,
            "204" => break,
            other => {
                eprintln!("a request failed: {other}");
                failed += 1;
                break;
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    session.settle().await?;
    println!("{served} {failed}");
    Ok(())
}

async fn fleet() -> Result<()> {
    let Some(redis) = Redis::start()? else {
        println!("This example needs redis-server on the PATH, and it is not there: try");
        println!("`apt-get install redis-server` or `brew install redis`. Nothing was shown.");
        return Ok(());
    };
    let server = Server::default();
    let (url, _) = loopback::serve(server.router()).await?;
    let store = RedisStore::new(&redis.url, "orders")?;
    timeout(Duration::from_secs(10), log_in(&store, &server)).await.context("no Redis")?;

    let services: Vec<_> = (0..SERVICES)
        .map(|_| {
            let mut service = Command::new(std::env::current_exe()?);
            service.args(["service", &redis.url, &url]).stdout(Stdio::piped()).spawn()
        })
        .collect::<Result<_, _>>()?;
    let is_done = timeout(Duration::from_secs(60), server.lives_are_over()).await;
    server.0.lock().is_done = true;
    let (mut served, mut failed) = (0, 0);
    for service in services {
        let output = service.wait_with_output()?;
        let output = String::from_utf8(output.stdout)?;
        let Some((one, other)) = output.trim().split_once(' ') else { bail!("a service died") };
        served += one.parse::<usize>()?;
        failed += other.parse::<usize>()?;
    }
    is_done.context("the tokens are not refreshed")?;

    let books = server.0.lock();
    println!("life  refreshed after  times  services that used it");
    for (number, life) in books.lives.iter().take(LIVES).enumerate() {
        let (after, times, services) = (life.ended_after, life.refreshes, life.services.len());
        println!("{:>4}  {:>13.2} s  {times:>5}  {services:>21}", number + 1, after.as_secs_f64());
    }
    let once = books.lives.iter().take(LIVES).filter(|life| life.refreshes == 1).count();
    ensure!(once == LIVES, "promised was: one refresh for each life");
    loopback::tell("refresh tokens that were sent twice", &books.reuses.to_string(), "0")?;
    loopback::tell(&format!("of {} requests failed", served + failed), &failed.to_string(), "0")
}

/// Somebody logs in, once, for all of them.
async fn log_in(store: &RedisStore, server: &Server) {
    let (access_token, refresh_token) = server.0.lock().next_pair();
    let tokens = TokenSet::new(access_token).with_refresh_token(refresh_token);
    let tokens = tokens.with_expires_in(LIFETIME);
    while store.save(&tokens).await.is_err() {
        sleep(Duration::from_millis(10)).await; // Redis is starting
    }
}

/// A `redis-server` that keeps everything in memory.
struct Redis {
    url: String,
    child: Child,
}

impl Redis {
    fn start() -> Result<Option<Self>> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
        match command.stdout(Stdio::null()).spawn() {
            Ok(child) => Ok(Some(Self { url: format!("redis://127.0.0.1:{port}"), child })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The authorization server and the API, in memory: access token `a0` with refresh token `r0`, then
/// `a1` with `r1`, and so on.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    lives: Vec<Life>,
    reuses: usize,
    is_done: bool,
}

/// The life of an access token, which ends with the refresh of its pair.
struct Life {
    begin: Instant,
    ended_after: Duration,
    refreshes: usize,
    services: BTreeSet<u32>,
}

impl Server {
    fn router(&self) -> Router {
        Router::new()
            .route("/orders/for/{service}", get(Self::orders))
            .route("/token", post(Self::refresh))
            .with_state(self.clone())
    }

    async fn orders(
        State(server): State<Self>,
        Path(service): Path<u32>,
        headers: HeaderMap,
    ) -> StatusCode {
        let mut books = server.0.lock();
        if books.is_done {
            return StatusCode::NO_CONTENT;
        }
        let lives = books.lives.iter_mut().enumerate();
        let mut living = lives.filter(|(_, life)| life.begin.elapsed() < LIFETIME);
        let is_sent = |number| loopback::judge(&headers, &format!("a{number}")) == StatusCode::OK;
        match living.find(|(number, _)| is_sent(*number)) {
            Some((_, life)) => {
                life.services.insert(service);
                StatusCode::OK
            }
            None => StatusCode::UNAUTHORIZED,
        }
    }

    async fn refresh(
        State(server): State<Self>,
        Form(form): Form<HashMap<String, String>>,
    ) -> Response {
        sleep(Duration::from_millis(100)).await; // enough for everybody else to come too
        let mut books = server.0.lock();
        let sent = form.get("refresh_token").map(String::as_str).unwrap_or_default();
        let number = sent.strip_prefix('r').and_then(|number| number.parse::<usize>().ok());
        let life = number.and_then(|number| books.lives.get_mut(number));
        let Some(life) = life.filter(|life| life.refreshes == 0) else {
            books.reuses += 1;
            books.lives.clear(); // everybody is logged out
            let error = json!({"error": "invalid_grant"});
            return (StatusCode::BAD_REQUEST, Json(error)).into_response();
        };
        life.refreshes += 1;
        life.ended_after = life.begin.elapsed();
        let (access_token, refresh_token) = books.next_pair();
        Json(json!({
            "access_token": access_token,
            "refresh_token": refresh_token,
            "token_type": "Bearer",
            "expires_in": LIFETIME.as_secs(),
        }))
        .into_response()
    }

    async fn lives_are_over(&self) {
        loop {
            sleep(Duration::from_millis(10)).await;
            let books = self.0.lock();
            if books.lives.len() > LIVES || books.reuses > 0 {
                return;
            }
        }
    }
}

impl Books {
    fn next_pair(&mut self) -> (String, String) {
        let number = self.lives.len();
        self.lives.push(Life {
            begin: Instant::now(),
            ended_after: Duration::ZERO,
            refreshes: 0,
            services: BTreeSet::new(),
        });
        (format!("a{number}"), format!("r{number}"))
    }
}
