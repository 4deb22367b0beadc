//! What stores write: a token set as a text that says whose it is, and of which version.

use serde_json::{Map, Value};

use crate::token::TokenSet;

/// The longest text that is read or written, in bytes. The answer of a token endpoint may have 1 MiB.
pub(crate) const LIMIT: usize = 4 * 1024 * 1024;

const FORMAT: &str = "format";
const NAME: &str = "reqwest-refresh";
const TOKENS: &str = "tokens";
const VERSION: &str = "version";

/// The only version so far. One that this version must not write over gets the next number.
const CURRENT: u64 = 1;

/// Why a text holds no tokens.
#[derive(Debug, PartialEq)]
pub(crate) enum Unread {
    Newer(u64),
    NotOurs(&'static str),
}

/// The text for `tokens`; `None` if nobody could read it.
pub(crate) fn write(tokens: &TokenSet) -> Option<Vec<u8>> {
    let mut object = Map::new();
    object.insert(FORMAT.into(), NAME.into());
    object.insert(VERSION.into(), CURRENT.into());
    object.insert(TOKENS.into(), serde_json::to_value(tokens.expose_secrets()).ok()?);
    let mut text = serde_json::to_vec_pretty(&object).ok()?;
    text.push(b'\n');
    read(&text).is_ok().then_some(text)
}

/// The tokens in `text`. Members that it does not know are ignored.
pub(crate) fn read(text: &[u8]) -> Result<TokenSet, Unread> {
    if text.is_empty() {
        return Err(Unread::NotOurs("it is empty"));
    }
    if text.len() > LIMIT {
        return Err(Unread::NotOurs("it is too large"));
    }
    // serde's own errors may quote what they met.
    let Ok(Value::Object(mut object)) = serde_json::from_slice(text) else {
        return Err(Unread::NotOurs("it is not a whole JSON object"));
    };
    if object.get(FORMAT).and_then(Value::as_str) != Some(NAME) {
        return Err(Unread::NotOurs("it does not say that it is one"));
    }
    match object.get(VERSION).and_then(Value::as_u64) {
        Some(CURRENT) => {}
        Some(version) if version > CURRENT => return Err(Unread::Newer(version)),
        _ => return Err(Unread::NotOurs("it has no version that there ever was")),
    }
    let tokens = object.remove(TOKENS).unwrap_or_default();
    serde_json::from_value(tokens).map_err(|_| Unread::NotOurs("its tokens are damaged"))
}
