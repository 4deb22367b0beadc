use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, FromRedisValue, cmd};
use reqwest_refresh::RedisStore;

/// A `redis-server` on a port and with a folder of its own, which ends with the test.
pub struct RedisServer {
    port: u16,
    password: String,
    options: Vec<String>,
    child: Child,
}

impl RedisServer {
    /// One that keeps everything in memory.
    pub async fn start() -> Self {
        Self::with("", &[]).await
    }

    /// One that wants this password, if it is not empty, with more options of the command line.
    pub async fn with(password: &str, options: &[&str]) -> Self {
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        for _ in 0..10 {
            let port = Self::free_port();
            let child = spawn(port, password, &options);
            let (password, options) = (password.to_owned(), options.clone());
            let mut server = Self { port, password, options, child };
            if server.is_up().await {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// A port that was free a moment ago.
    pub fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}", self.password, self.port)
    }

    /// By which it is reached without a port.
    pub fn socket(&self) -> PathBuf {
        folder(self.port).join("socket")
    }

    /// A store for the session `orders`.
    pub fn store(&self) -> RedisStore {
        RedisStore::new(&self.url(), "orders").unwrap()
    }

    /// Asks it by hand: words with a space between them.
    pub async fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        let mut command = Cmd::new();
        words.split(' ').for_each(|word| {
            command.arg(word);
        });
        command.query_async(&mut self.connection().await.unwrap()).await.unwrap()
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, at the same place.
    pub async fn restart(&mut self) {
        self.child = spawn(self.port, &self.password, &self.options);
        assert!(self.is_up().await, "redis-server does not start again");
    }

    /// Lets it stand still, with its connections open.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    async fn info(&self) -> redis::RedisResult<String> {
        cmd("INFO").query_async(&mut self.connection().await?).await
    }

    async fn connection(&self) -> redis::RedisResult<MultiplexedConnection> {
        Client::open(self.url())?.get_multiplexed_async_connection().await
    }

    /// Whether it is this server that answers, and not another one at the same port.
    async fn is_up(&mut self) -> bool {
        let ours = format!("process_id:{}\r\n", self.child.id());
        while self.child.try_wait().unwrap().is_none() {
            if let Ok(info) = self.info().await {
                return info.contains(&ours);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(folder(self.port));
    }
}

fn folder(port: u16) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("redis-{port}"))
}

fn spawn(port: u16, password: &str, options: &[String]) -> Child {
    let folder = folder(port);
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--unixsocket", "socket"]);
    command.arg("--port").arg(port.to_string()).arg("--dir").arg(&folder);
    if !password.is_empty() {
        command.args(["--requirepass", password]);
    }
    let command = command.args(options).current_dir(&folder).stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().expect("redis-server must be on the PATH")
}
