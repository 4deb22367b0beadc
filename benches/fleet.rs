//! When the sessions of a fleet refresh whose tokens all end at the same moment.
//!
//! ```text
//! cargo bench --bench fleet > docs/fleet.csv             a million sessions
//! cargo bench --bench fleet -- 10000 > docs/fleet.csv    so many
//! python3 benches/fleet.py                               draws docs/fleet.svg
//! ```
//!
//! Each has a request in every second, by a clock that is moved by hand; a server answers at once.

#![allow(missing_docs)] // a program

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reqwest_refresh::{ManualClock, Refresh, RefreshError, Session, TokenSet};
use tokio::runtime::{Builder, Handle};
use tokio::task::yield_now;

const SECOND: Duration = Duration::from_secs(1);
const LIFETIME: u32 = 3600;
/// So long before the end of the tokens it begins.
const BEFORE: u32 = 65;
/// So many send a request before the refreshes behind these get their turn.
const TOGETHER: usize = 1000;

fn main() {
    let count = env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(1_000_000);
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let [without, with] = [0.0, 0.5].map(|jitter| runtime.block_on(refreshes(count, jitter)));
    println!("seconds_before_end,without_jitter,with_jitter");
    for (second, (without, with)) in without.into_iter().zip(with).enumerate() {
        println!("{},{without},{with}", BEFORE as usize - second);
    }
}

/// How many refreshes there were in each second.
async fn refreshes(count: usize, jitter: f64) -> Vec<u64> {
    fastrand::seed(1);
    let (clock, server) = (ManualClock::new(), Server::default());
    let builder = Session::builder(server.clone()).allow_any_origin();
    let builder = builder.jitter(jitter).clock(clock.clone());
    let session = |_| builder.clone().tokens(tokens()).build().expect("a session");
    let sessions: Vec<_> = (0..count).map(session).collect();
    clock.advance(SECOND * (LIFETIME - BEFORE));
    let mut refreshes = Vec::new();
    for _ in 0..=BEFORE {
        for together in sessions.chunks(TOGETHER) {
            for session in together {
                session.tokens().await.expect("a token that is alive");
            }
            while Handle::current().metrics().num_alive_tasks() > 0 {
                yield_now().await;
            }
        }
        refreshes.push(server.asked.swap(0, Ordering::Relaxed));
        clock.advance(SECOND);
    }
    assert_eq!(refreshes.iter().sum::<u64>(), count as u64, "each of them once");
    refreshes
}

fn tokens() -> TokenSet {
    TokenSet::new("a").with_refresh_token("r").with_expires_in(SECOND * LIFETIME)
}

/// Counts how often it is asked.
#[derive(Clone, Default)]
struct Server {
    asked: Arc<AtomicU64>,
}

#[async_trait]
impl Refresh for Server {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(tokens())
    }
}
