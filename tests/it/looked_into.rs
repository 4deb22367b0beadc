//! A body that was looked into, or was left unread, still reaches the caller whole.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use http::Version;
use http_body::{Body as _, Frame};
use parking_lot::Mutex;
use reqwest::{Body, Response};
use reqwest_refresh::Provider;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::{Api, Feed, Issuer, Reply, Rig, SECOND, everybody_waits, fed_body};

const DEAD: &str = r#"{"error":"invalid_token"}"#;

/// A digiRunner session, and an API that answers `a0` with a body that the test feeds.
struct Look {
    rig: Rig,
    feed: Feed,
}

impl Look {
    fn new(status: u16, reply: fn(Reply) -> Reply) -> Self {
        let (feed, body) = fed_body();
        let body = Mutex::new(Some(body));
        let api = Api::new(move |seen| match seen.token() {
            Some("a0") => {
                let body = body.lock().take().expect("one request with a0");
                let json = Reply::status(status).header("content-type", "application/json");
                reply(json).body(body)
            }
            _ => Reply::status(200).body("replayed"),
        });
        let issuer = Issuer::with(3600 * SECOND, Provider::digirunner());
        let rig = Rig::with(api, issuer, |builder| builder);
        Self { rig, feed }
    }

    fn get(&self) -> JoinHandle<reqwest_middleware::Result<Response>> {
        self.rig.spawn_get()
    }
}

async fn next_frame(body: &mut Body) -> Option<reqwest::Result<Frame<Bytes>>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// K-42: Q-90.
#[tokio::test]
async fn k_42_status_version_headers_url_and_extensions_survive_the_look() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mark(u8);

    let look = Look::new(403, |mut reply| {
        reply.response = reply.response.version(Version::HTTP_2).extension(Mark(7));
        let reply = reply.header("x-many", "one").header("x-many", "two");
        reply.coming_from("https://api.test/moved?to=here#part")
    });
    look.feed.data(r#"{"error":"#);
    look.feed.data(r#""Forbidden"}"#);
    drop(look.feed);
    let response = look.rig.get().await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.url().as_str(), "https://api.test/moved?to=here#part");
    let many: Vec<_> = response.headers().get_all("x-many").iter().collect();
    assert_eq!(many, ["one", "two"]);
    assert_eq!(response.headers().len(), 3);
    assert_eq!(response.extensions().get::<Mark>(), Some(&Mark(7)));
    assert_eq!(response.text().await.unwrap(), r#"{"error":"Forbidden"}"#);
}

/// K-42: also where nobody looks into the body: a 401 that is the caller's, read or unread.
#[tokio::test]
async fn k_42_a_401_that_is_the_callers_is_as_it_came() {
    let body = json!({"why": "budget"}).to_string();
    let answer = body.clone();
    let api = Api::new(move |_| {
        let reply = Reply::status(401).header("x", "y").body(answer.clone());
        reply.coming_from("https://api.test/moved")
    });
    let rig = Rig::with(api, Issuer::new(), |builder| builder.rejection_budget(0, 30 * SECOND));
    let response = rig.get().await.unwrap();
    assert_eq!(response.content_length(), Some(body.len() as u64));
    assert_eq!(response.headers()["x"], "y");
    assert_eq!(response.url().path(), "/moved");
    assert_eq!(response.text().await.unwrap(), body);
}

/// K-42: what is whole says how long it is, as before.
#[tokio::test]
async fn k_42_the_content_length_survives_the_look() {
    for size in [0, 10, 65_534, 65_535, 70_000] {
        let text = format!("\"{}\"", "x".repeat(size));
        let body = text.clone();
        let api = Api::new(move |_| {
            let reply = Reply::status(403).header("content-type", "application/json");
            reply.body(body.clone())
        });
        let issuer = Issuer::with(3600 * SECOND, Provider::digirunner());
        let rig = Rig::with(api, issuer, |builder| builder);
        let response = rig.get().await.unwrap();
        assert_eq!(response.content_length(), Some(text.len() as u64));
        assert_eq!(response.text().await.unwrap(), text);
    }
}

/// K-42: gated on size.
#[tokio::test]
async fn k_42_a_body_of_64_kib_is_looked_into_and_a_larger_one_is_not_and_comes_whole() {
    const LIMIT: usize = 64 * 1024;
    for (size, chunk, is_rejection) in [
        (LIMIT, LIMIT, true),
        (LIMIT, 1000, true),
        (LIMIT + 1, 1000, false),
        (LIMIT + 1, LIMIT, false),
        (LIMIT + 1, LIMIT + 1, false),
        (10 * LIMIT, 1000, false),
    ] {
        let look = Look::new(403, |reply| reply);
        let text = DEAD.to_owned() + &" ".repeat(size - DEAD.len());
        for chunk in text.as_bytes().chunks(chunk) {
            look.feed.data(chunk.to_vec());
        }
        drop(look.feed);
        let response = look.rig.get().await.unwrap();
        assert_eq!(response.status() == 200, is_rejection, "{size} by {chunk}");
        if !is_rejection {
            assert_eq!(response.status(), 403);
            assert_eq!(response.text().await.unwrap(), text, "{size} by {chunk}");
        }
    }
}

/// K-42: gated on the size that is announced, too.
#[tokio::test]
async fn k_42_a_body_that_announces_its_size_is_looked_into_up_to_64_kib() {
    for (size, is_rejection) in [(64 * 1024, true), (64 * 1024 + 1, false)] {
        let text = DEAD.to_owned() + &" ".repeat(size - DEAD.len());
        let body = text.clone();
        let api = Api::new(move |seen| match seen.token() {
            Some("a0") => {
                Reply::status(403).header("content-type", "application/json").body(body.clone())
            }
            _ => Reply::status(200),
        });
        let issuer = Issuer::with(3600 * SECOND, Provider::digirunner());
        let rig = Rig::with(api, issuer, |builder| builder);
        let response = rig.get().await.unwrap();
        assert_eq!(response.status() == 200, is_rejection, "{size}");
        if !is_rejection {
            assert_eq!(response.text().await.unwrap(), text);
        }
    }
}

/// K-42: whoever wants the end of a body waits for ever where there is none.
#[tokio::test]
async fn k_42_no_more_than_the_limit_is_held_back_of_an_endless_body() {
    let look = Look::new(403, |reply| reply);
    for _ in 0..66 {
        look.feed.data(vec![b' '; 1024]);
    }
    // The feed stays open: whoever wanted the end would wait for ever.
    let response = look.get().await.unwrap().unwrap();
    assert_eq!(response.status(), 403);
    look.feed.data("the end");
    drop(look.feed);
    let text = response.text().await.unwrap();
    assert_eq!((text.len(), &text[66 * 1024..]), (66 * 1024 + 7, "the end"));
}

/// K-42: gated on time.
#[tokio::test]
async fn k_42_a_slow_body_is_given_up_after_five_seconds_and_comes_whole() {
    let look = Look::new(403, |reply| reply);
    look.feed.data(&DEAD.as_bytes()[..10]);
    let request = look.get();
    everybody_waits().await;
    look.rig.clock.advance(4 * SECOND);
    everybody_waits().await;
    assert!(!request.is_finished(), "it may still come in time");
    look.rig.clock.advance(SECOND);
    let response = request.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), look.rig.issuer.calls()), (403, 0));
    look.feed.data(&DEAD.as_bytes()[10..]);
    drop(look.feed);
    assert_eq!(response.text().await.unwrap(), DEAD);
}

/// K-42, K-45: a body that comes in time counts; one that does not is left unread.
#[tokio::test]
async fn k_42_a_body_that_comes_within_five_seconds_is_looked_into() {
    let look = Look::new(403, |reply| reply);
    look.feed.data(&DEAD.as_bytes()[..10]);
    let request = look.get();
    everybody_waits().await;
    look.rig.clock.advance(4 * SECOND);
    look.feed.data(&DEAD.as_bytes()[10..]);
    drop(look.feed);
    let response = request.await.unwrap().unwrap();
    assert_eq!(response.text().await.unwrap(), "replayed");
}

/// K-42.
#[tokio::test]
async fn k_42_an_error_halfway_through_the_body_reaches_the_caller_where_it_was() {
    for begins_with in ["", "{\"error\":", DEAD] {
        let look = Look::new(403, |reply| reply);
        if !begins_with.is_empty() {
            look.feed.data(begins_with);
        }
        look.feed.fail();
        drop(look.feed);
        let mut response = look.rig.get().await.unwrap();
        assert_eq!(response.status(), 403, "half a body is no verdict");
        assert_eq!(look.rig.issuer.calls(), 0);
        if !begins_with.is_empty() {
            assert_eq!(response.chunk().await.unwrap().unwrap(), begins_with);
        }
        let error = response.chunk().await.unwrap_err();
        let mut source = std::error::Error::source(&error);
        while let Some(next) = source.and_then(std::error::Error::source) {
            source = Some(next);
        }
        let cause = source.unwrap().downcast_ref::<std::io::Error>().unwrap();
        assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(response.chunk().await.unwrap().is_none());
    }
}

/// K-42.
#[tokio::test]
async fn k_42_trailers_survive_the_look() {
    let look = Look::new(403, |reply| reply);
    look.feed.data("{");
    look.feed.data("}");
    look.feed.trailer("x-checksum", "1234");
    drop(look.feed);
    let response = look.rig.get().await.unwrap();
    let mut body = http::Response::<Body>::from(response).into_body();
    let mut text = Vec::new();
    let trailers = loop {
        match next_frame(&mut body).await.unwrap().unwrap().into_data() {
            Ok(data) => text.extend_from_slice(&data),
            Err(frame) => break frame.into_trailers().unwrap(),
        }
    };
    assert_eq!((&text[..], &trailers["x-checksum"]), (&b"{}"[..], &"1234".parse().unwrap()));
    assert!(next_frame(&mut body).await.is_none());
}

/// K-45: a large or slow body that is thrown away is not read to its end.
#[tokio::test]
async fn k_45_a_large_or_slow_answer_that_is_thrown_away_holds_nothing_up() {
    for case in ["large", "slow", "broken"] {
        let look = Look::new(401, |reply| reply);
        match case {
            "large" => (0..66).for_each(|_| look.feed.data(vec![0; 1024])),
            "slow" => look.feed.data("a"),
            _ => look.feed.fail(),
        }
        let request = look.get();
        everybody_waits().await;
        if case == "slow" {
            assert_eq!(look.rig.issuer.calls(), 0, "small bodies are read first");
            look.rig.clock.advance(5 * SECOND);
        }
        let response = request.await.unwrap().unwrap();
        assert_eq!(response.text().await.unwrap(), "replayed", "{case}");
        assert!(!look.feed.is_held(), "{case}: the connection is let go");
    }
}

/// K-42, K-43: a rejection that is not replayed is the caller's, and was looked into.
#[tokio::test]
async fn k_42_a_rejection_of_a_body_that_is_sent_once_comes_whole() {
    let look = Look::new(403, |reply| reply);
    look.feed.data(&DEAD.as_bytes()[..9]);
    look.feed.data(&DEAD.as_bytes()[9..]);
    drop(look.feed);
    let request = look.rig.client.post("https://api.test/");
    let response = request.body(fed_body().1).send().await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(response.text().await.unwrap(), DEAD);
    look.rig.session.settle().await.unwrap();
    assert_eq!((look.rig.api.arrived(), look.rig.issuer.calls()), (1, 1));
}
