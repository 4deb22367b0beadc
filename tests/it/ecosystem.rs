//! Tokens that come from another crate, and tokens that are written down.

use std::sync::Arc;

use async_trait::async_trait;
use oauth2::basic::{BasicClient, BasicTokenResponse};
use oauth2::{
    AuthorizationCode, ClientId, HttpRequest, HttpResponse, PkceCodeVerifier, TokenResponse,
    TokenUrl,
};
use parking_lot::Mutex;
use reqwest_middleware::ClientBuilder;
use reqwest_refresh::store::contract;
use reqwest_refresh::{
    ClientAuth, Lease, ManualClock, MemoryStore, Session, StoreError, TokenEndpoint, TokenSet,
    TokenStore,
};
use serde_json::json;

use crate::support::{Answer, Api, Issuer, Rig, SECOND, Seen, Server, answer, everybody_waits};

/// Hands out `a0`/`r0` to a login and `a1`/`r1` to a refresh; anything else is the API.
fn issuer_and_api(seen: &Seen) -> Answer {
    if seen.url.path() != "/token" {
        return answer(200, "fine");
    }
    let form = String::from_utf8(seen.body.clone().unwrap()).unwrap();
    let is_login = form.contains("grant_type=authorization_code") && form.contains("code=c0");
    let is_refresh = form.contains("grant_type=refresh_token") && form.contains("refresh_token=r0");
    assert!(is_login || is_refresh, "{form}");
    let number = u8::from(is_refresh);
    let tokens = json!({
        "access_token": format!("a{number}"), "refresh_token": format!("r{number}"),
        "token_type": "Bearer", "expires_in": 3600, "scope": "orders profile",
    });
    let mut answer = answer(200, tokens.to_string());
    answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
    answer
}

/// `oauth2` over this crate's reqwest.
async fn send(request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let response = reqwest::Client::new().execute(request.try_into()?).await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut answer = HttpResponse::new(response.bytes().await?.into());
    (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
    Ok(answer)
}

#[tokio::test]
async fn who_logs_in_with_oauth2_goes_on_with_a_session_and_gets_its_tokens_back() {
    let server = Server::start(issuer_and_api).await;
    let login = BasicClient::new(ClientId::new("my-app".into()))
        .set_token_uri(TokenUrl::new(server.url("/token")).unwrap())
        .exchange_code(AuthorizationCode::new("c0".into()))
        .set_pkce_verifier(PkceCodeVerifier::new("v".repeat(43)))
        .request_async(&send)
        .await
        .unwrap();

    let clock = ManualClock::new();
    let endpoint = TokenEndpoint::new(&server.url("/token"), ClientAuth::none("my-app")).unwrap();
    let session = Session::builder(endpoint).clock(clock.clone()).build().unwrap();
    session.set_tokens(TokenSet::try_from(&login).unwrap()).await.unwrap();
    let client = ClientBuilder::new(reqwest::Client::new()).with(session.clone()).build();
    client.get(server.url("/orders")).send().await.unwrap();
    clock.advance(3600 * SECOND);
    client.get(server.url("/orders")).send().await.unwrap();
    assert_eq!(server.log(), ["/token -", "/orders a0", "/token -", "/orders a1"]);

    let tokens = session.current_tokens().unwrap();
    let response = BasicTokenResponse::try_from(&tokens).unwrap();
    assert_eq!(response.access_token().secret(), "a1");
    assert_eq!(response.refresh_token().unwrap().secret(), "r1");
    assert_eq!(response.expires_in(), Some(3600 * SECOND));
    let scopes: Vec<_> = response.scopes().unwrap().iter().map(|scope| &***scope).collect();
    assert_eq!(scopes, ["orders", "profile"]);
}

/// Keeps the text that would be in a file.
#[derive(Clone, Default)]
struct Written {
    text: Arc<Mutex<Option<String>>>,
    lock: MemoryStore,
}

#[async_trait]
impl TokenStore for Written {
    async fn load(&self) -> Result<Option<TokenSet>, StoreError> {
        let text = self.text.lock();
        Ok(text.as_deref().map(serde_json::from_str).transpose()?)
    }

    async fn save(&self, tokens: &TokenSet) -> Result<(), StoreError> {
        *self.text.lock() = Some(serde_json::to_string(&tokens.expose_secrets())?);
        Ok(())
    }

    async fn clear(&self) -> Result<(), StoreError> {
        *self.text.lock() = None;
        Ok(())
    }

    async fn lock(&self) -> Result<Lease, StoreError> {
        self.lock.lock().await
    }
}

/// K-60: what serde writes has everything that a store must keep.
#[tokio::test(start_paused = true)]
async fn k_60_a_store_may_keep_what_serde_writes() {
    let store = Written::default();
    contract::check(|| store.clone(), true).await;
}

/// K-10, K-11: a set that was written down goes on ageing there.
#[tokio::test]
async fn k_10_a_set_that_was_read_has_the_life_it_was_written_with() {
    for (case, passed, token, refreshes) in
        [("fresh", 3538, "a1", 1), ("stale", 3540, "a1", 2), ("expired", 3600, "a2", 2)]
    {
        let store = Written::default();
        let rig = Rig::with(Api::friendly(), Issuer::new(), |b| b.store(store.clone()));
        rig.session.refresh().await.unwrap();
        rig.clock.advance(passed * SECOND);
        let builder = Session::builder(rig.issuer.clone()).clock(rig.clock.clone()).jitter(0.0);
        let later = builder.store(store).build().unwrap();
        assert_eq!(later.tokens().await.unwrap().access_token(), token, "{case}");
        everybody_waits().await;
        assert_eq!(rig.issuer.calls(), refreshes, "{case}");
    }
}
