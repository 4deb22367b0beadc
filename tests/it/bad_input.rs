//! Whatever comes in: a typed error that says what to do, or the cautious verdict. Never a panic,
//! never a lost pair, never a hang.

use std::time::Duration;

use reqwest_refresh::{
    ClientAuth, Error, ErrorKind, Event, ManualClock, RefreshFailure, Session, TokenEndpoint,
    TokenSet,
};
use serde_json::json;

use crate::support::{Api, Hook, Issuer, Rig, SECOND, ScriptedStore, Then, Wire, http, jwt};

/// An error of this kind whose message has these words.
#[track_caller]
pub(crate) fn check(case: &str, error: &Error, kind: &str, words: &str) {
    assert_eq!(error.kind().to_string(), kind, "{case}: {error}");
    assert!(error.to_string().contains(words), "{case}: {error}");
}

/// Both tokens of the session; `-` for none.
pub(crate) fn pair(session: &Session) -> [String; 2] {
    let tokens = session.current_tokens();
    let tokens = tokens.as_ref();
    [
        tokens.map_or("-", TokenSet::access_token).to_owned(),
        tokens.and_then(TokenSet::refresh_token).unwrap_or("-").to_owned(),
    ]
}

fn public() -> ClientAuth {
    ClientAuth::none("app")
}

/// K-30, R-003, R-004, R-009.
#[test]
fn k_30_a_malformed_endpoint_is_refused_with_the_reason() {
    for (case, url, words) in [
        ("empty", "", "malformed"),
        ("no scheme", "gateway.example.com/token", "malformed"),
        ("a path", "/oauth/token", "malformed"),
        ("no host", "https://", "malformed"),
        ("a bad port", "https://a.test:99999/", "malformed"),
        ("a bad address", "https://[::1/", "malformed"),
        ("another scheme", "ftp://a.test/token", "must begin with https://"),
        ("a file", "file:///etc/passwd", "must begin with https://"),
        ("data", "data:text/plain,x", "must begin with https://"),
        ("a fragment", "https://a.test/token#x", "fragment (RFC 6749"),
        ("a password", "https://u:CANARY@a.test/token", "use ClientAuth"),
        ("a user", "https://CANARY@a.test/token", "use ClientAuth"),
    ] {
        for error in [
            TokenEndpoint::new(url, public()).unwrap_err(),
            TokenEndpoint::new("https://a.test/token", public())
                .unwrap()
                .with_revocation_url(url)
                .unwrap_err(),
        ] {
            check(case, &error, "configuration", words);
            assert!(!format!("{error} {error:?}").contains("CANARY"), "K-63: {case}");
        }
    }
    for base in [
        "gateway.example.com",
        "",
        "https://",
        "https:///",
        "https://gateway.example.com/?tenant=a",
        "ftp://gateway.example.com",
    ] {
        let error = TokenEndpoint::digirunner(base, "tspclient", None).unwrap_err();
        check(base, &error, "configuration", "URL");
    }
}

/// K-03, K-04.
#[test]
fn k_04_an_endpoint_or_origin_that_would_leak_is_refused_when_the_session_is_built() {
    let endpoint = |url: &str| TokenEndpoint::new(url, public()).unwrap();
    let plain = Session::builder(endpoint("http://a.test/token")).build().unwrap_err();
    check("plain http", &plain, "insecure URL", "use https");
    let revocation = endpoint("https://a.test/token").with_revocation_url("http://a.test/revoke");
    let plain = Session::builder(revocation.unwrap()).build().unwrap_err();
    check("plain http, revocation", &plain, "insecure URL", "use https");
    for origin in ["", "a.test", "//a.test", "ftp://a.test", "data:x", "https://", "null", "*"] {
        let builder = Session::builder(endpoint("https://a.test/token"));
        let error = builder.allow_origin(origin).build().unwrap_err();
        check(origin, &error, "configuration", "is not an origin such as https://");
    }
}

/// K-31, R-014.
#[test]
fn k_31_a_client_that_basic_cannot_carry_is_refused() {
    let make = |auth| TokenEndpoint::new("https://a.test/token", auth);
    for (case, auth, words) in [
        ("colon, digiRunner", ClientAuth::digirunner("a:b", Some("s")), "colon"),
        ("colon, raw", ClientAuth::basic_raw("a:b", "s"), "colon"),
        ("control character", ClientAuth::basic_raw("a\n", "s"), "control"),
        ("control character in the secret", ClientAuth::basic_raw("a", "CANARY\0"), "control"),
        ("no id", ClientAuth::body("", "s"), "client id is empty"),
    ] {
        let error = make(auth).unwrap_err();
        check(case, &error, "configuration", words);
        assert!(!format!("{error} {error:?}").contains("CANARY"), "K-63: {case}");
    }
    let error = TokenEndpoint::digirunner("https://a.test", "a:b", Some("s")).unwrap_err();
    check("digirunner()", &error, "configuration", "ask for another id");
    assert!(make(ClientAuth::basic("a:b", "s\n")).is_ok(), "form-encoding carries everything");
}

/// Access tokens that cannot be in a header, and what is said of them.
const UNSENDABLE: [(&str, &str); 6] = [
    ("", "the access token is empty"),
    ("a\r\nX-Evil: 1", "characters that cannot be in a header"),
    ("a\0", "characters that cannot be in a header"),
    ("a b", "characters that cannot be in a header"),
    ("tök", "characters that cannot be in a header"),
    ("\u{7f}", "characters that cannot be in a header"),
];

fn unsendable(token: &str) -> TokenSet {
    TokenSet::new(token).with_refresh_token("burnt")
}

/// K-01, G12: from the caller.
#[tokio::test]
async fn k_01_a_token_that_cannot_be_sent_is_refused_where_it_is_handed_in() {
    for (token, words) in UNSENDABLE {
        let endpoint = TokenEndpoint::new("https://a.test/token", public()).unwrap();
        let error = Session::builder(endpoint).tokens(unsendable(token)).build().unwrap_err();
        check(token, &error, "configuration", words);

        let rig = Rig::new(Api::friendly());
        let error = rig.session.set_tokens(unsendable(token)).await.unwrap_err();
        check(token, &error, "configuration", words);
        assert_eq!(pair(&rig.session), ["a0", "r0"], "{token:?}");
        assert_eq!(rig.outcome().await, "200");
        assert_eq!(rig.api.tokens(), ["a0"]);
    }
}

/// K-07, G12: from the server. The access token is of no use, but the refresh token has rotated.
#[tokio::test]
async fn k_07_a_token_that_cannot_be_sent_is_a_failed_refresh_that_keeps_the_new_refresh_token() {
    for (token, words) in UNSENDABLE {
        let rig = Rig::new(Api::friendly());
        rig.issuer.then(Ok(unsendable(token)));
        let error = rig.session.refresh().await.unwrap_err();
        check(token, &error, "authorization server unavailable", words);
        assert_eq!(pair(&rig.session), ["a0", "burnt"], "{token:?}");
        assert_eq!(rig.outcome().await, "200", "K-36: the old one is still good");

        rig.clock.advance(error.retry_after().unwrap());
        assert_eq!(rig.session.refresh().await.unwrap().access_token(), "a1");
        assert_eq!(rig.issuer.sent(), ["r0", "burnt"]);
    }
}

/// K-51, K-50, G12: from the login hook.
#[tokio::test]
async fn k_51_a_hook_that_returns_nonsense_has_declined() {
    for (token, _) in UNSENDABLE {
        let hook = Hook::returning(unsendable(token));
        let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| hook.on(builder));
        rig.clock.advance(3600 * SECOND);
        rig.issuer.then_fails(RefreshFailure::Terminal);
        assert_eq!(rig.outcome().await, "login required", "{token:?}");
        assert_eq!(rig.outcome().await, "login required", "{token:?}");
        assert_eq!((hook.calls(), rig.issuer.calls()), (1, 1), "{token:?}");
        assert_eq!(pair(&rig.session), ["a0", "r0"], "{token:?}");
        rig.session.set_tokens(TokenSet::new("later")).await.unwrap();
        assert_eq!(rig.outcome().await, "200");
    }
}

/// K-61, K-28, G12: from the store. What is there stays there: somebody may still need it.
#[tokio::test]
async fn k_61_a_stored_token_that_cannot_be_sent_is_neither_used_nor_overwritten() {
    for (token, words) in UNSENDABLE {
        let store = ScriptedStore::holding(unsendable(token)).await;
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
        assert_eq!(rig.outcome().await, "200", "{token:?}: the pair of the build is good");
        rig.clock.advance(3600 * SECOND);
        let error = rig.session.tokens().await.unwrap_err();
        check(token, &error, "token store", words);
        assert_eq!((pair(&rig.session), rig.issuer.calls()), (["a0".into(), "r0".into()], 0));
        assert_eq!(store.access_token().await.as_deref(), Some(token));
        rig.session.set_tokens(TokenSet::new("later")).await.unwrap();
        assert_eq!(store.access_token().await.as_deref(), Some("later"), "a login does");
    }
}

/// K-33, K-30, K-35, Q-37, G04, G05, G11: through a session, on the wire. Nothing is adopted, nobody is
/// logged out, and the error says what came.
#[tokio::test]
async fn k_33_no_answer_of_the_server_costs_the_old_pair() {
    const NONSENSE: &str = "is not a JSON object";
    let big = vec![b' '; 64 * 1024];
    let endless = Then::Endless("HTTP/1.1 200 x\r\ncontent-length: 10485760\r\n\r\n".into(), big);
    let say = |status, headers: &str, body: &str| Then::Say(http(status, headers, body));
    let year = "retry-after: 31536000\r\n";
    for (case, then, words) in [
        ("10 MB", endless, "larger than 1 MiB"),
        ("HTML", say(200, "content-type: text/html\r\n", "<html>Sign in</html>"), NONSENSE),
        ("HTML at 401", say(401, "", "<html>Sign in</html>"), NONSENSE),
        ("half a JSON", say(200, "", r#"{"access_token":"x","ref"#), NONSENSE),
        ("nothing", say(200, "", ""), NONSENSE),
        ("a redirect", say(302, "location: /login\r\n", ""), NONSENSE),
        ("a redirect with the body", say(307, "location: https://evil.test/\r\n", ""), NONSENSE),
        ("no token", say(200, "", r#"{"expires_in":5}"#), "no access token"),
        ("an empty token", say(200, "", r#"{"access_token":""}"#), "no access token"),
        ("a control character", say(200, "", r#"{"access_token":"a\n"}"#), "cannot be in a header"),
        ("a year", say(503, year, ""), NONSENSE),
        ("a year, and a reason", say(429, year, r#"{"error":"slow_down"}"#), "slow_down"),
    ] {
        let wire = Wire::start(move |_| then.clone()).await;
        let endpoint = TokenEndpoint::new(&wire.url("/token"), public()).unwrap();
        let tokens = TokenSet::new("a0").with_refresh_token("r0");
        let builder = Session::builder(endpoint).clock(ManualClock::new());
        let session = builder
            .tokens(tokens)
            .on_login_required(|why| async move { panic!("not a reason: {why:?}") })
            .build()
            .unwrap();
        let error = session.refresh().await.unwrap_err();
        check(case, &error, "authorization server unavailable", words);
        assert_eq!(pair(&session), ["a0", "r0"], "{case}");
        let pause = error.retry_after().unwrap();
        assert!(pause >= SECOND && pause <= 3600 * SECOND, "{case}: {pause:?}");
        assert_eq!(session.tokens().await.unwrap().access_token(), "a0", "{case}: K-36");
        assert_eq!(wire.requests().len(), 1, "{case}");
    }
}

/// K-10, X08: an end that cannot be is no end: the token is sent, and a 401 tells.
#[tokio::test]
async fn k_10_an_absurd_exp_is_an_unknown_end() {
    for (case, claims) in [
        ("milliseconds", json!({"exp": 1_684_742_522_981_u64})),
        ("negative", json!({"exp": -1})),
        ("far below zero", json!({"exp": -1e30})),
        ("10^30", json!({"exp": 1e30})),
        ("the largest number", json!({"exp": f64::MAX})),
        ("a text", json!({"exp": "soon"})),
        ("null", json!({"exp": null})),
        ("iat after exp, in milliseconds", json!({"exp": 1e30, "iat": 1e33})),
    ] {
        let token = jwt(&claims);
        let tokens = TokenSet::new(&*token).with_refresh_token(jwt(&claims));
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.tokens(tokens));
        for _ in 0..3 {
            rig.clock.advance(Duration::from_secs(365 * 86_400));
            assert_eq!(rig.outcome().await, "200", "{case}");
        }
        assert_eq!(rig.api.tokens(), vec![token; 3], "{case}");
        assert_eq!(rig.issuer.calls(), 0, "{case}");
        let tokens = rig.session.current_tokens().unwrap();
        assert_eq!((tokens.expires_at(), tokens.refresh_expires_at()), (None, None), "{case}");
    }
}

/// K-26, B14: settings that make no sense are bounded, not fatal.
#[tokio::test]
async fn k_26_absurd_settings_neither_panic_nor_loop() {
    for jitter in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        for time in [Duration::ZERO, Duration::MAX] {
            let rig = Rig::with(Api::rejecting(&["a0"]), Issuer::new(), |builder| {
                builder
                    .jitter(jitter)
                    .refresh_window(time)
                    .login_notice(time)
                    .login_timeout(time)
                    .refresh_budget(usize::MAX, time)
                    .rejection_budget(usize::MAX, time)
            });
            assert_eq!(rig.outcome().await, "200", "{jitter} {time:?}");
            rig.clock.advance(3600 * SECOND);
            assert_eq!(rig.outcome().await, "200", "{jitter} {time:?}");
            rig.session.settle().await.unwrap();
            assert!(rig.issuer.calls() <= 2, "{jitter} {time:?}");
        }
    }
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        builder
            .refresh_budget(0, Duration::ZERO)
            .refresh_timeout(Duration::MAX)
            .store_timeout(Duration::MAX)
    });
    let error = rig.session.refresh().await.unwrap_err();
    check("a budget of none", &error, "too many refreshes", "budget");
    assert_eq!(pair(&rig.session), ["a0", "r0"]);
}

/// K-71: nothing of the above is silent.
#[tokio::test]
async fn k_71_a_failed_refresh_is_told_with_its_next_try() {
    let rig = Rig::new(Api::friendly());
    let mut events = rig.session.events();
    rig.issuer.then(Ok(unsendable("")));
    let error = rig.session.refresh().await.unwrap_err();
    let Some(Event::RefreshFailed { error: told, .. }) = events.next().await else {
        panic!("not told");
    };
    assert_eq!(told.retry_after(), error.retry_after());
    assert!(matches!(told.kind(), ErrorKind::Unavailable));
}
