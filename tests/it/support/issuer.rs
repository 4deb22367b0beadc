use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest::Url;
use reqwest_refresh::{Provider, Refresh, RefreshError, RefreshFailure, ServerError, TokenSet};
use tokio::sync::Semaphore;

type Answer = Result<TokenSet, RefreshError>;
type Step = Box<dyn FnOnce() -> Answer + Send>;

/// An authorization server without a wire: answers `a1`/`r1`, `a2`/`r2`, … unless told otherwise.
///
/// Its clones are the same issuer.
#[derive(Clone)]
pub struct Issuer {
    inner: Arc<Inner>,
}

struct Inner {
    lifetime: Duration,
    provider: Provider,
    script: Mutex<VecDeque<Step>>,
    sent: Mutex<Vec<String>>,
    revoked: Mutex<Vec<String>>,
    answered: Mutex<usize>,
    gate: Semaphore,
}

impl Issuer {
    /// Tokens live for an hour.
    pub fn new() -> Self {
        Self::with(Duration::from_secs(3600), Provider::rfc6749())
    }

    pub fn with(lifetime: Duration, provider: Provider) -> Self {
        Self {
            inner: Arc::new(Inner {
                lifetime,
                provider,
                script: Mutex::default(),
                sent: Mutex::default(),
                revoked: Mutex::default(),
                answered: Mutex::default(),
                gate: Semaphore::new(Semaphore::MAX_PERMITS),
            }),
        }
    }

    /// The answer to the next refresh that has none yet.
    pub fn then(&self, answer: Answer) {
        self.inner.script.lock().push_back(Box::new(|| answer));
    }

    /// The next refresh fails like this.
    pub fn then_fails(&self, failure: RefreshFailure) {
        let server = ServerError::new(400, Some("scripted".into()));
        self.then(Err(RefreshError::new(failure, "scripted").with_server_error(server)));
    }

    /// The next refresh panics.
    pub fn then_panics(&self) {
        let step = || panic!("scripted panic");
        self.inner.script.lock().push_back(Box::new(step));
    }

    /// From now on answers wait until [`release`](Self::release) is called.
    pub fn hold(&self) {
        self.inner.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets everything through again.
    pub fn release(&self) {
        self.inner.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// The refresh tokens that arrived, answered or not; `-` for none.
    pub fn sent(&self) -> Vec<String> {
        self.inner.sent.lock().clone()
    }

    /// How many refreshes arrived, answered or not.
    pub fn calls(&self) -> usize {
        self.inner.sent.lock().len()
    }

    /// The access tokens that were revoked.
    pub fn revoked(&self) -> Vec<String> {
        self.inner.revoked.lock().clone()
    }
}

#[async_trait]
impl Refresh for Issuer {
    async fn refresh(&self, tokens: &TokenSet) -> Answer {
        let inner = &self.inner;
        inner.sent.lock().push(tokens.refresh_token().unwrap_or("-").to_owned());
        let pass = inner.gate.acquire().await.unwrap();
        drop(pass);
        let step = inner.script.lock().pop_front();
        if let Some(step) = step {
            return step();
        }
        let number = {
            let mut answered = inner.answered.lock();
            *answered += 1;
            *answered
        };
        Ok(TokenSet::new(format!("a{number}"))
            .with_refresh_token(format!("r{number}"))
            .with_expires_in(inner.lifetime))
    }

    async fn revoke(&self, tokens: &TokenSet) -> Result<(), RefreshError> {
        self.inner.revoked.lock().push(tokens.access_token().to_owned());
        Ok(())
    }

    fn endpoints(&self) -> Vec<Url> {
        let url = |path| Url::parse("https://api.test").unwrap().join(path).unwrap();
        vec![url("/oauth/token"), url("/oauth/revocation")]
    }

    fn provider(&self) -> Provider {
        self.inner.provider
    }
}
