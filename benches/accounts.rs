//! What many sessions cost in one process: memory, tasks, and the way to one of them.
//!
//! ```text
//! cargo bench --bench accounts             a million sessions
//! cargo bench --bench accounts -- 10000    so many
//! ```
//!
//! Bytes are those that the program asked its allocator for and has not given back, counted on the
//! one thread that there is. The ways to a session take turns, as in `hot_path`.

#![allow(missing_docs)] // a program
#![allow(clippy::disallowed_methods)] // a stopwatch asks the time

use std::collections::HashMap;
use std::hint::black_box;
use std::pin::Pin;
use std::time::{Duration, Instant};
use std::{env, fs};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Extensions, HeaderValue};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientWithMiddleware, Middleware, Next};
use reqwest_refresh::{
    Account, Accounts, Lease, Refresh, RefreshError, Session, SessionBuilder, StoreError, TokenSet,
    TokenStore,
};
use tokio::runtime::{Builder, Runtime};

#[allow(dead_code)] // other programs use the rest
mod chain;

/// Rounds in which all ways take their turn, and requests in a turn.
const ROUNDS: usize = 300;
const REQUESTS: usize = 500;

fn main() {
    let count = env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(1_000_000);
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    println!("{:<44} {:>7}", format!("{count} sessions"), "bytes");
    println!("{:<44} {:>7}", "  the tokens of one, subtracted below", token_bytes());
    alone();

    let resident = resident_bytes();
    let start = Instant::now();
    let (accounts, bytes) = counted(|| runtime.block_on(opened(count)));
    let taken = start.elapsed();
    row("opened, with their tokens", bytes, count);
    let resident = resident_bytes().saturating_sub(resident) / count;
    println!("{:<44} {:>7}", "  resident, tokens and allocator included", resident);
    println!("{:<44} {:>7}", "  of these: for the header", header_bytes());
    println!("opened within {taken:.1?}, one after the other");
    idle(&runtime);
    lookups(&runtime, &accounts, count);
    drop(accounts);

    println!();
    let (accounts, opened) = counted(|| runtime.block_on(opened_with_store(count)));
    row("opened, each with a store that was read", opened, count);
    let ((), more) = counted(|| runtime.block_on(refreshed(&accounts, count)));
    row("refreshed once, the old tokens remembered", opened + more, count);
    idle(&runtime);
}

/// What an allocator was asked for, and not given back.
fn counted<T>(work: impl FnOnce() -> T) -> (T, i64) {
    let mut output = None;
    let counted = allocation_counter::measure(|| output = Some(work()));
    (output.expect("some output"), counted.bytes_current)
}

fn row(what: &str, bytes: i64, count: u64) {
    let each = bytes / count as i64 - token_bytes();
    println!("{what:<44} {each:>7}");
}

/// A session that is not one of many accounts.
fn alone() {
    let sessions = Session::builder(Server).allow_origin(chain::ORIGIN);
    let first = sessions.clone().tokens(tokens(0, 0)).build().expect("a session");
    let session = || sessions.clone().tokens(tokens(1, 0)).build().expect("a session");
    let (second, bytes) = counted(session);
    println!("{:<44} {:>7}", "a session alone", bytes - token_bytes());
    drop((first, second));
}

/// The header's value, its owner, and what it has before the token.
fn header_bytes() -> i64 {
    let owner = [0; size_of::<TokenSet>()];
    let (shared, bytes) = counted(|| Bytes::from_owner(owner));
    drop(shared);
    bytes + (size_of::<HeaderValue>() + "Bearer ".len()) as i64
}

fn idle(runtime: &Runtime) {
    let tasks = runtime.metrics().num_alive_tasks();
    println!("while idle: {tasks} tasks, {} threads", status("Threads").unwrap_or_default());
}

/// Time for a request through one session, and through accounts.
fn lookups(runtime: &Runtime, accounts: &Accounts<u64>, count: u64) {
    let session = chain::through(chain::session(|builder| builder));
    let opened = runtime.block_on(opened_before(accounts, count));
    let row = opened.iter().map(|(_, session)| session.clone()).collect();
    let row = chain::through(Kept::Row(row));
    let map = chain::through(Kept::Map(opened.into_iter().collect()));
    let accounts = chain::through(accounts.clone());
    let ways: [Way<'_>; WAYS] = [
        ("a session", &session, |_| None),
        ("a session, a request that names an account", &session, |_| Some(7)),
        ("accounts, the same one again and again", &accounts, |_| Some(7)),
        ("a row of sessions, at random", &row, |count| Some(fastrand::u64(..count))),
        ("a map of sessions, at random", &map, |count| Some(fastrand::u64(..count))),
        ("accounts, at random", &accounts, |count| Some(fastrand::u64(..count))),
    ];
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut nanos = [0.0; WAYS];
        for turn in 0..ways.len() {
            let index = (round + turn) % ways.len();
            let (_, client, account) = ways[index];
            let extensions: Vec<_> = (0..REQUESTS).map(|_| extensions(account(count))).collect();
            nanos[index] = send(runtime, client, extensions).as_nanos() as f64 / REQUESTS as f64;
        }
        rounds.push(nanos);
    }
    println!("{:<44} {:>7} {:>7} {:>7}", "a request through", "ns", "more", "ratio");
    for (index, (name, ..)) in ways.iter().enumerate() {
        let of = |value: fn(f64, f64) -> f64| {
            median(rounds.iter().map(|nanos| value(nanos[index], nanos[0])).collect())
        };
        let (nanos, more, ratio) =
            (of(|own, _| own), of(|own, one| own - one), of(|own, one| own / one));
        println!("{name:<44} {nanos:>7.0} {more:>+7.0} {ratio:>7.3}");
    }
}

/// A name, who sends, and the account that a request names, if any, of so many.
type Way<'a> = (&'static str, &'a ClientWithMiddleware, fn(u64) -> Option<u64>);
const WAYS: usize = 6;

/// The same sessions without `Accounts`: what it costs that they are many, and not in the cache.
enum Kept {
    /// Not looked up.
    Row(Vec<Session>),
    /// In a map that has no lock and lets nobody go.
    Map(HashMap<u64, Session>),
}

async fn opened_before(accounts: &Accounts<u64>, count: u64) -> Vec<(u64, Session)> {
    let mut sessions = Vec::new();
    for account in 0..count {
        sessions.push((account, accounts.session(&account).await.expect("a session")));
    }
    sessions
}

impl Middleware for Kept {
    // As `#[async_trait]` would write it, without a future of its own.
    fn handle<'a, 'b, 'c, 'd>(
        &'a self,
        request: Request,
        extensions: &'b mut Extensions,
        next: Next<'c>,
    ) -> Pin<Box<dyn Future<Output = reqwest_middleware::Result<Response>> + Send + 'd>>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
        Self: 'd,
    {
        let Account(account) = extensions.get::<Account<u64>>().expect("an account");
        let session = match self {
            Self::Row(row) => &row[*account as usize],
            Self::Map(map) => &map[account],
        };
        session.handle(request, extensions, next)
    }
}

fn extensions(account: Option<u64>) -> Extensions {
    let mut extensions = Extensions::new();
    if let Some(account) = account {
        extensions.insert(Account(account));
    }
    extensions
}

/// Sends them one after the other. Making the requests is not measured.
fn send(runtime: &Runtime, client: &ClientWithMiddleware, ready: Vec<Extensions>) -> Duration {
    let requests: Vec<_> = ready.into_iter().map(|ready| (chain::request(), ready)).collect();
    runtime.block_on(async {
        let start = Instant::now();
        for (request, mut extensions) in requests {
            let response = client.execute_with_extensions(request, &mut extensions).await;
            black_box(response.expect("an answer"));
        }
        start.elapsed()
    })
}

/// The sessions of so many accounts, with tokens that are nowhere else.
async fn opened(count: u64) -> Accounts<u64> {
    let sessions = Session::builder(Server).allow_origin(chain::ORIGIN);
    let open =
        |account, session: SessionBuilder| async move { Ok(session.tokens(tokens(account, 0))) };
    let accounts = Accounts::builder(sessions, open).build().expect("accounts");
    for account in 0..count {
        accounts.session(&account).await.expect("a session");
    }
    accounts
}

/// The sessions of so many accounts, each with a store of its own that was read.
async fn opened_with_store(count: u64) -> Accounts<u64> {
    let sessions = Session::builder(Server).allow_origin(chain::ORIGIN);
    let open = |account, session: SessionBuilder| async move { Ok(session.store(Own(account))) };
    let accounts = Accounts::builder(sessions, open).build().expect("accounts");
    for account in 0..count {
        let session = accounts.session(&account).await.expect("a session");
        session.tokens().await.expect("tokens");
    }
    accounts
}

async fn refreshed(accounts: &Accounts<u64>, count: u64) {
    for account in 0..count {
        let session = accounts.session(&account).await.expect("a session");
        session.refresh().await.expect("new tokens");
    }
}

/// An hour's tokens, as a server gives them.
fn tokens(account: u64, turn: u64) -> TokenSet {
    TokenSet::new(token('a', account, turn))
        .with_refresh_token(token('r', account, turn))
        .with_token_type("Bearer")
        .with_expires_in(Duration::from_secs(3600))
}

/// As long as 256 bits in Base64.
fn token(kind: char, account: u64, turn: u64) -> String {
    format!("{kind}{account:021}{turn:021}")
}

fn token_bytes() -> i64 {
    let tokens = tokens(0, 0);
    (tokens.access_token().len() + tokens.refresh_token().map_or(0, str::len)) as i64
}

/// A server that never fails.
struct Server;

#[async_trait]
impl Refresh for Server {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        Ok(tokens(fastrand::u64(..), 1))
    }
}

/// The store of an account. It keeps nothing: only what the sessions keep is counted.
struct Own(u64);

#[async_trait]
impl TokenStore for Own {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        Ok(Some(tokens(self.0, 0)))
    }

    async fn save(&self, _: &TokenSet) -> Result<(), StoreError> {
        Ok(())
    }

    async fn clear(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        Ok(Lease::none())
    }
}

fn resident_bytes() -> u64 {
    let kib = status("VmRSS").and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// What Linux says about this process.
fn status(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
