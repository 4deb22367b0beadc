//! An answer of a token endpoint, whatever is in it.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::error::{RefreshError, RefreshFailure};
use crate::properties::input::Input;
use crate::properties::provider::{PROVIDERS, is_transient};
use crate::properties::secrets::{SENT, assert_hidden, assert_none_of};
use crate::proto::grant::Answer;
use crate::proto::provider::Provider;
use crate::token::TokenSet;

/// No body makes an outage a dead refresh token, costs a new refresh token or shows a secret.
pub fn answer(input: &[u8]) {
    let mut input = Input::new(input);
    let provider = PROVIDERS[input.below(PROVIDERS.len())].provider;
    let status = input.status();
    let choices = input.byte();
    let [is_form, any_type, is_opted] = [1, 2, 4].map(|bit| choices & bit != 0);
    let provider =
        if is_opted { provider.with_unreadable_error(RefreshFailure::Terminal) } else { provider };
    let body = input.rest();
    let retry_after = (choices & 8 != 0).then_some(Duration::MAX);
    let answer = Answer { status, retry_after, is_form, body };

    let is_readable = is_form || is_object(body);
    let naive = naive(&provider, body);
    match answer.read(&provider, any_type, &SENT) {
        Ok(tokens) => {
            assert!((200..300).contains(&status));
            assert!(!tokens.access_token().is_empty());
            assert_hidden_tokens(&tokens);
            #[cfg(feature = "file")]
            crate::properties::stored::survives(&tokens);
        }
        Err(error) => {
            let is_refused = (400..500).contains(&status);
            assert_verdict(&error, status, is_readable || is_opted && is_refused);
            assert_eq!(error.retry_after, retry_after);
            assert_hidden(error, naive.as_ref());
        }
    }
    if let Some(members) = naive {
        assert_nothing_is_lost(&answer, &provider, any_type, &members);
    }
    if let Err(error) = answer.revoked(&provider, &SENT) {
        assert_verdict(&error, status, is_readable);
        assert_hidden(error, None);
    }
}

/// K-34: "never of a status alone, never on 429, 5xx …" And a form or a JSON object has been read,
/// unless somebody said otherwise of what cannot be.
fn assert_verdict(error: &RefreshError, status: u16, may_be_terminal: bool) {
    if is_transient(status) {
        use RefreshFailure::{Busy, Lost, Unusable};
        assert!(matches!(error.failure, Busy | Lost | Unusable), "{status}: {error:?}");
    }
    if error.failure == RefreshFailure::Terminal {
        assert!(may_be_terminal, "{status}: {error:?}");
    }
}

/// Whether this is a JSON object, whatever is in it.
fn is_object(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}');
    serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text).is_ok()
}

/// The members as the plainest reader there is reads them.
fn naive(provider: &Provider, body: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(body).ok().map(|members| provider.read(members))
}

fn is_error(members: &Map<String, Value>) -> bool {
    let is_none =
        members.get("error").is_none_or(|error| error.is_null() || *error == "" || *error == false);
    !is_none || members.get("ok") == Some(&false.into())
}

/// K-07, K-32, K-33: a success gives its tokens; a new refresh token is kept whatever the rest says,
/// and whatever stands beside it.
fn assert_nothing_is_lost(
    answer: &Answer<'_>,
    provider: &Provider,
    any_type: bool,
    members: &Map<String, Value>,
) {
    let text = |name: &str| members.get(name)?.as_str().filter(|text| !text.is_empty());
    let is_success = (200..300).contains(&answer.status) && !is_error(members);
    let is_bearer =
        any_type || text("token_type").is_none_or(|name| name.eq_ignore_ascii_case("bearer"));
    let access_token = text("access_token").filter(|_| is_success && is_bearer);
    // What was made of bytes that are no UTF-8 is no token.
    let refresh_token =
        text("refresh_token").filter(|token| is_success && !token.contains('\u{fffd}'));
    for body in [answer.body.to_vec(), damaged(answer.body)] {
        let answer = Answer { body: &body, ..*answer };
        let read = answer.read(provider, any_type, &SENT);
        let kept = match &read {
            Ok(tokens) => tokens.refresh_token(),
            Err(error) => error.refresh_token.as_ref().map(|token| token.expose_secret()),
        };
        assert_eq!(kept, refresh_token, "{}", String::from_utf8_lossy(&body));
        assert_eq!(read.ok().as_ref().map(TokenSet::access_token), access_token);
    }
}

/// A JSON object with a byte order mark before it, and in it a member that nobody can read.
fn damaged(object: &[u8]) -> Vec<u8> {
    let object = object.trim_ascii();
    let deep = [b"[".repeat(200), b"]".repeat(200)].concat();
    let more = if object[1..].trim_ascii_start().starts_with(b"}") { &b""[..] } else { b"," };
    let beginning = b"\xEF\xBB\xBF{\"zz_1\":1e999,\"zz_2\":\"\xFF\",\"zz_3\":";
    [&beginning[..], &deep, more, &object[1..]].concat()
}

/// K-63. What a server puts where no token belongs, such as the scope, is not one.
fn assert_hidden_tokens(tokens: &TokenSet) {
    let names = tokens.members().keys().map(String::as_str);
    let open = [tokens.token_type(), tokens.scope()].into_iter().flatten().chain(names);
    let open = open.collect::<Vec<_>>().join(" ");
    let secrets = [Some(tokens.access_token()), tokens.refresh_token()].into_iter().flatten();
    let secrets = secrets
        .filter(|token| token.contains("canary") && !open.contains(token))
        .collect::<Vec<_>>();
    let printed = format!("{tokens:?} {:?}", tokens.expose_secrets());
    assert_none_of(&secrets, &[(String::new(), printed)]);
}
