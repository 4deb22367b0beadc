//! What a session adds to a request while its token is fresh.
//!
//! ```text
//! cargo bench --bench hot_path                     ratios, on one thread
//! cargo bench --bench hot_path -- threads          ratios, on 1, 2, 8 and 64 threads at once
//! cargo bench --bench hot_path -- run session 1000 one way alone, for an instrument such as callgrind
//! ```
//!
//! The ways take turns, so that a noisy machine is noisy for all of them; what counts is the ratio
//! within a round, and of these the median. Compare `session` with `floor`, which does only what
//! cannot be left out.

#![allow(missing_docs)] // a program
#![allow(clippy::disallowed_methods)] // a stopwatch asks the time

use std::env;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use http::Extensions;
use reqwest::Request;
use tokio::runtime::{Builder, Runtime};

mod chain;
#[allow(dead_code)] // other benches use the rest
mod figures;

use chain::Way;
use figures::quartiles;

/// How often all ways take their turn.
const ROUNDS: usize = 300;
/// So many requests are made ready before the watch is started.
const READY: usize = 64;
/// So often that is done in one turn.
const BATCHES: usize = 8;

fn main() {
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => compare(1),
        ["threads"] => [1, 2, 8, 64].into_iter().for_each(compare),
        ["run", name, times] => {
            let way = chain::ways().into_iter().find(|way| way.name == name);
            let (way, times) = (way.expect("a way"), times.parse().expect("a number"));
            let runtime = runtime();
            let requests = requests(&way, times);
            black_box(send(&runtime, &way, requests));
        }
        _ => panic!("what is that: {words:?}?"),
    }
}

/// All ways against each other, on so many threads at once.
fn compare(threads: usize) {
    let ways = chain::ways();
    let mut rounds: Vec<Vec<f64>> = Vec::new();
    for round in 0..ROUNDS {
        let mut nanos = vec![0.0; ways.len()];
        for turn in 0..ways.len() {
            let index = (round + turn) % ways.len();
            nanos[index] = turn_of(&ways[index], threads);
        }
        rounds.push(nanos);
    }
    let index = |name| ways.iter().position(|way| way.name == name).expect("a way");
    println!("{threads} threads        ns    ratio (quartiles)");
    for (column, way) in ways.iter().enumerate() {
        let base = index(way.compared_with);
        let nanos = quartiles(rounds.iter().map(|nanos| nanos[column]).collect());
        let ratio = quartiles(rounds.iter().map(|nanos| nanos[column] / nanos[base]).collect());
        println!(
            "{:<24} {:>7.0}  {:.3} ({:.3} to {:.3}) of {}",
            way.name, nanos[1], ratio[1], ratio[0], ratio[2], way.compared_with
        );
    }
}

/// Nanoseconds for a request, where every thread sends as many as one does alone.
fn turn_of(way: &Way, threads: usize) -> f64 {
    let batches = BATCHES.div_ceil(threads);
    let start = Barrier::new(threads);
    let all = thread::scope(|scope| {
        let one = || {
            scope.spawn(|| {
                let runtime = runtime();
                start.wait();
                let mut taken = Duration::ZERO;
                for _ in 0..batches {
                    taken += send(&runtime, way, requests(way, READY));
                }
                taken
            })
        };
        let threads: Vec<_> = (0..threads).map(|_| one()).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<Duration>()
    });
    all.as_nanos() as f64 / (threads * batches * READY) as f64
}

/// Requests that are ready to be sent. Making them is not measured.
fn requests(way: &Way, count: usize) -> Vec<(Request, Extensions)> {
    (0..count).map(|_| (chain::request(), way.extensions())).collect()
}

/// Sends them one after the other. An instrument finds it by its name.
#[inline(never)]
fn send(runtime: &Runtime, way: &Way, requests: Vec<(Request, Extensions)>) -> Duration {
    runtime.block_on(async {
        let start = Instant::now();
        for (request, mut extensions) in requests {
            let response = way.client.execute_with_extensions(request, &mut extensions).await;
            black_box(response.expect("an answer"));
        }
        start.elapsed()
    })
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime")
}
