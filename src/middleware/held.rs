//! A response whose body is looked into, and can still be given to the caller whole.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http_body::{Body as _, Frame, SizeHint};
use reqwest::{Body, Response, ResponseBuilderExt, Url};
use serde_json::Value;

use crate::clock::Clock;
use crate::error::Rejection;

/// More than this is not looked into.
const MOST: usize = 64 * 1024;
/// Longer than this a look does not take.
const LONGEST: Duration = Duration::from_secs(5);

/// A response, and as much of its body as has been read so far.
pub(super) struct Held {
    parts: http::response::Parts,
    url: Url,
    body: Resumed,
    /// How long the reading took, all of it.
    pub(super) taken: Duration,
}

/// The body of a response: first what was read of it already, then the rest as it comes.
struct Resumed {
    read: BytesMut,
    /// What the reading ended with, where that is not the end: trailers, or an error.
    last: Option<Result<Frame<Bytes>, reqwest::Error>>,
    rest: Option<Body>,
}

impl Held {
    pub(super) fn new(response: Response) -> Self {
        let url = response.url().clone();
        let (parts, body) = http::Response::<Body>::from(response).into_parts();
        let body = Resumed { read: BytesMut::new(), last: None, rest: Some(body) };
        Self { parts, url, body, taken: Duration::ZERO }
    }

    /// Reads a small body to its end, so that the connection can be used again, and a large or slow
    /// one as far as it goes; for no longer than the request has time.
    pub(super) async fn read(&mut self, clock: &Clock, patience: Option<Duration>) {
        let start = clock.now();
        let body = &mut self.body;
        let reading = async { while body.read.len() <= MOST && body.read_frame().await {} };
        // What was read before the time was over stays read.
        let _ = clock.timeout(patience.unwrap_or(LONGEST).min(LONGEST), reading).await;
        self.taken += clock.now().monotonic - start.monotonic;
    }

    /// The body as JSON: if it says that it is, is small, and comes in time.
    pub(super) async fn json(&mut self, clock: &Clock) -> Option<Value> {
        let content_type = self.parts.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = content_type.split(';').next()?.trim().to_ascii_lowercase();
        if essence != "application/json" && !essence.ends_with("+json") {
            return None;
        }
        if self.body.size_hint().lower() > MOST as u64 {
            return None;
        }
        self.read(clock, None).await;
        let is_whole = self.body.rest.is_none() && !matches!(self.body.last, Some(Err(_)));
        is_whole.then(|| serde_json::from_slice(&self.body.read).ok()).flatten()
    }

    /// The response as it came.
    pub(super) fn into_response(self) -> Response {
        // The builder's extension is the only way to give a response its URL.
        let response = http::Response::builder().url(self.url).body(Body::wrap(self.body));
        // unwrap safety: a builder without status and headers cannot fail.
        let (mut parts, body) = response.expect("an empty response").into_parts();
        parts.status = self.parts.status;
        parts.version = self.parts.version;
        parts.headers = self.parts.headers;
        parts.extensions.extend(self.parts.extensions);
        http::Response::from_parts(parts, body).into()
    }

    /// What is kept of the response when it is thrown away.
    pub(super) fn into_rejection(mut self) -> Rejection {
        self.body.read.truncate(MOST);
        Rejection {
            status: self.parts.status,
            headers: self.parts.headers,
            url: self.url,
            body: self.body.read.freeze(),
        }
    }
}

impl Resumed {
    /// Reads one more frame. Whether there may be another.
    async fn read_frame(&mut self) -> bool {
        let Some(rest) = &mut self.rest else {
            return false;
        };
        let frame = poll_fn(|context| Pin::new(&mut *rest).poll_frame(context)).await;
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.read.extend_from_slice(&data);
                    return true;
                }
                Err(trailers) => self.last = Some(Ok(trailers)),
            },
            Some(Err(error)) => self.last = Some(Err(error)),
            None => {}
        }
        self.rest = None;
        false
    }
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let this = self.get_mut();
        if !this.read.is_empty() {
            let read = this.read.split().freeze();
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        if let Some(last) = this.last.take() {
            return Poll::Ready(Some(last));
        }
        match &mut this.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        let mut hint = match &self.rest {
            Some(rest) => rest.size_hint(),
            None => SizeHint::with_exact(0),
        };
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + read);
        }
        hint.set_lower(hint.lower() + read);
        hint
    }
}
