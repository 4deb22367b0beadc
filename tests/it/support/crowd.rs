use std::env;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use reqwest_middleware::ClientBuilder;
use reqwest_refresh::{
    ClientAuth, FileStore, ManualClock, RedisStore, Session, SessionBuilder, TokenEndpoint,
    TokenSet, TokenStore,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::support::{Hook, RotatingServer, bounded, outcome};

/// Processes that share one store and one server. Each is this test binary, started again to run
/// [`play`] in a hidden test, with a session of its own and a clock that the crowd moves.
///
/// They end when this is dropped, and when the test's process does.
pub struct Crowd {
    place: Place,
    server: RotatingServer,
    /// On the clocks of all, since 1970.
    now: Duration,
    members: Vec<Member>,
    names: usize,
    said: (mpsc::UnboundedSender<Said>, mpsc::UnboundedReceiver<Said>),
}

/// Where the tokens are.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Place {
    File(String),
    /// Its URL, and how long a lease lasts.
    Redis(String, Duration),
}

/// A process.
struct Member {
    name: usize,
    process: Child,
    input: ChildStdin,
}

/// A line of a process; `None` when it has ended.
struct Said {
    name: usize,
    line: Option<String>,
    at: Instant,
}

/// What the requests of one process came to.
#[derive(Debug)]
pub struct Went {
    /// `200`, or the kind of error.
    pub outcomes: Vec<String>,
    /// How often its login hook was called for them.
    pub hooks: usize,
    /// When the process had all answers.
    pub at: Instant,
}

impl Went {
    /// Whether all requests were answered, and nobody was asked to log in.
    pub fn is_good(&self) -> bool {
        self.hooks == 0 && self.outcomes.iter().all(|outcome| outcome == "200")
    }

    /// Whether all requests ended in a login that is due, of which somebody was told once.
    pub fn wants_login(&self) -> bool {
        self.hooks == 1 && self.outcomes.iter().all(|outcome| outcome == "login required")
    }
}

impl From<Said> for Went {
    fn from(said: Said) -> Self {
        let (outcomes, hooks) = serde_json::from_str(&said.line.unwrap()).unwrap();
        Self { outcomes, hooks, at: said.at }
    }
}

impl Place {
    /// The tokens that are there.
    pub async fn load(&self) -> Option<TokenSet> {
        let loaded = match self {
            Self::File(path) => FileStore::new(path).load().await,
            Self::Redis(url, lease) => redis(url, *lease).load().await,
        };
        loaded.unwrap()
    }

    fn on(&self, builder: SessionBuilder) -> SessionBuilder {
        match self {
            Self::File(path) => builder.store(FileStore::new(path)),
            Self::Redis(url, lease) => builder.store(redis(url, *lease)),
        }
    }
}

fn redis(url: &str, lease: Duration) -> RedisStore {
    RedisStore::new(url, "crowd").unwrap().with_lease(lease)
}

impl Crowd {
    /// So many processes, after a login of one of them.
    pub async fn start(count: usize, place: Place, server: &RotatingServer) -> Self {
        #[allow(clippy::disallowed_methods)] // a clock that is to come must not be ahead of it
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let now = now + Duration::from_secs(24 * 3600);
        let (members, said) = (Vec::new(), mpsc::unbounded_channel());
        let mut crowd = Self { place, server: server.clone(), now, members, names: 0, said };
        for _ in 0..count {
            crowd.spawn();
        }
        crowd.hear(crowd.names()).await;
        crowd.log_in().await;
        crowd
    }

    /// Lets time pass for every process.
    pub async fn advance(&mut self, duration: Duration) {
        self.now += duration;
        self.tell_all(&Order::Time(self.now)).await;
        self.hear(self.names()).await;
    }

    /// One process gets the tokens of a new login.
    pub async fn log_in(&mut self) {
        let tokens = self.server.log_in();
        let (access, refresh) = (tokens.access_token(), tokens.refresh_token().unwrap());
        let order = Order::LogIn(access.to_owned(), refresh.to_owned());
        self.members[0].tell(&order).await;
        let name = self.members[0].name;
        self.hear(vec![name]).await;
    }

    /// So many requests at once from every process at once. [`answers`](Self::answers) has what they
    /// come to.
    pub async fn go(&mut self, requests: usize) {
        self.tell_all(&Order::Go(requests)).await;
    }

    /// What the requests of those who live came to, in the order of time.
    pub async fn answers(&mut self) -> Vec<Went> {
        self.answers_of(self.names()).await
    }

    /// What the requests of these came to.
    pub async fn answers_of(&mut self, names: Vec<usize>) -> Vec<Went> {
        self.hear(names).await.into_iter().map(Went::from).collect()
    }

    /// The names of those who live.
    pub fn names(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.name).collect()
    }

    /// Lets a process stand still, or go on: `STOP` or `CONT`.
    pub async fn signal(&self, name: usize, signal: &str) {
        let member = self.members.iter().find(|member| member.name == name).unwrap();
        let id = member.process.id().unwrap().to_string();
        let status = Command::new("kill").args(["-s", signal, &id]).status().await.unwrap();
        assert!(status.success());
    }

    /// `kill -9`. When it was done.
    pub async fn kill(&mut self, name: usize) -> Instant {
        let index = self.members.iter().position(|member| member.name == name).unwrap();
        let mut member = self.members.swap_remove(index);
        member.process.start_kill().unwrap();
        let at = Instant::now();
        member.process.wait().await.unwrap();
        at
    }

    /// One more process, and what its first request comes to.
    pub async fn join(&mut self) -> Went {
        self.spawn();
        let name = vec![self.names];
        self.hear(name.clone()).await;
        self.members.last_mut().unwrap().tell(&Order::Go(1)).await;
        self.answers_of(name).await.remove(0)
    }

    fn spawn(&mut self) {
        self.names += 1;
        let part = Part {
            place: self.place.clone(),
            token_url: self.server.url("/token"),
            api_url: self.server.url("/orders"),
            name: self.names,
            now: self.now,
        };
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "processes::child", "--ignored", "--nocapture"])
            .env(PART, serde_json::to_string(&part).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = process.stdout.take().unwrap();
        tokio::spawn(listen(self.names, output, self.said.0.clone()));
        let input = process.stdin.take().unwrap();
        self.members.push(Member { name: self.names, process, input });
    }

    async fn tell_all(&mut self, order: &Order) {
        for member in &mut self.members {
            member.tell(order).await;
        }
    }

    /// A line of each of these.
    async fn hear(&mut self, mut names: Vec<usize>) -> Vec<Said> {
        let mut lines = Vec::new();
        while !names.is_empty() {
            let said = bounded(self.said.1.recv()).await.unwrap();
            // Whoever was killed may have said something before.
            if let Some(index) = names.iter().position(|name| *name == said.name) {
                assert!(said.line.is_some(), "process {} has ended", said.name);
                names.swap_remove(index);
                lines.push(said);
            }
        }
        lines
    }
}

impl Member {
    async fn tell(&mut self, order: &Order) {
        let line = serde_json::to_string(order).unwrap() + "\n";
        self.input.write_all(line.as_bytes()).await.unwrap();
    }
}

async fn listen(name: usize, output: ChildStdout, said: mpsc::UnboundedSender<Said>) {
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await.unwrap_or_default() {
        // The test's own output is in between.
        if let Some((_, line)) = line.split_once(MARK) {
            let _ = said.send(Said { name, line: Some(line.to_owned()), at: Instant::now() });
        }
    }
    let _ = said.send(Said { name, line: None, at: Instant::now() });
}

/// What a process is to do. It answers with a line.
#[derive(Deserialize, Serialize)]
enum Order {
    Go(usize),
    LogIn(String, String),
    Time(Duration),
}

/// Who a process is.
#[derive(Deserialize, Serialize)]
struct Part {
    place: Place,
    token_url: String,
    api_url: String,
    name: usize,
    now: Duration,
}

/// The environment variable that has it.
const PART: &str = "REQWEST_REFRESH_TEST_PART";
/// What the lines begin with that are for the crowd.
const MARK: &str = "crowd: ";

/// Does what the crowd says, until it says nothing any more. Without a crowd: nothing.
pub async fn play() {
    let Ok(part) = env::var(PART) else { return };
    let part: Part = serde_json::from_str(&part).unwrap();
    // Loading the system's certificates takes a while, and nobody here needs them.
    let http = || reqwest::Client::builder().tls_certs_only([]).no_proxy();
    let endpoint = TokenEndpoint::new(&part.token_url, ClientAuth::none("crowd")).unwrap();
    let endpoint = endpoint.with_parameter("client", part.name.to_string()).unwrap();
    let (clock, hook) = (ManualClock::new(), Hook::declining());
    let set_clock = |now: Duration| {
        let now = SystemTime::UNIX_EPOCH + now;
        clock.advance(now.duration_since(clock.wall()).unwrap());
    };
    set_clock(part.now);
    let builder = Session::builder(endpoint.with_http(http()).unwrap()).clock(clock.clone());
    let session = hook.on(part.place.on(builder)).build().unwrap();
    let client = ClientBuilder::new(http().build().unwrap()).with(session.clone()).build();

    println!("{MARK}");
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await.unwrap() {
        let answer = match serde_json::from_str(&order).unwrap() {
            Order::Go(requests) => {
                let requests: Vec<_> =
                    (0..requests).map(|_| tokio::spawn(client.get(&part.api_url).send())).collect();
                let mut outcomes = Vec::new();
                for request in requests {
                    outcomes.push(outcome(request.await.unwrap()));
                }
                let hooks = std::mem::take(&mut *hook.reasons.lock()).len();
                serde_json::to_string(&(outcomes, hooks)).unwrap()
            }
            Order::LogIn(access, refresh) => {
                let tokens = TokenSet::new(access).with_refresh_token(refresh);
                let tokens = tokens.with_expires_in(RotatingServer::LIFE);
                session.set_tokens(tokens).await.unwrap();
                String::new()
            }
            Order::Time(now) => {
                set_clock(now);
                String::new()
            }
        };
        println!("{MARK}{answer}");
    }
}
