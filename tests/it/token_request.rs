//! The token endpoint on a real loopback socket: what is sent, byte by byte, and what is made of
//! every answer.

use std::time::Duration;

use reqwest_refresh::{
    ClientAuth, Error, ErrorKind, LoginReason, ManualClock, Provider, Refresh, RefreshError,
    RefreshFailure, Session, TokenEndpoint, TokenSet,
};

use crate::support::{SECOND, Then, Wire, http, until};

pub(crate) const FINE: &str = r#"{"access_token":"a1","refresh_token":"r1","expires_in":3600}"#;

pub(crate) fn tokens() -> TokenSet {
    TokenSet::new("a0").with_refresh_token("r0&+ ä")
}

pub(crate) fn endpoint(wire: &Wire) -> TokenEndpoint {
    TokenEndpoint::new(&wire.url("/token"), ClientAuth::none("app")).unwrap()
}

/// What one attempt makes of `answer`.
async fn attempt(answer: String) -> Result<TokenSet, RefreshError> {
    let wire = Wire::saying(answer).await;
    let result = endpoint(&wire).refresh(&tokens()).await;
    assert_eq!(wire.requests().len(), 1, "one attempt is one request");
    result
}

/// A session with an expired token, whose clock the test moves.
pub(crate) fn session(endpoint: TokenEndpoint) -> (Session, ManualClock) {
    let clock = ManualClock::new();
    let session = Session::builder(endpoint)
        .clock(clock.clone())
        .tokens(tokens().with_expires_in(SECOND))
        .build()
        .unwrap();
    clock.advance(SECOND);
    (session, clock)
}

/// Asks for a token in a task of its own.
pub(crate) fn ask(session: &Session) -> tokio::task::JoinHandle<Result<TokenSet, Error>> {
    let session = session.clone();
    tokio::spawn(async move { session.tokens().await })
}

/// Waits for the backoff between two attempts; the deadline of an attempt is longer.
pub(crate) async fn backoff(clock: &ManualClock) -> Duration {
    let shortest = || clock.sleepers().first().copied();
    until(|| shortest().is_some_and(|sleep| sleep < 20 * SECOND)).await;
    shortest().unwrap()
}

/// K-30, K-31, R-001, R-002, R-004, R-005, R-007, R-008, R-010, Q-20, Q-70, Q-71, Q-73.
#[tokio::test]
async fn k_30_the_request_is_these_bytes_and_no_others() {
    for (case, auth, header, parameters) in [
        ("none", ClientAuth::none("a p"), None, "&client_id=a+p"),
        ("body", ClientAuth::body("app", "s=+"), None, "&client_id=app&client_secret=s%3D%2B"),
        ("Basic", ClientAuth::basic("a:b", "+= %"), Some("YSUzQWI6JTJCJTNEKyUyNQ=="), ""),
        ("Basic, raw", ClientAuth::basic_raw("ab", "+= %"), Some("YWI6Kz0gJQ=="), ""),
        (
            "digiRunner, Scenario I of the manual page",
            ClientAuth::digirunner("tspclient", Some("tsp123abcd")),
            Some("dHNwY2xpZW50OmRITndNVEl6WVdKalpBPT0="),
            "",
        ),
        (
            "digiRunner, Scenario II of the manual page",
            ClientAuth::digirunner("tspclient", None::<&str>),
            Some("dHNwY2xpZW50Og=="),
            "",
        ),
    ] {
        let wire = Wire::saying(http(200, "", FINE)).await;
        let endpoint = TokenEndpoint::new(&wire.url("/a/token?tenant=x%20y"), auth).unwrap();
        let fresh = endpoint.refresh(&tokens()).await.unwrap();
        assert_eq!((fresh.access_token(), fresh.refresh_token()), ("a1", Some("r1")));

        let body = "grant_type=refresh_token&refresh_token=r0%26%2B+%C3%A4".to_owned() + parameters;
        let mut expected = vec![
            "POST /a/token?tenant=x%20y HTTP/1.1".to_owned(),
            "accept: application/json".into(),
            "content-type: application/x-www-form-urlencoded".into(),
            format!("host: {}", wire.host()),
            format!("content-length: {}", body.len()),
        ];
        expected.extend(header.map(|value| format!("authorization: Basic {value}")));
        let request = wire.requests().remove(0);
        let (head, sent) = request.split_once("\r\n\r\n").unwrap();
        let mut lines: Vec<_> = head.split("\r\n").collect();
        lines.sort_unstable();
        expected.sort_unstable();
        assert_eq!(lines, expected, "{case}");
        assert_eq!(sent, body, "{case}");
    }
}

/// K-30, R-005, R-011, Q-75.
#[tokio::test]
async fn k_30_extra_parameters_are_sent_once_and_never_repeat_the_standard_ones() {
    let wire = Wire::saying(http(200, "", FINE)).await;
    let endpoint = endpoint(&wire)
        .with_scope("read write")
        .with_parameter("audience", "https://api.test/?a=b")
        .unwrap()
        .with_parameter("empty", "")
        .unwrap();
    for name in [
        "grant_type",
        "refresh_token",
        "scope",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
        "empty",
    ] {
        let error = endpoint.clone().with_parameter(name, "x").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration), "{name}");
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
    }
    endpoint.refresh(&tokens()).await.unwrap();
    assert!(wire.requests()[0].ends_with(
        "&scope=read+write&client_id=app&audience=https%3A%2F%2Fapi.test%2F%3Fa%3Db&empty="
    ));
}

/// K-30, K-81, DIGIRUNNER.md §3: the answers' cookies would be another grant.
#[tokio::test]
async fn k_30_no_cookie_is_sent_back_and_no_connection_is_kept() {
    let cookies = "set-cookie: jti=41fa8a7b; Path=/\r\nset-cookie: idp_type=x; Path=/\r\n";
    let answer = http(200, cookies, FINE);
    let wire = Wire::start(move |_| Then::Keep(answer.clone())).await;
    let builder = reqwest::Client::builder().pool_max_idle_per_host(10);
    #[cfg(feature = "cookies")]
    let builder = builder.cookie_store(true);
    let endpoint = endpoint(&wire).with_http(builder).unwrap();
    for round in 1..=2 {
        endpoint.refresh(&tokens()).await.unwrap();
        until(|| wire.closed() == round).await;
    }
    for request in wire.requests() {
        assert!(!request.to_ascii_lowercase().contains("cookie"), "{request}");
    }
    assert_eq!(wire.requests().len(), 2);
}

/// K-30, R-044: a 307 would carry the refresh token on.
#[tokio::test]
async fn k_30_no_redirect_is_followed_whatever_the_users_client_says() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Wire::saying(http(200, "", FINE)).await;
        let location = format!("location: {}\r\n", elsewhere.url("/token"));
        let wire = Wire::saying(http(status, &location, "")).await;
        let eager = reqwest::Client::builder().redirect(reqwest::redirect::Policy::limited(10));
        let endpoint = endpoint(&wire).with_http(eager).unwrap();
        let error = endpoint.refresh(&tokens()).await.unwrap_err();
        assert_eq!(error.failure(), RefreshFailure::Unusable, "{status}");
        assert_eq!(wire.requests().len(), 1, "{status}");
        assert!(elsewhere.requests().is_empty(), "{status}");
    }
}

/// K-33, K-30, X08, G04, G05, Q-22: a typed failure each, and its words have no URL in them.
#[tokio::test]
async fn k_33_what_cannot_be_an_answer_is_a_typed_failure() {
    use RefreshFailure::{Busy, Lost, Unusable};
    let html = "<!doctype html><title>Sign in</title>";
    let half = &FINE[..30];
    let truncated = http(200, "", FINE).replace("content-length: ", "content-length: 1");
    for (case, answer, expected) in [
        ("HTML", http(200, "content-type: text/html\r\n", html), Unusable),
        ("HTML at 401", http(401, "", html), Unusable),
        ("half a JSON", http(200, "", half), Unusable),
        ("nothing", http(200, "", ""), Unusable),
        ("no content", http(204, "", "").replace("content-length: 0\r\n", ""), Unusable),
        ("truncated", truncated, Lost),
        (
            "a broken chunk",
            "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".into(),
            Lost,
        ),
        ("not HTTP", "SSH-2.0-OpenSSH_9\r\n".into(), Lost),
        ("half a head", "HTTP/1.1 200 x\r\nconte".into(), Lost),
        ("silence", String::new(), Lost),
        ("500", http(500, "", "<h1>Oops</h1>"), Unusable),
        ("502", http(502, "", ""), Lost),
        ("503", http(503, "", ""), Busy),
        ("504", http(504, "", ""), Lost),
        ("429", http(429, "", ""), Busy),
    ] {
        let error = attempt(answer).await.expect_err(case);
        assert_eq!(error.failure(), expected, "{case}: {error}");
        let mut next: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = next {
            assert!(!error.to_string().contains("127.0.0.1"), "{case}: {error}");
            next = error.source();
        }
    }
    assert!(attempt(http(201, "", FINE)).await.is_ok(), "any 2xx");
}

/// K-30, G05.
#[tokio::test]
async fn k_30_an_answer_that_does_not_end_is_not_read_to_its_end() {
    let ten = 10 * 1024 * 1024;
    let headers = |length: &str| format!("HTTP/1.1 200 x\r\n{length}\r\n\r\n");
    let blank = vec![b' '; 64 * 1024];
    let chunked = [b"10000\r\n".to_vec(), blank.clone(), b"\r\n".to_vec()].concat();
    for (case, then) in [
        ("10 MB", Then::Endless(headers(&format!("content-length: {ten}")), blank.clone())),
        ("until the connection ends", Then::Endless(headers("connection: close"), blank)),
        ("chunks", Then::Endless(headers("transfer-encoding: chunked"), chunked)),
    ] {
        let wire = Wire::start(move |_| then.clone()).await;
        let error = endpoint(&wire).refresh(&tokens()).await.unwrap_err();
        assert_eq!(error.failure(), RefreshFailure::Unusable, "{case}");
        assert!(error.to_string().contains("1 MiB"), "{case}: {error}");
        until(|| wire.closed() == 1).await;
    }
    let padded = |size: usize| FINE.to_owned() + &" ".repeat(size - FINE.len());
    let most = 1024 * 1024;
    assert!(attempt(http(200, "", &padded(most))).await.is_ok(), "as much as is read");
    assert!(attempt(http(200, "", &padded(most + 1))).await.is_err(), "a byte more");
}

/// K-30, X07: by the session's own clock, whatever the socket does.
#[tokio::test]
async fn k_30_a_slow_answer_is_bounded_by_the_sessions_deadline() {
    let head = "HTTP/1.1 200 x\r\ncontent-length: 60\r\n\r\n{";
    let wire = Wire::start(move |_| Then::Keep(head.into())).await;
    let (session, clock) = session(endpoint(&wire));
    let asked = ask(&session);
    until(|| wire.requests().len() == 1).await;
    clock.advance(30 * SECOND - Duration::from_millis(1));
    tokio::task::yield_now().await;
    assert!(!asked.is_finished());
    clock.advance(Duration::from_millis(1));
    let error = asked.await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable), "{error}");
    assert!(error.to_string().contains("too long"), "{error}");
    assert_eq!(session.current_tokens().unwrap().access_token(), "a0");
    until(|| wire.closed() == 1).await;
}

/// K-30, K-35: the endpoint's own bound, for one attempt.
#[tokio::test]
async fn k_30_a_slow_answer_is_bounded_by_the_attempts_own_time() {
    let wire = Wire::start(|_| Then::Keep("HTTP/1.1 200 x\r\n".into())).await;
    let endpoint = endpoint(&wire).with_timeout(Duration::from_millis(20));
    let error = endpoint.refresh(&tokens()).await.unwrap_err();
    assert_eq!(error.failure(), RefreshFailure::Lost);
}

/// K-30: what the user's client is built with goes to the token endpoint too, our bounds apart.
#[tokio::test]
async fn k_30_the_users_client_is_used_and_a_broken_one_is_an_error() {
    let wire = Wire::saying(http(200, "", FINE)).await;
    let builder = reqwest::Client::builder().user_agent("orders/1.0");
    let named = endpoint(&wire).with_http(builder).unwrap();
    named.refresh(&tokens()).await.unwrap();
    assert!(wire.requests()[0].contains("\r\nuser-agent: orders/1.0\r\n"));

    let broken = reqwest::Client::builder().user_agent("\n");
    let error = endpoint(&wire).with_http(broken).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Configuration), "{error}");
    assert!(std::error::Error::source(&error).is_some(), "with its cause");
}

/// K-30, R-005, Q-75: a provider's parameters; the endpoint's own come first.
#[tokio::test]
async fn k_30_a_providers_parameters_are_sent_and_never_repeat_the_standard_ones() {
    let wire = Wire::saying(http(200, "", FINE)).await;
    let parameters = &[("resource", "theirs"), ("x", "1"), ("scope", "all")];
    let endpoint = endpoint(&wire)
        .with_provider(Provider::rfc6749().with_parameters(parameters))
        .with_parameter("resource", "mine")
        .unwrap();
    endpoint.refresh(&tokens()).await.unwrap();
    let request = wire.requests().remove(0);
    assert!(request.ends_with("&client_id=app&resource=mine&x=1"), "{request}");
    let error = Session::builder(endpoint).build().expect_err("`scope` is refused");
    assert!(matches!(error.kind(), ErrorKind::Configuration));
    assert!(error.to_string().contains("`scope`"), "{error}");
}

/// K-33, Q-20: GitHub without `Accept`.
#[tokio::test]
async fn k_33_a_form_that_is_called_one_is_read() {
    let kind = "Content-Type: Application/X-WWW-Form-Urlencoded; charset=utf-8\r\n";
    let fresh = attempt(http(200, kind, "access_token=a1&refresh_token=r1")).await.unwrap();
    assert_eq!((fresh.access_token(), fresh.refresh_token()), ("a1", Some("r1")));
    let error = attempt(http(200, kind, "error=invalid_grant")).await.unwrap_err();
    assert_eq!(error.failure(), RefreshFailure::Terminal);
    let plain = "Content-Type: text/plain\r\n";
    let error = attempt(http(200, plain, "access_token=a1")).await.unwrap_err();
    assert_eq!(error.failure(), RefreshFailure::Unusable);
}

/// K-50: without a refresh token there is nothing to ask the server for, and the reason says so.
#[tokio::test]
async fn k_50_without_a_refresh_token_the_server_is_not_asked() {
    let wire = Wire::saying(http(200, "", FINE)).await;
    for (tokens, reason) in [
        (Some(TokenSet::new("a0").with_expires_in(SECOND)), LoginReason::NoRefreshToken),
        (None, LoginReason::NeverLoggedIn),
    ] {
        let clock = ManualClock::new();
        let mut builder = Session::builder(endpoint(&wire)).clock(clock.clone());
        if let Some(tokens) = tokens {
            builder = builder.tokens(tokens);
        }
        let session = builder.build().unwrap();
        clock.advance(SECOND);
        match session.tokens().await.unwrap_err().kind() {
            ErrorKind::LoginRequired(why) => assert_eq!(*why, reason),
            other => panic!("{reason:?}: {other:?}"),
        }
    }
    assert_eq!(wire.requests().len(), 0);
}
