//! JSON that is doubled, deep, wide or huge, and texts that are none.

use reqwest_refresh::{Error, ErrorKind, LoginReason, ServerMetadata, TokenSet};

use crate::bad_input::pair;
use crate::hostile::{NONSENSE, UNAVAILABLE, Villain};
use crate::support::{Then, http};
use crate::token_request::FINE;

const MIB: usize = 1 << 20;

fn answer(body: impl Into<Vec<u8>>) -> Then {
    let body = body.into();
    let head = format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n", body.len());
    Then::Bytes([head.into_bytes(), body].concat())
}

fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(bytes).collect()
}

/// `value` in as many brackets as are.
fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}null{}", open.repeat(depth), close.repeat(depth))
}

/// K-33, K-07, K-63: what has no access token that could be used.
#[tokio::test]
async fn k_33_json_without_a_usable_token_costs_nobody_the_old_pair() {
    const NO_TOKEN: &str = "no access token";
    const NO_HEADER: &str = "cannot be in a header";
    let token = |value: &str| answer(format!(r#"{{"access_token":{value}}}"#));
    let bytes = |token: &[u8]| answer([b"{\"access_token\":\"", token, b"\"}"].concat());
    let unclosed = r#"{"access_token":"CANARY-a1","x":"#.to_owned();
    let villain = Villain::start().await;
    for (case, then, words) in [
        ("UTF-16, big-endian", answer(utf16(FINE, u16::to_be_bytes)), NONSENSE),
        ("UTF-16, little-endian", answer(utf16(FINE, u16::to_le_bytes)), NONSENSE),
        ("UTF-32", answer(FINE.bytes().flat_map(|b| [0, 0, 0, b]).collect::<Vec<_>>()), NONSENSE),
        ("100,000 arrays, not closed", answer(unclosed.clone() + &"[".repeat(100_000)), NONSENSE),
        ("100,000 objects, not closed", answer(unclosed + &"{\"a\":".repeat(100_000)), NONSENSE),
        ("nothing but arrays", answer(nested(100_000, "[", "]")), NONSENSE),
        ("a text", answer("\"CANARY\""), NONSENSE),
        ("an array of it", answer(format!("[{FINE}]")), NONSENSE),
        ("twice", answer(FINE.repeat(2)), NONSENSE),
        ("a comment", answer(format!("/* CANARY */ {FINE}")), NONSENSE),
        ("JavaScript", answer("{access_token: 'CANARY'}"), NONSENSE),
        ("a line break in a text", token("\"CANARY\n\""), NONSENSE),
        ("a zero in a text", token("\"CANARY\0\""), NONSENSE),
        ("half a character", token(r#""CANARY\ud800""#), NO_TOKEN),
        ("a number of 1 MB", token(&"9".repeat(MIB - 20)), NO_TOKEN),
        ("an object", token(r#"{"CANARY":"CANARY"}"#), NO_TOKEN),
        ("an array of it", token(r#"["CANARY"]"#), NO_TOKEN),
        ("another header", token(r#""CANARY\r\nX-Evil: 1""#), NO_HEADER),
        ("a line break", token(r#""CANARY\n""#), NO_HEADER),
        ("a zero", token(r#""CANARY\u0000""#), NO_HEADER),
        ("a separator of lines", token(r#""CANARY\u2028""#), NO_HEADER),
        ("no UTF-8", bytes(b"CANARY\xff"), NO_HEADER),
        ("Latin-1", bytes(b"CANARY\xe4"), NO_HEADER),
        ("UTF-8 that is longer than it need be", bytes(b"CANARY\xc0\xaf"), NO_HEADER),
    ] {
        villain.harms_nobody(case, then, UNAVAILABLE, words).await;
    }
}

/// What a refresh comes to: both tokens; or the kind of error.
fn outcome(result: Result<TokenSet, Error>) -> String {
    match result {
        Ok(tokens) => format!("{} {}", tokens.access_token(), tokens.refresh_token().unwrap()),
        Err(error) => error.kind().to_string(),
    }
}

/// K-33: of a member that is there twice the last one counts, as in RFC 7519 §4 and ECMAScript.
#[tokio::test]
async fn k_33_of_a_member_that_is_there_twice_the_last_one_counts() {
    let pair = r#""access_token":"a1","refresh_token":"r1""#;
    let villain = Villain::start().await;
    for (case, members, expected) in [
        (
            "access token",
            r#""access_token":"a2","refresh_token":"r1","access_token":"a1""#,
            "a1 r1",
        ),
        ("refresh token", &format!(r#""refresh_token":"r2",{pair}"#), "a1 r1"),
        (
            "escaped",
            r#""access_token":"a2","refresh_token":"r1","\u0061ccess_token":"a1""#,
            "a1 r1",
        ),
        ("no refresh token", &format!(r#"{pair},"refresh_token":null"#), "a1 CANARY-r0"),
        ("no access token", &format!(r#"{pair},"access_token":null"#), UNAVAILABLE),
        ("taken back", &format!(r#""error":"invalid_grant",{pair},"error":null"#), "a1 r1"),
        (
            "not taken back",
            &format!(r#""error":null,{pair},"error":"invalid_grant""#),
            "login required",
        ),
        ("100,000 times", &format!("{}{pair}", r#""x":"CANARY","#.repeat(60_000)), "a1 r1"),
    ] {
        villain.says(answer(format!("{{{members}}}")));
        assert_eq!(outcome(villain.victim().refresh().await), expected, "{case}");
    }
}

/// K-33, K-10: what nobody needs costs nobody the rest.
#[tokio::test]
async fn k_33_a_pair_is_read_whatever_else_is_in_the_answer() {
    let with = |member: &str| format!("{},{member}}}", FINE.trim_end_matches('}'));
    let many = |count: usize, member: fn(usize) -> String| {
        with(&(0..count).map(member).collect::<Vec<_>>().join(","))
    };
    let villain = Villain::start().await;
    for (case, body) in [
        ("100,000 arrays", with(&format!("\"x\":{}", nested(100_000, "[", "]")))),
        ("100,000 objects", with(&format!("\"x\":{}", nested(100_000, "{\"a\":", "}")))),
        ("a number of 1 MB", with(&format!("\"x\":{}", "9".repeat(MIB - 100)))),
        ("a fraction of 1 MB", with(&format!("\"expires_in\":3600.{}", "9".repeat(MIB - 150)))),
        ("an exponent of 1 MB", with(&format!("\"expires_in\":1e{}", "9".repeat(MIB - 150)))),
        ("a text of 1 MB", with(&format!("\"expires_in\":\"{}\"", "9".repeat(MIB - 150)))),
        ("500,000 zeros", with(&format!("\"x\":[0{}]", ",0".repeat(500_000)))),
        ("80,000 members", many(80_000, |number| format!("\"{number}\":1"))),
        ("a mark at the beginning", format!("\u{feff}{FINE}")),
        ("many", format!("{}{FINE}", "\u{feff}".repeat(1000))),
        ("a name without a character", with("\"\\ud800\":1").replace("\\ud800", "\\u0000")),
    ] {
        villain.says(answer(body));
        assert_eq!(outcome(villain.victim().refresh().await), "a1 r1", "{case}");
    }
}

/// K-07, K-01: a token is what it is, and a refresh token is never part of a head.
#[tokio::test]
async fn k_07_tokens_are_sent_as_they_are_or_not_at_all() {
    let long = "x".repeat(400 * 1024);
    let evil = "r1\r\nX-Evil: 1\r\n\r\n\0";
    let villain = Villain::start().await;
    for (case, access_token, refresh_token) in
        [("400 KB each", &*long, &*long), ("another header", "a1", evil)]
    {
        let both =
            serde_json::json!({"access_token": access_token, "refresh_token": refresh_token});
        villain.says(answer(both.to_string()));
        let victim = villain.victim();
        victim.refresh().await.expect(case);
        assert_eq!(pair(&victim.session), [access_token, refresh_token], "{case}");
        villain.repents();
        assert_eq!(outcome(victim.refresh().await), "a1 r1", "{case}");
        let request = villain.wire.requests().pop().unwrap();
        assert!(!request.to_ascii_lowercase().contains("\r\nx-evil"), "{case}");
        let form =
            url::form_urlencoded::parse(request.split("\r\n\r\n").nth(1).unwrap().as_bytes());
        let sent: Vec<_> = form.filter(|(name, _)| name == "refresh_token").collect();
        assert_eq!(sent, [("refresh_token".into(), refresh_token.into())], "{case}");
    }
}

/// K-07, K-32: of a refresh token that is no UTF-8 nobody knows what it is. The old one is perhaps
/// dead; what was made of the new one certainly is.
#[tokio::test]
async fn k_32_a_refresh_token_that_cannot_be_read_does_not_replace_the_old_one() {
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let villain = Villain::start().await;
    for (case, then) in [
        ("JSON", answer(b"{\"access_token\":\"a1\",\"refresh_token\":\"r\xff\"}")),
        ("a form", Then::Say(http(200, form, "access_token=a1&refresh_token=r%ff"))),
    ] {
        villain.says(then);
        let victim = villain.victim();
        assert_eq!(outcome(victim.refresh().await), "a1 CANARY-r0", "{case}");
    }
    villain.says(answer(b"{\"access_token\":\"\xff\",\"refresh_token\":\"r\xff\"}"));
    let victim = villain.victim();
    assert_eq!(outcome(victim.refresh().await), UNAVAILABLE);
    assert_eq!(pair(&victim.session)[1], "CANARY-r0");
}

/// K-50, K-63: a dead session keeps what the server said for as long as it is dead; but no megabytes.
#[tokio::test]
async fn k_50_the_other_members_of_an_endless_refusal_are_not_kept() {
    let villain = Villain::start().await;
    for (size, is_kept) in [(64 * 1024, true), (64 * 1024 + 1, false)] {
        let refusal = r#"{"error":"invalid_grant","error_description":"why","x":"y"}"#;
        let blanks = " ".repeat(size - refusal.len());
        villain.says(Then::Say(http(400, "", &format!("{refusal}{blanks}"))));
        let error = villain.victim().refresh().await.unwrap_err();
        let ErrorKind::LoginRequired(LoginReason::Refused { error, .. }) = error.kind() else {
            panic!("{error}");
        };
        assert_eq!((error.code(), error.description()), (Some("invalid_grant"), Some("why")));
        assert_eq!(error.member("x").is_some(), is_kept, "{size}");
    }
}

/// R-111: who is named last is who it is.
#[tokio::test]
async fn r_111_metadata_that_names_two_issuers_is_that_of_the_last() {
    let villain = Villain::start().await;
    let ours = format!("\"issuer\":\"{}\"", villain.wire.url(""));
    let theirs = "\"issuer\":\"https://evil.test\"";
    let deep = format!("\"x\":{}", nested(100_000, "[", "]"));
    for (members, is_ours) in [
        (format!("{theirs},{ours}"), true),
        (format!("{ours},{theirs}"), false),
        (format!("{ours},{deep}"), true),
    ] {
        villain.says(answer(format!("{{{members}}}")));
        let result = ServerMetadata::discover(&villain.wire.url("")).await;
        assert_eq!(result.is_ok(), is_ours, "{result:?}");
    }
}
