//! Answers that are none, to each of the four who ask: the refresh, the logout, the discovery, the
//! request to the API.

use reqwest_middleware::ClientBuilder;
use reqwest_refresh::{ErrorKind, ServerMetadata, Session};

use crate::bad_input::pair;
use crate::hostile::{LOST, NONSENSE, UNAVAILABLE, Villain, says_no_secret};
use crate::support::{Hook, Issuer, Rig, Then, http, until};
use crate::token_request::FINE;

const MIB: usize = 1 << 20;
const NO_TOKEN: &str = "no access token";
const TOO_LARGE: &str = "larger than 1 MiB";

/// An answer with this head and this body, as they are.
fn raw(head: &str, body: impl AsRef<[u8]>) -> Then {
    Then::Bytes([head.as_bytes(), b"\r\n\r\n", body.as_ref()].concat())
}

/// The pair that an answer below has in it.
fn theirs() -> String {
    FINE.replace("\"a1", "\"CANARY-a1").replace("\"r1", "\"CANARY-r1")
}

fn chunks(bytes: &str) -> Then {
    raw("HTTP/1.1 200 x\r\ntransfer-encoding: chunked", bytes)
}

/// What lies about its length.
fn misframed() -> Vec<(&'static str, Then, &'static str)> {
    let fine = theirs();
    let length = |length: &str| raw(&format!("HTTP/1.1 200 x\r\ncontent-length: {length}"), &fine);
    let first = format!("{:x}\r\n{fine}\r\n", fine.len());
    let both = "HTTP/1.1 200 x\r\ncontent-length: 5\r\ntransfer-encoding: chunked";
    let two = "HTTP/1.1 200 x\r\ncontent-length: 5\r\ncontent-length: 6";
    vec![
        ("more than it says", length("10"), NONSENSE),
        ("nothing, it says", length("0"), NONSENSE),
        ("less than it says", length("1000"), LOST),
        ("less than it says, by the largest number", length("18446744073709551613"), LOST),
        ("a length beyond all numbers", length("18446744073709551616"), LOST),
        ("a length below nothing", length("-1"), LOST),
        ("a length in words", length("many"), LOST),
        ("two lengths", raw(two, &fine), LOST),
        ("a length, and chunks that are none", raw(both, &fine), LOST),
        ("chunks that are none", chunks(&fine), LOST),
        ("a chunk of a size beyond all numbers", chunks("fffffffffffffffff\r\n{}"), LOST),
        ("a chunk of a size below nothing", chunks("-1\r\n{}"), LOST),
        ("a chunk that is longer than it says", chunks(&format!("2\r\n{fine}\r\n0\r\n\r\n")), LOST),
        ("chunks without an end", chunks(&first), LOST),
        ("chunks, and then garbage", chunks(&format!("{first}CANARY\r\n\r\n")), LOST),
    ]
}

/// What is no HTTP, or only almost.
fn misspoken() -> Vec<(&'static str, Then, &'static str)> {
    let fine = theirs();
    let head = |head: &str| raw(head, &fine);
    vec![
        ("HTTP/0.9", Then::Say(fine.clone()), LOST),
        ("a version to come", head("HTTP/9.9 200 x"), LOST),
        ("a status of two digits", head("HTTP/1.1 20 x"), LOST),
        ("a status below all", head("HTTP/1.1 001 x"), LOST),
        ("a status in words", head("HTTP/1.1 fine"), LOST),
        ("another protocol from here on", head("HTTP/1.1 101 x\r\nupgrade: x"), NONSENSE),
        ("go on, and nothing more", Then::Say("HTTP/1.1 100 x\r\n\r\n".into()), LOST),
        ("a header without a name", head("HTTP/1.1 200 x\r\n: CANARY"), LOST),
        ("a header without a colon", head("HTTP/1.1 200 x\r\nCANARY"), LOST),
        ("a header with a zero", head("HTTP/1.1 200 x\r\nx: CANARY\0"), LOST),
        ("zeros", Then::Bytes(vec![0; 1000]), LOST),
        ("HTTP/2", Then::Bytes(b"\0\0\x12\x04\0\0\0\0\0".repeat(9)), LOST),
        ("TLS", Then::Bytes(b"\x15\x03\x03\0\x02\x02\x28".into()), LOST),
    ]
}

/// What does not end, or not soon.
fn floods() -> Vec<(&'static str, Then, &'static str)> {
    let endless = |head: &str, again: &[u8]| Then::Endless(head.into(), again.repeat(1000));
    let header = |name: &str, size: usize| {
        http(200, &format!("{name}: Bearer realm=\"CANARY{}\"\r\n", "x".repeat(size)), FINE)
    };
    let chunked = "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("258\r\n{}\r\n", "CANARY".repeat(100));
    let (ok, close) = ("HTTP/1.1 200 x\r\n", "HTTP/1.1 200 x\r\nconnection: close\r\n\r\n");
    vec![
        ("10,000 headers", Then::Say(http(200, &"x: CANARY\r\n".repeat(10_000), FINE)), LOST),
        ("headers without an end", endless(ok, b"x: CANARY\r\n"), LOST),
        ("a header without an end", endless("HTTP/1.1 200 x\r\nx: ", b"CANARY"), LOST),
        ("a reason without an end", endless("HTTP/1.1 200 ", b"CANARY"), LOST),
        ("1 MB of WWW-Authenticate", Then::Say(header("www-authenticate", MIB)), LOST),
        ("a body without an end", endless(close, b"CANARY"), TOO_LARGE),
        ("chunks without an end", endless(chunked, chunk.as_bytes()), TOO_LARGE),
        ("a size without an end", endless(chunked, b"f"), LOST),
        ("an extension without an end", endless(chunked, b"1;x=CANARY"), LOST),
        ("trailers without an end", endless(&format!("{chunked}0\r\n"), b"x: CANARY\r\n"), LOST),
    ]
}

/// What is whole, but not what was asked for.
fn misnamed() -> Vec<(&'static str, Then, &'static str)> {
    let page = "<!doctype html><title>CANARY</title>";
    let packed = |coding: &str| {
        let packed = b"\x1f\x8b\x08\0\0\0\0\0\0\x03CANARY";
        let length = packed.len();
        let head =
            format!("HTTP/1.1 200 x\r\ncontent-encoding: {coding}\r\ncontent-length: {length}");
        raw(&head, packed)
    };
    let say = |status, kind: &str, body: &str| {
        Then::Say(http(status, &format!("content-type: {kind}\r\n"), body))
    };
    let form = "application/x-www-form-urlencoded";
    vec![
        ("packed, unasked", packed("gzip"), NONSENSE),
        ("packed in four ways", packed("zstd, br, deflate, gzip"), NONSENSE),
        ("a page called JSON", say(200, "application/json", page), NONSENSE),
        ("a page called JSON, at 400", say(400, "application/json", page), NONSENSE),
        ("a page called a form", say(200, form, page), NO_TOKEN),
        ("a form called JSON", say(200, "application/json", "access_token=CANARY"), NONSENSE),
        ("forbidden, says a page", say(403, "text/html", page), NONSENSE),
        ("no type that could be", say(200, "\u{ff}", page), NONSENSE),
        ("an end of the session, in a page", say(400, "text/html", "invalid_grant"), NONSENSE),
    ]
}

fn all() -> Vec<(&'static str, Then, &'static str)> {
    [misframed(), misspoken(), floods(), misnamed()].concat()
}

/// K-33, K-30, K-34, K-54, K-63: the token endpoint.
#[tokio::test]
async fn k_33_whatever_a_token_endpoint_says_the_old_pair_is_kept_and_nobody_logs_in() {
    let villain = Villain::start().await;
    for (case, then, words) in all() {
        villain.harms_nobody(case, then, UNAVAILABLE, words).await;
    }
}

/// K-73, K-54, K-63: the revocation endpoint. RFC 7009 §2.2: what is in an answer of 200 counts for
/// nothing, so some of these are no failures.
#[tokio::test]
async fn k_73_whatever_a_revocation_endpoint_says_a_logout_is_one() {
    let villain = Villain::start().await;
    for (case, then, words) in all() {
        villain.says(then);
        let victim = villain.victim();
        let result = victim.passing_time(victim.session.log_out()).await;
        assert_eq!(pair(&victim.session), ["-", "-"], "{case}");
        assert!(result.is_err() || words == NONSENSE || words == NO_TOKEN, "{case}");
        if let Err(error) = result {
            assert!(matches!(error.kind(), ErrorKind::Unavailable), "{case}: {error}");
            says_no_secret(case, &error);
        }
    }
}

/// K-30: the metadata.
#[tokio::test]
async fn k_30_whatever_is_said_of_a_server_it_is_an_error() {
    let villain = Villain::start().await;
    for (case, then, words) in all() {
        villain.says(then);
        let error = ServerMetadata::discover(&villain.wire.url("")).await.expect_err(case);
        let is_lost = words == LOST;
        assert_eq!(matches!(error.kind(), ErrorKind::Unavailable), is_lost, "{case}: {error}");
        assert!(is_lost || matches!(error.kind(), ErrorKind::Configuration), "{case}: {error}");
        says_no_secret(case, &error);
    }
}

/// K-40, K-41, K-34: an API. What is no answer is the caller's error; what is one, is the caller's
/// answer; neither is a reason to refresh.
#[tokio::test]
async fn k_40_whatever_an_api_says_that_is_no_401_refreshes_nothing() {
    let villain = Villain::start().await;
    let (issuer, hook) = (Issuer::new(), Hook::declining());
    let builder = Session::builder(issuer.clone()).tokens(Rig::tokens(3600));
    let session = hook.on(builder.allow_origin(villain.wire.url(""))).build().unwrap();
    let client = ClientBuilder::new(reqwest::Client::new()).with(session.clone()).build();
    for (case, then, words) in all() {
        villain.says(then);
        let before = villain.wire.requests().len();
        let result = client.get(villain.wire.url("/orders")).send().await;
        assert!(result.is_ok() || words == LOST, "{case}: {result:?}");
        drop(result);
        assert_eq!(villain.wire.requests().len(), before + 1, "{case}");
        assert_eq!((issuer.calls(), hook.calls()), (0, 0), "{case}");
        assert_eq!(pair(&session), ["a0", "r0"], "{case}");
    }
}

/// K-40, K-26, K-44: a 401 is a 401 whatever comes with it: one refresh, and one replay.
#[tokio::test]
async fn k_40_a_401_that_comes_with_garbage_costs_one_refresh_and_one_replay() {
    let huge = format!("www-authenticate: {}\r\n", "a=b \"".repeat(60_000));
    let endless = |head: &str| {
        Then::Endless(format!("HTTP/1.1 401 x\r\n{head}\r\n\r\n"), b"5\r\naaaaa\r\n".repeat(1000))
    };
    let length = |length: &str| {
        Then::Say(format!("HTTP/1.1 401 x\r\ncontent-length: {length}\r\n\r\nCANARY"))
    };
    for (case, then) in [
        ("300 KB of WWW-Authenticate", Then::Say(http(401, &huge, ""))),
        ("98 challenges", Then::Say(http(401, &"www-authenticate: X y\r\n".repeat(98), ""))),
        ("less than it says", length("100")),
        ("less than it says, by the largest number", length("18446744073709551613")),
        ("chunks without an end", endless("transfer-encoding: chunked")),
        ("a body without an end", endless("connection: close")),
        (
            "chunks that are none",
            Then::Say("HTTP/1.1 401 x\r\ntransfer-encoding: chunked\r\n\r\nzz".into()),
        ),
        ("packed, and it is not", Then::Say(http(401, "content-encoding: gzip\r\n", "CANARY"))),
    ] {
        let villain = Villain::start().await;
        villain.says(then);
        let issuer = Issuer::new();
        let builder = Session::builder(issuer.clone()).tokens(Rig::tokens(3600));
        let session = builder.allow_origin(villain.wire.url("")).build().unwrap();
        let client = ClientBuilder::new(reqwest::Client::new()).with(session.clone()).build();
        let response = client.get(villain.wire.url("/orders")).send().await.expect(case);
        assert_eq!(response.status(), 401, "{case}");
        drop(response);
        assert_eq!((villain.wire.requests().len(), issuer.calls()), (2, 1), "{case}");
        until(|| villain.wire.closed() == 2).await;
    }
}

/// K-33, K-34, K-50: half an answer is none, wherever it breaks off: no pair, no verdict.
#[tokio::test]
async fn k_33_an_answer_that_breaks_off_counts_for_nothing_until_it_is_whole() {
    let dead = r#"{"error":"invalid_grant"}"#;
    let villain = Villain::start().await;
    for (status, body) in [(200, FINE), (400, dead)] {
        let chunked = format!(
            "HTTP/1.1 {status} x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            &body[..5],
            body.len() - 5,
            &body[5..],
        );
        let unframed = format!("HTTP/1.1 {status} x\r\n\r\n{body}");
        for answer in [http(status, "", body), chunked, unframed] {
            for end in 0..answer.len() {
                let (part, rest) = answer.split_at(end);
                villain.says(Then::Say(part.into()));
                let victim = villain.victim();
                let error = victim.refresh().await.expect_err(part);
                assert!(matches!(error.kind(), ErrorKind::Unavailable), "before {rest:?}: {error}");
                villain.has_harmed_nobody(part, &victim, &error).await;
            }
            villain.says(Then::Say(answer));
            let whole = villain.victim();
            let result = whole.refresh().await;
            assert_eq!(result.is_ok(), status == 200, "{result:?}");
            assert_eq!(result.is_err_and(|error| error.is_login_required()), status == 400);
        }
    }
}
