//! Several resources over one refresh token (X17): their refreshes come one after the other, and
//! no access token goes to another resource.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_refresh::store::contract;
use reqwest_refresh::{
    Lease, ManualClock, MemoryStore, Refresh, RefreshError, RefreshFailure, ServerError, Session,
    SharedRefreshToken, StoreError, TokenSet, TokenStore,
};
use tokio::sync::Semaphore;

use crate::support::{Api, Rig, SECOND, ScriptedStore, everybody_waits, outcome};

/// A server that rotates one refresh token, ends the session when an old one comes back, and gives
/// each access token for one resource.
#[derive(Clone)]
struct Server {
    user: Arc<Mutex<&'static str>>,
    number: Arc<Mutex<usize>>,
    sent: Arc<Mutex<Vec<String>>>,
    gate: Arc<Semaphore>,
}

/// Its token endpoint, asked for one resource.
struct For(Server, &'static str);

impl Server {
    fn new() -> Self {
        Self {
            user: Arc::new(Mutex::new("ann")),
            number: Arc::default(),
            sent: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    /// The tokens of a login, which are for `resource`.
    fn log_in(&self, user: &'static str, resource: &str) -> TokenSet {
        *self.user.lock() = user;
        self.next(resource)
    }

    fn next(&self, resource: &str) -> TokenSet {
        let (user, mut number) = (*self.user.lock(), self.number.lock());
        *number += 1;
        TokenSet::new(format!("{user}-{resource}-{number}"))
            .with_refresh_token(format!("{user}-r{number}"))
            .with_expires_in(3600 * SECOND)
    }
}

#[async_trait]
impl Refresh for For {
    async fn refresh(&self, tokens: &TokenSet) -> Result<TokenSet, RefreshError> {
        let Self(server, resource) = self;
        let refresh_token = tokens.refresh_token().unwrap().to_owned();
        server.sent.lock().push(refresh_token.clone());
        drop(server.gate.acquire().await.unwrap());
        let newest = format!("{}-r{}", server.user.lock(), server.number.lock());
        if refresh_token == newest {
            return Ok(server.next(resource));
        }
        let reuse = ServerError::new(400, Some("invalid_grant".into()));
        Err(RefreshError::new(RefreshFailure::Terminal, "reuse").with_server_error(reuse))
    }
}

/// A user of three resources.
struct User {
    clock: ManualClock,
    server: Server,
    store: ScriptedStore,
    shared: SharedRefreshToken,
    api: Api,
    sessions: Vec<(Session, ClientWithMiddleware)>,
}

const RESOURCES: [&str; 3] = ["orders", "invoices", "stock"];

impl User {
    async fn logged_in() -> Self {
        let user = Self::over(Server::new(), ScriptedStore::new());
        let (orders, _) = &user.sessions[0];
        orders.set_tokens(user.server.log_in("ann", "orders")).await.unwrap();
        user
    }

    fn over(server: Server, store: ScriptedStore) -> Self {
        let shared = SharedRefreshToken::new(store.clone());
        let (clock, api) = (ManualClock::new(), Api::friendly());
        let mut user = Self { clock, server, store, shared, api, sessions: Vec::new() };
        user.open();
        user
    }

    /// Begins the sessions anew.
    fn open(&mut self) {
        let session = |resource| {
            let session = Session::builder(For(self.server.clone(), resource))
                .allow_origin(format!("https://{resource}.test"))
                .store(self.shared.resource(resource))
                .clock(self.clock.clone())
                .jitter(0.0)
                .build()
                .unwrap();
            let client = Rig::client(&session, &self.api);
            (session, client)
        };
        self.sessions = RESOURCES.map(session).into();
    }

    /// One request to each resource, all at once.
    async fn ask_all(&self) {
        let requests: Vec<_> = RESOURCES
            .iter()
            .zip(&self.sessions)
            .map(|(resource, (_, client))| {
                let request = client.get(format!("https://{resource}.test/")).send();
                tokio::spawn(request)
            })
            .collect();
        for request in requests {
            assert_eq!(outcome(request.await.unwrap()), "200");
        }
    }

    /// Lets time pass, a second at a time.
    async fn pass_until(&self, is_true: impl Fn() -> bool) {
        everybody_waits().await;
        while !is_true() {
            self.clock.advance(SECOND);
            everybody_waits().await;
        }
    }

    /// Nobody got what is not his.
    fn check_tokens(&self, user: &str) {
        for seen in self.api.seen() {
            let resource = seen.url.host_str().unwrap().trim_end_matches(".test").to_owned();
            let token = seen.token().unwrap();
            assert!(token.starts_with(&format!("{user}-{resource}-")), "{token} at {resource}");
        }
    }
}

/// X17, K-61: a refresh each, never with the same refresh token.
#[tokio::test]
async fn x17_resources_share_a_refresh_token_and_no_access_token() {
    let user = User::logged_in().await;
    user.ask_all().await;
    assert_eq!(*user.server.sent.lock(), ["ann-r1", "ann-r2"], "the login was for one of them");
    for life in 1..=3 {
        user.clock.advance(3600 * SECOND);
        user.ask_all().await;
        assert_eq!(user.server.sent.lock().len(), 2 + 3 * life);
    }
    user.check_tokens("ann");
    let mut sent = user.server.sent.lock().clone();
    sent.dedup();
    assert_eq!(sent.len(), 11, "nothing was sent twice: {sent:?}");
}

/// X17: while one resource refreshes, the others wait only if they need a refresh themselves.
#[tokio::test]
async fn x17_a_refresh_waits_for_that_of_another_resource() {
    let user = User::logged_in().await;
    user.ask_all().await;
    user.server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let refreshes: Vec<_> = user.sessions[..2]
        .iter()
        .map(|(session, _)| {
            let session = session.clone();
            tokio::spawn(async move { session.refresh().await.unwrap() })
        })
        .collect();
    everybody_waits().await;
    assert_eq!(user.server.sent.lock().len(), 3, "one at a time");
    user.ask_all().await;
    user.server.gate.add_permits(100);
    let mut tokens = Vec::new();
    for refresh in refreshes {
        tokens.push(refresh.await.unwrap().access_token().to_owned());
    }
    assert_eq!(tokens, ["ann-orders-4", "ann-invoices-5"], "who wants a new one gets a new one");
}

/// X17, K-28: after a restart there is one access token, and only its owner uses it.
#[tokio::test]
async fn x17_a_stored_access_token_is_for_the_resource_that_stored_it() {
    let before = User::logged_in().await;
    before.ask_all().await;
    let user = User::over(before.server.clone(), before.store.clone());
    user.ask_all().await;
    user.check_tokens("ann");
    let owners = user.server.sent.lock().len();
    assert_eq!(owners, 2 + 2, "one of them needed no refresh");
    let stored = user.store.memory.load().await.unwrap().unwrap();
    assert!(!format!("{:?}", user.sessions[0].0.current_tokens()).contains("reqwest_refresh"));
    assert!(format!("{stored:?}").contains("reqwest_refresh.resource"));
}

/// X17: the other access tokens are kept in memory, also where the store keeps only what it knows.
#[tokio::test]
async fn x17_a_session_that_is_opened_again_finds_its_access_token() {
    for is_forgetful in [false, true] {
        let mut user = User::logged_in().await;
        user.ask_all().await;
        let sent = user.server.sent.lock().len();
        if is_forgetful {
            let stored = user.store.memory.load().await.unwrap().unwrap();
            let mut written = serde_json::to_value(stored.expose_secrets()).unwrap();
            written.as_object_mut().unwrap().remove("login").unwrap();
            let forgotten = serde_json::from_value(written).unwrap();
            user.store.memory.save(&forgotten).await.unwrap();
        }
        user.open();
        user.ask_all().await;
        user.check_tokens("ann");
        assert_eq!(user.server.sent.lock().len(), sent, "forgetful: {is_forgetful}");
    }
}

/// X17, C09: what is left of one user is not for the next.
#[tokio::test]
async fn x17_after_another_login_no_access_token_of_the_user_before_is_used() {
    for elsewhere in [false, true] {
        let mut user = User::logged_in().await;
        user.ask_all().await;
        let tokens = user.server.log_in("bob", "orders");
        if elsewhere {
            let other = User::over(user.server.clone(), user.store.clone());
            other.sessions[0].0.set_tokens(tokens).await.unwrap();
        } else {
            user.sessions[0].0.set_tokens(tokens).await.unwrap();
        }
        let before = user.api.seen().len();
        user.open();
        user.ask_all().await;
        for seen in &user.api.seen()[before..] {
            assert!(seen.token().unwrap().starts_with("bob-"), "{:?}", seen.token());
        }
    }
}

/// X17, C09: neither are they where the server gives no refresh tokens, by which logins differ.
#[tokio::test]
async fn x17_after_a_login_elsewhere_without_a_refresh_token_no_access_token_from_before_is_used() {
    let mut user = User::over(Server::new(), ScriptedStore::new());
    let alone = |token: &str| TokenSet::new(token).with_expires_in(3600 * SECOND);
    user.sessions[0].0.set_tokens(alone("ann-orders")).await.unwrap();
    let other = User::over(user.server.clone(), user.store.clone());
    other.sessions[1].0.set_tokens(alone("bob-invoices")).await.unwrap();
    user.open();
    let get = |index: usize| {
        user.sessions[index].1.get(format!("https://{}.test/", RESOURCES[index])).send()
    };
    assert_eq!(outcome(get(0).await), "login required");
    assert_eq!(outcome(get(1).await), "200");
    assert_eq!(user.api.tokens(), ["bob-invoices"]);
}

/// X17, C09: a login that could be saved only after its first refresh is a login all the same.
#[tokio::test]
async fn x17_a_login_that_is_saved_late_leaves_no_access_token_of_the_user_before() {
    let mut user = User::logged_in().await;
    user.ask_all().await;
    user.store.fail(&["save"]);
    let (orders, _) = user.sessions[0].clone();
    let tokens = user.server.log_in("bob", "orders");
    let login = tokio::spawn({
        let orders = orders.clone();
        async move { orders.set_tokens(tokens).await }
    });
    user.pass_until(|| login.is_finished()).await;
    login.await.unwrap().unwrap_err();
    user.store.fail(&[]);
    orders.refresh().await.unwrap();
    let before = user.api.seen().len();
    user.open();
    user.ask_all().await;
    for seen in &user.api.seen()[before..] {
        assert!(seen.token().unwrap().starts_with("bob-"), "{:?}", seen.token());
    }
}

fn set(access_token: &str, refresh_token: &str) -> TokenSet {
    TokenSet::new(access_token).with_refresh_token(refresh_token)
}

/// X17, K-61: or else the pair of a refresh would not be saved, and the old refresh token be sent again.
#[tokio::test]
async fn x17_a_look_that_comes_too_late_does_not_change_what_another_resource_sees() {
    struct Lagging(MemoryStore, Arc<AtomicBool>, Arc<Semaphore>);

    #[async_trait]
    impl TokenStore for Lagging {
        async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
            let read = self.0.load().await?;
            if self.1.swap(false, Ordering::SeqCst) {
                drop(self.2.acquire().await?);
            }
            Ok(read)
        }
        async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
            self.0.save(tokens).await
        }
        async fn clear(&self) -> Result<(), StoreError> {
            self.0.clear().await
        }
        async fn lock(&self) -> Result<Lease, StoreError> {
            self.0.lock().await
        }
    }

    let (lags, gate) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
    let store = Lagging(MemoryStore::new(), Arc::clone(&lags), Arc::clone(&gate));
    let shared = SharedRefreshToken::new(store);
    let (orders, invoices) = (shared.resource("orders"), Arc::new(shared.resource("invoices")));
    orders.save(&set("o1", "r1")).await.unwrap();
    lags.store(true, Ordering::SeqCst);
    let late = tokio::spawn({
        let invoices = Arc::clone(&invoices);
        async move { invoices.load().await.unwrap().unwrap() }
    });
    everybody_waits().await;
    let seen = invoices.load().await.unwrap().unwrap();
    assert!(invoices.replace(Some(&seen), &set("i2", "r2")).await.unwrap());

    let seen = orders.load().await.unwrap().unwrap();
    assert_eq!((seen.access_token(), seen.refresh_token()), ("o1", Some("r2")));
    gate.add_permits(1);
    assert_eq!(late.await.unwrap().refresh_token(), Some("r1"), "as it was long ago");
    assert!(orders.replace(Some(&seen), &set("o3", "r3")).await.unwrap());
}

/// X17, K-25: what could not be saved is not written over what somebody else has saved since.
#[tokio::test]
async fn x17_a_pair_that_was_not_saved_gives_way_to_one_that_was_saved_elsewhere() {
    let store = ScriptedStore::holding(set("o1", "r1")).await;
    let shared = SharedRefreshToken::new(store.clone());
    let (orders, invoices) = (shared.resource("orders"), shared.resource("invoices"));
    let seen = orders.load().await.unwrap().unwrap();
    store.fail(&["save"]);
    orders.replace(Some(&seen), &set("o2", "r2")).await.unwrap_err();
    store.fail(&[]);
    store.memory.save(&set("elsewhere", "r9")).await.unwrap();
    assert_eq!(invoices.load().await.unwrap().unwrap().refresh_token(), Some("r9"));
    let stored = store.memory.load().await.unwrap().unwrap();
    assert_eq!(stored.access_token(), "elsewhere");
}

/// X17, K-60: what is used up is not sent because another resource's pair could not be saved.
#[tokio::test]
async fn x17_a_pair_that_is_not_saved_yet_is_saved_before_another_resource_refreshes() {
    let user = User::logged_in().await;
    user.ask_all().await;
    user.clock.advance(3600 * SECOND);
    user.store.fail(&["save"]);
    let get = |index: usize| {
        let (_, client) = &user.sessions[index];
        tokio::spawn(client.get(format!("https://{}.test/", RESOURCES[index])).send())
    };
    let orders = get(0);
    user.pass_until(|| orders.is_finished()).await;
    assert_eq!(outcome(orders.await.unwrap()), "200");
    let sent = user.server.sent.lock().len();

    let invoices = get(1);
    user.pass_until(|| invoices.is_finished()).await;
    assert_eq!(outcome(invoices.await.unwrap()), "token store");
    assert_eq!(user.server.sent.lock().len(), sent, "nothing was sent");

    user.store.fail(&[]);
    user.clock.advance(60 * SECOND);
    user.ask_all().await;
    for (session, _) in &user.sessions {
        session.settle().await.unwrap();
    }
    user.clock.advance(3600 * SECOND);
    user.ask_all().await;
    user.check_tokens("ann");
}

/// The contract of a store, K-61: for one resource it is like any other.
#[tokio::test]
async fn x17_the_store_of_a_resource_keeps_the_contract_of_stores() {
    let shared = SharedRefreshToken::new(MemoryStore::new());
    contract::check(|| shared.resource("orders"), true).await;
}

/// X17, K-61: processes take turns with each other's refresh tokens.
#[tokio::test]
async fn x17_processes_that_share_the_store_share_the_refresh_token() {
    let user = User::logged_in().await;
    let other = User::over(user.server.clone(), user.store.clone());
    for _ in 0..3 {
        user.ask_all().await;
        other.ask_all().await;
        for process in [&user, &other] {
            process.clock.advance(3600 * SECOND);
        }
    }
    for process in [&user, &other] {
        process.check_tokens("ann");
    }
    let mut sent = user.server.sent.lock().clone();
    let count = sent.len();
    sent.sort();
    sent.dedup();
    assert_eq!(sent.len(), count, "nothing was sent twice");
}

/// X17, K-25: the others find a logout at their next refresh, and send nothing that is revoked.
#[tokio::test]
async fn x17_after_the_logout_of_one_resource_the_others_refresh_nothing() {
    let user = User::logged_in().await;
    user.ask_all().await;
    user.sessions[0].0.log_out().await.unwrap();
    let sent = user.server.sent.lock().len();
    user.clock.advance(3600 * SECOND);
    for (resource, (_, client)) in RESOURCES.iter().zip(&user.sessions) {
        let request = client.get(format!("https://{resource}.test/")).send();
        assert_eq!(outcome(request.await), "login required", "{resource}");
    }
    assert_eq!(user.server.sent.lock().len(), sent);
}
