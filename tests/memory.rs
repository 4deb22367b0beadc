//! What is left of secrets in the memory of this process when everything that held them is dropped.
//! A binary of its own, because it reads its own memory.
//!
//! What `SECURITY.md` promises is asserted; what `reqwest` and the crates below it leave behind is
//! measured:
//!
//! ```text
//! cargo test --all-features --test memory -- --nocapture
//! ```

#![cfg(target_os = "linux")]

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Extensions;
use reqwest::{Request, Response, ResponseBuilderExt};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_refresh::{
    ClientAuth, FileStore, MemoryStore, Refresh, RefreshError, Session, TokenEndpoint, TokenSet,
    TokenStore,
};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A secret that is in memory only where somebody has put it: it is made when it is needed, and
/// looked for in disguise.
struct Canary(Vec<u8>);

/// No text in disguise is a text.
const DISGUISE: u8 = 0xa5;
const LENGTH: usize = 96;
/// An allocator writes over the beginning of what was freed, so a part that is found counts.
const BLOCK: usize = 16;

impl Canary {
    /// Always the same for a name, in every process.
    fn new(name: &str) -> Self {
        let letter = |index: usize| {
            let mut hasher = DefaultHasher::new();
            (name, index).hash(&mut hasher);
            b'a' + (hasher.finish() % 26) as u8
        };
        Self((0..LENGTH).map(|index| letter(index) ^ DISGUISE).collect())
    }

    /// As it is in a `Basic` header, behind an id with which the bytes are aligned.
    fn in_base64(&self) -> Self {
        let mut encoded = STANDARD.encode(self.text()).into_bytes();
        encoded.iter_mut().for_each(|byte| *byte ^= DISGUISE);
        Self(encoded)
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        text.extend(self.0.iter().map(|byte| char::from(byte ^ DISGUISE)));
        text
    }

    /// How many of its blocks are in the memory of this process.
    fn found(&self) -> usize {
        let blocks: Vec<_> = self.0.chunks_exact(BLOCK).collect();
        let mut begins = [false; 256];
        for block in &blocks {
            begins[usize::from(block[0] ^ DISGUISE)] = true;
        }
        let mut count = 0;
        each_page(|page| {
            for start in 0..page.len().saturating_sub(BLOCK - 1) {
                // Most bytes begin nothing, and this is not optimised.
                if begins[usize::from(page[start])] {
                    let there = &page[start..start + BLOCK];
                    let is_there =
                        |block: &[u8]| (0..BLOCK).all(|i| there[i] ^ DISGUISE == block[i]);
                    count += usize::from(blocks.iter().any(|block| is_there(block)));
                }
            }
        });
        count
    }
}

/// Shows the writable memory of this process page by page, each with the beginning of the next. What
/// was read for that does not count.
fn each_page(mut look: impl FnMut(&[u8])) {
    let memory = File::open("/proc/self/mem").expect("a process may read its own memory");
    let (mut page, nothing) = ([0; PAGE + BLOCK - 1], [0; PAGE + BLOCK - 1]);
    let own = page.as_ptr() as u64..page.as_ptr() as u64 + page.len() as u64;
    for region in writable_regions() {
        for at in region.clone().step_by(PAGE) {
            let length = page.len().min((region.end - at) as usize);
            // A stack or a heap may have become smaller.
            let Ok(read) = memory.read_at(&mut page[..length], at) else { break };
            for address in own.start.max(at)..own.end.min(at + read as u64) {
                page[(address - at) as usize] = 0;
            }
            if page[..read] != nothing[..read] {
                look(&page[..read]);
            }
        }
    }
    wipe(&mut page);
}

const PAGE: usize = 4096;

fn writable_regions() -> Vec<Range<u64>> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let region = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        words.next()?.starts_with("rw").then_some(address(start)?..address(end)?)
    };
    maps.lines().filter_map(region).collect()
}

fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

/// One test at a time: what a search has just read is in memory too.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `work`, and ends its threads.
fn after(work: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(work());
    drop(runtime);
}

#[test]
fn the_search_finds_what_is_there_and_nothing_else() {
    let _alone = alone();
    let canary = Canary::new("kept");
    assert_eq!(canary.found(), 0);
    let mut one = canary.text().into_bytes();
    assert_eq!(canary.found(), LENGTH / BLOCK);
    let mut other = [b"some", &one[..40]].concat();
    assert_eq!(canary.found(), LENGTH / BLOCK + 40 / BLOCK);
    wipe(&mut one);
    wipe(&mut other);
    assert_eq!(canary.found(), 0);
}

/// K-63: a dump of the memory shows no token that nobody holds any more.
#[test]
fn k_63_a_token_set_that_was_dropped_has_left_nothing_in_memory() {
    let _alone = alone();
    let [access, refresh, id] = ["access", "refresh", "id"].map(Canary::new);
    let mut answer = Vec::with_capacity(1000);
    for (name, canary) in [("access_token", &access), ("refresh_token", &refresh), ("id", &id)] {
        write!(answer, "{}\"{name}\":\"", if answer.is_empty() { "{" } else { "," }).unwrap();
        answer.extend(canary.0.iter().map(|byte| byte ^ DISGUISE));
        answer.push(b'"');
    }
    answer.push(b'}');

    let mut sets = vec![TokenSet::from_json(&answer).unwrap()];
    wipe(&mut answer);
    let mut roomy = String::with_capacity(4 * LENGTH);
    roomy.extend(refresh.0.iter().map(|byte| char::from(byte ^ DISGUISE)));
    sets.push(sets[0].clone().with_refresh_token(roomy));
    black_box(format!("{sets:?}"));
    for canary in [&access, &refresh, &id] {
        assert!(canary.found() >= 2 * LENGTH / BLOCK, "it is not even there");
    }
    drop(sets);
    for (name, canary) in [("access token", access), ("refresh token", refresh), ("member", id)] {
        assert_eq!(canary.found(), 0, "{name}");
    }
}

/// K-63: neither of what was written, nor of what was read, nor of what it was compared with.
#[test]
fn k_63_a_file_of_tokens_leaves_nothing_in_memory() {
    let _alone = alone();
    let [access, refresh, next] = ["file access", "file refresh", "file next"].map(Canary::new);
    let folder = tempfile::tempdir().unwrap();
    after(async || {
        let store = FileStore::new(folder.path().join("tokens.json"));
        let tokens = TokenSet::new(access.text()).with_refresh_token(refresh.text());
        store.save(&tokens).await.unwrap();
        let found = store.load().await.unwrap().unwrap();
        assert!(found.same_tokens(&tokens));
        let successor = tokens.clone().with_refresh_token(next.text());
        assert!(store.replace(Some(&found), &successor).await.unwrap());
        assert!(store.load().await.unwrap().unwrap().same_tokens(&successor));
        store.clear().await.unwrap();
    });
    for (name, canary) in [("access", access), ("refresh", refresh), ("next", next)] {
        assert_eq!(canary.found(), 0, "{name}");
    }
}

/// Trades whatever it gets for one other set.
struct Trade(Canary, Canary);

#[async_trait]
impl Refresh for Trade {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        Ok(TokenSet::new(self.0.text()).with_refresh_token(self.1.text()))
    }
}

/// An API that rejects the first token it gets.
#[derive(Default)]
struct Api(AtomicBool);

#[async_trait]
impl Middleware for Api {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let status = if self.0.swap(true, Ordering::Relaxed) { 200 } else { 401 };
        let answer = http::Response::builder().status(status).url(request.url().clone());
        Ok(answer.body("").unwrap().into())
    }
}

/// K-63: a whole life, but for what HTTP makes of it: attached, rejected, refreshed, saved, replayed,
/// logged out.
#[test]
fn k_63_a_session_that_was_dropped_has_left_nothing_in_memory() {
    let _alone = alone();
    let names = ["session access", "session refresh", "next access", "next refresh"];
    let [access, refresh, next_access, next_refresh] = names.map(Canary::new);
    after(async || {
        let trade = Trade(Canary::new(names[2]), Canary::new(names[3]));
        let session = Session::builder(trade)
            .allow_origin("https://api.test")
            .store(MemoryStore::new())
            .tokens(TokenSet::new(access.text()).with_refresh_token(refresh.text()))
            .build()
            .unwrap();
        let client = ClientBuilder::new(reqwest::Client::new())
            .with(session.clone())
            .with(Api::default())
            .build();
        for _ in 0..2 {
            assert_eq!(client.get("https://api.test/").send().await.unwrap().status(), 200);
        }
        let once = LENGTH / BLOCK;
        assert_eq!(next_access.found(), once, "set, header and store share one copy");
        session.log_out().await.unwrap();
        session.settle().await.unwrap();
        for canary in [&access, &refresh, &next_access, &next_refresh] {
            assert_eq!(canary.found(), 0, "the session lives on, but nobody is logged in");
        }
    });
    for (name, canary) in names.into_iter().zip([access, refresh, next_access, next_refresh]) {
        assert_eq!(canary.found(), 0, "{name}");
    }
}

/// K-63: each method, up to where the request would be sent; and the endpoint's own parameters.
#[test]
fn k_63_a_clients_secret_leaves_nothing_in_memory() {
    let _alone = alone();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    type Method = fn(String) -> ClientAuth;
    for (case, auth) in [
        ("basic", (|secret| ClientAuth::basic("id", secret)) as Method),
        ("basic, raw", |secret| ClientAuth::basic_raw("id", secret)),
        ("body", |secret| ClientAuth::body("id", secret)),
        ("digiRunner", |secret| ClientAuth::digirunner("id", Some(secret))),
        ("a JWT", |secret| ClientAuth::client_secret_jwt("id", secret)),
    ] {
        let [secret, parameter, token] =
            ["secret", "parameter", "token"].map(|what| Canary::new(&format!("{case} {what}")));
        after(async || {
            let endpoint = TokenEndpoint::new(&format!("http://{closed}"), auth(secret.text()));
            let endpoint = endpoint.unwrap().with_parameter("p", parameter.text()).unwrap();
            let tokens = TokenSet::new("a").with_refresh_token(token.text());
            endpoint.refresh(&tokens).await.unwrap_err();
            assert!(secret.found() + parameter.found() + token.found() > 2, "{case}: not there");
        });
        let encoded = secret.in_base64();
        for canary in [&secret, &encoded, &encoded.in_base64(), &parameter, &token] {
            assert_eq!(canary.found(), 0, "{case}");
        }
    }
}

const NAMES: [&str; 2] = ["over HTTP: new access", "over HTTP: new refresh"];
const SCHEME: &str = "REQWEST_REFRESH_TEST_SCHEME";

/// Measured, not promised.
#[test]
fn what_a_refresh_over_http_leaves_in_memory_is_measured() {
    let _alone = alone();
    for scheme in ["http", "https"] {
        let server = TokenServer::start(scheme);
        let [new_access, new_refresh] = NAMES.map(|name| Canary::new(&format!("{scheme} {name}")));
        let [secret, access, refresh] = ["secret", "access", "refresh"]
            .map(|name| Canary::new(&format!("over HTTP: {scheme} {name}")));
        after(async || {
            let auth = ClientAuth::basic("id", secret.text());
            let endpoint = TokenEndpoint::new(&server.url("token"), auth).unwrap();
            let session = Session::builder(endpoint.with_http(server.http()).unwrap())
                .tokens(TokenSet::new(access.text()).with_refresh_token(refresh.text()))
                .build()
                .unwrap();
            let client =
                ClientBuilder::new(server.http().build().unwrap()).with(session.clone()).build();
            let get = async || {
                let response = client.get(server.url("orders")).send().await.unwrap();
                assert_eq!(response.status(), 200);
            };
            get().await;
            session.refresh().await.unwrap();
            get().await;
            session.clear().await.unwrap();
            session.settle().await.unwrap();
        });
        for (what, canary) in [
            ("the access token that was sent to the API", access),
            ("the refresh token that was sent", refresh),
            ("the client secret, in Base64", secret.in_base64()),
            ("the access token that came, and was sent to the API", new_access),
            ("the refresh token that came", new_refresh),
        ] {
            let copies = canary.found() as f64 * BLOCK as f64 / canary.0.len() as f64;
            println!("{scheme}: {what}: {copies:.1} copies");
        }
    }
}

/// A server in a process of its own, so that its memory is not ours.
struct TokenServer {
    process: Child,
    _output: BufReader<ChildStdout>,
    base: String,
    certificate: Vec<u8>,
}

impl TokenServer {
    fn start(scheme: &str) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "a_server_in_another_process", "--ignored", "--nocapture"])
            .env(SCHEME, scheme)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut lines = output.by_ref().lines().map(Result::unwrap);
        let said = lines.find_map(|line| Some(line.split_once("listening: ")?.1.to_owned()));
        let said = said.expect("it listens");
        let (address, certificate) = said.split_once(' ').unwrap();
        let certificate = STANDARD.decode(certificate).unwrap();
        Self { process, _output: output, base: format!("{scheme}://{address}"), certificate }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// Who trusts it, and nobody else.
    fn http(&self) -> reqwest::ClientBuilder {
        let certificate = reqwest::Certificate::from_der(&self.certificate).unwrap();
        reqwest::Client::builder().tls_certs_only([certificate])
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "started by another test"]
fn a_server_in_another_process() {
    let Ok(scheme) = env::var(SCHEME) else { return };
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    println!("listening: {address} {}", STANDARD.encode(key.cert.der()));
    let private_key = PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private_key);
    let config = Arc::new(config.unwrap());

    let [access, refresh] = NAMES.map(|name| Canary::new(&format!("{scheme} {name}")).text());
    let body = format!(r#"{{"access_token":"{access}","refresh_token":"{refresh}"}}"#);
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        let served = match &*scheme {
            "https" => {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                serve(StreamOwned::new(connection, stream), &body)
            }
            _ => serve(stream, &body),
        };
        served.unwrap();
    }
}

/// Answers one request. Only a form is answered with tokens.
fn serve(mut stream: impl Read + Write, tokens: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(&mut stream);
    let (mut line, mut length) = (String::new(), 0);
    while lines.read_line(&mut line)? > 2 {
        let field = line.to_ascii_lowercase();
        let value = field.strip_prefix("content-length: ").map(|value| value.trim().parse());
        length = value.map_or(length, Result::unwrap);
        line.clear();
    }
    lines.read_exact(&mut vec![0; length])?;
    let body = if length == 0 { "{}" } else { tokens };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    stream.flush()
}
