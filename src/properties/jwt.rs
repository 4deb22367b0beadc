//! The two claims of a JWT that are read.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::properties::input::Input;
use crate::proto::jwt::{Life, life};

/// The first second of the year 2500: what is later is no time in seconds.
const YEAR_2500: u64 = 16_725_225_600;

/// K-10: a JWT that says when it ends is believed; what says nothing, or is no JWT, says nothing.
pub fn jwt(input: &[u8]) {
    let mut input = Input::new(input);
    match input.below(3) {
        0 => claims_are_read(&mut input),
        1 => {
            let (header, claims) = (input.text(), encode(input.word()));
            anything(&[header, claims, input.text()].join("."));
        }
        _ => anything(&String::from_utf8_lossy(input.rest())),
    }
}

/// What was written into the claims is read, whatever stands around it.
fn claims_are_read(input: &mut Input<'_>) {
    let (exp, iat) = (Date::new(input), input.flag().then(|| Date::new(input)));
    let mut claims = Map::from_iter([(input.text(), input.u64().into())]);
    claims.insert("exp".into(), exp.written);
    claims.remove("iat");
    claims.extend(iat.as_ref().map(|iat| ("iat".to_owned(), iat.written.clone())));
    let claims = Value::from(claims).to_string();
    let [header, signature] = [input.word(), input.word()].map(encode);
    let token = [header, encode(claims.as_bytes()), signature].join(".");
    let expected = exp.meant.map(|exp| Life {
        end: SystemTime::UNIX_EPOCH + exp,
        whole: iat.and_then(|iat| iat.meant).filter(|iat| *iat < exp).map(|iat| exp - iat),
    });
    assert_eq!(life(&token), expected, "{claims}");
    for (case, broken) in [
        ("four parts", format!("{token}.")),
        ("JWE (RFC 7516 §7.1)", format!("a.b.{token}")),
        ("two parts", token[..token.rfind('.').unwrap_or_default()].into()),
        ("cut", token.replacen('.', "", 1)),
    ] {
        assert_eq!(life(&broken), None, "{case}: {broken}");
    }
}

/// A `NumericDate` (RFC 7519 §2), as it is written and as it is meant.
struct Date {
    written: Value,
    meant: Option<Duration>,
}

impl Date {
    fn new(input: &mut Input<'_>) -> Self {
        let seconds = input.u64() >> input.below(64);
        let whole = Some(seconds).filter(|seconds| *seconds < YEAR_2500).map(Duration::from_secs);
        let (written, meant) = match input.below(8) {
            0..4 => (json!(seconds), whole),
            4 => match whole {
                Some(whole) => {
                    let meant = whole + Duration::from_millis(250);
                    (json!(meant.as_secs_f64()), Some(meant))
                }
                None => (json!(1e30), None),
            },
            5 => (json!(seconds.to_string()), None),
            6 => (json!(-1 - (seconds >> 1).cast_signed()), None),
            _ => (json!([seconds]), None),
        };
        Self { written, meant }
    }
}

/// Whatever the token is: an end is one that its claims have.
fn anything(token: &str) {
    let claims = claims(token);
    let exp = claims.as_ref().and_then(|claims| claims.get("exp")?.as_f64());
    let exp = exp.filter(|exp| *exp >= 0.0 && *exp < YEAR_2500 as f64);
    let life = life(token);
    assert_eq!(life.is_some(), exp.is_some(), "{token}");
    let (Some(life), Some(exp)) = (life, exp) else { return };
    let end = life.end.duration_since(SystemTime::UNIX_EPOCH).expect("no end before 1970");
    assert!((end.as_secs_f64() - exp).abs() < 0.001, "{end:?}, {exp}");
    assert!(life.whole.is_none_or(|whole| !whole.is_zero() && whole <= end), "{life:?}");
}

/// RFC 7519 §7.2, without the signature; RFC 7515 §7.1 has three parts.
fn claims(token: &str) -> Option<Map<String, Value>> {
    let parts = token.split('.').collect::<Vec<_>>();
    let [_, claims, _] = parts[..] else { return None };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

fn encode(part: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(part)
}
