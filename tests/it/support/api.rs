use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, Method};
use parking_lot::Mutex;
use reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{Middleware, Next, Result};
use tokio::sync::Semaphore;

/// A request as it arrived at the API.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Option<Vec<u8>>,
    pub timeout: Option<Duration>,
}

impl Seen {
    /// The token it carried, without `Bearer `.
    pub fn token(&self) -> Option<&str> {
        self.headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
    }
}

/// What the API answers.
pub struct Reply {
    pub response: http::response::Builder,
    pub body: Body,
    /// Where the answer comes from, if not from where the request went.
    pub url: Option<Url>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            response: http::Response::builder().status(status),
            body: Body::default(),
            url: None,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.response = self.response.header(name, value);
        self
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, body: serde_json::Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn coming_from(mut self, url: &str) -> Self {
        self.url = Some(Url::parse(url).unwrap());
        self
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

/// The last middleware of a chain: answers requests without a network, by the test's script.
///
/// Its clones are the same API.
#[derive(Clone)]
pub struct Api {
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<Seen>>>,
    arrived: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Api {
    pub fn new(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            seen: Arc::default(),
            arrived: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    /// 200 for everything.
    pub fn friendly() -> Self {
        Self::new(|_| Reply::status(200))
    }

    /// 401 for these tokens, 200 for the rest.
    pub fn rejecting(tokens: &'static [&'static str]) -> Self {
        Self::new(move |seen| match seen.token() {
            Some(token) if !tokens.contains(&token) => Reply::status(200),
            _ => Reply::status(401).body("rejected"),
        })
    }

    /// From now on answers wait until [`release`](Self::release) is called.
    pub fn hold(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets everybody through again.
    pub fn release(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// The requests that were answered, in their order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// The tokens of the requests that were answered; `-` for none.
    pub fn tokens(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.token().unwrap_or("-").to_owned()).collect()
    }

    /// How many requests have arrived, answered or not.
    pub fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Middleware for Api {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let seen = Seen {
            method: request.method().clone(),
            url: request.url().clone(),
            headers: request.headers().clone(),
            body: request.body().and_then(|body| body.as_bytes()).map(<[u8]>::to_vec),
            timeout: request.timeout().copied(),
        };
        let pass = self.gate.acquire().await.unwrap();
        drop(pass);
        let reply = (self.script)(&seen);
        let url = reply.url.unwrap_or_else(|| seen.url.clone());
        self.seen.lock().push(seen);
        Ok(reply.response.url(url).body(reply.body).unwrap().into())
    }
}
