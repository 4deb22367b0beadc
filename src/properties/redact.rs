//! What a server's text may still say.

use url::form_urlencoded;

use crate::properties::input::Input;
use crate::properties::secrets::{TOKEN, assert_harmless};
use crate::proto::redact as redactor;

/// K-63: no secret survives, nothing as long as a token, no control character, and no long text.
pub fn redact(input: &[u8]) {
    let mut input = Input::new(input);
    let secrets: Vec<String> = (0..input.below(4)).map(|_| input.text()).collect();
    let token = input.flag().then(|| (token(&mut input), input.byte()));
    let mut text = input.text();
    if let Some((token, place)) = &token {
        let place = text.chars().take(usize::from(*place)).map(char::len_utf8).sum();
        text.insert_str(place, token);
    }
    let borrowed = secrets.iter().map(String::as_str).collect::<Vec<_>>();
    let escaped = redactor::escaped(&borrowed);
    let escaped = escaped.iter().map(|secret| secret.as_str());
    let borrowed = borrowed.into_iter().chain(escaped).collect::<Vec<_>>();
    let clean = redactor::text(&text, &borrowed);
    assert_harmless(&clean);
    if let Some((token, _)) = token {
        assert!(!clean.contains(&token), "{clean:?}");
    }
    if !secrets.iter().any(|secret| is_spelt_by_the_marks(secret)) {
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            let json = serde_json::to_string(secret).expect("a text");
            let form = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            for form in
                [secret.replace(char::is_control, " "), json[1..json.len() - 1].into(), form]
            {
                assert!(!clean.contains(&form), "{form:?} is in {clean:?}");
            }
        }
        let are_words = !secrets.concat().contains(|c: char| c.is_whitespace() || c.is_control());
        for secret in secrets.iter().filter(|secret| are_words && !secret.is_empty()) {
            let alone = redactor::text(&format!(" {secret} "), &borrowed);
            assert_eq!(alone, " [hidden] ", "is left of {secret:?}");
        }
        let is_cut = clean.ends_with('…');
        assert!(is_cut || redactor::text(&clean, &borrowed) == clean, "{clean:?} is not clean");
    }
}

/// What stands for a secret, or for the rest of a text, may spell a secret itself.
fn is_spelt_by_the_marks(secret: &str) -> bool {
    secret.contains(['[', ']', '…']) || !secret.is_empty() && "hidden".contains(secret)
}

/// A token, as it is or as an escape of JSON, a URL or C has it. It has a digit.
fn token(input: &mut Input<'_>) -> String {
    const CHARACTERS: &[u8] =
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/=";
    let length = TOKEN + input.below(20);
    let characters = (0..length).map(|_| char::from(input.one_of(CHARACTERS))).collect::<Vec<_>>();
    let escaped = characters.into_iter().map(|character| match input.below(6) {
        0 => format!("%{:02X}", u32::from(character)),
        1 => format!("\\u{:04x}", u32::from(character)),
        2 => format!("\\x{:02x}", u32::from(character)),
        3 if character == '/' => "\\/".into(),
        _ => character.into(),
    });
    "7".to_owned() + &escaped.collect::<String>()
}
