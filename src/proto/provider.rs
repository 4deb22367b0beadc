//! Where a server departs from the RFCs: a value, not a subclass.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::error::{RefreshFailure, ServerError};
use crate::proto::challenge;

/// What is particular about an authorization server and the APIs behind it.
///
/// [`rfc6749`](Self::rfc6749) is what a server does that keeps to the letter;
/// [`digirunner`](Self::digirunner) is the digiRunner gateway, and fits legacy Spring servers.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    classify: fn(&ServerError) -> RefreshFailure,
    judge: fn(StatusCode, &HeaderMap) -> Judgement,
    refresh_window: Duration,
    minimum_age: Duration,
}

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
            classify: classify_rfc6749,
            judge: judge_rfc6750,
            refresh_window: Duration::from_secs(60),
            minimum_age: Duration::ZERO,
        }
    }

    /// The digiRunner gateway.
    ///
    /// A refresh token is dead on `invalid_grant`, `invalid_token` or `Over Refresh Token Allow
    /// Times`, at whatever status, but never by the answers in Spring's default error format,
    /// which are about the client. A token is rejected by a 401, or by a 403 whose JSON body says
    /// `invalid_token`. The refresh window is 10 seconds: a refresh kills the old access token at
    /// once, so it comes as late as is safe.
    pub const fn digirunner() -> Self {
        Self {
            classify: classify_digirunner,
            judge: judge_digirunner,
            refresh_window: Duration::from_secs(10),
            minimum_age: Duration::ZERO,
        }
    }

    /// Sets what an error answer of the token endpoint means.
    ///
    /// Asked only about JSON answers below status 500 other than 408, 409, 425 and 429: those are
    /// transient whatever they say, so that an outage logs nobody out.
    #[must_use]
    pub const fn with_classifier(mut self, classify: fn(&ServerError) -> RefreshFailure) -> Self {
        self.classify = classify;
        self
    }

    /// Sets which answers of the API reject a token.
    #[must_use]
    pub const fn with_judge(mut self, judge: fn(StatusCode, &HeaderMap) -> Judgement) -> Self {
        self.judge = judge;
        self
    }

    /// Sets the refresh window's default. See
    /// [`SessionBuilder::refresh_window`](crate::SessionBuilder::refresh_window).
    #[must_use]
    pub const fn with_refresh_window(mut self, window: Duration) -> Self {
        self.refresh_window = window;
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

    pub(crate) fn classify(&self, error: &ServerError) -> RefreshFailure {
        match by_status(error.status()) {
            Some(failure) => failure,
            None => (self.classify)(error),
        }
    }

    pub(crate) fn judge(&self, status: StatusCode, headers: &HeaderMap) -> Judgement {
        (self.judge)(status, headers)
    }

    pub(crate) fn refresh_window(&self) -> Duration {
        self.refresh_window
    }

    pub(crate) fn minimum_age(&self) -> Duration {
        self.minimum_age
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
/// client". All the other codes are about the client or the request.
fn classify_rfc6749(error: &ServerError) -> RefreshFailure {
    match error.code() {
        Some("invalid_grant") => RefreshFailure::Terminal,
        Some(
            "invalid_client"
            | "invalid_request"
            | "invalid_scope"
            | "invalid_target"
            | "unauthorized_client"
            | "unsupported_grant_type",
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

#[cfg(test)]
mod tests;
