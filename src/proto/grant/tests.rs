use proptest::prelude::*;
use serde_json::json;

use super::*;

const SUCCESS: &str = include_str!("../../../tests/fixtures/digirunner_success.json");
const EXPIRED: &str = include_str!("../../../tests/fixtures/digirunner_expired.json");

fn read_by(provider: &Provider, status: u16, body: &str) -> Result<TokenSet, RefreshError> {
    let answer = Answer { status, retry_after: None, is_form: false, body: body.as_bytes() };
    answer.read(provider, false, &["CANARY", "sesame"])
}

fn read(status: u16, body: &str) -> Result<TokenSet, RefreshError> {
    read_by(&Provider::rfc6749(), status, body)
}

/// A 200 with an access token and these members.
fn success(members: Value) -> TokenSet {
    let mut body = json!({"access_token": "new"});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    read(200, &body.to_string()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn failure(status: u16, body: &str) -> RefreshFailure {
    read(status, body).expect_err(body).failure()
}

/// K-30, R-001, R-005, R-011, Q-75: RFC 6749 §3.2 "Request and response parameters MUST NOT be included
/// more than once", RFC 8707 §2 "Multiple "resource" parameters MAY be used".
#[test]
fn k_30_the_form_is_encoded_once_and_what_comes_first_counts() {
    for (layers, expected) in [
        (
            &[&[("refresh_token", "r&+/=%ä")][..], &[("client_id", "id"), ("audience", "a b")]][..],
            "refresh_token=r%26%2B%2F%3D%25%C3%A4&client_id=id&audience=a+b",
        ),
        (&[&[("scope", "a")], &[("scope", "b"), ("x", "")], &[("x", "y")]], "scope=a&x="),
        (&[&[("resource", "a"), ("resource", "b")], &[("resource", "c")]], "resource=a&resource=b"),
    ] {
        assert_eq!(token_form(layers).as_str(), expected);
    }
}

/// K-63: there is room for a form before it is written. What it outgrew would not be wiped.
#[test]
fn k_63_no_form_grows() {
    for text in ["", "a", "%", "%%%%%%%%"] {
        let pairs = [(text, text), (text, text)];
        let (form, room) = (token_form(&[&pairs]), empty_form(pairs.into_iter()).capacity());
        assert!(form.len() <= room, "{text}: {} in {room}", form.len());
    }
}

/// K-10, B03, B04, B05, B06, B07, X08, Q-01, Q-03, Q-04, R-022. What is no lifetime is an unknown
/// one, and never costs the rotated pair.
#[test]
fn k_10_a_lifetime_is_read_where_it_is_one_and_unknown_otherwise() {
    const FAR: u64 = 100 * 365 * 24 * 60 * 60;
    for (case, expires_in, expected) in [
        ("a number", json!(3600), Some(3600)),
        ("a float", json!(3600.0), Some(3600)),
        ("a numeric text (PayPal, Q-01)", json!("86400"), Some(86400)),
        ("a float in a text", json!("60.0"), Some(60)),
        ("a text with space around it", json!(" 60 "), Some(60)),
        ("a text with an exponent", json!("1e3"), Some(1000)),
        ("beyond i32", json!(4_294_967_296_u64), Some(FAR)),
        ("beyond any clock", json!(u64::MAX), Some(FAR)),
        ("10^30", json!(1e30), Some(FAR)),
        ("10^30 in a text", json!("1e30"), Some(FAR)),
        ("zero (Mailchimp, Q-04)", json!(0), None),
        ("zero in a text", json!("0"), None),
        ("negative", json!(-1), None),
        ("minus 10^30", json!(-1e30), None),
        ("null", json!(null), None),
        ("a boolean", json!(false), None),
        ("an object", json!({}), None),
        ("an array", json!([3600]), None),
        ("a word", json!("zzz"), None),
        ("an empty text", json!(""), None),
        ("infinite", json!("inf"), None),
        ("not a number", json!("NaN"), None),
        ("a date", json!("2030-01-01T00:00:00Z"), None),
    ] {
        let tokens = success(json!({"expires_in": expires_in, "refresh_token": "rotated"}));
        let seconds = tokens.expires_in().map(|lifetime| lifetime.as_secs());
        assert_eq!(seconds, expected, "{case}");
        assert_eq!(tokens.refresh_token(), Some("rotated"), "{case}");
    }
    let silent = success(json!({}));
    assert_eq!((silent.expires_in(), silent.expires_at()), (None, None));
}

/// K-55, Q-10, Q-11.
#[test]
fn k_55_the_refresh_tokens_lifetime_is_read_under_its_three_names() {
    for (case, members, expected) in [
        ("Keycloak", json!({"refresh_expires_in": 1800}), Some(1800)),
        ("GitHub", json!({"refresh_token_expires_in": "15897600"}), Some(15_897_600)),
        ("Intuit", json!({"x_refresh_token_expires_in": 8_726_400.0}), Some(8_726_400)),
        ("Keycloak, offline", json!({"refresh_expires_in": 0}), None),
        (
            "the first usable one",
            json!({"refresh_expires_in": 0, "refresh_token_expires_in": 5}),
            Some(5),
        ),
        ("nonsense", json!({"refresh_expires_in": {}}), None),
        ("none", json!({}), None),
    ] {
        let start = crate::clock::Clock::System.now();
        let tokens = success(members).anchored_at(start);
        let expected = expected.map(|seconds| start.wall + Duration::from_secs(seconds));
        assert_eq!(tokens.refresh_expires_at(), expected, "{case}");
    }
}

/// K-07, R-020, R-021, Q-81.
#[test]
fn k_07_the_type_must_be_bearer_or_absent_unless_the_endpoint_is_told_otherwise() {
    for (case, token_type, is_bearer) in [
        ("capitalised", json!("Bearer"), true),
        ("digiRunner's", json!("bearer"), true),
        ("shouted", json!("BEARER"), true),
        ("null", json!(null), true),
        ("empty", json!(""), true),
        ("eBay's", json!("User Access Token"), false),
        ("Slack's", json!("bot"), false),
        ("DPoP", json!("DPoP"), false),
        ("MAC", json!("mac"), false),
        ("with a space", json!("bearer "), false),
    ] {
        let body =
            json!({"access_token": "new", "refresh_token": "rotated", "token_type": token_type})
                .to_string();
        let answer =
            Answer { status: 200, retry_after: None, is_form: false, body: body.as_bytes() };
        assert!(answer.read(&Provider::rfc6749(), true, &[]).is_ok(), "{case}");
        match answer.read(&Provider::rfc6749(), false, &[]) {
            Ok(_) => assert!(is_bearer, "{case}"),
            Err(error) => {
                assert!(!is_bearer, "{case}");
                assert_eq!(error.failure(), RefreshFailure::Configuration, "{case}");
                assert!(error.to_string().contains("with_any_token_type"), "{case}");
                assert_eq!(kept(&error), Some("rotated"), "{case}");
            }
        }
    }
    assert!(success(json!({})).token_type().is_none(), "absent");
}

fn kept(error: &RefreshError) -> Option<&str> {
    use secrecy::ExposeSecret;
    error.refresh_token.as_ref().map(|token| token.expose_secret())
}

/// K-07, R-020, Q-22, G05: a refresh that failed, whose new refresh token replaces the burnt one.
#[test]
fn k_07_a_success_without_an_access_token_keeps_its_new_refresh_token() {
    for (case, access_token) in [
        ("absent", None),
        ("null", Some(json!(null))),
        ("empty", Some(json!(""))),
        ("a number", Some(json!(1))),
        ("an object", Some(json!({"token": "new"}))),
    ] {
        let mut body = json!({"refresh_token": "rotated", "token_type": "Bearer"});
        if let Some(access_token) = access_token {
            body["access_token"] = access_token;
        }
        let error = read(200, &body.to_string()).expect_err(case);
        assert_eq!(error.failure(), RefreshFailure::Unusable, "{case}");
        assert_eq!(kept(&error), Some("rotated"), "{case}");
        assert_eq!(kept(&read(400, &body.to_string()).unwrap_err()), None, "{case}: no success");
    }
    let error = read(200, r#"{"error":"server_error","refresh_token":"x"}"#).unwrap_err();
    assert_eq!(kept(&error), None, "an answer with an error has not rotated");
}

/// K-32, R-025, Q-56, G01, G02.
#[test]
fn k_32_only_a_text_that_is_not_empty_is_a_new_refresh_token() {
    let before = TokenSet::new("old").with_refresh_token("kept");
    for (case, members, expected) in [
        ("new", json!({"refresh_token": "rotated"}), "rotated"),
        ("absent", json!({}), "kept"),
        ("null", json!({"refresh_token": null}), "kept"),
        ("empty", json!({"refresh_token": ""}), "kept"),
        ("a number", json!({"refresh_token": 7}), "kept"),
    ] {
        let tokens = success(members).inherit(&before);
        assert_eq!(tokens.refresh_token(), Some(expected), "{case}");
    }
}

/// R-023, R-027, Q-04, Q-05, Q-13, Q-58, Q-80 (K-10 for `stime`): what else a success says.
#[test]
fn a_success_keeps_scope_and_unknown_members_as_they_came() {
    for (case, scope, expected) in [
        ("a text", json!("a b"), Some("a b")),
        ("an array (Twitch, Q-80)", json!(["a", "b"]), Some("a b")),
        ("an array with other things", json!(["a", 1, null]), Some("a")),
        ("an empty text", json!(""), Some("")),
        ("null (Mailchimp, Q-04)", json!(null), None),
        ("a number", json!(5), None),
    ] {
        assert_eq!(success(json!({"scope": scope})).scope(), expected, "{case}");
    }
    let tokens = success(json!({"id_token": "i", "stime": 1_684_742_522_981_u64, "x": [null]}));
    assert_eq!(tokens.members()["id_token"], "i");
    assert_eq!(tokens.members()["x"], json!([null]));
    assert_eq!(tokens.expires_in(), None, "`stime` is never read (K-10)");
    let tokens = success(json!({"expires_in": 21_600, "expires_at": 1_568_775_134}));
    assert_eq!(tokens.expires_in(), Some(Duration::from_secs(21_600)));
    assert_eq!(tokens.expires_at(), None, "Strava's end by its own clock (Q-58) is not read");
    for secret in ["access_token", "refresh_token"] {
        assert!(!tokens.members().contains_key(secret));
    }
    assert!(read(201, r#"{"access_token":"new"}"#).is_ok(), "any 2xx (Q-05)");
}

/// K-33, G04, Q-20, Q-21, Q-22, Q-25, Q-27, R-028: which error a body tells, and that it beats an
/// access token beside it.
#[test]
fn k_33_an_error_is_looked_for_first_whatever_the_status() {
    for (case, error, code, description) in [
        ("RFC 6749", json!({"error": "invalid_grant"}), Some("invalid_grant"), None),
        (
            "GitHub (Q-20)",
            json!({"error": "bad_refresh_token", "error_description": "The refresh token is bad."}),
            Some("bad_refresh_token"),
            Some("The refresh token is bad."),
        ),
        (
            "Slack (Q-21)",
            json!({"ok": false, "error": "invalid_refresh_token"}),
            Some("invalid_refresh_token"),
            None,
        ),
        ("ok is false, and nothing else", json!({"ok": false}), None, None),
        (
            "OpenAI (Q-27)",
            json!({"error": {"message": "gone", "type": "invalid_request_error", "param": null,
                             "code": "refresh_token_invalidated"}}),
            Some("refresh_token_invalidated"),
            Some("gone"),
        ),
        ("an object with a type", json!({"error": {"type": "x"}}), Some("x"), None),
        ("an empty object", json!({"error": {}}), None, None),
        ("a number", json!({"error": 5}), None, None),
        ("true", json!({"error": true}), None, None),
        (
            "Twitch (Q-25)",
            json!({"error": "Bad Request", "status": 400, "message": "Invalid refresh token"}),
            Some("Bad Request"),
            Some("Invalid refresh token"),
        ),
    ] {
        for status in [200, 400, 401, 403] {
            let mut body = error.clone();
            body["access_token"] = "looks fine".into();
            let error = read(status, &body.to_string()).expect_err(case);
            let server = error.server.as_deref().unwrap();
            assert_eq!(server.code(), code, "{case}");
            assert_eq!(server.description(), description, "{case}");
            assert_eq!(server.status(), status, "{case}");
        }
    }
}

/// K-33: a refusal whose `error` says nothing has no code.
#[test]
fn k_33_an_error_without_a_word_is_no_code() {
    for error in [json!(null), json!(""), json!(false), json!({}), json!({"code": ""})] {
        let body = json!({"error": error, "message": "why"}).to_string();
        let error = read(400, &body).unwrap_err();
        assert_eq!(error.failure(), RefreshFailure::Unusable, "{body}");
        let server = error.server.unwrap();
        assert_eq!((server.code(), server.description()), (None, Some("why")), "{body}");
    }
}

/// K-33: members named `error` that say that there is none.
#[test]
fn k_33_an_error_that_is_none_does_not_cost_a_success() {
    for error in [json!(null), json!(""), json!(false)] {
        let tokens = success(json!({"error": error, "ok": true, "refresh_token": "rotated"}));
        assert_eq!(tokens.refresh_token(), Some("rotated"), "{error}");
    }
}

/// K-33, K-34, Q-37: not a JSON object is never a verdict about the token.
#[test]
fn k_33_a_body_that_cannot_be_read_is_a_failure_that_passes() {
    for (case, body) in [
        ("nothing", ""),
        ("HTML", "<!doctype html><title>Sign in</title>invalid_grant"),
        ("half a JSON", r#"{"access_token":"new","refresh_to"#),
        ("a JSON that goes on", r#"{"access_token":"new"}}"#),
        ("an array", r#"[{"access_token":"new"}]"#),
        ("a text", r#""invalid_grant""#),
        ("null", "null"),
        ("a form", "error=invalid_grant"),
        ("depth", &"[".repeat(10_000)),
    ] {
        for (status, expected) in [
            (200, RefreshFailure::Unusable),
            (302, RefreshFailure::Unusable),
            (400, RefreshFailure::Unusable),
            (401, RefreshFailure::Unusable),
            (403, RefreshFailure::Unusable),
            (404, RefreshFailure::Unusable),
            (429, RefreshFailure::Busy),
            (500, RefreshFailure::Unusable),
            (502, RefreshFailure::Lost),
            (503, RefreshFailure::Busy),
            (504, RefreshFailure::Lost),
        ] {
            assert_eq!(failure(status, body), expected, "{case}, {status}");
            let digirunner = read_by(&Provider::digirunner(), status, body).unwrap_err();
            assert_eq!(digirunner.failure(), expected, "digiRunner: {case}, {status}");
        }
    }
    assert_eq!(failure(200, "\u{feff}{}"), RefreshFailure::Unusable);
}

/// K-34: the verdict does not depend on what our own secrets happen to spell.
#[test]
fn k_34_a_short_secret_does_not_spoil_the_code() {
    let answer = Answer {
        status: 400,
        retry_after: None,
        is_form: false,
        body: br#"{"error":"invalid_grant","error_description":"r is over"}"#,
    };
    let error = answer.read(&Provider::rfc6749(), false, &["r", "grant"]).unwrap_err();
    assert_eq!(error.failure(), RefreshFailure::Terminal);
    let server = error.server.as_deref().unwrap();
    assert_eq!(server.code(), Some("invalid_grant"));
    assert!(!server.description().unwrap().contains('r'), "{server}");
}

/// K-63, Q-23: a server's text loses the secrets wherever it repeats them.
#[test]
fn k_63_nothing_of_an_error_answer_repeats_a_secret() {
    let jwt = "eyJ0eXAiOiJKV1QifQ.eyJ1c2VyIjoiQ0FOQVJZIn0.c2lnbmF0dXJl";
    for body in [
        json!({"error": "invalid_grant", "error_description": format!("over: CANARY {jwt}")}),
        json!({"error": format!("CANARY{jwt}")}),
        json!({"error": "CANARY"}),
        json!({"error": {"code": "CANARY", "message": jwt}}),
        json!({"error": "x", "message": format!("sesame {jwt}")}),
        json!({"error": "x", "CANARY": {jwt: ["sesame"]}}),
    ] {
        let error = read(400, &body.to_string()).unwrap_err();
        let server = error.server.as_deref().unwrap();
        let shown = format!("{error:?} {error} {server:?} {server}");
        for secret in ["CANARY", "sesame", jwt, "eyJ"] {
            assert!(!shown.contains(secret), "{body}: {shown}");
        }
    }
}

/// K-63: a code is kept whole where it is a name, and no name is endless.
#[test]
fn k_63_an_endless_code_is_cut() {
    for code in ["a".repeat(100_000), "A_".repeat(50_000), "a ".repeat(50_000)] {
        let error = read(400, &json!({"error": code}).to_string()).unwrap_err();
        assert!(error.to_string().len() < 1000, "{:.100}", code);
    }
}

/// K-34, K-10, K-63, K-32: the two answers of the manual page, as they stand there.
#[test]
fn k_34_the_answers_of_the_manual_page_are_understood() {
    let provider = Provider::digirunner();
    let tokens = read_by(&provider, 200, SUCCESS).unwrap();
    let sample: Value = serde_json::from_str(SUCCESS).unwrap();
    assert_eq!(tokens.access_token(), sample["access_token"]);
    assert_eq!(tokens.refresh_token().unwrap(), sample["refresh_token"]);
    assert_eq!(tokens.expires_in(), Some(Duration::from_secs(86_399)));
    assert_eq!(tokens.scope(), Some("2000000006"));
    assert_eq!(tokens.token_type(), Some("bearer"));
    assert_eq!(tokens.members()["jti"], "41fa8a7b-b21d-4598-b254-5ffbed8b619f");
    assert_eq!(tokens.members()["org_id"], "100000");
    assert_eq!(tokens.members()["node"], "executor1");
    assert_eq!(tokens.members()["stime"], 1_684_742_522_981_u64);

    let error = read_by(&provider, 401, EXPIRED).unwrap_err();
    assert_eq!(error.failure(), RefreshFailure::Terminal);
    let server = error.server.as_deref().unwrap();
    assert_eq!(server.code(), Some("invalid_token"));
    let text = server.description().unwrap();
    assert_eq!(text, "Invalid refresh token (expired): [hidden]");
}

/// K-35, R-073, G11: `Retry-After`.
#[test]
fn k_35_retry_after_is_seconds_or_a_date() {
    let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    for (case, value, expected) in [
        ("seconds", "120", Some(120)),
        ("none to wait", "0", Some(0)),
        ("space around it", " 7 ", Some(7)),
        ("a year", "31536000", Some(31_536_000)),
        ("more than there are", "99999999999999999999999", Some(u64::MAX)),
        ("a date", "Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
        ("a date, RFC 850", "Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
        ("a date, asctime", "Sun Nov  6 08:50:07 1994", Some(30)),
        ("a date that is over", "Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
        ("negative", "-5", None),
        ("a fraction", "1.5", None),
        ("a sign", "+5", None),
        ("a word", "soon", None),
        ("empty", "", None),
        ("another kind of date", "1994-11-06T08:49:37Z", None),
        ("other digits", "٣", None),
    ] {
        let expected = expected.map(Duration::from_secs);
        assert_eq!(pause(value, now), expected, "{case}");
    }
}

/// K-63, Q-33: what passes to the letter has no secret in it, however it is written.
#[test]
fn k_63_a_claims_request_has_no_secret_in_it() {
    let endless = format!(r#"{{"x":"{}"}}"#, "a ".repeat(8 * 1024));
    for (case, claims, is_whole) in [
        ("endless", &*endless, false),
        ("a request", r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#, true),
        ("as it is", r#"{"x":"CANARY/+1_0123456789"}"#, false),
        ("PHP's slash", r#"{"x":"CANARY\/+1_0123456789"}"#, false),
        ("by its number", r#"{"x":"\u0043ANARY/+1_0123456789"}"#, false),
        ("as a URL has it", r#"{"x":"CANARY%2F+1_0123456789"}"#, false),
        ("a name", r#"{"x":[{"CANARY\/+1_0123456789":1}]}"#, false),
        ("no object", r#""x""#, false),
    ] {
        let body = json!({"error": "invalid_grant", "claims": claims}).to_string();
        let answer =
            Answer { status: 400, retry_after: None, is_form: false, body: body.as_bytes() };
        let error =
            answer.read(&Provider::rfc6749(), false, &["CANARY/+1_0123456789"]).unwrap_err();
        let kept = error.server.unwrap().member("claims").cloned().unwrap();
        assert_eq!(kept == claims, is_whole || case == "no object", "{case}: {kept}");
        let read = serde_json::from_str::<Value>(kept.as_str().unwrap());
        let read = read.map(|read| read.to_string()).unwrap_or_default();
        assert!(!read.contains("CANARY/+1_0123456789"), "{case}: {kept}");
    }
}

/// K-35: it is there for everything that failed, whatever the body.
#[test]
fn k_35_retry_after_reaches_the_verdict() {
    for body in ["", "busy", r#"{"error":"slow_down"}"#] {
        let answer = Answer {
            status: 429,
            retry_after: Some(Duration::from_secs(9)),
            is_form: false,
            body: body.as_bytes(),
        };
        let error = answer.read(&Provider::rfc6749(), false, &[]).unwrap_err();
        assert_eq!(error.retry_after, Some(Duration::from_secs(9)), "{body}");
        assert_eq!(error.failure(), RefreshFailure::Busy, "{body}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        prop::sample::select(vec!["invalid_grant", "invalid_token", "Bearer", "a", "3600"])
            .prop_map(Value::from),
    ];
    let name = prop_oneof![
        prop::sample::select(vec![
            "access_token",
            "refresh_token",
            "token_type",
            "expires_in",
            "scope",
            "error",
            "ok",
            "error_description",
            "message",
            "status",
            "code",
            "type",
            "refresh_expires_in",
        ])
        .prop_map(String::from),
        ".{0,8}",
    ];
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name.clone(), inner, 0..6)
                .prop_map(|members| Value::from(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// What must hold for every answer there is.
fn check_any(status: u16, body: &[u8]) -> Result<(), TestCaseError> {
    for provider in [Provider::rfc6749(), Provider::digirunner()] {
        for any_type in [false, true] {
            let answer = Answer { status, retry_after: None, is_form: false, body };
            match answer.read(&provider, any_type, &["a", "CANARY"]) {
                Ok(tokens) => {
                    prop_assert!((200..300).contains(&status));
                    prop_assert!(!tokens.access_token().is_empty());
                    prop_assert_ne!(tokens.refresh_token(), Some(""));
                }
                Err(error) if error.failure() == RefreshFailure::Terminal => {
                    let is_transient = status >= 500 || [408, 409, 425, 429].contains(&status);
                    prop_assert!(!is_transient, "{status}");
                    let whole: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
                    prop_assert!(whole.is_some_and(|whole| whole.contains_key("error")));
                }
                Err(_) => {}
            }
        }
    }
    Ok(())
}

proptest! {
    /// K-34, K-33.
    #[test]
    fn k_34_no_bytes_panic_or_kill_a_session(
        status in 100_u16..1000,
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        check_any(status, &body)?;
    }

    /// K-34, K-33.
    #[test]
    fn k_34_no_json_panics_and_only_an_error_that_is_parsed_kills_a_session(
        status in prop_oneof![100_u16..1000, Just(200_u16), Just(400_u16), Just(503_u16)],
        body in any_json(),
        cut in 0_usize..400,
    ) {
        let body = body.to_string();
        check_any(status, body.as_bytes())?;
        let end = body.len().min(cut);
        check_any(status, &body.as_bytes()[..end])?;
    }

    /// K-35.
    #[test]
    fn k_35_no_retry_after_panics(value in ".{0,40}") {
        let _ = pause(&value, SystemTime::UNIX_EPOCH);
    }
}

/// K-10, K-33: what cannot be read in an answer costs neither the tokens nor the reason.
#[test]
fn k_10_an_unreadable_member_does_not_cost_the_new_refresh_token() {
    let read = |status, body: &[u8]| {
        let answer = Answer { status, retry_after: None, is_form: false, body };
        answer.read(&Provider::rfc6749(), false, &[])
    };
    for (case, body) in [
        (
            "a number beyond all numbers",
            &br#"{"access_token":"a","refresh_token":"r","expires_in":1e999}"#[..],
        ),
        ("a byte order mark", b"\xef\xbb\xbf{\"access_token\":\"a\",\"refresh_token\":\"r\"}"),
        ("no UTF-8", b"{\"access_token\":\"a\",\"refresh_token\":\"r\",\"x\":\"\xe4\"}"),
    ] {
        let tokens = read(200, body).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(tokens.refresh_token(), Some("r"), "{case}");
        assert_eq!(tokens.expires_in(), None, "{case}");
    }
    let latin = b"{\"error\":\"invalid_grant\",\"error_description\":\"ung\xfcltig\"}";
    assert_eq!(read(400, latin).unwrap_err().failure(), RefreshFailure::Terminal);
}
