use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::error::{Error, LoginReason};
use crate::proto::grant::RESERVED;
use crate::proto::origin::Reach;
use crate::proto::policy::{Limit, Policy};
use crate::proto::state::State;
use crate::refresh::Refresh;
use crate::session::{Deadlines, Guarded, Inner, Session};
use crate::store::TokenStore;
use crate::token::{Generation, TokenSet};

type HookFuture = std::pin::Pin<Box<dyn Future<Output = Option<TokenSet>> + Send>>;
pub(crate) type Hook = Box<dyn Fn(LoginReason) -> HookFuture + Send + Sync>;

/// The settings of a [`Session`]. Made by [`Session::builder`].
#[must_use = "call build()"]
pub struct SessionBuilder {
    refresh: Arc<dyn Refresh>,
    tokens: Option<TokenSet>,
    store: Option<Arc<dyn TokenStore>>,
    refresh_without_store: bool,
    hook: Option<Hook>,
    origins: Vec<String>,
    any_origin: bool,
    insecure_http: bool,
    refresh_window: Option<Duration>,
    jitter: f64,
    budget: Limit,
    rejection_budget: Limit,
    deadlines: Deadlines,
    login_notice: Duration,
    read_jwt: bool,
    trust_refresh_expiry: bool,
    replay: bool,
    clock: Clock,
}

impl SessionBuilder {
    pub(super) fn new(refresh: Arc<dyn Refresh>) -> Self {
        Self {
            refresh,
            tokens: None,
            store: None,
            refresh_without_store: false,
            hook: None,
            origins: Vec::new(),
            any_origin: false,
            insecure_http: false,
            refresh_window: None,
            jitter: 0.5,
            budget: Limit { refreshes: 20, within: Duration::from_secs(30) },
            rejection_budget: Limit { refreshes: 5, within: Duration::from_secs(30) },
            deadlines: Deadlines {
                refresh: Duration::from_secs(30),
                store: Duration::from_secs(10),
                login: Duration::from_secs(300),
            },
            login_notice: Duration::from_secs(300),
            read_jwt: true,
            trust_refresh_expiry: false,
            replay: true,
            clock: Clock::System,
        }
    }

    /// Sets the tokens to begin with. A set that is found in the [store](Self::store) beats them.
    /// Defaults to none: then the first request needs a stored set, or a login.
    pub fn tokens(mut self, tokens: TokenSet) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Sets where tokens are kept between two runs of the program, and shared with other processes.
    /// Read once, at the first need, and again before each refresh. Defaults to nowhere: tokens
    /// live in memory and end with the process.
    pub fn store(mut self, store: impl TokenStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Sets whether to refresh although the store cannot be locked or read. Defaults to `false`:
    /// the access token in memory is used as long as it lives, and then requests fail with
    /// [`Store`](crate::ErrorKind::Store) until the store is back.
    ///
    /// With `true` an outage of the store stops nobody. But somebody who shares it may send the same
    /// refresh token, and a server that detects reuse then ends the session for all. For tokens that
    /// nobody else uses, and for servers that do not rotate them.
    pub fn refresh_without_store(mut self, refresh: bool) -> Self {
        self.refresh_without_store = refresh;
        self
    }

    /// Sets what to do when the refresh token is dead or missing and somebody must log in.
    ///
    /// Called once for each dead session, with the reason. Requests that need a token wait for it,
    /// at most [`login_timeout`](Self::login_timeout). If it returns tokens, they go on with them;
    /// if it returns `None`, all fail with
    /// [`LoginRequired`](crate::ErrorKind::LoginRequired), and so do later ones, at once, until
    /// [`Session::set_tokens`] is called.
    ///
    /// No lock is held while it runs, so it may call the session. Requests that it sends through a
    /// client with this session fail at once where they would have to wait for the hook itself:
    /// use another client to log in, or [`Authenticate::Never`](crate::Authenticate::Never).
    ///
    /// A hook that takes longer, or panics, counts as one that returned `None`. So does having no
    /// hook, which is the default.
    pub fn on_login_required<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(LoginReason) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<TokenSet>> + Send + 'static,
    {
        self.hook = Some(Box::new(move |reason| Box::pin(hook(reason))));
        self
    }

    /// Allows the token at one more origin, such as `https://api.example.com`; a path is ignored.
    ///
    /// Requests to other origins pass through untouched (RFC 6750 §5.2: a token "MUST NOT" leak to
    /// unintended parties). Defaults to the origin of the token endpoint, which is no longer
    /// implied once an origin is named.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Allows the token at every origin that a request is made to. Only for a client whose URLs
    /// all come from you: not from a server's answer, not from a user.
    pub fn allow_any_origin(mut self) -> Self {
        self.any_origin = true;
        self
    }

    /// Allows plain `http`, for the API and for the token endpoint, where anybody on the way can
    /// read the tokens. Without it only loopback addresses may do without TLS (RFC 6750 §5.3,
    /// RFC 6749 §3.2); see to it that no proxy is set for them.
    pub fn allow_insecure_http(mut self) -> Self {
        self.insecure_http = true;
        self
    }

    /// Sets for how long before its end an access token is refreshed behind the requests that still
    /// use it. At most half of a token's lifetime is used; zero refreshes only what is over.
    /// Defaults to the provider's: 60 seconds, for digiRunner 10.
    pub fn refresh_window(mut self, window: Duration) -> Self {
        self.refresh_window = Some(window);
        self
    }

    /// Sets which part of the window, 0 to 1, sessions spread over, so that a fleet that started
    /// together does not refresh together. Each session keeps its own place. Defaults to 0.5: with
    /// a window of 60 seconds, between 60 and 30 seconds before the end.
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) };
        self
    }

    /// Sets how many refreshes are tried within a time because tokens are over or a new one is
    /// demanded; one more is [`ExcessiveRefresh`](crate::ErrorKind::ExcessiveRefresh). Defaults to
    /// 20 within 30 seconds.
    pub fn refresh_budget(mut self, refreshes: usize, within: Duration) -> Self {
        self.budget = Limit { refreshes, within };
        self
    }

    /// Sets how many refreshes are tried within a time because the API rejects tokens. Beyond it
    /// callers get the API's answer as it is: most likely it is not about the token. Defaults to 5
    /// within 30 seconds.
    pub fn rejection_budget(mut self, refreshes: usize, within: Duration) -> Self {
        self.rejection_budget = Limit { refreshes, within };
        self
    }

    /// Sets how long one refresh may take, all its attempts together. Requests have timeouts of
    /// their own. Defaults to 30 seconds.
    pub fn refresh_timeout(mut self, timeout: Duration) -> Self {
        self.deadlines.refresh = timeout;
        self
    }

    /// Sets how long one access to the store may take. Defaults to 10 seconds. A write is tried
    /// three times. Waiting for the lock takes at most this and
    /// [`refresh_timeout`](Self::refresh_timeout) together.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.deadlines.store = timeout;
        self
    }

    /// Sets how long the login hook may take. Requests wait for it beyond their own timeout.
    /// Defaults to 5 minutes.
    pub fn login_timeout(mut self, timeout: Duration) -> Self {
        self.deadlines.login = timeout;
        self
    }

    /// Sets how long before the known end of the refresh token
    /// [`Event::LoginDue`](crate::Event::LoginDue) is told at the latest. It is told by the last
    /// refresh that can be expected to come early enough. Defaults to 5 minutes.
    pub fn login_notice(mut self, notice: Duration) -> Self {
        self.login_notice = notice;
        self
    }

    /// Sets whether the `exp` of a JWT is read where the server does not say when a token ends.
    /// RFC 9068 §6 would rather have a client not look. Defaults to `true`.
    pub fn read_jwt_expiry(mut self, read: bool) -> Self {
        self.read_jwt = read;
        self
    }

    /// Sets whether a refresh token whose known end is over counts as dead without asking the
    /// server. Defaults to `false`: clocks differ, so the server is asked once.
    pub fn trust_refresh_token_expiry(mut self, trust: bool) -> Self {
        self.trust_refresh_expiry = trust;
        self
    }

    /// Sets whether a request is sent again after its token was rejected. Defaults to `true`; with
    /// `false` requests are not cloned, and the caller gets the rejection while the token is
    /// refreshed for the next request.
    pub fn replay(mut self, replay: bool) -> Self {
        self.replay = replay;
        self
    }

    /// Sets the clock, for tests. Defaults to the system's.
    #[cfg(feature = "test-util")]
    pub fn clock(mut self, clock: crate::ManualClock) -> Self {
        self.clock = Clock::Manual(clock);
        self
    }

    /// Builds the session. Nothing is read or sent yet.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) for an origin that is none, for a
    /// `Refresh` without endpoints where no origin is named, and for an access token that cannot be
    /// sent; [`Insecure`](crate::ErrorKind::Insecure) for a token endpoint over plain `http`.
    pub fn build(self) -> Result<Session, Error> {
        let provider = self.refresh.provider();
        if let Some((name, _)) = provider.parameters().iter().find(|(n, _)| RESERVED.contains(n)) {
            let message =
                format!("the token request already has the provider's parameter `{name}`");
            return Err(Error::configuration(message));
        }
        let policy = Policy {
            refresh_window: self.refresh_window.unwrap_or_else(|| provider.refresh_window()),
            jitter: self.jitter,
            place: fastrand::f64(),
            minimum_age: provider.minimum_age(),
            budget: self.budget,
            rejection_budget: self.rejection_budget,
            login_notice: self.login_notice,
            read_jwt: self.read_jwt,
            default_lifetime: provider.default_lifetime(),
            trust_refresh_expiry: self.trust_refresh_expiry,
            needs_refresh_token: self.refresh.needs_refresh_token(),
            refresh_revokes_access_token: provider.refresh_revokes_access_token(),
        };
        let mut state = State::new(self.store.is_some());
        if let Some(tokens) = self.tokens {
            state.start_with(tokens, &policy, self.clock.now()).map_err(Error::configuration)?;
        }
        Ok(Session {
            inner: Arc::new(Inner {
                reach: Reach::new(
                    self.refresh.endpoints(),
                    &self.origins,
                    self.any_origin,
                    self.insecure_http,
                )?,
                clock: self.clock,
                policy,
                provider,
                replay: self.replay,
                guarded: Mutex::new(Guarded {
                    state,
                    flight: None,
                    logged_out: Generation::default(),
                }),
                refresh: self.refresh,
                store: self.store,
                refresh_without_store: self.refresh_without_store,
                at_store: tokio::sync::Mutex::new(()),
                hook: self.hook,
                events: OnceLock::new(),
                deadlines: self.deadlines,
                has_warned: AtomicBool::new(false),
            }),
        })
    }
}

impl fmt::Debug for SessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBuilder").field("origins", &self.origins).finish_non_exhaustive()
    }
}
