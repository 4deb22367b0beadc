//! The form that is sent, the answer that comes back, and what it means.

use std::collections::BTreeMap;
use std::mem::take;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use secrecy::zeroize::Zeroizing;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use url::form_urlencoded::Serializer;

use crate::error::{RefreshError, RefreshFailure, ServerError};
use crate::proto::policy::LONGEST_PAUSE;
use crate::proto::provider::Provider;
use crate::proto::redact;
use crate::secret::Members;
use crate::token::TokenSet;

/// The parameters that a token request has of its own.
///
/// RFC 6749 §3.2: "Request and response parameters MUST NOT be included more than once."
pub(crate) const RESERVED: [&str; 7] = [
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "refresh_token",
    "scope",
];

/// The members in which servers tell how long the refresh token lasts (Q-11).
pub(crate) const REFRESH_LIFETIMES: [&str; 3] =
    ["refresh_expires_in", "refresh_token_expires_in", "x_refresh_token_expires_in"];

/// The body of a token request. A name that an earlier layer has hides it in the later ones.
pub(crate) fn token_form(layers: &[&[(&str, &str)]]) -> Zeroizing<String> {
    let mut form = Serializer::new(empty_form(layers.iter().copied().flatten().copied()));
    for (index, layer) in layers.iter().enumerate() {
        let is_hidden = |name| layers[..index].iter().copied().flatten().any(|(n, _)| *n == name);
        form.extend_pairs(layer.iter().filter(|(name, _)| !is_hidden(*name)));
    }
    form.finish().into()
}

/// The body of a revocation request (RFC 7009 §2.1). The hint is always sent: digiRunner demands it.
pub(crate) fn revocation_form(
    token: &str,
    hint: &str,
    others: &[(&str, &str)],
) -> Zeroizing<String> {
    let pairs =
        [("token", token), ("token_type_hint", hint)].into_iter().chain(others.iter().copied());
    let mut form = Serializer::new(empty_form(pairs.clone()));
    form.extend_pairs(pairs).finish().into()
}

/// Room for a form of these pairs: where a text grows, what it outgrows is not wiped.
fn empty_form<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let longest = |text: &str| 3 * text.len() + 1; // `%41`, and `=` or `&`
    String::with_capacity(pairs.map(|(name, value)| longest(name) + longest(value)).sum())
}

/// An answer of a token endpoint, whole.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    /// Whether the server calls the body a form.
    pub(crate) is_form: bool,
    pub(crate) body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// What came, at `now`.
    pub(crate) fn new(status: u16, headers: &HeaderMap, body: &'a [u8], now: SystemTime) -> Self {
        Self { status, retry_after: retry_after(headers, now), is_form: is_form(headers), body }
    }

    /// The new tokens, or why there are none. What is kept of the server's words has none of
    /// `secrets` in it.
    pub(crate) fn read(
        &self,
        provider: &Provider,
        any_type: bool,
        secrets: &[&str],
    ) -> Result<TokenSet, RefreshError> {
        let Some(members) = self.members() else {
            let failure = provider.unreadable(self.status);
            let message = "the token endpoint's answer is not a JSON object";
            return Err(self.error(failure, message, ServerError::new(self.status, None)));
        };
        let members = Members::from(provider.read(members));
        // Some servers answer 200 with an error in it, so it is looked for whatever the status.
        if let Some(error) = self.server_error(provider, &members, secrets) {
            let failure = provider.classify(&error);
            return Err(self.error(failure, "the token endpoint refused the request", error));
        }
        self.tokens(members, any_type)
    }

    /// Whether a revocation endpoint has followed (RFC 7009 §2.2), or why not (§2.2.1).
    ///
    /// "The authorization server responds with HTTP status code 200 if the token has been revoked
    /// successfully or if the client submitted an invalid token." Nothing needs to be in the body;
    /// but an error that is there counts, whatever the status.
    pub(crate) fn revoked(
        &self,
        provider: &Provider,
        secrets: &[&str],
    ) -> Result<(), RefreshError> {
        let members = self.members().map(|members| provider.read(members)).unwrap_or_default();
        let members = Members::from(members);
        match self.server_error(provider, &members, secrets) {
            Some(error) => {
                let failure = provider.classify(&error);
                Err(self.error(failure, "the revocation endpoint did not follow", error))
            }
            None => Ok(()),
        }
    }

    /// A JSON object, or what GitHub answers to those who do not ask for JSON: a form.
    fn members(&self) -> Option<Map<String, Value>> {
        json_object(self.body).or_else(|| {
            let is_form = self.is_form && !self.body.is_empty();
            let pairs = url::form_urlencoded::parse(self.body);
            is_form.then(|| pairs.map(|(name, value)| (name.into(), value.into())).collect())
        })
    }

    fn error(
        &self,
        failure: RefreshFailure,
        message: &'static str,
        server: ServerError,
    ) -> RefreshError {
        let error = RefreshError::new(failure, message).with_server_error(server);
        match self.retry_after {
            Some(duration) => error.with_retry_after(duration),
            None => error,
        }
    }

    /// RFC 6749 §5.2, and what else servers make of it: an error object, `"ok": false`.
    fn server_error(
        &self,
        provider: &Provider,
        members: &Map<String, Value>,
        secrets: &[&str],
    ) -> Option<ServerError> {
        let error = &members.get("error").unwrap_or(&Value::Null);
        let is_success = (200..300).contains(&self.status);
        let is_none = error.is_null() || *error == "" || *error == false;
        let is_error = !is_none || members.get("ok") == Some(&false.into());
        if is_success && !is_error {
            return None;
        }
        // Tokens that come with an error are of no use, but they are tokens.
        let theirs = ["access_token", "id_token", "refresh_token"]
            .iter()
            .filter_map(|name| members.get(*name)?.as_str());
        let secrets: Vec<_> = secrets.iter().copied().chain(theirs).collect();
        let escaped = redact::escaped(&secrets);
        let escaped = escaped.iter().map(|secret| secret.as_str());
        let secrets = &secrets.into_iter().chain(escaped).collect::<Vec<_>>()[..];
        let clean = |value: &Value| Some(redact::text(value.as_str()?, secrets));
        let member = |name: &str| clean(members.get(name)?);
        let inner = |name: &str| clean(error.get(name)?);
        // A name such as `invalid_grant` stays whole, whatever a short secret spells.
        let name = |value: &Value| {
            let name = value.as_str()?;
            let is_name = redact::is_name(name) || provider.names(name);
            (is_name && !secrets.contains(&name)).then(|| name.to_owned())
        };
        let code = [Some(*error), error.get("code"), error.get("type")]
            .into_iter()
            .flatten()
            .find_map(|value| name(value).or_else(|| clean(value)))
            .filter(|code| !code.is_empty());
        let description =
            member("error_description").or_else(|| member("message")).or_else(|| inner("message"));
        let mut server = ServerError::new(self.status, code);
        if let Some(description) = description {
            server = server.with_description(description);
        }
        if self.body.len() > LONGEST_ERROR {
            return Some(server);
        }
        let claims = members.get("claims").filter(|claims| is_claims_request(claims, secrets));
        let mut clean = redact::members(members, secrets);
        clean.extend(claims.map(|claims| ("claims".to_owned(), claims.clone())));
        Some(server.with_members(clean))
    }

    /// RFC 6749 §5.1.
    fn tokens(&self, mut members: Members, any_type: bool) -> Result<TokenSet, RefreshError> {
        let mut text = |name: &str| match members.remove(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(Zeroizing::new(text)),
            _ => None,
        };
        // Of bytes that were no UTF-8 nobody knows what they meant: the old refresh token may be dead,
        // but what was made of the new one certainly is.
        let is_readable = |token: &Zeroizing<String>| !token.contains(char::REPLACEMENT_CHARACTER);
        let refresh_token = text("refresh_token").filter(is_readable);
        let access_token = text("access_token");
        let token_type = text("token_type");
        let unusable = |failure, message: &'static str| {
            let error = self.error(failure, message, ServerError::new(self.status, None));
            match &refresh_token {
                Some(refresh_token) => error.with_refresh_token(refresh_token.as_str()),
                None => error,
            }
        };
        let Some(access_token) = access_token else {
            return Err(unusable(RefreshFailure::Unusable, "the answer has no access token"));
        };
        // RFC 6749 §7.1: "The client MUST NOT use an access token if it does not understand the
        // token type."
        let is_bearer = token_type.as_ref().is_none_or(|name| name.eq_ignore_ascii_case("bearer"));
        if !is_bearer && !any_type {
            let message = "the token type is not Bearer; if the server means Bearer by it, \
                           call TokenEndpoint::with_any_token_type";
            return Err(unusable(RefreshFailure::Configuration, message));
        }

        let lifetime = seconds(members.remove("expires_in").as_ref());
        let scope = members.remove("scope").and_then(scope);
        let refresh_lifetime =
            REFRESH_LIFETIMES.iter().find_map(|name| seconds(members.get(*name)));
        let mut tokens = TokenSet::new(access_token.as_str())
            .with_refresh_token(refresh_token.as_ref().map_or("", |token| token))
            .with_expires_in(lifetime.unwrap_or_default())
            .with_refresh_expires_in(refresh_lifetime)
            .with_members(take(&mut members));
        if let Some(token_type) = token_type {
            tokens = tokens.with_token_type(token_type.as_str());
        }
        if let Some(scope) = scope {
            tokens = tokens.with_scope(scope);
        }
        Ok(tokens)
    }
}

/// The members of a JSON object. A byte order mark, bytes that are no UTF-8 and a member that cannot
/// be read (a number beyond all numbers) do not cost the others: a new refresh token may be there.
///
/// Of a member that is there twice the last one counts, as with most parsers. RFC 6749 §3.2 forbids
/// to send one, and RFC 8259 §4 calls what becomes of it "unpredictable"; RFC 7519 §4 lets a reader
/// refuse, or take the last. To refuse would lose a pair that other clients find.
pub(crate) fn json_object(body: &[u8]) -> Option<Map<String, Value>> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}');
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let read = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap_or_default();
    Some(members.into_iter().map(|(name, raw)| (name, read(raw))).collect())
}

/// An error answer is a few hundred bytes. Of one that is larger than this no other members are kept:
/// a dead session has them for as long as it is dead.
const LONGEST_ERROR: usize = 64 * 1024;

/// A claims request is a few hundred bytes.
const LONGEST_CLAIMS: usize = 8 * 1024;

/// Whether this is a claims request (OpenID Connect Core §5.5), as Entra sends one: JSON in a text.
/// The next login repeats it to the letter, so it is not shortened, unless a secret is in it, or
/// could be: JSON has more ways than one to write a text, but not without a backslash, and a URL not
/// without a percent sign.
fn is_claims_request(claims: &Value, secrets: &[&str]) -> bool {
    claims.as_str().is_some_and(|text| {
        text.len() <= LONGEST_CLAIMS
            && json_object(text.as_bytes()).is_some()
            && !text.contains(['\\', '%'])
            && !redact::has_secret(text, secrets)
    })
}

impl TokenSet {
    /// Reads the JSON answer of a token endpoint (RFC 6749 §5.1), such as a login gets. For a server
    /// with answers of its own, such as Slack, see [`Provider::read_tokens`].
    ///
    /// Its `expires_in` counts from the moment at which the set is handed to a session, so do that
    /// at once. Any `token_type` will do. Of a member that is there twice the last one counts.
    ///
    /// ```
    /// use reqwest_refresh::TokenSet;
    ///
    /// # fn main() -> Result<(), reqwest_refresh::RefreshError> {
    /// let answer = br#"{"access_token": "a", "refresh_token": "r", "expires_in": 86399}"#;
    /// let tokens = TokenSet::from_json(answer)?;
    /// assert_eq!(tokens.refresh_token(), Some("r"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What the server says, if it says an error instead (§5.2), or that there is no access token.
    pub fn from_json(answer: &[u8]) -> Result<Self, RefreshError> {
        Provider::rfc6749().read_tokens(answer)
    }
}

impl Provider {
    /// Reads the JSON answer of this server's token endpoint, such as a login gets, through its
    /// [reader](Self::with_reader). For servers whose answers [`TokenSet::from_json`] cannot read;
    /// otherwise the same.
    ///
    /// ```
    /// use reqwest_refresh::Provider;
    ///
    /// # fn main() -> Result<(), reqwest_refresh::RefreshError> {
    /// let answer = br#"{"ok": true, "authed_user": {"access_token": "xoxe.xoxp-1"}}"#;
    /// let tokens = Provider::slack().read_tokens(answer)?;
    /// assert_eq!(tokens.access_token(), "xoxe.xoxp-1");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// What the server says, if it says an error instead, or that there is no access token.
    pub fn read_tokens(&self, answer: &[u8]) -> Result<TokenSet, RefreshError> {
        let answer = Answer { status: 200, retry_after: None, is_form: false, body: answer };
        answer.read(self, true, &[])
    }
}

/// A lifetime: a number, a float or a text with one in it. Nothing, nonsense, zero (Keycloak and
/// Mailchimp mean "no end" by it) and less say nothing.
fn seconds(value: Option<&Value>) -> Option<Duration> {
    let seconds = match value? {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let is_usable = seconds > 0.0 && seconds.is_finite();
    is_usable.then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// A text (RFC 6749 §3.3), or an array of texts (Twitch).
fn scope(value: Value) -> Option<String> {
    match value {
        Value::String(scope) => Some(scope),
        Value::Array(items) => {
            Some(items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    }
}

/// How long a server asks to be left alone, an hour at most. A date is compared with the server's
/// own clock where it tells it.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let server_time = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let pause = pause(text(RETRY_AFTER)?, server_time.unwrap_or(now))?;
    Some(pause.min(LONGEST_PAUSE))
}

/// `Retry-After` (RFC 9110 §10.2.3): "a nonnegative decimal integer" of seconds, or a date.
pub(crate) fn pause(retry_after: &str, now: SystemTime) -> Option<Duration> {
    let value = retry_after.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// RFC 9110 §8.3.1: type and subtype are compared without case; parameters may follow.
fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests;
