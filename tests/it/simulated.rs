//! What the simulation has found, told without a seed.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest_refresh::{
    ErrorKind, Lease, MemoryStore, RefreshError, RefreshFailure, StoreError, TokenSet, TokenStore,
};
use tokio::sync::Semaphore;

use crate::fenced::{after_three_tries, set_of};
use crate::support::{Api, Hook, Issuer, Rig, SECOND, ScriptedStore, everybody_waits, outcome};

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

/// K-32, K-62: a login's save seemed to fail and had arrived, was refreshed in another process, and
/// somebody has logged in there anew. Trying again would bring back a refresh token that is used up.
#[tokio::test]
async fn k_32_a_login_is_not_saved_again_over_its_successor() {
    let store = ScriptedStore::holding(set_of(1)).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| builder.store(store.clone()));
    rig.get().await.unwrap();
    log_in_and_be_overtaken(&rig, &store).await;
    assert_eq!(store.access_token().await.as_deref(), Some("a8"));
    assert_eq!(rig.session.refresh().await.unwrap().refresh_token(), Some("r8"));
    assert_eq!(rig.issuer.calls(), 0);
}

/// K-32, K-60: the same, and what overtook it cannot be read.
#[tokio::test]
async fn k_32_a_login_with_a_successor_is_not_refreshed_without_the_store() {
    let store = ScriptedStore::new();
    let rig = risky(&store).await;
    log_in_and_be_overtaken(&rig, &store).await;
    store.fail(&["load"]);
    let error = rig.session.refresh().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Store), "{error}");
    assert_eq!(rig.issuer.calls(), 0);
}

async fn log_in_and_be_overtaken(rig: &Rig, store: &ScriptedStore) {
    store.fail(&["save"]);
    let session = rig.session.clone();
    let login = tokio::spawn(async move { session.set_tokens(set_of(5)).await });
    everybody_waits().await;
    let [another, _] = login_and_successor().await;
    store.memory.save(&another).await.unwrap();
    store.fail(&[]);
    rig.clock.advance(SECOND);
    login.await.unwrap().unwrap();
}

/// Somebody else saves another set right before each of the first writes.
struct Raced {
    memory: MemoryStore,
    times: Mutex<u32>,
}

#[async_trait]
impl TokenStore for Raced {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        self.memory.load().await
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        self.memory.save(tokens).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.memory.clear().await
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        Ok(Lease::none())
    }

    async fn replace(
        &self,
        before: Option<&TokenSet>,
        tokens: &TokenSet,
    ) -> Result<bool, StoreError> {
        let left = *self.times.lock();
        if left > 0 {
            *self.times.lock() -= 1;
            self.memory.save(&set_of(100 + left)).await?;
        }
        self.memory.replace(before, tokens).await
    }
}

/// K-25: a login counts more than a set that somebody else saves at the same time.
#[tokio::test]
async fn k_25_a_login_is_written_over_what_comes_between() {
    for times in [0, 1, 2, 1000] {
        let memory = MemoryStore::new();
        let store = Raced { memory: memory.clone(), times: Mutex::new(times) };
        let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| builder.store(store));
        rig.session.set_tokens(set_of(5)).await.unwrap();
        let stored = memory.load().await.unwrap().unwrap();
        assert_eq!(stored.access_token(), "a5", "{times}");
    }
}

/// A store whose lock hangs for whoever asks first, and whose answers can be kept back.
#[derive(Clone)]
struct Hanging {
    store: ScriptedStore,
    locks: Arc<AtomicUsize>,
    answers: Arc<Semaphore>,
}

impl Hanging {
    fn over(store: &ScriptedStore) -> Self {
        let answers = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { store: store.clone(), locks: Arc::default(), answers }
    }
}

#[async_trait]
impl TokenStore for Hanging {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        let found = self.store.load().await;
        drop(self.answers.acquire().await?);
        found
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        self.store.save(tokens).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.store.clear().await
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        match self.locks.fetch_add(1, Ordering::Relaxed) {
            0 => pending().await,
            _ => Ok(Lease::none()),
        }
    }
}

/// K-25: the flight had read what was cleared before anybody knew that it was read.
#[tokio::test]
async fn k_25_what_was_read_before_it_was_cleared_does_not_come_back() {
    let scripted = ScriptedStore::holding(set_of(0)).await;
    let store = Hanging::over(&scripted);
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| builder.store(store.clone()));
    rig.get().await.unwrap();
    let session = rig.session.clone();
    let clear = tokio::spawn(async move { session.clear().await });
    everybody_waits().await;
    rig.clock.advance(35 * SECOND);
    store.answers.forget_permits(Semaphore::MAX_PERMITS);
    let request = rig.spawn_get();
    everybody_waits().await;
    rig.clock.advance(5 * SECOND);
    everybody_waits().await;
    store.answers.add_permits(1);
    assert_eq!(outcome(request.await.unwrap()), "login required");
    clear.await.unwrap().unwrap();
    assert_eq!(scripted.access_token().await, None);
}

/// K-21, K-60: what came after the tokens that were set is not saved either.
#[tokio::test]
async fn k_21_set_tokens_is_not_done_before_what_follows_them_is_saved() {
    let scripted = ScriptedStore::new();
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        builder.store(Hanging::over(&scripted))
    });
    let session = rig.session.clone();
    let set = tokio::spawn(async move { session.set_tokens(set_of(5)).await });
    everybody_waits().await;
    scripted.fail(&["save"]);
    let session = rig.session.clone();
    let refreshed = tokio::spawn(async move { session.refresh().await });
    for _ in 0..3 {
        everybody_waits().await;
        rig.clock.advance(SECOND);
    }
    assert_eq!(refreshed.await.unwrap().unwrap().access_token(), "a1");
    scripted.fail(&[]);
    rig.clock.advance(40 * SECOND);
    set.await.unwrap().unwrap();
    assert_eq!(scripted.access_token().await.as_deref(), Some("a1"));
}

/// A login in another process, and what it was refreshed to there.
pub async fn login_and_successor() -> [TokenSet; 2] {
    let elsewhere = Rig::new(Api::friendly());
    elsewhere.session.set_tokens(set_of(8)).await.unwrap();
    let login = elsewhere.session.current_tokens().unwrap();
    [login, elsewhere.session.refresh().await.unwrap()]
}

/// A session that has logged in, by its hook or by `set_tokens`, and could not save that, as it
/// seemed, over what the store held.
async fn seemingly_unsaved(store: &ScriptedStore, by_hook: bool) -> Rig {
    let hook = Hook::returning(set_of(5));
    let rig =
        Rig::with(Api::friendly(), Issuer::new(), |builder| hook.on(builder.store(store.clone())));
    rig.get().await.unwrap();
    if by_hook {
        rig.clock.advance(10 * HOUR);
        rig.issuer.then_fails(RefreshFailure::Terminal);
        store.fail(&["save"]);
        assert_eq!(outcome(after_three_tries(&rig).await), "200");
    } else {
        log_in_in_vain(&rig, store, set_of(5)).await;
    }
    store.fail(&[]);
    rig
}

/// A login that cannot be saved.
pub async fn log_in_in_vain(rig: &Rig, store: &ScriptedStore, tokens: TokenSet) {
    store.fail(&["save"]);
    let session = rig.session.clone();
    let login = tokio::spawn(async move { session.set_tokens(tokens).await });
    for _ in 0..3 {
        everybody_waits().await;
        rig.clock.advance(SECOND);
    }
    login.await.unwrap().unwrap_err();
    store.fail(&[]);
}

/// K-32, K-61: it had arrived, and was refreshed elsewhere; or somebody else has logged in there
/// since.
#[tokio::test]
async fn k_32_what_has_followed_a_login_elsewhere_is_newer() {
    for (by_hook, settles, by_refresh) in [
        (true, false, true),
        (true, true, true),
        (false, false, true),
        (false, true, true),
        (true, true, false),
        (false, false, false),
    ] {
        let case = format!("{by_hook} {settles} {by_refresh}");
        let [login, _] = login_and_successor().await;
        let store = ScriptedStore::holding(login).await;
        let rig = seemingly_unsaved(&store, by_hook).await;
        let elsewhere = Rig::with(Api::friendly(), Issuer::new(), |builder| {
            builder.store(store.clone()).clock(rig.clock.clone())
        });
        store.memory.save(&rig.session.current_tokens().unwrap()).await.unwrap();
        elsewhere.get().await.unwrap();
        if by_refresh {
            elsewhere.session.refresh().await.unwrap();
        } else {
            elsewhere.session.set_tokens(set_of(6)).await.unwrap();
        }
        let newest = elsewhere.session.current_tokens().unwrap();
        assert_ne!(newest.access_token(), "a5", "{case}");
        if settles {
            rig.session.settle().await.unwrap();
        }
        let calls = rig.issuer.calls();
        let own = rig.session.refresh().await.unwrap();
        assert!(own.same_tokens(&newest), "{case}");
        assert_eq!(rig.issuer.calls(), calls, "{case}");
        assert!(store.memory.load().await.unwrap().unwrap().same_tokens(&newest), "{case}");
    }
}

/// K-25: an older login, refreshed elsewhere, is not newer.
#[tokio::test]
async fn k_25_a_login_that_could_not_be_saved_wins_over_an_older_one() {
    for by_hook in [true, false] {
        let [login, successor] = login_and_successor().await;
        let store = ScriptedStore::holding(login).await;
        let rig = seemingly_unsaved(&store, by_hook).await;
        store.memory.save(&successor).await.unwrap();
        rig.clock.advance(10 * HOUR);
        assert_eq!(rig.outcome().await, "200", "{by_hook}");
        assert_eq!(rig.issuer.sent().pop().as_deref(), Some("r5"), "{by_hook}");
        assert_eq!(store.access_token().await, rig.api.tokens().pop(), "{by_hook}");
    }
}

/// K-25: also between two tries to save it.
#[tokio::test]
async fn k_25_a_login_that_is_saved_again_wins_over_an_older_one() {
    let [login, successor] = login_and_successor().await;
    let store = ScriptedStore::holding(login).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| builder.store(store.clone()));
    store.fail(&["save"]);
    let session = rig.session.clone();
    let login = tokio::spawn(async move { session.set_tokens(set_of(5)).await });
    everybody_waits().await;
    store.memory.save(&successor).await.unwrap();
    store.fail(&[]);
    rig.clock.advance(SECOND);
    login.await.unwrap().unwrap();
    assert_eq!(store.access_token().await.as_deref(), Some("a5"));
}

/// K-60: what is in the store cannot be read, and nobody has written there yet.
#[tokio::test]
async fn k_60_a_login_is_saved_over_what_nobody_can_read() {
    let store = ScriptedStore::holding(set_of(1)).await;
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| builder.store(store.clone()));
    store.fail(&["load"]);
    rig.session.set_tokens(set_of(5)).await.unwrap();
    assert_eq!(store.access_token().await.as_deref(), Some("a5"));
}

/// K-32: it cannot be read, and may be what has followed the login.
#[tokio::test]
async fn k_32_a_login_is_not_saved_again_over_what_nobody_can_read() {
    let ([login, _], another) = (login_and_successor().await, login_and_successor().await);
    let store = ScriptedStore::holding(login).await;
    let rig = seemingly_unsaved(&store, false).await;
    let [_, another] = another;
    store.memory.save(&another).await.unwrap();
    store.fail(&["load"]);
    let session = rig.session.clone();
    let settled = tokio::spawn(async move { session.settle().await });
    for pause in [100, 200] {
        everybody_waits().await;
        rig.clock.advance(Duration::from_millis(pause));
    }
    everybody_waits().await;
    assert!(settled.is_finished(), "nobody waits after the last try");
    settled.await.unwrap().unwrap_err();
    assert_eq!(store.access_token().await.as_deref(), Some("a1"));
    store.fail(&[]);
    rig.session.settle().await.unwrap();
    assert_eq!(store.access_token().await.as_deref(), Some("a1"));
}
