//! The form in which a file, a keyring and Redis keep tokens.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use crate::properties::input::Input;
use crate::secret::SecretBytes;
use crate::store::envelope::{Unread, open, seal};
use crate::token::TokenSet;

/// K-60, K-62: what is written is read, what is read is written again the same, and half of it is
/// no token set.
pub fn stored(input: &[u8]) {
    let mut input = Input::new(input);
    match input.below(3) {
        0 => what_is_sealed_is_opened(&mut input),
        1 => {
            let tokens: Value = serde_json::from_slice(input.rest()).unwrap_or_default();
            anything(
                &json!({"format": "reqwest-refresh", "version": 1, "tokens": tokens})
                    .to_string()
                    .into_bytes(),
            );
        }
        _ => anything(input.rest()),
    }
}

fn what_is_sealed_is_opened(input: &mut Input<'_>) {
    let tokens = tokens(input);
    let Some(sealed) = survives(&tokens) else { return };
    let end = usize::try_from(input.u64()).unwrap_or_default() % sealed.len();
    assert!(open(&sealed[..end]).is_err(), "half a file");
    let mut other: Map<String, Value> = serde_json::from_slice(&sealed).expect("an object");
    let version = input.u64();
    other.insert("version".into(), version.into());
    let other = open(Value::from(other).to_string().as_bytes()).map(drop);
    match version {
        0 => assert!(matches!(other, Err(Unread::NotOurs(_)))),
        1 => assert_eq!(other, Ok(())),
        newer => assert_eq!(other, Err(Unread::Newer(newer))),
    }
}

fn tokens(input: &mut Input<'_>) -> TokenSet {
    let mut tokens = TokenSet::new(input.text()).with_refresh_token(input.text());
    let choices = input.byte();
    let is = |bit: u8| choices & bit != 0;
    let moment = |input: &mut Input<'_>| {
        // What no clock shows is no moment that is written.
        let seconds = input.u64() >> 24;
        SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::from(input.byte()))
    };
    if is(1) {
        tokens = tokens.with_token_type(input.text());
    }
    if is(2) {
        tokens = tokens.with_scope(input.text());
    }
    if is(4) {
        tokens = tokens.with_expires_at(moment(input));
    }
    if is(8) {
        tokens = tokens.with_expires_in(input.duration());
    }
    if is(16) {
        tokens = tokens.with_refresh_expires_at(moment(input));
    }
    if is(32) {
        let members = serde_json::from_slice(input.rest()).unwrap_or_default();
        tokens = tokens.with_members(members);
    }
    tokens
}

/// What is opened is a token set with the tokens that are there, and is kept as it is.
fn anything(written: &[u8]) {
    let Ok(tokens) = open(written) else { return };
    let naive: Value = serde_json::from_slice(written).expect("JSON");
    assert_eq!(naive["format"], "reqwest-refresh");
    assert_eq!(naive["version"], 1);
    assert_eq!(naive["tokens"]["access_token"], tokens.access_token());
    let refresh_token = naive["tokens"]["refresh_token"].as_str().filter(|text| !text.is_empty());
    assert_eq!(tokens.refresh_token(), refresh_token);
    let sealed = survives(&tokens).expect("what was read can be written");
    let again = open(&sealed).expect("what was written can be read");
    let twice = seal(&again).expect("what was written can be written");
    assert_eq!(*twice, *sealed, "written twice");
}

/// Seals a token set and opens it again. None of it is lost but fractions of seconds, and
/// a lifetime that nobody knows the beginning of.
pub(super) fn survives(tokens: &TokenSet) -> Option<SecretBytes> {
    let Some(sealed) = seal(tokens) else {
        assert!(depth(&tokens.members().clone().into()) > 100, "it could be read again");
        return None;
    };
    let opened = open(&sealed).expect("what was sealed can be opened");
    assert!(opened.same_tokens(tokens));
    assert_eq!(opened.token_type(), tokens.token_type());
    assert_eq!(opened.scope(), tokens.scope());
    assert_eq!(opened.members(), tokens.members());
    if let Some(end) = tokens.expires_at() {
        assert_eq!(opened.expires_at().map(seconds), Some(seconds(end)));
        let lifetime =
            |tokens: &TokenSet| tokens.expires_in().map_or(0, |lifetime| lifetime.as_secs());
        assert_eq!(lifetime(&opened), lifetime(tokens));
    }
    if let Some(end) = tokens.refresh_expires_at() {
        assert_eq!(opened.refresh_expires_at().map(seconds), Some(seconds(end)));
    }
    Some(sealed)
}

fn seconds(end: SystemTime) -> u64 {
    end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}
