//! What a built-in provider makes of an error.

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use crate::error::{RefreshError, RefreshFailure, ServerError};
use crate::properties::input::Input;
use crate::properties::secrets::{ESCAPED, SENT, THEIRS, assert_hidden};
use crate::proto::grant::Answer;
use crate::proto::provider::{Judgement, Provider};

/// A provider, the codes by which it means a dead refresh token, from `docs/providers.md`, each with
/// the beginning of the description that it takes, and the errors that are none all the same.
pub(super) struct Known {
    pub(super) provider: Provider,
    terminal: &'static [(&'static str, &'static str)],
    is_overruled: fn(&ServerError) -> bool,
}

const fn known(provider: Provider, terminal: &'static [(&'static str, &'static str)]) -> Known {
    Known { provider, terminal, is_overruled: |_| false }
}

const GRANT: (&str, &str) = ("invalid_grant", "");

pub(super) const PROVIDERS: &[Known] = &[
    known(Provider::rfc6749(), &[GRANT]),
    known(Provider::amazon_sp_api(), &[GRANT]),
    known(Provider::auth0(), &[GRANT, ("access_denied", "Unknown or invalid refresh token")]),
    known(Provider::box_(), &[GRANT]),
    known(Provider::cognito(), &[GRANT]),
    Known {
        provider: Provider::digirunner(),
        terminal: &[GRANT, ("invalid_token", ""), ("Over Refresh Token Allow Times", "")],
        is_overruled: |error| ["status", "timestamp"].iter().any(|n| error.member(n).is_some()),
    },
    Known {
        provider: Provider::entra_id(),
        terminal: &[GRANT, ("consent_required", ""), ("interaction_required", "")],
        is_overruled: |error| {
            error.description().is_some_and(|text| text.starts_with("AADSTS50196"))
                || error.member("error_codes").is_some_and(|codes| *codes == json!([50196]))
        },
    },
    known(Provider::github(), &[GRANT, ("bad_refresh_token", "")]),
    known(Provider::gitlab(), &[GRANT]),
    Known {
        provider: Provider::google(),
        terminal: &[GRANT],
        is_overruled: |error| error.description() == Some("internal_failure"),
    },
    known(Provider::hubspot(), &[GRANT, ("BAD_REFRESH_TOKEN", "")]),
    known(Provider::keycloak(), &[GRANT, ("invalid_scope", "User no long has permission")]),
    known(Provider::okta(), &[GRANT]),
    known(
        Provider::openai(),
        &[
            GRANT,
            ("refresh_token_expired", ""),
            ("refresh_token_invalidated", ""),
            ("refresh_token_reused", ""),
            ("token_expired", ""),
        ],
    ),
    known(Provider::quickbooks(), &[GRANT]),
    known(Provider::salesforce(), &[GRANT]),
    known(
        Provider::slack(),
        &[
            GRANT,
            ("access_denied", ""),
            ("account_inactive", ""),
            ("invalid_refresh_token", ""),
            ("token_revoked", ""),
        ],
    ),
    known(Provider::spotify(), &[GRANT]),
    known(Provider::spring_security_oauth(), &[GRANT, ("invalid_token", "")]),
    known(
        Provider::supabase(),
        &[
            GRANT,
            ("refresh_token_already_used", ""),
            ("refresh_token_not_found", ""),
            ("session_expired", ""),
            ("session_not_found", ""),
            ("user_banned", ""),
            ("validation_failed", "Invalid Refresh Token: Not Issued By This Server"),
        ],
    ),
    known(Provider::x(), &[GRANT, ("invalid_request", "Value passed for the token was invalid")]),
    known(Provider::xero(), &[GRANT]),
    known(Provider::zoom(), &[GRANT]),
];

/// Codes about the client, to whatever provider.
const CLIENT: [&str; 3] = ["invalid_client", "unauthorized_client", "unsupported_grant_type"];
/// Codes that are not about the refresh token to all of them.
const OTHERS: [&str; 8] = [
    "server_error",
    "temporarily_unavailable",
    "invalid_request",
    "invalid_scope",
    "Invalid_Grant",
    "unauthorized",
    "slow_down",
    "",
];
/// Descriptions that mean something to somebody.
const DESCRIPTIONS: [&str; 7] = [
    "",
    "Unknown or invalid refresh token",
    "User no long has permission",
    "Invalid Refresh Token: Not Issued By This Server",
    "Value passed for the token was invalid",
    "AADSTS50196",
    "internal_failure",
];

/// K-34: a refresh token is dead by the codes of the table alone, at a status that is no outage,
/// however the answer is written.
pub fn provider(input: &[u8]) {
    let mut input = Input::new(input);
    let known = &PROVIDERS[input.below(PROVIDERS.len())];
    let provider = known.provider;
    let status = input.status();
    let members = members(&mut input, known.terminal);
    let read = |members: &[(String, Value)]| {
        let body = object(members);
        let answer = Answer { status, retry_after: None, is_form: false, body: body.as_bytes() };
        answer.read(&provider, false, &SENT)
    };
    match read(&members) {
        Ok(tokens) => {
            let others = read(&rewritten(&members, &mut input)).expect("tokens still");
            assert!(tokens.same_tokens(&others), "{members:?}");
            assert_eq!(tokens.expires_in(), others.expires_in(), "{members:?}");
        }
        Err(error) => {
            assert_verdict(&error, status, known);
            let other = read(&rewritten(&members, &mut input)).expect_err("no tokens");
            assert_eq!(other.failure, error.failure, "{members:?}");
            assert_eq!(other.to_string(), error.to_string(), "{members:?}");
            let members = Map::from_iter(members);
            assert_hidden(error, Some(&members));
        }
    }
    judge(&provider, &mut input);
}

/// The statuses that say enough, whatever the body says.
pub(super) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 409 | 425 | 429 | 500..)
}

fn assert_verdict(error: &RefreshError, status: u16, known: &Known) {
    let server = error.server_error().expect("an answer");
    let description = server.description().unwrap_or_default();
    let is_dead = known
        .terminal
        .iter()
        .any(|(code, beginning)| server.code() == Some(code) && description.starts_with(beginning));
    let is_overruled = is_transient(status) || (known.is_overruled)(server);
    let is_terminal = error.failure == RefreshFailure::Terminal;
    assert_eq!(is_terminal, is_dead && !is_overruled, "{status}: {error:?}");
    if !is_overruled && server.code().is_some_and(|code| CLIENT.contains(&code)) {
        assert_eq!(error.failure, RefreshFailure::Configuration, "{error:?}");
    }
}

/// An answer, in one of the forms that providers give it. No name comes twice.
fn members(input: &mut Input<'_>, terminal: &[(&str, &str)]) -> Vec<(String, Value)> {
    let code = code(input, terminal);
    let text = description(input);
    let mut members = match input.below(8) {
        0..3 => json!({"error": code, "error_description": text}),
        3 => json!({"error": {"code": code, "message": text}}),
        4 => json!({"status": code, "message": text}),
        5 => json!({"error_code": code, "msg": text}),
        6 => json!({"code": code, "message": text, "reason": text}),
        _ => json!({"access_token": code, "refresh_token": text, "expires_in": input.byte()}),
    };
    for _ in 0..input.below(4) {
        let name = input.one_of(&[
            "status",
            "timestamp",
            "ok",
            "error_codes",
            "ResHeader",
            "suberror",
            "claims",
            "id_token",
            "access_token",
            "zz",
        ]);
        members[name] = value(input);
    }
    match members {
        Value::Object(members) => members.into_iter().collect(),
        _ => Vec::new(),
    }
}

fn code(input: &mut Input<'_>, terminal: &[(&str, &str)]) -> String {
    match input.below(8) {
        0..3 => input.one_of(terminal).0.into(),
        3 => input.one_of(&CLIENT).into(),
        4 => input.one_of(&OTHERS).into(),
        // Whatever means a dead refresh token to somebody else.
        5 | 6 => {
            let known = &PROVIDERS[input.below(PROVIDERS.len())];
            input.one_of(known.terminal).0.into()
        }
        _ => input.text(),
    }
}

fn description(input: &mut Input<'_>) -> String {
    let beginning = match input.below(4) {
        0 => input.one_of(&SENT),
        1 => input.one_of(&ESCAPED),
        _ => input.one_of(&DESCRIPTIONS),
    };
    match input.flag() {
        true => format!("{beginning} {}", input.text()),
        false => beginning.into(),
    }
}

fn value(input: &mut Input<'_>) -> Value {
    match input.below(10) {
        0 => input.one_of(&ESCAPED).into(),
        1 => input.flag().into(),
        2 => input.u64().into(),
        3 => json!([50196]),
        4 => input.one_of(&SENT).into(),
        5 => THEIRS.into(),
        6 => json!({SENT[0]: [THEIRS]}),
        7 => {
            let secret =
                input.one_of(&[SENT, [ESCAPED[0], ESCAPED[1], ESCAPED[2], ESCAPED[4]]].concat());
            json!(format!(r#"{{"access_token":{{"x":"{secret}"}}}}"#))
        }
        8 => serde_json::from_slice(input.word()).unwrap_or_default(),
        _ => input.text().into(),
    }
}

/// The same in another order, with more that nobody knows.
fn rewritten(members: &[(String, Value)], input: &mut Input<'_>) -> Vec<(String, Value)> {
    let mut members = members.to_vec();
    if !members.is_empty() {
        let middle = input.below(members.len());
        members.rotate_left(middle);
    }
    if input.flag() {
        members.reverse();
    }
    for name in ["zz_1", "Error", "invalid_grant"] {
        let place = input.below(members.len() + 1);
        members.insert(place, (name.into(), value(input)));
    }
    members
}

fn object(members: &[(String, Value)]) -> String {
    let members = members.iter().map(|(name, value)| format!("{}:{value}", Value::from(&**name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// K-41, K-42: by its headers a 401 alone rejects a token, and a body is looked into at a 403 alone.
fn judge(provider: &Provider, input: &mut Input<'_>) {
    let Ok(status) = StatusCode::from_u16(input.status()) else { return };
    let mut headers = HeaderMap::new();
    let body = serde_json::from_slice(input.word()).unwrap_or_default();
    if let Ok(line) = HeaderValue::from_bytes(input.rest()) {
        headers.insert(WWW_AUTHENTICATE, line);
    }
    match provider.judge(status, &headers) {
        Judgement::Accepted => {}
        Judgement::Rejected => assert_eq!(status, StatusCode::UNAUTHORIZED),
        Judgement::RejectedIf(is_rejected) => {
            assert_eq!(status, StatusCode::FORBIDDEN);
            assert!(!is_rejected(&body) || body.is_object(), "{body}");
        }
    }
}
