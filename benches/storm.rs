//! Ten thousand requests at once find the token over: how long until all are answered, and what each
//! of them takes while it waits.
//!
//! ```text
//! cargo bench --bench storm             a quarter of a minute
//! cargo bench --bench storm -- short    seconds
//! ```
//!
//! The requests are answered in the process: so many sockets are more than most systems allow, and
//! would hide what the session costs. The refresh takes its half second by the real clock.

#![allow(missing_docs)] // a program
#![allow(clippy::disallowed_methods)] // a stopwatch asks the time

use std::env;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientWithMiddleware, Middleware, Next};
use reqwest_refresh::{Refresh, RefreshError, Session, TokenSet};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

#[allow(dead_code)] // other benches use the rest
mod chain;
#[allow(dead_code)]
mod figures;

use figures::quartiles;

const REQUESTS: usize = 10_000;
/// How long a refresh takes.
const REFRESH: Duration = Duration::from_millis(500);
/// Nobody waits longer.
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    let is_short = env::args().any(|word| word == "short");
    time(if is_short { 2 } else { 20 });
    println!();
    memory();
}

/// The crowd with a token that is over, against the same crowd with a fresh one.
fn time(rounds: usize) {
    let runtime = Runtime::new().unwrap();
    let [mut fresh, mut over, mut ratios, mut floors] = [const { Vec::new() }; 4];
    for _ in figures::rounds(rounds) {
        let client = chain::through(chain::session(|builder| builder));
        let with_fresh = crowd(&runtime, client, async {});
        let with_over = storm(&runtime);
        fresh.push(with_fresh.as_secs_f64() * 1000.0);
        over.push(with_over.as_secs_f64() * 1000.0);
        ratios.push(with_over.div_duration_f64(REFRESH + with_fresh));
        floors.push(channel(&runtime).div_duration_f64(REFRESH + with_fresh));
    }
    let times = ratios.len();
    println!("| {REQUESTS} requests at once | median | quartiles |");
    println!("|---|---|---|");
    for (name, unit, digits, values) in [
        ("the token is fresh", " ms", 0, fresh),
        ("the token is over, a refresh takes 500 ms", " ms", 0, over),
        ("the latter, 500 ms and the former being 1", "", 3, ratios),
        ("all wait 500 ms for a channel, without a session", "", 3, floors),
    ] {
        let [low, middle, high] = quartiles(values);
        println!("| {name} | {middle:.digits$}{unit} | {low:.digits$} to {high:.digits$} |");
    }
    println!("\nOne token request each time, {times} times (goal: a ratio of at most 1.1).");
}

/// The crowd with a token that is over.
fn storm(runtime: &Runtime) -> Duration {
    let asked = Arc::new(AtomicUsize::new(0));
    let slow = Slow { asked: Arc::clone(&asked) };
    let taken = crowd(runtime, chain::through(expired(slow)), async {});
    assert_eq!(asked.load(Ordering::SeqCst), 1, "token requests");
    taken
}

/// The crowd, where all wait as long for a channel, and nothing else is done.
fn channel(runtime: &Runtime) -> Duration {
    let (sender, open) = watch::channel(false);
    let opening = async move {
        sleep(REFRESH).await;
        sender.send_replace(true);
    };
    crowd(runtime, chain::through(Waiting { open }), opening)
}

/// How long it takes until all are answered, with `beside` beside them. Making the requests is not
/// measured.
fn crowd(
    runtime: &Runtime,
    client: ClientWithMiddleware,
    beside: impl Future<Output = ()> + Send + 'static,
) -> Duration {
    let client = Arc::new(client);
    let requests: Vec<_> = (0..REQUESTS).map(|_| chain::request()).collect();
    runtime.block_on(async {
        let start = Instant::now();
        tokio::spawn(beside);
        let send = |request| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.execute(request).await.unwrap() })
        };
        let tasks: Vec<_> = requests.into_iter().map(send).collect();
        let all = async {
            for task in tasks {
                task.await.unwrap();
            }
        };
        timeout(LIMIT, all).await.expect("answers in time");
        start.elapsed()
    })
}

/// What a request takes while it waits, on the heap.
fn memory() {
    let mut requests = Vec::with_capacity(REQUESTS);
    let made = allocation_counter::measure(|| {
        requests.extend((0..REQUESTS).map(|_| chain::request()));
    });
    let request = size_of::<Request>() as i64 + made.bytes_current / REQUESTS as i64;
    let (_sender, open) = watch::channel(false);
    let floor = waiting(chain::through(Waiting { open }));
    let ours = waiting(chain::through(expired(Never)));
    println!("| a waiting request | bytes |");
    println!("|---|---|");
    println!("| the request alone: method, URL, three headers | {request} |");
    println!("| with its task, in a middleware that waits for a channel | {floor} |");
    println!("| with its task, in a session | {ours} |");
    println!("| what the session adds, with room for the copy for a replay | {} |", ours - floor);
}

/// The bytes for each of many requests that wait, one task each.
fn waiting(client: ClientWithMiddleware) -> i64 {
    let client = Arc::new(client);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut tasks = Vec::with_capacity(REQUESTS);
    // The counter counts this thread, and all tasks run on it.
    let counted = allocation_counter::measure(|| {
        runtime.block_on(async {
            for _ in 0..REQUESTS {
                let (client, request) = (Arc::clone(&client), chain::request());
                tasks.push(tokio::spawn(async move { client.execute(request).await }));
                yield_now().await;
            }
        });
    });
    let metrics = runtime.metrics();
    assert!(metrics.num_alive_tasks() >= REQUESTS, "somebody does not wait");
    assert!(metrics.global_queue_depth() == 0, "somebody has not begun");
    counted.bytes_current / REQUESTS as i64
}

/// A session whose token is over.
fn expired(refresh: impl Refresh) -> Session {
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let tokens = TokenSet::new("over").with_refresh_token("refresh").with_expires_at(an_hour_ago);
    Session::builder(refresh).tokens(tokens).allow_origin(chain::ORIGIN).build().unwrap()
}

/// A token endpoint that takes its time.
struct Slow {
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl Refresh for Slow {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        sleep(REFRESH).await;
        Ok(TokenSet::new("fresh").with_expires_in(Duration::from_secs(3600)))
    }
}

/// A token endpoint that does not answer.
struct Never;

#[async_trait]
impl Refresh for Never {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        pending().await
    }
}

/// The least that a middleware can be which makes requests wait for each other.
struct Waiting {
    open: watch::Receiver<bool>,
}

#[async_trait]
impl Middleware for Waiting {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.open.clone().wait_for(|open| *open).await.expect("a sender");
        next.run(request, extensions).await
    }
}
