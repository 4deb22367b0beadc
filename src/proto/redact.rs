//! Takes everything that looks like a secret out of a server's text.

use std::iter::Peekable;
use std::str::MatchIndices;

use secrecy::zeroize::Zeroizing;
use serde_json::{Map, Value};
use url::form_urlencoded::byte_serialize;

use crate::secret::SecretBytes;

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
    let text = without_controls(text);
    let mut secrets = Secrets::within(&text, secrets);
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
            false => out.push(character),
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

/// The `secrets` on one line, as a form has them (RFC 6749 appendix B) and as JSON has them (RFC 8259
/// §7), where that is not how they are. Long ones that take escaping look like tokens anyway.
pub(crate) fn escaped(secrets: &[&str]) -> Vec<Zeroizing<String>> {
    let forms = secrets.iter().flat_map(|secret| {
        // What is longer does not come out whole.
        let is_short = secret.len() <= 4 * LONGEST;
        let escaped = is_short.then(|| [as_form(secret), as_json(secret)]);
        let forms = [without_controls(secret)].into_iter().chain(escaped.into_iter().flatten());
        forms.filter(move |form| form.as_str() != *secret)
    });
    forms.collect()
}

fn as_form(secret: &str) -> Zeroizing<String> {
    // A byte becomes three at most: nothing is moved, and left behind, while it grows.
    let mut form = Zeroizing::new(String::with_capacity(3 * secret.len()));
    form.extend(byte_serialize(secret.as_bytes()));
    form
}

fn as_json(secret: &str) -> Zeroizing<String> {
    let mut json = SecretBytes::default();
    // A text can always be written.
    let _ = serde_json::to_writer(&mut json, secret);
    let json = str::from_utf8(&json).unwrap_or_default();
    let unquoted = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
    Zeroizing::new(unquoted.unwrap_or_default().to_owned())
}

/// A space for each of them: a text that is broken elsewhere is the same text.
fn without_controls(text: &str) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(text.len()));
    line.extend(text.chars().map(|character| if character.is_control() { ' ' } else { character }));
    line
}

/// Whether one of the `secrets` is in `text`.
pub(crate) fn has_secret(text: &str, secrets: &[&str]) -> bool {
    secrets.iter().any(|secret| !secret.is_empty() && text.contains(secret))
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

/// `members` with every text in them, names included, made clean, and no number that has a secret in
/// it.
pub(crate) fn members(members: &Map<String, Value>, secrets: &[&str]) -> Map<String, Value> {
    members.iter().map(|(name, member)| (text(name, secrets), value(member, secrets))).collect()
}

fn value(value: &Value, secrets: &[&str]) -> Value {
    match value {
        Value::String(string) => text(string, secrets).into(),
        Value::Array(items) => items.iter().map(|item| self::value(item, secrets)).collect(),
        Value::Object(object) => members(object, secrets).into(),
        Value::Number(number) if has_secret(&number.to_string(), secrets) => HIDDEN.into(),
        other => other.clone(),
    }
}

/// As long as a token, and not a name such as `unsupported_grant_type`.
fn is_suspicious(run: &str) -> bool {
    run.len() >= SUSPICIOUS && !is_name(run)
}

/// Whether this is a name such as `invalid_grant` or `BAD_REFRESH_TOKEN`, by its letters, and not
/// endless.
pub(crate) fn is_name(text: &str) -> bool {
    let consists_of = |is_letter: fn(&u8) -> bool| text.bytes().all(|b| b == b'_' || is_letter(&b));
    let is_capital = || text.contains('_') && consists_of(u8::is_ascii_uppercase);
    text.len() <= LONGEST && (consists_of(u8::is_ascii_lowercase) || is_capital())
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
        let secrets = ["abc", "abcdef", "bab", "hi", "pass word", "a\"b", ""];
        let escaped = escaped(&secrets);
        let secrets: Vec<_> =
            secrets.into_iter().chain(escaped.iter().map(|form| form.as_str())).collect();
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
            ("known, with a space, on two lines", "over: pass\nword", "over: [hidden]"),
            ("known, as a form has it", "x=pass+word&y", "x=[hidden]&y"),
            ("known, as JSON has it", r#"{"x": "a\"b"}"#, r#"{"x": "[hidden]"}"#),
            ("an endless name", &"a".repeat(LONGEST + 1), "[hidden]"),
            ("a secret in Base32", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "[hidden]"),
            ("empty", "", ""),
        ] {
            assert_eq!(text(input, &secrets), expected, "{case}");
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
    fn k_63_a_long_secret_of_many_lines_is_a_secret() {
        for lines in [10, 100] {
            let secret = "ä b\n".repeat(lines * LONGEST / 10);
            let escaped = escaped(&[&secret]);
            let secrets: Vec<_> = escaped.iter().map(|form| form.as_str()).collect();
            assert_eq!(text(&format!("over: {secret}"), &secrets), "over: [hidden]");
        }
    }

    #[test]
    fn k_63_a_long_secret_of_many_words_is_a_secret_as_json_has_it_too() {
        let secret = "pass \"word\" ".repeat(LONGEST / 4);
        let escaped = escaped(&[&secret]);
        let secrets: Vec<_> = escaped.iter().map(|form| form.as_str()).collect();
        let json = serde_json::to_string(&secret).unwrap();
        assert_eq!(text(&format!("over: {json}"), &secrets), "over: \"[hidden]\"");
    }

    /// A server may make a number of a password that looks like one.
    #[test]
    fn k_63_a_number_is_no_hiding_place() {
        let numbers = serde_json::json!([471_108, 1.471_108e8, -4_711_081, 4711]);
        let clean = value(&numbers, &["471108", ""]);
        assert_eq!(clean, serde_json::json!(["[hidden]", "[hidden]", "[hidden]", 4711]));
    }

    #[test]
    fn k_63_nested_members_are_cleaned_too() {
        let clean = value(&serde_json::json!({"abc": [{"x": "abc"}], "n": 1}), &["abc"]);
        assert_eq!(clean, serde_json::json!({"[hidden]": [{"x": "[hidden]"}], "n": 1}));
    }
}
