use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use reqwest::Body;
use tokio::sync::mpsc;

type Item = Result<Frame<Bytes>, io::Error>;

/// A body that can be sent only once, and comes as the test feeds it. Ends when the feed is dropped.
pub fn fed_body() -> (Feed, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let alive = Arc::new(());
    let feed = Feed { sender, body: Arc::downgrade(&alive) };
    (feed, Body::wrap(Fed { receiver, _alive: alive }))
}

/// The test's end of a body.
pub struct Feed {
    sender: mpsc::UnboundedSender<Item>,
    body: std::sync::Weak<()>,
}

impl Feed {
    pub fn data(&self, data: impl Into<Bytes>) {
        let _ = self.sender.send(Ok(Frame::data(data.into())));
    }

    pub fn trailer(&self, name: &'static str, value: &'static str) {
        let value = http::HeaderValue::from_static(value);
        let trailers = [(http::HeaderName::from_static(name), value)];
        let _ = self.sender.send(Ok(Frame::trailers(trailers.into_iter().collect())));
    }

    pub fn fail(&self) {
        let _ = self.sender.send(Err(io::ErrorKind::ConnectionReset.into()));
    }

    /// Whether somebody still holds the body.
    pub fn is_held(&self) -> bool {
        self.body.strong_count() > 0
    }
}

struct Fed {
    receiver: mpsc::UnboundedReceiver<Item>,
    _alive: Arc<()>,
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.get_mut().receiver.poll_recv(context)
    }
}
