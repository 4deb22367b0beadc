//! The form in which a store writes a token set: JSON that says whose it is, and of which version.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use crate::secret::{Members, SecretBytes};
use crate::token::{ExposedTokenSet, TokenSet};

/// Why something that was read is not a token set. Quotes nothing of it.
#[derive(Debug, PartialEq)]
pub(crate) enum Unread {
    Newer(u64),
    NotOurs(&'static str),
}

/// `{"format": "reqwest-refresh", "version": 1, "tokens": {…}}`; `None` if nobody could read it.
pub(crate) fn seal(tokens: &TokenSet) -> Option<SecretBytes> {
    let mut written = SecretBytes::default();
    serde_json::to_writer(&mut written, &Sealed(tokens.expose_secrets())).ok()?;
    open(&written).is_ok().then_some(written)
}

/// Reads what [`seal`] wrote. Members that it does not know are ignored.
pub(crate) fn open(written: &[u8]) -> Result<TokenSet, Unread> {
    if written.is_empty() {
        return Err(Unread::NotOurs("it is empty"));
    }
    if written.len() > LIMIT {
        return Err(Unread::NotOurs("it is too large"));
    }
    // serde's own errors may quote what they met.
    let Ok(envelope) = serde_json::from_slice::<Map<_, _>>(written) else {
        return Err(Unread::NotOurs("it is not a whole JSON object"));
    };
    let mut envelope = Members::from(envelope);
    if envelope.get("format").and_then(Value::as_str) != Some(FORMAT) {
        return Err(Unread::NotOurs("it does not say that it is one"));
    }
    match envelope.get("version").and_then(Value::as_u64) {
        None | Some(0) => return Err(Unread::NotOurs("it has no version that there ever was")),
        Some(VERSION) => {}
        Some(newer) => return Err(Unread::Newer(newer)),
    }
    let tokens = envelope.remove("tokens").unwrap_or_default();
    serde_json::from_value(tokens).map_err(|_| Unread::NotOurs("its tokens are damaged"))
}

struct Sealed(ExposedTokenSet);

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut envelope = serializer.serialize_map(Some(3))?;
        envelope.serialize_entry("format", FORMAT)?;
        envelope.serialize_entry("version", &VERSION)?;
        envelope.serialize_entry("tokens", &self.0)?;
        envelope.end()
    }
}

const FORMAT: &str = "reqwest-refresh";
/// The only version so far. One that this version must not write over gets the next number.
const VERSION: u64 = 1;
/// The largest that is read or written, in bytes. The answer of a token endpoint may have 1 MiB.
pub(crate) const LIMIT: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    /// K-62, K-63: what is not whole and ours is an error, which quotes nothing.
    #[test]
    fn k_62_what_is_not_understood_is_told_apart_and_not_quoted() {
        let ours = |version: Value, tokens: Value| {
            json!({"format": "reqwest-refresh", "version": version, "tokens": tokens}).to_string()
        };
        let whole = String::from_utf8(seal(&TokenSet::new("CANARY")).unwrap().to_vec()).unwrap();
        let cut: Vec<String> =
            (1..whole.trim_end().len()).map(|end| whole[..end].to_owned()).collect();
        let mut cases: Vec<(String, &str)> =
            cut.into_iter().map(|text| (text, "it is not a whole JSON object")).collect();
        let tokens = json!({"access_token": "CANARY"});
        cases.extend([
            (String::new(), "it is empty"),
            (" ".repeat(LIMIT + 1), "it is too large"),
            ("access_token=CANARY\n".into(), "it is not a whole JSON object"),
            ("[\"CANARY\"]".into(), "it is not a whole JSON object"),
            ("\0".repeat(4096), "it is not a whole JSON object"),
            (format!("{whole}CANARY"), "it is not a whole JSON object"),
            ("{}".into(), "it does not say that it is one"),
            (json!({"access_token": "CANARY"}).to_string(), "it does not say that it is one"),
            (json!({"format": 1, "version": 1}).to_string(), "it does not say that it is one"),
            (whole.replace("reqwest-refresh", "CANARY"), "it does not say that it is one"),
            (ours(Value::Null, tokens.clone()), "it has no version that there ever was"),
            (ours(json!(0), tokens.clone()), "it has no version that there ever was"),
            (ours(json!(-1), tokens.clone()), "it has no version that there ever was"),
            (ours(json!(1.5), tokens.clone()), "it has no version that there ever was"),
            (ours(json!("CANARY"), tokens), "it has no version that there ever was"),
            (ours(json!(1), Value::Null), "its tokens are damaged"),
            (ours(json!(1), json!("CANARY")), "its tokens are damaged"),
            (ours(json!(1), json!({"refresh_token": "CANARY"})), "its tokens are damaged"),
            (ours(json!(1), json!({"access_token": 4711})), "its tokens are damaged"),
        ]);
        for (text, expected) in cases {
            let error = open(text.as_bytes()).expect_err(&text);
            assert_eq!(error, Unread::NotOurs(expected), "{text:.200}");
        }
        let full = whole.clone() + &" ".repeat(LIMIT - whole.len());
        assert!(open(full.as_bytes()).is_ok(), "as large as may be");
        let newer = ours(json!(2), json!({"sealed": "CANARY"}));
        assert_eq!(open(newer.as_bytes()).unwrap_err(), Unread::Newer(2));
        assert_eq!(
            open(b"\xff\xfe").unwrap_err(),
            Unread::NotOurs("it is not a whole JSON object")
        );
    }

    /// What is kept already: a change here needs a new version, and a reader for this one.
    #[test]
    fn the_format_is_this() {
        let end = std::time::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let tokens = TokenSet::new("a").with_refresh_token("r").with_expires_at(end);
        let written: Value = serde_json::from_slice(&seal(&tokens).unwrap()).unwrap();
        let expected = json!({
            "format": "reqwest-refresh",
            "version": 1,
            "tokens": {"access_token": "a", "refresh_token": "r", "expires_at": 2_000_000_000},
        });
        assert_eq!(written, expected);
        let mut more = expected;
        more["comment"] = json!("by hand");
        assert!(open(more.to_string().as_bytes()).unwrap().same_tokens(&tokens));
    }

    /// What a set says after a thousand savings is what the server said.
    #[test]
    fn a_number_is_the_same_each_time_that_it_is_read() {
        let members = json!({"x": [23_339_272_056_854_775_807_f64, 0.1, 1e-308, f64::MAX]});
        let members = members.as_object().unwrap().clone();
        let tokens = TokenSet::new("a").with_members(members.clone());
        assert_eq!(open(&seal(&tokens).unwrap()).unwrap().members(), &members);
    }

    /// K-60: rather an error now than a file that nobody can read later.
    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let nested = |depth: usize| (0..depth).fold(Value::Null, |inner, _| json!([inner]));
        let with = |value: Value| {
            let members: Map<_, _> = [("x".to_owned(), value)].into_iter().collect();
            seal(&TokenSet::new("a").with_members(members)).is_some()
        };
        assert!(with(nested(120)));
        assert!(!with(nested(130)), "deeper than serde_json reads");
        assert!(with("x".repeat(LIMIT / 2).into()));
        assert!(!with("x".repeat(LIMIT).into()));
    }
}
