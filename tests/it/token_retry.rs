//! The token endpoint on a real loopback socket: what is tried again, when, and what is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest_refresh::{ClientAuth, ErrorKind, Event, ManualClock, Session, TokenEndpoint};

use crate::support::{ClosedPort, SECOND, Then, Wire, http, until};
use crate::token_request::{FINE, ask, backoff, endpoint, session, tokens};

/// Resolves everything to a port where nobody listens, and counts.
struct Nowhere {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Resolve for Nowhere {
    fn resolve(&self, _: Name) -> Resolving {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let addresses: Addrs = Box::new(Some(self.address).into_iter());
        Box::pin(async { Ok(addresses) })
    }
}

/// K-35, G06, X15: no connection means that nobody has used up the refresh token.
#[tokio::test]
async fn k_35_a_connection_that_is_refused_is_tried_three_times() {
    let closed = ClosedPort::reserve();
    let address = closed.address();
    let asked = Arc::new(AtomicUsize::new(0));
    let nowhere = Nowhere { address, asked: Arc::clone(&asked) };
    let builder = reqwest::Client::builder().dns_resolver(Arc::new(nowhere));
    let url = format!("http://token.localhost:{}/", address.port());
    let endpoint =
        TokenEndpoint::new(&url, ClientAuth::none("app")).unwrap().with_http(builder).unwrap();
    let (session, clock) = session(endpoint);
    let waiting = ask(&session);
    let first = backoff(&clock).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    clock.advance(first);
    until(|| asked.load(Ordering::SeqCst) == 2).await;
    let second = backoff(&clock).await;
    assert!(second > first && first >= Duration::from_millis(200), "{first:?} {second:?}");
    clock.advance(second);
    until(|| waiting.is_finished()).await;
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert!(matches!(error.kind(), ErrorKind::Unavailable));
    assert!(error.to_string().contains("no connection to the token endpoint"), "{error}");
    assert!(error.retry_after().unwrap() >= SECOND, "no zero-delay loop (X15)");
    assert_eq!(session.current_tokens().unwrap().refresh_token(), tokens().refresh_token());
}

/// K-35, R-045, Q-50, Q-54, X09: an answer that was lost may be asked for once more, quickly, and
/// no oftener.
#[tokio::test]
async fn k_35_a_connection_that_breaks_after_the_request_is_tried_once_more() {
    let wire = Wire::start(|number| match number {
        0 => Then::Reset,
        1 => Then::Say(http(200, "", FINE)),
        _ => Then::Close,
    })
    .await;
    let (session, clock) = session(endpoint(&wire));
    let waiting = ask(&session);
    clock.advance(backoff(&clock).await);
    assert_eq!(waiting.await.unwrap().unwrap().access_token(), "a1");
    assert_eq!(wire.requests()[0], wire.requests()[1], "the same refresh token");

    clock.advance(3600 * SECOND);
    let waiting = ask(&session);
    clock.advance(backoff(&clock).await);
    until(|| waiting.is_finished()).await;
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable), "{error}");
    assert_eq!(wire.requests().len(), 4, "two for each refresh");
    assert_eq!(session.current_tokens().unwrap().refresh_token(), Some("r1"));
}

/// K-50, X09: the retry of a lost answer is refused: the reason tells that from an ordinary end.
#[tokio::test]
async fn k_50_a_refusal_after_a_lost_answer_says_so() {
    let wire = Wire::start(|number| match number {
        0 => Then::Close,
        _ => Then::Say(http(400, "", r#"{"error":"invalid_grant"}"#)),
    })
    .await;
    let (session, clock) = session(endpoint(&wire));
    let waiting = ask(&session);
    clock.advance(backoff(&clock).await);
    until(|| waiting.is_finished()).await;
    let error = waiting.await.unwrap().unwrap_err();
    let ErrorKind::LoginRequired(reason) = error.kind() else {
        panic!("{error}");
    };
    assert!(reason.explain().contains("after an earlier answer was lost"), "{reason:?}");
    assert!(reason.explain().contains("invalid_grant"), "{reason:?}");
}

/// K-35, G06, G11, R-073, Q-39.
#[tokio::test]
async fn k_35_a_busy_server_is_left_alone_for_as_long_as_it_says() {
    for (case, status, header) in [
        ("503, seconds", 503, "retry-after: 7\r\n"),
        ("429, seconds", 429, "retry-after: 7\r\n"),
        (
            "a date, by the server's own clock",
            503,
            "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:49:44 GMT\r\n",
        ),
    ] {
        let wire = Wire::start(move |number| match number {
            0 | 1 => Then::Say(http(status, header, "")),
            _ => Then::Say(http(200, "", FINE)),
        })
        .await;
        let (session, clock) = session(endpoint(&wire));
        let waiting = ask(&session);
        for round in 1..=2 {
            assert_eq!(backoff(&clock).await, 7 * SECOND, "{case}");
            assert_eq!(wire.requests().len(), round, "{case}");
            clock.advance(7 * SECOND);
            until(|| wire.requests().len() == round + 1).await;
        }
        assert_eq!(waiting.await.unwrap().unwrap().access_token(), "a1", "{case}");
    }
}

/// K-35, K-20, G06, G11, C04, X15, Q-39, Q-63: one cool-down for everybody, longer if the
/// server says so, but never endless; and after it a new try.
#[tokio::test]
async fn k_35_a_cool_down_is_shared_and_capped_and_ends() {
    for (case, status, header, least, most, attempts) in [
        ("no word", 500, "", 1, 3, 1),
        ("30 seconds", 500, "retry-after: 30\r\n", 30, 30, 1),
        ("a year", 503, "retry-after: 31536000\r\n", 3600, 3600, 1),
        (
            "longer than there are seconds",
            429,
            "retry-after: 99999999999999999999999\r\n",
            3600,
            3600,
            1,
        ),
        ("garbage", 500, "retry-after: soon\r\n", 1, 3, 1),
        ("bytes that are no text", 500, "retry-after: \u{e4}\r\n", 1, 3, 1),
    ] {
        let wire = Wire::start(move |number| match number < attempts {
            true => Then::Say(http(status, header, "{}")),
            false => Then::Say(http(200, "", FINE)),
        })
        .await;
        let (session, clock) = session(endpoint(&wire));
        let waiting: Vec<_> = (0..10).map(|_| ask(&session)).collect();
        for waiter in waiting {
            let error = waiter.await.unwrap().expect_err(case);
            assert!(matches!(error.kind(), ErrorKind::Unavailable), "{case}: {error}");
            let pause = error.retry_after().unwrap();
            assert!(pause >= least * SECOND && pause <= most * SECOND, "{case}: {pause:?}");
        }
        let pause = session.tokens().await.unwrap_err().retry_after().unwrap();
        clock.advance(pause - Duration::from_millis(1));
        let late = session.tokens().await.unwrap_err();
        assert_eq!(late.retry_after(), Some(Duration::from_millis(1)), "{case}");
        assert_eq!(wire.requests().len(), attempts, "{case}: no traffic meanwhile");
        clock.advance(Duration::from_millis(1));
        assert_eq!(session.tokens().await.unwrap().access_token(), "a1", "{case}");
    }
}

/// K-34, K-31, K-54, K-71, Q-72, DIGIRUNNER.md §2: each wrong password brings the client nearer to its
/// lock; no second method is tried.
#[tokio::test]
async fn k_34_a_wrong_client_is_told_once_until_tokens_are_set() {
    let refusal = r#"{"timestamp":"1684742522981","status":401,"error":"Unauthorized",
        "message":"The client(application) account or password is incorrect. clientId: tspclient",
        "path":"/oauth/token"}"#;
    let wire = Wire::start(move |number| match number {
        0 | 1 => Then::Say(http(401, "", refusal)),
        _ => Then::Say(http(200, "", FINE)),
    })
    .await;
    let endpoint = TokenEndpoint::digirunner(&wire.url("/"), "tspclient", Some("wrong")).unwrap();
    let clock = ManualClock::new();
    let session = Session::builder(endpoint)
        .clock(clock.clone())
        .tokens(tokens().with_expires_in(SECOND))
        .on_login_required(|why| async move { panic!("nobody can log in here: {why:?}") })
        .build()
        .unwrap();
    let mut events = session.events();
    clock.advance(SECOND);
    for _ in 0..3 {
        let error = session.tokens().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration), "{error}");
        assert!(error.to_string().contains("password is incorrect"), "{error}");
        assert_eq!(error.retry_after(), Some(600 * SECOND));
    }
    clock.advance(599 * SECOND);
    assert!(session.refresh().await.is_err(), "not even if it is demanded");
    assert_eq!(wire.requests().len(), 1);
    assert!(matches!(events.next().await, Some(Event::RefreshFailed { .. })));

    clock.advance(SECOND);
    assert!(session.tokens().await.is_err());
    assert_eq!(wire.requests().len(), 2, "now and then it is tried again");
    session.set_tokens(tokens()).await.unwrap();
    assert_eq!(session.refresh().await.unwrap().access_token(), "a1", "or when tokens are set");
    assert_eq!(wire.requests().len(), 3);
}
