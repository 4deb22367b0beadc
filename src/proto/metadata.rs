//! What an authorization server says of itself (RFC 8414, OpenID Connect Discovery 1.0): where that
//! is found, and what of it is believed.

use serde_json::{Map, Value};
use url::Url;

use crate::error::{Error, ErrorKind};
use crate::proto::client_auth::ClientAuth;
use crate::proto::grant::json_object;
use crate::proto::origin::{insecure, is_confidential, is_loopback, printed, server_url};
use crate::proto::provider::by_status;
use crate::proto::redact;

/// The URL that is an authorization server's name (RFC 8414 §2).
#[derive(Clone, Debug)]
pub(crate) struct Issuer {
    /// As it was given, to be compared.
    name: String,
    url: Url,
}

/// What an answer to a question for metadata means.
#[derive(Debug)]
pub(crate) enum AfterAnswer {
    /// The server does not know this place, which shows in this.
    AskElsewhere(String),
    /// No other place would help.
    Fail(Error),
    /// This is it.
    Take(Document),
}

/// Metadata that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) issuer: String,
    pub(crate) token_endpoint: Option<Url>,
    pub(crate) revocation_endpoint: Option<Url>,
    pub(crate) members: Map<String, Value>,
}

impl Issuer {
    pub(crate) fn parse(name: &str) -> Result<Self, Error> {
        // RFC 8414 §2: "a URL that uses the "https" scheme and has no query or fragment components".
        if name.contains(['?', '#']) {
            let message = "the issuer must not have a query or a fragment (RFC 8414 §2)";
            return Err(Error::configuration(message));
        }
        let url = server_url("the issuer", name)?;
        if url.path().contains("/.well-known/") {
            let message = "the issuer is what the metadata calls `issuer`, \
                           not the URL of the metadata itself";
            return Err(Error::configuration(message));
        }
        if !is_confidential(&url) {
            let origin = printed(&url);
            let message = format!("metadata is not taken from {origin} over plain http; use https");
            return Err(Error::new(ErrorKind::Insecure, message));
        }
        Ok(Self { name: name.to_owned(), url })
    }

    /// Where the metadata may be, in the order of asking.
    pub(crate) fn well_known(&self) -> [Url; 2] {
        let at = |path: String| {
            let mut url = self.url.clone();
            url.set_path(&path);
            url
        };
        // RFC 8414 §3.1: "any terminating "/" MUST be removed before inserting "/.well-known/" and
        // the well-known URI suffix between the host component and the path component". OpenID
        // Connect Discovery 1.0 §4.1 appends it.
        let path = without_last_slash(self.url.path());
        [
            at(format!("/.well-known/oauth-authorization-server{path}")),
            at(format!("{path}/.well-known/openid-configuration")),
        ]
    }

    /// What an answer at one of the [well-known URLs](Self::well_known) means.
    pub(crate) fn after_answer(&self, status: u16, body: &[u8]) -> AfterAnswer {
        match status {
            200 => self.read(body),
            300..=399 => AfterAnswer::Fail(self.error(
                ErrorKind::Configuration,
                "the server sends us elsewhere, where we do not follow: \
                 ask for the issuer that it has there",
            )),
            _ if by_status(status).is_some() => AfterAnswer::Fail(
                self.error(ErrorKind::Unavailable, &format!("the answer has status {status}")),
            ),
            _ => AfterAnswer::AskElsewhere(format!("the answer has status {status}")),
        }
    }

    /// What a document means that may be the metadata.
    pub(crate) fn read(&self, body: &[u8]) -> AfterAnswer {
        let Some(members) = json_object(body) else {
            return AfterAnswer::AskElsewhere("the answer is not a JSON object".into());
        };
        let Some(issuer) = members.get("issuer").and_then(Value::as_str) else {
            return AfterAnswer::AskElsewhere("the answer names no issuer".into());
        };
        if !self.is(issuer) {
            let message = format!(
                "what is there is that of {:?}; if this is the server you mean, \
                 ask for it by this name (RFC 8414 §3.3)",
                printable(issuer)
            );
            return AfterAnswer::Fail(self.error(ErrorKind::Configuration, &message));
        }
        match Document::check(issuer.to_owned(), &self.url, members) {
            Ok(document) => AfterAnswer::Take(document),
            Err(error) => AfterAnswer::Fail(error),
        }
    }

    /// RFC 8414 §3.3: "The "issuer" value returned MUST be identical to the authorization server's
    /// issuer identifier value into which the well-known URI string was inserted".
    ///
    /// But for a "/" at the end, with or without which the well-known URLs are the same: whoever
    /// answers there for one name answers for the other.
    fn is(&self, issuer: &str) -> bool {
        without_last_slash(&self.name) == without_last_slash(issuer)
    }

    /// There is no metadata, for these reasons.
    pub(crate) fn unknown(&self, reasons: &[String]) -> Error {
        self.error(ErrorKind::Configuration, &reasons.join("; "))
    }

    fn error(&self, kind: ErrorKind, why: &str) -> Error {
        Error::new(kind, format!("no metadata of {:?}: {why}", self.name))
    }
}

impl Document {
    fn check(issuer: String, url: &Url, members: Map<String, Value>) -> Result<Self, Error> {
        Ok(Self {
            issuer,
            token_endpoint: endpoint(&members, "token_endpoint", url)?,
            revocation_endpoint: endpoint(&members, "revocation_endpoint", url)?,
            members,
        })
    }

    /// The token endpoint, if the server says that `auth` is welcome there.
    pub(crate) fn token_endpoint_for(&self, auth: &ClientAuth) -> Result<&Url, Error> {
        let Some(url) = &self.token_endpoint else {
            let message = "the server's metadata names no token endpoint";
            return Err(Error::configuration(message));
        };
        let method = auth.method_name();
        let is_welcome = self.named_auth_methods().is_none_or(|named| named.contains(&method));
        // Many servers that have public clients do not say so.
        if is_welcome || method == "none" {
            return Ok(url);
        }
        let named = redact::text(&self.auth_methods().join(", "), &[]);
        let message = format!("the server does not take `{method}` of a client, but: {named}");
        Err(Error::configuration(message))
    }

    /// RFC 8414 §2, `token_endpoint_auth_methods_supported`: "If omitted, the default is
    /// "client_secret_basic"".
    pub(crate) fn auth_methods(&self) -> Vec<&str> {
        self.named_auth_methods().unwrap_or_else(|| vec!["client_secret_basic"])
    }

    fn named_auth_methods(&self) -> Option<Vec<&str>> {
        let methods = self.members.get("token_endpoint_auth_methods_supported")?.as_array()?;
        let methods: Vec<_> = methods.iter().filter_map(Value::as_str).collect();
        // RFC 8414 §3.2: "Claims with zero elements MUST be omitted from the response."
        (!methods.is_empty()).then_some(methods)
    }
}

/// The URL of an endpoint; `None` if the metadata has none. It may be of another origin.
/// Plain `http` only from an issuer that is itself on loopback: no stranger sends credentials to
/// a process of this machine.
fn endpoint(members: &Map<String, Value>, name: &str, issuer: &Url) -> Result<Option<Url>, Error> {
    let url = match members.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_str().unwrap_or_default(),
    };
    let url = server_url(&format!("the metadata's `{name}`"), url)?;
    match url.scheme() == "https" || (is_confidential(&url) && is_loopback(issuer)) {
        true => Ok(Some(url)),
        false => Err(insecure(&url)),
    }
}

fn without_last_slash(text: &str) -> &str {
    text.strip_suffix('/').unwrap_or(text)
}

/// What a server calls itself, without what is no part of a name, and not endless.
fn printable(issuer: &str) -> String {
    match server_url("the issuer", issuer) {
        Ok(url) if url.query().is_none() => issuer.chars().take(256).collect(),
        _ => redact::text(issuer, &[]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::proto::jws::SigningKey;

    fn issuer(name: &str) -> Issuer {
        Issuer::parse(name).unwrap()
    }

    /// `take`, `elsewhere: …` or the error.
    fn told(verdict: AfterAnswer) -> String {
        match verdict {
            AfterAnswer::AskElsewhere(reason) => format!("elsewhere: {reason}"),
            AfterAnswer::Fail(error) => error.to_string(),
            AfterAnswer::Take(_) => "take".into(),
        }
    }

    fn document(members: Value) -> Result<Document, Error> {
        match issuer("https://as.test").read(members.to_string().as_bytes()) {
            AfterAnswer::Take(document) => Ok(document),
            AfterAnswer::Fail(error) => Err(error),
            AfterAnswer::AskElsewhere(reason) => panic!("{reason}"),
        }
    }

    /// R-110. The examples of RFC 8414 §3.1 and OpenID Connect Discovery 1.0 §4.1.
    #[test]
    fn r_110_the_well_known_path_is_inserted_by_rfc_8414_and_appended_by_openid() {
        for (name, inserted, appended) in [
            (
                "https://example.com",
                "https://example.com/.well-known/oauth-authorization-server",
                "https://example.com/.well-known/openid-configuration",
            ),
            (
                "https://example.com/",
                "https://example.com/.well-known/oauth-authorization-server",
                "https://example.com/.well-known/openid-configuration",
            ),
            (
                "https://example.com/issuer1",
                "https://example.com/.well-known/oauth-authorization-server/issuer1",
                "https://example.com/issuer1/.well-known/openid-configuration",
            ),
            (
                "https://kc.test:8443/realms/x/",
                "https://kc.test:8443/.well-known/oauth-authorization-server/realms/x",
                "https://kc.test:8443/realms/x/.well-known/openid-configuration",
            ),
            (
                "https://as.test/a%20b",
                "https://as.test/.well-known/oauth-authorization-server/a%20b",
                "https://as.test/a%20b/.well-known/openid-configuration",
            ),
        ] {
            assert_eq!(issuer(name).well_known().map(String::from), [inserted, appended], "{name}");
        }
    }

    /// R-110, R-112.
    #[test]
    fn r_112_what_cannot_be_an_issuer_is_refused_with_the_reason() {
        for (case, name, kind, words) in [
            ("empty", "", "configuration", "the issuer is malformed"),
            ("a host", "login.example.com", "configuration", "the issuer is malformed"),
            ("another scheme", "ftp://as.test", "configuration", "must begin with https://"),
            ("a query", "https://as.test/?tenant=CANARY", "configuration", "query or a fragment"),
            ("an empty query", "https://as.test?", "configuration", "query or a fragment"),
            ("a fragment", "https://as.test/#CANARY", "configuration", "query or a fragment"),
            ("a password", "https://u:CANARY@as.test", "configuration", "use ClientAuth"),
            ("plain http", "http://as.test", "insecure URL", "http://as.test over plain http"),
            (
                "the metadata's own URL",
                "https://as.test/.well-known/openid-configuration",
                "configuration",
                "not the URL of the metadata itself",
            ),
        ] {
            let error = Issuer::parse(name).unwrap_err();
            assert_eq!(error.kind().to_string(), kind, "{case}");
            assert!(error.to_string().contains(words), "{case}: {error}");
            assert!(!format!("{error} {error:?}").contains("CANARY"), "K-63: {case}");
        }
        for name in ["http://localhost:8080/realms/x", "http://127.0.0.1", "http://[::1]:1"] {
            issuer(name);
        }
    }

    #[test]
    fn only_an_answer_of_who_does_not_know_the_path_is_a_reason_to_ask_elsewhere() {
        let fine = r#"{"issuer": "https://as.test", "token_endpoint": "https://as.test/token"}"#;
        let no_object = "elsewhere: the answer is not a JSON object";
        let nameless = "elsewhere: the answer names no issuer";
        let moved = "configuration: no metadata of \"https://as.test\": the server sends us \
                     elsewhere, where we do not follow: ask for the issuer that it has there";
        let stranger = "configuration: no metadata of \"https://as.test\": what is there is that of \
                        \"https://evil.test\"; if this is the server you mean, ask for it by this \
                        name (RFC 8414 §3.3)";
        let down = |status| {
            format!(
                "authorization server unavailable: no metadata of \"https://as.test\": \
                 the answer has status {status}"
            )
        };
        for (case, status, body, expected) in [
            ("metadata", 200, fine, "take"),
            ("with a byte order mark", 200, &format!("\u{feff}{fine}"), "take"),
            ("a page", 200, "<!doctype html>", no_object),
            ("half of it", 200, &fine[..40], no_object),
            ("nothing", 200, "", no_object),
            ("an array", 200, "[]", no_object),
            ("an error with status 200", 200, r#"{"error": "not_found"}"#, nameless),
            ("an issuer that is no text", 200, r#"{"issuer": 5}"#, nameless),
            ("another's", 200, r#"{"issuer": "https://evil.test"}"#, stranger),
            ("not found", 404, fine, "elsewhere: the answer has status 404"),
            ("no such method", 405, "", "elsewhere: the answer has status 405"),
            ("a gateway before it", 403, "", "elsewhere: the answer has status 403"),
            ("no content", 204, "", "elsewhere: the answer has status 204"),
            ("moved", 301, fine, moved),
            ("moved, with its body", 308, fine, moved),
            ("busy", 429, fine, &down(429)),
            ("broken", 500, fine, &down(500)),
            ("down", 503, fine, &down(503)),
        ] {
            let verdict = issuer("https://as.test").after_answer(status, body.as_bytes());
            assert_eq!(told(verdict), expected, "{case}");
        }
    }

    /// R-111.
    #[test]
    fn r_111_another_issuer_is_refused_but_for_a_slash_at_the_end() {
        for (case, asked, named, is_taken) in [
            ("the same", "https://as.test", "https://as.test", true),
            ("Auth0's slash", "https://as.test", "https://as.test/", true),
            ("a slash too many", "https://as.test/", "https://as.test", true),
            ("with a path", "https://as.test/realms/x/", "https://as.test/realms/x", true),
            ("two slashes", "https://as.test", "https://as.test//", false),
            ("another host", "https://as.test", "https://as.test.evil.test", false),
            ("another scheme", "https://localhost", "http://localhost", false),
            ("another port", "https://as.test", "https://as.test:8443", false),
            ("another tenant", "https://as.test/a", "https://as.test/b", false),
            ("its parent", "https://as.test/a", "https://as.test", false),
            ("its child", "https://as.test", "https://as.test/a", false),
            ("another case", "https://as.test/a", "https://as.test/A", false),
            ("a query", "https://as.test", "https://as.test?a=b", false),
            ("Entra's template", "https://as.test/common", "https://as.test/{tenantid}", false),
            ("empty", "https://as.test", "", false),
        ] {
            let verdict = issuer(asked).read(json!({"issuer": named}).to_string().as_bytes());
            assert_eq!(matches!(verdict, AfterAnswer::Take(_)), is_taken, "{case}: {verdict:?}");
        }
    }

    #[test]
    fn k_63_what_a_stranger_calls_itself_is_printed_with_care() {
        let long = format!("https://{}.test/", "a".repeat(5000));
        for (case, named, expected) in [
            ("a template", "https://as.test/{tenantid}", "https://as.test/{tenantid}"),
            (
                "a query",
                "https://as.test/?key=eyJ0eXAiOiJKV1QiLCJhbGci",
                "https://as.test/?[hidden]",
            ),
            ("a password", "https://user:eyJ0eXAiOiJKV1QiLCJhbGci@as.test", "[hidden]@as.test"),
            ("no URL", "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9", "[hidden]"),
            ("log injection", "https://as.test/\nINFO fine", "https://as.test/\\nINFO fine"),
            ("endless", &long, &long[..256]),
        ] {
            let error = document(json!({"issuer": named})).unwrap_err().to_string();
            assert!(error.contains(expected), "{case}: {error}");
            assert!(error.len() < 500 && !error.contains("eyJ0"), "{case}: {error}");
            assert!(!error.contains('\n'), "{case}: {error}");
        }
    }

    /// R-003, R-004, R-090.
    #[test]
    fn k_04_an_endpoint_that_would_leak_is_refused() {
        for name in ["token_endpoint", "revocation_endpoint"] {
            for (case, url, expected) in [
                ("another host", json!("https://oauth2.other.test/token?v=2"), None),
                ("on loopback", json!("http://127.0.0.1:8080/token"), Some("insecure URL")),
                ("null", json!(null), None),
                ("plain http", json!("http://as.test/token"), Some("insecure URL: tokens are not")),
                ("a fragment", json!("https://as.test/token#a"), Some("must not have a fragment")),
                ("a password", json!("https://u:p@as.test/token"), Some("credentials")),
                ("relative", json!("/token"), Some("is malformed")),
                ("empty", json!(""), Some("is malformed")),
                ("a number", json!(5), Some("is malformed")),
                ("another scheme", json!("file:///token"), Some("must begin with https://")),
            ] {
                let result = document(json!({"issuer": "https://as.test", name: url}));
                match (result, expected) {
                    (Ok(_), None) => {}
                    (Err(error), Some(words)) => {
                        let error = error.to_string();
                        assert!(error.contains(words), "{name}, {case}: {error}");
                        let names_it = error.contains(&format!("`{name}`"));
                        assert!(names_it || error.starts_with("insecure"), "{case}: {error}");
                    }
                    (got, _) => panic!("{name}, {case}: {got:?}"),
                }
            }
            let issuer = "http://localhost:8080";
            let local = json!({"issuer": issuer, name: "http://127.0.0.1:8080/token"});
            let read = Issuer::parse(issuer).unwrap().read(local.to_string().as_bytes());
            assert!(matches!(read, AfterAnswer::Take(_)), "{name}: both on loopback");
        }
    }

    /// R-113.
    #[test]
    fn k_31_a_method_that_the_server_does_not_name_is_refused_before_the_first_request() {
        let basic = || ClientAuth::basic("app", "s");
        let digirunner = || ClientAuth::digirunner("app", Some("s"));
        let client_secret_jwt = || ClientAuth::client_secret_jwt("app", "s");
        let private_key_jwt = || ClientAuth::private_key_jwt("app", SigningKey::from_secret("s"));
        for (case, named, auth, is_welcome) in [
            ("named", json!(["private_key_jwt", "client_secret_basic"]), basic(), true),
            ("raw", json!(["client_secret_basic"]), ClientAuth::basic_raw("app", "s"), true),
            ("digiRunner", json!(["client_secret_basic"]), digirunner(), true),
            ("a key", json!(["private_key_jwt"]), private_key_jwt(), true),
            ("a key, not named", json!(["client_secret_jwt"]), private_key_jwt(), false),
            ("a signing secret", json!(["client_secret_jwt"]), client_secret_jwt(), true),
            ("a signing secret, not named", json!(["private_key_jwt"]), client_secret_jwt(), false),
            ("body", json!(["client_secret_post"]), ClientAuth::body("app", "s"), true),
            ("public", json!(["none"]), ClientAuth::none("app"), true),
            ("public, not named", json!(["client_secret_basic"]), ClientAuth::none("app"), true),
            ("not named", json!(["client_secret_post"]), basic(), false),
            ("not named, body", json!(["client_secret_basic"]), ClientAuth::body("a", "s"), false),
            ("none is named, body", json!(null), ClientAuth::body("app", "s"), true),
            ("an empty list", json!([]), ClientAuth::body("app", "s"), true),
            ("no list", json!("client_secret_basic"), ClientAuth::body("app", "s"), true),
        ] {
            let document = document(json!({
                "issuer": "https://as.test",
                "token_endpoint": "https://as.test/token",
                "token_endpoint_auth_methods_supported": named,
            }));
            let document = document.unwrap();
            let result = document.token_endpoint_for(&auth);
            assert_eq!(result.is_ok(), is_welcome, "{case}: {result:?}");
            if let Err(error) = result {
                assert!(error.to_string().contains(auth.method_name()), "{case}: {error}");
                let list = document.auth_methods().join(", ");
                assert!(error.to_string().ends_with(&format!("but: {list}")), "{case}: {error}");
            }
        }
    }

    #[test]
    fn r_113_who_names_no_methods_means_basic() {
        let silent = document(json!({"issuer": "https://as.test"})).unwrap();
        assert_eq!(silent.auth_methods(), ["client_secret_basic"]);
        let error = silent.token_endpoint_for(&ClientAuth::none("app")).unwrap_err();
        assert!(error.to_string().contains("names no token endpoint"), "{error}");
    }
}
