//! Takes everything that looks like a secret out of a server's text.

use std::iter::Peekable;
use std::str::MatchIndices;

use serde_json::{Map, Value};

const HIDDEN: &str = "[hidden]";
/// A run of this many token characters is taken for a token, known or not.
const SUSPICIOUS: usize = 20;
/// More of a text for developers is of no use to them.
const LONGEST: usize = 256;

/// `text` without the `secrets`, without anything as long as a token, without control characters,
/// and not endless.
///
/// digiRunner and old Spring servers echo the whole refresh token in `error_description`, others
/// cut it; what remains of a cut one is still taken out while it is long enough to be of use.
///
/// The server chose the text, and perhaps some of the secrets: it is gone through once, and no
/// further than is of use.
pub(crate) fn text(text: &str, secrets: &[&str]) -> String {
    let mut secrets = Secrets::within(text, secrets);
    let mut out = String::new();
    // Where the characters begin that may be a token.
    let mut start = 0;
    let mut is_secret = false;
    for (index, character) in text.char_indices().chain([(text.len(), ' ')]) {
        let was_secret = std::mem::replace(&mut is_secret, secrets.cover(index));
        if is_token_character(character) && !is_secret {
            continue;
        }
        let run = &text[start..index];
        out.push_str(if is_suspicious(run) { HIDDEN } else { run });
        start = index + character.len_utf8();
        match is_secret {
            true if was_secret => {}
            true => out.push_str(HIDDEN),
            false => out.push(if character.is_control() { ' ' } else { character }),
        }
        // Enough, however long its characters are.
        if out.len() > 4 * (LONGEST + 1) {
            break;
        }
    }
    out.pop();
    if let Some((end, _)) = out.char_indices().nth(LONGEST) {
        out.truncate(end);
        out.push('…');
    }
    out
}

/// Where the secrets are in a text.
struct Secrets<'a> {
    found: Vec<Peekable<MatchIndices<'a, &'a str>>>,
    /// Where the ones that begin before here end.
    end: usize,
}

impl<'a> Secrets<'a> {
    fn within(text: &'a str, secrets: &[&'a str]) -> Self {
        // To look for one takes as long as it is, found or not.
        let may_be_there = |secret: &&&str| (1..=text.len()).contains(&secret.len());
        let secrets = secrets.iter().filter(may_be_there);
        Self {
            found: secrets.map(|secret| text.match_indices(*secret).peekable()).collect(),
            end: 0,
        }
    }

    /// Whether the character at `index` is part of one. Asked of one index after the other.
    fn cover(&mut self, index: usize) -> bool {
        for secret in &mut self.found {
            while let Some((start, secret)) = secret.next_if(|(start, _)| *start <= index) {
                self.end = self.end.max(start + secret.len());
            }
        }
        index < self.end
    }
}

/// `members` with every text in them, names included, made clean.
pub(crate) fn members(members: &Map<String, Value>, secrets: &[&str]) -> Map<String, Value> {
    members.iter().map(|(name, member)| (text(name, secrets), value(member, secrets))).collect()
}

fn value(value: &Value, secrets: &[&str]) -> Value {
    match value {
        Value::String(string) => text(string, secrets).into(),
        Value::Array(items) => items.iter().map(|item| self::value(item, secrets)).collect(),
        Value::Object(object) => members(object, secrets).into(),
        other => other.clone(),
    }
}

/// As long as a token, and not a name such as `unsupported_grant_type`.
fn is_suspicious(run: &str) -> bool {
    run.len() >= SUSPICIOUS && !is_name(run)
}

/// Whether this is a name such as `invalid_grant` or `BAD_REFRESH_TOKEN`, by its letters.
pub(crate) fn is_name(text: &str) -> bool {
    let consists_of = |is_letter: fn(&u8) -> bool| text.bytes().all(|b| b == b'_' || is_letter(&b));
    consists_of(u8::is_ascii_lowercase)
        || (text.contains('_') && consists_of(u8::is_ascii_uppercase))
}

/// RFC 6750 §2.1 `b64token`, and the characters by which such a token is escaped elsewhere.
fn is_token_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~+/=%\\".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_63_nothing_that_looks_like_a_token_survives() {
        let jwt = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJub2RlIjoiZXhlY3V0b3IxIn0.c2ln";
        for (case, input, expected) in [
            ("plain", "Bad credentials", "Bad credentials"),
            ("known, short", "token abc is over", "token [hidden] is over"),
            ("known, one within another", "token abcdef", "token [hidden]"),
            ("known, one across another", "token babcdef", "token [hidden]"),
            ("known, twice", "abc, abc", "[hidden], [hidden]"),
            ("known, in a word", "xabcx", "x[hidden]x"),
            ("hiding one shows no other", "abc hi", "[hidden] [hidden]"),
            ("unknown, long", &format!("expired: {jwt}"), "expired: [hidden]"),
            ("cut by the server", &format!("expired: {}...", &jwt[..24]), "expired: [hidden]"),
            ("in quotes", &format!("\"{jwt}\""), "\"[hidden]\""),
            ("log injection", "a\r\nINFO b", "a  INFO b"),
            ("names stay", "unsupported_grant_type", "unsupported_grant_type"),
            ("so do capitals", "BAD_REFRESH_TOKEN_GIVEN", "BAD_REFRESH_TOKEN_GIVEN"),
            ("a secret in Base32", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "[hidden]"),
            ("empty", "", ""),
        ] {
            assert_eq!(text(input, &["abc", "abcdef", "bab", "hi", ""]), expected, "{case}");
        }
    }

    #[test]
    fn k_63_long_texts_are_cut_at_a_character() {
        let cut = text(&"ä ".repeat(1000), &[]);
        assert_eq!(cut.chars().count(), LONGEST + 1);
        for (length, expected) in [(LONGEST, LONGEST), (LONGEST + 1, LONGEST + 1)] {
            assert_eq!(text(&"😀".repeat(length), &[]).chars().count(), expected);
        }
    }

    #[test]
    fn k_63_nested_members_are_cleaned_too() {
        let clean = value(&serde_json::json!({"abc": [{"x": "abc"}], "n": 1}), &["abc"]);
        assert_eq!(clean, serde_json::json!({"[hidden]": [{"x": "[hidden]"}], "n": 1}));
    }
}
