//! Ways that lead to somebody else: redirects, and names that look like another's.

use std::net::SocketAddr;

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_refresh::{ErrorKind, ServerMetadata, Session, SessionBuilder, TokenSet};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::bad_input::pair;
use crate::hostile::{NONSENSE, OLD, UNAVAILABLE, Villain, says_no_secret};
use crate::support::{Api, Authority, Hook, Issuer, Rig, Server, Then, Tls, Wire, answer, http};
use crate::token_request::FINE;

const STATUSES: [u16; 6] = [300, 301, 302, 303, 307, 308];

/// An answer that sends its reader to `place`.
fn elsewhere(status: u16, place: &str, body: &str) -> Then {
    Then::Say(http(status, &format!("location: {place}\r\n"), body))
}

/// Everywhere that nobody is to be sent to; `theirs` listens.
fn places(own: &Wire, theirs: &Wire) -> [(&'static str, String); 12] {
    let host = theirs.host();
    [
        ("the same place", own.url("/token")),
        ("the same origin", "/CANARY".into()),
        ("a stranger", theirs.url("/token")),
        ("a stranger, on the same scheme", format!("//{host}/token")),
        ("a stranger, by https", format!("https://{host}/token")),
        ("with a user", format!("http://CANARY:CANARY@{host}/")),
        ("a name before a name", format!("http://{}@{host}/", own.host())),
        ("a file", "file:///etc/passwd".into()),
        ("a program", "javascript:CANARY".into()),
        ("no URL", "http://[CANARY".into()),
        ("nothing", String::new()),
        ("no text", "\u{ff}".into()),
    ]
}

/// K-30, K-33, R-044: the refresh token goes nowhere else, nor is anything taken from there.
#[tokio::test]
async fn k_30_no_redirect_of_a_token_endpoint_is_followed_or_costs_the_old_pair() {
    let villain = Villain::start().await;
    let theirs = Wire::saying(http(200, "", FINE)).await;
    for status in STATUSES {
        for (case, place) in places(&villain.wire, &theirs) {
            let before = villain.wire.requests().len();
            let then = elsewhere(status, &place, "");
            villain.harms_nobody(case, then, UNAVAILABLE, NONSENSE).await;
            let then = elsewhere(status, &place, FINE);
            villain.harms_nobody(case, then, UNAVAILABLE, "refused the request").await;
            // One attempt each, and one of the refresh that follows.
            assert_eq!(villain.wire.requests().len(), before + 4, "{status}, {case}");
        }
    }
    assert!(theirs.requests().is_empty());
}

/// K-30, K-73, R-044: nor do the tokens that are to be revoked.
#[tokio::test]
async fn k_73_no_redirect_of_a_revocation_endpoint_is_followed() {
    let villain = Villain::start().await;
    let theirs = Wire::saying(http(200, "", "")).await;
    for status in STATUSES {
        for (case, place) in places(&villain.wire, &theirs) {
            villain.says(elsewhere(status, &place, ""));
            let before = villain.wire.requests().len();
            let error = villain.victim().session.log_out().await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Unavailable), "{status}, {case}: {error}");
            says_no_secret(case, &error);
            assert_eq!(villain.wire.requests().len(), before + 2, "{status}, {case}");
        }
    }
    assert!(theirs.requests().is_empty());
}

/// A session with the old pair that may send its token to `origin`.
fn session(issuer: &Issuer, hook: &Hook, origin: String) -> Session {
    let tokens = TokenSet::new(OLD[0]).with_refresh_token(OLD[1]);
    let builder = Session::builder(issuer.clone()).allow_origin(origin).tokens(tokens);
    hook.on(builder).build().unwrap()
}

fn client(session: &Session, http: reqwest::ClientBuilder) -> ClientWithMiddleware {
    ClientBuilder::new(http.build().unwrap()).with(session.clone()).build()
}

/// K-05, K-03, R-044: no token goes with a redirect to somebody else, whatever the address looks like;
/// a 401 from there refreshes nothing, and no wish of theirs is followed.
#[tokio::test]
async fn k_05_no_redirect_of_an_api_takes_the_token_along() {
    let demand = "www-authenticate: Bearer error=\"invalid_token\"\r\n";
    let theirs = Wire::saying(http(401, demand, r#"{"error":"invalid_token"}"#)).await;
    let (issuer, hook) = (Issuer::new(), Hook::declining());
    for status in &STATUSES[1..] {
        for place in ["http://$", "//$/", "http://CANARY:CANARY@$/", "http://127.0.0.1:1@$/"] {
            let place = place.replace('$', &theirs.host());
            let to = format!("location: {place}\r\n");
            let ours = Wire::saying(http(*status, &to, "")).await;
            let session = session(&issuer, &hook, ours.url(""));
            let client = client(&session, reqwest::Client::builder());
            let request = client.post(ours.url("/orders")).body("{}");
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401, "{status}, {place}");
            assert_eq!(ours.requests().len(), 1, "{status}, {place}");
            assert!(ours.requests()[0].contains("authorization: Bearer CANARY-a0"));
            assert_eq!(pair(&session), OLD, "{status}, {place}");
        }
    }
    assert_eq!(theirs.requests().len(), 4 * 5);
    for request in theirs.requests() {
        assert!(!request.contains(OLD[0]) && !request.contains("Bearer"), "{request}");
    }
    assert_eq!((issuer.calls(), hook.calls()), (0, 0));
}

/// One port at which both are to be had: TLS, and what anybody can listen to.
async fn both(tls: &Tls, plain: &Wire) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let secure = tls.url("").replace("https://", "");
    let plain = plain.host();
    tokio::spawn(async move {
        loop {
            let (mut outside, _) = listener.accept().await.unwrap();
            let mut first = [0];
            outside.peek(&mut first).await.unwrap();
            // RFC 8446 §5.1: a handshake record.
            let inside = if first == [22] { &secure } else { &plain };
            let mut inside = TcpStream::connect(inside).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut outside, &mut inside).await });
        }
    });
    address
}

/// K-05, K-04, R-003: also where only the scheme is another: the same host, the same port.
#[tokio::test]
async fn k_04_no_redirect_takes_the_token_from_https_to_http() {
    let authority = Authority::new("ours");
    let secure = Server::start(|seen| {
        let host = seen.headers["host"].to_str().unwrap();
        crate::support::redirect(307, &format!("http://{host}/plain"))
    })
    .await;
    let inside = secure.url("").replace("http://", "");
    let tls = Tls::before_address(inside, &authority).await;
    let plain = Wire::saying(http(401, "", "")).await;
    let origin = format!("https://{}", both(&tls, &plain).await);
    let (issuer, hook) = (Issuer::new(), Hook::declining());
    let session = session(&issuer, &hook, origin.clone());
    let trusting = reqwest::Client::builder().tls_certs_only([authority.root()]);
    let response = client(&session, trusting).get(format!("{origin}/a")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.url().scheme()), (401, "http"));
    assert_eq!(secure.log(), [format!("/a {}", OLD[0])]);
    let requests = plain.requests();
    assert_eq!(requests.len(), 1);
    assert!(!requests[0].contains(OLD[0]), "{}", requests[0]);
    assert_eq!((issuer.calls(), pair(&session)), (0, OLD.map(str::to_owned)));
}

/// K-05, K-26: A → B → A → B → …: the token goes with the first request alone, and reqwest gives up.
#[tokio::test]
async fn k_05_a_redirect_that_never_ends_is_the_callers_error_and_no_refresh() {
    let (issuer, hook) = (Issuer::new(), Hook::declining());
    let other = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let to = std::sync::Arc::clone(&other);
    let ours = Server::start(move |_| crate::support::redirect(307, to.get().unwrap())).await;
    let back = ours.url("/back");
    let theirs = Server::start(move |_| crate::support::redirect(307, &back)).await;
    other.set(theirs.url("/away")).unwrap();
    let session = session(&issuer, &hook, ours.url(""));
    let error = client(&session, reqwest::Client::builder()).get(ours.url("/a")).send().await;
    assert!(error.unwrap_err().is_redirect());
    let with_token = |log: Vec<String>| log.iter().filter(|line| line.contains(OLD[0])).count();
    assert_eq!((with_token(ours.log()), with_token(theirs.log())), (1, 0));
    assert_eq!((issuer.calls(), hook.calls(), pair(&session)), (0, 0, OLD.map(str::to_owned)));
}

/// K-03: what counts is where the request would go, by the parser that sends it there.
#[tokio::test]
async fn k_03_a_name_that_looks_like_an_allowed_one_gets_no_token() {
    let allowed = |builder: SessionBuilder| {
        builder.allow_origin("https://api.test").allow_origin("https://bücher.test")
    };
    for (case, url, gets_it) in [
        ("in capitals", "HTTPS://API.TEST/", true),
        ("its port", "https://api.test:443/", true),
        ("its port, with a zero", "https://api.test:0443/", true),
        ("an empty port", "https://api.test:/", true),
        ("escaped", "https://%61pi.test/", true),
        ("in wide letters", "https://ａｐｉ.test/", true),
        ("with a wide dot", "https://api。test/", true),
        ("with a backslash", "https:\\\\api.test\\x", true),
        ("a path that looks like a host", "https://api.test\\@evil.test/", true),
        ("in Punycode", "https://xn--bcher-kva.test/", true),
        ("in its own letters", "https://BÜCHER.test/", true),
        ("in other letters", "https://bucher.test/", false),
        ("in Cyrillic", "https://арі.test/", false),
        ("as a user", "https://api.test@evil.test/", false),
        ("as a user, escaped", "https://api.test%2F@evil.test/", false),
        ("as a user with a port", "https://api.test:443@evil.test/", false),
        ("a longer name", "https://api.test.evil.test/", false),
        ("a longer name, escaped", "https://api.test%2eevil.test/", false),
        ("a name that ends so", "https://evilapi.test/", false),
        ("below it", "https://evil.api.test/", false),
        ("with a dot at the end", "https://api.test./", false),
        ("another port", "https://api.test:444/", false),
        ("a port that wraps around", "https://api.test:65535/", false),
        ("the port of http", "https://api.test:80/", false),
        ("http at the port of https", "http://api.test:443/", false),
        ("a websocket", "wss://api.test/", false),
    ] {
        let rig = Rig::with(Api::friendly(), Issuer::new(), allowed);
        // What is not even sent shows the token to nobody.
        let _ = rig.client.get(url).send().await;
        let tokens = rig.api.tokens();
        assert_eq!(tokens.contains(&"a0".to_owned()), gets_it, "{case}: {tokens:?}");
        assert_eq!(rig.issuer.calls(), 0, "{case}");
    }
}

/// R-111, K-04, K-63: metadata that was tampered with names no place that could not be one, and its
/// errors stay short whatever it says.
#[tokio::test]
async fn k_04_metadata_that_was_tampered_with_is_refused_in_few_words() {
    let long = "a".repeat(500_000);
    for (case, member, value) in [
        ("an endless host", "token_endpoint", format!("http://{long}.test/")),
        ("an endless path", "token_endpoint", format!("http://evil.test/{long}")),
        ("an endless query", "revocation_endpoint", format!("http://evil.test/?{long}")),
        ("an endless scheme", "token_endpoint", format!("{long}://evil.test/")),
        ("an endless issuer", "issuer", format!("https://{long}.test")),
        ("a file", "token_endpoint", "file:///CANARY".into()),
        ("a user", "token_endpoint", "https://CANARY:CANARY@as.test/".into()),
        ("a line break", "token_endpoint", "http://evil.test\r\nCANARY".into()),
        ("http, elsewhere", "token_endpoint", "http://192.168.0.1/CANARY".into()),
        (
            "a name that begins like loopback",
            "token_endpoint",
            "http://127.0.0.1.evil.test/".into(),
        ),
    ] {
        let server = Server::start(move |seen| {
            let own = seen.url.origin().ascii_serialization();
            let mut document = json!({"issuer": own, "token_endpoint": format!("{own}/token")});
            document[member] = value.clone().into();
            answer(200, document.to_string())
        })
        .await;
        let error = ServerMetadata::discover(&server.url("")).await.expect_err(case);
        let kind = error.kind();
        let is_refused = matches!(kind, ErrorKind::Configuration | ErrorKind::Insecure);
        assert!(is_refused, "{case}: {error}");
        assert!(error.to_string().len() < 1000, "{case}: {} bytes", error.to_string().len());
        says_no_secret(case, &error);
    }
}
