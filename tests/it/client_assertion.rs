//! Clients that sign a JWT to say who they are (RFC 7523), and a server that looks closely.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::Mutex;
use reqwest_refresh::{
    ClientAuth, ErrorKind, Refresh as _, RefreshFailure, ServerMetadata, SigningAlgorithm,
    SigningKey, TokenEndpoint,
};
use serde_json::{Value, json};

use crate::support::{Answer, SECOND, Seen, Server, answer};
use crate::token_request::{FINE, ask, backoff, session, tokens};

/// What the server knows of the client `app`, and which assertions it has seen.
#[derive(Clone)]
struct Registration {
    algorithm: Algorithm,
    public: DecodingKey,
    /// Whom an assertion must be for; the URL of the token endpoint if it is not said.
    audience: Option<&'static str>,
    used: Arc<Mutex<HashSet<String>>>,
}

impl Registration {
    fn new(algorithm: Algorithm, public: DecodingKey) -> Self {
        Self { algorithm, public, audience: None, used: Arc::default() }
    }

    /// RFC 7523 §3, and RFC 7521 §4.2: why the request is not from `app`, or that it is.
    fn check(&self, seen: &Seen) -> Result<(), String> {
        let ensure = |is_right: bool, what: &str| match is_right {
            true => Ok(()),
            false => Err(what.to_owned()),
        };
        ensure(!seen.headers.contains_key("authorization"), "two methods: a header")?;
        let form = form(seen);
        ensure(!form.contains_key("client_secret"), "two methods: a secret")?;
        ensure(form["client_id"] == "app", "client_id")?;
        let jwt_bearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        ensure(form["client_assertion_type"] == jwt_bearer, "client_assertion_type")?;

        let mut url = seen.url.clone();
        url.set_path("/token");
        let mut validation = Validation::new(self.algorithm);
        validation.leeway = 0;
        validation.set_issuer(&["app"]);
        validation.set_audience(&[self.audience.unwrap_or(url.as_str())]);
        validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
        validation.sub = Some("app".into());
        let token =
            jsonwebtoken::decode::<Value>(&form["client_assertion"], &self.public, &validation)
                .map_err(|error| error.to_string())?;
        ensure(token.header.typ.as_deref() == Some("JWT"), "typ")?;
        ensure(token.header.kid.as_deref() == Some("key-1"), "kid")?;
        let now = jsonwebtoken::get_current_timestamp();
        let [iat, exp] = ["iat", "exp"].map(|name| token.claims[name].as_u64().unwrap());
        ensure(iat <= now && exp - iat == 60, "lifetime")?;
        let jti = token.claims["jti"].as_str().unwrap().to_owned();
        ensure(jti.len() == 32, "128 bits in hexadecimal digits")?;
        ensure(self.used.lock().insert(jti), "used before")
    }
}

fn form(seen: &Seen) -> HashMap<String, String> {
    let body = seen.body.as_deref().unwrap();
    let pairs: Vec<_> = url::form_urlencoded::parse(body).into_owned().collect();
    let form: HashMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(form.len(), pairs.len(), "RFC 6749 §3.2: no parameter twice");
    form
}

fn pem(der: impl AsRef<[u8]>) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

fn es256() -> (SigningKey, Registration) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let key = SigningKey::from_pem(SigningAlgorithm::Es256, pem(pair.to_pkcs8v1().unwrap()));
    let public = DecodingKey::from_ec_der(pair.public_key().as_ref());
    (key.unwrap().with_key_id("key-1"), Registration::new(Algorithm::ES256, public))
}

/// Answers with tokens to the client that is registered.
async fn server(registration: &Registration) -> Server {
    let registration = registration.clone();
    Server::start(move |seen| match registration.check(seen) {
        Ok(()) => answer(200, FINE),
        Err(why) => refusal(&why),
    })
    .await
}

fn refusal(why: &str) -> Answer {
    let error = json!({"error": "invalid_client", "error_description": why});
    answer(401, error.to_string())
}

fn endpoint(server: &Server, auth: ClientAuth) -> TokenEndpoint {
    let endpoint = TokenEndpoint::new(&server.url("/token"), auth).unwrap();
    endpoint.with_revocation_url(&server.url("/revoke")).unwrap()
}

/// K-31, R-050, R-100, R-101: the server is somebody else's code, and finds nothing wrong.
#[tokio::test]
async fn k_31_a_server_takes_the_assertion_of_every_algorithm() {
    let rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa_der: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    let rsa_pem = pem(rsa_der.as_ref());
    let rsa_public = DecodingKey::from_rsa_der(rsa.public_key().as_ref());
    let ed = Ed25519KeyPair::generate().unwrap();
    let ed_pem = pem(ed.to_pkcs8().unwrap());
    let ed_public = DecodingKey::from_ed_der(ed.public_key().as_ref());
    let from_pem = |algorithm, pem: &str| {
        let key = SigningKey::from_pem(algorithm, pem).unwrap().with_key_id("key-1");
        ClientAuth::private_key_jwt("app", key)
    };
    let (key, es256) = es256();
    for (auth, registration) in [
        (ClientAuth::private_key_jwt("app", key), es256),
        (
            from_pem(SigningAlgorithm::EdDsa, &ed_pem),
            Registration::new(Algorithm::EdDSA, ed_public),
        ),
        (
            from_pem(SigningAlgorithm::Ps256, &rsa_pem),
            Registration::new(Algorithm::PS256, rsa_public.clone()),
        ),
        (
            from_pem(SigningAlgorithm::Rs256, &rsa_pem),
            Registration::new(Algorithm::RS256, rsa_public),
        ),
    ] {
        let server = server(&registration).await;
        let fresh = endpoint(&server, auth).refresh(&tokens()).await;
        let fresh = fresh.unwrap_or_else(|error| panic!("{:?}: {error:?}", registration.algorithm));
        assert_eq!(fresh.access_token(), "a1");
    }
}

/// K-31, R-100: the client's secret signs, and is not sent.
#[tokio::test]
async fn k_31_a_client_secret_signs_and_stays_here() {
    let secret = "a secret of at least thirty-two bytes";
    let public = DecodingKey::from_secret(secret.as_bytes());
    let server = Server::start(|_| answer(200, FINE)).await;
    let auth = ClientAuth::client_secret_jwt("app", secret);
    endpoint(&server, auth).refresh(&tokens()).await.unwrap();
    let seen = server.seen().remove(0);
    assert!(!String::from_utf8_lossy(seen.body.as_ref().unwrap()).contains("thirty-two"));
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&[seen.url.as_str()]);
    let assertion = &form(&seen)["client_assertion"];
    let token = jsonwebtoken::decode::<Value>(assertion, &public, &validation).unwrap();
    assert_eq!((&token.claims["iss"], &token.header.kid), (&json!("app"), &None));
}

/// K-31, R-102: for whom an assertion is made can be said.
#[tokio::test]
async fn k_31_the_audience_can_be_the_issuer() {
    let (key, mut registration) = es256();
    registration.audience = Some("https://issuer.test");
    let server = server(&registration).await;
    let auth = ClientAuth::private_key_jwt("app", key);
    let told = endpoint(&server, auth.clone().with_audience("https://issuer.test"));
    told.refresh(&tokens()).await.unwrap();
    let error = endpoint(&server, auth).refresh(&tokens()).await.unwrap_err();
    assert_eq!(error.failure(), RefreshFailure::Configuration);
}

/// K-31, R-102: the server that says its name wants to read it.
#[tokio::test]
async fn k_31_an_endpoint_of_a_servers_metadata_means_the_issuer() {
    let (key, mut registration) = es256();
    registration.audience = Some("https://issuer.test");
    let server = server(&registration).await;
    let document = json!({
        "issuer": "https://issuer.test",
        "token_endpoint": server.url("/token"),
        "revocation_endpoint": server.url("/revoke"),
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
    });
    let document = document.to_string();
    let found = ServerMetadata::from_json("https://issuer.test", document.as_bytes()).unwrap();
    let auth = ClientAuth::private_key_jwt("app", key);
    let endpoint = found.token_endpoint(auth.clone()).unwrap();
    endpoint.refresh(&tokens()).await.unwrap();
    endpoint.revoke(&tokens()).await.unwrap();
    let other = found.token_endpoint(auth.with_audience(server.url("/token"))).unwrap();
    other.refresh(&tokens()).await.expect_err("what is said comes first");
}

/// K-35, R-101: a server that remembers what it has seen refuses none of ours, be it another attempt
/// of one refresh or another refresh.
#[tokio::test]
async fn k_35_every_attempt_has_an_assertion_of_its_own() {
    let (key, registration) = es256();
    let script = registration.clone();
    let server = Server::start(move |seen| match script.check(seen) {
        Ok(()) if script.used.lock().len() == 1 => answer(503, ""),
        Ok(()) => answer(200, FINE),
        Err(why) => refusal(&why),
    })
    .await;
    let auth = ClientAuth::private_key_jwt("app", key);
    let (session, clock) = session(endpoint(&server, auth));
    let waiting = ask(&session);
    clock.advance(backoff(&clock).await);
    waiting.await.unwrap().unwrap();
    clock.advance(3600 * SECOND);
    ask(&session).await.unwrap().unwrap();
    assert_eq!(server.log(), ["/token -", "/token -", "/token -"]);
    assert_eq!(registration.used.lock().len(), 3);
}

/// K-31, K-73: RFC 7009 §2.1 authenticates as at the token endpoint, for the same audience.
#[tokio::test]
async fn k_31_a_revocation_is_signed_too() {
    let (key, registration) = es256();
    let server = server(&registration).await;
    let endpoint = endpoint(&server, ClientAuth::private_key_jwt("app", key));
    endpoint.revoke(&tokens()).await.unwrap();
    assert_eq!(server.log(), ["/revoke -", "/revoke -"]);
    assert_eq!(registration.used.lock().len(), 2);
}

/// K-31, K-34: a client that is refused tries no second method, and asks nobody to log in.
#[tokio::test]
async fn k_31_a_refused_assertion_is_not_replaced_by_another_method() {
    let (_, registration) = es256();
    let (stranger, _) = es256();
    let server = server(&registration).await;
    let auth = ClientAuth::private_key_jwt("app", stranger);
    let (session, _clock) = session(endpoint(&server, auth));
    for _ in 0..2 {
        let error = session.tokens().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Configuration), "{error}");
        assert!(error.to_string().contains("InvalidSignature"), "{error}");
    }
    assert_eq!(server.log(), ["/token -"]);
}

/// K-63: a server that says everything that it was told.
#[tokio::test]
async fn k_63_neither_the_assertion_nor_its_secret_is_printed() {
    let secret = "cnry-secret";
    let server = Server::start(|seen| {
        let assertion = form(seen).remove("client_assertion").unwrap();
        let parts: Vec<_> = assertion.split('.').collect();
        let error = json!({
            "error": "invalid_client",
            "error_description": format!("cnry-secret {assertion} \"{}\" ({})", parts[1], parts[2]),
            "client_assertion": assertion,
            "assertions": [{ "parts": parts }],
        });
        answer(401, error.to_string())
    })
    .await;
    let auth = ClientAuth::client_secret_jwt("app", secret);
    let (session, _clock) = session(endpoint(&server, auth.clone()));
    let error = session.tokens().await.unwrap_err();
    assert!(error.to_string().contains("[hidden]"), "{error}");
    let refused = endpoint(&server, auth.clone()).refresh(&tokens()).await.unwrap_err();
    let printed = format!("{auth:?} {session:?} {error} {error:?} {refused:?}");
    assert!(printed.contains("HS256"), "{printed}");
    let assertions = server.seen().into_iter().map(|seen| form(&seen)["client_assertion"].clone());
    for assertion in assertions {
        for word in assertion.split('.').chain([secret, "client_assertion\": String(\"ey"]) {
            assert!(!printed.contains(word), "{word} in {printed}");
        }
    }
}
