//! A server that nobody here wrote: oidc-provider, which the OpenID Foundation has certified, with
//! refresh tokens that rotate.
//!
//! `cargo test --all-features --test it -- --ignored oidc_provider`, with Node ≥ 20 and npm.
//! Sessions have a manual clock; the server's is moved along with it.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_refresh::{
    Authenticate, ClientAuth, Error, ErrorKind, LoginReason, ManualClock, ServerMetadata, Session,
    SessionBuilder, SigningAlgorithm, SigningKey, TokenSet,
};
use serde_json::{Value, json};

use crate::support::{Hook, OidcProvider, bounded, outcome};

const GRANTED: &str = "refresh_token: granted";

/// A client that cannot keep a secret.
fn public() -> Value {
    json!({ "client_id": "public", "token_endpoint_auth_method": "none" })
}

/// A client that says who it is by this method.
fn confidential(id: &str, method: &str, secret: &str) -> Value {
    json!({ "client_id": id, "token_endpoint_auth_method": method, "client_secret": secret })
}

/// A session with the server, somebody to ask for a login, and a clock that both share.
struct Trial<'a> {
    server: &'a OidcProvider,
    api: String,
    clock: ManualClock,
    hook: Hook,
    session: Session,
    client: ClientWithMiddleware,
}

impl<'a> Trial<'a> {
    fn new(server: &'a OidcProvider, path: &str, builder: SessionBuilder) -> Self {
        let (clock, hook) = (ManualClock::new(), Hook::declining());
        let session = hook.on(builder.clock(clock.clone())).build().unwrap();
        let client = ClientBuilder::new(reqwest::Client::new()).with(session.clone()).build();
        Self { server, api: server.url(path), clock, hook, session, client }
    }

    /// A client that says who it is in this way, after a login of somebody with it.
    async fn with(server: &'a OidcProvider, client_id: &str, auth: ClientAuth) -> Self {
        let builder = Session::builder(server.endpoint(auth));
        Self::new(server, "/me", builder.tokens(server.log_in(client_id).await))
    }

    /// The public client, after a login.
    async fn public(server: &'a OidcProvider) -> Self {
        Self::with(server, "public", ClientAuth::none("public")).await
    }

    /// Lets time pass for both.
    async fn advance(&self, duration: Duration) {
        self.clock.advance(duration);
        self.server.advance(duration).await;
    }

    /// What a GET comes to: `200`, or the kind of error.
    async fn outcome(&self) -> String {
        let request = self.client.get(&self.api);
        outcome(bounded(request.send()).await)
    }

    /// What so many GETs at once come to, each named once.
    async fn outcomes(&self, requests: usize) -> Vec<String> {
        self.outcomes_at(vec![self.api.clone(); requests]).await
    }

    async fn outcomes_at(&self, urls: Vec<String>) -> Vec<String> {
        let spawn = |url| {
            let request = self.client.get(url);
            tokio::spawn(async { outcome(bounded(request.send()).await) })
        };
        let mut outcomes = Vec::new();
        for request in urls.into_iter().map(spawn).collect::<Vec<_>>() {
            outcomes.push(request.await.unwrap());
        }
        outcomes.sort_unstable();
        outcomes.dedup();
        outcomes
    }

    fn tokens(&self) -> TokenSet {
        self.session.current_tokens().unwrap()
    }
}

// ---- K-31 ----

/// K-31, Q-70: a client secret may have every printable ASCII character (RFC 6749 §A.2), and so
/// may the client's id. This server decodes what Basic carries.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn q_70_the_server_knows_the_client_by_each_method() {
    let secret: String = (' '..='~').collect();
    let (id, basic, post) = ("odd +=%:&", "client_secret_basic", "client_secret_post");
    let server = OidcProvider::start(&[
        confidential(id, basic, &secret),
        confidential("post +=%:&", post, &secret),
        public(),
    ])
    .await;
    for (case, id, auth, expected) in [
        ("basic", id, ClientAuth::basic(id, &secret), "200"),
        ("basic, not encoded", id, ClientAuth::basic_raw("odd", &secret), "configuration"),
        ("body", "post +=%:&", ClientAuth::body("post +=%:&", &secret), "200"),
        ("no secret where there is one", id, ClientAuth::none(id), "configuration"),
        ("none", "public", ClientAuth::none("public"), "200"),
    ] {
        let before = server.log().await.len();
        let trial = Trial::with(&server, id, auth).await;
        trial.advance(OidcProvider::ACCESS_TOKEN).await;
        assert_eq!(trial.outcome().await, expected, "{case}");
        let log = server.log().await;
        assert_eq!(log.len(), before + 1, "{case}: one request, {log:?}");
        assert_eq!(log[before] == GRANTED, expected == "200", "{case}: {log:?}");
    }
}

/// K-34, K-54: what is wrong is the setting, so nobody is asked to log in, and nobody tries again.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn k_34_a_wrong_secret_is_tried_once_and_calls_no_hook() {
    let client = confidential("app", "client_secret_basic", "right");
    let server = OidcProvider::start(&[client]).await;
    let trial = Trial::with(&server, "app", ClientAuth::basic("app", "wrong")).await;
    trial.advance(OidcProvider::ACCESS_TOKEN).await;
    assert_eq!(trial.outcomes(20).await, ["configuration"]);
    trial.clock.advance(Duration::from_secs(300));
    assert_eq!(trial.outcome().await, "configuration");
    assert_eq!(server.log().await, ["refresh_token: invalid_client: invalid secret provided"]);
    assert_eq!(trial.hook.calls(), 0);
}

/// A client that signs who it is by this algorithm, and has its name.
fn signing(algorithm: &str, method: &str) -> Value {
    let mut client = confidential(algorithm, method, &"0123456789abcdef".repeat(2));
    client["token_endpoint_auth_signing_alg"] = json!(algorithm);
    client
}

/// K-31: RFC 7523. The keys are of somebody else's making too. The server takes no `jti` twice.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn k_31_the_server_knows_the_client_by_its_signature() {
    let private = "private_key_jwt";
    let clients = [
        signing("EdDSA", private),
        signing("ES256", private),
        signing("PS256", private),
        signing("RS256", private),
        signing("HS256", "client_secret_jwt"),
    ];
    let server = OidcProvider::start(&clients).await;
    let mut ways = Vec::new();
    for (id, algorithm) in [
        ("EdDSA", SigningAlgorithm::EdDsa),
        ("ES256", SigningAlgorithm::Es256),
        ("PS256", SigningAlgorithm::Ps256),
        ("RS256", SigningAlgorithm::Rs256),
    ] {
        let key = server.key(id).await;
        let pem = SigningKey::from_pem(algorithm, key["pem"].as_str().unwrap()).unwrap();
        ways.push((id, ClientAuth::private_key_jwt(id, pem)));
        let jwk = SigningKey::from_jwk(key["jwk"].to_string()).unwrap();
        let auth = ClientAuth::private_key_jwt(id, jwk);
        ways.push((id, auth.with_audience(server.url(""))));
    }
    let secret = clients[4]["client_secret"].as_str().unwrap();
    ways.push(("HS256", ClientAuth::client_secret_jwt("HS256", secret)));
    for (id, auth) in ways {
        let before = server.log().await.len();
        let trial = Trial::with(&server, id, auth).await;
        for _ in 0..3 {
            bounded(trial.session.refresh()).await.unwrap();
        }
        assert_eq!(trial.outcome().await, "200", "{id}");
        bounded(trial.session.log_out()).await.unwrap();
        let log = server.log().await;
        assert_eq!(log[before..], [GRANTED, GRANTED, GRANTED, "grant revoked"], "{id}");
    }
}

/// K-34: a key that is not the client's is like a wrong secret.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn k_34_another_clients_key_is_tried_once_and_calls_no_hook() {
    let private = "private_key_jwt";
    let mut other = signing("ES256", private);
    other["client_id"] = json!("other");
    let server = OidcProvider::start(&[signing("ES256", private), other]).await;
    let key = server.key("other").await["jwk"].to_string();
    let auth = ClientAuth::private_key_jwt("ES256", SigningKey::from_jwk(key).unwrap());
    let trial = Trial::with(&server, "ES256", auth).await;
    trial.clock.advance(OidcProvider::ACCESS_TOKEN);
    assert_eq!(trial.outcomes(20).await, ["configuration"]);
    let log = server.log().await;
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].starts_with("refresh_token: invalid_client"), "{log:?}");
    assert_eq!(trial.hook.calls(), 0);
}

/// What the rows of [`k_31_the_server_knows_the_client_by_its_signature`] are measured against: an
/// assertion by hand is good for one request.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn the_server_takes_no_assertion_twice() {
    let server = OidcProvider::start(&[signing("ES256", "private_key_jwt")]).await;
    let key = server.key("ES256").await;
    let now = ManualClock::new().wall().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let claims = json!({
        "iss": "ES256", "sub": "ES256", "aud": server.url("/token"), "jti": "1",
        "exp": now.as_secs() + 60,
    });
    let pem = EncodingKey::from_ec_pem(key["pem"].as_str().unwrap().as_bytes()).unwrap();
    let assertion = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &pem).unwrap();
    let replayed = "refresh_token: invalid_client: client assertion tokens must only be used once";
    for expected in [GRANTED, replayed] {
        let tokens = server.log_in("ES256").await;
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", tokens.refresh_token().unwrap()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
        ];
        server.post(&form).await;
        assert_eq!(server.log().await.last().unwrap(), expected);
    }
}

// ---- K-32 ----

/// K-32: no request is refused in any life, because none carries a token that is over.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn k_32_in_each_life_the_refresh_token_rotates_and_every_request_succeeds() {
    let server = OidcProvider::start(&[public()]).await;
    let trial = Trial::public(&server).await;
    let mut refresh_tokens = vec![trial.tokens().refresh_token().unwrap().to_owned()];
    for _ in 0..5 {
        assert_eq!(trial.outcomes(10).await, ["200"]);
        trial.advance(OidcProvider::ACCESS_TOKEN).await;
        assert_eq!(trial.outcomes(10).await, ["200"]);
        refresh_tokens.push(trial.tokens().refresh_token().unwrap().to_owned());
    }
    assert_eq!(server.log().await, [GRANTED; 5]);
    refresh_tokens.sort_unstable();
    refresh_tokens.dedup();
    assert_eq!(refresh_tokens.len(), 6);
}

/// K-06, K-11: a token in its window is replaced behind the request that it still serves; one that
/// is demanded, before.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn k_11_a_stale_token_still_serves_and_a_demanded_one_is_new() {
    let server = OidcProvider::start(&[public()]).await;
    let trial = Trial::public(&server).await;
    let first = trial.tokens();
    trial.advance(OidcProvider::ACCESS_TOKEN - Duration::from_secs(5)).await;
    assert_eq!(trial.outcome().await, "200");
    bounded(trial.session.settle()).await.unwrap();
    let second = trial.tokens();
    assert_ne!(second.access_token(), first.access_token());
    let request = trial.client.get(&trial.api).with_extension(Authenticate::AfterRefresh);
    assert_eq!(bounded(request.send()).await.unwrap().status(), 200);
    assert_ne!(trial.tokens().access_token(), second.access_token());
    assert_eq!(server.log().await, [GRANTED; 2]);
}

// ---- K-20 ----

/// K-20, K-22, Q-50: a crowd never looks like a theft to the server, and the session lives on. Half
/// of it is rejected when the refresh is over.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn k_20_a_storm_makes_one_refresh_and_the_server_sees_no_reuse() {
    const STORM: usize = 500;
    for (case, is_known, rejected) in
        [("the session knows the end", true, 0), ("only the API knows", false, STORM)]
    {
        let server = OidcProvider::start(&[public()]).await;
        let trial = Trial::public(&server).await;
        match is_known {
            true => trial.advance(OidcProvider::ACCESS_TOKEN).await,
            false => server.revoke_token(trial.tokens().access_token()).await,
        }
        let urls = [server.url("/me"), server.url("/me?late")];
        let storm = urls.iter().cycle().take(STORM).cloned().collect();
        assert_eq!(trial.outcomes_at(storm).await, ["200"], "{case}");
        let log = server.log().await;
        let count = |line: &str| log.iter().filter(|seen| *seen == line).count();
        assert_eq!(count("api: invalid_token: access token not found"), rejected, "{case}");
        assert_eq!((count(GRANTED), log.len()), (1, rejected + 1), "{case}: nothing else");
        trial.advance(OidcProvider::ACCESS_TOKEN).await;
        assert_eq!(trial.outcome().await, "200", "{case}: the next life");
        assert_eq!(server.log().await[log.len()..], [GRANTED], "{case}");
        assert_eq!(trial.hook.calls(), 0, "{case}");
    }
}

// ---- K-50 ----

/// K-50, K-51, Q-50: however the refresh token came to its end, the session says so once, with the
/// server's code, then leaves the server alone until somebody has logged in.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn k_50_a_dead_refresh_token_asks_once_for_a_login_and_the_login_revives() {
    let server = OidcProvider::start(&[public()]).await;
    for (case, detail) in [
        ("the grant is revoked", "refresh token not found"),
        ("both tokens are revoked", "refresh token not found"),
        ("the refresh token is over", "refresh token is expired"),
        ("the refresh token was used twice", "refresh token not found"),
    ] {
        let trial = Trial::public(&server).await;
        let tokens = trial.tokens();
        assert_eq!(trial.outcome().await, "200", "{case}");
        let refresh_token = tokens.refresh_token().unwrap();
        match case {
            "the grant is revoked" => server.revoke_grant(refresh_token).await,
            "both tokens are revoked" => {
                server.revoke_token(tokens.access_token()).await;
                server.revoke_token(refresh_token).await;
            }
            "the refresh token is over" => server.advance(OidcProvider::REFRESH_TOKEN).await,
            _ => use_twice(&server, refresh_token).await,
        }
        assert_eq!(server.api(tokens.access_token()).await, 401, "{case}");

        let before = server.log().await.len();
        assert_eq!(trial.outcomes(20).await, ["login required"], "{case}");
        assert_eq!(trial.outcome().await, "login required", "{case}");
        let refused = format!("refresh_token: invalid_grant: {detail}");
        let log = server.log().await;
        let requests = log[before..].iter().filter(|line| line.starts_with("refresh_token"));
        assert_eq!(requests.collect::<Vec<_>>(), [&refused], "{case}");
        assert_eq!(trial.hook.calls(), 1, "{case}");
        let reason = trial.hook.reasons.lock()[0].clone();
        let LoginReason::Refused { error, after_lost_answer: false, .. } = reason else {
            panic!("{case}: {reason:?}");
        };
        assert_eq!((error.status(), error.code()), (400, Some("invalid_grant")), "{case}");

        let login = server.log_in("public").await;
        trial.session.set_tokens(login).await.unwrap();
        assert_eq!(trial.outcome().await, "200", "{case}");
        assert_eq!(server.log().await.len(), log.len(), "{case}: a new pair needs no refresh");
    }
}

/// What a client without one refresh for all does: the same refresh token again. The server takes
/// it for a theft, and what the first use brought is dead too.
async fn use_twice(server: &OidcProvider, refresh_token: &str) {
    let before = server.log().await.len();
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "public"),
        ("refresh_token", refresh_token),
    ];
    let (status, answer) = server.post(&form).await;
    assert_eq!(status, 200, "{answer}");
    let access_token = answer["access_token"].as_str().unwrap();
    assert_eq!(server.api(access_token).await, 200);
    let (status, error) = server.post(&form).await;
    assert_eq!((status, &error["error"]), (400, &json!("invalid_grant")));
    assert_eq!(server.api(access_token).await, 401, "the whole grant is revoked");
    let reused = "refresh_token: invalid_grant: refresh token already used";
    let log = server.log().await;
    assert_eq!(log[before..before + 3], [GRANTED, "grant revoked", reused]);
}

/// K-44: who was rejected by the API learns that, too.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn k_44_behind_a_401_the_error_has_the_servers_challenge() {
    let server = OidcProvider::start(&[public()]).await;
    let trial = Trial::public(&server).await;
    server.revoke_grant(trial.tokens().refresh_token().unwrap()).await;
    let error = bounded(trial.client.get(&trial.api).send()).await.unwrap_err();
    let error = Error::find(&error).unwrap();
    assert!(matches!(error.kind(), ErrorKind::LoginRequired(LoginReason::Refused { .. })));
    let rejection = error.rejection().unwrap();
    let challenge = rejection.headers()["www-authenticate"].to_str().unwrap();
    assert_eq!(rejection.status(), 401);
    assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
}

// ---- K-73 ----

/// K-73: nothing of a session is left at the server after its logout.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn k_73_after_log_out_the_server_refuses_both_tokens() {
    let server = OidcProvider::start(&[public()]).await;
    let trial = Trial::public(&server).await;
    trial.advance(OidcProvider::ACCESS_TOKEN).await;
    assert_eq!(trial.outcome().await, "200");
    let tokens = trial.tokens();
    bounded(trial.session.log_out()).await.unwrap();
    assert_eq!(server.log().await, [GRANTED, "grant revoked"]);
    assert_eq!(server.api(tokens.access_token()).await, 401);
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "public"),
        ("refresh_token", tokens.refresh_token().unwrap()),
    ];
    let (status, answer) = server.post(&form).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_grant")));
    assert_eq!(trial.outcome().await, "login required");
}

// ---- Client credentials ----

/// K-20, K-40, K-50: RFC 6749 §4.4. A program's session begins with nothing, needs nobody, and
/// gets a token for each life, and for one that the API rejects.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn k_50_a_program_gets_its_tokens_without_a_person() {
    const GRANTED: &str = "client_credentials: granted";
    let mut nightly = confidential("nightly", "client_secret_basic", "a+b=c%");
    nightly["grant_types"] = json!(["client_credentials"]);
    nightly["response_types"] = json!([]);
    nightly["redirect_uris"] = json!([]);
    let server = OidcProvider::start(&[nightly]).await;
    let session = |secret| {
        let endpoint = server.endpoint(ClientAuth::basic("nightly", secret));
        Trial::new(&server, "/service", Session::builder(endpoint.with_client_credentials()))
    };
    let trial = session("a+b=c%");
    assert_eq!(trial.outcomes(50).await, ["200"]);
    trial.advance(OidcProvider::ACCESS_TOKEN).await;
    assert_eq!(trial.outcomes(50).await, ["200"]);
    assert_eq!(server.log().await, [GRANTED; 2]);
    server.revoke_token(trial.tokens().access_token()).await;
    assert_eq!(trial.outcome().await, "200");
    assert_eq!(server.log().await[2..], ["service: invalid_token", GRANTED]);

    let mistaken = session("wrong");
    assert_eq!(mistaken.outcomes(5).await, ["configuration"]);
    assert_eq!(
        server.log().await[4..],
        ["client_credentials: invalid_client: invalid secret provided"]
    );
    assert_eq!(trial.hook.calls() + mistaken.hook.calls(), 0);
}

// ---- Discovery ----

/// K-31, R-110: the issuer's URL is enough to refresh and to log out.
#[tokio::test]
#[ignore = "starts oidc-provider: needs Node ≥ 20 and npm"]
async fn r_110_the_issuer_names_its_endpoints_and_methods() {
    let server = OidcProvider::start(&[public()]).await;
    let metadata = bounded(ServerMetadata::discover(&server.url(""))).await.unwrap();
    assert_eq!(metadata.issuer(), server.url(""));
    assert_eq!(
        metadata.auth_methods(),
        [
            "client_secret_basic",
            "client_secret_post",
            "client_secret_jwt",
            "private_key_jwt",
            "none"
        ]
    );
    let endpoint = metadata.token_endpoint(ClientAuth::none("public")).unwrap();
    let builder = Session::builder(endpoint).tokens(server.log_in("public").await);
    let trial = Trial::new(&server, "/me", builder);
    trial.advance(OidcProvider::ACCESS_TOKEN).await;
    assert_eq!(trial.outcome().await, "200");
    bounded(trial.session.log_out()).await.unwrap();
    assert_eq!(server.log().await, [GRANTED, "grant revoked"]);

    let elsewhere = bounded(ServerMetadata::discover(&server.url("/elsewhere"))).await;
    assert!(matches!(elsewhere.unwrap_err().kind(), ErrorKind::Configuration));
}
