//! The two shapes of an error, and the rest as JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An error by OAuth: about the token or the grant.
pub(super) fn about_the_token(status: StatusCode, error: &str, description: &str) -> Response {
    let body = json!({ "error": error, "error_description": description });
    json(status, &body)
}

/// An error in Spring's default format: about the client. Its `error` is no OAuth code.
pub(super) fn about_the_client(status: StatusCode, message: &str, path: &str) -> Response {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let body = json!({
        "timestamp": now.unwrap_or_default().as_millis().to_string(),
        "status": status.as_u16(),
        "error": status.canonical_reason(),
        "message": message,
        "path": path,
    });
    json(status, &body)
}

/// Any JSON.
pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], body.to_string()).into_response()
}
