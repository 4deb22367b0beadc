//! Where a server departs from the RFCs: a value, not a subclass.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use crate::error::{RefreshFailure, ServerError};
use crate::proto::challenge;

/// Everything in which an authorization server, and the APIs behind it, depart from the RFCs.
///
/// [`rfc6749`](Self::rfc6749) is a server that keeps to the letter. Start from it, or from the
/// built-in value that comes nearest, and change what is different:
///
/// ```
/// use std::time::Duration;
///
/// use reqwest_refresh::{Provider, RefreshFailure, ServerError};
/// use serde_json::{Map, Value};
///
/// const ACME: Provider = Provider::rfc6749()
///     .with_codes(&[("REFRESH_TOKEN_GONE", RefreshFailure::Terminal)])
///     .with_classifier(|error: &ServerError| match error.description() {
///         Some("The refresh token was used before.") => RefreshFailure::Terminal,
///         _ => Provider::rfc6749().classify(error),
///     })
///     .with_reader(|mut answer: Map<String, Value>| match answer.remove("data") {
///         Some(Value::Object(data)) => data, // {"data": {"access_token": …}}
///         _ => answer,
///     })
///     .with_default_lifetime(Duration::from_secs(3600));
/// ```
///
/// Where an answer decides, the order is: its status (408, 409, 425, 429 and 5xx are transient
/// whatever they say), the [reader](Self::with_reader), the [codes](Self::with_codes), the
/// [classifier](Self::with_classifier).
///
/// The built-in values are made from answers that can be cited; `docs/providers.md` of the
/// repository has them. What could not be cited is as in `rfc6749()`.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    codes: &'static [(&'static str, RefreshFailure)],
    classify: fn(&ServerError) -> RefreshFailure,
    read: fn(Map<String, Value>) -> Map<String, Value>,
    unreadable_error: RefreshFailure,
    judge: fn(StatusCode, &HeaderMap) -> Judgement,
    parameters: &'static [(&'static str, &'static str)],
    default_lifetime: Option<Duration>,
    refresh_window: Option<Duration>,
    minimum_age: Duration,
    refresh_revokes_access_token: bool,
}

/// The usual refresh window.
const EARLY: Duration = Duration::from_secs(60);
/// The window where a refresh ends the old token: as late as is safe.
const LATE: Duration = Duration::from_secs(10);

/// What an API's answer says about the token that it was sent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Judgement {
    /// The answer is not about the token.
    Accepted,
    /// The token was rejected: refresh it and send the request again.
    Rejected,
    /// Rejected if the body, a JSON value of at most 64 KiB, is one of which this is true.
    RejectedIf(fn(&Value) -> bool),
}

impl Provider {
    /// A server by the letter of RFC 6749 and APIs by the letter of RFC 6750.
    ///
    /// A refresh token is dead on `invalid_grant`. A token is rejected by a 401, with any
    /// challenge or none, unless a `Bearer` challenge names another error than `invalid_token`.
    /// The refresh window is 60 seconds.
    pub const fn rfc6749() -> Self {
        Self {
            codes: &[],
            classify: classify_rfc6749,
            read: |answer| answer,
            unreadable_error: RefreshFailure::Unusable,
            judge: judge_rfc6750,
            parameters: &[],
            default_lifetime: None,
            refresh_window: None,
            minimum_age: Duration::ZERO,
            refresh_revokes_access_token: false,
        }
    }

    /// The digiRunner gateway.
    ///
    /// A refresh token is dead on `invalid_grant`, `invalid_token` or `Over Refresh Token Allow
    /// Times`, at whatever status, but never by the answers in Spring's default error format,
    /// which are about the client. A token is rejected by a 401, or by a 403 whose JSON body says
    /// `invalid_token`. A [refresh ends](Self::with_revoking_refresh) the old access token at once.
    pub const fn digirunner() -> Self {
        Self::rfc6749()
            .with_classifier(classify_digirunner)
            .with_judge(judge_digirunner)
            .with_revoking_refresh(true)
    }

    /// Sets what the server's own error codes mean, in the place of the codes that were set before.
    ///
    /// The classifier is asked only about codes that are not among them, so RFC 6749's stay in
    /// force, and one of them can be given another meaning here. Defaults to none.
    #[must_use]
    pub const fn with_codes(mut self, codes: &'static [(&'static str, RefreshFailure)]) -> Self {
        self.codes = codes;
        self
    }

    /// Sets what an error answer of the token endpoint means, where more than its code decides.
    ///
    /// Asked only about what [`with_codes`](Self::with_codes) does not name, and about JSON
    /// answers below status 500 other than 408, 409, 425 and 429: those are transient whatever
    /// they say, so that an outage logs nobody out. For the rest, ask another provider's
    /// [`classify`](Self::classify). Defaults to the codes of RFC 6749 §5.2.
    #[must_use]
    pub const fn with_classifier(mut self, classify: fn(&ServerError) -> RefreshFailure) -> Self {
        self.classify = classify;
        self
    }

    /// Sets a function that brings every answer of the token endpoint, success or error, into the
    /// words of RFC 6749 before it is read: `access_token`, `expires_in` in seconds, `error`, ….
    /// The answers of the revocation endpoint go through it too.
    ///
    /// Whatever else is in it becomes [`TokenSet::members`](crate::TokenSet::members) or
    /// [`ServerError::member`]. Defaults to leaving it as it is.
    #[must_use]
    pub const fn with_reader(mut self, read: fn(Map<String, Value>) -> Map<String, Value>) -> Self {
        self.read = read;
        self
    }

    /// Sets what an error answer with no body, or none that can be read (no JSON object, no form),
    /// means: a status of 4xx other than 408, 409, 425 and 429.
    ///
    /// For servers that refuse a dead refresh token without a word, say
    /// [`Terminal`](RefreshFailure::Terminal). But then whatever else answers so, such as a
    /// firewall, logs the user out. Defaults to [`Unusable`](RefreshFailure::Unusable).
    #[must_use]
    pub const fn with_unreadable_error(mut self, failure: RefreshFailure) -> Self {
        self.unreadable_error = failure;
        self
    }

    /// Sets form parameters of the token request, such as `resource`.
    ///
    /// One of the same name at the [endpoint](crate::TokenEndpoint::with_parameter) comes instead.
    /// A name that the request has anyway, such as `scope`, is refused when the session is built,
    /// and never sent. Defaults to none.
    #[must_use]
    pub const fn with_parameters(
        mut self,
        parameters: &'static [(&'static str, &'static str)],
    ) -> Self {
        self.parameters = parameters;
        self
    }

    /// Sets the lifetime of an access token about which neither `expires_in` nor the `exp` of
    /// a JWT says anything. Counts from the moment at which the session gets the token. Defaults
    /// to none: then only a rejection tells.
    #[must_use]
    pub const fn with_default_lifetime(mut self, lifetime: Duration) -> Self {
        self.default_lifetime = Some(lifetime);
        self
    }

    /// Sets which answers of the API reject a token.
    #[must_use]
    pub const fn with_judge(mut self, judge: fn(StatusCode, &HeaderMap) -> Judgement) -> Self {
        self.judge = judge;
        self
    }

    /// Sets the refresh window's default. See
    /// [`SessionBuilder::refresh_window`](crate::SessionBuilder::refresh_window). Defaults to 60
    /// seconds, or 10 where [a refresh ends the old token](Self::with_revoking_refresh).
    #[must_use]
    pub const fn with_refresh_window(mut self, window: Duration) -> Self {
        self.refresh_window = Some(window);
        self
    }

    /// Sets how old a token must be before a rejection makes us refresh it; a younger one is sent
    /// once more as it is. For servers whose replicas learn late of a new token (GitHub).
    /// Defaults to zero.
    #[must_use]
    pub const fn with_minimum_age(mut self, age: Duration) -> Self {
        self.minimum_age = age;
        self
    }

    /// Sets whether a refresh ends the old access token at once. Then it comes as late as is safe,
    /// within a window of 10 seconds, and a request that cannot be sent again waits for a refresh
    /// that is running, instead of going out with the old token. Defaults to `false`.
    #[must_use]
    pub const fn with_revoking_refresh(mut self, revokes: bool) -> Self {
        self.refresh_revokes_access_token = revokes;
        self
    }

    /// What an error answer means to this provider. For a
    /// [classifier](Self::with_classifier) of your own that decides only some cases.
    pub fn classify(&self, error: &ServerError) -> RefreshFailure {
        if let Some(failure) = by_status(error.status()) {
            return failure;
        }
        match self.codes.iter().find(|(code, _)| error.code() == Some(code)) {
            Some((_, failure)) => *failure,
            None => (self.classify)(error),
        }
    }

    /// What an API's answer says about the token, to this provider. For a
    /// [judge](Self::with_judge) of your own that decides only some cases.
    pub fn judge(&self, status: StatusCode, headers: &HeaderMap) -> Judgement {
        (self.judge)(status, headers)
    }

    pub(crate) fn read(&self, answer: Map<String, Value>) -> Map<String, Value> {
        (self.read)(answer)
    }

    /// What an answer means in which there is nothing to read.
    pub(crate) fn unreadable(&self, status: u16) -> RefreshFailure {
        match by_status(status) {
            Some(failure) => failure,
            None if (400..500).contains(&status) => self.unreadable_error,
            None => RefreshFailure::Unusable,
        }
    }

    /// A code that the provider names is none of anybody's secrets.
    pub(crate) fn names(&self, code: &str) -> bool {
        self.codes.iter().any(|(known, _)| *known == code)
    }

    pub(crate) fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        self.parameters
    }

    pub(crate) fn default_lifetime(&self) -> Option<Duration> {
        self.default_lifetime
    }

    pub(crate) fn refresh_window(&self) -> Duration {
        let usual = if self.refresh_revokes_access_token { LATE } else { EARLY };
        self.refresh_window.unwrap_or(usual)
    }

    pub(crate) fn minimum_age(&self) -> Duration {
        self.minimum_age
    }

    pub(crate) fn refresh_revokes_access_token(&self) -> bool {
        self.refresh_revokes_access_token
    }
}

impl Default for Provider {
    fn default() -> Self {
        Self::rfc6749()
    }
}

/// The statuses that say enough: nothing in the body makes them a verdict about the token.
pub(crate) fn by_status(status: u16) -> Option<RefreshFailure> {
    match status {
        // Not looked at: the server was too busy, or the request too early or too slow for it.
        408 | 425 | 429 | 503 => Some(RefreshFailure::Busy),
        // A gateway that lost its back end: perhaps after the back end had rotated.
        502 | 504 => Some(RefreshFailure::Lost),
        // Box answers 409 to the loser of a race.
        409 | 500.. => Some(RefreshFailure::Unusable),
        _ => None,
    }
}

/// RFC 6749 §5.2: `invalid_grant` is "The provided authorization grant … or refresh token is
/// invalid, expired, revoked, does not match the redirection URI …, or was issued to another
/// client". All the other codes are about the client or the request; the last of them is RFC 7009's.
fn classify_rfc6749(error: &ServerError) -> RefreshFailure {
    match error.code() {
        Some("invalid_grant") => RefreshFailure::Terminal,
        Some(
            "invalid_client"
            | "invalid_request"
            | "invalid_scope"
            | "invalid_target"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "unsupported_token_type",
        ) => RefreshFailure::Configuration,
        Some("slow_down" | "temporarily_unavailable") => RefreshFailure::Busy,
        _ => RefreshFailure::Unusable,
    }
}

/// Both `{"error", "error_description"}` and Spring's default error format have `error`; the latter
/// means the client by it, and has `status` and `timestamp` too.
fn classify_digirunner(error: &ServerError) -> RefreshFailure {
    let is_about_the_client =
        error.member("status").or_else(|| error.member("timestamp")).is_some();
    match error.code() {
        Some("invalid_grant" | "invalid_token" | "Over Refresh Token Allow Times")
            if !is_about_the_client =>
        {
            RefreshFailure::Terminal
        }
        // A client that is refused again and again is locked.
        Some(
            "invalid_client"
            | "invalid_request"
            | "unauthorized"
            | "Unauthorized"
            | "unauthorized_client"
            | "unsupported_grant_type",
        ) => RefreshFailure::Configuration,
        _ if is_about_the_client || error.member("ResHeader").is_some() => {
            RefreshFailure::Configuration
        }
        _ => RefreshFailure::Unusable,
    }
}

/// RFC 6750 §3.1: `invalid_token` comes with a 401, and "the client MAY request a new access token
/// and retry the protected resource request".
fn judge_rfc6750(status: StatusCode, headers: &HeaderMap) -> Judgement {
    match status == StatusCode::UNAUTHORIZED && challenge::is_about_the_token(headers) {
        true => Judgement::Rejected,
        false => Judgement::Accepted,
    }
}

fn judge_digirunner(status: StatusCode, headers: &HeaderMap) -> Judgement {
    match status {
        StatusCode::FORBIDDEN => Judgement::RejectedIf(|body| body["error"] == "invalid_token"),
        _ => judge_rfc6750(status, headers),
    }
}

mod known;
#[cfg(test)]
mod tests;
