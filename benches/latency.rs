//! How long a request takes while tokens come and go: ten lives of a token at a steady rate.
//!
//! ```text
//! cargo bench --bench latency             half a minute; writes target/latency.csv
//! cargo bench --bench latency -- short    two lives
//! python3 benches/plot.py                 draws docs/latency.svg from that file
//! ```
//!
//! The ways send at the same time to the same server, each over its own connections and with its own
//! tokens. A request is sent when its time has come, whether or not those before it were answered,
//! and its latency counts from that time: a stall is not hidden by a client that waits for it.

#![allow(missing_docs)] // a program
#![allow(clippy::disallowed_methods)] // a stopwatch asks the time

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use async_trait::async_trait;
use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, Request, Response, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_refresh::{ClientAuth, Session, SessionBuilder, TokenEndpoint, TokenSet};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

#[allow(dead_code)] // other benches use the rest
mod figures;
mod loopback;

use figures::{quantiles, quartiles};
use loopback::Server;

/// How long an access token lives.
const LIFE: Duration = Duration::from_secs(3);
/// How long the token endpoint takes.
const REFRESH: Duration = Duration::from_millis(500);
/// The time between two requests of one way.
const PAUSE: Duration = Duration::from_millis(10);
/// No request takes longer.
const TIMEOUT: Duration = Duration::from_secs(10);
const CSV: &str = "target/latency.csv";

const WAYS: [&str; 4] = ["no authentication", "a session", "a session without a window", "by hand"];
const NONE: usize = 0;
const OURS: usize = 1;
const NO_WINDOW: usize = 2;
const BY_HAND: usize = 3;

fn main() {
    let is_short = env::args().any(|word| word == "short");
    let lives = if is_short { 2 } else { 10 };
    let issuer = Arc::new(Issuer::new());
    let server = Server::start(router(&issuer));
    let runtime = Runtime::new().unwrap();
    let samples = runtime.block_on(async {
        let clients = clients(&server).await;
        issuer.refreshes.iter().for_each(|refreshes| refreshes.store(0, Ordering::Relaxed));
        let handle = Handle::current();
        let sending = thread::spawn(move || send(&handle, &clients, lives));
        let mut samples = Vec::new();
        for sample in sending.join().unwrap() {
            samples.push(sample.await.unwrap());
        }
        samples
    });
    write(&samples);
    print(&samples, &issuer);
}

/// One request.
struct Sample {
    way: usize,
    scheduled: Duration,
    latency: Duration,
    /// The status of the answer; 0 for an error.
    status: u16,
}

/// Sends each way's requests at their times. The times of the ways lie between each other.
fn send(handle: &Handle, clients: &[Sending; 4], lives: u32) -> Vec<JoinHandle<Sample>> {
    let turn = PAUSE / WAYS.len() as u32;
    let turns = (LIFE * lives).div_duration_f64(turn) as u32;
    let start = Instant::now();
    let one = |number: u32| {
        let scheduled = turn * number;
        thread::sleep((start + scheduled).saturating_duration_since(Instant::now()));
        let way = number as usize % WAYS.len();
        let sending = clients[way].clone();
        handle.spawn(async move {
            let status = sending.status().await;
            Sample { way, scheduled, latency: start.elapsed() - scheduled, status }
        })
    };
    (0..turns).map(one).collect()
}

/// What sends a way's requests.
#[derive(Clone)]
struct Sending {
    client: ClientWithMiddleware,
    url: Url,
}

impl Sending {
    /// The status of an answer that arrived with its body; 0 for an error.
    async fn status(&self) -> u16 {
        let Ok(answer) = self.client.get(self.url.clone()).send().await else { return 0 };
        let status = answer.status().as_u16();
        answer.bytes().await.map_or(0, |_| status)
    }
}

/// Those of all ways, with fresh tokens and open connections.
async fn clients(server: &Server) -> [Sending; 4] {
    let ours = session(server, OURS, |builder| builder).await;
    let no_window = session(server, NO_WINDOW, |it| it.refresh_window(Duration::ZERO)).await;
    let by_hand = ByHand::new(token_url(server, BY_HAND));
    by_hand.token().await.unwrap();
    let client = || ClientBuilder::new(connections());
    let clients = [
        ("/open", client()),
        ("/orders", client().with(ours)),
        ("/orders", client().with(no_window)),
        ("/orders", client().with(by_hand)),
    ]
    .map(|(path, client)| Sending { client: client.build(), url: server.url(path) });
    for sending in &clients {
        for _ in 0..10 {
            sending.status().await;
        }
    }
    clients
}

fn connections() -> Client {
    Client::builder().timeout(TIMEOUT).build().unwrap()
}

fn token_url(server: &Server, way: usize) -> Url {
    server.url(&format!("/token/{way}"))
}

/// A session that has refreshed its tokens just now.
async fn session(
    server: &Server,
    way: usize,
    settings: fn(SessionBuilder) -> SessionBuilder,
) -> Session {
    let url = token_url(server, way);
    let endpoint = TokenEndpoint::new(url.as_str(), ClientAuth::none("bench")).unwrap();
    let login = TokenSet::new("none").with_refresh_token("refresh");
    let session = settings(Session::builder(endpoint).tokens(login)).build().unwrap();
    session.refresh().await.unwrap();
    session
}

/// What is often written by hand: an async lock around the token, held during the refresh.
struct ByHand {
    endpoint: Url,
    client: Client,
    token: Mutex<(String, Instant)>,
}

impl ByHand {
    fn new(endpoint: Url) -> Self {
        let token = Mutex::new((String::new(), Instant::now()));
        Self { endpoint, client: connections(), token }
    }

    async fn token(&self) -> reqwest::Result<String> {
        let mut token = self.token.lock().await;
        if token.1 <= Instant::now() {
            let request = self.client.post(self.endpoint.clone());
            let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            let request = request.body("grant_type=refresh_token&refresh_token=refresh");
            let answer = request.send().await?.error_for_status()?.bytes().await?;
            let answer: Answer = serde_json::from_slice(&answer).expect("a token answer");
            let end = Instant::now() + Duration::from_secs(answer.expires_in);
            *token = (answer.access_token, end);
        }
        Ok(token.0.clone())
    }
}

#[async_trait]
impl Middleware for ByHand {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let header = format!("Bearer {}", self.token().await?);
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::try_from(header).unwrap());
        next.run(request, extensions).await
    }
}

/// The server: an API that is open, one that is not, and a token endpoint for each way.
fn router(issuer: &Arc<Issuer>) -> Router {
    let (issuing, judging) = (Arc::clone(issuer), Arc::clone(issuer));
    Router::new()
        .route("/open", get(async || "[]"))
        .route("/orders", get(async move |headers: HeaderMap| (judging.judge(&headers), "[]")))
        .route("/token/{way}", post(async move |Path(way)| Json(issuing.issue(way).await)))
}

/// Issues tokens, which say when they end.
struct Issuer {
    start: Instant,
    /// How often each way asked.
    refreshes: [AtomicUsize; 4],
}

/// An answer of the token endpoint.
#[derive(Deserialize, Serialize)]
struct Answer {
    access_token: String,
    expires_in: u64,
    token_type: String,
}

impl Issuer {
    fn new() -> Self {
        Self { start: Instant::now(), refreshes: Default::default() }
    }

    async fn issue(&self, way: usize) -> Answer {
        self.refreshes[way].fetch_add(1, Ordering::Relaxed);
        sleep(REFRESH).await;
        let end = self.start.elapsed() + LIFE;
        Answer {
            access_token: end.as_micros().to_string(),
            expires_in: LIFE.as_secs(),
            token_type: "Bearer".to_owned(),
        }
    }

    fn judge(&self, headers: &HeaderMap) -> StatusCode {
        let token = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let token = token.and_then(|header| header.strip_prefix("Bearer "));
        match token.and_then(|token| token.parse().ok()) {
            Some(end) if self.start.elapsed() < Duration::from_micros(end) => StatusCode::OK,
            _ => StatusCode::UNAUTHORIZED,
        }
    }
}

/// The data, for the plot.
fn write(samples: &[Sample]) {
    let mut text = "way,scheduled_ms,latency_ms,status\n".to_owned();
    for Sample { way, scheduled, latency, status } in samples {
        let (way, scheduled, latency) = (WAYS[*way], millis(scheduled), millis(latency));
        writeln!(text, "{way},{scheduled:.1},{latency:.3},{status}").unwrap();
    }
    fs::create_dir_all("target").unwrap();
    fs::write(CSV, text).unwrap();
}

fn print(samples: &[Sample], issuer: &Issuer) {
    println!(
        "| latency in ms | p50 | p99 | p99.9 | max | median of each life's max | refreshes | not 200 |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let maxima = [NONE, OURS, NO_WINDOW, BY_HAND].map(|way| {
        let of_way = || samples.iter().filter(move |sample| sample.way == way);
        let latencies = of_way().map(|sample| millis(&sample.latency)).collect();
        let [p50, p99, p999, max] = quantiles(latencies, [0.5, 0.99, 0.999, 1.0]);
        let typical = quartiles(maxima_of_lives(of_way()))[1];
        let refreshes = issuer.refreshes[way].load(Ordering::Relaxed);
        let failed = of_way().filter(|sample| sample.status != 200).count();
        let way = WAYS[way];
        println!(
            "| {way} | {p50:.2} | {p99:.2} | {p999:.2} | {max:.2} | {typical:.2} | {refreshes} | {failed} |"
        );
        [max, typical]
    });
    let [all, typical] = [0, 1].map(|column| maxima[OURS][column] / maxima[NONE][column]);
    println!();
    println!("A session's max is {all:.2} of that without authentication (goal: at most 1.5);");
    println!("by the medians of each life's max it is {typical:.2}.");
}

/// The greatest latency within each life of a token, in milliseconds.
fn maxima_of_lives<'a>(samples: impl Iterator<Item = &'a Sample>) -> Vec<f64> {
    let mut maxima = Vec::new();
    for sample in samples {
        let life = sample.scheduled.div_duration_f64(LIFE) as usize;
        maxima.resize(maxima.len().max(life + 1), 0.0);
        maxima[life] = millis(&sample.latency).max(maxima[life]);
    }
    maxima
}

fn millis(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
