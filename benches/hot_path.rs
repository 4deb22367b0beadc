//! What a session adds to a request while its token is fresh.
//!
//! All ways are measured in one run, on one thread, so that their ratios mean something: compare
//! `session` with `floor`, which does only what cannot be left out.

#![allow(missing_docs)] // criterion's macros make public functions
#![allow(clippy::disallowed_methods)] // a stopwatch asks the time

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use reqwest_middleware::ClientWithMiddleware;

mod chain;

/// So many requests are made ready before the watch is started.
const READY: u64 = 64;

fn hot_path(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ways = [
        ("a_no_middleware", chain::bare()),
        ("b_ready_header", chain::through(chain::Inserting::new())),
        ("c_floor", chain::through(chain::Floor::new())),
        ("d_session", chain::through(chain::session(|b| b))),
        ("e_session_without_replay", chain::through(chain::session(|b| b.replay(false)))),
        ("f_by_hand", chain::through(chain::ByHand::new())),
    ];
    let mut group = criterion.benchmark_group("hot_path");
    for (name, client) in &ways {
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|times| runtime.block_on(send(client, times)));
        });
    }
    group.finish();
}

/// Sends `times` requests one after the other. Making them is not measured, answering them is.
async fn send(client: &ClientWithMiddleware, times: u64) -> Duration {
    let model = chain::request();
    let mut elapsed = Duration::ZERO;
    let mut left = times;
    while left > 0 {
        let ready = left.min(READY);
        let requests: Vec<_> = (0..ready).filter_map(|_| model.try_clone()).collect();
        let start = Instant::now();
        for request in requests {
            black_box(client.execute(request).await.unwrap());
        }
        elapsed += start.elapsed();
        left -= ready;
    }
    elapsed
}

criterion_group!(benches, hot_path);
criterion_main!(benches);
