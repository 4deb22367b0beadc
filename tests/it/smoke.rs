use crate::support::{Api, Rig, SECOND, everybody_waits};

#[tokio::test]
async fn k_20_a_hundred_requests_share_one_refresh() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    rig.clock.advance(3600 * SECOND);
    rig.issuer.hold();
    let requests: Vec<_> = (0..100).map(|_| rig.spawn_get()).collect();
    everybody_waits().await;
    assert_eq!((rig.issuer.calls(), rig.api.arrived()), (1, 0));
    rig.issuer.release();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(rig.issuer.sent(), ["r0"]);
    assert_eq!(rig.api.tokens(), vec!["a1"; 100]);
}

#[tokio::test]
async fn k_40_a_rejected_request_is_replayed_once_with_the_next_token() {
    let rig = Rig::new(Api::rejecting(&["a0"]));
    assert_eq!(rig.get().await.unwrap().status(), 200);
    assert_eq!(rig.api.tokens(), ["a0", "a1"]);
}
