//! Grants other than the refresh grant: client credentials, and any that a `Refresh` asks for.

use std::error::Error as _;

use reqwest_middleware::ClientBuilder;
use reqwest_refresh::{
    Authenticate, ClientAuth, ErrorKind, ManualClock, MemoryStore, RefreshFailure, Session,
    SessionBuilder, Status, TokenEndpoint, TokenSet, TokenStore,
};

use crate::support::{
    Api, ClosedPort, Hook, SECOND, Then, Wire, everybody_waits, http, outcome, told,
};

/// Answers `a1`, `a2`, …, each for an hour, each with a refresh token that nobody should send.
async fn issuer() -> Wire {
    Wire::start(|earlier| {
        let number = earlier + 1;
        let body = format!(
            r#"{{"access_token":"a{number}","refresh_token":"r{number}","expires_in":3600}}"#
        );
        Then::Say(http(200, "", &body))
    })
    .await
}

fn endpoint(wire: &Wire) -> TokenEndpoint {
    let auth = ClientAuth::body("nightly", "secret");
    TokenEndpoint::new(&wire.url("/token"), auth).unwrap().with_client_credentials()
}

fn builder(wire: &Wire, clock: &ManualClock) -> SessionBuilder {
    Session::builder(endpoint(wire)).clock(clock.clone()).allow_origin("https://api.test")
}

fn bodies(wire: &Wire) -> Vec<String> {
    let body = |request: String| request.split_once("\r\n\r\n").unwrap().1.to_owned();
    wire.requests().into_iter().map(body).collect()
}

const FORM: &str = "grant_type=client_credentials&client_id=nightly&client_secret=secret";

/// K-20, K-50, K-80; RFC 6749 §4.4: no login, no refresh token, and everything else the same.
#[tokio::test]
async fn k_50_client_credentials_need_neither_a_first_set_nor_a_person() {
    let (wire, api, clock, hook) =
        (issuer().await, Api::friendly(), ManualClock::new(), Hook::declining());
    let session = hook.on(builder(&wire, &clock)).build().unwrap();
    let client = ClientBuilder::new(reqwest::Client::new()).with(session.clone());
    let client = client.with(api.clone()).build();
    assert_eq!(session.status(), Status::LoggedOut);

    let requests: Vec<_> =
        (0..50).map(|_| tokio::spawn(client.get("https://api.test/").send())).collect();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
    assert_eq!(bodies(&wire), [FORM], "one request for everybody");
    assert_eq!(session.current_tokens().unwrap().refresh_token(), None);

    clock.advance(3600 * SECOND);
    let optional = client.get("https://api.test/").with_extension(Authenticate::IfLoggedIn);
    assert_eq!(outcome(optional.send().await), "200");
    session.clear().await.unwrap();
    let optional = client.get("https://api.test/").with_extension(Authenticate::IfLoggedIn);
    assert_eq!(outcome(optional.send().await), "200");
    assert_eq!(bodies(&wire), [FORM; 3]);
    assert_eq!(api.tokens()[50..], ["a2", "a3"], "a program is always logged in");
    assert_eq!(hook.calls(), 0);
}

/// K-40, K-22: a rejected token is asked for anew, once.
#[tokio::test]
async fn k_40_a_rejection_gets_a_new_token_by_client_credentials() {
    let (wire, api, clock) = (issuer().await, Api::rejecting(&["a1"]), ManualClock::new());
    let session = builder(&wire, &clock).build().unwrap();
    let client = ClientBuilder::new(reqwest::Client::new()).with(session).with(api.clone()).build();
    assert_eq!(outcome(client.get("https://api.test/").send().await), "200");
    assert_eq!(api.tokens(), ["a1", "a2"]);
    assert_eq!(bodies(&wire), [FORM; 2]);
}

/// K-34, K-50, K-54: there is no refresh token that could be dead, whatever the server says.
#[tokio::test]
async fn k_34_a_refused_client_is_a_configuration_error_and_no_login() {
    let body = r#"{"error":"invalid_grant","refresh_token":"r1"}"#;
    let wire = Wire::saying(http(400, "", body)).await;
    let (clock, hook, store) = (ManualClock::new(), Hook::declining(), MemoryStore::new());
    let session = hook.on(builder(&wire, &clock).store(store.clone())).build().unwrap();
    for _ in 0..3 {
        let error = session.tokens().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration), "{error}");
    }
    assert_eq!((wire.requests().len(), hook.calls()), (1, 0));
    assert!(store.load().await.unwrap().is_none());
}

/// K-61, K-25: processes share the token, and forget it together.
#[tokio::test]
async fn k_61_a_store_shares_what_client_credentials_brought() {
    let (wire, clock, store) = (issuer().await, ManualClock::new(), MemoryStore::new());
    let session = || builder(&wire, &clock).store(store.clone()).build().unwrap();
    let (first, second) = (session(), session());
    assert_eq!(first.tokens().await.unwrap().access_token(), "a1");
    assert_eq!(second.tokens().await.unwrap().access_token(), "a1");
    first.clear().await.unwrap();
    clock.advance(3600 * SECOND);
    assert_eq!(second.tokens().await.unwrap().access_token(), "a2", "not a logout");
    assert_eq!(bodies(&wire), [FORM; 2]);
}

/// K-30, R-001, Q-75; RFC 8707 §2, RFC 8693 §2.1: the grant's own parameters come instead of the
/// endpoint's, and only `resource` and `audience` come several times.
#[tokio::test]
async fn k_30_any_grant_is_one_request_with_its_own_parameters() {
    let wire = issuer().await;
    let endpoint = TokenEndpoint::new(&wire.url("/token"), ClientAuth::none("app"))
        .unwrap()
        .with_scope("read")
        .with_parameter("resource", "https://a.test/")
        .unwrap()
        .with_parameter("resource", "https://b.test/")
        .unwrap()
        .with_parameter("audience", "b")
        .unwrap();
    let exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
    let parameters = [("subject_token", "s"), ("audience", "c"), ("scope", "write")];
    let tokens = endpoint.request(exchange, &parameters).await.unwrap();
    assert_eq!((tokens.access_token(), tokens.refresh_token()), ("a1", Some("r1")));
    assert_eq!(
        bodies(&wire),
        ["grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
          &subject_token=s&audience=c&scope=write&client_id=app\
          &resource=https%3A%2F%2Fa.test%2F&resource=https%3A%2F%2Fb.test%2F"]
    );
}

/// K-63: what was sent is in no error.
#[tokio::test]
async fn k_63_a_refused_grant_does_not_repeat_its_parameters() {
    let body = r#"{"error":"invalid_grant","error_description":"assertion CANARY is over"}"#;
    let wire = Wire::saying(http(400, "", body)).await;
    let endpoint = TokenEndpoint::new(&wire.url("/token"), ClientAuth::none("app")).unwrap();
    let parameters = [("assertion", "CANARY")];
    let error = endpoint.request("urn:x", &parameters).await.unwrap_err();
    assert_eq!(error.failure(), RefreshFailure::Terminal);
    let printed = format!("{error} {error:?} {endpoint:?}");
    assert!(printed.contains("is over") && !printed.contains("CANARY"), "{printed}");
}

/// K-25: tokens that are set by hand are used while they live.
#[tokio::test]
async fn k_25_a_set_that_was_given_is_used_before_a_new_one_is_asked_for() {
    let (wire, clock) = (issuer().await, ManualClock::new());
    let session = builder(&wire, &clock).build().unwrap();
    session.set_tokens(TokenSet::new("given").with_expires_in(60 * SECOND)).await.unwrap();
    assert_eq!(session.tokens().await.unwrap().access_token(), "given");
    clock.advance(60 * SECOND);
    assert_eq!(session.tokens().await.unwrap().access_token(), "a1");
    everybody_waits().await;
    assert_eq!(bodies(&wire), [FORM]);
}

/// K-55, K-71: where there is no refresh token, none comes to its end, whatever the server says.
#[tokio::test]
async fn k_55_no_login_is_due_by_client_credentials() {
    let body = r#"{"access_token":"a1","refresh_token":"r1","expires_in":300,
                   "refresh_expires_in":60}"#;
    let wire = Wire::saying(http(200, "", body)).await;
    let session = builder(&wire, &ManualClock::new()).build().unwrap();
    let mut events = session.events();
    let tokens = session.tokens().await.unwrap();
    assert_eq!((tokens.refresh_token(), tokens.refresh_expires_at()), (None, None));
    assert_eq!(told(&mut events).await, ["refreshed 1"]);
}

/// K-63: the endpoint's own parameters may be secrets, too.
#[tokio::test]
async fn k_63_a_refused_grant_does_not_repeat_the_endpoints_parameters() {
    let body = r#"{"error":"invalid_request","error_description":"the app key CANARY is over"}"#;
    let wire = Wire::saying(http(400, "", body)).await;
    let endpoint = TokenEndpoint::new(&wire.url("/token"), ClientAuth::none("app")).unwrap();
    let endpoint = endpoint.with_parameter("app_key", "CANARY").unwrap();
    let error = endpoint.request("urn:x", &[]).await.unwrap_err();
    let printed = format!("{error} {error:?}");
    assert!(printed.contains("is over") && !printed.contains("CANARY"), "{printed}");
}

/// Who asks for tokens by hand is told why there are none.
#[tokio::test]
async fn a_refused_grant_says_what_the_server_says() {
    let body = r#"{"error":"invalid_grant","error_description":"the code 4711 is used up"}"#;
    let wire = Wire::saying(http(400, "", body)).await;
    let endpoint = TokenEndpoint::new(&wire.url("/token"), ClientAuth::none("app")).unwrap();
    let error = endpoint.request("authorization_code", &[("code", "4711")]).await.unwrap_err();
    let words = "the token endpoint refused the request: status 400: invalid_grant: \
                 the code [hidden] is used up";
    assert_eq!(error.to_string(), words);
    assert_eq!(error.server_error().and_then(|server| server.code()), Some("invalid_grant"));
}

/// K-70: why there is no connection is behind the error.
#[tokio::test]
async fn k_70_the_cause_of_a_failed_request_is_its_source() {
    let nowhere = ClosedPort::reserve();
    let endpoint = TokenEndpoint::new(&nowhere.url("/token"), ClientAuth::none("app")).unwrap();
    let error = endpoint.request("urn:x", &[]).await.unwrap_err();
    assert_eq!(error.failure(), RefreshFailure::NotSent);
    assert!(error.source().is_some());
}
