//! The two claims of a JWT that say how long it lives; nothing else of it is looked at.
//!
//! The signature is *not* verified, on purpose: the token is not ours to judge, and a wrong end
//! costs at most one refresh. Opaque tokens, JWE and broken ones are simply not understood.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// When a token ends by its own account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Life {
    pub(crate) end: SystemTime,
    /// From `iat` to `exp`: true even where our clock and the server's differ.
    pub(crate) whole: Option<Duration>,
}

/// What `token` says of its own life, if it is a JWT that says it plausibly.
pub(crate) fn life(token: &str) -> Option<Life> {
    // RFC 7515 §7.1: a JWS has three parts; a JWE has five, and its claims are sealed.
    let mut parts = token.split('.');
    let (_header, Some(claims), Some(_signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Map<String, Value> = serde_json::from_slice(&claims).ok()?;
    let exp = numeric_date(claims.get("exp")?)?;
    let iat = claims.get("iat").and_then(numeric_date);
    let whole = iat.and_then(|iat| exp.checked_sub(iat));
    let whole = whole.filter(|whole| !whole.is_zero());
    Some(Life { end: SystemTime::UNIX_EPOCH + exp, whole })
}

/// RFC 7519 §2: "A JSON numeric value representing the number of seconds from
/// 1970-01-01T00:00:00Z UTC until the specified UTC date/time, ignoring leap seconds", perhaps
/// with a fraction. Negative ones, and those so late that somebody counted milliseconds, say
/// nothing.
fn numeric_date(value: &Value) -> Option<Duration> {
    const YEAR_2500: f64 = 16_725_225_600.0;
    let seconds = value.as_f64().filter(|seconds| (0.0..YEAR_2500).contains(seconds))?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn k_10_the_end_is_read_where_it_is_plausible_and_unknown_otherwise() {
        for (case, claims, expected) in [
            ("exp", r#"{"exp":1684742522}"#, Some((1_684_742_522.0, None))),
            ("exp and iat", r#"{"exp":1000060,"iat":1000000}"#, Some((1_000_060.0, Some(60.0)))),
            ("fraction", r#"{"exp":1000000.5}"#, Some((1_000_000.5, None))),
            ("iat after exp", r#"{"exp":1000000,"iat":2000000}"#, Some((1_000_000.0, None))),
            ("iat of another type", r#"{"exp":1000000,"iat":"x"}"#, Some((1_000_000.0, None))),
            ("milliseconds", r#"{"exp":1684742522981}"#, None),
            ("negative", r#"{"exp":-1}"#, None),
            ("10^30", r#"{"exp":1e30}"#, None),
            ("text", r#"{"exp":"soon"}"#, None),
            ("none", r#"{"sub":"x"}"#, None),
            ("not an object", r#"[1]"#, None),
            ("half a JSON", r#"{"exp":16"#, None),
        ] {
            let life = life(&jwt(r#"{"alg":"RS256"}"#, claims)).map(|life| {
                let end = life.end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                (end.as_secs_f64(), life.whole.map(|whole| whole.as_secs_f64()))
            });
            assert_eq!(life, expected, "{case}");
        }
    }

    #[test]
    fn k_10_the_header_does_not_matter_and_other_tokens_say_nothing() {
        assert!(life(&jwt(r#"{"alg":"ML-DSA-65"}"#, r#"{"exp":1000000}"#)).is_some());
        for (case, token) in [
            ("opaque", "2YotnFZFEjr1zCsicMWpAA"),
            ("two parts", "a.b"),
            ("JWE", "eyJhbGciOiJSU0EtT0FFUCJ9.a2V5.aXY.Y2lwaGVy.dGFn"),
            ("four parts", "a.b.eyJleHAiOjEwMDAwMDB9.c2ln"),
            ("a JWE with claims in it", "a.b.c.eyJleHAiOjEwMDAwMDB9.dGFn"),
            ("dots", "....."),
            ("empty", ""),
            ("not ASCII", "ä.ö.ü"),
        ] {
            assert_eq!(life(token), None, "{case}");
        }
    }
}
