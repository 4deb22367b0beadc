//! What can go wrong, told apart by what the caller can do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use reqwest::Url;
use secrecy::SecretString;
use serde_json::{Map, Value};

type Source = Arc<dyn StdError + Send + Sync>;

/// Why a request could not be sent with a valid token, or why a session could not be built.
///
/// All requests that waited for one refresh share its error, so it is cheap to clone. It contains
/// no token and no client secret; texts that came from a server are stripped of everything that
/// looks like one.
///
/// # Finding it again
///
/// `client.get(..).send()` fails with a [`reqwest_middleware::Error`]. [`Error::find`] finds this
/// error in it, also below an outer middleware and after `?` into `anyhow::Error`:
///
/// ```
/// use reqwest_refresh::{Error, ErrorKind};
///
/// fn explain(failure: &reqwest_middleware::Error) -> &'static str {
///     match Error::find(failure).map(Error::kind) {
///         Some(ErrorKind::LoginRequired(_)) => "please log in again",
///         Some(ErrorKind::Unavailable) => "the login server is down, try again later",
///         Some(_) => "tell the developer",
///         None => "not about tokens: the request itself failed",
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Error {
    shared: Arc<Shared>,
    retry_after: Option<Duration>,
    rejection: Option<Arc<Rejection>>,
}

struct Shared {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Source>,
}

/// What the caller can do about an [`Error`]: a variant each.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Only the developer or an administrator can help: a setting is wrong, or the authorization
    /// server refuses this client. Not retried until tokens are set, or a long cool-down is over.
    #[error("configuration")]
    Configuration,
    /// More refreshes than [the budget](crate::SessionBuilder::refresh_budget) allows: most likely
    /// the server hands out tokens that are over when they arrive.
    #[error("too many refreshes")]
    ExcessiveRefresh,
    /// The request would have carried a token over plain `http`. Use `https`, or
    /// [say that it is meant](crate::SessionBuilder::allow_insecure_http).
    #[error("insecure URL")]
    Insecure,
    /// The refresh ended without an answer: user code panicked, or the runtime shut down. The
    /// next request starts a new try.
    #[error("refresh interrupted")]
    Interrupted,
    /// Somebody must log in. Hand the new tokens to
    /// [`Session::set_tokens`](crate::Session::set_tokens).
    #[error("login required")]
    LoginRequired(LoginReason),
    /// A login hook, a store or a [`Refresh`](crate::Refresh) sent a request through the client
    /// that waits for it. Use another client there, or
    /// [`Authenticate::Never`](crate::Authenticate::Never).
    #[error("request would wait for itself")]
    Reentrant,
    /// The token store could not be read, locked or written.
    #[error("token store")]
    Store,
    /// The request's own timeout was over before there was a valid token.
    #[error("timed out")]
    TimedOut,
    /// The authorization server cannot be reached, is busy, or answers nonsense. Try again, not
    /// before [`Error::retry_after`].
    #[error("authorization server unavailable")]
    Unavailable,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::with_source(kind, message, None)
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: Option<Source>,
    ) -> Self {
        let message = message.into();
        Self {
            shared: Arc::new(Shared { kind, message, source }),
            retry_after: None,
            rejection: None,
        }
    }

    pub(crate) fn configuration(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Configuration, message)
    }

    pub(crate) fn login_required(reason: LoginReason) -> Self {
        let message = reason.explain();
        Self::new(ErrorKind::LoginRequired(reason), message)
    }

    /// The same failure, met by a caller who may come back after `duration`.
    pub(crate) fn retry_in(self, duration: Option<Duration>) -> Self {
        Self { retry_after: duration, ..self }
    }

    /// The same failure, met by a caller whose request had been rejected.
    pub(crate) fn behind(self, rejection: Rejection) -> Self {
        Self { rejection: Some(Arc::new(rejection)), ..self }
    }

    /// Finds this error in another one that carries it, by walking [`StdError::source`].
    ///
    /// For an `anyhow::Error` pass `error.as_ref()`.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// What can be done about it.
    pub fn kind(&self) -> &ErrorKind {
        &self.shared.kind
    }

    /// Whether somebody must log in.
    pub fn is_login_required(&self) -> bool {
        matches!(self.kind(), ErrorKind::LoginRequired(_))
    }

    /// How long it makes no sense to try again: until then the session answers with this error
    /// without asking the server. `None` if nobody knows.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The API's answer to the request whose token was rejected, where a refresh *behind such an
    /// answer* failed. `None` if the request was never sent.
    pub fn rejection(&self) -> Option<&Rejection> {
        self.rejection.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shared.kind, self.shared.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.shared.kind)
            .field("message", &self.shared.message)
            .field("source", &self.shared.source)
            .field("retry_after", &self.retry_after)
            .field("rejection", &self.rejection)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.shared.source.as_deref()?;
        Some(source)
    }
}

/// Lets [`Error::find`] work through `reqwest_middleware::Error::Middleware`, which passes
/// `source()` on to what it wraps and thereby hides it: so what it wraps is this shell.
#[derive(Debug, thiserror::Error)]
#[error("no valid access token for the request")]
struct Shell(#[source] Error);

impl From<Error> for reqwest_middleware::Error {
    fn from(error: Error) -> Self {
        Self::middleware(Shell(error))
    }
}

/// Why somebody must log in. The argument of the
/// [login hook](crate::SessionBuilder::on_login_required).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LoginReason {
    /// [`Session::log_out`](crate::Session::log_out) or [`Session::clear`](crate::Session::clear)
    /// was called, or another process that shares the store did.
    LoggedOut,
    /// The session never had tokens.
    NeverLoggedIn,
    /// The access token is over, and there is no refresh token.
    NoRefreshToken,
    /// The authorization server says that the refresh token is dead.
    #[non_exhaustive]
    Refused {
        /// What the server said.
        error: ServerError,
        /// An earlier answer to the same refresh token was lost on its way: most likely the server
        /// had rotated it, and nobody has the new one.
        after_lost_answer: bool,
    },
    /// The refresh token's known end is over, and the session
    /// [does not ask](crate::SessionBuilder::trust_refresh_token_expiry) beyond it.
    RefreshTokenExpired,
}

impl LoginReason {
    /// The reason in one sentence, for a log or a developer.
    pub fn explain(&self) -> String {
        match self {
            Self::LoggedOut => "the session was logged out".into(),
            Self::NeverLoggedIn => "nobody has logged in yet".into(),
            Self::NoRefreshToken => "the access token is over and there is no refresh token".into(),
            Self::RefreshTokenExpired => "the refresh token is over".into(),
            Self::Refused { error, after_lost_answer: false } => {
                format!("the refresh token was refused: {error}")
            }
            Self::Refused { error, after_lost_answer: true } => {
                format!("the refresh token was refused after an earlier answer was lost: {error}")
            }
        }
    }
}

/// The error answer of a token endpoint (RFC 6749 §5.2).
///
/// Everything in it was stripped of what looks like a token before anybody could see it: some
/// servers repeat the whole refresh token in `error_description`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerError {
    status: u16,
    code: Option<String>,
    description: Option<String>,
    members: Map<String, Value>,
}

impl ServerError {
    /// An answer with this HTTP status (0 if the server does not speak HTTP), and this error code
    /// if it has one.
    ///
    /// For your own [`Refresh`](crate::Refresh). Texts given here are not stripped.
    pub fn new(status: u16, code: Option<String>) -> Self {
        Self { status, code, description: None, members: Map::new() }
    }

    /// Adds a text for developers.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    pub(crate) fn with_members(mut self, members: Map<String, Value>) -> Self {
        self.members = members;
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The error code, such as `invalid_grant`.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The server's text for developers. Never branch on it.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Another member of the answer, such as Entra's `suberror` or `claims`.
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = (self.status != 0).then(|| format!("status {}", self.status));
        let parts = [status.as_deref(), self.code(), self.description()];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(": "))
    }
}

/// Why one attempt to refresh failed: what a [`Refresh`](crate::Refresh) answers.
#[derive(Debug)]
pub struct RefreshError {
    pub(crate) failure: RefreshFailure,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) server: Option<Box<ServerError>>,
    pub(crate) refresh_token: Option<SecretString>,
    message: Cow<'static, str>,
    source: Option<Source>,
}

/// What may be done after a failed attempt to refresh.
///
/// | failure | may the server have used up the refresh token? | attempts in one refresh |
/// |---|---|---|
/// | [`NotSent`](Self::NotSent): no connection | no | 3 |
/// | [`Busy`](Self::Busy): 429, 503 | no | 3, obeying `Retry-After` |
/// | [`Lost`](Self::Lost): 502, 504, reset, timeout | perhaps | 2: once more, quickly |
/// | [`Unusable`](Self::Unusable): 500, HTML, half a JSON | perhaps | 1, then a cool-down |
/// | [`Configuration`](Self::Configuration) | no | 1, then a long cool-down |
/// | [`Terminal`](Self::Terminal) | it is dead | 1, then the login hook |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshFailure {
    /// The server asks to come back later; it has not looked at the refresh token.
    Busy,
    /// The server refuses this client or this form of request; a login would not help.
    Configuration,
    /// The request may have been carried out, but its answer did not arrive.
    Lost,
    /// The request never reached the server.
    NotSent,
    /// The server says that the refresh token is dead.
    Terminal,
    /// There is an answer, but neither tokens nor a reason are in it.
    Unusable,
}

impl RefreshError {
    /// A failure and a sentence about it. The sentence must not contain a secret.
    pub fn new(failure: RefreshFailure, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            failure,
            retry_after: None,
            server: None,
            refresh_token: None,
            message: message.into(),
            source: None,
        }
    }

    /// What the server answered.
    #[must_use]
    pub fn with_server_error(mut self, server: ServerError) -> Self {
        self.server = Some(Box::new(server));
        self
    }

    /// How long the server asks to be left alone (`Retry-After`, RFC 9110 §10.2.3).
    #[must_use]
    pub fn with_retry_after(mut self, duration: Duration) -> Self {
        self.retry_after = Some(duration);
        self
    }

    /// A new refresh token that came with an answer which is of no other use. It replaces the old
    /// one, which is used up.
    #[must_use]
    pub fn with_refresh_token(mut self, refresh_token: impl Into<String>) -> Self {
        self.refresh_token = Some(refresh_token.into().into());
        self
    }

    /// The underlying error.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What may be done about it.
    pub fn failure(&self) -> RefreshFailure {
        self.failure
    }

    /// This failure as all who waited for the refresh see it, if it is not terminal.
    pub(crate) fn into_shared(self) -> Error {
        let kind = match self.failure {
            RefreshFailure::Configuration => ErrorKind::Configuration,
            _ => ErrorKind::Unavailable,
        };
        let message = match &self.server {
            Some(server) => format!("{}: {server}", self.message).into(),
            None => self.message,
        };
        Error::with_source(kind, message, self.source)
    }

    /// This failure as the reason for a login, if it is terminal.
    pub(crate) fn into_refusal(self, after_lost_answer: bool) -> LoginReason {
        let message = self.message;
        let error = match self.server {
            Some(server) => *server,
            None => ServerError::new(0, None).with_description(message),
        };
        LoginReason::Refused { error, after_lost_answer }
    }
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for RefreshError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

/// A snapshot of the answer by which the API rejected a token.
///
/// Kept so that a failed refresh does not hide what the API said. Its `Debug` shows neither
/// headers nor body: servers repeat tokens there.
pub struct Rejection {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) url: Url,
    pub(crate) body: Bytes,
}

impl Rejection {
    /// The HTTP status: 401, or what the provider counts as a rejection.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The response's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Where the response came from.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The beginning of the body, at most 64 KiB. It may repeat the token: do not log it.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("status", &self.status)
            .field("origin", &self.url.origin().ascii_serialization())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] reqwest_middleware::Error);

    #[test]
    fn k_70_the_error_is_found_below_reqwest_middleware_and_below_other_middlewares() {
        let error = reqwest_middleware::Error::from(Error::configuration("wrong client"));
        assert!(Error::find(&error).is_some());
        let outer = reqwest_middleware::Error::middleware(Outer(error));
        let found = Error::find(&outer).expect("found below another middleware's error");
        assert_eq!(found.to_string(), "configuration: wrong client");
        assert_ne!(outer.to_string(), found.to_string());
    }

    #[test]
    fn k_70_an_error_of_somebody_else_is_not_found() {
        let error = reqwest_middleware::Error::middleware(fmt::Error);
        assert!(Error::find(&error).is_none());
    }

    #[test]
    fn k_70_clones_share_the_failure_but_not_the_rejection() {
        let error = Error::new(ErrorKind::Unavailable, "down");
        let rejected = error.clone().behind(Rejection {
            status: StatusCode::UNAUTHORIZED,
            headers: HeaderMap::new(),
            url: Url::parse("https://api.test/orders?key=secret").unwrap(),
            body: Bytes::from_static(b"secret"),
        });
        assert!(error.rejection().is_none());
        assert_eq!(rejected.rejection().unwrap().status(), 401);
        assert!(!format!("{rejected:?}").contains("secret"), "K-63");
    }
}
