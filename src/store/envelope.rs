//! The form in which a store writes a token set: JSON that says whose it is, and of which version.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::store::StoreError;
use crate::token::TokenSet;

/// Why something that a store has read is not a token set. Quotes nothing of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("damaged: {0}")]
    Damaged(#[source] serde_json::Error),
    #[error("not written by this crate")]
    Foreign,
    #[error("written by a newer version of this crate")]
    Newer,
}

/// `{"format": "reqwest-refresh", "version": 1, "tokens": {…}}`
pub(crate) fn seal(tokens: &TokenSet) -> Result<Vec<u8>, StoreError> {
    let tokens = serde_json::to_value(tokens.expose_secrets())?;
    let envelope = json!({"format": FORMAT, "version": VERSION, "tokens": tokens});
    Ok(serde_json::to_vec(&envelope)?)
}

/// Reads what [`seal`] wrote.
pub(crate) fn open(written: &[u8]) -> Result<TokenSet, Unreadable> {
    let Ok(mut envelope) = serde_json::from_slice::<Value>(written) else {
        return Err(Unreadable::Foreign);
    };
    match (envelope["format"].as_str(), envelope["version"].as_u64()) {
        (Some(FORMAT), Some(VERSION)) => {
            TokenSet::deserialize(envelope["tokens"].take()).map_err(Unreadable::Damaged)
        }
        (Some(FORMAT), Some(version)) if version > VERSION => Err(Unreadable::Newer),
        _ => Err(Unreadable::Foreign),
    }
}

const FORMAT: &str = "reqwest-refresh";
const VERSION: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_is_this() {
        let written = seal(&TokenSet::new("a").with_refresh_token("r")).unwrap();
        let expected = json!({
            "format": "reqwest-refresh",
            "version": 1,
            "tokens": {"access_token": "a", "refresh_token": "r"},
        });
        assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), expected);
        assert!(open(&written).unwrap().same_tokens(&TokenSet::new("a").with_refresh_token("r")));
    }

    /// K-63.
    #[test]
    fn k_63_what_cannot_be_read_is_named_and_not_quoted() {
        for (expected, written) in [
            ("not written by this crate", "CANARY"),
            ("not written by this crate", "[4711]"),
            ("not written by this crate", r#"{"access_token": "CANARY"}"#),
            ("not written by this crate", r#"{"format": "CANARY", "version": 1}"#),
            ("not written by this crate", r#"{"format": "reqwest-refresh", "version": "4711"}"#),
            ("not written by this crate", r#"{"format": "reqwest-refresh", "version": 0}"#),
            ("newer version", r#"{"format": "reqwest-refresh", "version": 2, "tokens": "CANARY"}"#),
            ("object", r#"{"format": "reqwest-refresh", "version": 1, "tokens": "CANARY"}"#),
            ("object", r#"{"format": "reqwest-refresh", "version": 1}"#),
            (
                "access_token",
                r#"{"format": "reqwest-refresh", "version": 1, "tokens": {"access_token": 4711}}"#,
            ),
        ] {
            let error = open(written.as_bytes()).expect_err(written);
            let printed = format!("{error} {error:?}");
            assert!(printed.contains(expected), "{written}: {printed}");
            assert!(!printed.contains("CANARY") && !printed.contains("4711"), "{printed}");
        }
    }
}
