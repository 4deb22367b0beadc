use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, LoginReason, Source};
use crate::secret::secret;

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

    /// Another member of the answer, such as Entra's `suberror` or `claims`. None is kept of an answer
    /// of more than 64 KiB.
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
        self.refresh_token = Some(secret(refresh_token));
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

    /// What the server answered, if it was an error: for who asked by
    /// [another grant](crate::TokenEndpoint::request), such as the device grant, which is told to
    /// ask again by the code `authorization_pending` (RFC 8628 §3.5).
    pub fn server_error(&self) -> Option<&ServerError> {
        self.server.as_deref()
    }

    /// This failure of a grant without a refresh token: none can be dead.
    pub(crate) fn about_the_client(mut self) -> Self {
        if self.failure == RefreshFailure::Terminal {
            self.failure = RefreshFailure::Configuration;
        }
        self.refresh_token = None;
        self
    }

    /// RFC 7009 §2.2.1: "The authorization server does not support the revocation of the presented
    /// token type."
    pub(crate) fn is_unsupported_token_type(&self) -> bool {
        let code = self.server.as_ref().and_then(|server| server.code());
        self.failure == RefreshFailure::Configuration && code == Some("unsupported_token_type")
    }

    /// This failure, met while a token of this kind was to be revoked.
    pub(crate) fn about_revoking(mut self, kind: &str) -> Self {
        let kind = kind.replace('_', " ");
        self.message = format!("the {kind} could not be revoked: {}", self.message).into();
        self
    }

    /// This failure, and another one that came with it. What may be done is about this one.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.message = format!("{}; {}", self.explain(), other.explain()).into();
        self.server = None;
        self.retry_after = self.retry_after.max(other.retry_after);
        self.source = self.source.or(other.source);
        self
    }

    /// The sentence, and what the server said.
    fn explain(&self) -> Cow<'static, str> {
        match &self.server {
            Some(server) => format!("{}: {server}", self.message).into(),
            None => self.message.clone(),
        }
    }

    /// This failure as all who waited for the refresh see it, if it is not terminal.
    pub(crate) fn into_shared(self) -> Error {
        let kind = match self.failure {
            RefreshFailure::Configuration => ErrorKind::Configuration,
            _ => ErrorKind::Unavailable,
        };
        let message = self.explain();
        Error::with_source(kind, message, self.source).retry_in(self.retry_after)
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
        f.write_str(&self.explain())
    }
}

impl StdError for RefreshError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}
