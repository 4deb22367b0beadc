//! A server on a loopback socket, on a thread of its own.

use std::net::SocketAddr;

use axum::Router;
use axum::serve::ListenerExt;
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// An HTTP/1.1 server with keep-alive, until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Server {
    pub(crate) fn start(router: Router) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        // As reqwest does on its side: nothing waits for a packet to be full.
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, _runtime: runtime }
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).unwrap()
    }
}
