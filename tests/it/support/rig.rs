use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Response;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Result};
use reqwest_refresh::{Error, LoginReason, ManualClock, Session, SessionBuilder, TokenSet};
use tokio::task::JoinHandle;

use crate::support::{Api, Issuer};

/// The API answers before it: one is enough, and making one takes a while.
static UNUSED: LazyLock<reqwest::Client> = LazyLock::new(reqwest::Client::new);

/// A client for chains in which the API answers first.
pub fn unused_client() -> reqwest::Client {
    UNUSED.clone()
}

/// Everything around one session: clock, issuer, API, client. Nothing of it sleeps.
pub struct Rig {
    pub clock: ManualClock,
    pub issuer: Issuer,
    pub api: Api,
    pub session: Session,
    pub client: ClientWithMiddleware,
}

impl Rig {
    /// A session with the tokens `a0`/`r0`, which live for an hour, and no jitter.
    pub fn new(api: Api) -> Self {
        Self::with(api, Issuer::new(), |builder| builder)
    }

    /// The same, with other settings and another issuer. `settings` runs last.
    pub fn with(
        api: Api,
        issuer: Issuer,
        settings: impl FnOnce(SessionBuilder) -> SessionBuilder,
    ) -> Self {
        let clock = ManualClock::new();
        let builder = Session::builder(issuer.clone())
            .clock(clock.clone())
            .jitter(0.0)
            .tokens(Self::tokens(3600));
        let session = settings(builder).build().unwrap();
        let client = Self::client(&session, &api);
        Self { clock, issuer, api, session, client }
    }

    /// Another client on the same session.
    pub fn client(session: &Session, api: &Api) -> ClientWithMiddleware {
        ClientBuilder::new(unused_client()).with(session.clone()).with(api.clone()).build()
    }

    /// `a0`/`r0` with so many seconds to live.
    pub fn tokens(seconds: u64) -> TokenSet {
        TokenSet::new("a0").with_refresh_token("r0").with_expires_in(Duration::from_secs(seconds))
    }

    /// One GET through the session.
    pub async fn get(&self) -> Result<Response> {
        self.client.get("https://api.test/orders").send().await
    }

    /// What one GET comes to: `200`, or the kind of error, such as `login required`.
    pub async fn outcome(&self) -> String {
        outcome(self.get().await)
    }

    /// One GET, in a task of its own.
    pub fn spawn_get(&self) -> JoinHandle<Result<Response>> {
        let client = self.client.clone();
        tokio::spawn(async move { client.get("https://api.test/orders").send().await })
    }
}

/// What a request came to: its status, or the kind of error.
pub fn outcome(result: Result<Response>) -> String {
    match result {
        Ok(response) => response.status().as_u16().to_string(),
        Err(error) => Error::find(&error).expect("ours").kind().to_string(),
    }
}

/// A login hook that counts, and answers from a script.
#[derive(Clone, Default)]
pub struct Hook {
    pub reasons: Arc<Mutex<Vec<LoginReason>>>,
    pub answer: Arc<Mutex<Option<TokenSet>>>,
}

impl Hook {
    /// Returns these tokens whenever it is called.
    pub fn returning(tokens: TokenSet) -> Self {
        Self { answer: Arc::new(Mutex::new(Some(tokens))), ..Self::default() }
    }

    /// Declines whenever it is called.
    pub fn declining() -> Self {
        Self::default()
    }

    /// How often it was called.
    pub fn calls(&self) -> usize {
        self.reasons.lock().len()
    }

    /// Installs it.
    pub fn on(&self, builder: SessionBuilder) -> SessionBuilder {
        let hook = self.clone();
        builder.on_login_required(move |reason| {
            hook.reasons.lock().push(reason);
            let answer = hook.answer.lock().clone();
            async move { answer }
        })
    }
}
