//! A person who takes their time keeps nobody waiting who need not wait.

use std::sync::Arc;

use reqwest_refresh::{Authenticate, RefreshFailure};
use tokio::sync::Semaphore;

use crate::support::{Api, Issuer, Rig, SECOND, everybody_waits, fed_body};

/// K-52, D07, X16. A request that asks for a longer validity, or cannot be sent twice, waits for a
/// refresh of a stale token: not for the person whom that refresh turns out to need.
#[tokio::test]
async fn k_52_nobody_waits_for_a_person_while_the_token_is_alive() {
    let person = Arc::new(Semaphore::new(0));
    let door = Arc::clone(&person);
    let rig = Rig::with(Api::friendly(), Issuer::new(), |builder| {
        builder.on_login_required(move |_| {
            let door = Arc::clone(&door);
            async move {
                drop(door.acquire().await);
                None
            }
        })
    });
    rig.clock.advance(3570 * SECOND);
    rig.issuer.hold();
    rig.issuer.then_fails(RefreshFailure::Terminal);
    let one_shot = || {
        let (_, body) = fed_body();
        rig.client.post("https://api.test/upload").body(body).send()
    };
    let long = || {
        let request = rig.client.get("https://api.test/long");
        let wish = Authenticate::ValidFor(600 * SECOND);
        request.with_extension(wish).send()
    };
    let before = [tokio::spawn(one_shot()), tokio::spawn(long())];
    everybody_waits().await;
    assert_eq!((rig.issuer.calls(), rig.api.arrived()), (1, 0));
    rig.issuer.release();
    everybody_waits().await;
    let during = [tokio::spawn(one_shot()), tokio::spawn(long())];
    everybody_waits().await;
    assert_eq!(rig.api.arrived(), 4, "before and during the login");
    for request in before.into_iter().chain(during) {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    let forced = tokio::spawn({
        let session = rig.session.clone();
        async move { session.refresh().await }
    });
    everybody_waits().await;
    assert!(!forced.is_finished(), "who demands a new token waits for the person");
    person.add_permits(1);
    assert!(forced.await.unwrap().unwrap_err().is_login_required());
}
