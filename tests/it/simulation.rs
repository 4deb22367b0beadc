//! A world in which one seed decides everything, and everything goes wrong.
//!
//! The seed drives true time and the clocks of each machine, whose turn it is at each step, an
//! authorization server that rotates and detects reuse (with a grace period or without), an API,
//! stores whose locks end with their process or by themselves, processes with several sessions
//! each, and the faults: all of [`Fault`](faults::Fault), in each run some of them and all the
//! oftener. Then the faults stop, and everything must come right. Nothing of it is real: no socket,
//! no timer, no thread.
//!
//! At the edges an [`Oracle`](oracle::Oracle) looks on. Exceptions stand beside its rules.
//!
//! | never, at any step | |
//! |---|---|
//! | two refreshes under way for one session; two at all where the store's lock excludes | K-20, K-61 |
//! | a refresh that ends because a caller goes away; a session that settles before its refresh | K-21 |
//! | a refresh of a token that is fresh, not rejected, and good enough for all who ask | K-22 |
//! | a panic that gets to a caller; somebody who waits for ever, or goes round in circles | K-24 |
//! | what the user has replaced or forgotten, in a request or in the store | K-25 |
//! | a refresh token whose successor is known, or was in the store at the last look | K-32, K-61 |
//! | a refresh token that is sent without the lock, or without a look under it | K-61 |
//! | another attempt before the pause is over, or without end | K-26, K-35 |
//! | a verdict "dead" that the server has not spoken; a dead token that is sent again | K-34, K-50 |
//! | a token that is over on either clock, for who has not waited for it | K-11, K-12 |
//! | a refreshed pair that is used before it is saved | K-60 |
//! | a second replay, one without a rejection, or one with other bytes | K-40, K-43 |
//! | another answer than the last one; an error without its rejection | K-40, K-44 |
//! | a token at another origin, or beside a caller's own | K-02, K-03 |
//! | a second call of the login hook, one without a refusal, or without another look | K-50, K-53, K-54 |
//! | a token in an error, an event or a log | K-63 |
//! | after the faults: a request that is not served within 1000 seconds, unless somebody must really log in; after that login, and 600 seconds for which a refused client is left alone, within 60; then more than one refresh for everybody | K-20, K-51 |
//!
//! Each of these bugs was planted, one after the other, and found by some of the first 300 seeds:
//!
//! | bug | seeds | by |
//! |---|---|---|
//! | the store is not read again under the lock | 265 | K-61 |
//! | the refresh runs inside the caller | 49 | K-21, K-24, K-60 |
//! | the generation of a rejected token is ignored | 21 | K-22 |
//! | a pair is published before it is saved | 9 | K-32, K-60 |
//! | `clear` does not make a running refresh lose | 2 | K-25 |
//! | a hook that declines is called again | 25 | K-50, K-32 |
//! | a request is replayed twice | 20 | K-40 |
//! | 5xx with `invalid_grant` counts as dead | 12 | K-34 |
//! | only the wall clock is watched | 38 | K-12, K-24 |
//! | the cool-down is forgotten | 8 | K-35 |
//!
//! In November 2026 the seeds 0 to 99,999 ran without a violation: 256 million steps, 4.2 million
//! requests, 562,395 refresh tokens traded, in 12 years of virtual time. What they and others had
//! found before is in `simulated.rs`, told without a seed.
//!
//! A seed that fails is printed. This replays it, step by step:
//!
//! ```text
//! SIMULATION_SEED=7 cargo test --test it simulation -- --nocapture
//! ```
//!
//! More of them, from any first one; 100,000 take four minutes of processor time, and without
//! `--release` about eight times that:
//!
//! ```text
//! SIMULATION_FIRST=100000 SIMULATION_SEEDS=100000 cargo test --release --test it simulation -- --nocapture
//! ```

use std::env;
use std::thread;

use crate::simulation::faults::{Counts, Fault};
use crate::simulation::output::Reader;
use crate::simulation::run::{Report, Simulation};

mod api;
mod ending;
mod faults;
mod machine;
mod oracle;
mod output;
mod person;
mod plan;
mod process;
mod run;
mod server;
mod store;
mod token_endpoint;
mod traffic;
mod world;

/// So many seeds `cargo test` runs.
const SEEDS: u64 = 300;
const THREADS: u64 = 2;

/// What many runs came to.
#[derive(Default)]
struct Sum {
    failures: Vec<(u64, String)>,
    counts: Counts,
    steps: usize,
    requests: usize,
    trades: usize,
    seconds: u64,
}

impl Sum {
    fn of(seeds: impl Iterator<Item = u64>) -> Self {
        seeds.fold(Self::default(), |sum, seed| sum.and(seed, run(seed)))
    }

    fn and(mut self, seed: u64, report: Report) -> Self {
        if let Some(violation) = report.violation {
            println!("seed {seed}: {violation}");
            self.failures.push((seed, violation));
        }
        self.counts.add(&report.counts);
        self.steps += report.steps;
        self.requests += report.requests;
        self.trades += report.trades;
        self.seconds += report.virtual_time.as_secs();
        self
    }

    fn plus(mut self, other: Self) -> Self {
        self.failures.extend(other.failures);
        self.counts.add(&other.counts);
        self.steps += other.steps;
        self.requests += other.requests;
        self.trades += other.trades;
        self.seconds += other.seconds;
        self
    }

    fn tell(&self) {
        println!(
            "{} steps, {} requests, {} refresh tokens traded, {} virtual seconds",
            self.steps, self.requests, self.trades, self.seconds
        );
        for fault in Fault::ALL {
            println!("{fault:?}: {}", self.counts.of(fault));
        }
    }
}

/// One run, whose log is read too.
fn run(seed: u64) -> Report {
    tracing::subscriber::with_default(Reader, || Simulation::run(seed))
}

fn given(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn replay(seed: u64) {
    let report = run(seed);
    println!("{}", report.transcript.join("\n"));
    assert_eq!(report.violation, None, "seed {seed}");
}

/// All of the table above; and every fault has struck.
#[test]
fn whatever_goes_wrong_no_promise_is_broken() {
    if let Some(seed) = given("SIMULATION_SEED") {
        return replay(seed);
    }
    let first = given("SIMULATION_FIRST").unwrap_or_default();
    let count = given("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let part = move |thread| (first..first + count).filter(move |seed| seed % THREADS == thread);
    let sum = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || Sum::of(part(thread)))).collect();
        let sums = threads.into_iter().map(|thread| thread.join().expect("a whole run"));
        sums.fold(Sum::default(), Sum::plus)
    });
    sum.tell();
    let failed: Vec<_> = sum.failures.iter().map(|(seed, _)| seed).collect();
    assert!(failed.is_empty(), "SIMULATION_SEED={} shows why; all: {failed:?}", failed[0]);
    let missing = Fault::ALL.into_iter().filter(|fault| sum.counts.of(*fault) == 0);
    let missing: Vec<_> = missing.collect();
    assert!(count < SEEDS || missing.is_empty(), "these have never struck: {missing:?}");
}

/// Else a seed that fails would be worth nothing.
#[test]
fn one_seed_is_one_run() {
    for seed in 0..20 {
        assert_eq!(run(seed).transcript, run(seed).transcript, "seed {seed}");
    }
}
