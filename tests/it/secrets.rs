//! No token and no secret is printed, whatever happens.

use std::fmt::Write as _;
use std::time::Duration;

use reqwest_refresh::{
    ClientAuth, Error, Lease, LoginReason, ManualClock, RedisStore, RefreshError, RefreshFailure,
    Session, TokenEndpoint, TokenSet,
};
use serde_json::{Map, json};

use crate::support::{Api, Issuer, Log, Rig, Server, answer, everybody_waits, jwt};

const HOUR: Duration = Duration::from_secs(3600);

/// What must not be printed. Short on purpose: nothing that looks for long words would find them.
const CANARIES: [&str; 12] = [
    "cnry-access0",
    "cnry-refresh0",
    "cnry-access1",
    "cnry-refresh1",
    "cnry-id1",
    "cnry-secret",
    "cnry-member",
    "cnry-parameter",
    "cnry-header",
    "cnry-query",
    "cnry-rejected",
    "cnry-login",
];

/// Everything that is printed on the way.
#[derive(Default)]
struct Printed(String);

impl Printed {
    fn error(&mut self, error: &(dyn std::error::Error + 'static)) {
        write!(self.0, "\n{error} {error:?} {error:#?}").unwrap();
        let mut next = error.source();
        while let Some(source) = next {
            write!(self.0, "\n{source} {source:?}").unwrap();
            next = source.source();
        }
        if let Some(found) = Error::find(error) {
            write!(self.0, "\n{:?} {:?}", found.kind(), found.rejection()).unwrap();
        }
    }

    fn value(&mut self, value: &impl std::fmt::Debug) {
        write!(self.0, "\n{value:?} {value:#?}").unwrap();
    }
}

fn first_tokens() -> TokenSet {
    let mut members = Map::new();
    members.insert("note".into(), "cnry-member".into());
    TokenSet::new("cnry-access0")
        .with_refresh_token("cnry-refresh0")
        .with_expires_in(HOUR)
        .with_members(members)
}

/// K-63: one life of a session, with every secret in every place, and all that is printed. G14.
#[tokio::test]
async fn k_63_nothing_that_is_printed_has_a_secret_in_it() {
    let everything = CANARIES.join(" ");
    let in_error = everything.clone();
    let echo = json!({
        "error": "invalid_grant",
        "error_description": format!("Invalid refresh token: cnry-refresh1 {}", CANARIES[5]),
        "refresh_token": "cnry-refresh1",
        "access_token": "cnry-access1",
        "hint": ["cnry-access1", {"cnry-refresh1": "cnry-secret"}],
    });
    for (case, status, body) in [
        (
            "success",
            200,
            json!({
                "access_token": "cnry-access1", "refresh_token": "cnry-refresh1",
                "id_token": "cnry-id1", "token_type": "bearer", "note": "cnry-member",
            })
            .to_string(),
        ),
        ("dead", 400, echo.to_string()),
        ("dead, by 200", 200, echo.to_string()),
        ("configuration", 401, echo.to_string().replace("invalid_grant", "invalid_client")),
        (
            "tokens in an error",
            400,
            json!({
                "error": "temporarily_unavailable", "error_description": "later",
                "access_token": "cnry-access1", "refresh_token": "cnry-refresh1",
                "id_token": "cnry-id1",
            })
            .to_string(),
        ),
        ("unavailable", 503, in_error.clone()),
        ("not JSON", 200, in_error.clone()),
        ("truncated", 200, format!("{{\"access_token\": \"cnry-access1\", \"x\": \"{in_error}")),
        (
            "wrong type",
            200,
            json!({"access_token": "cnry-access1", "token_type": "cnry-id1"}).to_string(),
        ),
        ("no access token", 200, json!({"refresh_token": "cnry-refresh1"}).to_string()),
        ("unsendable", 200, json!({"access_token": "cnry-access1 \n"}).to_string()),
    ] {
        let (log, _guard) = Log::start();
        let mut printed = Printed::default();
        let server = Server::start(move |seen| match seen.url.path() {
            "/token" => answer(status, body.clone()),
            _ if seen.token() == Some("cnry-access0") => {
                let mut response = answer(401, "cnry-rejected cnry-access0");
                let header = "Bearer error=\"invalid_token\", error_description=\"cnry-header\"";
                response.headers_mut().insert("www-authenticate", header.parse().unwrap());
                response
            }
            _ => answer(200, "fine"),
        })
        .await;
        let clock = ManualClock::new();
        let auth = ClientAuth::body("client", "cnry-secret");
        let endpoint = TokenEndpoint::new(&server.url("/token?key=cnry-query"), auth)
            .unwrap()
            .with_parameter("audience", "cnry-parameter")
            .unwrap();
        printed.value(&endpoint);
        let builder = Session::builder(endpoint)
            .clock(clock.clone())
            .tokens(first_tokens())
            .on_login_required(|reason| async move {
                let _ = reason;
                panic!("the hook panics")
            });
        printed.value(&builder);
        let session = builder.build().unwrap();
        let mut events = session.events();
        let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
            .with(session.clone())
            .build();
        for _ in 0..2 {
            let url = server.url("/orders?key=cnry-query");
            let request = tokio::spawn(client.get(url).send());
            while !request.is_finished() {
                tokio::task::yield_now().await;
                clock.advance(Duration::from_millis(100));
            }
            if let Err(error) = request.await.unwrap() {
                printed.error(&error);
            }
            printed.value(&session);
            printed.value(&session.status());
            printed.value(&session.current_tokens());
        }
        printed.value(&session.settle().await);
        everybody_waits().await;
        drop((client, session));
        while let Some(event) = events.next().await {
            printed.value(&event);
        }
        let ours = log.lines("reqwest_refresh");
        assert!(!ours.is_empty(), "{case}: the log is empty");
        let text = format!("{}\n{}", printed.0, log.lines("").join("\n"));
        for canary in CANARIES {
            let found = text.lines().find(|line| line.contains(canary));
            assert!(found.is_none(), "{case}: {canary} in: {}", found.unwrap());
        }
    }
}

/// K-63: and what is printed says what it is, and what is known of it.
#[tokio::test]
async fn k_63_what_hides_its_secrets_still_says_what_it_is() {
    let rig = Rig::with(Api::rejecting(&["a0"]), Issuer::new(), |b| b);
    rig.issuer.then_fails(RefreshFailure::Configuration);
    let error = rig.get().await.unwrap_err();
    let redis = RedisStore::new("redis://:cnry-secret@api.test", "orders").unwrap();
    for (printed, expected) in [
        (format!("{:?}", rig.session), "Session { status: Expired, .. }"),
        (
            format!("{:?}", Session::builder(Issuer::new()).allow_origin("https://api.test")),
            r#"SessionBuilder { origins: ["https://api.test"], .. }"#,
        ),
        (format!("{:?}", Lease::none().with_owner("me")), r#"Lease { owner: "me", .. }"#),
        (
            format!("{:?}", Error::find(&error).unwrap()),
            "Error { kind: Configuration, message: \"scripted: status 400: scripted\", source: None, \
             retry_after: Some(600s), \
             rejection: Some(Rejection { status: 401, origin: \"https://api.test\", .. }) }",
        ),
        (
            format!("{redis:?}"),
            r#"RedisStore { prefix: "reqwest-refresh:", key: "orders", lease: 30s, .. }"#,
        ),
    ] {
        assert_eq!(printed, expected);
    }
}

/// K-63: what can be printed of each type by itself.
#[test]
fn k_63_no_type_prints_a_secret() {
    let mut printed = Printed::default();
    printed.value(&first_tokens());
    printed.value(&first_tokens().expose_secrets());
    printed.value(&TokenSet::new(jwt(&json!({"sub": "cnry-login"}))));
    for auth in [
        ClientAuth::basic("id", "cnry-secret"),
        ClientAuth::basic_raw("id", "cnry-secret"),
        ClientAuth::body("id", "cnry-secret"),
        ClientAuth::digirunner("id", Some("cnry-secret")),
        ClientAuth::client_secret_jwt("id", "cnry-secret"),
    ] {
        printed.value(&auth);
        let endpoint = TokenEndpoint::new("https://api.test/token", auth).unwrap();
        printed.value(&endpoint.with_parameter("p", "cnry-parameter").unwrap());
    }
    let error = RefreshError::new(RefreshFailure::Unusable, "no access token")
        .with_refresh_token("cnry-refresh1");
    printed.error(&error);
    printed.value(&LoginReason::NeverLoggedIn);
    for canary in CANARIES {
        let found = printed.0.lines().find(|line| line.contains(canary));
        assert!(found.is_none(), "{canary} in: {}", found.unwrap());
    }
    let encoded = "Y25yeS1zZWNyZXQ"; // cnry-secret in Base64
    assert!(!printed.0.contains(encoded));
}
