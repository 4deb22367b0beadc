//! Many accounts behind one client: whose token a request gets, how sessions are opened, and how they
//! are let go.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest::{Response, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Result};
use reqwest_refresh::{
    Account, Accounts, AccountsBuilder, Authenticate, Error, Lease, ManualClock, Refresh,
    RefreshError, RefreshFailure, ServerError, Session, SessionBuilder, StoreError, TokenSet,
    TokenStore,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::support::{Api, Hook, SECOND, ScriptedStore, everybody_waits, outcome, told};

type Name = &'static str;

/// Accounts with a store each, over one server and one API.
struct Bank {
    clock: ManualClock,
    vault: Vault,
    api: Api,
    accounts: Accounts<Name>,
    client: ClientWithMiddleware,
}

/// Where the tokens of the accounts are, and what is done to open them.
#[derive(Clone)]
struct Vault {
    stores: Arc<Mutex<HashMap<Name, ScriptedStore>>>,
    opened: Arc<Mutex<Vec<Name>>>,
    gate: Arc<Semaphore>,
    hook: Hook,
}

impl Vault {
    fn new() -> Self {
        Self {
            stores: Arc::default(),
            opened: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            hook: Hook::declining(),
        }
    }

    /// The store of an account, which began with `<name>-a0` and `<name>-r0`.
    async fn store(&self, name: Name) -> ScriptedStore {
        if let Some(store) = self.stores.lock().get(name) {
            return store.clone();
        }
        let tokens = TokenSet::new(format!("{name}-a0"))
            .with_refresh_token(format!("{name}-r0"))
            .with_expires_in(3600 * SECOND);
        let store = ScriptedStore::holding(tokens).await;
        self.stores.lock().insert(name, store.clone());
        store
    }

    async fn open(
        self,
        name: Name,
        session: SessionBuilder,
    ) -> std::result::Result<SessionBuilder, StoreError> {
        self.opened.lock().push(name);
        drop(self.gate.acquire().await?);
        match name {
            "nobody" => Err("there is no such customer".into()),
            "panic" => panic!("scripted panic"),
            "nothing" => Ok(session),
            "no store" => Ok(session.tokens(TokenSet::new("a0").with_refresh_token("r0"))),
            _ => Ok(self.hook.on(session.store(self.store(name).await))),
        }
    }
}

impl Bank {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(settings: impl FnOnce(AccountsBuilder<Name>) -> AccountsBuilder<Name>) -> Self {
        let (clock, vault) = (ManualClock::new(), Vault::new());
        let sessions = Session::builder(Server::default())
            .allow_origin("https://api.test")
            .clock(clock.clone())
            .jitter(0.0);
        let open = vault.clone();
        let builder = Accounts::builder(sessions, move |name, it| open.clone().open(name, it));
        let accounts = settings(builder).build().unwrap();
        let api = Api::friendly();
        let client = ClientBuilder::new(reqwest::Client::new())
            .with(accounts.clone())
            .with(api.clone())
            .build();
        Self { clock, vault, api, accounts, client }
    }

    async fn get(&self, name: Name) -> Result<Response> {
        self.client.get("https://api.test/orders").with_extension(Account(name)).send().await
    }

    async fn outcome(&self, name: Name) -> String {
        outcome(self.get(name).await)
    }

    fn spawn_get(&self, name: Name) -> JoinHandle<Result<Response>> {
        let request = self.client.get("https://api.test/orders").with_extension(Account(name));
        tokio::spawn(request.send())
    }
}

/// Answers `<name>-a<n>` and `<name>-r<n>` for `<name>-r<n-1>`, if that is the newest. Whose name begins with
/// `dead`, `down` or `slow` gets what that says.
#[derive(Clone, Default)]
struct Server {
    rotations: Arc<Mutex<HashMap<String, usize>>>,
}

#[async_trait]
impl Refresh for Server {
    async fn refresh(&self, tokens: &TokenSet) -> std::result::Result<TokenSet, RefreshError> {
        let refresh_token = tokens.refresh_token().unwrap().to_owned();
        let (name, number) = refresh_token.rsplit_once("-r").unwrap();
        let refused = |failure| {
            let server = ServerError::new(400, Some("scripted".into()));
            Err(RefreshError::new(failure, "scripted").with_server_error(server))
        };
        match name {
            "dead" => return refused(RefreshFailure::Terminal),
            "down" => return refused(RefreshFailure::Unusable),
            "slow" => std::future::pending().await,
            _ => {}
        }
        let mut rotations = self.rotations.lock();
        let newest = rotations.entry(name.to_owned()).or_default();
        assert_eq!(number, newest.to_string(), "a refresh token of {name} was used twice");
        *newest += 1;
        Ok(TokenSet::new(format!("{name}-a{newest}"))
            .with_refresh_token(format!("{name}-r{newest}"))
            .with_expires_in(3600 * SECOND))
    }

    fn endpoints(&self) -> Vec<Url> {
        vec![Url::parse("https://api.test/oauth/token").unwrap()]
    }
}

// ---- whose token ----

/// K-06, C09.
#[tokio::test]
async fn k_06_a_request_gets_the_token_of_the_account_that_it_names() {
    let bank = Bank::new();
    for name in ["ann", "bob", "ann"] {
        assert_eq!(bank.outcome(name).await, "200");
    }
    let ann = bank.accounts.session(&"ann").await.unwrap();
    assert_eq!(ann.refresh().await.unwrap().access_token(), "ann-a1");
    bank.get("ann").await.unwrap();
    bank.get("bob").await.unwrap();
    assert_eq!(bank.api.tokens(), ["ann-a0", "bob-a0", "ann-a0", "ann-a1", "bob-a0"]);
    assert_eq!(*bank.vault.opened.lock(), ["ann", "bob"], "opened once each");
    assert_eq!(bank.accounts.len(), 2);
}

/// K-06, K-02, K-03: no account is no token, and where one would be needed an error that says so.
#[tokio::test]
async fn k_06_a_request_that_names_no_account_gets_nobodys_token() {
    let bank = Bank::new();
    bank.get("ann").await.unwrap();
    let get = |url| bank.client.get(url);
    let error = get("https://api.test/").send().await.unwrap_err();
    let error = Error::find(&error).unwrap();
    assert!(error.to_string().contains("names no account"), "{error}");
    // A key of another type is another thing.
    let other = get("https://api.test/").with_extension(Account("ann".to_owned()));
    assert_eq!(outcome(other.send().await), "configuration");
    assert_eq!(outcome(get("http://api.test/").send().await), "200", "another origin");

    get("https://elsewhere.test/").send().await.unwrap();
    get("https://api.test/").with_extension(Authenticate::Never).send().await.unwrap();
    get("https://api.test/").bearer_auth("mine").send().await.unwrap();
    assert_eq!(bank.api.tokens(), ["ann-a0", "-", "-", "-", "mine"]);
}

// ---- opening ----

/// K-20, K-21: whoever comes first may go away.
#[tokio::test]
async fn k_20_a_session_is_opened_once_for_all_who_wait_for_it() {
    let bank = Bank::new();
    bank.vault.gate.forget_permits(Semaphore::MAX_PERMITS);
    let first = bank.spawn_get("ann");
    everybody_waits().await;
    let others: Vec<_> = (0..10).map(|_| bank.spawn_get("ann")).collect();
    let bob = bank.spawn_get("bob");
    everybody_waits().await;
    first.abort();
    everybody_waits().await;
    assert_eq!(bank.api.arrived(), 0);
    bank.vault.gate.add_permits(100);
    for other in others {
        other.await.unwrap().unwrap();
    }
    bob.await.unwrap().unwrap();
    assert_eq!(*bank.vault.opened.lock(), ["ann", "bob"]);
}

/// K-24: an error or a panic is for those who waited; the next request tries again.
#[tokio::test]
async fn k_24_a_session_that_cannot_be_opened_is_tried_again_by_the_next_request() {
    for (name, kind, words) in [
        ("nobody", "token store", "there is no such customer"),
        ("panic", "refresh interrupted", "panicked"),
    ] {
        let bank = Bank::new();
        bank.vault.gate.forget_permits(Semaphore::MAX_PERMITS);
        let requests: Vec<_> = (0..5).map(|_| bank.spawn_get(name)).collect();
        everybody_waits().await;
        bank.vault.gate.add_permits(100);
        for request in requests {
            let error = request.await.unwrap().unwrap_err();
            let error = anyhow::Error::new(Error::find(&error).unwrap().clone());
            assert!(format!("{error:#}").contains(words), "{error:#}");
            assert_eq!(error.downcast_ref::<Error>().unwrap().kind().to_string(), kind);
        }
        assert_eq!(*bank.vault.opened.lock(), [name]);
        assert_eq!(bank.outcome(name).await, kind);
        assert_eq!(bank.vault.opened.lock().len(), 2);
        assert!(bank.accounts.is_empty());
    }
}

/// K-46, K-24.
#[tokio::test]
async fn k_46_opening_is_bounded_by_the_requests_time_and_by_the_stores() {
    let bank = Bank::new();
    bank.vault.gate.forget_permits(Semaphore::MAX_PERMITS);
    let hasty = bank.client.get("https://api.test/").with_extension(Account("ann"));
    let hasty = tokio::spawn(hasty.timeout(3 * SECOND).send());
    let patient = bank.spawn_get("ann");
    everybody_waits().await;
    bank.clock.advance(3 * SECOND);
    assert_eq!(outcome(hasty.await.unwrap()), "timed out");
    bank.clock.advance(7 * SECOND);
    assert_eq!(outcome(patient.await.unwrap()), "token store");
    assert_eq!(bank.api.arrived(), 0);
}

// ---- one does not delay another ----

/// K-20, K-54: dead, down, slow: each for itself.
#[tokio::test]
async fn k_20_what_happens_to_one_account_does_not_touch_another() {
    for (name, while_it_lasts) in [
        ("dead", Some("login required")),
        ("down", Some("authorization server unavailable")),
        ("slow", None),
    ] {
        let bank = Bank::new();
        for name in [name, "ann"] {
            bank.get(name).await.unwrap();
        }
        bank.clock.advance(3600 * SECOND);
        let unlucky = bank.spawn_get(name);
        everybody_waits().await;
        assert_eq!(bank.outcome("ann").await, "200", "beside one that is {name}");
        match while_it_lasts {
            Some(kind) => assert_eq!(outcome(unlucky.await.unwrap()), kind),
            None => assert!(!unlucky.is_finished()),
        }
        assert_eq!(bank.vault.hook.calls(), usize::from(name == "dead"));
    }
}

/// K-23: a login that takes its time holds nobody up but its own account.
#[tokio::test]
async fn k_23_a_slow_login_of_one_account_does_not_delay_another() {
    let server = Server::default();
    let sessions =
        Session::builder(server).allow_origin("https://api.test").clock(ManualClock::new());
    let accounts = Accounts::builder(sessions, |name: Name, session| async move {
        let tokens = TokenSet::new("ann-a0").with_refresh_token("ann-r0");
        Ok(match name {
            "ann" => session.tokens(tokens),
            _ => session.on_login_required(|_| std::future::pending()),
        })
    });
    let accounts = accounts.build().unwrap();
    let api = Api::friendly();
    let client =
        ClientBuilder::new(reqwest::Client::new()).with(accounts).with(api.clone()).build();
    let get = |name: Name| client.get("https://api.test/").with_extension(Account(name)).send();
    let waiting = tokio::spawn(get("slow login"));
    everybody_waits().await;
    assert_eq!(outcome(get("ann").await), "200");
    assert!(!waiting.is_finished());
}

// ---- letting go ----

#[tokio::test]
async fn an_idle_session_is_let_go_and_opened_again_with_its_newest_tokens() {
    let bank = Bank::with(|accounts| accounts.idle_time(600 * SECOND));
    bank.get("ann").await.unwrap();
    bank.accounts.session(&"ann").await.unwrap().refresh().await.unwrap();
    bank.clock.advance(599 * SECOND);
    assert_eq!(bank.accounts.evict_idle(), 0, "used a moment before");
    bank.get("ann").await.unwrap();
    bank.clock.advance(599 * SECOND);
    assert_eq!(bank.accounts.evict_idle(), 0);
    bank.clock.advance(SECOND);
    assert_eq!(bank.accounts.evict_idle(), 1);
    assert!(bank.accounts.is_empty());
    bank.get("ann").await.unwrap();
    assert!(!bank.accounts.is_empty());
    assert_eq!(bank.api.tokens(), ["ann-a0", "ann-a1", "ann-a1"]);
    assert_eq!(bank.vault.opened.lock().len(), 2);
}

#[tokio::test]
async fn opening_a_session_lets_go_of_idle_ones() {
    let bank = Bank::with(|accounts| accounts.idle_time(600 * SECOND).capacity(10));
    for name in ["ann", "bob", "cid"] {
        bank.get(name).await.unwrap();
    }
    bank.clock.advance(600 * SECOND);
    bank.get("dan").await.unwrap();
    assert_eq!(bank.accounts.len(), 2, "two for one");
    bank.get("eve").await.unwrap();
    assert_eq!(bank.accounts.len(), 2, "nobody else was idle");
}

#[tokio::test]
async fn beyond_the_capacity_the_longest_unused_goes() {
    let bank = Bank::with(|accounts| accounts.capacity(3));
    for name in ["ann", "bob", "cid", "ann"] {
        bank.clock.advance(SECOND);
        bank.get(name).await.unwrap();
    }
    for name in ["dan", "ann", "cid", "bob"] {
        bank.clock.advance(SECOND);
        bank.get(name).await.unwrap();
        assert_eq!(bank.accounts.len(), 3);
    }
    assert_eq!(
        *bank.vault.opened.lock(),
        ["ann", "bob", "cid", "dan", "bob"],
        "bob had to go, then dan"
    );
}

/// K-60, K-21: nothing is let go that would be lost.
#[tokio::test]
async fn k_60_a_session_in_use_or_with_tokens_that_are_nowhere_else_is_not_let_go() {
    let bank = Bank::with(|accounts| accounts.idle_time(Duration::ZERO).capacity(0));
    let evicted_after = async |step: &str, expected| {
        everybody_waits().await;
        assert_eq!(bank.accounts.evict_idle(), expected, "{step}");
    };
    bank.get("no store").await.unwrap();
    evicted_after("its tokens are nowhere else", 0).await;
    bank.get("nothing").await.unwrap_err();
    evicted_after("it has no tokens", 1).await;

    let handle = bank.accounts.session(&"ann").await.unwrap();
    evicted_after("somebody has a handle", 0).await;
    let store = bank.vault.store("ann").await;
    store.fail(&["save"]);
    let refresh = tokio::spawn({
        let handle = handle.clone();
        async move { handle.refresh().await }
    });
    while !refresh.is_finished() {
        everybody_waits().await;
        bank.clock.advance(SECOND);
    }
    drop(handle);
    evicted_after("its tokens are not saved", 0).await;
    store.fail(&[]);
    bank.accounts.session(&"ann").await.unwrap().settle().await.unwrap();
    evicted_after("saved", 1).await;

    bank.api.hold();
    let request = bank.spawn_get("ann");
    evicted_after("a request is on its way", 0).await;
    bank.api.release();
    request.await.unwrap().unwrap();
    evicted_after("answered", 1).await;
    assert_eq!(bank.api.tokens().last().unwrap(), "ann-a1");

    bank.get("slow").await.unwrap();
    bank.clock.advance(3600 * SECOND);
    bank.spawn_get("slow").abort();
    let waiting = bank.spawn_get("slow");
    everybody_waits().await;
    waiting.abort();
    evicted_after("it refreshes, and nobody waits", 0).await;
    assert_eq!(bank.accounts.len(), 2);
}

/// K-21, K-60: a program that ends waits for all of its accounts, and none of them for another.
#[tokio::test]
async fn k_21_settling_ends_when_the_tokens_of_all_accounts_are_saved() {
    // More than once, since they are in no order.
    for (slow, other) in [("ann", "bob"), ("bob", "ann")].repeat(5) {
        let bank = Bank::new();
        for name in [slow, other] {
            let store = bank.vault.store(name).await;
            store.fail(&["save"]);
            let session = bank.accounts.session(&name).await.unwrap();
            let refresh = tokio::spawn(async move { session.refresh().await });
            while !refresh.is_finished() {
                everybody_waits().await;
                bank.clock.advance(SECOND);
            }
            store.fail(&[]);
        }
        let slow = bank.vault.store(slow).await;
        slow.hold();
        let accounts = bank.accounts.clone();
        let settling = tokio::spawn(async move { accounts.settle().await });
        everybody_waits().await;
        let saved = bank.vault.store(other).await.access_token().await;
        assert_eq!(saved, Some(format!("{other}-a1")), "it does not wait for the other");
        assert!(!settling.is_finished());
        slow.release();
        settling.await.unwrap().unwrap();
        assert!(slow.access_token().await.unwrap().ends_with("-a1"));
    }
}

/// K-60: what cannot be saved is said.
#[tokio::test]
async fn k_60_settling_tells_that_the_tokens_of_an_account_could_not_be_saved() {
    let bank = Bank::new();
    bank.get("ann").await.unwrap();
    let store = bank.vault.store("bob").await;
    store.fail(&["save"]);
    let session = bank.accounts.session(&"bob").await.unwrap();
    let accounts = bank.accounts.clone();
    let settling = tokio::spawn(async move {
        session.refresh().await.unwrap();
        accounts.settle().await
    });
    while !settling.is_finished() {
        everybody_waits().await;
        bank.clock.advance(SECOND);
    }
    assert_eq!(settling.await.unwrap().unwrap_err().kind().to_string(), "token store");
    bank.accounts.session(&"ann").await.unwrap().settle().await.unwrap();
}

/// K-63.
#[tokio::test]
async fn k_63_debug_tells_how_many_and_nothing_else() {
    let bank = Bank::new();
    bank.get("ann").await.unwrap();
    assert_eq!(format!("{:?}", bank.accounts), "Accounts { len: 1, .. }");
    let builder =
        Accounts::builder(Session::builder(Server::default()), |_: Name, session| async {
            Ok(session)
        });
    let builder = format!("{:?}", builder.capacity(3).idle_time(SECOND));
    assert_eq!(builder, "AccountsBuilder { capacity: 3, idle_time: 1s, .. }");
}

/// K-40: the replay is the account's, too.
#[tokio::test]
async fn k_40_a_rejected_token_is_refreshed_and_the_request_sent_again_for_its_account() {
    let bank = Bank::new();
    let api = Api::rejecting(&["ann-a0"]);
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(bank.accounts.clone())
        .with(api.clone())
        .build();
    let request = client.get("https://api.test/").with_extension(Account("ann"));
    assert_eq!(outcome(request.send().await), "200");
    assert_eq!(api.tokens(), ["ann-a0", "ann-a1"]);
    assert_eq!(bank.vault.store("ann").await.access_token().await.as_deref(), Some("ann-a1"));
}

/// K-02, K-06, K-08: who needs no token of an account does not wait for its session, nor fail with it.
#[tokio::test]
async fn k_06_a_request_that_needs_no_token_opens_no_session() {
    let bank = Bank::new();
    bank.vault.gate.forget_permits(Semaphore::MAX_PERMITS);
    let get = |url| bank.client.get(url).with_extension(Account("ann"));
    for (case, request) in [
        ("never", get("https://api.test/").with_extension(Authenticate::Never)),
        ("a header of its own", get("https://api.test/").bearer_auth("mine")),
        ("to the token endpoint", get("https://api.test/oauth/token")),
    ] {
        let request = tokio::spawn(request.send());
        everybody_waits().await;
        assert!(request.is_finished(), "{case}");
        assert_eq!(outcome(request.await.unwrap()), "200", "{case}");
    }
    assert_eq!(bank.api.tokens(), ["-", "mine", "-"]);
    assert!(bank.vault.opened.lock().is_empty());
}

/// K-23: it fails at once instead of waiting for itself.
#[tokio::test]
async fn k_23_opening_a_session_that_needs_that_session_fails_at_once() {
    static ACCOUNTS: OnceLock<Accounts<Name>> = OnceLock::new();
    let sessions = Session::builder(Server::default())
        .allow_origin("https://api.test")
        .clock(ManualClock::new());
    let accounts = Accounts::builder(sessions, |name: Name, session| async move {
        let other = match name {
            "ann" => ACCOUNTS.get().unwrap().session(&"bob").await?,
            "bob" => return Ok(session),
            _ => ACCOUNTS.get().unwrap().session(&name).await?,
        };
        assert!(other.current_tokens().is_none());
        Ok(session)
    });
    let accounts = ACCOUNTS.get_or_init(|| accounts.build().unwrap());
    accounts.session(&"ann").await.unwrap();
    let error = tokio::spawn(accounts.session(&"cid"));
    everybody_waits().await;
    assert!(error.is_finished(), "nobody waits for a deadline");
    let error = anyhow::Error::new(error.await.unwrap().unwrap_err());
    assert!(format!("{error:#}").contains("waits for itself"), "{error:#}");
}

/// K-34, K-35: a server that wants to be left alone is not asked again because a session was let go.
#[tokio::test]
async fn k_35_a_session_that_cools_down_is_not_let_go() {
    let bank = Bank::with(|accounts| accounts.idle_time(Duration::ZERO).capacity(0));
    bank.get("down").await.unwrap();
    bank.clock.advance(3600 * SECOND);
    let error = bank.get("down").await.unwrap_err();
    let pause = Error::find(&error).unwrap().retry_after().unwrap();
    everybody_waits().await;
    assert_eq!(bank.accounts.evict_idle(), 0);
    bank.clock.advance(pause);
    assert_eq!(bank.accounts.evict_idle(), 1);
}

/// K-50: a dead session has to make room only when it was idle for long.
#[tokio::test]
async fn k_50_the_login_hook_is_not_called_again_because_others_need_room() {
    let bank = Bank::with(|accounts| accounts.idle_time(600 * SECOND).capacity(1));
    bank.get("dead").await.unwrap();
    bank.clock.advance(3600 * SECOND);
    for other in ["ann", "bob", "cid"] {
        assert_eq!(bank.outcome("dead").await, "login required");
        assert_eq!(bank.outcome(other).await, "200");
        assert_eq!(bank.vault.hook.calls(), 1);
    }
    bank.clock.advance(600 * SECOND);
    bank.accounts.evict_idle();
    assert!(bank.accounts.is_empty());
}

/// K-25: a logout that no store knows is not undone.
#[tokio::test]
async fn k_25_who_has_logged_out_without_a_store_stays_logged_out() {
    let bank = Bank::with(|accounts| accounts.idle_time(Duration::ZERO).capacity(0));
    bank.get("no store").await.unwrap();
    bank.accounts.session(&"no store").await.unwrap().log_out().await.unwrap();
    everybody_waits().await;
    assert_eq!(bank.accounts.evict_idle(), 0);
    assert_eq!(bank.outcome("no store").await, "login required");
}

/// K-60: where a refresh token is not needed it may still have been rotated.
#[tokio::test]
async fn k_60_a_refresh_token_that_is_nowhere_else_is_not_let_go_though_none_is_needed() {
    struct Either(Server);

    #[async_trait]
    impl Refresh for Either {
        async fn refresh(&self, tokens: &TokenSet) -> std::result::Result<TokenSet, RefreshError> {
            match tokens.refresh_token() {
                Some(_) => self.0.refresh(tokens).await,
                None => Ok(TokenSet::new("a")),
            }
        }

        fn needs_refresh_token(&self) -> bool {
            false
        }
    }

    let sessions = Session::builder(Either(Server::default())).allow_origin("https://api.test");
    let accounts = Accounts::builder(sessions, |name: Name, session| async move {
        let tokens = TokenSet::new("ann-a0").with_refresh_token("ann-r0");
        Ok(if name == "ann" { session.tokens(tokens) } else { session })
    });
    let accounts = accounts.idle_time(Duration::ZERO).build().unwrap();
    for (name, expected) in [("ann", "ann-a1"), ("nobody", "a")] {
        let tokens = accounts.session(&name).await.unwrap().refresh().await.unwrap();
        assert_eq!(tokens.access_token(), expected);
    }
    everybody_waits().await;
    assert_eq!(accounts.evict_idle(), 1, "what can be had again, and nothing else");
    accounts.session(&"ann").await.unwrap().refresh().await.unwrap();
}

/// K-71: who watches an account uses its session.
#[tokio::test]
async fn k_71_a_session_that_somebody_watches_is_not_let_go() {
    let bank = Bank::with(|accounts| accounts.idle_time(Duration::ZERO));
    let mut events = bank.accounts.session(&"ann").await.unwrap().events();
    assert_eq!(bank.accounts.evict_idle(), 0);
    bank.accounts.session(&"ann").await.unwrap().refresh().await.unwrap();
    everybody_waits().await;
    assert_eq!(told(&mut events).await, ["saved", "refreshed 2"]);
    drop(events);
    assert_eq!(bank.accounts.evict_idle(), 1);
}

#[tokio::test]
async fn who_was_too_many_while_all_were_in_use_is_let_go_later() {
    let bank = Bank::with(|accounts| accounts.capacity(2));
    let names: [[Name; 6]; 2] = [["a", "b", "c", "d", "e", "f"], ["g", "h", "i", "j", "k", "l"]];
    let mut in_use = Vec::new();
    for name in names[0] {
        in_use.push(bank.accounts.session(&name).await.unwrap());
    }
    assert_eq!(bank.accounts.len(), 6);
    drop(in_use);
    for name in names[1] {
        bank.get(name).await.unwrap();
    }
    assert_eq!(bank.accounts.len(), 2);
}

/// K-24: what is let go may panic; neither is that a matter of who comes, nor does anybody lose count.
#[tokio::test]
async fn k_24_a_store_that_panics_when_it_is_dropped_harms_nobody_else() {
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("scripted panic");
        }
    }

    #[async_trait]
    impl TokenStore for Bomb {
        async fn load(&self) -> std::result::Result<Option<TokenSet>, StoreError> {
            Ok(None)
        }
        async fn save(&self, _: &TokenSet) -> std::result::Result<(), StoreError> {
            Ok(())
        }
        async fn clear(&self) -> std::result::Result<(), StoreError> {
            Ok(())
        }
        async fn lock(&self) -> std::result::Result<Lease, StoreError> {
            Ok(Lease::none())
        }
    }

    let sessions = Session::builder(Server::default()).allow_origin("https://api.test");
    let accounts =
        Accounts::builder(sessions, |_: Name, session| async move { Ok(session.store(Bomb)) });
    let accounts = accounts.capacity(1).idle_time(Duration::ZERO).build().unwrap();
    for name in ["ann", "bob", "cid"] {
        accounts.session(&name).await.unwrap();
        everybody_waits().await;
        assert_eq!(accounts.len(), 1, "{name}");
    }
    let evicting = accounts.clone();
    std::panic::catch_unwind(AssertUnwindSafe(|| evicting.evict_idle())).unwrap_err();
    assert_eq!(accounts.len(), 0);
}

/// K-23, K-24: a key's own code runs beside the lock, as far as a map allows.
#[test]
fn k_24_a_key_that_panics_when_it_is_cloned_locks_nobody_out() {
    static CLONES_LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);

    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Key(u32);

    impl Clone for Key {
        fn clone(&self) -> Self {
            assert_ne!(CLONES_LEFT.fetch_sub(1, Ordering::SeqCst), 0, "scripted panic");
            Self(self.0)
        }
    }

    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sessions = Session::builder(Server::default()).allow_origin("https://api.test");
        let accounts = Accounts::builder(sessions, |_: Key, session| async move { Ok(session) });
        let accounts = accounts.build().unwrap();
        for clones in 0..5 {
            CLONES_LEFT.store(clones, Ordering::SeqCst);
            let session =
                AssertUnwindSafe(|| runtime.block_on(accounts.session(&Key(clones as u32))));
            let _ = std::panic::catch_unwind(session);
            CLONES_LEFT.store(usize::MAX, Ordering::SeqCst);
            runtime.block_on(accounts.session(&Key(clones as u32))).unwrap();
        }
        assert_eq!(accounts.len(), 5);
        done.send(()).unwrap();
    });
    is_done.recv_timeout(60 * SECOND).expect("nobody is locked out");
}

/// K-03: what an account's own session says about origins counts for that account.
#[tokio::test]
async fn k_03_an_origin_that_is_allowed_to_one_account_is_closed_to_the_others() {
    let sessions = Session::builder(Server::default()).allow_origin("https://api.test");
    let accounts = Accounts::builder(sessions, |name: Name, session| async move {
        let session = session.tokens(TokenSet::new(name));
        Ok(if name == "bob" { session.allow_origin("https://bob.test") } else { session })
    });
    let api = Api::friendly();
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(accounts.build().unwrap())
        .with(api.clone())
        .build();
    for url in ["https://bob.test/", "https://api.test/"] {
        for name in ["ann", "bob"] {
            client.get(url).with_extension(Account(name)).send().await.unwrap();
        }
    }
    assert_eq!(api.tokens(), ["-", "bob", "ann", "bob"]);
}

/// K-24: a runtime that shuts down in mid-opening fails those who wait elsewhere, and nobody later.
#[test]
fn k_24_a_runtime_that_shuts_down_while_a_session_is_opened_leaves_nothing_behind() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let bank = first.block_on(async { Bank::new() });
    bank.vault.gate.forget_permits(Semaphore::MAX_PERMITS);
    let session = |accounts: &Accounts<Name>| {
        let accounts = accounts.clone();
        async move { accounts.session(&"ann").await }
    };
    first.spawn(session(&bank.accounts));
    first.block_on(everybody_waits());
    let waiting = second.spawn(session(&bank.accounts));
    second.block_on(everybody_waits());
    drop(first);
    let error = second.block_on(waiting).unwrap().unwrap_err();
    assert_eq!(error.kind().to_string(), "refresh interrupted");
    bank.vault.gate.add_permits(1);
    second.block_on(session(&bank.accounts)).unwrap();
    assert_eq!((bank.accounts.len(), bank.vault.opened.lock().len()), (1, 2));
}
