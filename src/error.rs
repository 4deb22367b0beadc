//! What can go wrong, told apart by what the caller can do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use reqwest::Url;

mod refresh;

pub use self::refresh::{RefreshError, RefreshFailure, ServerError};

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
    /// A login hook, a store, a [`Refresh`](crate::Refresh), or what opens the session of an
    /// [`Account`](crate::Account), sent a request through the client that waits for it. Use another client there, or
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

    /// This failure, and another one that came with it. What can be done is about this one.
    pub(crate) fn and(self, other: Self) -> Self {
        let (one, other_one) = (&self.shared, &other.shared);
        let message = format!("{}; {}", one.message, other_one.message);
        let source = one.source.clone().or_else(|| other_one.source.clone());
        let retry_after = self.retry_after.max(other.retry_after);
        Self::with_source(one.kind.clone(), message, source).retry_in(retry_after)
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

    /// How long it makes no sense to try again: until then the session answers requests with this
    /// error without asking the server. `None` if nobody knows.
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
