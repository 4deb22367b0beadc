//! Who we say we are (RFC 6749 §2.3): one method, never probed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded::byte_serialize;

use crate::error::Error;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
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

    fn with(method: Method, id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { method, id: id.into(), secret: secret.into().into() }
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

    /// The `Authorization` header, for the methods that have one.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let (id, secret) = match self.method {
            Method::Basic => (form_encoded(&self.id), form_encoded(self.secret())),
            Method::BasicRaw => (self.id.clone(), self.secret().to_owned()),
            // STANDARD is what java.util.Base64's strict decoder takes.
            Method::DigiRunner if self.secret().is_empty() => (self.id.clone(), String::new()),
            Method::DigiRunner => (self.id.clone(), STANDARD.encode(self.secret())),
            Method::Body | Method::None => return None,
        };
        let value = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        // unwrap safety: Base64 is ASCII.
        let mut value = HeaderValue::try_from(value).expect("Base64 is valid in a header");
        value.set_sensitive(true);
        Some(value)
    }

    /// The form parameters of a token request, for the methods that have some.
    pub(crate) fn form(&self) -> Vec<(&str, &str)> {
        match self.method {
            Method::Basic | Method::BasicRaw | Method::DigiRunner => Vec::new(),
            Method::Body => vec![("client_id", &self.id), ("client_secret", self.secret())],
            Method::None => vec![("client_id", &self.id)],
        }
    }

    /// Header and form parameters of a revocation request.
    ///
    /// RFC 7009 §2.1 authenticates as at the token endpoint; digiRunner takes the password as it
    /// is, in the body, and none of a public client.
    pub(crate) fn for_revocation(&self) -> (Option<HeaderValue>, Vec<(&str, &str)>) {
        match self.method {
            Method::DigiRunner => {
                let mut form = vec![("client_id", self.id.as_str())];
                form.extend(Some(("client_secret", self.secret())).filter(|s| !s.1.is_empty()));
                (None, form)
            }
            _ => (self.header(), self.form()),
        }
    }

    /// The method's registered name, by which a server's metadata calls it (RFC 8414 §2).
    pub(crate) fn method_name(&self) -> &'static str {
        match self.method {
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
fn form_encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(auth: &ClientAuth) -> String {
        let header = auth.header().map(|header| header.to_str().unwrap().to_owned());
        let form = auth.form().into_iter().map(|(name, value)| format!("{name}={value}"));
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
            assert_eq!(sent(&auth), expected, "{case}");
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
        let auth = ClientAuth::digirunner("tspclient", Some("tsp123abcd"));
        let expected = vec![("client_id", "tspclient"), ("client_secret", "tsp123abcd")];
        assert_eq!(auth.for_revocation(), (None, expected));
        let public = ClientAuth::digirunner("tspclient", None::<&str>);
        assert_eq!(public.for_revocation(), (None, vec![("client_id", "tspclient")]));
    }

    #[test]
    fn k_63_debug_hides_the_secret_and_the_header_is_sensitive() {
        let auth = ClientAuth::basic("id", "CANARY");
        assert!(!format!("{auth:?}").contains("CANARY"));
        assert!(auth.header().unwrap().is_sensitive());
    }
}
