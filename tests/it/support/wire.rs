use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// What a [`Wire`] does with a connection once the request is read.
#[derive(Clone, Debug)]
pub enum Then {
    /// Says these bytes, and closes.
    Bytes(Vec<u8>),
    /// Says nothing, and closes.
    Close,
    /// Says this, a byte for each call of [`Wire::drip`], while answers are [held](Wire::hold).
    Drip(String),
    /// Says this, and the second part again and again until nobody listens.
    Endless(String, Vec<u8>),
    /// Says this, and keeps the connection until the client closes it.
    Keep(String),
    /// Breaks the connection.
    Reset,
    /// Says this, and closes.
    Say(String),
}

/// A server on a loopback socket that sees and says bytes, no more.
pub struct Wire {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    closed: Arc<Mutex<usize>>,
    gate: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Wire {
    /// `script` says what follows on the first request, the second, …, counted from 0.
    pub async fn start(script: impl Fn(usize) -> Then + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, closed) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<_>>::default());
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let (log, count, pass) = (Arc::clone(&requests), Arc::clone(&closed), Arc::clone(&gate));
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                let then = script(log.lock().len());
                log.lock().push(request);
                let (count, pass) = (Arc::clone(&count), Arc::clone(&pass));
                tokio::spawn(async move {
                    drop(pass.acquire().await.unwrap());
                    follow(stream, then, &pass).await;
                    *count.lock() += 1;
                });
            }
        });
        Self { address, requests, closed, gate, task }
    }

    /// Says the same to everybody.
    pub async fn saying(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |_| Then::Say(answer.clone())).await
    }

    /// From now on answers wait until [`release`](Self::release) is called.
    pub fn hold(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets everything through again.
    pub fn release(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Lets one more byte through.
    pub fn drip(&self) {
        self.gate.add_permits(1);
    }

    /// `http://127.0.0.1:<port>` and this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The value of the `Host` header of requests to it.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The requests that arrived, as they stood on the wire.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }

    /// How many connections are over.
    pub fn closed(&self) -> usize {
        *self.closed.lock()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A loopback port at which nobody listens, nor can, for as long as it lives.
pub struct ClosedPort(TcpSocket);

impl ClosedPort {
    pub fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// `http://127.0.0.1:<port>` and this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }
}

/// A whole answer, with its length.
pub fn http(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return text;
        }
    }
}

async fn follow(mut stream: TcpStream, then: Then, gate: &Semaphore) {
    match then {
        Then::Bytes(answer) => {
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
        Then::Close => {}
        Then::Drip(answer) => {
            for byte in answer.bytes() {
                gate.acquire().await.unwrap().forget();
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        }
        Then::Endless(head, chunk) => {
            let mut result = stream.write_all(head.as_bytes()).await;
            while result.is_ok() {
                result = stream.write_all(&chunk).await;
            }
        }
        Then::Keep(answer) => {
            let _ = stream.write_all(answer.as_bytes()).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
        Then::Reset => stream.set_zero_linger().unwrap(),
        Then::Say(answer) => {
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}
