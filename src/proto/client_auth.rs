//! Who we say we are (RFC 6749 §2.3): one method, never probed.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded::byte_serialize;

use crate::error::{Error, RefreshError};
#[cfg(feature = "jwt-auth")]
use crate::proto::assertion::{JWT_BEARER, assertion};
#[cfg(feature = "jwt-auth")]
use crate::proto::jws::SigningKey;
use crate::secret::{field_value, secret};

/// How a client proves to the token endpoint who it is.
///
/// Pick the one method that the client was registered with. The crate never tries another: a
/// server that rotates refresh tokens may have used one up before it refuses the client
/// (RFC 6749 §2.3: "The client MUST NOT use more than one authentication method in each
/// request").
#[derive(Clone)]
pub struct ClientAuth {
    method: Method,
    id: String,
    secret: SecretString,
}

#[derive(Clone, Debug)]
enum Method {
    #[cfg(feature = "jwt-auth")]
    Assertion {
        name: &'static str,
        key: SigningKey,
        audience: Option<String>,
    },
    Basic,
    BasicRaw,
    Body,
    DigiRunner,
    None,
}

impl ClientAuth {
    /// `client_secret_basic` by the letter of RFC 6749 §2.3.1: id and secret are form-encoded
    /// before they go into the `Authorization: Basic` header.
    pub fn basic(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::with(Method::Basic, id, secret)
    }

    /// `client_secret_basic` for the many servers that do not decode: id and secret go into the
    /// header as they are (RFC 7617). The same as [`basic`](Self::basic) where both consist of
    /// letters and digits only.
    pub fn basic_raw(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::with(Method::BasicRaw, id, secret)
    }

    /// `client_secret_post`: id and secret are form parameters. RFC 6749 §2.3.1 does not recommend
    /// it, OAuth 2.1 does.
    pub fn body(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::with(Method::Body, id, secret)
    }

    /// A public client: only `client_id` as a form parameter (RFC 6749 §3.2.1).
    ///
    /// Also for a client whose proof is its TLS certificate (RFC 8705 §2: `tls_client_auth` and
    /// `self_signed_tls_client_auth`), which
    /// [`TokenEndpoint::with_http`](crate::TokenEndpoint::with_http) takes.
    pub fn none(id: impl Into<String>) -> Self {
        Self::with(Method::None, id, String::new())
    }

    /// digiRunner's Basic: the password is Base64-encoded once more before it goes into the
    /// header; a public client has none.
    pub fn digirunner(id: impl Into<String>, password: Option<impl Into<String>>) -> Self {
        Self::with(Method::DigiRunner, id, password.map(Into::into).unwrap_or_default())
    }

    /// `client_secret_jwt` (OpenID Connect Core §9): the secret is not sent, it signs a JWT that is
    /// good for one attempt (RFC 7523, HS256). Needs the feature `jwt-auth`.
    ///
    /// RFC 7518 §3.2 wants a secret of 32 bytes or more.
    #[cfg(feature = "jwt-auth")]
    pub fn client_secret_jwt(id: impl Into<String>, secret: impl Into<String>) -> Self {
        let (name, secret) = ("client_secret_jwt", secret.into());
        let key = SigningKey::from_secret(&secret);
        Self::with(Method::Assertion { name, key, audience: None }, id, secret)
    }

    /// `private_key_jwt` (OpenID Connect Core §9): a key whose public half the server knows signs a
    /// JWT that is good for one attempt (RFC 7523). Needs the feature `jwt-auth`.
    #[cfg(feature = "jwt-auth")]
    pub fn private_key_jwt(id: impl Into<String>, key: SigningKey) -> Self {
        let name = "private_key_jwt";
        Self::with(Method::Assertion { name, key, audience: None }, id, String::new())
    }

    /// Sets for whom the JWT of [`client_secret_jwt`](Self::client_secret_jwt) and
    /// [`private_key_jwt`](Self::private_key_jwt) is made: its claim `aud`, at the token endpoint and
    /// at the revocation endpoint. Defaults to the issuer identifier if the endpoint comes from
    /// [`ServerMetadata`](crate::ServerMetadata), else to the token endpoint's URL (RFC 7523 §3).
    /// The other methods have none. Needs the feature `jwt-auth`.
    #[cfg(feature = "jwt-auth")]
    #[must_use]
    pub fn with_audience(mut self, value: impl Into<String>) -> Self {
        if let Method::Assertion { audience, .. } = &mut self.method {
            *audience = Some(value.into());
        }
        self
    }

    fn with(method: Method, id: impl Into<String>, text: impl Into<String>) -> Self {
        Self { method, id: id.into(), secret: secret(text) }
    }

    /// RFC 7617 §2: a user-id with a colon cannot be told from one that ends there, and neither
    /// part may have control characters. Form-encoding hides both.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.id.is_empty() {
            return Err(Error::configuration("the client id is empty"));
        }
        let is_raw = matches!(self.method, Method::BasicRaw | Method::DigiRunner);
        if is_raw && self.id.contains(':') {
            return Err(Error::configuration(
                "the client id contains a colon, which HTTP Basic cannot carry; \
                 ask for another id, or use a method that encodes it",
            ));
        }
        let mut characters = self.id.chars().chain(match self.method {
            Method::BasicRaw => self.secret().chars(),
            _ => "".chars(),
        });
        if is_raw && characters.any(char::is_control) {
            return Err(Error::configuration("the client id or secret has control characters"));
        }
        Ok(())
    }

    /// What one token request proves the client with.
    #[cfg_attr(not(feature = "jwt-auth"), expect(unused_variables))]
    pub(crate) fn prove(&self, attempt: &Attempt<'_>) -> Result<Proof<'_>, RefreshError> {
        let id = ("client_id", Cow::from(&self.id));
        Ok(match &self.method {
            #[cfg(feature = "jwt-auth")]
            Method::Assertion { key, audience, .. } => {
                let audience = audience.as_deref().unwrap_or(attempt.audience);
                let assertion = assertion(key, &self.id, audience, attempt.now, attempt.nonce)?;
                Proof::form(vec![
                    id,
                    ("client_assertion_type", JWT_BEARER.into()),
                    ("client_assertion", assertion.into()),
                ])
            }
            Method::Basic => Proof::basic(&form_encoded(&self.id), &form_encoded(self.secret())),
            Method::BasicRaw => Proof::basic(&self.id, self.secret()),
            Method::Body => Proof::form(vec![id, ("client_secret", self.secret().into())]),
            // STANDARD is what java.util.Base64's strict decoder takes.
            Method::DigiRunner => {
                let password = Zeroizing::new(STANDARD.encode(self.secret()));
                Proof::basic(&self.id, &password)
            }
            Method::None => Proof::form(vec![id]),
        })
    }

    /// What one revocation request proves the client with.
    ///
    /// RFC 7009 §2.1 authenticates as at the token endpoint; digiRunner takes the password as it
    /// is, in the body, and none of a public client.
    pub(crate) fn prove_for_revocation(
        &self,
        attempt: &Attempt<'_>,
    ) -> Result<Proof<'_>, RefreshError> {
        match self.method {
            Method::DigiRunner => {
                let mut form = vec![("client_id", Cow::from(&self.id))];
                let secret = Some(("client_secret", Cow::from(self.secret())));
                form.extend(secret.filter(|(_, secret)| !secret.is_empty()));
                Ok(Proof::form(form))
            }
            _ => self.prove(attempt),
        }
    }

    /// The method's registered name, by which a server's metadata calls it (RFC 8414 §2).
    pub(crate) fn method_name(&self) -> &'static str {
        match self.method {
            #[cfg(feature = "jwt-auth")]
            Method::Assertion { name, .. } => name,
            Method::Basic | Method::BasicRaw | Method::DigiRunner => "client_secret_basic",
            Method::Body => "client_secret_post",
            Method::None => "none",
        }
    }

    /// The client's secret, to be taken out of what a server says.
    pub(crate) fn secret(&self) -> &str {
        self.secret.expose_secret()
    }
}

/// What is different each time that a client says who it is.
#[cfg_attr(not(feature = "jwt-auth"), expect(dead_code))]
pub(crate) struct Attempt<'a> {
    pub(crate) now: SystemTime,
    /// Random.
    pub(crate) nonce: u128,
    /// Whom to say it to, unless the client was told another.
    pub(crate) audience: &'a str,
}

/// Who the client is, as one request says it.
pub(crate) struct Proof<'a> {
    /// `Authorization`, for the methods that have one.
    pub(crate) header: Option<HeaderValue>,
    form: Vec<(&'static str, Cow<'a, str>)>,
}

impl<'a> Proof<'a> {
    fn basic(id: &str, secret: &str) -> Self {
        let pair = Zeroizing::new([id, ":", secret].concat());
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        // unwrap safety: Base64 is ASCII.
        let text = Zeroizing::new(["Basic ", &*encoded].concat());
        let value = field_value(text).expect("Base64 is valid in a header");
        Self { header: Some(value), form: Vec::new() }
    }

    fn form(form: Vec<(&'static str, Cow<'a, str>)>) -> Self {
        Self { header: None, form }
    }

    /// The form parameters, for the methods that have some.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.form.iter().map(|(name, value)| (*name, &**value))
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth")
            .field("method", &self.method)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// RFC 6749 §2.3.1: "The client identifier is encoded using the
/// "application/x-www-form-urlencoded" encoding algorithm per Appendix B".
fn form_encoded(text: &str) -> Zeroizing<String> {
    // Enough for all of it: what is outgrown is not wiped.
    let mut encoded = Zeroizing::new(String::with_capacity(3 * text.len()));
    encoded.extend(byte_serialize(text.as_bytes()));
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: Attempt<'_> =
        Attempt { now: SystemTime::UNIX_EPOCH, nonce: 0, audience: "https://login.test/token" };

    fn sent(proof: &Proof<'_>) -> String {
        let header = proof.header.as_ref().map(|header| header.to_str().unwrap().to_owned());
        let form = proof.parameters().map(|(name, value)| format!("{name}={value}"));
        header.into_iter().chain(form).collect::<Vec<_>>().join(" ")
    }

    /// K-31, Q-70, Q-71, Q-72, Q-73.
    #[test]
    fn k_31_each_method_sends_one_proof_and_no_other() {
        for (case, auth, expected) in [
            // The two values of the manual page "Applying Refresh Token".
            (
                "digiRunner, client password",
                ClientAuth::digirunner("tspclient", Some("tsp123abcd")),
                "Basic dHNwY2xpZW50OmRITndNVEl6WVdKalpBPT0=",
            ),
            (
                "digiRunner, public client",
                ClientAuth::digirunner("tspclient", None::<&str>),
                "Basic dHNwY2xpZW50Og==",
            ),
            (
                "digiRunner, empty password",
                ClientAuth::digirunner("tspclient", Some("")),
                "Basic dHNwY2xpZW50Og==",
            ),
            // "a%3Ab:%2B%3D+%25"
            (
                "Basic, form-encoded",
                ClientAuth::basic("a:b", "+= %"),
                "Basic YSUzQWI6JTJCJTNEKyUyNQ==",
            ),
            // "ab:+= %"
            ("Basic, raw", ClientAuth::basic_raw("ab", "+= %"), "Basic YWI6Kz0gJQ=="),
            ("body", ClientAuth::body("ab", "s"), "client_id=ab client_secret=s"),
            ("none", ClientAuth::none("ab"), "client_id=ab"),
        ] {
            assert!(auth.check().is_ok(), "{case}");
            assert_eq!(sent(&auth.prove(&ATTEMPT).unwrap()), expected, "{case}");
        }
    }

    #[test]
    fn k_31_what_basic_cannot_carry_is_an_error_that_says_so() {
        for (case, auth, expected) in [
            ("colon, digiRunner", ClientAuth::digirunner("a:b", Some("s")), Err("colon")),
            ("colon, raw", ClientAuth::basic_raw("a:b", "s"), Err("colon")),
            ("colon, encoded", ClientAuth::basic("a:b", "s"), Ok(())),
            ("colon, body", ClientAuth::body("a:b", "s"), Ok(())),
            (
                "control character in the id",
                ClientAuth::digirunner("a\n", Some("s")),
                Err("control"),
            ),
            ("control character in the secret", ClientAuth::basic_raw("a", "s\n"), Err("control")),
            ("encoded twice by digiRunner", ClientAuth::digirunner("a", Some("s\n")), Ok(())),
            ("no id", ClientAuth::none(""), Err("empty")),
        ] {
            match (auth.check(), expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err(word)) => {
                    assert!(error.to_string().contains(word), "{case}: {error}")
                }
                (got, _) => panic!("{case}: {got:?}"),
            }
        }
    }

    #[test]
    fn digirunner_revocation_sends_the_password_as_it_is_in_the_body() {
        let sent = |auth: ClientAuth| sent(&auth.prove_for_revocation(&ATTEMPT).unwrap());
        let auth = ClientAuth::digirunner("tspclient", Some("tsp123abcd"));
        assert_eq!(sent(auth), "client_id=tspclient client_secret=tsp123abcd");
        let public = ClientAuth::digirunner("tspclient", None::<&str>);
        assert_eq!(sent(public), "client_id=tspclient");
    }

    #[test]
    fn k_31_an_assertion_is_for_whom_it_is_meant_and_the_same_is_sent_to_revoke() {
        let signed = |audience| {
            let key = SigningKey::from_secret("s");
            let jwt = assertion(&key, "a b", audience, ATTEMPT.now, ATTEMPT.nonce).unwrap();
            format!("client_id=a b client_assertion_type={JWT_BEARER} client_assertion={jwt}")
        };
        for (case, auth, expected) in [
            (
                "the endpoint",
                ClientAuth::client_secret_jwt("a b", "s"),
                signed("https://login.test/token"),
            ),
            (
                "the issuer",
                ClientAuth::client_secret_jwt("a b", "s").with_audience("https://login.test"),
                signed("https://login.test"),
            ),
            (
                "a method without an audience",
                ClientAuth::none("a b").with_audience("https://login.test"),
                "client_id=a b".into(),
            ),
        ] {
            assert_eq!(sent(&auth.prove(&ATTEMPT).unwrap()), expected, "{case}");
            assert_eq!(sent(&auth.prove_for_revocation(&ATTEMPT).unwrap()), expected, "{case}");
        }
    }

    #[test]
    fn k_63_debug_hides_the_secret_and_the_header_is_sensitive() {
        let auth = ClientAuth::basic("id", "CANARY");
        assert!(!format!("{auth:?}").contains("CANARY"));
        assert!(auth.prove(&ATTEMPT).unwrap().header.unwrap().is_sensitive());
    }
}
