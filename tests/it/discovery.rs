//! A server's metadata over a real loopback socket: where it is asked for, and what is believed.

use std::time::Duration;

use reqwest_refresh::{ClientAuth, Error, ServerMetadata, Session};
use serde_json::{Value, json};

use crate::bad_input::check;
use crate::support::{Answer, ClosedPort, Seen, Server, Then, Wire, answer, http, redirect};
use crate::token_request::{FINE, tokens};

const RFC8414: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";

/// A server that publishes the metadata of the issuer at `path`, there where `place` is.
async fn server(place: &'static str, path: &'static str) -> Server {
    serving(place, move |origin| metadata(origin, path)).await
}

/// A server that answers at `place` with what `document` makes of its origin, and elsewhere by 404.
async fn serving(
    place: &'static str,
    document: impl Fn(&str) -> Value + Clone + Send + Sync + 'static,
) -> Server {
    Server::start(move |seen| match seen.url.path() == place {
        true => answer(200, document(&origin(seen)).to_string()),
        false => answer(404, "not found"),
    })
    .await
}

fn origin(seen: &Seen) -> String {
    seen.url.origin().ascii_serialization()
}

fn metadata(origin: &str, path: &str) -> Value {
    json!({
        "issuer": format!("{origin}{path}"),
        "token_endpoint": format!("{origin}/token"),
        "revocation_endpoint": format!("{origin}/revoke"),
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
        "jwks_uri": format!("{origin}/jwks"),
    })
}

/// Metadata in which one member is different.
fn but(seen: &Seen, member: &str, value: &str) -> Answer {
    let mut document = metadata(&origin(seen), "");
    document[member] = value.into();
    answer(200, document.to_string())
}

/// The paths that were asked for.
fn asked(server: &Server) -> Vec<String> {
    server.seen().iter().map(|seen| seen.url.path().to_owned()).collect()
}

async fn discover(server: &Server, path: &str) -> Result<ServerMetadata, Error> {
    ServerMetadata::discover(&server.url(path)).await
}

/// R-110.
#[tokio::test]
async fn r_110_metadata_is_found_at_both_places_in_this_order() {
    for (case, place, path, expected) in [
        ("RFC 8414", RFC8414, "", vec![RFC8414]),
        ("RFC 8414, a slash", RFC8414, "/", vec![RFC8414]),
        (
            "RFC 8414, a path",
            "/.well-known/oauth-authorization-server/issuer1",
            "/issuer1",
            vec!["/.well-known/oauth-authorization-server/issuer1"],
        ),
        ("OpenID", OPENID, "", vec![RFC8414, OPENID]),
        (
            "OpenID, a path: Keycloak",
            "/realms/x/.well-known/openid-configuration",
            "/realms/x",
            vec![
                "/.well-known/oauth-authorization-server/realms/x",
                "/realms/x/.well-known/openid-configuration",
            ],
        ),
    ] {
        let server = server(place, path).await;
        let found = discover(&server, path).await.expect(case);
        assert_eq!(found.issuer(), server.url(path), "{case}");
        let printed = format!("ServerMetadata {{ issuer: {:?}, .. }}", found.issuer());
        assert_eq!(format!("{found:?}"), printed, "{case}");
        assert_eq!(found.auth_methods(), ["client_secret_basic", "private_key_jwt"], "{case}");
        assert_eq!(found.member("jwks_uri"), Some(&server.url("/jwks").into()), "{case}");
        assert_eq!(found.member("userinfo_endpoint"), None, "{case}");
        assert_eq!(asked(&server), expected, "{case}");
    }
}

/// K-30: one GET without cookies, credentials or a body.
#[tokio::test]
async fn k_30_the_question_is_these_bytes_and_no_others() {
    let wire = Wire::saying(http(404, "set-cookie: a=b\r\n", "")).await;
    ServerMetadata::discover(&wire.url("/realms/x")).await.unwrap_err();
    let expected = |path: &str| {
        format!("GET {path} HTTP/1.1\r\naccept: application/json\r\nhost: {}\r\n\r\n", wire.host())
    };
    let paths = [format!("{RFC8414}/realms/x"), format!("/realms/x{OPENID}")];
    assert_eq!(wire.requests(), paths.map(|path| expected(&path)));
}

/// An application of one page answers 200 to everything; so do some gateways, in JSON.
#[tokio::test]
async fn a_server_that_answers_everything_is_asked_at_the_second_place_too() {
    for (case, status, body) in [
        ("a page", 200, "<!doctype html><title>Shop</title>"),
        ("JSON", 200, r#"{"error": "unknown route"}"#),
        ("forbidden", 403, "Missing Authentication Token"),
        ("bad request", 400, ""),
    ] {
        let server = Server::start(move |seen| match seen.url.path() {
            OPENID => answer(200, metadata(&origin(seen), "").to_string()),
            _ => answer(status, body),
        })
        .await;
        discover(&server, "").await.expect(case);
        assert_eq!(asked(&server), [RFC8414, OPENID], "{case}");
    }
}

/// R-111, R-112: what is wrong is a typed error that says what, and is not made good by asking on.
#[tokio::test]
async fn what_is_wrong_is_an_error_at_once() {
    type Script = fn(&Seen) -> Answer;
    let cases: [(&str, Script, &str, &str); 8] = [
        ("mix-up", |s| but(s, "issuer", "https://evil.test"), "configuration", "evil.test"),
        (
            "an endpoint over http",
            |seen| but(seen, "token_endpoint", "http://as.test/token"),
            "insecure URL",
            "http://as.test over plain http",
        ),
        (
            "an endpoint that is none",
            |seen| but(seen, "revocation_endpoint", "/revoke"),
            "configuration",
            "`revocation_endpoint` is malformed",
        ),
        (
            "a fragment",
            |seen| but(seen, "token_endpoint", "https://as.test/token#a"),
            "configuration",
            "`token_endpoint` must not have a fragment",
        ),
        (
            "moved",
            |seen| redirect(302, &format!("{}{OPENID}", origin(seen))),
            "configuration",
            "the server sends us elsewhere",
        ),
        (
            "oversized",
            |seen| answer(200, metadata(&origin(seen), "").to_string() + &" ".repeat(1 << 20)),
            "configuration",
            "larger than 1 MiB",
        ),
        ("broken", |_| answer(500, ""), "authorization server unavailable", "status 500"),
        (
            "busy",
            |seen| {
                let mut response = answer(503, metadata(&origin(seen), "").to_string());
                response.headers_mut().insert("retry-after", "7".parse().unwrap());
                response
            },
            "authorization server unavailable",
            "status 503",
        ),
    ];
    for (case, script, kind, words) in cases {
        let server = Server::start(script).await;
        let error = discover(&server, "").await.expect_err(case);
        check(case, &error, kind, words);
        assert_eq!(asked(&server), [RFC8414], "{case}");
        let pause = (case == "busy").then_some(Duration::from_secs(7));
        assert_eq!(error.retry_after(), pause, "{case}");
    }
}

/// Both places are named, each with what was there.
#[tokio::test]
async fn a_server_without_metadata_is_an_error_that_says_what_is_there() {
    let server = Server::start(|seen| match seen.url.path() {
        RFC8414 => answer(200, "<!doctype html>"),
        _ => answer(200, r#"{"issuer": "https://as.te"#),
    })
    .await;
    let error = discover(&server, "").await.unwrap_err();
    let (origin, not_json) = (server.url(""), "the answer is not a JSON object at");
    let expected = format!(
        "configuration: no metadata of {origin:?}: {not_json} {origin}{RFC8414}; \
         {not_json} {origin}{OPENID}"
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(server.seen().len(), 2);
}

/// R-110, R-112, K-04: nothing is asked.
#[tokio::test]
async fn k_04_an_issuer_that_cannot_be_one_is_refused_before_anything_is_sent() {
    for (case, issuer, kind, words) in [
        ("plain http", "http://login.example.com", "insecure URL", "use https"),
        ("a query", "https://login.example.com/?a=b", "configuration", "RFC 8414 §2"),
        ("a fragment", "https://login.example.com/#a", "configuration", "RFC 8414 §2"),
        ("no URL", "login.example.com", "configuration", "the issuer is malformed"),
    ] {
        check(case, &ServerMetadata::discover(issuer).await.unwrap_err(), kind, words);
        check(case, &ServerMetadata::from_json(issuer, b"{}").unwrap_err(), kind, words);
    }
}

/// K-34, K-37: whoever does not answer may do so later.
#[tokio::test]
async fn a_server_that_cannot_be_reached_is_unavailable() {
    let nowhere = ClosedPort::reserve();
    let error = ServerMetadata::discover(&nowhere.url("")).await.unwrap_err();
    let unavailable = "authorization server unavailable";
    check("refused", &error, unavailable, &format!("no connection to {}", nowhere.url(RFC8414)));

    let half = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{".to_owned();
    for (case, then) in [("closed", Then::Close), ("reset", Then::Reset), ("cut", Then::Say(half))]
    {
        let wire = Wire::start(move |_| then.clone()).await;
        let error = ServerMetadata::discover(&wire.url("")).await.unwrap_err();
        check(case, &error, unavailable, "was lost");
        assert_eq!(wire.requests().len(), 1, "{case}: not tried again, nor elsewhere");
    }
}

/// K-30: 15 seconds, by a clock that nobody waits for.
#[tokio::test(start_paused = true)]
async fn k_30_a_server_that_hangs_is_unavailable() {
    let wire = Wire::start(|_| Then::Keep("HTTP/1.1 200 OK\r\n".into())).await;
    let began = tokio::time::Instant::now();
    let issuer = wire.url("");
    let discovery = ServerMetadata::discover(&issuer);
    let result = tokio::time::timeout(Duration::from_secs(60), discovery).await;
    let error = result.expect("not for ever").unwrap_err();
    check("hangs", &error, "authorization server unavailable", "was lost");
    assert_eq!(began.elapsed().as_secs(), 15);
}

/// K-31: nothing is sent to a server that does not take this kind of proof.
#[tokio::test]
async fn k_31_a_client_that_the_server_does_not_take_gets_no_endpoint() {
    let server = server(RFC8414, "").await;
    let found = discover(&server, "").await.unwrap();
    let error = found.token_endpoint(ClientAuth::body("app", "CANARY")).unwrap_err();
    let list = "`client_secret_post` of a client, but: client_secret_basic, private_key_jwt";
    check("not named", &error, "configuration", list);
    assert!(!format!("{error} {error:?} {found:?}").contains("CANARY"), "K-63");
    found.token_endpoint(ClientAuth::none("app")).expect("a public client is always tried");
    let error = found.token_endpoint(ClientAuth::none("")).unwrap_err();
    check("no id", &error, "configuration", "client id is empty");
    assert_eq!(server.seen().len(), 1);

    let silent = serving(OPENID, |origin| json!({"issuer": origin})).await;
    let silent = discover(&silent, "").await.unwrap();
    assert_eq!(silent.auth_methods(), ["client_secret_basic"]);
    let error = silent.token_endpoint(ClientAuth::none("app")).unwrap_err();
    check("no endpoint", &error, "configuration", "names no token endpoint");
}

/// Metadata from elsewhere is checked like that of the wire.
#[test]
fn metadata_that_is_there_already_is_read_without_asking() {
    let document = metadata("https://as.test", "").to_string();
    let found = ServerMetadata::from_json("https://as.test/", document.as_bytes()).unwrap();
    assert_eq!(found.issuer(), "https://as.test", "as the server writes it");
    let endpoint = found.token_endpoint(ClientAuth::basic("app", "s")).unwrap();
    assert!(format!("{endpoint:?}").contains("https://as.test/token"));
    for (case, issuer, document, words) in [
        ("another's", "https://other.test", document.as_str(), "that of \"https://as.test\""),
        ("half", "https://as.test", &document[..40], "is not a JSON object"),
        ("no issuer", "https://as.test", "{}", "names no issuer"),
    ] {
        let error = ServerMetadata::from_json(issuer, document.as_bytes()).unwrap_err();
        check(case, &error, "configuration", words);
    }
}

/// A builder that says who it is.
fn named(name: &'static str) -> reqwest::ClientBuilder {
    reqwest::Client::builder().user_agent(name).redirect(reqwest::redirect::Policy::limited(5))
}

/// K-30, K-73, R-051, R-090: the issuer is all that is configured.
#[tokio::test]
async fn from_the_issuer_to_the_logout() {
    let server = Server::start(|seen| match seen.url.path() {
        RFC8414 => answer(200, metadata(&origin(seen), "").to_string()),
        "/token" => answer(200, FINE),
        "/revoke" => answer(200, ""),
        _ => answer(404, ""),
    })
    .await;
    let found = ServerMetadata::discover_with_http(&server.url(""), named("shop/1")).await.unwrap();
    let endpoint = found.token_endpoint(ClientAuth::basic("my-app", "secret")).unwrap();
    let session = Session::builder(endpoint).tokens(tokens()).build().unwrap();
    assert_eq!(session.refresh().await.unwrap().access_token(), "a1");
    session.log_out().await.unwrap();

    let sent: Vec<_> = server
        .seen()
        .into_iter()
        .map(|seen| {
            assert_eq!(seen.headers["user-agent"], "shop/1", "one client for all: {}", seen.url);
            let is_proven = seen.headers.contains_key("authorization");
            assert_eq!(is_proven, seen.url.path() != RFC8414, "{}", seen.url);
            let body = String::from_utf8(seen.body.unwrap_or_default()).unwrap();
            format!("{} {} {body}", seen.method, seen.url.path())
        })
        .collect();
    assert_eq!(
        sent,
        [
            &format!("GET {RFC8414} "),
            "POST /token grant_type=refresh_token&refresh_token=r0%26%2B+%C3%A4",
            "POST /revoke token=r1&token_type_hint=refresh_token",
            "POST /revoke token=a1&token_type_hint=access_token",
        ]
    );
}

/// K-30: whatever the builder says, no redirect is followed.
#[tokio::test]
async fn k_30_a_builder_that_follows_redirects_does_not_do_so_here() {
    let server = Server::start(|seen| match seen.url.path() {
        "/elsewhere" => answer(200, metadata(&origin(seen), "").to_string()),
        _ => redirect(307, "/elsewhere"),
    })
    .await;
    let result = ServerMetadata::discover_with_http(&server.url(""), named("shop/1")).await;
    check("redirect", &result.unwrap_err(), "configuration", "sends us elsewhere");
    assert_eq!(asked(&server), [RFC8414]);
}
