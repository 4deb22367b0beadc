use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Request;
use axum::serve::ListenerExt;
use http::Response;
use parking_lot::Mutex;
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::Seen;

/// An answer on the wire.
pub type Answer = Response<axum::body::Body>;

/// An HTTP/1.1 server on a loopback socket that answers by the test's script.
pub struct Server {
    address: std::net::SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(script: impl Fn(&Seen) -> Answer + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::default());
        let count = Arc::clone(&connections);
        let listener = listener.tap_io(move |_| {
            let _: usize = AtomicUsize::fetch_add(&count, 1, Ordering::SeqCst);
        });
        let log = Arc::clone(&seen);
        let handler = move |request: Request| {
            let (script, log) = (script.clone(), Arc::clone(&log));
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await;
                let url = format!("http://{address}{}", parts.uri);
                let request = Seen {
                    method: parts.method,
                    url: Url::parse(&url).unwrap(),
                    headers: parts.headers,
                    body: body.ok().map(Vec::from),
                    timeout: None,
                };
                let answer = script(&request);
                log.lock().push(request);
                answer
            }
        };
        let router = axum::Router::new().fallback(handler);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, seen, connections, task }
    }

    /// `http://127.0.0.1:<port>` and this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests that arrived, in their order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Path and token of each request; `-` for none.
    pub fn log(&self) -> Vec<String> {
        let entry = |seen: &Seen| format!("{} {}", seen.url.path(), seen.token().unwrap_or("-"));
        self.seen().iter().map(entry).collect()
    }

    /// How many TCP connections were accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with this status and body.
pub fn answer(status: u16, body: impl Into<axum::body::Body>) -> Answer {
    let response = Response::builder().status(status);
    response.body(body.into()).unwrap()
}

/// An answer that sends the client on.
pub fn redirect(status: u16, to: &str) -> Answer {
    let response = Response::builder().status(status).header("location", to);
    response.body(axum::body::Body::empty()).unwrap()
}
