//! A request's own time, and who may wait beyond it.

use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Response;
use reqwest_refresh::{Error, ErrorKind, RefreshFailure, TokenSet};
use tokio::task::JoinHandle;

use crate::support::{Api, Issuer, Reply, Rig, SECOND, everybody_waits, fed_body, outcome};

type Sent = JoinHandle<reqwest_middleware::Result<Response>>;

fn get_within(rig: &Rig, timeout: Duration) -> Sent {
    let request = rig.client.get("https://api.test/orders").timeout(timeout);
    tokio::spawn(request.send())
}

/// K-46: E26, R-072.
#[tokio::test]
async fn k_46_a_requests_timeout_covers_its_waiting_for_a_refresh_which_goes_on() {
    let rig = Rig::new(Api::friendly());
    rig.clock.advance(3600 * SECOND);
    rig.issuer.hold();
    let (hasty, patient) = (get_within(&rig, 5 * SECOND), get_within(&rig, 20 * SECOND));
    everybody_waits().await;
    rig.clock.advance(4 * SECOND);
    everybody_waits().await;
    assert!(!hasty.is_finished());
    rig.clock.advance(SECOND);
    let error = hasty.await.unwrap().unwrap_err();
    let error = Error::find(&error).unwrap();
    assert!(matches!(error.kind(), ErrorKind::TimedOut));
    assert!(error.rejection().is_none());
    everybody_waits().await;
    assert!(!patient.is_finished());
    rig.issuer.release();
    assert_eq!(outcome(patient.await.unwrap()), "200");
    assert_eq!((rig.issuer.calls(), rig.api.tokens()), (1, vec!["a1".into()]));
}

/// K-46: E26.
#[tokio::test]
async fn k_46_what_was_waited_is_taken_from_the_time_of_each_attempt() {
    let rig = Rig::new(Api::rejecting(&["a1"]));
    rig.clock.advance(3600 * SECOND);
    rig.issuer.hold();
    rig.api.hold();
    let request = get_within(&rig, 60 * SECOND);
    everybody_waits().await;
    rig.clock.advance(10 * SECOND); // the first refresh
    rig.issuer.release();
    everybody_waits().await;
    assert_eq!(rig.api.arrived(), 1);
    rig.clock.advance(7 * SECOND); // the first attempt
    rig.issuer.hold();
    rig.api.release();
    everybody_waits().await;
    assert_eq!(rig.issuer.calls(), 2);
    rig.clock.advance(3 * SECOND); // the second refresh
    rig.issuer.release();
    assert_eq!(outcome(request.await.unwrap()), "200");
    let timeouts: Vec<_> = rig.api.seen().iter().map(|seen| seen.timeout).collect();
    assert_eq!(timeouts, [Some(50 * SECOND), Some(40 * SECOND)]);
}

/// K-46: a request without a timeout of its own gets none from us.
#[tokio::test]
async fn k_46_a_request_without_a_timeout_waits_for_the_refresh_and_gets_none() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    rig.get().await.unwrap();
    let timeouts: Vec<_> = rig.api.seen().iter().map(|seen| seen.timeout).collect();
    assert_eq!(timeouts, [None, None]);
}

/// K-46, K-44: E26.
#[tokio::test]
async fn k_46_a_timeout_behind_a_401_carries_the_401() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    rig.issuer.hold();
    let request = get_within(&rig, 5 * SECOND);
    everybody_waits().await;
    assert_eq!((rig.api.arrived(), rig.issuer.calls()), (1, 1));
    rig.clock.advance(5 * SECOND);
    let error = request.await.unwrap().unwrap_err();
    let error = Error::find(&error).unwrap();
    assert!(matches!(error.kind(), ErrorKind::TimedOut));
    assert_eq!(error.rejection().unwrap().status(), 401);
}

/// K-46, K-45: E26. Reading the answer that is thrown away takes time, too.
#[tokio::test]
async fn k_46_reading_a_slow_401_is_taken_from_the_requests_time() {
    for (case, timeout, expected) in
        [("enough is left", 60, Ok(56)), ("nothing is left", 3, Err("timed out"))]
    {
        let (feed, body) = fed_body();
        let body = Mutex::new(Some(body));
        let api = Api::new(move |seen| match seen.token() {
            Some("a0") => Reply::status(401).body(body.lock().take().unwrap()),
            _ => Reply::status(200),
        });
        let rig = Rig::new(api);
        let request = get_within(&rig, timeout * SECOND);
        feed.data("slow");
        everybody_waits().await;
        rig.clock.advance(4 * SECOND);
        drop(feed);
        let result = request.await.unwrap();
        match expected {
            Ok(left) => {
                assert_eq!(outcome(result), "200", "{case}");
                assert_eq!(rig.api.seen()[1].timeout, Some(left * SECOND), "{case}");
            }
            Err(message) => {
                assert_eq!(outcome(result), message, "{case}");
                assert_eq!(rig.api.arrived(), 1, "{case}");
            }
        }
    }
}

/// K-46: a person takes longer than a request.
#[tokio::test]
async fn k_46_waiting_for_a_login_has_its_own_bound() {
    for (case, answers_after) in [("in time", Some(250)), ("never", None)] {
        let clock = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        let door = clock.clone();
        let rig = Rig::with(Api::friendly(), Issuer::new(), move |builder| {
            builder.login_timeout(300 * SECOND).on_login_required(move |_| {
                let door = door.clone();
                async move {
                    door.acquire().await.unwrap().forget();
                    Some(TokenSet::new("b0").with_refresh_token("s0"))
                }
            })
        });
        rig.issuer.then_fails(RefreshFailure::Terminal);
        rig.clock.advance(3600 * SECOND);
        let request = get_within(&rig, 5 * SECOND);
        everybody_waits().await;
        rig.clock.advance(250 * SECOND);
        everybody_waits().await;
        assert!(!request.is_finished(), "{case}: its 5 s do not count here");
        match answers_after {
            Some(_) => {
                clock.add_permits(1);
                assert_eq!(outcome(request.await.unwrap()), "200", "{case}");
                let timeout = rig.api.seen()[0].timeout;
                assert_eq!(timeout, Some(5 * SECOND), "{case}: nothing was spent");
                assert_eq!(rig.api.tokens(), ["b0"]);
            }
            None => {
                rig.clock.advance(50 * SECOND);
                assert_eq!(outcome(request.await.unwrap()), "login required", "{case}");
                assert_eq!(rig.api.arrived(), 0);
            }
        }
    }
}
