//! The tokens of a session, and the number that tells one set from the next.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::clock::{FAR, Moment};
use crate::secret::{Members, secret};

#[cfg(feature = "oauth2")]
mod oauth2;
mod serde;

pub use self::serde::ExposedTokenSet;

/// An access token, perhaps a refresh token, and what is known about both (RFC 6749 §5.1).
///
/// Make one from what the login gave you:
///
/// ```
/// use std::time::Duration;
/// use reqwest_refresh::TokenSet;
///
/// let tokens = TokenSet::new("the access token")
///     .with_refresh_token("the refresh token")
///     .with_expires_in(Duration::from_secs(3600));
/// assert_eq!(tokens.access_token(), "the access token");
/// assert!(!format!("{tokens:?}").contains("the access token"));
/// ```
///
/// Without an end, the `exp` of a JWT is used; without that, only a 401 tells that it is over.
///
/// A clone is the same set: it costs a counter, and the tokens lie in memory once.
///
/// A set wipes its tokens, and the texts among its members, from memory when its last clone is
/// dropped.
#[derive(Clone)]
pub struct TokenSet {
    parts: Arc<Parts>,
}

#[derive(Clone)]
struct Parts {
    /// `Bearer …`: the header that a session makes of the set are these bytes.
    authorization: SecretString,
    refresh_token: Option<SecretString>,
    token_type: Option<Cow<'static, str>>,
    lifetime: Option<Duration>,
    expires_at: Option<SystemTime>,
    login: Option<Login>,
    details: Option<Box<Details>>,
}

/// What many servers do not say.
#[derive(Clone, Default)]
struct Details {
    scope: Option<String>,
    refresh_expires_in: Option<Duration>,
    refresh_expires_at: Option<SystemTime>,
    members: Members,
}

/// Which login a set comes from, a random number, and how often it was refreshed since. Tells what
/// has followed a set from what somebody else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Login {
    id: NonZeroU32,
    refreshes: u32,
}

static NO_DETAILS: LazyLock<Details> = LazyLock::new(Details::default);

/// RFC 6750 §2.1, with the space behind it.
const SCHEME: &str = "Bearer ";

impl TokenSet {
    /// A set with this access token and nothing else.
    pub fn new(access_token: impl Into<String>) -> Self {
        let access_token = Zeroizing::new(access_token.into());
        let parts = Parts {
            authorization: secret([SCHEME, &access_token].concat()),
            refresh_token: None,
            token_type: None,
            lifetime: None,
            expires_at: None,
            login: None,
            details: None,
        };
        Self { parts: Arc::new(parts) }
    }

    /// Sets the refresh token. An empty one counts as none.
    #[must_use]
    pub fn with_refresh_token(mut self, refresh_token: impl Into<String>) -> Self {
        let refresh_token = secret(refresh_token);
        let is_there = !refresh_token.expose_secret().is_empty();
        self.parts().refresh_token = is_there.then_some(refresh_token);
        self
    }

    /// Sets the access token's whole lifetime (`expires_in`), counted from the moment at which the
    /// set is handed to a session; for a set that is older, say
    /// [when it ends](Self::with_expires_at) too. Zero counts as unknown.
    #[must_use]
    pub fn with_expires_in(mut self, lifetime: Duration) -> Self {
        self.parts().lifetime = (!lifetime.is_zero()).then(|| lifetime.min(FAR));
        self
    }

    /// Sets the moment at which the access token ends.
    #[must_use]
    pub fn with_expires_at(mut self, end: SystemTime) -> Self {
        self.parts().expires_at = Some(end);
        self
    }

    /// Sets the moment at which the refresh token ends, where the server tells it.
    #[must_use]
    pub fn with_refresh_expires_at(self, end: SystemTime) -> Self {
        let lifetime = self.details().refresh_expires_in;
        self.with_refresh_end(lifetime, Some(end))
    }

    pub(crate) fn with_refresh_expires_in(self, lifetime: Option<Duration>) -> Self {
        let end = self.refresh_expires_at();
        self.with_refresh_end(lifetime, end)
    }

    /// Sets the scope, as the server wrote it (RFC 6749 §3.3).
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.details_mut().scope = Some(scope.into());
        self
    }

    /// Sets the token type, as the server wrote it (RFC 6749 §7.1).
    #[must_use]
    pub fn with_token_type(mut self, token_type: impl Into<String>) -> Self {
        self.parts().token_type = Some(match token_type.into() {
            // What nearly all servers write takes no room.
            bearer if bearer == "Bearer" => "Bearer".into(),
            bearer if bearer == "bearer" => "bearer".into(),
            other => other.into(),
        });
        self
    }

    /// Sets the server's other members: `jti`, `org_id`, `id_token`, …
    #[must_use]
    pub fn with_members(mut self, members: Map<String, Value>) -> Self {
        if !(members.is_empty() && self.members().is_empty()) {
            self.details_mut().members = members.into();
        }
        self
    }

    /// The access token. A secret: not for logs.
    pub fn access_token(&self) -> &str {
        &self.parts.authorization.expose_secret()[SCHEME.len()..]
    }

    /// The refresh token. A secret: not for logs.
    pub fn refresh_token(&self) -> Option<&str> {
        self.parts.refresh_token.as_ref().map(|token| token.expose_secret())
    }

    /// The token type, as the server wrote it.
    pub fn token_type(&self) -> Option<&str> {
        self.parts.token_type.as_deref()
    }

    /// The scope, as the server wrote it; space-delimited by RFC 6749 §3.3.
    pub fn scope(&self) -> Option<&str> {
        self.details().scope.as_deref()
    }

    /// The access token's whole lifetime, where it is known.
    pub fn expires_in(&self) -> Option<Duration> {
        self.parts.lifetime
    }

    /// When the access token ends, where that is known, by the wall clock.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.parts.expires_at
    }

    /// When the refresh token ends, where that is known, by the wall clock.
    pub fn refresh_expires_at(&self) -> Option<SystemTime> {
        self.details().refresh_expires_at
    }

    /// The server's other members, as they came. They may be secrets (`id_token`).
    pub fn members(&self) -> &Map<String, Value> {
        &self.details().members
    }

    /// `Bearer <access token>`, the set's own bytes: as long as they are used, it is not wiped.
    pub(crate) fn authorization(&self) -> Authorization {
        Authorization(self.clone())
    }

    /// These tokens as those of a new login, whose `id` is random.
    pub(crate) fn of_login(mut self, id: NonZeroU32) -> Self {
        self.parts().login = Some(Login { id, refreshes: 0 });
        self
    }

    /// Whether these are what a login has given, not refreshed yet.
    pub(crate) fn is_login(&self) -> bool {
        self.parts.login.is_some_and(|login| login.refreshes == 0)
    }

    /// Whether these have come out of `other` by refreshes, as far as anybody knows.
    pub(crate) fn succeeds(&self, other: &Self) -> bool {
        let refreshes = |set: &Self| set.parts.login.map(|login| login.refreshes);
        self.shares_login(other) && refreshes(self) > refreshes(other)
    }

    /// Whether both have come out of one login, by refreshes; as far as anybody knows, also where
    /// neither says of which. A login of today says it.
    pub(crate) fn shares_login(&self, other: &Self) -> bool {
        let id = |set: &Self| set.parts.login.map(|login| login.id);
        id(self) == id(other)
    }

    /// Turns lifetimes that count from `start` into ends; ends that are known stay.
    pub(crate) fn anchored_at(mut self, start: Moment) -> Self {
        let end = |lifetime: Duration| start.after(lifetime).wall;
        if self.expires_at().is_none()
            && let Some(lifetime) = self.expires_in()
        {
            self.parts().expires_at = Some(end(lifetime));
        }
        let begins = self.details().refresh_expires_in.map(end);
        let refresh_end = self.refresh_expires_at().or(begins);
        self.with_refresh_end(None, refresh_end)
    }

    /// Continues the login of the set before: keeps its refresh token (and its end), where this one
    /// brought none, or the same again.
    ///
    /// RFC 6749 §6: "The authorization server MAY issue a new refresh token, in which case the
    /// client MUST discard the old refresh token and replace it with the new refresh token."
    pub(crate) fn inherit(mut self, before: &Self) -> Self {
        let is_kept =
            self.refresh_token().is_none() || self.refresh_token() == before.refresh_token();
        if is_kept {
            self.parts().refresh_token.clone_from(&before.parts.refresh_token);
            if self.details().refresh_expires_in.is_none() {
                let end = self.refresh_expires_at().or_else(|| before.refresh_expires_at());
                self = self.with_refresh_end(None, end);
            }
        }
        self.parts().login = before.parts.login.map(Login::refreshed);
        match (self.scope(), before.scope()) {
            (None, Some(scope)) => self.with_scope(scope),
            _ => self,
        }
    }

    /// The same access token with another refresh token, whose end is not known.
    pub(crate) fn rotated_to(mut self, refresh_token: &str) -> Self {
        let lifetime = self.details().refresh_expires_in;
        self.parts().login = self.parts.login.map(Login::refreshed);
        self.with_refresh_end(lifetime, None).with_refresh_token(refresh_token)
    }

    /// The same access token with the refresh token of `other`, and from its login.
    pub(crate) fn with_refresh_token_of(mut self, other: &Self) -> Self {
        self.parts().refresh_token.clone_from(&other.parts.refresh_token);
        self.parts().login = other.parts.login;
        let lifetime = self.details().refresh_expires_in;
        self.with_refresh_end(lifetime, other.refresh_expires_at())
    }

    /// The same access token alone, and nothing about a refresh token's end.
    pub(crate) fn without_refresh_token(mut self) -> Self {
        self.parts().refresh_token = None;
        self.with_refresh_expires_in(None)
    }

    /// Whether both sets hold the same access token and the same refresh token.
    pub fn same_tokens(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
            || (self.access_token() == other.access_token()
                && self.refresh_token() == other.refresh_token())
    }

    fn with_refresh_end(mut self, within: Option<Duration>, end: Option<SystemTime>) -> Self {
        let details = self.details();
        if (details.refresh_expires_in, details.refresh_expires_at) != (within, end) {
            let details = self.details_mut();
            (details.refresh_expires_in, details.refresh_expires_at) = (within, end);
        }
        self
    }

    fn details(&self) -> &Details {
        self.parts.details.as_deref().unwrap_or(&NO_DETAILS)
    }

    fn details_mut(&mut self) -> &mut Details {
        self.parts().details.get_or_insert_default()
    }

    /// The parts, to be changed: of this clone alone.
    fn parts(&mut self) -> &mut Parts {
        Arc::make_mut(&mut self.parts)
    }
}

impl Login {
    fn refreshed(self) -> Self {
        Self { refreshes: self.refreshes.saturating_add(1), ..self }
    }
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSet")
            .field("access_token", &"[hidden]")
            .field("refresh_token", &self.refresh_token().map(|_| "[hidden]"))
            .field("token_type", &self.token_type())
            .field("scope", &self.scope())
            .field("expires_in", &self.expires_in())
            .field("expires_at", &self.expires_at())
            .field("refresh_expires_at", &self.refresh_expires_at())
            .field("members", &self.members().keys().collect::<Vec<_>>())
            .finish()
    }
}

/// The value of a set's `Authorization` header. See [`TokenSet::authorization`].
pub(crate) struct Authorization(TokenSet);

impl AsRef<[u8]> for Authorization {
    fn as_ref(&self) -> &[u8] {
        self.0.parts.authorization.expose_secret().as_bytes()
    }
}

/// The number of a session's token set; it grows by one with every set.
///
/// Tells whether a token that was rejected is still the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_63_debug_hides_both_tokens_and_the_members_values() {
        let mut members = Map::new();
        members.insert("id_token".into(), "CANARY-3".into());
        let tokens = TokenSet::new("CANARY-1").with_refresh_token("CANARY-2").with_members(members);
        let printed = format!("{tokens:?}");
        assert!(!printed.contains("CANARY"), "{printed}");
        assert!(printed.contains("id_token"));
    }

    #[test]
    fn a_clone_is_the_same_set_until_one_of_them_is_changed() {
        let one = TokenSet::new("a").with_refresh_token("r").with_scope("s");
        let other = one.clone();
        assert!(Arc::ptr_eq(&one.parts, &other.parts));
        let start = crate::clock::Clock::System.now();
        let anchored = other.anchored_at(start).with_members(Map::new());
        assert!(Arc::ptr_eq(&one.parts, &anchored.parts), "nothing was to be changed");
        let changed = anchored.with_scope("t").with_refresh_token("q");
        assert_eq!((one.scope(), one.refresh_token()), (Some("s"), Some("r")));
        assert_eq!((changed.scope(), changed.refresh_token()), (Some("t"), Some("q")));
        assert!(one.same_tokens(&one.clone()) && !one.same_tokens(&changed));
        let again = TokenSet::new("a").with_refresh_token("r");
        assert!(one.same_tokens(&again), "the tokens count, not where they lie");
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn a_token_set_stays_small() {
        const PARTS: usize = 104;
        const DETAILS: usize = 80;
        let (parts, details) = (size_of::<Parts>(), size_of::<Details>());
        assert!(parts <= PARTS, "{parts} bytes beside the tokens, {PARTS} are enough");
        assert!(details <= DETAILS, "{details} bytes, {DETAILS} are enough");
        assert_eq!(size_of::<TokenSet>(), size_of::<usize>());
    }

    /// K-32, Q-12, Q-55, Q-56.
    #[test]
    fn k_32_a_new_refresh_token_replaces_the_old_and_none_keeps_it() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let before = TokenSet::new("a").with_refresh_token("old").with_refresh_expires_at(end);
        let rotated = TokenSet::new("b").with_refresh_token("new").inherit(&before);
        assert_eq!((rotated.refresh_token(), rotated.refresh_expires_at()), (Some("new"), None));
        // Okta and LinkedIn repeat the refresh token and say nothing new about its end.
        for (case, again) in [("none", ""), ("the same again", "old")] {
            let kept = TokenSet::new("b").with_refresh_token(again).inherit(&before);
            assert_eq!(
                (kept.refresh_token(), kept.refresh_expires_at()),
                (Some("old"), Some(end)),
                "{case}"
            );
        }
    }

    /// RFC 6749 §5.1: a scope that is not told is the one that was asked for.
    #[test]
    fn a_scope_is_kept_until_another_is_told() {
        let before = TokenSet::new("a").with_scope("read");
        assert_eq!(TokenSet::new("b").inherit(&before).scope(), Some("read"));
        assert_eq!(TokenSet::new("b").with_scope("write").inherit(&before).scope(), Some("write"));
    }

    #[test]
    fn k_10_a_lifetime_becomes_an_end_once_and_absurd_lifetimes_saturate() {
        let start = crate::clock::Clock::System.now();
        let tokens = TokenSet::new("a").with_expires_in(Duration::from_secs(60)).anchored_at(start);
        assert_eq!(tokens.expires_at(), Some(start.wall + Duration::from_secs(60)));
        let later = start.after(Duration::from_secs(3600));
        assert_eq!(
            tokens.anchored_at(later).expires_at(),
            Some(start.wall + Duration::from_secs(60))
        );
        let far = TokenSet::new("a").with_expires_in(Duration::MAX).anchored_at(start);
        assert_eq!(far.expires_at(), Some(start.wall + FAR));
    }
}
