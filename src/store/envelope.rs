//! The form in which a store writes a token set: JSON that says whose it is, and of which version.

use serde_json::{Value, json};

use crate::token::TokenSet;

/// Why something that was read is not a token set. Quotes nothing of it.
#[derive(Debug, PartialEq)]
pub(crate) enum Unread {
    Newer(u64),
    NotOurs(&'static str),
}

/// `{"format": "reqwest-refresh", "version": 1, "tokens": {…}}`; `None` if nobody could read it.
pub(crate) fn seal(tokens: &TokenSet) -> Option<Vec<u8>> {
    let tokens = serde_json::to_value(tokens.expose_secrets()).ok()?;
    let envelope = json!({"format": FORMAT, "version": VERSION, "tokens": tokens});
    let written = serde_json::to_vec(&envelope).ok()?;
    open(&written).is_ok().then_some(written)
}

/// Reads what [`seal`] wrote. Members that it does not know are ignored.
pub(crate) fn open(written: &[u8]) -> Result<TokenSet, Unread> {
    // serde's own errors may quote what they met.
    let Ok(mut envelope @ Value::Object(_)) = serde_json::from_slice(written) else {
        return Err(Unread::NotOurs("it is not a whole JSON object"));
    };
    if envelope["format"] != FORMAT {
        return Err(Unread::NotOurs("it does not say that it is one"));
    }
    match envelope["version"].as_u64() {
        Some(VERSION) => {}
        Some(version) if version > VERSION => return Err(Unread::Newer(version)),
        _ => return Err(Unread::NotOurs("it has no version that there ever was")),
    }
    let tokens = envelope["tokens"].take();
    serde_json::from_value(tokens).map_err(|_| Unread::NotOurs("its tokens are damaged"))
}

const FORMAT: &str = "reqwest-refresh";
const VERSION: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept already: a change here needs a reader for what was written before.
    #[test]
    fn the_envelope_is_this() {
        let tokens = TokenSet::new("a").with_refresh_token("r");
        let written = seal(&tokens).unwrap();
        let expected = json!({
            "format": "reqwest-refresh",
            "version": 1,
            "tokens": {"access_token": "a", "refresh_token": "r"},
        });
        assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), expected);
        assert!(open(&written).unwrap().same_tokens(&tokens));
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let nested = |levels| (0..levels).fold(json!(1), |value, _| json!([value]));
        let sealed = |levels| {
            let members = [("deep".to_owned(), nested(levels))].into_iter().collect();
            seal(&TokenSet::new("a").with_members(members)).is_some()
        };
        assert!(sealed(100) && !sealed(200));
    }

    /// K-63.
    #[test]
    fn k_63_what_cannot_be_read_is_named_and_not_quoted() {
        let wrong = |why| Unread::NotOurs(why);
        for (expected, written) in [
            (wrong("it is not a whole JSON object"), ""),
            (wrong("it is not a whole JSON object"), "CANARY"),
            (wrong("it is not a whole JSON object"), "[4711]"),
            (wrong("it does not say that it is one"), r#"{"access_token": "CANARY"}"#),
            (wrong("it does not say that it is one"), r#"{"format": 1, "version": 1}"#),
            (
                wrong("it has no version that there ever was"),
                r#"{"format": "reqwest-refresh", "version": "1"}"#,
            ),
            (
                wrong("it has no version that there ever was"),
                r#"{"format": "reqwest-refresh", "version": 0}"#,
            ),
            (Unread::Newer(2), r#"{"format": "reqwest-refresh", "version": 2, "tokens": []}"#),
            (
                wrong("its tokens are damaged"),
                r#"{"format": "reqwest-refresh", "version": 1, "tokens": "CANARY"}"#,
            ),
            (wrong("its tokens are damaged"), r#"{"format": "reqwest-refresh", "version": 1}"#),
        ] {
            assert_eq!(open(written.as_bytes()).expect_err(written), expected, "{written}");
        }
    }
}
