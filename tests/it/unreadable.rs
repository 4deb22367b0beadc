//! A token endpoint that refuses without a word that anybody could read: an empty body, a text, a
//! page of HTML. What it means, the user may say; without that nobody is logged out.

use std::time::Duration;

use reqwest_refresh::{
    ClientAuth, Error, Event, LoginReason, ManualClock, Provider, RefreshFailure, Session, Status,
    TokenEndpoint, TokenSet,
};
use tokio::task::JoinHandle;

use crate::support::{Api, Hook, Rig, SECOND, Wire, everybody_waits, http, outcome, told, until};

const HOUR: Duration = Duration::from_secs(3600);
const UNAVAILABLE: &str = "authorization server unavailable";

/// What such servers say.
const REFUSALS: [(u16, &str, &str); 5] = [
    (400, "", ""),
    (401, "", ""),
    (401, "content-type: text/plain\r\n", "Unauthorized"),
    (403, "content-type: text/html\r\n", "<h1>403 Forbidden</h1>"),
    (404, "content-type: application/json\r\n", "\"no\""),
];

/// A session at such a server, and many requests to an API that takes every token.
struct Scene {
    wire: Wire,
    api: Api,
    clock: ManualClock,
    session: Session,
}

impl Scene {
    async fn new(refusal: (u16, &str, &str), provider: Provider, hook: &Hook) -> Self {
        let (status, headers, body) = refusal;
        let wire = Wire::saying(http(status, headers, body)).await;
        let endpoint = TokenEndpoint::new(&wire.url("/token"), ClientAuth::none("app")).unwrap();
        let clock = ManualClock::new();
        let builder = Session::builder(endpoint.with_provider(provider))
            .clock(clock.clone())
            .jitter(0.0)
            .allow_origin("https://api.test")
            .tokens(Rig::tokens(3600));
        let session = hook.on(builder).build().unwrap();
        Self { wire, api: Api::friendly(), clock, session }
    }

    /// A hundred requests at once.
    fn storm(&self) -> Vec<JoinHandle<reqwest_middleware::Result<reqwest::Response>>> {
        let client = Rig::client(&self.session, &self.api);
        let request = || tokio::spawn(client.get("https://api.test/orders").send());
        (0..100).map(|_| request()).collect()
    }

    /// A hundred requests, all of which wait before the server answers; what they come to.
    async fn storm_that_waits(&self) -> Vec<reqwest_middleware::Result<reqwest::Response>> {
        let before = self.wire.requests().len();
        self.wire.hold();
        let storm = self.storm();
        until(|| self.wire.requests().len() > before).await;
        everybody_waits().await;
        assert!(storm.iter().all(|request| !request.is_finished()), "nobody waits");
        self.wire.release();
        all(storm).await
    }
}

async fn all<T>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

/// The errors of all, which must be one and the same.
fn one_error(results: Vec<reqwest_middleware::Result<reqwest::Response>>) -> Error {
    let errors = results.into_iter().map(Result::unwrap_err);
    let mut errors: Vec<_> =
        errors.map(|error| Error::find(&error).expect("ours").clone()).collect();
    errors.dedup_by_key(|error| error.to_string());
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

/// K-20, K-33, K-34, K-35, K-54, Q-37: one token request, one error for all, a cool-down without
/// traffic, and no false login.
#[tokio::test]
async fn k_34_a_refusal_that_cannot_be_read_is_one_error_and_a_cool_down() {
    for refusal in REFUSALS {
        let hook = Hook::declining();
        let scene = Scene::new(refusal, Provider::rfc6749(), &hook).await;
        scene.clock.advance(HOUR);
        let error = one_error(scene.storm_that_waits().await);
        assert_eq!(error.kind().to_string(), UNAVAILABLE, "{refusal:?}");
        let status = format!("status {}", refusal.0);
        assert!(error.to_string().contains(&status), "{refusal:?}: {error}");
        let pause = error.retry_after().expect("a cool-down");
        assert!(pause >= SECOND, "{refusal:?}: {pause:?}");

        scene.clock.advance(pause - SECOND / 1000);
        let error = one_error(all(scene.storm()).await);
        assert_eq!(error.kind().to_string(), UNAVAILABLE, "{refusal:?}");
        assert_eq!((scene.wire.requests().len(), scene.api.arrived()), (1, 0), "{refusal:?}");
        scene.clock.advance(SECOND / 1000);
        one_error(scene.storm_that_waits().await);
        assert_eq!(scene.wire.requests().len(), 2, "{refusal:?}: one more");

        assert_eq!(hook.calls(), 0, "{refusal:?}");
        assert_eq!(scene.session.status(), Status::Expired, "{refusal:?}");
        let kept = scene.session.current_tokens().unwrap();
        assert_eq!((kept.access_token(), kept.refresh_token()), ("a0", Some("r0")));
    }
}

/// K-36, K-54, Q-37: while the access token lives, nobody notices; and the server is left alone.
#[tokio::test]
async fn k_36_a_refusal_that_cannot_be_read_is_not_noticed_while_the_token_lives() {
    for refusal in REFUSALS {
        let hook = Hook::declining();
        let scene = Scene::new(refusal, Provider::rfc6749(), &hook).await;
        let mut events = scene.session.events();
        scene.clock.advance(HOUR - 60 * SECOND);
        for _ in 0..3 {
            for result in all(scene.storm()).await {
                assert_eq!(outcome(result), "200", "{refusal:?}");
            }
            scene.session.settle().await.unwrap();
        }
        assert_eq!(scene.wire.requests().len(), 1, "{refusal:?}");
        assert_eq!(scene.api.tokens(), ["a0"; 300], "{refusal:?}");
        assert_eq!(hook.calls(), 0, "{refusal:?}");
        let failed = format!("refresh failed: {UNAVAILABLE}");
        assert_eq!(told(&mut events).await, [failed], "{refusal:?}");
    }
}

/// K-34, K-50, K-51, Q-37, Q-63: where the user says that silence means death, it is a death like
/// any other: the hook once, one error for all, no more traffic.
#[tokio::test]
async fn k_50_a_refusal_that_the_user_calls_terminal_calls_the_hook_once() {
    let provider = Provider::rfc6749().with_unreadable_error(RefreshFailure::Terminal);
    for refusal in REFUSALS {
        let hook = Hook::declining();
        let scene = Scene::new(refusal, provider, &hook).await;
        scene.clock.advance(HOUR);
        let error = one_error(scene.storm_that_waits().await);
        assert!(error.is_login_required(), "{refusal:?}: {error}");
        scene.clock.advance(HOUR);
        assert!(one_error(all(scene.storm()).await).is_login_required(), "{refusal:?}");
        let counts = (scene.wire.requests().len(), hook.calls(), scene.api.arrived());
        assert_eq!(counts, (1, 1, 0), "{refusal:?}");
        let reasons = hook.reasons.lock().clone();
        let [LoginReason::Refused { error, .. }] = &reasons[..] else { panic!("{reasons:?}") };
        assert_eq!((error.status(), error.code()), (refusal.0, None), "{refusal:?}");
    }
}

/// K-51, K-52, Q-37: the login ends the wait; and while the access token lives there is none.
#[tokio::test]
async fn k_52_a_refusal_that_the_user_calls_terminal_does_not_stop_a_living_token() {
    let provider = Provider::rfc6749().with_unreadable_error(RefreshFailure::Terminal);
    for (case, age, sent) in [("over", HOUR, "u1"), ("alive", HOUR - SECOND, "a0")] {
        let login = TokenSet::new("u1").with_refresh_token("ur1").with_expires_in(HOUR);
        let hook = Hook::returning(login);
        let scene = Scene::new(REFUSALS[0], provider, &hook).await;
        let mut events = scene.session.events();
        scene.clock.advance(age);
        for result in all(scene.storm()).await {
            assert_eq!(outcome(result), "200", "{case}");
        }
        assert_eq!(scene.api.tokens()[0], sent, "{case}");
        while !matches!(events.next().await, Some(Event::Refreshed { .. })) {}
        assert_eq!((scene.wire.requests().len(), hook.calls()), (1, 1), "{case}");
        assert_eq!(scene.session.current_tokens().unwrap().access_token(), "u1", "{case}");
    }
}

/// K-34, K-35, Q-37: a status that is about the server stays one, whatever the user says of silence.
#[tokio::test]
async fn k_34_an_outage_that_cannot_be_read_is_never_a_death() {
    let provider = Provider::rfc6749().with_unreadable_error(RefreshFailure::Terminal);
    for status in [200, 302, 409, 500] {
        let hook = Hook::declining();
        let scene = Scene::new((status, "", ""), provider, &hook).await;
        scene.clock.advance(HOUR);
        let error = one_error(scene.storm_that_waits().await);
        assert_eq!(error.kind().to_string(), UNAVAILABLE, "{status}");
        assert_eq!((scene.wire.requests().len(), hook.calls()), (1, 0), "{status}");
    }
}
