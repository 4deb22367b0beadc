//! A gateway that answers as digiRunner does, on a real socket, from the first 401 to the login.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_refresh::{
    Error, ErrorKind, LoginReason, ManualClock, Session, SessionBuilder, TokenEndpoint, TokenSet,
};
use serde_json::{Value, json};

use crate::support::{Answer, Hook, Log, Seen, Server, answer, told};

/// The two answers of the manual page "Applying Refresh Token", as they stand there.
const SUCCESS: &str = include_str!("../fixtures/digirunner_success.json");
const EXPIRED: &str = include_str!("../fixtures/digirunner_expired.json");

const OLD_REFRESH_TOKEN: &str = "eyJ0eXAiOiJKV1QifQ.eyJqdGkiOiJPTEQifQ.T0xEc2lnbmF0dXJl";

/// What the gateway does; a test changes it as it goes.
#[derive(Clone)]
struct Gateway {
    /// The access tokens that the API takes.
    alive: Arc<Mutex<Vec<String>>>,
    /// What the API says to the others: status and body.
    rejection: (u16, fn(&str) -> Value),
    /// What the token endpoint says, first one first; the last one again and again.
    answers: Arc<Mutex<Vec<(u16, String)>>>,
}

impl Gateway {
    fn new(rejection: (u16, fn(&str) -> Value), answers: &[(u16, &str)]) -> Self {
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned()));
        Self { alive: Arc::default(), rejection, answers: Arc::new(Mutex::new(answers.collect())) }
    }

    fn letting_in(self, token: &str) -> Self {
        self.alive.lock().push(token.to_owned());
        self
    }

    fn answer(&self, seen: &Seen) -> Answer {
        if seen.url.path() == "/oauth/token" {
            let mut answers = self.answers.lock();
            let (status, body) = match answers.len() {
                1 => answers[0].clone(),
                _ => answers.remove(0),
            };
            return json_answer(status, &body, "jti=x; Path=/; HttpOnly");
        }
        match seen.token() {
            Some(token) if self.alive.lock().iter().any(|alive| alive == token) => {
                answer(200, "orders")
            }
            Some(token) => {
                let (status, body) = self.rejection;
                json_answer(status, &body(token).to_string(), "")
            }
            None => json_answer(401, &shape_a(401, "Unauthorized", "").to_string(), ""),
        }
    }
}

fn json_answer(status: u16, body: &str, cookie: &str) -> Answer {
    let mut answer = answer(status, body.to_owned());
    let headers = answer.headers_mut();
    headers.insert("content-type", "application/json;charset=UTF-8".parse().unwrap());
    if !cookie.is_empty() {
        headers.insert("set-cookie", cookie.parse().unwrap());
    }
    answer
}

fn shape_a(status: u16, error: &str, message: &str) -> Value {
    json!({"timestamp": "1684742522981", "status": status, "error": error, "message": message,
           "path": "/api/orders"})
}

fn expired(token: &str) -> Value {
    json!({"error": "invalid_token", "error_description": format!("Access token expired: {token}")})
}

fn revoked(_: &str) -> Value {
    json!({"error": "invalid_token", "error_description": "Access token revoked, jti: 41fa8a7b"})
}

/// A gateway, a session with the tokens of an earlier login, and a client.
struct Scene {
    server: Server,
    session: Session,
    client: ClientWithMiddleware,
    clock: ManualClock,
}

impl Scene {
    async fn new(
        gateway: Gateway,
        settings: impl FnOnce(SessionBuilder) -> SessionBuilder,
    ) -> Self {
        let server = Server::start(move |seen| gateway.answer(seen)).await;
        let base = server.url("/");
        let endpoint = TokenEndpoint::digirunner(&base, "tspclient", Some("tsp123abcd")).unwrap();
        let clock = ManualClock::new();
        let builder = Session::builder(endpoint)
            .clock(clock.clone())
            .tokens(TokenSet::new("old").with_refresh_token(OLD_REFRESH_TOKEN));
        let session = settings(builder).build().unwrap();
        let client = ClientBuilder::new(reqwest::Client::new()).with(session.clone()).build();
        Self { server, session, client, clock }
    }

    async fn get(&self) -> reqwest_middleware::Result<reqwest::Response> {
        self.client.get(self.server.url("/api/orders")).send().await
    }
}

fn sample(member: &str) -> String {
    let sample: Value = serde_json::from_str(SUCCESS).unwrap();
    sample[member].as_str().unwrap().to_owned()
}

/// K-40, K-10, K-31, K-32, K-42, E01, E09, B03, Q-90: the page's own example, end to end.
#[tokio::test]
async fn k_40_an_expired_token_is_refreshed_as_the_manual_page_says() {
    for (case, rejection) in [
        ("401, expired", (401, expired as fn(&str) -> Value)),
        ("403, revoked", (403, revoked)),
        ("401, shape A", (401, |_| shape_a(401, "Unauthorized", ""))),
    ] {
        let gateway = Gateway::new(rejection, &[(200, SUCCESS)]);
        let scene = Scene::new(gateway.letting_in(&sample("access_token")), |b| b).await;
        let response = scene.get().await.unwrap();
        assert_eq!(response.status(), 200, "{case}");
        assert_eq!(response.text().await.unwrap(), "orders", "{case}");

        let seen = scene.server.seen();
        let paths: Vec<_> = seen.iter().map(|seen| seen.url.path()).collect();
        assert_eq!(paths, ["/api/orders", "/oauth/token", "/api/orders"], "{case}");
        let (refresh, replay) = (&seen[1], &seen[2]);
        assert_eq!(
            refresh.headers["authorization"], "Basic dHNwY2xpZW50OmRITndNVEl6WVdKalpBPT0=",
            "{case}"
        );
        let form = format!("grant_type=refresh_token&refresh_token={OLD_REFRESH_TOKEN}");
        assert_eq!(refresh.body.as_deref(), Some(form.as_bytes()), "{case}");
        assert_eq!(replay.token(), Some(&*sample("access_token")), "{case}");

        let tokens = scene.session.current_tokens().unwrap();
        assert_eq!(tokens.refresh_token(), Some(&*sample("refresh_token")), "{case}");
        assert_eq!(tokens.expires_in(), Some(Duration::from_secs(86_399)), "{case}");
        assert_eq!(
            tokens.expires_at(),
            Some(scene.clock.wall() + Duration::from_secs(86_399)),
            "{case}: counted from now, never from `stime`"
        );
        assert_eq!(scene.get().await.unwrap().status(), 200, "{case}");
        assert_eq!(scene.server.seen().len(), 4, "{case}: no second refresh");
    }
}

/// K-32, X26, G01, K-11, Q-58: the next refresh sends the newest string, shortly before the end.
#[tokio::test]
async fn k_32_the_newest_refresh_token_is_the_one_sent_next() {
    let second =
        json!({"access_token": "third", "refresh_token": "r3", "expires_in": 86_399}).to_string();
    let gateway = Gateway::new((401, expired), &[(200, SUCCESS), (200, &second)])
        .letting_in(&sample("access_token"))
        .letting_in("third");
    let scene = Scene::new(gateway, |builder| builder.jitter(0.0)).await;
    scene.get().await.unwrap();
    scene.clock.advance(Duration::from_secs(86_399 - 11));
    scene.get().await.unwrap();
    assert_eq!(scene.server.seen().len(), 4, "eleven seconds are enough");
    scene.clock.advance(Duration::from_secs(2));
    scene.get().await.unwrap();
    scene.session.settle().await.unwrap();
    let refreshes: Vec<_> =
        scene.server.seen().into_iter().filter(|seen| seen.url.path() == "/oauth/token").collect();
    assert_eq!(refreshes.len(), 2);
    let form = String::from_utf8(refreshes[1].body.clone().unwrap()).unwrap();
    assert_eq!(form, format!("grant_type=refresh_token&refresh_token={}", sample("refresh_token")));
    assert!(refreshes[1].headers.get("cookie").is_none(), "K-30");
    assert_eq!(scene.session.current_tokens().unwrap().access_token(), "third");
}

/// E03, K-20, Q-57: a refresh elsewhere has revoked the token of everybody here.
#[tokio::test]
async fn k_20_many_revoked_requests_share_one_refresh() {
    let gateway = Gateway::new((403, revoked), &[(200, SUCCESS)]);
    let scene = Scene::new(gateway.letting_in(&sample("access_token")), |b| b).await;
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let request = scene.client.get(scene.server.url("/api/orders"));
            tokio::spawn(async move { request.send().await.unwrap().status() })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    let log = scene.server.log();
    let refreshes = log.iter().filter(|line| line.starts_with("/oauth/token")).count();
    assert_eq!(refreshes, 1);
}

/// K-50, K-51, Q-23, G08, X23, D07: the documented error calls the login hook once, and its tokens
/// end the wait.
#[tokio::test]
async fn k_50_an_expired_refresh_token_calls_the_login_hook_and_the_request_goes_on() {
    let gateway = Gateway::new((401, expired), &[(401, EXPIRED)]).letting_in("after-login");
    let hook = Hook::returning(TokenSet::new("after-login").with_refresh_token("new"));
    let scene = Scene::new(gateway, |builder| hook.on(builder)).await;
    let response = scene.get().await.unwrap();
    assert_eq!(response.status(), 200);
    let reasons = hook.reasons.lock().clone();
    let [LoginReason::Refused { error, after_lost_answer: false, .. }] = &reasons[..] else {
        panic!("{reasons:?}");
    };
    assert_eq!((error.status(), error.code()), (401, Some("invalid_token")));
    assert_eq!(error.description(), Some("Invalid refresh token (expired): [hidden]"));
    assert_eq!(scene.session.current_tokens().unwrap().refresh_token(), Some("new"));
}

/// K-51, K-44, K-20, G10: who declines is not asked again, and the server is left alone.
#[tokio::test]
async fn k_51_a_declined_login_fails_everybody_alike_without_traffic() {
    let gateway = Gateway::new((401, expired), &[(401, EXPIRED)]);
    let hook = Hook::declining();
    let scene = Scene::new(gateway.clone(), |builder| hook.on(builder)).await;
    for round in 0..3 {
        let error = scene.get().await.unwrap_err();
        let error = Error::find(&error).expect("ours");
        assert!(error.is_login_required(), "{round}: {error}");
        assert_eq!(error.rejection().is_some(), round == 0, "only the first one was sent");
    }
    assert_eq!(hook.calls(), 1);
    let log = scene.server.log();
    assert_eq!(log, ["/api/orders old", "/oauth/token -"]);

    gateway.letting_in("later");
    scene.session.set_tokens(TokenSet::new("later")).await.unwrap();
    assert_eq!(scene.get().await.unwrap().status(), 200);
}

/// K-63, K-44, G14, R-040: digiRunner repeats the whole refresh token in its answer. Nothing that
/// anybody sees repeats it after it: not the error and its causes, not what the hook is told, no
/// event, no log line.
#[tokio::test]
async fn k_63_the_echoed_token_appears_nowhere() {
    let (log, _guard) = Log::start();
    let echo = format!("Invalid refresh token (expired): {OLD_REFRESH_TOKEN}");
    let own = json!({"error": "invalid_token", "error_description": echo}).to_string();
    let wrong = json!({"error": "invalid_grant", "error_description":
        format!("Wrong client(application) for this refresh token: {OLD_REFRESH_TOKEN}")});
    for (case, status, body) in [
        ("the page's", 401, EXPIRED),
        ("with our token", 401, &own),
        ("another client's (row 16)", 400, &wrong.to_string()),
        ("a configuration error", 400, &own.replace("invalid_token", "invalid_request")),
        ("an outage", 500, &own),
    ] {
        let gateway = Gateway::new((401, expired), &[(status, body)]);
        let hook = Hook::declining();
        let scene = Scene::new(gateway, |builder| hook.on(builder)).await;
        let mut events = scene.session.events();
        let error = anyhow::Error::from(scene.get().await.unwrap_err());
        let ours = Error::find(error.as_ref()).expect("ours");
        let rejection = ours.rejection().expect("the 401 behind it");
        assert_eq!(rejection.status(), 401, "{case}");
        let mut shown = vec![
            format!("{error} {error:?} {error:#} {error:#?}"),
            format!("{ours} {ours:?} {ours:#?} {:?}", ours.kind()),
            format!("{rejection:?}"),
            format!("{:?} {:?}", scene.session, scene.session.current_tokens()),
        ];
        for reason in &*hook.reasons.lock() {
            shown.push(format!("{reason:?} {}", reason.explain()));
        }
        scene.session.settle().await.unwrap();
        let (session, client) = (scene.session.clone(), scene.client.clone());
        drop((scene, session, client));
        while let Some(event) = events.next().await {
            shown.push(format!("{event:?} {event:#?}"));
        }
        assert!(shown.len() > 4, "{case}: an event at least");
        shown.extend(log.lines(""));
        for text in shown {
            for secret in [OLD_REFRESH_TOKEN, "eyJ0eXAi", "tsp123abcd", "dHNwMTIzYWJjZA"] {
                assert!(!text.contains(secret), "{case}: {text}");
            }
        }
    }
    assert!(!log.lines("token_refresh").is_empty(), "something was logged");
}

/// K-41, K-42, E07, E09, Q-92, Q-95, DIGIRUNNER.md §8: what no refresh can mend reaches the caller
/// whole, and nobody refreshes.
#[tokio::test]
async fn k_42_the_gateways_other_errors_are_not_about_the_token() {
    for (case, status, body) in [
        (
            "disabled",
            403,
            (|_| shape_a(403, "Forbidden", "Client(application) disable")) as fn(&str) -> Value,
        ),
        ("scope", 403, |_| {
            shape_a(403, "Forbidden", "Token Violates Scope Authorization Access Settings")
        }),
        ("quota", 403, |_| shape_a(403, "Forbidden", "Client(application) quota ran out")),
        ("uses", 403, |_| json!({"error": "Over Access Token Allow Times"})),
        ("bad request", 400, revoked),
        ("tps", 429, |_| shape_a(429, "tps", "Client requests exceeds TPS limit. client:X")),
        ("disabled API", 503, |_| shape_a(503, "Service Unavailable", "")),
        ("broken", 500, |_| shape_a(500, "Internal Server Error", "")),
    ] {
        let scene = Scene::new(Gateway::new((status, body), &[(200, SUCCESS)]), |b| b).await;
        let response = scene.get().await.unwrap();
        assert_eq!(response.status(), status, "{case}");
        assert_eq!(response.url().path(), "/api/orders", "{case}");
        assert_eq!(response.text().await.unwrap(), body("old").to_string(), "{case}");
        assert_eq!(scene.server.log(), ["/api/orders old"], "{case}");
    }
}

/// K-40, E02, Q-95: the upstream's own 401 passes through the gateway; one refresh, one replay, no more.
#[tokio::test]
async fn k_40_an_api_that_always_answers_401_is_asked_twice() {
    let scene = Scene::new(Gateway::new((401, expired), &[(200, SUCCESS)]), |b| b).await;
    assert_eq!(scene.get().await.unwrap().status(), 401);
    assert_eq!(scene.server.seen().len(), 3);
}

/// K-55, DIGIRUNNER.md §6.2: the refresh token's end is in its JWT, and a login is due before it.
#[tokio::test]
async fn k_55_the_end_of_the_session_is_known_beforehand() {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let refresh_token = crate::support::jwt(&json!({"exp": 4_000_000_000_u64, "ati": "x"}));
    let body = json!({"access_token": "a1", "refresh_token": refresh_token, "expires_in": 599})
        .to_string();
    let gateway = Gateway::new((401, expired), &[(200, &body)]).letting_in("a1");
    let century = Duration::from_secs(100 * 365 * 86_400);
    let scene = Scene::new(gateway, |builder| builder.login_notice(century)).await;
    let mut events = scene.session.events();
    scene.get().await.unwrap();
    assert_eq!(scene.session.current_tokens().unwrap().refresh_expires_at(), Some(end));
    scene.session.settle().await.unwrap();
    assert!(told(&mut events).await.contains(&"login due".to_owned()));
}

/// K-34, K-54, rows 5 to 8, 23 and 25: the client or the user is refused; no login helps.
#[tokio::test]
async fn k_54_a_refusal_of_the_client_calls_no_hook_and_is_not_repeated() {
    for (case, status, body) in [
        ("row 5", 401, shape_a(401, "Unauthorized", "The client(application) was not found.")),
        ("row 6", 403, shape_a(403, "Forbidden", "'tspclient' Client(application) locked")),
        (
            "row 7",
            400,
            json!({"error": "invalid_request", "error_description": "Missing client_secret"}),
        ),
        ("row 8", 401, shape_a(401, "Unauthorized", "account or password is incorrect")),
        ("row 23", 403, shape_a(403, "Forbidden", "'u' User disable")),
        ("row 25", 403, json!({"ResHeader": {"rtnCode": "1219", "rtnMsg": "mode"}})),
    ] {
        let gateway = Gateway::new((401, expired), &[(status, &body.to_string())]);
        let hook = Hook::declining();
        let scene = Scene::new(gateway, |builder| hook.on(builder)).await;
        for _ in 0..3 {
            let error = scene.get().await.unwrap_err();
            let error = Error::find(&error).expect("ours");
            assert!(matches!(error.kind(), ErrorKind::Configuration), "{case}: {error}");
        }
        assert_eq!(hook.calls(), 0, "{case}");
        let log = scene.server.log();
        let asked = log.iter().filter(|line| line.starts_with("/oauth")).count();
        assert_eq!(asked, 1, "{case}: {log:?}");
        assert!(scene.session.current_tokens().is_some(), "{case}");
    }
}
