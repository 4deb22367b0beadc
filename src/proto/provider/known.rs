//! The servers that are known, each as a value. What an answer looks like, and where that was seen,
//! is in `docs/providers.md`; the numbers `Q-…` are those of the project's list of quirks.
//!
//! Long for its documentation: one file, so that a server is looked up in one place.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use crate::error::RefreshFailure::{Busy, Configuration, Terminal, Unusable};
use crate::error::{RefreshFailure, ServerError};
use crate::proto::provider::{Judgement, Provider};

/// For servers whose replicas learn late of a new token. The number is ours.
const SETTLED: Duration = Duration::from_secs(5);

impl Provider {
    /// Amazon's Selling Partner API, with Login with Amazon.
    ///
    /// An API call is rejected by a 401, and by a 403 whose `details` say that the access token is
    /// over or revoked (Q-90): Amazon answers 403 with the same code for a missing role. The token
    /// endpoint keeps to the RFC; it returns the refresh token unchanged.
    ///
    /// Client authentication: [`ClientAuth::body`](crate::ClientAuth::body). The API wants the
    /// token in `x-amz-access-token`, which a session does not send: take it from
    /// [`Session::tokens`](crate::Session::tokens). No answer to too many token requests could be
    /// cited.
    pub const fn amazon_sp_api() -> Self {
        Self::rfc6749().with_judge(|status, headers| match status {
            StatusCode::FORBIDDEN => Judgement::RejectedIf(|body| {
                let details = body["errors"][0]["details"].as_str().unwrap_or_default();
                details == "The access token you provided has expired."
                    || details == "The access token you provided is revoked, malformed or invalid."
            }),
            _ => judge_rfc6750(status, headers),
        })
    }

    /// Auth0.
    ///
    /// `access_denied` with the text "Unknown or invalid refresh token" is the older form of a dead
    /// refresh token (Q-31); with status 401 it means a wrong client. Also named:
    /// `endpoint_disabled` and `method_not_allowed` (configuration), `too_many_requests`. Status
    /// 403 for `invalid_grant` needs nothing.
    ///
    /// A refresh token that is used twice ends its whole family (Q-50): share a store between
    /// processes. Client authentication: [`ClientAuth::body`](crate::ClientAuth::body), or
    /// [`none`](crate::ClientAuth::none).
    pub const fn auth0() -> Self {
        Self::rfc6749()
            .with_codes(&[
                ("endpoint_disabled", Configuration),
                ("method_not_allowed", Configuration),
                ("too_many_requests", Busy),
            ])
            .with_classifier(|error| match (error.code(), error.status()) {
                (Some("access_denied"), _) if says(error, "Unknown or invalid refresh token") => {
                    Terminal
                }
                (Some("access_denied"), 401) => Configuration,
                _ => rfc6749(error),
            })
    }

    /// Box.
    ///
    /// The same as [`rfc6749`](Self::rfc6749), which knows already that the 409 of a lost race
    /// (Q-38) is not a dead refresh token. Refresh tokens are for one use (Q-55). Client
    /// authentication: [`ClientAuth::body`](crate::ClientAuth::body). No answer to too many
    /// requests could be cited.
    pub const fn box_() -> Self {
        Self::rfc6749()
    }

    /// Amazon Cognito: the token endpoint of a user pool's domain, not `InitiateAuth`.
    ///
    /// The same as [`rfc6749`](Self::rfc6749), which knows already that a refresh answers without
    /// a refresh token (Q-51, Q-56), and that the code decides, not the status: Cognito answers 400
    /// for a wrong client. Client authentication: [`ClientAuth::basic`](crate::ClientAuth::basic),
    /// or [`none`](crate::ClientAuth::none). No answer to too many requests could be cited.
    pub const fn cognito() -> Self {
        Self::rfc6749()
    }

    /// Entra ID, the Microsoft identity platform.
    ///
    /// `interaction_required` and `consent_required` need a person (Q-32); the details (`suberror`,
    /// `error_codes`, `claims`) are [members](ServerError::member) of the error that the login hook
    /// gets. `invalid_resource` is configuration. AADSTS50196 says that a client asks too often,
    /// whatever its code, and is transient.
    ///
    /// Numbers in texts (Q-01, the v1 endpoint) and the 401 that asks for claims (Q-93: not
    /// refreshed) need nothing. The v1 endpoint wants a `resource` (Q-75): see
    /// [`with_parameters`](Self::with_parameters). Client authentication:
    /// [`ClientAuth::body`](crate::ClientAuth::body) or [`basic`](crate::ClientAuth::basic), and
    /// [`none`](crate::ClientAuth::none) for public clients, which must not send a secret.
    pub const fn entra_id() -> Self {
        Self::rfc6749().with_codes(&[("invalid_resource", Configuration)]).with_classifier(
            |error| {
                let codes = error.member("error_codes").and_then(Value::as_array);
                let asks_too_often = codes.is_some_and(|codes| codes.contains(&50196.into()))
                    || says(error, "AADSTS50196");
                match error.code() {
                    _ if asks_too_often => Unusable,
                    Some("consent_required" | "interaction_required") => Terminal,
                    _ => rfc6749(error),
                }
            },
        )
    }

    /// GitHub: a GitHub App's user tokens that expire.
    ///
    /// A dead refresh token is `bad_refresh_token` with status 200 (Q-20);
    /// `incorrect_client_credentials` and `redirect_uri_mismatch` are configuration. A refresh
    /// [ends](Self::with_revoking_refresh) the old access token at once; and GitHub may refuse a new
    /// token for a moment, so one younger than 5 seconds (our number) is sent again, not refreshed
    /// (Q-57). A 403 is about limits (Q-92) and never refreshed.
    ///
    /// We ask for JSON, and read a form where one comes (Q-20). Client authentication:
    /// [`ClientAuth::body`](crate::ClientAuth::body).
    pub const fn github() -> Self {
        Self::rfc6749()
            .with_codes(&[
                ("bad_refresh_token", Terminal),
                ("incorrect_client_credentials", Configuration),
                ("redirect_uri_mismatch", Configuration),
            ])
            .with_revoking_refresh(true)
            .with_minimum_age(SETTLED)
    }

    /// GitLab, and other servers made with Doorkeeper.
    ///
    /// A refresh [ends](Self::with_revoking_refresh) the old access token at once. The rest is as in
    /// [`rfc6749`](Self::rfc6749): refresh tokens are for one use (Q-55), and the status, which
    /// older Doorkeepers have wrong, does not decide.
    ///
    /// GitLab wants the `redirect_uri` of the login in the token request: see
    /// [`TokenEndpoint::with_parameter`](crate::TokenEndpoint::with_parameter). Client
    /// authentication: [`ClientAuth::body`](crate::ClientAuth::body), or
    /// [`none`](crate::ClientAuth::none). No answer to too many requests could be cited.
    pub const fn gitlab() -> Self {
        Self::rfc6749().with_revoking_refresh(true)
    }

    /// Google.
    ///
    /// `internal_failure`, as code or as text, and `server_error` are outages even at status 400
    /// (Q-34). They are tried again at once: a refresh does not use up Google's refresh token,
    /// which does not come back either (Q-56).
    ///
    /// Client authentication: [`ClientAuth::body`](crate::ClientAuth::body).
    pub const fn google() -> Self {
        Self::rfc6749()
            .with_codes(&[("internal_failure", Busy), ("server_error", Busy)])
            .with_classifier(|error| match error.description() {
                Some("internal_failure") => Busy,
                _ => rfc6749(error),
            })
    }

    /// HubSpot.
    ///
    /// Its errors have no `error` but a `status`; a dead refresh token is `BAD_REFRESH_TOKEN`
    /// (Q-24). No captured answer to a wrong client could be cited, so every other status is
    /// transient. Client authentication: [`ClientAuth::body`](crate::ClientAuth::body).
    pub const fn hubspot() -> Self {
        Self::rfc6749().with_codes(&[("BAD_REFRESH_TOKEN", Terminal)]).with_reader(|mut answer| {
            rename_error(&mut answer, "status", "message");
            answer
        })
    }

    /// Keycloak.
    ///
    /// Old versions say `invalid_scope`, "User no long has permission for …", where a person must
    /// log in again. The rest is as in [`rfc6749`](Self::rfc6749), which knows that
    /// `refresh_expires_in: 0` means no end (Q-10). With `Revoke Refresh Token` a token that is
    /// used twice is dead (Q-52): share a store between processes.
    ///
    /// Client authentication: [`ClientAuth::basic`](crate::ClientAuth::basic) since version 20,
    /// which decodes; [`body`](crate::ClientAuth::body) works everywhere. No answer to too many
    /// requests could be cited.
    pub const fn keycloak() -> Self {
        Self::rfc6749().with_classifier(|error| match error.code() {
            Some("invalid_scope") if says(error, "User no long has permission") => Terminal,
            _ => rfc6749(error),
        })
    }

    /// Okta.
    ///
    /// The same as [`rfc6749`](Self::rfc6749); the 429 in Okta's own format is transient by its
    /// status. A refresh token that is used twice ends its whole family (Q-50): share a store
    /// between processes. Client authentication: [`ClientAuth::basic`](crate::ClientAuth::basic)
    /// or [`body`](crate::ClientAuth::body), never both.
    pub const fn okta() -> Self {
        Self::rfc6749()
    }

    /// OpenAI's login for ChatGPT and Codex.
    ///
    /// The code is in an error object, or beside it (Q-27), in any case: a refresh token is dead
    /// on `refresh_token_expired`, `refresh_token_reused`, `refresh_token_invalidated` and
    /// `token_expired`. There is no `expires_in`; the JWT's `exp` counts, 8 days without one, and the
    /// window is 5 minutes: so does OpenAI's own client.
    ///
    /// That client also takes every 401 for a dead refresh token, which is not done here. OpenAI's
    /// gateway is reported to cut some of these answers to `{"error":{}}`: they are transient. No
    /// answers to a wrong client or to too many requests could be cited.
    ///
    /// Client authentication: [`ClientAuth::none`](crate::ClientAuth::none).
    pub const fn openai() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self::rfc6749()
            .with_codes(&[
                ("refresh_token_expired", Terminal),
                ("refresh_token_invalidated", Terminal),
                ("refresh_token_reused", Terminal),
                ("token_expired", Terminal),
            ])
            .with_reader(read_openai)
            .with_default_lifetime(Duration::from_secs(8 * DAY))
            .with_refresh_window(Duration::from_secs(300))
    }

    /// QuickBooks and other services of Intuit.
    ///
    /// The same as [`rfc6749`](Self::rfc6749), which reads `x_refresh_token_expires_in` (Q-11). The
    /// refresh token changes about once a day, and only the latest works (Q-55). Client
    /// authentication: [`ClientAuth::basic`](crate::ClientAuth::basic). No answer to too many
    /// requests could be cited.
    pub const fn quickbooks() -> Self {
        Self::rfc6749()
    }

    /// Salesforce.
    ///
    /// `invalid_client_id` is configuration. A dead refresh token is `invalid_grant`, as are some
    /// troubles of the client (Q-33): look at the description in the login hook. The API's 401 has
    /// no challenge (Q-94), which needs nothing.
    ///
    /// There is no `expires_in` (Q-03); the lifetime is the "session timeout" of the connected app.
    /// Say it with [`with_default_lifetime`](Self::with_default_lifetime), else only a 401 tells.
    /// Client authentication: [`ClientAuth::body`](crate::ClientAuth::body). No answer to too many
    /// requests could be cited.
    pub const fn salesforce() -> Self {
        Self::rfc6749().with_codes(&[("invalid_client_id", Configuration)])
    }

    /// Slack, with token rotation.
    ///
    /// Errors come with status 200 and `ok: false` (Q-21), in words of Slack's own. A dead refresh
    /// token is `invalid_refresh_token`, `token_revoked`, `account_inactive` or `access_denied`.
    /// The token types `bot` and `user` mean `Bearer` (Q-81), the commas of `scope` become spaces,
    /// and where there is no other token, the user's is taken out of `authed_user` (Q-82).
    ///
    /// The API answers 200 for a token that is over. To look into every answer for that costs
    /// a buffer each, so it must be asked for:
    ///
    /// ```
    /// use reqwest_refresh::{Judgement, Provider};
    ///
    /// let slack = Provider::slack().with_judge(|status, headers| match status.as_u16() {
    ///     200 => Judgement::RejectedIf(|body| body["error"] == "token_expired"),
    ///     _ => Provider::slack().judge(status, headers),
    /// });
    /// ```
    ///
    /// Client authentication: [`ClientAuth::body`](crate::ClientAuth::body).
    pub const fn slack() -> Self {
        Self::rfc6749()
            .with_codes(&[
                ("access_denied", Terminal),
                ("account_inactive", Terminal),
                ("invalid_refresh_token", Terminal),
                ("token_revoked", Terminal),
                ("bad_client_secret", Configuration),
                ("bad_redirect_uri", Configuration),
                ("invalid_arguments", Configuration),
                ("invalid_client_id", Configuration),
                ("invalid_grant_type", Configuration),
                ("ratelimited", Busy),
                ("service_unavailable", Busy),
                ("team_added_to_org", Busy),
            ])
            .with_reader(read_slack)
    }

    /// Spotify.
    ///
    /// The same as [`rfc6749`](Self::rfc6749), which keeps the refresh token where none comes back
    /// (Q-56), and does not mind that a wrong client is a 400. Client authentication:
    /// [`ClientAuth::basic`](crate::ClientAuth::basic), or [`none`](crate::ClientAuth::none) with
    /// PKCE. No answer to too many token requests could be cited.
    pub const fn spotify() -> Self {
        Self::rfc6749()
    }

    /// A server made with the legacy Spring Security OAuth, which is no longer maintained.
    ///
    /// A refresh token that is over is a 401 `invalid_token` the first time, a 400 `invalid_grant`
    /// from then on (Q-23). `unauthorized` is about the client. Any refresh, even one that fails,
    /// [ends](Self::with_revoking_refresh) the old access token at once (Q-57).
    ///
    /// Client authentication: [`ClientAuth::basic_raw`](crate::ClientAuth::basic_raw), since the
    /// server does not decode (Q-70). For the digiRunner gateway see
    /// [`digirunner`](Self::digirunner).
    pub const fn spring_security_oauth() -> Self {
        Self::rfc6749()
            .with_codes(&[("invalid_token", Terminal), ("unauthorized", Configuration)])
            .with_revoking_refresh(true)
    }

    /// Supabase Auth (GoTrue).
    ///
    /// The code is in `error_code`, in newer API versions in `code` (Q-35). A refresh token is dead
    /// on `refresh_token_not_found`, `refresh_token_already_used`, `session_not_found`,
    /// `session_expired`, `user_banned`, and on `validation_failed` where the text says that the
    /// token is another server's. The 409 of a race is transient. PostgREST may take a new token
    /// for one of the future for a moment: one younger than 5 seconds (our number) is sent again,
    /// not refreshed.
    ///
    /// Supabase's own clients send JSON, with `?grant_type=refresh_token` in the URL and a header
    /// `apikey`. Whether the endpoint reads our form could not be verified: where it does not,
    /// write a [`Refresh`](crate::Refresh).
    pub const fn supabase() -> Self {
        Self::rfc6749()
            .with_codes(&[
                ("refresh_token_already_used", Terminal),
                ("refresh_token_not_found", Terminal),
                ("session_expired", Terminal),
                ("session_not_found", Terminal),
                ("user_banned", Terminal),
                ("over_request_rate_limit", Busy),
            ])
            .with_classifier(|error| match error.code() {
                Some("validation_failed")
                    if says(error, "Invalid Refresh Token: Not Issued By This Server") =>
                {
                    Terminal
                }
                _ => rfc6749(error),
            })
            .with_reader(|mut answer| {
                rename_error(&mut answer, "error_code", "msg");
                rename_error(&mut answer, "code", "message");
                answer
            })
            .with_minimum_age(SETTLED)
    }

    /// X, formerly Twitter: OAuth 2.0.
    ///
    /// A dead refresh token is `invalid_request` with the text "Value passed for the token was
    /// invalid." (Q-29); every other `invalid_request` is configuration. Refresh tokens are for one
    /// use (Q-55). Client authentication: [`ClientAuth::basic`](crate::ClientAuth::basic) (Q-73),
    /// or [`none`](crate::ClientAuth::none). No answers to a wrong secret or to too many token
    /// requests could be cited.
    pub const fn x() -> Self {
        Self::rfc6749().with_classifier(|error| match error.code() {
            Some("invalid_request") if says(error, "Value passed for the token was invalid") => {
                Terminal
            }
            _ => rfc6749(error),
        })
    }

    /// Xero.
    ///
    /// The same as [`rfc6749`](Self::rfc6749). Refresh tokens are for one use (Q-55), but an old one
    /// may be tried again for 30 minutes. Client authentication:
    /// [`ClientAuth::basic`](crate::ClientAuth::basic). No answer to too many requests could be
    /// cited.
    pub const fn xero() -> Self {
        Self::rfc6749()
    }

    /// Zoom.
    ///
    /// The text of an error is in `reason` (Q-28). The rest is as in [`rfc6749`](Self::rfc6749),
    /// whatever the status. Client authentication:
    /// [`ClientAuth::basic`](crate::ClientAuth::basic). No answer to too many requests could be
    /// cited.
    pub const fn zoom() -> Self {
        Self::rfc6749().with_reader(|mut answer| {
            if let Some(reason) = answer.remove("reason") {
                answer.entry("error_description").or_insert(reason);
            }
            answer
        })
    }
}

fn rfc6749(error: &ServerError) -> RefreshFailure {
    Provider::rfc6749().classify(error)
}

fn judge_rfc6750(status: StatusCode, headers: &HeaderMap) -> Judgement {
    Provider::rfc6749().judge(status, headers)
}

/// RFC 6749 §5.2 means the description for people only; some servers leave nothing else to go by.
fn says(error: &ServerError, beginning: &str) -> bool {
    error.description().is_some_and(|text| text.starts_with(beginning))
}

/// Brings an error whose code and text have other names into those of RFC 6749 §5.2.
fn rename_error(answer: &mut Map<String, Value>, code: &str, description: &str) {
    if answer.contains_key("access_token") || answer.contains_key("error") {
        return;
    }
    let Some(Value::String(code)) = answer.get(code).cloned() else {
        return;
    };
    answer.insert("error".into(), code.into());
    if let Some(description) = answer.get(description).cloned() {
        answer.entry("error_description").or_insert(description);
    }
}

fn read_openai(mut answer: Map<String, Value>) -> Map<String, Value> {
    if answer.contains_key("access_token") {
        return answer;
    }
    let code = match answer.get("error") {
        Some(Value::Object(error)) => error.get("code"),
        Some(error @ Value::String(_)) => Some(error),
        _ => answer.get("code"),
    };
    if let Some(code) = code.and_then(Value::as_str).map(str::to_ascii_lowercase)
        && let Some(error) = answer.insert("error".into(), code.into())
        && let Some(message) = error.get("message")
    {
        answer.entry("error_description").or_insert_with(|| message.clone());
    }
    answer
}

fn read_slack(mut answer: Map<String, Value>) -> Map<String, Value> {
    if !answer.contains_key("access_token")
        && let Some(Value::Object(user)) = answer.get("authed_user").cloned()
        && user.contains_key("access_token")
    {
        answer.remove("authed_user");
        answer.extend(user);
    }
    if let Some(Value::String(kind)) = answer.get_mut("token_type")
        && (kind == "bot" || kind == "user")
    {
        *kind = "Bearer".into();
    }
    if let Some(Value::String(scope)) = answer.get_mut("scope") {
        *scope = scope.replace(',', " ");
    }
    answer
}

#[cfg(test)]
mod tests;
