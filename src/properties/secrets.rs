//! Secrets that must not be seen, and the places where they would be.

use std::error::Error as StdError;
use std::iter;

use serde_json::{Map, Value};

use crate::error::{RefreshError, RefreshFailure};

/// The secrets of the request: a refresh token, a password of digits, and two of other characters.
pub(super) const SENT: [&str; 4] =
    ["CANARY-7/sent+1234.token==", "471108154711", "pass \"wörd\" 7", r"k9!\w"];
/// The same, as a form has them, as JSON has them, and the first as PHP's JSON has it.
pub(super) const ESCAPED: [&str; 6] = [
    "CANARY-7%2Fsent%2B1234.token%3D%3D",
    r"CANARY-7\/sent+1234.token==",
    "pass+%22w%C3%B6rd%22+7",
    r#"pass \"wörd\" 7"#,
    "k9%21%5Cw",
    r"k9!\\w",
];
/// A secret that comes with the answer. Too short to be taken for a token if nobody knows it.
pub(super) const THEIRS: &str = "t7-canary";

/// As long as a token; RFC 6750 §2.1 has the characters, and `\` and `%` escape some of them.
pub(super) const TOKEN: usize = 20;

/// K-63: no error shows a secret of the request, or one that came with it.
pub(super) fn assert_hidden(error: RefreshError, naive: Option<&Map<String, Value>>) {
    let came = ["access_token", "id_token", "refresh_token"].into_iter();
    let came = came.filter_map(|name| naive?.get(name)?.as_str()).any(|token| token == THEIRS);
    let secrets = SENT.into_iter().chain(ESCAPED).chain(came.then_some(THEIRS)).collect::<Vec<_>>();
    if let Some(server) = error.server_error() {
        server.code().into_iter().chain(server.description()).for_each(assert_harmless);
    }
    assert_none_of(&secrets, &chain(&error));
    if error.failure == RefreshFailure::Terminal {
        let reason = error.into_refusal(false);
        assert_none_of(&secrets, &[(reason.explain(), format!("{reason:?}"))]);
    } else {
        assert_none_of(&secrets, &chain(&error.into_shared()));
    }
}

/// No control character, no run as long as a token but names such as `invalid_grant`, and not
/// endless.
pub(super) fn assert_harmless(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.chars().count() <= 257, "{text:?}");
    let is_token =
        |character: char| character.is_ascii_alphanumeric() || "-._~+/=%\\".contains(character);
    for run in text.split(|character| !is_token(character)).filter(|run| run.len() >= TOKEN) {
        let letters = |is: fn(char) -> bool| run.chars().all(|c| c == '_' || is(c));
        // A name of capitals may have lost its underscore at the end of the text.
        let is_cut = text.ends_with(&format!("{run}…"));
        let is_name = letters(|c| c.is_ascii_lowercase())
            || (is_cut || run.contains('_')) && letters(|c| c.is_ascii_uppercase());
        assert!(is_name, "{run:?} is in {text:?}");
    }
}

/// All errors of a chain, for people and for developers.
fn chain(error: &(dyn StdError + 'static)) -> Vec<(String, String)> {
    let chain =
        iter::successors(Some(error), |error: &&(dyn StdError + 'static)| (*error).source());
    chain.map(|error| (error.to_string(), format!("{error:?}"))).collect()
}

/// None of the secrets is in what people see, nor in what developers see, where texts are escaped.
pub(super) fn assert_none_of(secrets: &[&str], printed: &[(String, String)]) {
    for secret in secrets {
        let debug = format!("{secret:?}");
        for (display, printed) in printed {
            assert!(!display.contains(secret), "{secret} is in {display}");
            let secret = &debug[1..debug.len() - 1];
            let has_it = match secret.contains('\\') {
                true => printed.contains(secret),
                // The letter of an escaped tab is not the first one of a secret behind it.
                false => printed.replace("\\t", " ").contains(secret),
            };
            assert!(!has_it, "{secret} is in {printed}");
        }
    }
}
