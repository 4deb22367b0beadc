//! From and into the token responses of the crates `oauth2` and `openidconnect`.

use std::time::SystemTime;

use oauth2::{ExtraTokenFields, StandardTokenResponse, TokenType};
use serde_json::Value;

use crate::clock::{Clock, FAR, Moment};
use crate::error::{Error, RefreshError, RefreshFailure};
use crate::proto::grant::REFRESH_LIFETIMES;
use crate::token::TokenSet;

/// From what a login was answered with: `oauth2`'s `BasicTokenResponse`, `openidconnect`'s
/// `CoreTokenResponse`, or a response with fields of your own.
///
/// Needs the feature `oauth2`. The lifetimes begin now, so convert it at once. Extra fields, such
/// as the `id_token`, become [`members`](TokenSet::members).
///
/// ```
/// use oauth2::basic::BasicTokenResponse;
/// use reqwest_refresh::TokenSet;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let answer = r#"{"access_token": "a", "token_type": "bearer", "refresh_token": "r"}"#;
/// let answer: BasicTokenResponse = serde_json::from_str(answer)?;
/// let tokens = TokenSet::try_from(&answer)?;
/// assert_eq!(tokens.refresh_token(), Some("r"));
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// Those of [`TokenSet::from_json`], or that the extra fields cannot be written as JSON.
impl<EF, TT> TryFrom<&StandardTokenResponse<EF, TT>> for TokenSet
where
    EF: ExtraTokenFields,
    TT: TokenType,
{
    type Error = RefreshError;

    fn try_from(response: &StandardTokenResponse<EF, TT>) -> Result<Self, RefreshError> {
        // What serde says comes from the code of the extra fields, and may quote them.
        let answer = serde_json::to_vec(response).map_err(|_| {
            let message = "the token response cannot be written as JSON";
            RefreshError::new(RefreshFailure::Unusable, message)
        })?;
        Ok(Self::from_json(&answer)?.anchored_at(Clock::System.now()))
    }
}

/// Into a token response of `oauth2` or `openidconnect`, for code that expects one.
///
/// Needs the feature `oauth2`. `expires_in` is what is left now, in whole seconds; 0 if the token
/// is over, none if its end is unknown. A missing `token_type` becomes `bearer`. Of the
/// [`members`](TokenSet::members) those are taken that the response has fields for.
///
/// Do not keep tokens in this form: read later, they would have a new life, and a 0 says nothing
/// (many servers mean "no end" by it), so a token that was over has an unknown end.
/// [`TokenSet::expose_secrets`] is for that.
///
/// # Errors
///
/// [`Configuration`](crate::ErrorKind::Configuration) if the response demands a field that is not
/// among the members, or is of another type.
impl<EF, TT> TryFrom<&TokenSet> for StandardTokenResponse<EF, TT>
where
    EF: ExtraTokenFields,
    TT: TokenType,
{
    type Error = Error;

    fn try_from(tokens: &TokenSet) -> Result<Self, Error> {
        let answer = answer(tokens, Clock::System.now());
        // What serde says quotes the member that does not fit.
        serde_json::from_value(answer).map_err(|_| {
            Error::configuration("the token set has not the members that this response demands")
        })
    }
}

/// The answer by which a server would hand out `tokens` at `now` (RFC 6749 §5.1).
fn answer(tokens: &TokenSet, now: Moment) -> Value {
    let tokens = tokens.clone().anchored_at(now);
    let left = |end: SystemTime| end.duration_since(now.wall).unwrap_or_default();
    // More than its lifetime nothing has left: then the wall clock was set back (K-12).
    let whole = tokens.expires_in().unwrap_or(FAR);
    let expires_in = tokens.expires_at().map(|end| left(end).min(whole).as_secs());

    let mut answer = tokens.members().clone();
    for name in REFRESH_LIFETIMES {
        if let (Some(lifetime), Some(end)) = (answer.get_mut(name), tokens.refresh_expires_at()) {
            let left = left(end).as_secs();
            match lifetime {
                Value::Number(_) => *lifetime = left.into(),
                Value::String(_) => *lifetime = left.to_string().into(),
                _ => {}
            }
        }
    }
    let known = [
        ("access_token", tokens.access_token().into()),
        ("token_type", tokens.token_type().unwrap_or("bearer").into()),
        ("expires_in", expires_in.into()),
        ("refresh_token", tokens.refresh_token().into()),
        ("scope", tokens.scope().into()),
    ];
    answer.extend(known.map(|(name, value)| (name.to_owned(), value)));
    answer.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oauth2::TokenResponse;
    use oauth2::basic::{BasicTokenResponse, BasicTokenType};
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Fields as `openidconnect` has them, and one that is demanded.
    #[derive(Debug, Deserialize, Serialize)]
    struct Fields {
        id_token: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        refresh_expires_in: Option<u64>,
        tenant: u64,
    }

    impl ExtraTokenFields for Fields {}

    type Response = StandardTokenResponse<Fields, BasicTokenType>;

    fn response(json: Value) -> Response {
        serde_json::from_value(json).unwrap()
    }

    fn now() -> Moment {
        Clock::System.now()
    }

    /// K-10, K-55: both lifetimes begin with the conversion.
    #[test]
    fn k_10_a_response_becomes_tokens_whose_life_begins() {
        let response = response(json!({
            "access_token": "a", "refresh_token": "r", "token_type": "Bearer",
            "expires_in": 3600, "refresh_expires_in": 86_400, "scope": "x y",
            "id_token": "e30.e30.", "tenant": 7,
        }));
        let before = now().wall;
        let tokens = TokenSet::try_from(&response).unwrap();
        let after = now().wall;
        assert_eq!((tokens.access_token(), tokens.refresh_token()), ("a", Some("r")));
        assert_eq!((tokens.token_type(), tokens.scope()), (Some("bearer"), Some("x y")));
        assert_eq!(tokens.expires_in(), Some(3600 * SECOND));
        for (end, lifetime) in
            [(tokens.expires_at(), 3600 * SECOND), (tokens.refresh_expires_at(), 86_400 * SECOND)]
        {
            assert!((before + lifetime..=after + lifetime).contains(&end.unwrap()));
        }
        let members = json!({"id_token": "e30.e30.", "refresh_expires_in": 86_400, "tenant": 7});
        assert_eq!(Value::from(tokens.members().clone()), members);
    }

    #[test]
    fn tokens_become_the_response_that_they_came_from() {
        for (case, object) in [
            (
                "everything",
                json!({
                    "access_token": "a", "refresh_token": "r", "token_type": "bearer",
                    "scope": "x y", "id_token": "e30.e30.", "tenant": 7,
                }),
            ),
            (
                "little",
                json!({
                    "access_token": "a", "token_type": "bearer", "id_token": null, "tenant": 7
                }),
            ),
        ] {
            let tokens = TokenSet::try_from(&response(object.clone())).unwrap();
            let again = Response::try_from(&tokens).unwrap();
            assert_eq!(serde_json::to_value(again).unwrap(), object, "{case}");
        }
        let bare = BasicTokenResponse::try_from(&TokenSet::new("a")).unwrap();
        assert_eq!(*bare.token_type(), BasicTokenType::Bearer);
    }

    /// K-12: `expires_in` is what is left, never more than there was.
    #[test]
    fn k_12_a_response_tells_what_is_left_of_the_tokens() {
        let now = now();
        let ending_in = |left: Duration| TokenSet::new("a").with_expires_at(now.wall + left);
        for (case, tokens, expected) in [
            ("half over", ending_in(1800 * SECOND).with_expires_in(3600 * SECOND), json!(1800)),
            ("half a second more", ending_in(Duration::from_millis(1500)), json!(1)),
            ("over", TokenSet::new("a").with_expires_at(now.wall - SECOND), json!(0)),
            ("not begun", TokenSet::new("a").with_expires_in(60 * SECOND), json!(60)),
            (
                "the clock was set back",
                ending_in(99 * SECOND).with_expires_in(60 * SECOND),
                json!(60),
            ),
            ("unknown", TokenSet::new("a"), json!(null)),
        ] {
            assert_eq!(answer(&tokens, now)["expires_in"], expected, "{case}");
        }
    }

    /// K-55: a refresh token does not get a new life on its way.
    #[test]
    fn k_55_the_refresh_tokens_lifetime_shrinks_too() {
        let now = now();
        for (case, member, left, expected) in [
            ("known", json!(86_400), Some(60), json!(60)),
            ("over", json!(86_400), Some(0), json!(0)),
            ("no end (Q-10)", json!(0), None, json!(0)),
            ("a text (Q-01)", json!("86400"), Some(60), json!("60")),
            ("of another type", json!(null), Some(60), json!(null)),
        ] {
            let members = json!({"refresh_expires_in": member}).as_object().unwrap().clone();
            let mut tokens = TokenSet::new("a").with_members(members);
            if let Some(left) = left {
                tokens = tokens.with_refresh_expires_at(now.wall + left * SECOND);
            }
            assert_eq!(answer(&tokens, now)["refresh_expires_in"], expected, "{case}");
        }
    }

    #[derive(Debug, Deserialize)]
    struct Broken {}

    impl ExtraTokenFields for Broken {}

    impl Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("CANARY"))
        }
    }

    /// K-63: what does not fit is not quoted.
    #[test]
    fn k_63_neither_way_fails_with_a_secret_in_its_error() {
        let missing = TokenSet::new("CANARY").with_refresh_token("CANARY");
        let members = json!({"tenant": "CANARY", "id_token": "CANARY"});
        let wrong = missing.clone().with_members(members.as_object().unwrap().clone());
        for (case, tokens) in [("missing", missing), ("wrong", wrong)] {
            let error = Response::try_from(&tokens).expect_err(case);
            assert!(!format!("{error} {error:?}").contains("CANARY"), "{case}: {error:?}");
        }
        let json = json!({"access_token": "CANARY", "token_type": "CANARY"});
        let broken: StandardTokenResponse<Broken, BasicTokenType> =
            serde_json::from_value(json).unwrap();
        let error = TokenSet::try_from(&broken).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
    }
}
