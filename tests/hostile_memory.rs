//! What a hostile peer costs in memory, at most. A binary of its own, because it counts every
//! allocation; the counter counts per thread, and the peer has a thread of its own.
//!
//! The bounds lie above the measured peaks by half of them, or more. `--nocapture` prints the peaks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use async_trait::async_trait;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_refresh::{
    ClientAuth, Error, Provider, Refresh, RefreshError, RefreshFailure, Session, TokenEndpoint,
    TokenSet,
};
use tokio::runtime::Runtime;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const FINE: &str = r#"{"access_token":"a1","refresh_token":"r1"}"#;

/// K-30: an answer of a gigabyte, and less that is meant to become one.
#[test]
fn k_30_no_answer_of_a_token_endpoint_costs_more_than_its_bound() {
    use RefreshFailure::{Lost, Unusable};
    let head = |headers: &str| said(&format!("HTTP/1.1 200 x\r\n{headers}\r\n"));
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 65536], b"\r\n".to_vec()].concat();
    let small = [b"10\r\n", &[b' '; 16][..], b"\r\n"].concat();
    let blank = || (vec![b' '; 65536], GIB / 65536);
    let bomb = || vec![head("content-encoding: gzip\r\n"), (GZIP.into(), 1), (AGAIN.into(), 5000)];
    let realm = format!("WWW-Authenticate: Bearer realm=\"{}\"\r\n", "x".repeat(400_000));
    let flood = "x: y\r\n".repeat(10_000);
    for (case, answer, failure, most) in [
        ("1 GiB", vec![head(&format!("content-length: {GIB}\r\n")), blank()], Unusable, 6 * MIB),
        ("1 GiB until the end", vec![head(""), blank()], Unusable, 6 * MIB),
        ("1 GiB that says it is 10", vec![head("content-length: 10\r\n"), blank()], Unusable, MIB),
        (
            "1 GiB in chunks",
            vec![head("transfer-encoding: chunked\r\n"), (chunk, GIB / 65536)],
            Unusable,
            6 * MIB,
        ),
        (
            "1 GiB in chunks of 16 bytes",
            vec![head("transfer-encoding: chunked\r\n"), (small.repeat(1000), GIB / 16_000)],
            Unusable,
            6 * MIB,
        ),
        ("a bomb", bomb(), Unusable, MIB),
        ("10,000 headers", vec![said(&format!("HTTP/1.1 200 x\r\n{flood}\r\n"))], Lost, MIB),
        ("a header of 400 KB", vec![head(&realm), said("{}")], Unusable, 3 * MIB),
        ("a header of 1 GiB", vec![said("HTTP/1.1 200 x\r\nx: "), blank()], Lost, 3 * MIB),
        (
            "100,000 times: go on",
            vec![(b"HTTP/1.1 100 x\r\n\r\n".repeat(1000), 100)],
            Lost,
            3 * MIB,
        ),
    ] {
        let peer = Peer::start(vec![answer]);
        let (peak, result) = peer.attempt(Provider::rfc6749());
        assert_eq!(result.expect_err(case).failure(), failure, "{case}");
        check(case, peak, most);
    }
}

/// K-33, K-63: JSON takes more room than its text.
#[test]
fn k_33_no_json_of_a_token_endpoint_costs_more_than_its_bound() {
    let of = |status: u16, members: String| {
        let body = format!("{{{members}}}");
        assert!(body.len() as u64 <= MIB, "{} bytes are not read", body.len());
        let length = body.len();
        vec![said(&format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}"))]
    };
    let fine = |member: String| of(200, format!("{},{member}", FINE.trim_matches(['{', '}'])));
    let many = (0..80_000).map(|number| format!("\"{number}\":1")).collect::<Vec<_>>().join(",");
    let deep = format!("\"x\":{}{}", "[".repeat(500_000), "]".repeat(500_000));
    let zeros = format!("\"x\":[0{}]", ",0".repeat(500_000));
    let twice = "\"x\":1,".repeat(150_000) + "\"x\":1";
    let letters = format!("\"error_description\":\"{}\"", "a".repeat(1_000_000));
    let growing = r#""access_token":"a","id_token":"d","refresh_token":"i""#;
    let texts = (0..30_000).map(|number| format!(",\"{number}\":\"x\"")).collect::<String>();
    let long = format!("\"access_token\":\"{}\"{texts}", "x".repeat(500_000));
    for (case, answer, most) in [
        ("500,000 arrays in each other", fine(deep.clone()), 6 * MIB),
        ("500,000 zeros", fine(zeros.clone()), 40 * MIB),
        ("80,000 members", fine(many.clone()), 18 * MIB),
        ("150,000 times the same", fine(twice), 4 * MIB),
        ("a number of 1 MB", fine(format!("\"x\":{}", "9".repeat(1_000_000))), 6 * MIB),
        (
            "a token of 1 MB",
            of(200, format!("\"access_token\":\"{}\"", "x".repeat(1_000_000))),
            6 * MIB,
        ),
        ("an error, 500,000 arrays", of(400, deep), 6 * MIB),
        ("an error, 500,000 zeros", of(400, zeros), 40 * MIB),
        ("an error, 80,000 members", of(400, many), 18 * MIB),
        ("an error, 1 MB of text", of(400, letters.clone()), 12 * MIB),
        ("an error, a long token and many texts", of(400, long), 8 * MIB),
        ("an error that grows", of(400, format!("{growing},{letters}")), 6 * MIB),
    ] {
        let peer = Peer::start(vec![answer]);
        let (peak, result) = peer.attempt(Provider::rfc6749());
        assert_eq!(result.is_ok(), !case.starts_with("an error"), "{case}: {result:?}");
        check(case, peak, most);
    }
}

/// K-42, K-44, K-45: what is held of an API's answer: while it is looked into, and for the error.
#[test]
fn k_44_no_answer_of_an_api_costs_more_than_its_bound() {
    let head = |status: u16, headers: &str| said(&format!("HTTP/1.1 {status} x\r\n{headers}\r\n"));
    let blank = || (vec![b' '; 65536], GIB / 65536);
    let json = "content-type: application/json\r\n";
    let bomb = || [(GZIP.into(), 1), (AGAIN.into(), 5000)];
    let packed = format!("{json}content-encoding: gzip\r\n");
    let words = |text: &str| format!("www-authenticate: {}\r\n", text.repeat(400_000 / text.len()));
    let zeros = format!("[0{}]", ",0".repeat(32_000));
    let zeros = format!("{json}content-length: {}\r\n\r\n{zeros}", zeros.len());
    for (case, answer, expected, most) in [
        ("401, 1 GiB", vec![head(401, ""), blank()], "behind 65536", MIB),
        ("403, 1 GiB of JSON", vec![head(403, json), blank()], "403", MIB),
        ("403, a bomb of JSON", [&[head(403, &packed)][..], &bomb()].concat(), "403", MIB),
        ("401, a bomb", [&[head(401, &packed)][..], &bomb()].concat(), "behind 65536", MIB),
        ("403, 32,000 zeros", vec![said(&format!("HTTP/1.1 403 x\r\n{zeros}"))], "403", 3 * MIB),
        ("401, schemes", vec![head(401, &words("a "))], "behind 0", 36 * MIB),
        ("401, parameters", vec![head(401, &words("a=b "))], "behind 0", 16 * MIB),
        ("401, quotes", vec![head(401, &words("\"\\"))], "behind 0", 2 * MIB),
        (
            "401, a text",
            vec![head(401, &format!("www-authenticate: a b=\"{}\r\n", "x".repeat(400_000)))],
            "behind 0",
            3 * MIB,
        ),
        ("401, 10,000 headers", vec![head(401, &"x: y\r\n".repeat(10_000))], "not ours", MIB),
        ("401, a header of 1 MB", vec![head(401, &words("a ").repeat(3))], "not ours", 2 * MIB),
    ] {
        let peer = Peer::start(vec![answer]);
        let (client, runtime) = (peer.client(), runtime());
        let mut result = None;
        let counted = allocation_counter::measure(|| {
            let response = client.get(peer.url("/orders")).send();
            result = Some(runtime.block_on(response));
        });
        let outcome = match result.unwrap() {
            Ok(response) => response.status().as_u16().to_string(),
            Err(error) => match Error::find(&error) {
                Some(error) => format!("behind {}", error.rejection().unwrap().body().len()),
                None => "not ours".into(),
            },
        };
        assert_eq!(outcome, expected, "{case}");
        check(case, counted.bytes_max, most);
    }
}

#[track_caller]
fn check(case: &str, peak: u64, most: u64) {
    println!("{case}: {} KiB", peak / KIB);
    assert!(peak <= most, "{case}: {peak} bytes, {most} are enough");
}

fn said(text: &str) -> (Vec<u8>, u64) {
    (text.into(), 1)
}

/// A head (RFC 1952 §2.3), and the beginning of a block with fixed codes (RFC 1951 §3.2.6): a blank,
/// and 258 times the same.
const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x52\x18\x05";
/// Eight times: the last byte again, 258 times.
const AGAIN: &[u8] = b"\xa3\x60\x14\x8c\x82\x51\x30\x0a\x46\xc1\x28\x18\x05";

/// Bytes, and how often they are said.
type Answer = Vec<(Vec<u8>, u64)>;

/// A server that says the same to everybody, until nobody listens.
struct Peer {
    address: SocketAddr,
}

impl Peer {
    fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let answer = &answers[index.min(answers.len() - 1)];
                // Whoever has heard enough hangs up.
                let _ = say(stream.unwrap(), answer);
            }
        });
        Self { address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What one attempt to refresh comes to, and how much memory was in use for it at most.
    fn attempt(&self, provider: Provider) -> (u64, Result<TokenSet, RefreshError>) {
        let eager = reqwest::Client::builder().gzip(true);
        let endpoint = TokenEndpoint::new(&self.url("/token"), ClientAuth::none("app")).unwrap();
        let endpoint = endpoint.with_provider(provider).with_http(eager).unwrap();
        let (tokens, runtime) = (TokenSet::new("a0").with_refresh_token("r0"), runtime());
        let mut result = None;
        let counted = allocation_counter::measure(|| {
            result = Some(runtime.block_on(endpoint.refresh(&tokens)));
        });
        (counted.bytes_max, result.unwrap())
    }

    /// A client of this API, whose token nobody renews.
    fn client(&self) -> ClientWithMiddleware {
        let session = Session::builder(Refusing).allow_origin(self.url(""));
        let session = session.tokens(TokenSet::new("a0").with_refresh_token("r0")).build().unwrap();
        let http = reqwest::Client::builder().gzip(true).build().unwrap();
        ClientBuilder::new(http).with(session).build()
    }
}

fn say(mut stream: TcpStream, answer: &Answer) -> std::io::Result<()> {
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    while !is_whole(&request) {
        let length = stream.read(&mut part)?;
        if length == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..length]);
    }
    for (bytes, times) in answer {
        for _ in 0..*times {
            stream.write_all(bytes)?;
        }
    }
    Ok(())
}

/// A form ends with the client's name, a question to the API with its head.
fn is_whole(request: &[u8]) -> bool {
    match request.starts_with(b"POST") {
        true => request.ends_with(b"client_id=app"),
        false => request.ends_with(b"\r\n\r\n"),
    }
}

/// A server at which nothing can be had.
struct Refusing;

#[async_trait]
impl Refresh for Refusing {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        Err(RefreshError::new(RefreshFailure::Unusable, "scripted"))
    }

    fn provider(&self) -> Provider {
        Provider::digirunner()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
