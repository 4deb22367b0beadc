//! What servers do in their own way, through a session.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Url;
use reqwest_refresh::{
    ClientAuth, Judgement, LoginReason, ManualClock, Provider, Refresh, RefreshError,
    RefreshFailure, Session, Status, TokenEndpoint, TokenSet,
};
use serde_json::{Value, json};

use crate::support::{Api, Hook, Issuer, Reply, Rig, SECOND, Server, answer, outcome};

const HOUR: Duration = Duration::from_secs(3600);

/// K-10, Q-03: a server that never says how long a token lives, and a provider that knows.
#[tokio::test]
async fn k_10_a_providers_lifetime_is_for_tokens_that_say_nothing() {
    let provider = Provider::salesforce().with_default_lifetime(2 * HOUR);
    let silent = |name: &str| TokenSet::new(name).with_refresh_token("r0");
    let rig = Rig::with(Api::friendly(), Issuer::with(HOUR, provider), |b| b.tokens(silent("a0")));
    for issued in ["", "b1"] {
        if !issued.is_empty() {
            rig.issuer.then(Ok(silent(issued)));
            rig.session.refresh().await.unwrap();
        }
        rig.clock.advance(2 * HOUR - 60 * SECOND - SECOND);
        assert_eq!(rig.session.status(), Status::Fresh, "{issued}");
        rig.clock.advance(SECOND);
        assert_eq!(rig.session.status(), Status::Stale, "{issued}");
        rig.clock.advance(60 * SECOND);
        assert_eq!(rig.session.status(), Status::Expired, "{issued}");
    }
}

/// K-34, K-50, Q-32, Q-33: what Entra says beside the code is in the reason that the hook gets, and
/// the claims that it asks for are there to the letter.
#[tokio::test]
async fn k_50_the_login_hook_gets_everything_that_the_server_said() {
    let body = include_str!("../fixtures/providers/entra_id/dead_mfa.json");
    let body = body.replace("GUID", "c1fbdfa5-9a60-4eb7-b1c8-0b1f0f3ca8e7");
    let said: Value = serde_json::from_str(&body).unwrap();
    let server = Server::start(move |_| answer(400, body.clone())).await;
    let endpoint = TokenEndpoint::new(&server.url("/token"), ClientAuth::none("app")).unwrap();
    let hook = Hook::declining();
    let builder = Session::builder(endpoint.with_provider(Provider::entra_id()));
    let session = hook.on(builder.tokens(Rig::tokens(3600))).build().unwrap();
    assert!(session.refresh().await.unwrap_err().is_login_required());
    let reasons = hook.reasons.lock().clone();
    let [LoginReason::Refused { error, .. }] = &reasons[..] else { panic!("{reasons:?}") };
    assert_eq!((error.status(), error.code()), (400, Some("invalid_grant")));
    assert!(error.description().unwrap().starts_with("AADSTS50076: Due to a configuration"));
    for member in ["suberror", "error_codes", "claims", "timestamp"] {
        assert_eq!(error.member(member), Some(&said[member]), "{member}");
    }
}

/// K-42, Q-21, Q-90, Q-91: APIs that reject a token in a way of their own, each a judge away.
#[tokio::test]
async fn k_42_a_judge_may_look_into_any_answer() {
    let slack = Provider::slack().with_judge(|status, headers| match status.as_u16() {
        200 => Judgement::RejectedIf(|body| body["error"] == "token_expired"),
        _ => Provider::slack().judge(status, headers),
    });
    let meta = Provider::rfc6749().with_judge(|status, headers| match status.as_u16() {
        400 => Judgement::RejectedIf(|body| body["error"]["code"] == 190),
        _ => Provider::rfc6749().judge(status, headers),
    });
    let amazon = Provider::amazon_sp_api();
    let over = |details: &str| json!({"errors": [{"code": "Unauthorized", "details": details}]});
    for (case, provider, status, body, is_rejection) in [
        ("Slack", slack, 200, json!({"ok": false, "error": "token_expired"}), true),
        ("Slack, fine", slack, 200, json!({"ok": true}), false),
        ("Slack, 401", slack, 401, json!({}), true),
        ("Meta", meta, 400, json!({"error": {"type": "OAuthException", "code": 190}}), true),
        ("Meta, another", meta, 400, json!({"error": {"code": 100}}), false),
        ("SP-API", amazon, 403, over("The access token you provided has expired."), true),
        ("SP-API, a role", amazon, 403, over(""), false),
    ] {
        let refusal = body.clone();
        let api = Api::new(move |seen| match seen.token() {
            Some("a0") => Reply::status(status).json(refusal.clone()),
            _ => Reply::status(200).body("replayed"),
        });
        let rig = Rig::with(api, Issuer::with(HOUR, provider), |builder| builder);
        let text = rig.get().await.unwrap().text().await.unwrap();
        let expected = if is_rejection { "replayed".to_owned() } else { body.to_string() };
        assert_eq!(text, expected, "{case}");
        assert_eq!(rig.issuer.calls(), usize::from(is_rejection), "{case}");
    }
}

/// A token that is renewed by GET, with itself, as Instagram's are.
struct LongLived {
    http: reqwest::Client,
    url: Url,
}

#[async_trait]
impl Refresh for LongLived {
    async fn refresh(&self, tokens: &TokenSet) -> Result<TokenSet, RefreshError> {
        let lost = |error: reqwest::Error| {
            RefreshError::new(RefreshFailure::Lost, "no answer").with_source(error.without_url())
        };
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("access_token", tokens.access_token());
        let response = self.http.get(url).send().await.map_err(lost)?;
        TokenSet::from_json(&response.bytes().await.map_err(lost)?)
    }

    fn endpoints(&self) -> Vec<Url> {
        vec![self.url.clone()]
    }

    fn needs_refresh_token(&self) -> bool {
        false
    }
}

/// K-11, K-20, Q-74: what is no OAuth is a `Refresh` of one's own.
#[tokio::test]
async fn k_11_a_token_that_is_renewed_by_get_without_a_refresh_token_is() {
    let server = Server::start(|seen| match seen.url.query() {
        Some("access_token=a0") => answer(200, r#"{"access_token":"a1","expires_in":3600}"#),
        _ => answer(400, r#"{"error":{"type":"OAuthException","code":190}}"#),
    })
    .await;
    let url = Url::parse(&server.url("/refresh_access_token")).unwrap();
    let clock = ManualClock::new();
    let session = Session::builder(LongLived { http: reqwest::Client::new(), url })
        .clock(clock.clone())
        .allow_origin("https://api.test")
        .tokens(TokenSet::new("a0").with_expires_in(HOUR))
        .build()
        .unwrap();
    let api = Api::friendly();
    let client = Rig::client(&session, &api);
    clock.advance(HOUR);
    let get = || tokio::spawn(client.get("https://api.test/me").send());
    let requests: Vec<_> = (0..5).map(|_| get()).collect();
    for request in requests {
        assert_eq!(outcome(request.await.unwrap()), "200");
    }
    assert_eq!((api.tokens(), server.seen().len()), (vec!["a1".to_owned(); 5], 1));
    assert_eq!(server.seen()[0].method, http::Method::GET);
}
