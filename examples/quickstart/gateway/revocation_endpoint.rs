//! `POST /oauth/revocation`: RFC 7009, nearly.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::Shared;
use super::answer::{self, about_the_client, about_the_token};

/// The client's password comes in the body here, as it was registered.
///
/// A hint that is missing is an error, and a wrong one is a success that revokes nothing.
pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    form: Result<Form<HashMap<String, String>>, FormRejection>,
) -> Response {
    let Form(parameters) = form.unwrap_or_default();
    let parameter = |name| parameters.get(name).map(String::as_str);
    let config = &shared.config;
    let is_known = parameter("client_id") == Some(&config.client_id)
        && parameter("client_secret") == config.client_password.as_deref();
    if !is_known {
        let text = "The client(application) account or password is incorrect.";
        return about_the_client(StatusCode::UNAUTHORIZED, text, "/oauth/revocation");
    }
    let Some(claims) = parameter("token").and_then(|token| shared.signer.verify(token)) else {
        let text = "Cannot convert access token to JSON";
        return about_the_token(StatusCode::BAD_REQUEST, "invalid_token", text);
    };
    let (kind, was_alive) = match parameter("token_type_hint") {
        Some("access_token") => {
            let was_alive = shared.ledger.lock().revoke_access_token(claims.jti());
            ("access token", was_alive)
        }
        Some("refresh_token") => {
            let was_alive = shared.ledger.lock().revoke_refresh_token(claims.jti());
            ("refresh token", was_alive)
        }
        _ => {
            let error = "unsupported_token_type_hint";
            return about_the_token(StatusCode::BAD_REQUEST, error, error);
        }
    };
    let (code, outcome) = match was_alive {
        true => ("token_revoke_success", "revoke success"),
        false => ("token_already_revoked", "already revoked"),
    };
    let message = format!("{kind} {outcome}, jti: {}", claims.jti());
    answer::json(StatusCode::OK, &json!({ "code": code, "message": message }))
}
