//! `RedisStore` against a Redis of each test's own: K-25, K-60, K-61 and K-63 for a fleet.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use parking_lot::Mutex;
use reqwest_refresh::store::contract;
use reqwest_refresh::{
    ErrorKind, RedisStore, RedisStoreError, Refresh, RefreshError, RefreshFailure, Session,
    StoreError, TokenSet, TokenStore,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

#[cfg(feature = "redis-tls")]
use crate::support::Authority;
use crate::support::{
    Api, Hook, Issuer, Log, RedisServer, Rig, SECOND, everybody_waits, outcome, until,
};

const HOUR: Duration = Duration::from_secs(3600);
/// A lease that a test can wait for, and a busy machine can renew.
const SHORT: Duration = Duration::from_millis(1500);
/// What Redis must be told to keep everything.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const TOKENS: &str = "reqwest-refresh:{orders}:tokens";
const LOCK: &str = "reqwest-refresh:{orders}:lock";

fn set_of(name: &str) -> TokenSet {
    TokenSet::new(format!("a{name}")).with_refresh_token(format!("r{name}"))
}

/// Its tokens are over, and it knows: it must refresh.
fn set_over(name: &str) -> TokenSet {
    set_of(name).with_expires_at(std::time::SystemTime::UNIX_EPOCH)
}

async fn access_token(store: &RedisStore) -> Option<String> {
    store.load().await.unwrap().map(|tokens| tokens.access_token().to_owned())
}

/// A session over this store that has read it, with a token that is over by now.
async fn rig_over(store: &RedisStore, issuer: &Issuer) -> Rig {
    store.save(&Rig::tokens(3600)).await.unwrap();
    let rig = Rig::with(Api::friendly(), issuer.clone(), |b| {
        Hook::declining().on(b.store(store.clone()))
    });
    assert_eq!(rig.outcome().await, "200");
    rig.clock.advance(HOUR);
    rig
}

/// What a request comes to while the clock goes on.
async fn in_time<T>(rig: &Rig, task: JoinHandle<T>) -> T {
    while !task.is_finished() {
        rig.clock.advance(Duration::from_millis(10));
        sleep(Duration::from_millis(5)).await;
    }
    task.await.unwrap()
}

fn encrypted(store: RedisStore, key: &[u8; 32]) -> RedisStore {
    let sealing = RandomizedNonceKey::new(&AES_256_GCM, key).unwrap();
    let opening = RandomizedNonceKey::new(&AES_256_GCM, key).unwrap();
    let encrypt = move |mut bytes: Vec<u8>| {
        let nonce = sealing.seal_in_place_append_tag(Aad::empty(), &mut bytes)?;
        Ok([nonce.as_ref().as_slice(), &bytes].concat())
    };
    let decrypt = move |bytes: Vec<u8>| {
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or("too short")?;
        let (nonce, mut sealed) = (Nonce::try_assume_unique_for_key(nonce)?, sealed.to_vec());
        Ok(opening.open_in_place(nonce, Aad::empty(), &mut sealed)?.to_vec())
    };
    store.with_codec(encrypt, decrypt)
}

/// K-60, K-61: each by a handle of its own, as another process has it.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_61_the_store_in_redis_keeps_the_contract() {
    let server = RedisServer::start().await;
    let socket = format!("redis+unix://{}?db=1", server.socket().display());
    contract::check(|| server.store(), true).await;
    contract::check(|| server.store().with_prefix("fleet:"), true).await;
    contract::check(|| encrypted(RedisStore::new(&server.url(), "codec").unwrap(), &[7; 32]), true)
        .await;
    contract::check(|| RedisStore::new(&socket, "orders").unwrap(), true).await;
}

#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn sessions_with_other_names_do_not_meet() {
    let server = RedisServer::start().await;
    let store = |key: &str| RedisStore::new(&server.url(), key).unwrap();
    let lease = store("orders").lock().await.unwrap();
    for other in [store("orders:lock"), store("lock"), server.store().with_prefix("")] {
        drop(other.lock().await.unwrap());
        other.save(&set_of("1")).await.unwrap();
    }
    assert_eq!(access_token(&server.store()).await, None);
    drop(lease);
    server.store().save(&set_of("2")).await.unwrap();
    let mut keys: Vec<String> = server.ask("KEYS *orders*tokens").await;
    keys.sort();
    let expected = ["reqwest-refresh:{orders:lock}:tokens", TOKENS, "{orders}:tokens"];
    assert_eq!(keys, expected);
    assert_eq!(server.ask::<i64>(&format!("TTL {TOKENS}")).await, -1, "tokens do not end");
}

/// K-61, K-20: a hundred requests in four processes.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_61_processes_that_share_the_key_share_the_refresh() {
    let (server, issuer) = (RedisServer::start().await, Issuer::new());
    let mut rigs = Vec::new();
    for _ in 0..4 {
        rigs.push(rig_over(&server.store(), &issuer).await);
    }
    issuer.hold();
    let requests: Vec<_> = rigs.iter().flat_map(|rig| (0..25).map(|_| rig.spawn_get())).collect();
    until(|| issuer.calls() == 1).await;
    let owner: String = server.ask(&format!("GET {LOCK}")).await;
    assert!(owner.contains(&format!("/{}/", std::process::id())), "{owner}");
    issuer.release();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
    assert_eq!(issuer.sent(), ["r0"]);
    for rig in &rigs {
        assert_eq!(rig.api.tokens()[1..], vec!["a1"; 25]);
    }
}

/// A process that stands still while it refreshes, with everything in it.
struct Paused {
    arrived: Mutex<Option<mpsc::Sender<()>>>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

#[async_trait]
impl Refresh for Paused {
    async fn refresh(&self, tokens: &TokenSet) -> Result<TokenSet, RefreshError> {
        if let Some(arrived) = self.arrived.lock().take() {
            arrived.send(()).unwrap();
            self.go_on.lock().recv().unwrap(); // blocks the only thread of its runtime
        }
        Ok(set_of(&format!("-late-from-{}", tokens.access_token())).with_expires_in(HOUR))
    }
}

/// K-61, K-25, X25: the lease of a paused process ends, and what it comes back with does not
/// overwrite what others have written meanwhile.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_61_a_holder_that_was_paused_past_its_lease_does_not_overwrite_a_newer_pair() {
    let server = RedisServer::start().await;
    let store = server.store().with_lease(SHORT);
    store.save(&set_over("0")).await.unwrap();
    let ((arrived, has_arrived), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel());
    let paused = Paused { arrived: Some(arrived).into(), go_on: may_go_on.into() };
    let paused = std::thread::spawn({
        let store = store.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let builder = Session::builder(paused).allow_origin("https://api.test");
                let session = builder.store(store).build().unwrap();
                session.tokens().await.unwrap().access_token().to_owned()
            })
        }
    });
    tokio::task::spawn_blocking(move || has_arrived.recv()).await.unwrap().unwrap();
    let other = Session::builder(Issuer::new()).store(store.clone()).build().unwrap();
    assert_eq!(other.tokens().await.unwrap().access_token(), "a1");
    go_on.send(()).unwrap();
    let adopted = tokio::task::spawn_blocking(move || paused.join()).await.unwrap().unwrap();
    assert_eq!(adopted, "a1");
    assert_eq!(access_token(&store).await.as_deref(), Some("a1"));
}

/// K-61: a refresh that takes longer than the lease.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_61_a_lease_lasts_as_long_as_it_is_in_use() {
    let server = RedisServer::start().await;
    let store = server.store().with_lease(SHORT);
    let lease = store.lock().await.unwrap();
    assert!(timeout(2 * SHORT, store.lock()).await.is_err(), "a lease that nobody renewed");
    drop(lease);
    drop(timeout(60 * SECOND, store.lock()).await.unwrap().unwrap());
}

/// K-61: a process that is killed keeps nobody waiting for ever; a lock that nobody holds is free.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_61_the_lock_of_a_process_that_died_ends() {
    let server = RedisServer::start().await;
    let store = server.store().with_lease(SHORT);
    let died = std::thread::spawn({
        let store = store.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            std::mem::forget(runtime.unwrap().block_on(store.lock()).unwrap());
        }
    });
    tokio::task::spawn_blocking(|| died.join()).await.unwrap().unwrap();
    assert!(server.ask::<i64>(&format!("PTTL {LOCK}")).await > 0);
    drop(timeout(60 * SECOND, store.lock()).await.unwrap().unwrap());
}

/// K-61: nor does one that ends in good order, however quickly, leave a lock.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_61_a_program_that_ends_after_a_refresh_a_login_or_a_logout_leaves_no_lock() {
    let server = RedisServer::start().await;
    for what in ["refresh", "login", "logout"] {
        let store = server.store();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                store.save(&set_over("0")).await.unwrap();
                let session = Session::builder(Issuer::new()).store(store).build().unwrap();
                match what {
                    "refresh" => drop(session.tokens().await.unwrap()),
                    "login" => session.set_tokens(set_of("2")).await.unwrap(),
                    _ => session.log_out().await.unwrap(),
                }
                session.settle().await.unwrap();
            });
        });
        tokio::task::spawn_blocking(|| ended.join()).await.unwrap().unwrap();
        assert!(!server.ask::<bool>(&format!("EXISTS {LOCK}")).await, "{what}");
    }
}

/// K-61, K-35: the lock is somebody else's by now, or Redis cannot be asked whether it is.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_61_no_second_attempt_is_made_without_the_lease() {
    for redis_stands_still in [false, true] {
        let (server, issuer) = (RedisServer::start().await, Issuer::new());
        let rig = rig_over(&server.store().with_lease(SHORT), &issuer).await;
        issuer.then_fails(RefreshFailure::Busy);
        issuer.hold();
        let waiting = rig.spawn_get();
        until(|| issuer.calls() == 1).await;
        match redis_stands_still {
            true => server.pause(),
            false => server.ask::<()>(&format!("SET {LOCK} somebody")).await,
        }
        sleep(SHORT).await; // until the lease is over, or has been looked at
        issuer.release();
        everybody_waits().await;
        rig.clock.advance(5 * SECOND); // the time between two attempts
        let case = format!("redis stands still: {redis_stands_still}");
        let outcome = outcome(in_time(&rig, waiting).await);
        assert_eq!(outcome, "authorization server unavailable", "{case}");
        assert_eq!(issuer.calls(), 1, "{case}");
        if !redis_stands_still {
            let owner: String = server.ask(&format!("GET {LOCK}")).await;
            assert_eq!(owner, "somebody", "nobody else's lock is given back");
        }
    }
}

/// K-60, K-61: who found the same set replaces it once, whatever the codec makes of it.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_61_of_fifty_that_found_the_same_set_one_replaces_it() {
    let server = RedisServer::start().await;
    for store in [server.store(), encrypted(server.store().with_prefix("x:"), &[7; 32])] {
        for before in [None, Some(set_of("0"))] {
            if let Some(before) = &before {
                store.save(before).await.unwrap();
            }
            let racing: Vec<_> = (1..=50)
                .map(|number| {
                    let (store, before) = (store.clone(), before.clone());
                    let tokens = set_of(&number.to_string());
                    tokio::spawn(async move {
                        let is_ours = store.replace(before.as_ref(), &tokens).await.unwrap();
                        is_ours.then(|| tokens.access_token().to_owned())
                    })
                })
                .collect();
            let mut winners = Vec::new();
            for task in racing {
                winners.extend(task.await.unwrap());
            }
            assert_eq!(winners.len(), 1, "{winners:?}");
            assert_eq!(access_token(&store).await, winners.pop());
        }
    }
}

/// K-60, K-36: Redis is away. The token is used up, and no other is got, unless the user takes the
/// risk; when Redis is back, what was got meanwhile is saved.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_60_without_redis_a_refresh_is_only_tried_if_the_user_allows_it() {
    for is_allowed in [false, true] {
        let case = format!("allowed: {is_allowed}");
        let mut server = RedisServer::with("", &DURABLE).await;
        let (store, issuer) = (server.store(), Issuer::new());
        store.save(&Rig::tokens(3600)).await.unwrap();
        let rig = Rig::with(Api::friendly(), issuer.clone(), |builder| {
            builder.store(store.clone()).refresh_without_store(is_allowed)
        });
        assert_eq!(rig.outcome().await, "200", "{case}");
        server.kill();
        rig.clock.advance(HOUR - 200 * SECOND);
        assert_eq!(rig.outcome().await, "200", "{case}: alive");
        rig.clock.advance(300 * SECOND);
        let expected = if is_allowed { "200" } else { "token store" };
        assert_eq!(outcome(in_time(&rig, rig.spawn_get()).await), expected, "{case}");
        let sent: &[&str] = if is_allowed { &["r0"] } else { &[] };
        assert_eq!(issuer.sent(), sent, "{case}");
        server.restart().await;
        assert_eq!(access_token(&store).await.as_deref(), Some("a0"), "{case}");
        rig.clock.advance(60 * SECOND);
        assert_eq!(outcome(in_time(&rig, rig.spawn_get()).await), "200", "{case}: back");
        let session = rig.session.clone();
        in_time(&rig, tokio::spawn(async move { session.settle().await })).await.unwrap();
        assert_eq!(access_token(&store).await.as_deref(), Some("a1"), "{case}");
        assert_eq!(issuer.sent(), ["r0"], "{case}");
    }
}

/// K-61: also a restart of a Redis that keeps what it was told.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_61_a_lease_survives_a_restart_of_redis() {
    let mut server = RedisServer::with("", &DURABLE).await;
    let store = server.store().with_lease(SHORT);
    let lease = store.lock().await.unwrap();
    server.kill();
    server.restart().await;
    assert!(timeout(2 * SHORT, store.lock()).await.is_err(), "a lease that nobody renewed");
    drop(lease);
    drop(timeout(60 * SECOND, store.lock()).await.unwrap().unwrap());
}

/// K-61, K-60.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_61_a_restart_during_a_refresh_loses_nothing() {
    let (mut server, issuer) = (RedisServer::with("", &DURABLE).await, Issuer::new());
    let store = server.store().with_lease(SHORT);
    let rig = rig_over(&store, &issuer).await;
    issuer.hold();
    let waiting = rig.spawn_get();
    until(|| issuer.calls() == 1).await;
    server.kill();
    server.restart().await;
    issuer.release();
    assert_eq!(outcome(in_time(&rig, waiting).await), "200");
    assert_eq!(access_token(&store).await.as_deref(), Some("a1"));
    drop(timeout(60 * SECOND, store.lock()).await.unwrap().unwrap());
}

/// K-60: what is not ours to read is not ours to overwrite.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn what_somebody_else_has_written_is_an_error_and_stays() {
    let server = RedisServer::start().await;
    let key = [9; 32];
    for (expected, store, written) in [
        ("not a whole JSON object", server.store(), "CANARY"),
        ("does not say that it is one", server.store(), r#"{"access_token":"CANARY"}"#),
        ("version 2", server.store(), r#"{"format":"reqwest-refresh","version":2,"CANARY":1}"#),
        ("damaged", server.store(), r#"{"format":"reqwest-refresh","version":1,"tokens":{}}"#),
        ("too short", encrypted(server.store(), &key), "CANARY"),
        ("Unspecified", encrypted(server.store(), &key), r#"{"access_token":"CANARY"}"#),
    ] {
        let case = format!("{expected}: {written}");
        server.ask::<()>(&format!("SET {TOKENS} {written}")).await;
        let tokens = set_of("1");
        for error in [
            store.load().await.err(),
            store.save(&tokens).await.err(),
            store.clear().await.err(),
            store.replace(None, &tokens).await.err(),
        ] {
            let printed = printed(&error.expect(&case));
            assert!(printed.contains(expected), "{case}: {printed}");
            assert!(!printed.contains("CANARY"), "{case}: {printed}");
        }
        assert_eq!(server.ask::<String>(&format!("GET {TOKENS}")).await, written, "{case}");
    }
}

/// All of it, once it is one of those that are documented.
fn printed(error: &StoreError) -> String {
    error.downcast_ref::<RedisStoreError>().expect("every error is one");
    let mut printed = format!("{error} {error:?}");
    let mut next = error.source();
    while let Some(source) = next {
        printed += &format!(" {source} {source:?}");
        next = source.source();
    }
    printed
}

/// K-63: Redis quotes commands, and a URL has a password in it.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_63_errors_say_what_is_wrong_with_redis_and_quote_nothing() {
    let (log, _guard) = Log::start();
    let server = RedisServer::with("cnry-password", &["--rename-command", "EVAL", ""]).await;
    let closed = RedisStore::new("redis://u:cnry-password@127.0.0.1:1", "orders").unwrap();
    let wrong = server.url().replace(":cnry-password@", ":cnry-guess@");
    let wrong = RedisStore::new(&wrong, "orders").unwrap();
    let none = RedisStore::new(&server.url().replace(":cnry-password@", ""), "orders").unwrap();
    let tokens = TokenSet::new("cnry-access").with_refresh_token("cnry-refresh");
    let mut all = format!("{closed:?} {:?}", server.store());
    for (expected, store) in [
        ("Redis cannot be reached", closed),
        ("Redis refuses the user name or the password", wrong),
        ("Redis answers with the error NOAUTH", none),
        ("Redis answers with the error ERR", server.store()),
    ] {
        let error = printed(&store.save(&tokens).await.unwrap_err());
        assert!(error.contains(expected), "{expected}: {error}");
        all += &error;
    }
    server.ask::<()>(&format!("LPUSH {TOKENS} cnry-list")).await;
    let error = printed(&server.store().load().await.unwrap_err());
    assert!(error.contains("WRONGTYPE"), "{error}");
    server.ask::<()>("REPLICAOF 127.0.0.1 1").await;
    let error = printed(&server.store().lock().await.unwrap_err());
    assert!(error.contains("READONLY"), "{error}");
    all += &error;
    all += &log.lines("").join("\n");
    assert!(!all.contains("cnry"), "{all}");
}

/// A Redis that answers until it is asked for a lock: its URL, and all that it is told.
async fn silent_about_locks() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let heard = Arc::<Mutex<String>>::default();
    let all = Arc::clone(&heard);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            let text = String::from_utf8_lossy(&bytes[..count]);
            all.lock().push_str(&text);
            if !all.lock().contains("\r\nSET\r\n") {
                let commands = text.lines().filter(|line| line.starts_with('*')).count();
                stream.write_all("+OK\r\n".repeat(commands).as_bytes()).await.unwrap();
            }
        }
    });
    (url, heard)
}

/// K-61: who goes away while Redis is asked for the lock, and never learns that it was given, keeps
/// nobody out.
#[tokio::test]
async fn k_61_a_lock_that_is_given_to_nobody_is_given_back() {
    let (url, heard) = silent_about_locks().await;
    let store = RedisStore::new(&url, "orders").unwrap();
    let asking = tokio::spawn(async move { store.lock().await.map(drop) });
    until(|| heard.lock().contains("\r\nSET\r\n")).await;
    asking.abort();
    until(|| heard.lock().contains("redis.call('DEL', KEYS[1])")).await;
}

/// K-60: Redis that stands still is an error.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_60_a_redis_that_does_not_answer_is_an_error() {
    let server = RedisServer::start().await;
    server.pause();
    let store = server.store();
    let (load, lock) = tokio::join!(store.load(), timeout(60 * SECOND, store.lock()));
    for error in [load.err(), lock.unwrap().err()] {
        let printed = printed(&error.unwrap());
        assert!(printed.contains("Redis cannot be reached"), "{printed}");
    }
    server.resume();
    store.load().await.unwrap();
}

/// K-63.
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn k_63_what_a_codec_encrypts_is_not_to_be_found_in_redis() {
    let server = RedisServer::start().await;
    let tokens = TokenSet::new("cnry-access").with_refresh_token("cnry-refresh");
    let written = async |store: RedisStore| {
        store.save(&tokens).await.unwrap();
        assert!(store.load().await.unwrap().unwrap().same_tokens(&tokens));
        let written: Vec<u8> = server.ask(&format!("GET {TOKENS}")).await;
        store.clear().await.unwrap();
        String::from_utf8_lossy(&written).into_owned()
    };
    assert!(written(server.store()).await.contains("cnry-access"), "the test finds nothing");
    let sealed = written(encrypted(server.store(), &[7; 32])).await;
    assert!(!sealed.contains("cnry") && !sealed.contains("token"), "{sealed}");
    let nothing = server.store().with_codec(|_| Ok(Vec::new()), Ok);
    server.store().save(&tokens).await.unwrap();
    nothing.save(&tokens).await.unwrap_err();
    assert!(server.store().load().await.unwrap().is_some(), "an empty value is not a logout");
}

/// K-63: without a server.
#[test]
fn k_63_a_wrong_url_is_a_configuration_error_that_does_not_quote_it() {
    for url in [
        "",
        "cnry-host",
        "https://cnry-host",
        "redis://:cnry-password@",
        "redis://:cnry#password@host",
        "redis://:cnry-password@host/cnry-database",
        "redis://:cnry-password@host?protocol=cnry",
        "redis://cnry%FF@host",
        "rediss://:cnry-password@host/#insecure",
    ] {
        let error = RedisStore::new(url, "orders").expect_err(url);
        assert!(matches!(error.kind(), ErrorKind::Configuration), "{url}");
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains("cnry"), "{printed}");
    }
    let url = "rediss://:cnry-password@host";
    let is_there = RedisStore::new(url, "orders").map_err(|error| format!("{error} {error:?}"));
    match cfg!(feature = "redis-tls") {
        true => drop(is_there.unwrap()),
        false => {
            let error = is_there.unwrap_err();
            assert!(error.contains("`redis-tls`") && !error.contains("cnry"), "{error}");
        }
    }
}

/// The certificates come from the system, by way of the environment: so this runs itself again, as a
/// process that trusts the server's issuer, and as one that does not.
#[cfg(feature = "redis-tls")]
#[tokio::test]
#[ignore = "needs redis-server; .ci/run starts one"]
async fn over_tls_the_server_must_have_a_certificate_that_is_trusted() {
    if let Ok(url) = std::env::var("TLS_TEST_URL") {
        let store = RedisStore::new(&url, "orders").unwrap();
        match store.load().await {
            Ok(tokens) => println!("found {}", tokens.unwrap().access_token()),
            Err(error) => println!("{error}"),
        }
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("redis-tls");
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let certified = authority.issue("127.0.0.1");
    let port = RedisServer::free_port();
    let server = RedisServer::with(
        "",
        &[
            ["--tls-port", &port.to_string()],
            ["--tls-cert-file", &file("cert.pem", certified.cert.pem())],
            ["--tls-key-file", &file("key.pem", certified.signing_key.serialize_pem())],
            ["--tls-ca-cert-file", &file("ca.pem", authority.pem())],
            ["--tls-auth-clients", "no"],
        ]
        .concat(),
    )
    .await;
    server.store().save(&set_of("1")).await.unwrap();
    for (expected, issuer) in [("found a1", authority), ("Redis cannot be reached", stranger)] {
        let itself = std::env::current_exe().unwrap();
        let name = "redis_store::over_tls_the_server_must_have_a_certificate_that_is_trusted";
        let output = std::process::Command::new(itself)
            .args([name, "--exact", "--ignored", "--nocapture"])
            .env("SSL_CERT_FILE", file("trusted.pem", issuer.pem()))
            .env("TLS_TEST_URL", format!("rediss://127.0.0.1:{port}"))
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
}
