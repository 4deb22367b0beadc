//! A signed JWT that says who the client is (RFC 7523 §2.2, §3; OpenID Connect Core §9).

use std::time::{Duration, SystemTime};

use serde_json::{Map, json};

use crate::error::{RefreshError, RefreshFailure};
use crate::proto::jws::SigningKey;

/// RFC 7523 §2.2.
pub(crate) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// It is made for one attempt and read when that arrives, so this is for clocks that differ. Who
/// steals one has no longer than this to use it.
const LIFETIME: Duration = Duration::from_secs(60);

/// The assertion of `client_id`, made `now` and for `audience` alone. `nonce` keeps it apart from
/// all others: RFC 7523 §3 lets a server refuse one that it has seen.
pub(crate) fn assertion(
    key: &SigningKey,
    client_id: &str,
    audience: &str,
    now: SystemTime,
    nonce: u128,
) -> Result<String, RefreshError> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let claims = json!({
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": format!("{nonce:032x}"),
        "iat": now.as_secs(),
        "exp": (now + LIFETIME).as_secs(),
    });
    let mut header = Map::new();
    header.insert("typ".into(), "JWT".into());
    header.extend(key.id().map(|id| ("kid".into(), id.into())));
    key.sign(header, &claims).map_err(|error| {
        let message = "the client assertion cannot be signed";
        RefreshError::new(RefreshFailure::Configuration, message).with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    use super::*;

    /// RFC 7523 §3.
    #[test]
    fn k_31_the_assertion_says_this_and_no_more() {
        let key = SigningKey::from_secret("secret");
        let known = json!({"alg": "HS256", "typ": "JWT", "kid": "1"});
        let unknown = json!({"alg": "HS256", "typ": "JWT"});
        for (case, key, header) in [
            ("a key with an id", key.clone().with_key_id("1"), known),
            ("a key without one", key, unknown),
        ] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
            let token = assertion(&key, "app", "https://login.test", now, 0xabc).unwrap();
            let parts: Vec<_> = token.split('.').collect();
            let read = |part: &str| -> Value {
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
            };
            assert_eq!(read(parts[0]), header, "{case}");
            let claims = json!({
                "iss": "app",
                "sub": "app",
                "aud": "https://login.test",
                "jti": "00000000000000000000000000000abc",
                "iat": 1_700_000_000,
                "exp": 1_700_000_060,
            });
            assert_eq!(read(parts[1]), claims, "{case}");
            assert_eq!(parts.len(), 3, "{case}");
        }
    }
}
