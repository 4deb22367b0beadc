//! How many requests a second go through a session, against `reqwest` alone.
//!
//! ```text
//! cargo bench --bench throughput             two minutes
//! cargo bench --bench throughput -- short    seconds
//! ```
//!
//! HTTP/1.1 with keep-alive over loopback; client and server have a thread each. The ways take turns,
//! and the ratio is taken within a round.

#![allow(missing_docs)] // a program
#![allow(clippy::disallowed_methods)] // a stopwatch asks the time

use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_refresh::{ClientAuth, Session, SessionBuilder, TokenEndpoint, TokenSet};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::sleep;

#[allow(dead_code)] // other benches use the rest
mod chain;
#[allow(dead_code)] // other benches use the rest
mod figures;
mod loopback;

use chain::{Floor, TOKEN};
use figures::quartiles;
use loopback::Server;

/// So many requests are sent in one turn. Short turns: where others use the machine, most of them are
/// not interrupted, and the median tells of those.
const REQUESTS: usize = 96;
/// So long an API thinks that is not the fastest of all.
const DELAY: Duration = Duration::from_millis(1);
/// No request takes longer.
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() {
    let is_short = env::args().any(|word| word == "short");
    let rounds = if is_short { 30 } else { 1000 };
    let slow = async |headers| {
        sleep(DELAY).await;
        orders(headers).await
    };
    let router = Router::new().route("/orders", get(orders)).route("/slow", get(slow));
    let server = Server::start(router);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    println!("| | at once | requests a second | throughput, reqwest alone being 1 (quartiles) |");
    println!("|---|---|---|---|");
    for (path, at_once) in [("/orders", 1), ("/orders", 32), ("/slow", 32)] {
        println!("| *GET {path}* | | | |");
        compare(&runtime, &ways(&server, path), at_once, rounds);
    }
}

/// All ways against the first.
fn compare(runtime: &Runtime, ways: &[Way], at_once: usize, rounds: usize) {
    let mut seconds = vec![Vec::new(); ways.len()];
    // The first round opens the connections and does not count.
    for round in figures::rounds(rounds + 1) {
        for turn in 0..ways.len() {
            let way = (round + turn) % ways.len();
            let taken = runtime.block_on(send(&ways[way], at_once));
            if round > 0 {
                seconds[way].push(taken.as_secs_f64());
            }
        }
    }
    for (way, own) in ways.iter().zip(&seconds) {
        let ratios = own.iter().zip(&seconds[0]).map(|(own, alone)| alone / own).collect();
        let [low, ratio, high] = quartiles(ratios);
        let rate = REQUESTS as f64 / quartiles(own.clone())[1];
        let name = way.name;
        println!("| {name} | {at_once} | {rate:.0} | {ratio:.3} ({low:.3} to {high:.3}) |");
    }
}

/// Sends a turn's requests, so many at once.
async fn send(way: &Way, at_once: usize) -> Duration {
    let start = Instant::now();
    let mut senders = JoinSet::new();
    for _ in 0..at_once {
        let sending = Arc::clone(&way.sending);
        senders.spawn(async move {
            for _ in 0..REQUESTS / at_once {
                sending.send().await;
            }
        });
    }
    senders.join_all().await;
    start.elapsed()
}

/// A way to send a request with a token.
struct Way {
    name: &'static str,
    sending: Arc<Sending>,
}

struct Sending {
    url: Url,
    /// The token, where no session puts it in.
    header: Option<HeaderValue>,
    client: Through,
}

enum Through {
    Alone(Client),
    Chain(ClientWithMiddleware),
}

impl Sending {
    /// One request, and the whole of its answer.
    async fn send(&self) {
        let (url, header) = (self.url.clone(), self.header.clone());
        let headers = header.into_iter().map(|header| (AUTHORIZATION, header)).collect();
        let answer = match &self.client {
            Through::Alone(client) => client.get(url).headers(headers).send().await.unwrap(),
            Through::Chain(client) => client.get(url).headers(headers).send().await.unwrap(),
        };
        assert_eq!(answer.status(), StatusCode::OK);
        answer.bytes().await.unwrap();
    }
}

/// All of them, the first alone.
fn ways(server: &Server, path: &str) -> Vec<Way> {
    let client = || Client::builder().timeout(TIMEOUT).build().unwrap();
    let chain = |session| Through::Chain(ClientBuilder::new(client()).with(session).build());
    let way = |name, header: Option<String>, client| {
        let header = header.map(|header| HeaderValue::try_from(header).unwrap());
        let sending = Sending { url: server.url(path), header, client };
        Way { name, sending: Arc::new(sending) }
    };
    let header = || Some(format!("Bearer {TOKEN}"));
    let floor = Through::Chain(ClientBuilder::new(client()).with(Floor::new()).build());
    let empty = Through::Chain(ClientBuilder::new(client()).build());
    vec![
        way("reqwest alone, a header", header(), Through::Alone(client())),
        way("a chain without a middleware, a header", header(), empty),
        way("a chain, a header, a copy of the request", None, floor),
        way("a session", None, chain(session(server, |builder| builder))),
        way("a session, `replay(false)`", None, chain(session(server, |it| it.replay(false)))),
    ]
}

fn session(server: &Server, settings: fn(SessionBuilder) -> SessionBuilder) -> Session {
    let url = server.url("/token");
    let endpoint = TokenEndpoint::new(url.as_str(), ClientAuth::none("bench")).unwrap();
    let tokens = TokenSet::new(TOKEN).with_expires_in(Duration::from_secs(3600));
    settings(Session::builder(endpoint).tokens(tokens)).build().unwrap()
}

/// The API: whoever has the token gets the orders.
async fn orders(headers: HeaderMap) -> (StatusCode, &'static str) {
    let token = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
    match token.and_then(|header| header.strip_prefix("Bearer ")) {
        Some(TOKEN) => (StatusCode::OK, r#"[{"id": 1}, {"id": 2}]"#),
        _ => (StatusCode::UNAUTHORIZED, ""),
    }
}
