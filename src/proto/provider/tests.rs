use serde_json::json;

use super::*;
use crate::proto::grant::Answer;

const TERMINAL: RefreshFailure = RefreshFailure::Terminal;
const CONFIGURATION: RefreshFailure = RefreshFailure::Configuration;
const TRANSIENT: RefreshFailure = RefreshFailure::Unusable;

fn verdict(provider: &Provider, status: u16, body: &str) -> RefreshFailure {
    let answer = Answer { status, retry_after: None, is_form: false, body: body.as_bytes() };
    let result = answer.read(provider, false, &["the-refresh-token"]);
    result.expect_err(body).failure()
}

/// Spring's default error format.
fn shape_a(status: u16, error: &str, message: &str) -> String {
    json!({"timestamp": "1684742522981", "status": status, "error": error,
           "message": message, "path": "/oauth/token"})
    .to_string()
}

fn shape_b(error: &str, description: &str) -> String {
    json!({"error": error, "error_description": description}).to_string()
}

/// A digiRunner filter's own format.
fn shape_c(code: &str) -> String {
    json!({"ResHeader": {"txSN": "1000-1684742522981", "txDate": "2023-05-22T16:02:02+08",
           "txID": "", "rtnCode": code, "rtnMsg": "refused"}})
    .to_string()
}

/// K-34, DIGIRUNNER.md §7, row by row; Q-23, Q-25, R-029.
#[rustfmt::skip] // a table
#[test]
fn k_34_every_answer_of_digirunner_has_its_verdict() {
    let unauthorized = |message: &str| shape_a(401, "Unauthorized", message);
    let forbidden = |message: &str| shape_a(403, "Forbidden", message);
    for (row, status, body, expected) in [
        ("1", 401, unauthorized("Missing required parameter: Authorization"), CONFIGURATION),
        ("1, older", 401, unauthorized("Unauthorized"), CONFIGURATION),
        ("2", 401, unauthorized("Basic value has no \":\""), CONFIGURATION),
        ("3", 500, shape_a(500, "Internal Server Error", "Illegal base64"), TRANSIENT),
        ("4", 400, shape_b("invalid_request", "Missing required parameter: client_id"),
            CONFIGURATION),
        ("5", 401, unauthorized("The client(application) was not found. client_id: tspclient"),
            CONFIGURATION),
        ("6, disabled", 403, forbidden("'tspclient' Client(application) disable"), CONFIGURATION),
        ("6, locked", 403, forbidden("'tspclient' Client(application) locked"), CONFIGURATION),
        ("7", 400, shape_b("invalid_request", "Missing client_secret"), CONFIGURATION),
        ("8", 401, unauthorized("The client(application) account or password is incorrect. \
            clientId: tspclient"), CONFIGURATION),
        ("9", 400, shape_b("invalid_request", "Missing grant type"), CONFIGURATION),
        ("10", 401, shape_b("unauthorized", "Full authentication is required to access this \
            resource"), CONFIGURATION),
        ("11", 400, shape_b("unsupported_grant_type", "Unsupported grant type: X"), CONFIGURATION),
        ("12", 400, shape_b("invalid_request", "Unauthorized grant type: refresh_token"),
            CONFIGURATION),
        ("13, as 15", 401, shape_b("invalid_token", "Cannot convert access token to JSON"),
            TERMINAL),
        ("14", 401, shape_b("Unauthorized", "Unauthorized"), CONFIGURATION),
        ("15", 400, shape_b("invalid_token", "Cannot convert access token to JSON"), TERMINAL),
        ("16", 400, shape_b("invalid_grant", "Wrong client(application) for this refresh token: \
            the-refresh-token"), TERMINAL),
        ("17", 400, shape_b("invalid_token", "Cannot convert refresh token to JSON"), TERMINAL),
        ("18", 401, shape_b("invalid_token", "Invalid refresh token (expired): the-refresh-token"),
            TERMINAL),
        ("19", 403, shape_b("invalid_token", "Refresh token revoked, jti: \
            41fa8a7b-b21d-4598-b254-5ffbed8b619f"), TERMINAL),
        ("20", 400, shape_b("invalid_token", "user_name missing"), TERMINAL),
        ("21", 400, shape_b("invalid_grant", "Bad credentials"), TERMINAL),
        ("22", 400, shape_b("invalid_grant", "User is disabled"), TERMINAL),
        ("23, disabled", 403, forbidden("'tspuser' User disable"), CONFIGURATION),
        ("23, locked", 403, forbidden("User locked"), CONFIGURATION),
        ("23, request", 403, forbidden("User status is request"), CONFIGURATION),
        ("23, deny", 403, forbidden("User status is deny"), CONFIGURATION),
        ("24", 403, shape_b("Over Refresh Token Allow Times", "Over Refresh Token Allow Times"),
            TERMINAL),
        ("25, host", 401, shape_c("9978"), CONFIGURATION),
        ("25, mode", 403, shape_c("1219"), CONFIGURATION),
        ("25, filter", 403, shape_c("1510"), CONFIGURATION),
        ("none of the manual's words", 400, shape_b("server_error", "x"), TRANSIENT),
        ("26", 500, "java.lang.NullPointerException\n\tat tpi.dgrv4".into(), TRANSIENT),
        // §11: the second try at an old Spring server, which has deleted the token.
        ("Spring", 400, shape_b("invalid_grant", "Invalid refresh token: the-refresh-token"),
            TERMINAL),
        // A client's troubles in an OAuth word, but in Spring's format.
        ("A with invalid_token", 401, shape_a(401, "invalid_token", "x"), CONFIGURATION),
        ("A with invalid_grant", 400, shape_a(400, "invalid_grant", "x"), CONFIGURATION),
        // Not about the token although it says so: the status is about the server.
        ("B at 429", 429, shape_b("invalid_token", "x"), RefreshFailure::Busy),
        ("B at 500", 500, shape_b("invalid_token", "x"), TRANSIENT),
        ("B at 503", 503, shape_b("invalid_grant", "x"), RefreshFailure::Busy),
        ("tps", 429, shape_a(429, "tps", "Client requests exceeds TPS limit. client:X"),
            RefreshFailure::Busy),
    ] {
        let digirunner = Provider::digirunner();
        assert_eq!(verdict(&digirunner, status, &body), expected, "row {row}");
    }
}

/// K-34, R-028, R-029, R-030, Q-20 … Q-39, G04, G06, D08: one code means a dead
/// refresh token, and only where the server was in a state to know.
#[rustfmt::skip] // a table
#[test]
fn k_34_by_the_letter_only_invalid_grant_is_terminal() {
    for (case, status, body, expected) in [
        ("invalid_grant", 400, json!({"error": "invalid_grant"}), TERMINAL),
        ("invalid_grant in a 200 (Q-20)", 200, json!({"error": "invalid_grant"}), TERMINAL),
        ("invalid_grant in a 401 (Q-28)", 401, json!({"error": "invalid_grant"}), TERMINAL),
        ("invalid_grant in a 403 (Q-31)", 403, json!({"error": "invalid_grant"}), TERMINAL),
        ("invalid_grant in a 429", 429, json!({"error": "invalid_grant"}), RefreshFailure::Busy),
        ("invalid_grant in a 408", 408, json!({"error": "invalid_grant"}), RefreshFailure::Busy),
        ("invalid_grant in a 409 (Box, Q-38)", 409, json!({"error": "invalid_grant"}), TRANSIENT),
        ("invalid_grant in a 425", 425, json!({"error": "invalid_grant"}), RefreshFailure::Busy),
        ("invalid_grant in a 500", 500, json!({"error": "invalid_grant"}), TRANSIENT),
        ("invalid_grant in a 502", 502, json!({"error": "invalid_grant"}), RefreshFailure::Lost),
        ("invalid_grant in a 503", 503, json!({"error": "invalid_grant"}), RefreshFailure::Busy),
        ("invalid_grant in a 504", 504, json!({"error": "invalid_grant"}), RefreshFailure::Lost),
        ("another case", 400, json!({"error": "INVALID_GRANT"}), TRANSIENT),
        ("invalid_client", 401, json!({"error": "invalid_client"}), CONFIGURATION),
        ("invalid_request (Q-29)", 400, json!({"error": "invalid_request"}), CONFIGURATION),
        ("invalid_scope", 400, json!({"error": "invalid_scope"}), CONFIGURATION),
        ("invalid_target", 400, json!({"error": "invalid_target"}), CONFIGURATION),
        ("unauthorized_client", 400, json!({"error": "unauthorized_client"}), CONFIGURATION),
        ("unsupported_grant_type", 400, json!({"error": "unsupported_grant_type"}), CONFIGURATION),
        ("temporarily_unavailable (Q-34)", 400, json!({"error": "temporarily_unavailable"}),
            RefreshFailure::Busy),
        ("slow_down", 400, json!({"error": "slow_down"}), RefreshFailure::Busy),
        ("server_error in a 4xx (Q-34)", 400, json!({"error": "server_error"}), TRANSIENT),
        ("internal_failure (Q-34)", 400, json!({"error": "internal_failure"}), TRANSIENT),
        ("another server's code", 400, json!({"error": "invalid_token"}), TRANSIENT),
        ("Slack (Q-21)", 200, json!({"ok": false, "error": "invalid_refresh_token"}), TRANSIENT),
        ("Twitch (Q-25)", 400, json!({"status": 400, "error": "Bad Request", "message": "Invalid \
            refresh token"}), TRANSIENT),
        ("OpenAI (Q-27)", 401, json!({"error": {"code": "refresh_token_invalidated"}}), TRANSIENT),
        ("HubSpot (Q-24)", 400, json!({"status": "BAD_REFRESH_TOKEN", "message": "x"}), TRANSIENT),
        ("Exact Online, too early (Q-08)", 400, json!({"error": "access_denied"}), TRANSIENT),
        ("Zoho, too often (Q-36)", 400, json!({"error": "Access Denied"}), TRANSIENT),
        ("only the description says so (R-030)", 400, json!({"error": "x", "error_description":
            "invalid_grant"}), TRANSIENT),
        ("a bare 401", 401, json!({}), TRANSIENT),
        ("a bare 403", 403, json!({}), TRANSIENT),
    ] {
        let body = body.to_string();
        assert_eq!(
            verdict(&Provider::rfc6749(), status, &body),
            expected,
            "{case}"
        );
    }
}

/// K-34, Q-23, Q-29: what another server calls it is one setting away.
#[test]
fn k_34_a_classifier_decides_but_not_over_an_outage() {
    let provider = Provider::rfc6749().with_classifier(|error| {
        let suberror = error.member("suberror").and_then(Value::as_str);
        match (error.code(), suberror) {
            (Some("invalid_request"), Some("bad_token")) => RefreshFailure::Terminal,
            _ => RefreshFailure::Unusable,
        }
    });
    let body = r#"{"error":"invalid_request","suberror":"bad_token"}"#;
    assert_eq!(verdict(&provider, 400, body), TERMINAL);
    assert_eq!(verdict(&provider, 200, body), TERMINAL);
    for status in [408, 409, 425, 429, 500, 502, 503, 504, 599] {
        assert_ne!(verdict(&provider, status, body), TERMINAL, "{status}");
    }
    assert_eq!(verdict(&provider, 400, r#"{"error":"invalid_grant"}"#), TRANSIENT);
}

/// K-42, K-41, E07, E09, Q-90, Q-92: DIGIRUNNER.md §8.
#[rustfmt::skip] // a table
#[test]
fn k_42_what_rejects_a_token_is_the_providers_to_say() {
    let judged = |provider: Provider, status: u16, challenge: &str, body: &str| {
        let mut headers = HeaderMap::new();
        if !challenge.is_empty() {
            headers.insert(http::header::WWW_AUTHENTICATE, challenge.parse().unwrap());
        }
        match provider.judge(StatusCode::from_u16(status).unwrap(), &headers) {
            Judgement::Accepted => false,
            Judgement::Rejected => true,
            Judgement::RejectedIf(is) => serde_json::from_str(body).is_ok_and(|body| is(&body)),
        }
    };
    let revoked = shape_b("invalid_token", "Access token revoked, jti: x");
    let scope = r#"Bearer error="insufficient_scope""#;
    for (case, status, challenge, body, by_the_letter, by_digirunner) in [
        ("bare 401", 401, "", "", true, true),
        ("401, A", 401, "", &*shape_a(401, "Unauthorized", ""), true, true),
        ("401 with a challenge", 401, "Bearer", "", true, true),
        ("401 about the scope", 401, scope, "", false, false),
        ("403, B, revoked", 403, "", &revoked, false, true),
        ("403, A", 403, "", &shape_a(403, "Forbidden", "quota ran out"), false, false),
        ("403, quota", 403, "", &shape_b("Over Access Token Allow Times", ""), false, false),
        ("403, an array", 403, "", "[]", false, false),
        ("403, a text", 403, "", "\"invalid_token\"", false, false),
        ("400", 400, "", &revoked, false, false),
        ("429", 429, "", &revoked, false, false),
        ("500", 500, "", &revoked, false, false),
        ("200", 200, "", &revoked, false, false),
    ] {
        let rfc = judged(Provider::rfc6749(), status, challenge, body);
        assert_eq!(rfc, by_the_letter, "{case}");
        let digirunner = judged(Provider::digirunner(), status, challenge, body);
        assert_eq!(digirunner, by_digirunner, "digiRunner: {case}");
    }
}

/// K-11, D01: DIGIRUNNER.md §6.4 — late, because a refresh kills the old access token at once.
#[test]
fn k_11_digirunner_is_refreshed_later_than_others() {
    let window = |provider: Provider| provider.refresh_window().as_secs();
    assert_eq!((window(Provider::rfc6749()), window(Provider::digirunner())), (60, 10));
}

/// K-34: a server of the user's own, in ten lines.
#[test]
fn k_34_codes_come_before_the_classifier_and_leave_the_rfcs_in_force() {
    const LONG: &str = "E2137-REFRESH-TOKEN-HAS-EXPIRED-OR-WAS-REVOKED";
    let provider = Provider::rfc6749()
        .with_codes(&[(LONG, TERMINAL), ("invalid_grant", CONFIGURATION)])
        .with_classifier(|error| match error.description() {
            Some("used before") => TERMINAL,
            _ => Provider::rfc6749().classify(error),
        });
    for (case, status, body, expected) in [
        ("a code, though it is as long as a token", 400, json!({"error": LONG}), TERMINAL),
        (
            "a code of the RFC with another meaning",
            400,
            json!({"error": "invalid_grant"}),
            CONFIGURATION,
        ),
        ("the classifier", 400, shape("used before"), TERMINAL),
        ("the RFC behind it", 400, json!({"error": "invalid_client"}), CONFIGURATION),
        ("neither", 400, shape("x"), TRANSIENT),
        ("an outage", 500, json!({"error": LONG}), TRANSIENT),
    ] {
        assert_eq!(verdict(&provider, status, &body.to_string()), expected, "{case}");
    }
    fn shape(description: &str) -> Value {
        json!({"error": "x", "error_description": description})
    }
}

/// K-63: a code that looks like a token is shown where the provider names it, and only there.
#[test]
fn k_63_of_two_codes_that_look_like_tokens_the_known_one_is_shown() {
    const KNOWN: &str = "E2137-REFRESH-TOKEN-HAS-EXPIRED";
    let provider = Provider::rfc6749().with_codes(&[(KNOWN, TERMINAL)]);
    for (code, shown) in [(KNOWN, KNOWN), ("E2138-REFRESH-TOKEN-HAS-EXPIRED", "[hidden]")] {
        let body = json!({"error": code}).to_string();
        let answer =
            Answer { status: 400, retry_after: None, is_form: false, body: body.as_bytes() };
        let error = answer.read(&provider, false, &[]).unwrap_err();
        assert_eq!(error.server_error().unwrap().code(), Some(shown));
    }
}

/// K-34, Q-08, Q-30: Exact Online, where no code says enough.
#[test]
fn k_34_a_classifier_sees_code_and_description() {
    let exact = Provider::rfc6749().with_classifier(|error| {
        let text = error.description().unwrap_or_default();
        match error.code() {
            Some("unauthorized_client") if text == "Old refresh token used." => TERMINAL,
            Some("invalid_request") if text.starts_with("The refresh token expired") => TERMINAL,
            _ => Provider::rfc6749().classify(error),
        }
    });
    let early = "Rate limit exceeded: access_token not expired";
    for (status, code, description, expected) in [
        (401, "unauthorized_client", "Old refresh token used.", TERMINAL),
        (400, "invalid_request", "The refresh token expired at 2023-01-01T00:00:00Z", TERMINAL),
        (401, "unauthorized_client", "", CONFIGURATION),
        (400, "invalid_request", "Missing parameter", CONFIGURATION),
        (400, "access_denied", early, TRANSIENT),
        (429, "unauthorized_client", "Old refresh token used.", RefreshFailure::Busy),
    ] {
        let body = shape_b(code, description);
        assert_eq!(verdict(&exact, status, &body), expected, "{status}: {body}");
    }
}

/// K-33, K-10, Q-05, Q-22, Q-26: the server's own names, units and nesting.
#[test]
fn k_33_a_reader_brings_an_answer_into_the_words_of_the_rfc() {
    // Fitbit's errors (Q-26), and a success such as Fiserv's or TikTok's (Q-05, Q-22).
    let provider = Provider::rfc6749().with_reader(|mut answer| {
        if let Some(Value::Array(errors)) = answer.get("errors") {
            let code = errors.first().map(|error| error["errorType"].clone());
            answer.insert("error".into(), code.unwrap_or(Value::Bool(true)));
        }
        let Some(Value::Object(mut data)) = answer.remove("data") else { return answer };
        for (theirs, ours) in [("accessToken", "access_token"), ("refreshToken", "refresh_token")] {
            if let Some(value) = data.remove(theirs) {
                data.insert(ours.into(), value);
            }
        }
        if let Some(milliseconds) = data.remove("expiresIn").and_then(|value| value.as_u64()) {
            data.insert("expires_in".into(), (milliseconds / 1000).into());
        }
        data
    });
    let read = |status, body: &Value| {
        let body = body.to_string();
        let answer = Answer { status, retry_after: None, is_form: false, body: body.as_bytes() };
        answer.read(&provider, false, &[])
    };
    let body = json!({"data": {"accessToken": "a", "refreshToken": "r", "expiresIn": 60_000}});
    let tokens = read(201, &body).unwrap();
    assert_eq!((tokens.access_token(), tokens.refresh_token()), ("a", Some("r")));
    assert_eq!(tokens.expires_in(), Some(Duration::from_secs(60)));
    // Withings reports an outage within a 200.
    let body = json!({"status": 503, "data": {}, "refreshToken": "r"});
    assert_eq!(read(200, &body).unwrap_err().failure(), TRANSIENT);
    let body = json!({"errors": [{"errorType": "invalid_grant"}], "success": false});
    assert_eq!(read(400, &body).unwrap_err().failure(), TERMINAL);
}

/// K-34, Q-37: by default silence kills nobody; for one server it may be said to.
#[test]
fn k_34_a_refusal_without_a_word_means_what_the_user_says() {
    let provider = Provider::rfc6749().with_unreadable_error(TERMINAL);
    for body in ["", "<html>", "[]", "null", "{"] {
        for status in [400, 401, 403, 404] {
            assert_eq!(verdict(&provider, status, body), TERMINAL, "{body}, {status}");
            assert_eq!(verdict(&Provider::rfc6749(), status, body), TRANSIENT, "{body}, {status}");
        }
        for status in [200, 302, 408, 409, 425, 429, 500, 502, 503, 504] {
            assert_ne!(verdict(&provider, status, body), TERMINAL, "{body}, {status}");
        }
    }
    assert_eq!(verdict(&provider, 401, "{}"), TRANSIENT, "an object without a code can be read");
}

/// K-33, Q-20: GitHub's answers to those who do not ask for JSON.
#[test]
fn k_33_a_form_is_read_where_the_server_calls_it_one() {
    let provider = Provider::rfc6749().with_codes(&[("bad_refresh_token", TERMINAL)]);
    let read = |is_form, body: &str| {
        let answer = Answer { status: 200, retry_after: None, is_form, body: body.as_bytes() };
        answer.read(&provider, false, &[])
    };
    let success = "access_token=ghu_1&expires_in=28800&refresh_token=ghr_2%2B&token_type=bearer";
    let tokens = read(true, success).unwrap();
    assert_eq!((tokens.access_token(), tokens.refresh_token()), ("ghu_1", Some("ghr_2+")));
    assert_eq!(tokens.expires_in(), Some(Duration::from_secs(28_800)));
    let dead = "error=bad_refresh_token&error_description=The+refresh+token+passed+is+incorrect";
    assert_eq!(read(true, dead).unwrap_err().failure(), TERMINAL);
    assert_eq!(read(false, dead).unwrap_err().failure(), TRANSIENT);
    assert_eq!(read(true, r#"{"error":"bad_refresh_token"}"#).unwrap_err().failure(), TERMINAL);
    for body in ["", "<html>", "[]"] {
        assert_eq!(read(true, body).unwrap_err().failure(), TRANSIENT, "{body}");
    }
}
