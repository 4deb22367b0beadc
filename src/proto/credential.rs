//! A token set at work: its header built once, its ends on both clocks.

use std::time::{Duration, SystemTime};

use http::HeaderValue;

use crate::clock::Moment;
use crate::proto::jwt;
use crate::proto::policy::Policy;
use crate::token::{Generation, TokenSet};

/// A session's current token set, with everything that a request needs of it ready.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) generation: Generation,
    pub(crate) tokens: TokenSet,
    /// `Bearer …`, marked sensitive.
    pub(crate) header: HeaderValue,
    /// When the request for it was started, or when it was handed to the session.
    pub(crate) received: Moment,
    life: Option<Life>,
}

/// From here on stale, from there on expired.
#[derive(Clone, Copy, Debug)]
struct Life {
    stale: Moment,
    end: Moment,
    lifetime: Duration,
}

/// A token's three ages (K-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Over. Not sent.
    Expired,
    /// Far from its end, or of unknown end.
    Fresh,
    /// Inside the refresh window: still sent, and refreshed behind the request.
    Stale,
}

/// Where a token set comes from, which decides how its lifetime is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// The server has just made it: its lifetime counts from the start of the request.
    Issued,
    /// It may be of any age: a caller or a store had it.
    Kept,
}

impl Credential {
    /// Puts `tokens` to work; `start` is when the token request was started, or now.
    ///
    /// Fails with a sentence if the access token cannot be sent in a header.
    pub(crate) fn new(
        generation: Generation,
        tokens: TokenSet,
        start: Moment,
        policy: &Policy,
    ) -> Result<Self, &'static str> {
        let header = bearer(tokens.access_token())?;
        let life = tokens.expires_at().map(|end| {
            let left = end.duration_since(start.wall).unwrap_or_default();
            let lifetime = tokens.expires_in().unwrap_or(left);
            let end = Moment {
                wall: end,
                ..start.after(left)
            };
            Life {
                stale: end.before(policy.window(lifetime)),
                end,
                lifetime,
            }
        });
        Ok(Self {
            generation,
            tokens,
            header,
            received: start,
            life,
        })
    }

    /// The age at `now`.
    #[inline]
    pub(crate) fn age(&self, now: &Moment) -> Age {
        match &self.life {
            Some(life) if now.reached(&life.stale) => match now.reached(&life.end) {
                true => Age::Expired,
                false => Age::Stale,
            },
            _ => Age::Fresh,
        }
    }

    /// Whether at least `validity` is left, or half of the lifetime where that is less: more is
    /// not to be had by refreshing.
    pub(crate) fn lasts(&self, validity: Duration, now: &Moment) -> bool {
        let Some(life) = &self.life else { return true };
        !now.after(validity.min(life.lifetime / 2))
            .reached(&life.end)
    }

    /// How long ago it was received.
    pub(crate) fn existed_for(&self, now: &Moment) -> Duration {
        now.monotonic
            .saturating_duration_since(self.received.monotonic)
    }

    /// Whether the refresh token's known end is over at `now`.
    pub(crate) fn refresh_token_is_over(&self, now: &Moment) -> bool {
        self.tokens
            .refresh_expires_at()
            .is_some_and(|end| now.wall >= end)
    }
}

/// Completes what `tokens` say about their own ends, counted from `start`.
///
/// `expires_in` comes first: RFC 9068 §6 says that a client MUST NOT look into an access token.
/// The `exp` of a JWT is for servers that say nothing.
pub(crate) fn learn_ends(
    mut tokens: TokenSet,
    provenance: Provenance,
    start: Moment,
    read_jwt: bool,
) -> TokenSet {
    let is_unknown = tokens.expires_at().is_none() && tokens.expires_in().is_none();
    if read_jwt
        && is_unknown
        && let Some(life) = jwt::life(tokens.access_token())
    {
        tokens = match (provenance, life.whole) {
            // The two claims are read off one clock, the server's: ours need not agree.
            (Provenance::Issued, Some(whole)) => tokens.with_expires_in(whole),
            (Provenance::Kept, Some(whole)) => {
                let end = life.end.min(start.after(whole).wall);
                tokens.with_expires_in(whole).with_expires_at(end)
            }
            (_, None) => tokens.with_expires_at(life.end),
        };
    }
    tokens = tokens.anchored_at(start);
    if read_jwt
        && tokens.refresh_expires_at().is_none()
        && let Some(life) = tokens.refresh_token().and_then(jwt::life)
    {
        tokens = tokens.with_refresh_expires_at(life.end);
    }
    tokens
}

/// `Authorization: Bearer <token>` (RFC 6750 §2.1).
fn bearer(access_token: &str) -> Result<HeaderValue, &'static str> {
    if access_token.is_empty() {
        return Err("the access token is empty");
    }
    if !access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the access token has characters that cannot be in a header");
    }
    let mut header = HeaderValue::try_from(format!("Bearer {access_token}"))
        .map_err(|_| "the access token cannot be in a header")?;
    header.set_sensitive(true);
    Ok(header)
}

/// The known end of a refresh token as an amount of time from `now`.
pub(crate) fn left_until(end: SystemTime, now: &Moment) -> Duration {
    end.duration_since(now.wall).unwrap_or_default()
}
