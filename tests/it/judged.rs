//! Which answers say that the token was rejected.

use reqwest_refresh::{Judgement, Provider};
use serde_json::json;

use crate::support::{Api, Issuer, Reply, Rig, SECOND};

// ---- K-41 ----

/// K-41, Q-93, Q-94: F01 to F09, X18, R-064, R-066. How a challenge is parsed: `proto/challenge.rs`.
#[tokio::test]
async fn k_41_no_challenge_is_needed_and_one_that_names_another_error_does_not_refresh() {
    const SCOPE: &str = r#"Bearer error="insufficient_scope", scope="admin""#;
    const STEP_UP: &str = r#"Bearer error="insufficient_user_authentication", acr_values="high""#;
    const INVALID: &str = r#"Bearer realm="x", error="invalid_token""#;
    for (case, status, challenges, is_refreshed) in [
        ("F01: none", 401, &[][..], true),
        ("a bare Bearer", 401, &["Bearer"], true),
        ("invalid_token", 401, &[INVALID], true),
        ("F02: another scheme", 401, &["Basic realm=\"x\""], true),
        (
            "F03: second in the line",
            401,
            &["Basic realm=\"x\", Bearer error=\"insufficient_scope\""],
            false,
        ),
        ("F03: second line", 401, &["Basic realm=\"x\"", SCOPE], false),
        ("F04: nonsense", 401, &[",,= \"Bearer"], true),
        (
            "F04: a comma inside quotes",
            401,
            &[r#"Bearer realm="a, error=insufficient_scope", error="invalid_token""#],
            true,
        ),
        ("F05: insufficient_scope", 401, &[SCOPE], false),
        ("F05, X18: insufficient_scope with 403", 403, &[SCOPE], false),
        ("F06: bare 403", 403, &[], false),
        ("F07: the header says other than the status", 403, &[INVALID], false),
        ("RFC 9470", 401, &[STEP_UP], false),
        ("F08: claims", 401, &[r#"Bearer error="insufficient_claims", claims="e30=""#], false),
        (
            "F08: claims that are no base64",
            401,
            &[r#"Bearer error="insufficient_claims", claims="?""#],
            false,
        ),
        ("F09: two of a kind", 401, &["Bearer error=\"other\"", INVALID], true),
    ] {
        let api = Api::new(move |seen| {
            let reply = Reply::status(if seen.token() == Some("a0") { status } else { 200 });
            let add = |reply: Reply, challenge: &&str| reply.header("www-authenticate", challenge);
            challenges.iter().fold(reply.body("text"), add)
        });
        let rig = Rig::new(api);
        let response = rig.get().await.unwrap();
        assert_eq!(response.status() == 200, is_refreshed, "{case}");
        assert_eq!(rig.issuer.calls(), usize::from(is_refreshed), "{case}");
        if !is_refreshed {
            // The caller sees which scope, how to step up.
            let headers = response.headers().get_all("www-authenticate");
            let found: Vec<_> = headers.iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(found, challenges, "{case}");
            assert_eq!(response.text().await.unwrap(), "text", "{case}");
        }
    }
}

/// K-41: F09: a new challenge on the replay is the caller's.
#[tokio::test]
async fn k_41_the_last_challenge_is_returned_after_one_round() {
    let api = Api::new(|seen| {
        let error = format!("Bearer error=\"for {}\"", seen.token().unwrap());
        match seen.token() {
            Some("a0") => Reply::status(401),
            _ => Reply::status(401).header("www-authenticate", &error),
        }
    });
    let rig = Rig::new(api);
    let response = rig.get().await.unwrap();
    assert_eq!(response.headers()["www-authenticate"], "Bearer error=\"for a1\"");
    assert_eq!((rig.api.arrived(), rig.issuer.calls()), (2, 1));
}

// ---- K-42: what happens to a body that is looked into is in `looked_into` ----

/// K-42: E09.
#[tokio::test]
async fn k_42_a_predicate_of_ones_own_replaces_the_default() {
    let teapot = Provider::rfc6749().with_judge(|status, headers| {
        match status.as_u16() == 418 && headers.contains_key("x-expired") {
            true => Judgement::Rejected,
            false => Judgement::Accepted,
        }
    });
    for (status, header, is_refreshed) in
        [(418, true, true), (418, false, false), (401, true, false)]
    {
        let api = Api::new(move |seen| match seen.token() {
            Some("a0") if header => Reply::status(status).header("x-expired", "1"),
            Some("a0") => Reply::status(status),
            _ => Reply::status(200),
        });
        let rig = Rig::with(api, Issuer::with(3600 * SECOND, teapot), |builder| builder);
        let expected = if is_refreshed { 200 } else { status };
        assert_eq!(rig.get().await.unwrap().status(), expected);
        assert_eq!(rig.issuer.calls(), usize::from(is_refreshed));
    }
}

/// K-42: what digiRunner answers to API calls (its source, in the order of its checks). Q-90.
#[tokio::test]
async fn k_42_of_digirunners_answers_a_401_and_a_403_that_says_invalid_token_are_rejections() {
    let spring = |status: u16, reason: &str, message: &str| {
        json!({"timestamp": "1750000000000", "status": status, "error": reason,
               "message": message, "path": "/orders"})
    };
    let oauth = |error: &str, text: &str| json!({"error": error, "error_description": text});
    let unreadable = "Cannot convert access token to JSON";
    for (case, status, body, is_rejection) in [
        ("unknown scheme", 401, spring(401, "Unauthorized", "Unauthorized"), true),
        ("malformed bearer", 500, spring(500, "Internal Server Error", "JWT"), false),
        ("malformed bearer, older", 400, oauth("invalid_token", unreadable), false),
        ("bad signature", 400, oauth("invalid_token", unreadable), false),
        ("expired", 401, oauth("invalid_token", "Access token expired: a0"), true),
        ("revoked", 403, oauth("invalid_token", "Access token revoked, jti: 1"), true),
        ("client disabled", 403, spring(403, "Forbidden", "Client disable"), false),
        ("client locked", 403, spring(403, "Forbidden", "Client locked"), false),
        ("user state, 400", 400, oauth("invalid_grant", "User is disabled"), false),
        ("user state, 401", 401, oauth("unauthorized", "User"), true),
        ("user state, 403", 403, spring(403, "Forbidden", "User locked"), false),
        (
            "scope",
            403,
            spring(403, "Forbidden", "Token Violates Scope Authorization Access Settings"),
            false,
        ),
        ("client quota", 403, spring(403, "Forbidden", "Client(application) quota ran out"), false),
        (
            "token quota",
            403,
            oauth("Over Access Token Allow Times", "Over Access Token Allow Times"),
            false,
        ),
        ("tps", 429, spring(429, "tps", "Client requests exceeds TPS limit. client:X"), false),
        ("API disabled", 503, spring(503, "Service Unavailable", "disabled"), false),
        ("the back end's own 401", 401, json!({"oh": "no"}), true),
        ("the back end's own 403", 403, json!({"oh": "no"}), false),
        ("the back end's own 403, a list", 403, json!(["error", "invalid_token"]), false),
        ("the back end's own 403, a text", 403, json!("invalid_token"), false),
        (
            "the back end's own 403, deeper",
            403,
            json!({"error": {"error": "invalid_token"}}),
            false,
        ),
        ("the back end's own 403, other case", 403, json!({"error": "INVALID_TOKEN"}), false),
        ("fine", 200, oauth("invalid_token", "in an answer that is fine"), false),
    ] {
        let answer = body.clone();
        let api = Api::new(move |seen| match seen.token() {
            Some("a0") => Reply::status(status).json(answer.clone()),
            _ => Reply::status(200).body("replayed"),
        });
        let issuer = Issuer::with(3600 * SECOND, Provider::digirunner());
        let rig = Rig::with(api, issuer, |builder| builder);
        let response = rig.get().await.unwrap();
        assert_eq!(rig.issuer.calls(), usize::from(is_rejection), "{case}");
        if is_rejection {
            assert_eq!(response.text().await.unwrap(), "replayed", "{case}");
            assert_eq!(rig.api.tokens(), ["a0", "a1"], "{case}");
        } else {
            assert_eq!(response.status(), status, "{case}");
            let text = response.text().await.unwrap();
            assert_eq!(text, body.to_string(), "{case}: not whole");
            assert_eq!(rig.api.tokens(), ["a0"], "{case}");
        }
    }
}

/// K-42: gated on JSON. A 401 needs no body at all.
#[tokio::test]
async fn k_42_a_403_is_looked_into_only_if_it_says_that_it_is_json() {
    let body = r#"{"error":"invalid_token"}"#;
    for (case, content_type, body, is_rejection) in [
        ("JSON", Some("application/json"), body, true),
        ("with charset", Some("application/json;charset=UTF-8"), body, true),
        ("in capitals", Some("Application/JSON"), body, true),
        ("a kind of JSON", Some("application/problem+json"), body, true),
        ("HTML", Some("text/html"), body, false),
        ("no type", None, body, false),
        ("something with json in it", Some("text/plain; a=application/json"), body, false),
        ("half a JSON", Some("application/json"), &body[..10], false),
        ("two JSONs", Some("application/json"), "{\"error\":\"invalid_token\"}{}", false),
        ("empty", Some("application/json"), "", false),
    ] {
        let api = Api::new(move |seen| {
            if seen.token() != Some("a0") {
                return Reply::status(200);
            }
            let reply = Reply::status(403).body(body);
            match content_type {
                Some(content_type) => reply.header("content-type", content_type),
                None => reply,
            }
        });
        let issuer = Issuer::with(3600 * SECOND, Provider::digirunner());
        let rig = Rig::with(api, issuer, |builder| builder);
        let response = rig.get().await.unwrap();
        assert_eq!(response.status() == 200, is_rejection, "{case}");
        assert_eq!(rig.issuer.calls(), usize::from(is_rejection), "{case}");
        if !is_rejection {
            assert_eq!(response.text().await.unwrap(), body, "{case}");
        }
    }
}
