//! What the simulation has found, told without a seed.

use std::time::{Duration, SystemTime};

use reqwest_refresh::{RefreshError, RefreshFailure, TokenSet, TokenStore as _};

use crate::fenced::{after_three_tries, set_of};
use crate::support::{Api, Issuer, Rig, SECOND, ScriptedStore, everybody_waits, outcome};

const HOUR: Duration = Duration::from_secs(3600);

/// A session whose token is over, which has seen its store, and refreshes without it if need be.
async fn risky(store: &ScriptedStore) -> Rig {
    store.memory.save(&Rig::tokens(3600)).await.unwrap();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        builder.store(store.clone()).refresh_without_store(true)
    });
    rig.get().await.unwrap();
    rig.clock.advance(HOUR);
    rig
}

/// K-12, K-07: the answer had a new refresh token and no access token; the old access token was over
/// on the monotonic clock alone.
#[tokio::test]
async fn k_12_a_new_refresh_token_alone_makes_the_access_token_no_younger() {
    let rig = Rig::new(Api::friendly());
    rig.get().await.unwrap();
    rig.clock.set_back(HOUR);
    rig.clock.advance(HOUR);
    let unusable = RefreshError::new(RefreshFailure::Unusable, "scripted");
    rig.issuer.then(Err(unusable.with_refresh_token("r1")));
    assert_eq!(rig.outcome().await, "authorization server unavailable");
    assert_eq!(rig.api.tokens(), ["a0"]);
}

/// K-32, K-61: somebody else was faster, and what he has saved cannot be read.
#[tokio::test]
async fn k_32_who_was_outrun_sends_nothing_before_it_has_looked() {
    let store = ScriptedStore::new();
    let rig = risky(&store).await;
    store.fail(&["load"]);
    rig.issuer.hold();
    let waiting = rig.spawn_get();
    everybody_waits().await;
    store.memory.save(&set_of(9)).await.unwrap();
    rig.issuer.release();
    assert_eq!(outcome(waiting.await.unwrap()), "token store");
    rig.clock.advance(60 * SECOND);
    assert_eq!(rig.outcome().await, "token store");
    assert_eq!(rig.issuer.sent(), ["r0"]);
    store.fail(&[]);
    rig.clock.advance(60 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.api.tokens(), ["a0", "a9"]);
}

/// K-60, K-32: a write that seemed to fail had got there.
#[tokio::test]
async fn k_60_what_seemed_unsaved_is_no_news_of_somebody_else() {
    let store = ScriptedStore::new();
    let rig = risky(&store).await;
    store.fail(&["save"]);
    assert_eq!(outcome(after_three_tries(&rig).await), "200");
    let arrived = TokenSet::new("a1").with_refresh_token("r1");
    store.memory.save(&arrived).await.unwrap();
    store.fail(&["load"]);
    rig.clock.advance(HOUR);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["r0", "r1"]);
    assert_eq!(store.access_token().await.as_deref(), Some("a2"));
}

/// K-32, K-61: what was read last counts, also where nothing came of it.
#[tokio::test]
async fn k_32_without_the_store_the_newest_pair_that_was_read_is_sent() {
    let store = ScriptedStore::new();
    let rig = risky(&store).await;
    let over = set_of(9).with_expires_at(SystemTime::UNIX_EPOCH);
    store.memory.save(&over).await.unwrap();
    rig.issuer.then_fails(RefreshFailure::Unusable);
    assert_eq!(rig.outcome().await, "authorization server unavailable");
    store.fail(&["load"]);
    rig.clock.advance(60 * SECOND);
    assert_eq!(rig.outcome().await, "200");
    assert_eq!(rig.issuer.sent(), ["r9", "r9"]);
}

/// K-34, K-28: a first read that comes late, and finds what a flight has tried already, does not end
/// the pause.
#[tokio::test]
async fn k_34_a_late_first_read_does_not_forget_that_the_client_was_refused() {
    let store = ScriptedStore::new();
    let over = set_of(9).with_expires_at(SystemTime::UNIX_EPOCH);
    store.memory.save(&over).await.unwrap();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        builder.store(store.clone()).tokens(Rig::tokens(5))
    });
    store.fail(&["load"]);
    assert_eq!(rig.outcome().await, "200");
    store.fail(&[]);
    rig.clock.advance(5 * SECOND);
    rig.issuer.then_fails(RefreshFailure::Configuration);
    assert_eq!(rig.outcome().await, "configuration");
    rig.clock.advance(6 * SECOND);
    assert_eq!(rig.outcome().await, "configuration");
    assert_eq!(rig.issuer.sent(), ["r9"]);
}

/// K-35, K-21: between two attempts the process was paused for longer than the refresh may take.
#[tokio::test]
async fn k_35_an_attempt_without_time_for_an_answer_is_not_made() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(HOUR);
    rig.issuer.then_fails(RefreshFailure::Busy);
    let waiting = rig.spawn_get();
    everybody_waits().await;
    rig.clock.advance(60 * SECOND);
    assert_eq!(outcome(waiting.await.unwrap()), "authorization server unavailable");
    assert_eq!(rig.issuer.calls(), 1);
}
