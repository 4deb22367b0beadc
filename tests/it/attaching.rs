//! What a request gets, and where it may take it.

use std::sync::Arc;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use reqwest::Url;
use reqwest_refresh::{
    ClientAuth, Error, ErrorKind, LoginReason, Refresh, RefreshError, Session, SessionBuilder,
    TokenEndpoint, TokenSet,
};

use crate::support::{Api, Hook, Issuer, Log, Reply, Rig, SECOND, fed_body};

// ---- K-01 ----

/// K-01: A01, A02, R-060.
#[tokio::test]
async fn k_01_a_request_gets_one_sensitive_header_that_was_built_once_for_its_token() {
    let rig = Rig::new(Api::friendly());
    rig.get().await.unwrap();
    rig.get().await.unwrap();
    rig.session.refresh().await.unwrap();
    rig.get().await.unwrap();
    assert_eq!(rig.api.tokens(), ["a0", "a0", "a1"]);
    let seen = rig.api.seen();
    let address = |index: usize| {
        let mut headers = seen[index].headers.get_all(AUTHORIZATION).iter();
        let header = headers.next().unwrap();
        assert!(header.is_sensitive() && headers.next().is_none());
        header.as_bytes().as_ptr()
    };
    assert_eq!(address(0), address(1), "built anew for the second request");
    assert_ne!(address(0), address(2));
}

/// K-01: A02.
#[tokio::test]
async fn k_01_the_issuer_is_asked_once_for_many_requests() {
    let rig = Rig::new(Api::friendly());
    rig.get().await.unwrap();
    assert_eq!(rig.issuer.calls(), 0);
    rig.clock.advance(3600 * SECOND);
    for _ in 0..3 {
        rig.get().await.unwrap();
    }
    assert_eq!(rig.issuer.calls(), 1);
    assert_eq!(rig.api.tokens(), ["a0", "a1", "a1", "a1"]);
}

/// K-01: A03, A04.
#[tokio::test]
async fn k_01_without_a_token_nothing_is_sent_and_the_error_says_why() {
    let hook = Hook::declining();
    let never = Session::builder(Issuer::new());
    let client = Rig::client(&hook.on(never).build().unwrap(), &Api::friendly());
    let error = client.get("https://api.test/").send().await.unwrap_err();
    let kind = Error::find(&error).unwrap().kind().clone();
    assert!(matches!(kind, ErrorKind::LoginRequired(LoginReason::NeverLoggedIn)));

    let rig = Rig::new(Api::friendly());
    rig.get().await.unwrap();
    rig.session.clear().await.unwrap();
    let error = rig.get().await.unwrap_err();
    let kind = Error::find(&error).unwrap().kind().clone();
    assert!(matches!(kind, ErrorKind::LoginRequired(LoginReason::LoggedOut)));
    assert_eq!((rig.api.arrived(), rig.issuer.calls()), (1, 0));
}

/// K-01: A10.
#[tokio::test]
async fn k_01_the_body_is_released_once_the_request_has_failed_or_is_done() {
    let rig = Rig::new(Api::friendly());
    let (feed, body) = fed_body();
    let sent = rig.client.post("https://api.test/").body(body);
    sent.send().await.unwrap();
    assert!(!feed.is_held());

    rig.session.clear().await.unwrap();
    let (feed, body) = fed_body();
    let failed = rig.client.post("https://api.test/").body(body).send().await;
    assert!(failed.is_err());
    assert!(!feed.is_held());
}

// ---- K-02 ----

/// K-02: A06.
#[tokio::test]
async fn k_02_the_callers_own_header_is_left_alone_whatever_the_session_is_like() {
    for case in ["fresh", "expired", "logged out"] {
        let rig = Rig::new(Api::new(|_| Reply::status(401)));
        match case {
            "expired" => rig.clock.advance(3600 * SECOND),
            "logged out" => rig.session.clear().await.unwrap(),
            _ => {}
        }
        for url in ["https://api.test/", "http://api.test/", "https://other.test/"] {
            let request = rig.client.get(url).header(AUTHORIZATION, "Basic own");
            assert_eq!(request.send().await.unwrap().status(), 401, "{case} {url}");
        }
        let seen = rig.api.seen();
        assert_eq!(seen.len(), 3, "{case}: sent again");
        for seen in seen {
            let headers: Vec<_> = seen.headers.get_all(AUTHORIZATION).iter().collect();
            assert_eq!(headers, ["Basic own"], "{case}");
        }
        assert_eq!(rig.issuer.calls(), 0, "{case}");
    }
}

// ---- K-03 ----

/// K-03: R-041.
#[tokio::test]
async fn k_03_the_token_goes_to_the_allowed_origins_only() {
    type Settings = fn(SessionBuilder) -> SessionBuilder;
    let default: Settings = |builder| builder;
    let listed: Settings = |builder| {
        builder.allow_origin("https://one.test/some/path").allow_origin("https://two.test:8443")
    };
    let any: Settings = SessionBuilder::allow_any_origin;
    for (case, settings, url, token) in [
        ("the endpoint's own", default, "https://api.test/x?y=z", "a0"),
        ("its port, spelled out", default, "https://api.test:443/", "a0"),
        ("another port", default, "https://api.test:8443/", "-"),
        ("plain http", default, "http://api.test/", "-"),
        ("a subdomain", default, "https://www.api.test/", "-"),
        ("a longer name", default, "https://api.test.evil.test/", "-"),
        ("another", default, "https://one.test/", "-"),
        ("listed", listed, "https://one.test/", "a0"),
        ("listed with port", listed, "https://two.test:8443/", "a0"),
        ("listed, default port", listed, "https://two.test/", "-"),
        ("no longer implied", listed, "https://api.test/", "-"),
        ("any", any, "https://whatever.test/", "a0"),
    ] {
        let rig = Rig::with(Api::friendly(), Issuer::new(), settings);
        // Elsewhere a dead token is nobody's business.
        if token == "-" {
            rig.clock.advance(3600 * SECOND);
        }
        rig.client.get(url).header("x", "y").send().await.unwrap();
        let seen = rig.api.seen();
        assert_eq!(seen[0].token().unwrap_or("-"), token, "{case}");
        assert_eq!(seen[0].url.as_str(), Url::parse(url).unwrap().as_str());
        if token == "-" {
            assert_eq!(seen[0].headers.len(), 1, "{case}: not untouched");
        }
        assert_eq!((seen.len(), rig.issuer.calls()), (1, 0), "{case}");
    }
}

/// K-03: R-041.
#[tokio::test]
async fn k_03_a_401_from_elsewhere_is_the_callers_and_logs_one_warning_with_its_origin() {
    let (log, _guard) = Log::start();
    let rig = Rig::new(Api::new(|seen| match seen.url.path() {
        "/ok" => Reply::status(200),
        "/403" => Reply::status(403),
        _ => Reply::status(401),
    }));
    for path in ["ok", "403"] {
        let url = format!("https://other.test/{path}");
        rig.client.get(url).send().await.unwrap();
    }
    assert_eq!(log.lines("allow_origin"), Vec::<String>::new());
    for url in
        ["https://other.test/secret?key=SECRET", "https://other.test/", "https://third.test/"]
    {
        let response = rig.client.get(url).send().await.unwrap();
        assert_eq!(response.status(), 401);
    }
    let lines = log.lines("allow_origin");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN"), "{lines:?}");
    assert!(lines[0].contains("allow_origin(\"https://other.test\")"));
    assert!(!lines[0].to_lowercase().contains("secret"));
    assert_eq!((rig.api.arrived(), rig.issuer.calls()), (5, 0));
}

/// K-03 and K-08: allowing these origins would not help, so nobody is told to.
#[tokio::test]
async fn k_03_a_401_that_an_allowed_origin_would_not_change_logs_no_warning() {
    let (log, _guard) = Log::start();
    let api = Api::new(|seen| match seen.url.host_str() {
        Some("link.test") => Reply::status(401).coming_from("https://one.test/"),
        _ => Reply::status(401),
    });
    let rig = Rig::with(api, Issuer::new(), |builder| builder.allow_origin("https://one.test"));
    for (case, url) in [
        ("the token endpoint", "https://api.test/oauth/token"),
        ("sent on to an allowed origin", "https://link.test/"),
    ] {
        rig.client.get(url).send().await.unwrap();
        assert_eq!(log.lines("allow_origin"), Vec::<String>::new(), "{case}");
    }
    assert_eq!(rig.api.tokens(), ["-", "-"]);
    let request = rig.client.get("https://one.test/");
    let own = request.header(AUTHORIZATION, "Basic own").send().await;
    assert_eq!(own.unwrap().status(), 401);
    assert_eq!(log.lines("allow_origin"), Vec::<String>::new(), "own header");
}

/// K-03: `build()` says that an origin must be named, and which text is none.
#[test]
fn k_03_a_session_that_does_not_know_its_origin_is_not_built() {
    let says = |builder: SessionBuilder| {
        let error = builder.build().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration));
        error.to_string()
    };
    let message = says(Session::builder(Homemade));
    assert!(message.contains("allow_origin"), "{message}");
    let built = |builder: SessionBuilder| builder.build().is_ok();
    assert!(built(Session::builder(Homemade).allow_origin("https://api.test")));
    assert!(built(Session::builder(Homemade).allow_any_origin()));
    for text in [
        "",
        "api.test",
        "api.test:443",
        "/orders",
        "*",
        "https://",
        "https://*.api.test:x",
        "ftp://api.test",
        "file:///etc",
        "data:text/plain,x",
    ] {
        let message = says(Session::builder(Homemade).allow_origin(text));
        assert!(message.contains(&format!("`{text}`")), "{text}: {message}");
        // One that is wrong is not made good by another, nor by all.
        says(
            Session::builder(Issuer::new())
                .allow_any_origin()
                .allow_origin("https://api.test")
                .allow_origin(text),
        );
    }
}

// ---- K-04 ----

/// K-04: A08, R-003.
#[tokio::test]
async fn k_04_plain_http_is_refused_before_sending_except_on_loopback_or_where_it_is_meant() {
    for (case, url, is_meant, is_sent) in [
        ("plain", "http://api.test/", false, false),
        ("private network", "http://10.0.0.1/", false, false),
        ("looks like loopback", "http://127.0.0.1.x.test/", false, false),
        ("meant", "http://api.test/", true, true),
        ("IPv4 loopback", "http://127.0.0.1:8080/", false, true),
        ("IPv6 loopback", "http://[::1]/", false, true),
        ("localhost", "http://localhost/", false, true),
        ("https", "https://api.test/", false, true),
    ] {
        let rig = Rig::with(Api::rejecting(&["a0"]), Issuer::new(), |builder| {
            let builder = builder.allow_any_origin();
            match is_meant {
                true => builder.allow_insecure_http(),
                false => builder,
            }
        });
        let result = rig.client.get(url).send().await;
        if is_sent {
            assert_eq!(result.unwrap().status(), 200, "{case}");
            assert_eq!(rig.api.tokens(), ["a0", "a1"], "{case}: also the replay");
            continue;
        }
        let error = result.unwrap_err();
        let kind = Error::find(&error).expect(case).kind().clone();
        assert!(matches!(kind, ErrorKind::Insecure), "{case}: {kind:?}");
        assert_eq!((rig.api.arrived(), rig.issuer.calls()), (0, 0), "{case}");
    }
}

/// K-04: R-003.
#[test]
fn k_04_a_token_endpoint_over_plain_http_is_refused_when_the_session_is_built() {
    let built = |token: &str, revoke: &str, is_meant: bool| {
        let endpoint = TokenEndpoint::new(token, ClientAuth::none("app")).unwrap();
        let builder = Session::builder(endpoint.with_revocation_url(revoke).unwrap());
        let builder = match is_meant {
            true => builder.allow_insecure_http(),
            false => builder,
        };
        builder.build().map(drop).map_err(|error| match error.kind() {
            ErrorKind::Insecure => "insecure",
            _ => "something else",
        })
    };
    let (safe, unsafe_) = ("https://as.test/a", "http://as.test/b");
    assert_eq!(built(safe, safe, false), Ok(()));
    assert_eq!(built(unsafe_, safe, false), Err("insecure"));
    assert_eq!(built(safe, unsafe_, false), Err("insecure"), "revocation");
    assert_eq!(built(unsafe_, unsafe_, true), Ok(()));
    let loopback = "http://127.0.0.1:1/token";
    assert_eq!(built(loopback, "http://localhost/r", false), Ok(()));
}

// ---- K-05 ----

/// K-05: I01, X04, R-044. On the wire: `wire_api`.
#[tokio::test]
async fn k_05_a_401_from_another_origin_than_was_asked_is_returned_as_it_is() {
    for (case, from, is_rejection) in [
        ("not allowed", "https://evil.test/", false),
        ("allowed, but not asked", "https://two.test/", false),
        ("the same name over http", "http://api.test/", false),
        ("another port", "https://api.test:8443/", false),
        ("the same", "https://api.test/elsewhere", true),
    ] {
        for way in ["bytes", "stream", "without replay"] {
            let api = Api::new(move |seen| match seen.token() {
                Some("a0") => Reply::status(401).coming_from(from).body("theirs"),
                _ => Reply::status(200),
            });
            let rig = Rig::with(api, Issuer::new(), |builder| {
                builder
                    .allow_origin("https://api.test")
                    .allow_origin("https://two.test")
                    .replay(way != "without replay")
            });
            let request = rig.client.post("https://api.test/");
            let request = match way {
                "stream" => request.body(fed_body().1),
                _ => request.body("mine"),
            };
            let response = request.send().await.unwrap();
            rig.session.settle().await.unwrap();
            let calls = usize::from(is_rejection);
            assert_eq!(rig.issuer.calls(), calls, "{case}, {way}: refreshes");
            if !is_rejection {
                assert_eq!(rig.api.tokens(), ["a0"], "{case}, {way}");
                assert_eq!(response.status(), 401, "{case}, {way}");
                assert_eq!(response.url().as_str(), from, "{case}, {way}");
                assert_eq!(response.text().await.unwrap(), "theirs");
            }
        }
    }
}

// ---- K-07: on the wire, `wire_api` ----

/// K-07: A09.
#[tokio::test]
async fn k_07_an_empty_access_token_is_a_failed_refresh_and_no_setting() {
    let empty = || TokenSet::new("").with_refresh_token("r1");
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(3600 * SECOND);
    rig.issuer.then(Ok(empty()));
    let error = rig.get().await.unwrap_err();
    let message = Error::find(&error).unwrap().to_string();
    assert!(message.contains("access token is empty"), "{message}");
    assert_eq!(rig.api.arrived(), 0);
    rig.clock.advance(60 * SECOND);
    rig.get().await.unwrap();
    assert_eq!(rig.issuer.sent(), ["r0", "r1"], "r0 was used up");

    assert!(rig.session.set_tokens(empty()).await.is_err());
    rig.get().await.unwrap();
    assert_eq!(rig.api.tokens(), ["a1", "a1"], "nothing has changed");
    let built = Session::builder(Issuer::new()).tokens(empty()).build();
    assert!(matches!(built.unwrap_err().kind(), ErrorKind::Configuration));
}

// ---- K-08 ----

/// K-08: E16, E17.
#[tokio::test]
async fn k_08_the_token_and_revocation_endpoints_are_left_alone_whatever_the_session_is_like() {
    for case in ["fresh", "expired", "logged out", "another origin is allowed"] {
        let api = Api::new(|_| Reply::status(401).body("endpoint"));
        let rig = Rig::with(api, Issuer::new(), |builder| match case {
            "another origin is allowed" => builder.allow_origin("https://one.test"),
            _ => builder,
        });
        match case {
            "expired" => rig.clock.advance(3600 * SECOND),
            "logged out" => rig.session.clear().await.unwrap(),
            _ => {}
        }
        for url in [
            "https://api.test/oauth/token",
            "https://api.test:443/oauth/token?tenant=1",
            "https://api.test/oauth/revocation",
        ] {
            let sent = rig.client.post(url).body("grant_type=x").send().await;
            let response = sent.expect(case);
            assert_eq!(response.status(), 401, "{case} {url}");
            assert_eq!(response.text().await.unwrap(), "endpoint", "{case}");
        }
        assert_eq!(rig.api.tokens(), ["-", "-", "-"], "{case}");
        assert_eq!(rig.issuer.calls(), 0, "{case}");
    }
    let rig = Rig::new(Api::friendly());
    for path in ["oauth/token/", "oauth/tokens", "oauth", "oauth/token/info"] {
        let url = format!("https://api.test/{path}");
        rig.client.get(url).send().await.unwrap();
    }
    assert_eq!(rig.api.tokens(), ["a0"; 4], "only the endpoints themselves");
}

/// K-08: E16, E17: a `Refresh` that uses the guarded client itself does not wait for itself.
#[tokio::test]
async fn k_08_a_refresh_through_the_guarded_client_neither_waits_for_itself_nor_refreshes_again() {
    let refresh = Recursive::default();
    let api = Api::new(|seen| match seen.url.path() {
        "/oauth/token" => Reply::status(401),
        _ => Reply::status(401).body("the API's own"),
    });
    let session = Session::builder(refresh.clone()).tokens(Rig::tokens(3600)).build().unwrap();
    let client = Rig::client(&session, &api);
    *refresh.client.lock() = Some(client.clone());
    let error = client.get("https://api.test/").send().await.unwrap_err();
    let error = Error::find(&error).unwrap();
    let rejection = error.rejection().expect("the original 401");
    assert_eq!(&rejection.body()[..], b"the API's own");
    assert_eq!(api.tokens(), ["a0", "-"], "the call, then the refresh");
}

#[derive(Clone, Default)]
struct Recursive {
    client: Arc<Mutex<Option<reqwest_middleware::ClientWithMiddleware>>>,
}

#[async_trait]
impl Refresh for Recursive {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        use reqwest_refresh::RefreshFailure::Configuration;
        let client = self.client.lock().clone().unwrap();
        let url = "https://api.test/oauth/token";
        let response = client.post(url).send().await.unwrap();
        assert_eq!(response.status(), 401);
        Err(RefreshError::new(Configuration, "401"))
    }

    fn endpoints(&self) -> Vec<Url> {
        vec![Url::parse("https://api.test/oauth/token").unwrap()]
    }
}

/// A way to refresh that says nothing about where the API is.
struct Homemade;

#[async_trait]
impl Refresh for Homemade {
    async fn refresh(&self, _: &TokenSet) -> Result<TokenSet, RefreshError> {
        Ok(TokenSet::new("a1"))
    }
}
