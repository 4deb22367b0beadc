//! A token set as whoever keeps it writes it down: a file, Redis, a configuration.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::secret::Members;
use crate::token::{Login, TokenSet};

impl TokenSet {
    /// This set as serde may write it, tokens included.
    ///
    /// serde reads a `TokenSet` but does not write one, so no struct that has one in it writes
    /// tokens unless it says so:
    ///
    /// ```
    /// use reqwest_refresh::TokenSet;
    ///
    /// # fn main() -> serde_json::Result<()> {
    /// let tokens = TokenSet::new("a").with_refresh_token("r");
    /// let written = serde_json::to_string(&tokens.expose_secrets())?;
    /// assert_eq!(written, r#"{"access_token":"a","refresh_token":"r"}"#);
    /// let read: TokenSet = serde_json::from_str(&written)?;
    /// assert_eq!(read.refresh_token(), Some("r"));
    /// # Ok(()) }
    /// ```
    ///
    /// What is written is an object. Its members, of which all but the first may be missing:
    ///
    /// | member | value |
    /// |---|---|
    /// | `access_token` | text |
    /// | `refresh_token`, `token_type`, `scope` | text |
    /// | `expires_at` | when the access token ends: seconds since 1970-01-01 00:00 UTC, an integer |
    /// | `lifetime` | the access token's whole lifetime in seconds, an integer |
    /// | `refresh_token_expires_at` | when the refresh token ends, as `expires_at` |
    /// | `members` | the server's other members, an object |
    /// | `login`, `refreshes` | which login the set comes from, a random integer, and how often it was refreshed since; not for the tokens of a [builder](crate::SessionBuilder::tokens) |
    ///
    /// Fractions of a second are cut off, and an end before 1970 becomes 1970.
    ///
    /// A lifetime that has not begun ([`with_expires_in`](Self::with_expires_in)) begins with this
    /// call, as it would in a session: written without its end, it would begin anew whenever it is
    /// read.
    pub fn expose_secrets(&self) -> ExposedTokenSet {
        ExposedTokenSet(self.clone().anchored_at(Clock::System.now()))
    }

    /// Writes what [`expose_secrets`](Self::expose_secrets) returns, for the field of a struct:
    ///
    /// ```
    /// use reqwest_refresh::TokenSet;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Deserialize, Serialize)]
    /// struct Account {
    ///     name: String,
    ///     #[serde(serialize_with = "TokenSet::serialize_secrets")]
    ///     tokens: TokenSet,
    /// }
    /// ```
    ///
    /// Without the attribute this does not compile:
    ///
    /// ```compile_fail,E0277
    /// use reqwest_refresh::TokenSet;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Deserialize, Serialize)]
    /// struct Account {
    ///     name: String,
    ///     tokens: TokenSet,
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize_secrets<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.expose_secrets().serialize(serializer)
    }
}

/// A [`TokenSet`] that serde writes, tokens included: [`TokenSet::expose_secrets`] says how.
///
/// Its `Debug` hides the tokens all the same.
#[derive(Debug)]
pub struct ExposedTokenSet(TokenSet);

impl Serialize for ExposedTokenSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(tokens) = self;
        let mut object = serializer.serialize_map(None)?;
        for (name, text) in [
            (ACCESS_TOKEN, Some(tokens.access_token())),
            (REFRESH_TOKEN, tokens.refresh_token()),
            (TOKEN_TYPE, tokens.token_type()),
            (SCOPE, tokens.scope()),
        ] {
            if let Some(text) = text {
                object.serialize_entry(name, text)?;
            }
        }
        for (name, duration) in [
            (EXPIRES_AT, tokens.expires_at().map(since_epoch)),
            (LIFETIME, tokens.expires_in()),
            (REFRESH_TOKEN_EXPIRES_AT, tokens.refresh_expires_at().map(since_epoch)),
        ] {
            if let Some(duration) = duration {
                object.serialize_entry(name, &duration.as_secs())?;
            }
        }
        if !tokens.members().is_empty() {
            object.serialize_entry(MEMBERS, tokens.members())?;
        }
        if let Some(Login { id, refreshes }) = tokens.parts.login {
            object.serialize_entry(LOGIN, &id)?;
            object.serialize_entry(REFRESHES, &refreshes)?;
        }
        object.end()
    }
}

/// Reads what [`expose_secrets`](TokenSet::expose_secrets) wrote; for the answer of a token endpoint
/// there is [`TokenSet::from_json`].
///
/// Other members are ignored, and `null` is as good as missing. A `lifetime` without `expires_at`
/// counts for nothing: nobody knows when it began.
///
/// # Errors
///
/// No `access_token`, or a member of another type. The error quotes nothing of what was read; what
/// the format adds to it (TOML: the whole line) is not in our hands.
impl<'de> Deserialize<'de> for TokenSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A `Value` takes whatever comes; a type that expects something quotes what comes instead.
        match Value::deserialize(deserializer)? {
            Value::Object(object) => read(object.into()).map_err(D::Error::custom),
            _ => Err(D::Error::custom("a token set must be an object")),
        }
    }
}

fn read(mut object: Members) -> Result<TokenSet, String> {
    let object = &mut object;
    let Some(access_token) = take::<String>(object, ACCESS_TOKEN)? else {
        return Err(format!("a token set must have an `{ACCESS_TOKEN}`"));
    };
    let refresh_token: Option<String> = take(object, REFRESH_TOKEN)?;
    let members: Option<Map<_, _>> = take(object, MEMBERS)?;
    let mut tokens = TokenSet::new(access_token)
        .with_refresh_token(refresh_token.unwrap_or_default())
        .with_members(members.unwrap_or_default());
    if let Some(token_type) = take::<String>(object, TOKEN_TYPE)? {
        tokens = tokens.with_token_type(token_type);
    }
    if let Some(scope) = take::<String>(object, SCOPE)? {
        tokens = tokens.with_scope(scope);
    }
    let expires_at = end(object, EXPIRES_AT)?;
    if let Some(end) = end(object, REFRESH_TOKEN_EXPIRES_AT)? {
        tokens = tokens.with_refresh_expires_at(end);
    }
    // Another program's `login` may be a name: that says nothing here.
    let number = |object: &mut Map<_, _>, name| object.remove(name)?.as_u64()?.try_into().ok();
    let (id, refreshes) = (number(object, LOGIN), number(object, REFRESHES));
    let login = id.and_then(NonZeroU32::new).zip(refreshes);
    tokens.parts().login = login.map(|(id, refreshes)| Login { id, refreshes });
    let lifetime = take(object, LIFETIME)?.map(Duration::from_secs);
    Ok(match (expires_at, lifetime) {
        (Some(end), Some(lifetime)) => tokens.with_expires_at(end).with_expires_in(lifetime),
        (Some(end), None) => tokens.with_expires_at(end),
        (None, _) => tokens,
    })
}

fn end(object: &mut Map<String, Value>, name: &str) -> Result<Option<SystemTime>, String> {
    let Some(seconds) = take(object, name)? else { return Ok(None) };
    let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    end.map(Some).ok_or_else(|| wrong(name))
}

/// A member, if it is there and not null.
fn take<T: DeserializeOwned>(
    object: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<T>, String> {
    let value = object.remove(name).unwrap_or_default();
    serde_json::from_value(value).map_err(|_| wrong(name)) // the error lost here quotes the value
}

fn wrong(name: &str) -> String {
    format!("`{name}` of a token set has a wrong value")
}

fn since_epoch(end: SystemTime) -> Duration {
    end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

const ACCESS_TOKEN: &str = "access_token";
const EXPIRES_AT: &str = "expires_at";
const LIFETIME: &str = "lifetime";
const LOGIN: &str = "login";
const MEMBERS: &str = "members";
const REFRESHES: &str = "refreshes";
const REFRESH_TOKEN: &str = "refresh_token";
const REFRESH_TOKEN_EXPIRES_AT: &str = "refresh_token_expires_at";
const SCOPE: &str = "scope";
const TOKEN_TYPE: &str = "token_type";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::clock::FAR;

    fn written(tokens: &TokenSet) -> Value {
        serde_json::to_value(tokens.expose_secrets()).unwrap()
    }

    fn seconds(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Everything that a set knows.
    fn everything(tokens: TokenSet) -> impl PartialEq + std::fmt::Debug {
        (
            (tokens.access_token().to_owned(), tokens.refresh_token().map(str::to_owned)),
            (tokens.token_type().map(str::to_owned), tokens.scope().map(str::to_owned)),
            (tokens.expires_in(), tokens.expires_at()),
            (tokens.refresh_expires_at(), tokens.details().refresh_expires_in),
            (tokens.members().clone(), tokens.parts.login),
        )
    }

    /// What is on disks already: a change here needs a reader for what was written before.
    #[test]
    fn the_written_form_is_this() {
        let members = json!({"org_id": "100000", "nested": {"list": [1, 2.5, null]}});
        let tokens = TokenSet::new("a")
            .with_refresh_token("r")
            .with_token_type("bearer")
            .with_scope("x y")
            .with_expires_in(Duration::from_secs(3600))
            .with_expires_at(seconds(2_000_000_000))
            .with_refresh_expires_at(seconds(2_000_086_400))
            .with_members(members.as_object().unwrap().clone())
            .of_login(NonZeroU32::MIN);
        let expected = json!({
            "access_token": "a",
            "refresh_token": "r",
            "token_type": "bearer",
            "scope": "x y",
            "expires_at": 2_000_000_000,
            "lifetime": 3600,
            "refresh_token_expires_at": 2_000_086_400,
            "members": members,
            "login": 1,
            "refreshes": 0,
        });
        assert_eq!(written(&tokens), expected);
        assert_eq!(written(&TokenSet::new("a")), json!({"access_token": "a"}));
    }

    #[test]
    fn a_login_that_is_another_programs_says_nothing() {
        let read: TokenSet =
            serde_json::from_value(json!({"access_token": "a", "login": "ann"})).unwrap();
        assert_eq!(read.parts.login, None);
    }

    /// K-10: what nobody has begun to count begins when it is written, and not again when it is
    /// read.
    #[test]
    fn k_10_a_lifetime_is_written_with_its_end() {
        let hour = Duration::from_secs(3600);
        let tokens =
            TokenSet::new("a").with_expires_in(hour).with_refresh_expires_in(Some(24 * hour));
        let before = since_epoch(Clock::System.now().wall).as_secs();
        let written = written(&tokens);
        let after = since_epoch(Clock::System.now().wall).as_secs();
        for (name, lifetime) in [(EXPIRES_AT, 3600), (REFRESH_TOKEN_EXPIRES_AT, 86_400)] {
            let end = written[name].as_u64().unwrap();
            assert!((before + lifetime..=after + lifetime).contains(&end), "{name}: {end}");
        }
        let later = Clock::System.now().after(24 * hour);
        let read: TokenSet = serde_json::from_value(written.clone()).unwrap();
        let read = read.anchored_at(later);
        assert_eq!(read.expires_at(), Some(seconds(written[EXPIRES_AT].as_u64().unwrap())));
        assert_eq!(read.expires_in(), Some(hour));
    }

    #[test]
    fn what_is_read_is_cautious_about_what_it_does_not_know() {
        let read = |object: Value| {
            let tokens: TokenSet = serde_json::from_value(object).unwrap();
            everything(tokens)
        };
        let alone = everything(TokenSet::new("a"));
        for (case, object) in [
            ("unknown members", json!({"access_token": "a", "version": 2, "x": {"y": []}})),
            ("null", json!({"access_token": "a", "refresh_token": null, "expires_at": null})),
            ("no refresh token", json!({"access_token": "a", "refresh_token": ""})),
            ("K-10: a lifetime of unknown beginning", json!({"access_token": "a", "lifetime": 60})),
            ("a relative end", json!({"access_token": "a", "expires_in": 3600})),
        ] {
            assert!(read(object) == alone, "{case}");
        }
    }

    /// K-63: serde's own errors quote what they met.
    #[test]
    fn k_63_an_error_of_reading_names_the_member_and_quotes_nothing() {
        for (expected, text) in [
            ("access_token", r#"{"refresh_token": "CANARY"}"#),
            ("access_token", r#"{"access_token": null, "refresh_token": "CANARY"}"#),
            ("access_token", r#"{"access_token": 4711}"#),
            ("access_token", r#"{"access_token": ["CANARY"]}"#),
            ("refresh_token", r#"{"access_token": "CANARY", "refresh_token": {"CANARY": 4711}}"#),
            ("token_type", r#"{"access_token": "CANARY", "token_type": 4711}"#),
            ("scope", r#"{"access_token": "CANARY", "scope": ["CANARY"]}"#),
            ("expires_at", r#"{"access_token": "CANARY", "expires_at": "CANARY"}"#),
            ("expires_at", r#"{"access_token": "CANARY", "expires_at": 4711.5}"#),
            ("expires_at", r#"{"access_token": "CANARY", "expires_at": -4711}"#),
            ("expires_at", r#"{"access_token": "CANARY", "expires_at": 18446744073709551615}"#),
            ("lifetime", r#"{"access_token": "CANARY", "lifetime": "CANARY"}"#),
            (
                "refresh_token_expires_at",
                r#"{"access_token": "a", "refresh_token_expires_at": []}"#,
            ),
            ("members", r#"{"access_token": "CANARY", "members": "CANARY"}"#),
            ("object", r#""CANARY""#),
            ("object", r#"["CANARY"]"#),
            ("object", "4711"),
            ("EOF", r#"{"access_token": "CANARY"#),
            ("expected", r#"{"access_token": "CANARY" "CANARY"}"#),
            ("expected", r#"{"access_token": CANARY}"#),
        ] {
            let error = serde_json::from_str::<TokenSet>(text).expect_err(text);
            let printed = format!("{error} {error:?} {error:#?}");
            assert!(printed.contains(expected), "{text}: {printed}");
            assert!(!printed.contains("CANARY") && !printed.contains("4711"), "{text}: {printed}");
        }
    }

    #[test]
    fn k_63_the_exposed_set_prints_no_more_than_the_set() {
        let mut members = Map::new();
        members.insert("id_token".into(), "CANARY-3".into());
        let tokens = TokenSet::new("CANARY-1").with_refresh_token("CANARY-2").with_members(members);
        let exposed = tokens.expose_secrets();
        let printed = format!("{exposed:?} {exposed:#?}");
        assert!(!printed.contains("CANARY"), "{printed}");
    }

    fn json_values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                members(inner).prop_map(Value::from),
            ]
        })
    }

    fn members(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
        prop::collection::hash_map(".*", values, 0..4).prop_map(|map| map.into_iter().collect())
    }

    /// A moment, in nanoseconds; some of them centuries from here.
    fn ends() -> impl Strategy<Value = SystemTime> {
        (0..20_000_000_000_u64, 0..1_000_000_000_u32)
            .prop_map(|(seconds, nanos)| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
    }

    proptest! {
        /// Reading what was written gives the same set, but for the fractions of its seconds.
        #[test]
        fn what_was_written_is_read(
            access_token in ".*",
            texts in prop::array::uniform3(prop::option::of(".+")),
            lifetime in prop::option::of((1..=FAR.as_secs(), 0..1_000_000_000_u32)),
            ends in prop::array::uniform2(prop::option::of(ends())),
            members in members(json_values()),
        ) {
            let [refresh_token, token_type, scope] = texts;
            let lifetime = lifetime.map(|(seconds, nanos)| Duration::new(seconds, nanos).min(FAR));
            let [end, refresh_end] = ends;
            let tokens = |round: fn(Duration) -> Duration| {
                let moment = |end| SystemTime::UNIX_EPOCH + round(since_epoch(end));
                let mut tokens = TokenSet::new(access_token.clone())
                    .with_refresh_token(refresh_token.clone().unwrap_or_default())
                    .with_members(members.clone());
                tokens.parts().token_type = token_type.clone().map(Into::into);
                tokens.details_mut().scope.clone_from(&scope);
                // A lifetime alone gets an end from the clock: that has a test of its own.
                tokens.parts().lifetime = end.and(lifetime).map(round);
                tokens.parts().expires_at = end.map(moment);
                tokens.details_mut().refresh_expires_at = refresh_end.map(moment);
                tokens
            };
            let text = serde_json::to_string(&tokens(|exact| exact).expose_secrets()).unwrap();
            let read: TokenSet = serde_json::from_str(&text).unwrap();
            let whole = tokens(|exact| Duration::from_secs(exact.as_secs()));
            prop_assert_eq!(serde_json::to_string(&read.expose_secrets()).unwrap(), text);
            prop_assert_eq!(everything(read), everything(whole));
        }
    }
}
