//! `POST /oauth/token`: the grants `password` and `refresh_token`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::{self, about_the_client, about_the_token};
use super::ledger::{Issue, Verdict};
use super::{Config, Shared};

type Parameters = HashMap<String, String>;

/// So many wrong passwords lock the client.
const MOST_WRONG_PASSWORDS: usize = 3;

const PATH: &str = "/oauth/token";

pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    form: Result<Form<Parameters>, FormRejection>,
) -> Response {
    if shared.ledger.lock().outage {
        shared.ledger.lock().counters.token_requests_turned_away += 1;
        let text = "down for maintenance";
        return about_the_client(StatusCode::SERVICE_UNAVAILABLE, text, PATH);
    }
    tokio::time::sleep(shared.config.token_delay).await;
    // Another content type is as good as no parameters.
    let Form(parameters) = form.unwrap_or_default();
    let issue = match authenticate(&shared, &headers) {
        Ok(()) => grant(&shared, &parameters),
        Err(refusal) => Err(refusal),
    };
    match issue.and_then(|issue| success(&shared, &issue)) {
        Ok(success) => success,
        Err(refusal) => {
            shared.ledger.lock().counters.token_requests_refused += 1;
            *refusal
        }
    }
}

/// The client, by `Basic base64(client_id ":" base64(password))`; what the body says does not count.
fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<(), Box<Response>> {
    let unauthorized =
        |text: &str| Err(Box::new(about_the_client(StatusCode::UNAUTHORIZED, text, PATH)));
    let value = headers.get(header::AUTHORIZATION);
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, credentials) = value.split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("basic") {
        return unauthorized("Missing required parameter: Authorization");
    }
    let decoded = STANDARD.decode(credentials).ok();
    let Some(decoded) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) else {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let text = "Input byte array has incorrect ending byte";
        return Err(Box::new(about_the_client(status, text, PATH)));
    };
    let Some((client_id, secret)) = decoded.split_once(':') else {
        return unauthorized("Unauthorized");
    };
    if client_id.is_empty() {
        return bad_request("invalid_request", "Missing required parameter: client_id");
    }
    if client_id != shared.config.client_id {
        let text = "The client(application) was not found. client_id: ";
        return unauthorized(&format!("{text}{client_id}"));
    }
    if shared.ledger.lock().wrong_passwords >= MOST_WRONG_PASSWORDS {
        let text = format!("'{client_id}' Client(application) locked");
        return Err(Box::new(about_the_client(StatusCode::FORBIDDEN, &text, PATH)));
    }
    match &shared.config.client_password {
        None if secret.is_empty() => Ok(()),
        Some(_) if secret.is_empty() => bad_request("invalid_request", "Missing client_secret"),
        Some(password) if secret == STANDARD.encode(password) => {
            shared.ledger.lock().wrong_passwords = 0;
            Ok(())
        }
        _ => {
            shared.ledger.lock().wrong_passwords += 1;
            let text = "The client(application) account or password is incorrect. clientId: ";
            unauthorized(&format!("{text}{client_id}"))
        }
    }
}

fn grant(shared: &Shared, parameters: &Parameters) -> Result<Issue, Box<Response>> {
    let Some(grant_type) = parameters.get("grant_type") else {
        return bad_request("invalid_request", "Missing grant type");
    };
    match grant_type.to_ascii_lowercase().as_str() {
        "password" => log_in(shared, parameters),
        "refresh_token" => refresh(shared, parameters),
        "" => {
            let text = "Full authentication is required to access this resource";
            refused(StatusCode::UNAUTHORIZED, "unauthorized", text)
        }
        _ => {
            let text = format!("Unsupported grant type: {grant_type}");
            bad_request("unsupported_grant_type", &text)
        }
    }
}

/// The user, by name and by `base64(password)`.
fn log_in(shared: &Shared, parameters: &Parameters) -> Result<Issue, Box<Response>> {
    let Config { user_name, user_password, .. } = &shared.config;
    let is_known = parameters.get("username") == Some(user_name)
        && parameters.get("password") == Some(&STANDARD.encode(user_password));
    match is_known {
        true => Ok(shared.ledger.lock().log_in(&shared.config)),
        false => bad_request("invalid_grant", "Bad credentials"),
    }
}

/// In digiRunner's order: there at all, ours, this client's, not over, not revoked.
fn refresh(shared: &Shared, parameters: &Parameters) -> Result<Issue, Box<Response>> {
    const NOT_JSON: &str = "Cannot convert access token to JSON";
    let token = match parameters.get("refresh_token").map(String::as_str) {
        None => return refused(StatusCode::UNAUTHORIZED, "invalid_token", NOT_JSON),
        Some("") => return refused(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"),
        Some(token) => token,
    };
    let Some(claims) = shared.signer.verify(token) else {
        return bad_request("invalid_token", NOT_JSON);
    };
    if claims.client_id() != shared.config.client_id {
        let text = format!("Wrong client(application) for this refresh token: {token}");
        return bad_request("invalid_grant", &text);
    }
    let mut ledger = shared.ledger.lock();
    match ledger.judge_refresh_token(&claims) {
        Verdict::Good => Ok(ledger.refresh(&claims)),
        Verdict::Expired => {
            let text = format!("Invalid refresh token (expired): {token}");
            refused(StatusCode::UNAUTHORIZED, "invalid_token", &text)
        }
        Verdict::Revoked => {
            let text = format!("Refresh token revoked, jti: {}", claims.jti());
            refused(StatusCode::FORBIDDEN, "invalid_token", &text)
        }
    }
}

/// The answer with tokens. No `Cache-Control`, but a cookie: this is digiRunner.
fn success(shared: &Shared, issue: &Issue) -> Result<Response, Box<Response>> {
    let sign = |claims| {
        shared.signer.sign(claims).map_err(|error| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Box::new(about_the_client(status, &error.to_string(), PATH))
        })
    };
    let claims = &issue.access.0;
    let body = json!({
        "access_token": sign(&issue.access)?,
        "expires_in": issue.expires_in,
        "jti": claims["jti"],
        "node": claims["node"],
        "org_id": claims["org_id"],
        "refresh_token": sign(&issue.refresh)?,
        "scope": space_separated(&claims["scope"]),
        "stime": claims["stime"],
        "token_type": "bearer",
    });
    let mut response = answer::json(StatusCode::OK, &body);
    let cookie = format!("jti={}; Path=/; Secure; HttpOnly; SameSite=Lax", issue.access.jti());
    let cookie = HeaderValue::from_str(&cookie).ok();
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

fn space_separated(scope: &Value) -> String {
    let names = scope.as_array().into_iter().flatten();
    names.filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

fn bad_request<T>(error: &str, text: &str) -> Result<T, Box<Response>> {
    refused(StatusCode::BAD_REQUEST, error, text)
}

fn refused<T>(status: StatusCode, error: &str, text: &str) -> Result<T, Box<Response>> {
    Err(Box::new(about_the_token(status, error, text)))
}
