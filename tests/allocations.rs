//! What a session costs in memory and in tasks. A binary of its own, because it counts every
//! allocation; the counter counts per thread, and everything here runs on the thread of its test.

#![allow(clippy::disallowed_methods)] // the floor that a session is compared with asks the time

use std::net::SocketAddr;

use allocation_counter::AllocationInfo;
use axum::Router;
use axum::routing::post;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_refresh::{ClientAuth, Session, TokenEndpoint, TokenSet};
use tokio::runtime::{Handle, Runtime};

#[allow(dead_code)] // the bench uses the rest
#[path = "../benches/chain/mod.rs"]
mod chain;

/// K-80: the floor is the future that every middleware boxes, and the clone.
#[test]
fn k_80_a_fresh_token_costs_no_allocation_beyond_the_boxed_future_and_the_clone() {
    let floor = one_request(&chain::through(chain::Floor::new()));
    let ours = one_request(&chain::through(chain::session(|builder| builder)));
    assert!(
        ours.count_total <= floor.count_total,
        "{} allocations, {} are enough",
        ours.count_total,
        floor.count_total
    );
}

#[test]
fn k_80_without_replay_a_request_is_not_cloned() {
    let header = one_request(&chain::through(chain::Inserting::new()));
    let session = chain::session(|builder| builder.replay(false));
    let ours = one_request(&chain::through(session));
    assert!(
        ours.count_total <= header.count_total,
        "{} allocations, {} are enough",
        ours.count_total,
        header.count_total
    );
}

#[test]
fn the_counter_sees_the_clone() {
    let header = one_request(&chain::through(chain::Inserting::new()));
    let floor = one_request(&chain::through(chain::Floor::new()));
    assert!(header.count_total > 0 && header.count_total < floor.count_total);
}

/// K-81.
#[test]
fn k_81_an_idle_session_has_no_task_and_no_timer() {
    let issuer = Issuer::start();
    let runtime = current_thread();
    runtime.block_on(async {
        let session = Session::builder(issuer.endpoint())
            .tokens(TokenSet::new("a0").with_refresh_token("r0"))
            .build()
            .unwrap();
        assert_eq!(alive_tasks(), 0, "a session that was just built");

        let tokens = session.refresh().await.unwrap();
        assert_eq!(tokens.access_token(), "a1");
        // The refresh and its connection end behind the caller who waited for it.
        assert!(until(|| alive_tasks() == 0).await, "after a refresh");

        session.set_tokens(TokenSet::new("a2").with_refresh_token("r2")).await.unwrap();
        assert!(until(|| alive_tasks() == 0).await, "after a login");
        drop(session);
    });
    // A runtime without timers would have panicked if an idle session had started one.
    let without_timers = tokio::runtime::Builder::new_current_thread().build().unwrap();
    without_timers.block_on(async {
        let session = chain::session(|builder| builder);
        let client = chain::through(session.clone());
        client.execute(chain::request()).await.unwrap();
        session.settle().await.unwrap();
        assert_eq!(alive_tasks(), 0, "after a request with a fresh token");
    });
}

/// What one request allocates, once everything that is made only once is there.
fn one_request(client: &ClientWithMiddleware) -> AllocationInfo {
    let runtime = current_thread();
    let send = |request| runtime.block_on(async { client.execute(request).await.unwrap() });
    send(chain::request());
    let request = chain::request();
    allocation_counter::measure(|| drop(send(request)))
}

/// How many tasks the runtime of the test has, the test itself not counted.
fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Lets the other tasks go on until `condition` holds, but not for ever.
async fn until(condition: impl Fn() -> bool) -> bool {
    for _ in 0..10_000 {
        if condition() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

/// A token endpoint on a runtime and a thread of its own, so that its tasks are not counted.
struct Issuer {
    address: SocketAddr,
    // Stops serving when it is dropped.
    _runtime: Runtime,
}

impl Issuer {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let answer = r#"{"access_token": "a1", "refresh_token": "r1", "expires_in": 3600}"#;
        let router = Router::new().route("/token", post(move || async move { answer }));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, _runtime: runtime }
    }

    fn endpoint(&self) -> TokenEndpoint {
        let url = format!("http://{}/token", self.address);
        TokenEndpoint::new(&url, ClientAuth::none("client")).unwrap()
    }
}

fn current_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
