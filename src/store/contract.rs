//! The contract of [`TokenStore`], as a test that any store can be run through.

use std::time::{Duration, SystemTime};

use serde_json::{Map, json};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::store::{Lease, TokenStore};
use crate::token::TokenSet;

/// Checks a store against everything that [`TokenStore`] promises and a test can see.
///
/// `open` gives a new handle to the *same*, at first empty place: as another process would open it.
/// A store that cannot lock passes `false` for `locks`.
///
/// Needs Tokio's timer, and takes less than a second with a store that is quick.
///
/// # Panics
///
/// When the store breaks a promise; the message says which.
///
/// ```
/// use reqwest_refresh::{MemoryStore, store::contract};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = MemoryStore::new();
/// contract::check(|| store.clone(), true).await;
/// # }
/// ```
pub async fn check<S: TokenStore>(open: impl Fn() -> S, locks: bool) {
    what_was_saved_comes_back(&open).await;
    the_newest_set_replaces_the_one_before(&open).await;
    clearing_can_be_repeated(&open).await;
    only_what_was_found_is_replaced(&open).await;
    the_store_works_while_it_is_locked(&open).await;
    if locks {
        a_second_lock_waits_for_the_first(&open).await;
        a_wait_that_is_given_up_leaves_no_lock(&open).await;
    }
}

async fn what_was_saved_comes_back<S: TokenStore>(open: &impl Fn() -> S) {
    assert!(load(&open()).await.is_none(), "the place must be empty at first");
    let mut members = Map::new();
    members.insert("org_id".into(), json!("100000"));
    members.insert("nested".into(), json!({"list": [1, 2.5, null, "ä\n\"'"]}));
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let full = TokenSet::new("access ä\"'")
        .with_refresh_token("refresh")
        .with_token_type("bearer")
        .with_scope("a b")
        .with_expires_in(Duration::from_secs(3600))
        .with_expires_at(at(2_000_000_000))
        .with_refresh_expires_at(at(2_000_000_001))
        .with_members(members);
    for (case, tokens) in [
        ("everything", full),
        ("the access token alone", TokenSet::new("alone")),
        ("long tokens", TokenSet::new("x".repeat(10_000)).with_refresh_token("y".repeat(10_000))),
    ] {
        open().save(&tokens).await.unwrap_or_else(|e| panic!("saving {case}: {e}"));
        let loaded = load(&open()).await.unwrap_or_else(|| panic!("{case} was not saved"));
        assert_same(case, &loaded, &tokens);
    }
}

async fn the_newest_set_replaces_the_one_before<S: TokenStore>(open: &impl Fn() -> S) {
    let store = open();
    store.save(&TokenSet::new("1").with_refresh_token("r").with_scope("s")).await.expect("save");
    store.save(&TokenSet::new("2")).await.expect("save");
    let loaded = load(&open()).await.expect("saved");
    assert_same("a smaller set after a larger one", &loaded, &TokenSet::new("2"));
}

async fn clearing_can_be_repeated<S: TokenStore>(open: &impl Fn() -> S) {
    open().clear().await.expect("clearing");
    assert!(load(&open()).await.is_none(), "a cleared store must be empty");
    open().clear().await.expect("clearing an empty store");
}

async fn only_what_was_found_is_replaced<S: TokenStore>(open: &impl Fn() -> S) {
    let set = |name: &str| TokenSet::new(name).with_refresh_token(name);
    let (one, two, three) = (&set("1"), &set("2"), &set("3"));
    let replace = async |before, tokens| open().replace(before, tokens).await.expect("replacing");
    let holds =
        async |tokens: &TokenSet| load(&open()).await.is_some_and(|t| t.same_tokens(tokens));
    assert!(!replace(Some(one), two).await, "nothing is not what was found");
    assert!(load(&open()).await.is_none(), "a refused replacement wrote something");
    assert!(replace(None, one).await, "nothing was found, and nothing is there");
    assert!(!replace(None, two).await, "somebody has written since nothing was found");
    assert!(holds(one).await, "a refused replacement wrote something");
    assert!(replace(Some(one), two).await, "what was found is there");
    assert!(holds(two).await, "what was replaced is still there");
    assert!(replace(Some(one), two).await, "a second try finds its own tokens");
    assert!(!replace(Some(one), three).await, "somebody has replaced what was found");
    let half = set("2").with_refresh_token("other");
    assert!(!replace(Some(&half), three).await, "both tokens are compared");
    assert!(holds(two).await, "a refused replacement wrote something");
    open().clear().await.expect("clearing");
    assert!(!replace(Some(two), three).await, "somebody has logged out");
    assert!(load(&open()).await.is_none(), "a refused replacement wrote something");
}

async fn the_store_works_while_it_is_locked<S: TokenStore>(open: &impl Fn() -> S) {
    let (holder, other) = (open(), open());
    let lease = lock(&holder).await;
    for store in [&holder, &other] {
        store.save(&TokenSet::new("locked")).await.expect("saving while locked");
        assert!(load(store).await.is_some());
        let locked = TokenSet::new("locked");
        let is_replaced = store.replace(Some(&locked), &TokenSet::new("next")).await;
        assert!(is_replaced.expect("replacing while locked"));
        store.clear().await.expect("clearing while locked");
    }
    drop(lease);
}

async fn a_second_lock_waits_for_the_first<S: TokenStore>(open: &impl Fn() -> S) {
    let lease = lock(&open()).await;
    let (told, is_locked) = oneshot::channel();
    let store = open();
    let second = tokio::spawn(async move {
        let lease = lock(&store).await;
        let _ = told.send(());
        lease
    });
    let is_locked = timeout(A_WHILE, is_locked).await;
    assert!(!matches!(is_locked, Ok(Ok(()))), "two leases at once");
    drop(lease);
    drop(second.await.expect("the second lease follows the first"));
}

async fn a_wait_that_is_given_up_leaves_no_lock<S: TokenStore>(open: &impl Fn() -> S) {
    let lease = lock(&open()).await;
    let store = open();
    let waiting = tokio::spawn(async move { store.lock().await.map(drop) });
    sleep(A_WHILE).await;
    waiting.abort();
    let _ = waiting.await;
    drop(lease);
    drop(lock(&open()).await);
}

async fn lock(store: &impl TokenStore) -> Lease {
    let lease = timeout(LONG, store.lock()).await;
    lease.expect("the lock was not given back").expect("locking")
}

/// Long enough for a lock that is free to be taken, in a thread of its own if need be.
const A_WHILE: Duration = Duration::from_millis(200);
/// After which a lock counts as lost.
const LONG: Duration = Duration::from_secs(60);

async fn load(store: &impl TokenStore) -> Option<TokenSet> {
    store.load().await.expect("loading")
}

fn assert_same(case: &str, loaded: &TokenSet, saved: &TokenSet) {
    assert!(loaded.same_tokens(saved), "{case}: the tokens changed");
    assert_eq!(format!("{loaded:?}"), format!("{saved:?}"), "{case}");
    assert_eq!(loaded.members(), saved.members(), "{case}");
}
