use serde_json::json;

use super::*;
use crate::error::RefreshError;
use crate::proto::grant::Answer;
use crate::token::TokenSet;

/// The refresh token that the fixtures' requests sent.
const SENT: &str = "the-refresh-token";

/// What an answer must be read as.
#[derive(Debug, PartialEq)]
enum Read {
    Failure(RefreshFailure),
    /// Seconds of the access token, and whether a refresh token came.
    Tokens(Option<u64>, bool),
}

use Read::{Failure, Tokens};

fn read(provider: Provider, status: u16, body: &str) -> Result<TokenSet, RefreshError> {
    let answer = Answer { status, retry_after: None, is_form: false, body: body.as_bytes() };
    answer.read(&provider, false, &[SENT])
}

fn verdict(provider: Provider, status: u16, body: &str) -> Read {
    match read(provider, status, body) {
        Ok(tokens) => {
            let seconds = tokens.expires_in().map(|lifetime| lifetime.as_secs());
            Tokens(seconds, tokens.refresh_token().is_some())
        }
        Err(error) => Failure(error.failure()),
    }
}

fn failure(provider: Provider, status: u16, body: &Value) -> RefreshFailure {
    read(provider, status, &body.to_string()).expect_err("an error").failure()
}

macro_rules! fixture {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../../tests/fixtures/providers/", $name, ".json")))
    };
}

/// K-33, K-34, K-10: bodies as they stand in `docs/providers.md`, which has all the sources; the
/// last column names the one of each. (d: the provider, s: source code, u: a user's report,
/// b: a blog; `?`: the status is not in the source, see the caveats there.)
///
/// Q-01, Q-03, Q-11, Q-20, Q-21, Q-23, Q-24, Q-27, Q-28, Q-29, Q-31, Q-32, Q-34, Q-35, Q-37, Q-38,
/// Q-50, Q-51, Q-55, Q-56, Q-81.
#[rustfmt::skip] // a table
#[test]
fn k_34_every_answer_that_can_be_cited_is_understood() {
    const TERMINAL: Read = Failure(Terminal);
    const CONFIGURATION: Read = Failure(Configuration);
    const BUSY: Read = Failure(Busy);
    const UNUSABLE: Read = Failure(Unusable);
    let hour = || Tokens(Some(3600), true);
    for (provider, (name, body), status, expected, _source) in [
        (Provider::amazon_sp_api(), fixture!("amazon_sp_api/success"), 200, hour(), "d: developer.amazon.com/docs/amazon-data-portability/lwa-access-token"),
        (Provider::amazon_sp_api(), fixture!("amazon_sp_api/dead"), 400, TERMINAL, "u?: amzn/selling-partner-api-models#921, #2997"),
        (Provider::amazon_sp_api(), fixture!("amazon_sp_api/client"), 401, CONFIGURATION, "u: jlevers/selling-partner-api#578"),
        (Provider::auth0(), fixture!("auth0/success"), 200, Tokens(Some(86_400), false), "d: auth0/docs _refresh-token.md (Q-50, Q-56)"),
        (Provider::auth0(), fixture!("auth0/dead"), 403, TERMINAL, "u: auth0/Auth0.Android#334 (Q-31)"),
        (Provider::auth0(), fixture!("auth0/client"), 401, CONFIGURATION, "u: auth0/node-auth0#682"),
        (Provider::auth0(), fixture!("auth0/limit"), 429, BUSY, "d: auth0/docs _errors.md (Q-37)"),
        (Provider::auth0(), fixture!("auth0/outage"), 503, BUSY, "d: auth0/docs _errors.md (Q-37)"),
        (Provider::box_(), fixture!("box/success"), 200, hour(), "d: box.dev/reference/post-oauth2-token--refresh"),
        (Provider::box_(), fixture!("box/dead"), 400, TERMINAL, "u: box/box-python-sdk#587 (Q-55)"),
        (Provider::box_(), fixture!("box/dead_used"), 400, TERMINAL, "u: box/box-windows-sdk-v2#96 (Q-55)"),
        (Provider::box_(), fixture!("box/client"), 400, CONFIGURATION, "d: withone.ai/knowledge/box"),
        (Provider::box_(), ("box, a lost race", ""), 409, UNUSABLE, "support.box.com 360052599233 (Q-38)"),
        (Provider::cognito(), fixture!("cognito/success"), 200, Tokens(Some(3600), false), "d: token-endpoint.md (Q-51, Q-56)"),
        (Provider::cognito(), fixture!("cognito/dead"), 400, TERMINAL, "u: aws/aws-sdk-js#3836"),
        (Provider::cognito(), fixture!("cognito/client"), 400, CONFIGURATION, "d: token-endpoint.md"),
        (Provider::entra_id(), fixture!("entra_id/success"), 200, Tokens(Some(3599), true), "d: v2-oauth2-auth-code-flow.md"),
        (Provider::entra_id(), fixture!("entra_id/success_v1"), 200, Tokens(Some(3599), true), "d: Partner Center docs (Q-01)"),
        (Provider::entra_id(), fixture!("entra_id/dead"), 400, TERMINAL, "u: Azure/azure-cli#14244 (Q-32)"),
        (Provider::entra_id(), fixture!("entra_id/dead_mfa"), 400, TERMINAL, "u?: AzureAD/microsoft-authentication-library-for-js#5491 (Q-32)"),
        (Provider::entra_id(), fixture!("entra_id/client"), 401, CONFIGURATION, "u: OfficeDev/microsoft-365-agents-toolkit#8621"),
        (Provider::github(), fixture!("github/success"), 200, Tokens(Some(28_800), true), "u: omniauth/omniauth-github#99 (Q-11)"),
        (Provider::github(), fixture!("github/dead"), 200, TERMINAL, "u: interlink-hq/interLink PR#262 (Q-20)"),
        (Provider::github(), fixture!("github/client"), 200, CONFIGURATION, "d?: troubleshooting-oauth-app-access-token-request-errors.md"),
        (Provider::github(), fixture!("github/limit"), 200, BUSY, "u: captures of the device grant at the same endpoint (Q-37)"),
        (Provider::gitlab(), fixture!("gitlab/success"), 200, Tokens(Some(7200), true), "d: doc/api/oauth2.md"),
        (Provider::gitlab(), fixture!("gitlab/dead"), 400, TERMINAL, "u: Dynatrace/ace-box#580, oauth2-proxy#1473 (Q-55)"),
        (Provider::gitlab(), fixture!("gitlab/dead"), 401, TERMINAL, "older Doorkeeper: error_response.rb @0800715"),
        (Provider::gitlab(), fixture!("gitlab/client"), 401, CONFIGURATION, "Doorkeeper: config/locales/en.yml @02a7def"),
        (Provider::google(), fixture!("google/success"), 200, Tokens(Some(3920), true), "d: Google's sample"),
        (Provider::google(), fixture!("google/success_testing"), 200, Tokens(Some(3599), true), "d: Google's codelab (Q-34)"),
        (Provider::google(), fixture!("google/dead"), 400, TERMINAL, "u: apache/opendal#3901 (Q-34)"),
        (Provider::google(), fixture!("google/dead_reauth"), 400, TERMINAL, "u: anthropics/blobfile PR#2"),
        (Provider::google(), fixture!("google/client"), 401, CONFIGURATION, "u: Edujugon/laravel-google-ads#17"),
        (Provider::google(), fixture!("google/client_secret"), 401, CONFIGURATION, "u: teranetsrl/oauth2_client#145"),
        (Provider::google(), ("google, too many requests", "<title>Sorry...</title>"), 403, UNUSABLE, "d: googleapis/google-oauth-java-client#57; u: tomwalder/php-gds#19 (Q-37)"),
        (Provider::hubspot(), fixture!("hubspot/success"), 200, Tokens(Some(1800), true), "b: useparagon.com"),
        (Provider::hubspot(), fixture!("hubspot/dead"), 400, TERMINAL, "b: nango.dev; u: HGData/mk-node-hubspot#64 (Q-24)"),
        (Provider::hubspot(), fixture!("hubspot/limit"), 429, BUSY, "s: PostHog/posthog PR#64049 (Q-37)"),
        (Provider::keycloak(), fixture!("keycloak/success"), 200, Tokens(Some(300), true), "u: docs.bancoboreal.com.br (Q-11)"),
        (Provider::keycloak(), fixture!("keycloak/dead"), 400, TERMINAL, "u: keycloak/keycloak#37961"),
        (Provider::keycloak(), fixture!("keycloak/client"), 401, CONFIGURATION, "u: lbormann/darts-caller#29"),
        (Provider::keycloak(), fixture!("keycloak/client_older"), 401, CONFIGURATION, "u: Stirling-Tools/Stirling-PDF#6567"),
        (Provider::okta(), fixture!("okta/success"), 200, hour(), "d: okta-developer-docs refresh-tokens (Q-50)"),
        (Provider::okta(), fixture!("okta/dead"), 400, TERMINAL, "u: okta/okta-react-native#287 (Q-50)"),
        (Provider::okta(), fixture!("okta/client"), 401, CONFIGURATION, "d: oidc/index.md"),
        (Provider::okta(), fixture!("okta/client_twice"), 401, CONFIGURATION, "u: boylesoftware/tomcat-oidcauth#6"),
        (Provider::okta(), fixture!("okta/limit"), 429, BUSY, "s: Okta's PowerShell SDK (Q-37)"),
        (Provider::openai(), fixture!("openai/success"), 200, Tokens(None, true), "s: openai/codex auth_refresh.rs"),
        (Provider::openai(), fixture!("openai/dead"), 401, TERMINAL, "u: cnlimiter/codex-manager#36 (Q-27)"),
        (Provider::openai(), fixture!("openai/dead_revoked"), 401, TERMINAL, "s: clients' tests (Q-27)"),
        (Provider::openai(), fixture!("openai/dead_expired"), 401, TERMINAL, "u: decolua/9router PR#1821 (Q-27)"),
        (Provider::quickbooks(), fixture!("quickbooks/success"), 200, hour(), "s: intuit/oauth-jsclient (Q-11)"),
        (Provider::quickbooks(), fixture!("quickbooks/dead"), 400, TERMINAL, "u: routablehq/python-quickbooks#272 (Q-55)"),
        (Provider::quickbooks(), fixture!("quickbooks/client"), 401, CONFIGURATION, "u: intuit/oauth-rubyclient#14"),
        (Provider::salesforce(), fixture!("salesforce/success"), 200, Tokens(None, false), "b: cloudsfdc.com (Q-03, Q-56)"),
        (Provider::salesforce(), fixture!("salesforce/dead"), 400, TERMINAL, "u?: SalesforceMobileSDK-iOS#1250 (Q-33)"),
        (Provider::salesforce(), fixture!("salesforce/client"), 400, CONFIGURATION, "u: omniphx/forrest#184"),
        (Provider::salesforce(), fixture!("salesforce/client_secret"), 400, CONFIGURATION, "u?: restforce#338"),
        (Provider::slack(), fixture!("slack/success"), 200, Tokens(Some(43_200), true), "d: oauth.v2.access (Q-81)"),
        (Provider::slack(), fixture!("slack/dead"), 200, TERMINAL, "u: CogniQ/CogniQ#72 (Q-21)"),
        (Provider::slack(), fixture!("slack/client"), 200, CONFIGURATION, "d: oauth.v2.access (Q-21)"),
        (Provider::slack(), fixture!("slack/limit"), 200, BUSY, "d?: oauth.v2.access (Q-37)"),
        (Provider::spotify(), fixture!("spotify/success"), 200, hour(), "d: tutorials/refreshing-tokens"),
        (Provider::spotify(), fixture!("spotify/success_kept"), 200, Tokens(Some(3600), false), "u: developers.qodex.ai (Q-56)"),
        (Provider::spotify(), fixture!("spotify/dead"), 400, TERMINAL, "u?: novatorem/novatorem#81"),
        (Provider::spotify(), fixture!("spotify/client"), 400, CONFIGURATION, "u: spotify/web-api#919"),
        (Provider::spring_security_oauth(), fixture!("spring_security_oauth/success"), 200, Tokens(Some(43_199), true), "d: OAuth2AccessTokenJackson2Serializer"),
        (Provider::spring_security_oauth(), fixture!("spring_security_oauth/dead"), 401, TERMINAL, "d: DefaultTokenServices (Q-23)"),
        (Provider::spring_security_oauth(), fixture!("spring_security_oauth/dead_again"), 400, TERMINAL, "d: DefaultTokenServices (Q-23)"),
        (Provider::spring_security_oauth(), fixture!("spring_security_oauth/client"), 401, CONFIGURATION, "d: BadClientCredentialsException"),
        (Provider::supabase(), fixture!("supabase/success"), 200, Tokens(Some(900), true), "u: supabase/supabase-flutter#1158"),
        (Provider::supabase(), fixture!("supabase/dead"), 400, TERMINAL, "u: specledger/specledger#76 (Q-35)"),
        (Provider::supabase(), fixture!("supabase/dead_2024"), 400, TERMINAL, "s: supabase/auth errors.go (Q-35)"),
        (Provider::supabase(), fixture!("supabase/client"), 400, CONFIGURATION, "s: supabase/auth service.go"),
        (Provider::supabase(), fixture!("supabase/limit"), 409, UNUSABLE, "s: supabase/auth service.go (Q-37)"),
        (Provider::supabase(), fixture!("supabase/limit_rate"), 429, BUSY, "s: supabase/auth errors.go, clients' tests (Q-37)"),
        (Provider::x(), fixture!("x/success"), 200, Tokens(Some(7200), true), "u: Bayselonarrend/OpenIntegrations"),
        (Provider::x(), fixture!("x/dead"), 400, TERMINAL, "u: trypostit/trypost (Q-29, Q-55)"),
        (Provider::x(), fixture!("x/client"), 401, CONFIGURATION, "u: unasuke/omniauth-twitter2#4"),
        (Provider::xero(), fixture!("xero/success"), 200, Tokens(Some(1800), true), "d: Xero's OpenAPI schema"),
        (Provider::xero(), fixture!("xero/dead"), 400, TERMINAL, "u: community.xero.com/developer/discussion/125347287 (Q-55)"),
        (Provider::xero(), fixture!("xero/client"), 400, CONFIGURATION, "u?: XeroAPI/xero-ruby-oauth2-app#3"),
        (Provider::zoom(), fixture!("zoom/dead"), 400, TERMINAL, "u: raycast/extensions#10896 (Q-28)"),
        (Provider::zoom(), fixture!("zoom/client"), 400, CONFIGURATION, "u: JubaerHossain/zoom-laravel#3"),
    ] {
        assert_eq!(verdict(provider, status, body), expected, "{name}, {status}");
        // Q-37: in an outage no words log anybody out.
        for outage in [429, 500, 503] {
            assert_ne!(verdict(provider, outage, body), TERMINAL, "{name}, {outage}");
        }
    }
}

/// K-34: what the description or another member decides, and what it does not.
#[rustfmt::skip] // a table
#[test]
fn k_34_where_the_code_says_too_little_the_rest_of_the_answer_decides() {
    for (case, provider, status, body, expected) in [
        ("Auth0's older form (Q-31)", Provider::auth0(), 403, json!({"error": "access_denied", "error_description": "Unknown or invalid refresh token."}), Terminal),
        ("Auth0, a rule", Provider::auth0(), 403, json!({"error": "access_denied", "error_description": "not today"}), Unusable),
        ("Entra, a loop", Provider::entra_id(), 400, json!({"error": "invalid_grant", "error_codes": [50196]}), Unusable),
        ("Entra, a loop, in words", Provider::entra_id(), 400, json!({"error": "invalid_grant", "error_description": "AADSTS50196: The server terminated an operation"}), Unusable),
        ("Entra, MFA (Q-32)", Provider::entra_id(), 400, json!({"error": "interaction_required", "error_codes": [50076]}), Terminal),
        ("Entra, busy (Q-32)", Provider::entra_id(), 400, json!({"error": "temporarily_unavailable"}), Busy),
        ("Google, an outage (Q-34)", Provider::google(), 400, json!({"error": "internal_failure"}), Busy),
        ("Google, an outage in words (Q-34)", Provider::google(), 400, json!({"error": "x", "error_description": "internal_failure"}), Busy),
        ("HubSpot, another status", Provider::hubspot(), 400, json!({"status": "error", "message": "x"}), Unusable),
        ("Keycloak, old", Provider::keycloak(), 400, json!({"error": "invalid_scope", "error_description": "User no long has permission for role x"}), Terminal),
        ("Keycloak, a scope", Provider::keycloak(), 400, json!({"error": "invalid_scope"}), Configuration),
        ("OpenAI, beside (Q-27)", Provider::openai(), 401, json!({"code": "Refresh_Token_Expired"}), Terminal),
        ("OpenAI, within", Provider::openai(), 401, json!({"error": {"code": "token_expired"}, "code": "x"}), Terminal),
        ("OpenAI, a text (Q-27)", Provider::openai(), 401, json!({"error": "Refresh_Token_Expired"}), Terminal),
        ("OpenAI, cut by its gateway (Q-27)", Provider::openai(), 401, json!({"error": {}}), Unusable),
        ("OpenAI, another 401", Provider::openai(), 401, json!({"error": {"message": "x", "code": null}}), Unusable),
        ("Supabase, another server's", Provider::supabase(), 400, json!({"code": 400, "error_code": "validation_failed", "msg": "Invalid Refresh Token: Not Issued By This Server"}), Terminal),
        ("Supabase, another mistake", Provider::supabase(), 400, json!({"code": 400, "error_code": "validation_failed", "msg": "x"}), Unusable),
        ("X, about a code (Q-29)", Provider::x(), 400, json!({"error": "invalid_request", "error_description": "Value passed for the authorization code was invalid."}), Configuration),
        ("GitHub, by the letter", Provider::github(), 400, json!({"error": "invalid_grant"}), Terminal),
        ("Slack, moving", Provider::slack(), 200, json!({"ok": false, "error": "internal_error"}), Unusable),
    ] {
        assert_eq!(failure(provider, status, &body), expected, "{case}");
    }
}

/// K-63, Q-32: a claims request reaches the login hook to the letter, but no secret in it.
#[test]
fn k_63_a_claims_request_is_kept_unless_a_secret_is_in_it() {
    let (_, answer) = fixture!("entra_id/dead_mfa");
    let answer = answer.replace("GUID", "c1fbdfa5-9a60-4eb7-b1c8-0b1f0f3ca8e7");
    let asked = serde_json::from_str::<Value>(&answer).unwrap()["claims"].clone();
    let long = format!(r#"{{"id_token":{{"acr":{{"values":["{}"]}}}}}}"#, "c1 ".repeat(200));
    let kept = |answer: &str| {
        let error = read(Provider::entra_id(), 400, answer).unwrap_err();
        error.server.unwrap().member("claims").unwrap().clone()
    };
    let claiming = |claims: &str| json!({"error": "invalid_grant", "claims": claims}).to_string();
    assert_eq!(kept(&answer), asked);
    assert_eq!(kept(&claiming(&long)), long);
    for (case, claims) in [
        ("our refresh token", format!(r#"{{"x":"{SENT}"}}"#)),
        ("no JSON", "c1fbdfa5-9a60-4eb7-b1c8-0b1f0f3ca8e7".to_owned()),
        ("a JSON text", r#""c1fbdfa5-9a60-4eb7-b1c8-0b1f0f3ca8e7""#.to_owned()),
    ] {
        let kept = kept(&claiming(&claims));
        assert!(kept.as_str().unwrap().contains("[hidden]"), "{case}: {kept}");
    }
}

/// Q-28: the text is not lost.
#[test]
fn k_34_zooms_reason_reaches_the_login_hook() {
    let body = json!({"reason": "Invalid Token!", "error": "invalid_grant"}).to_string();
    let error = read(Provider::zoom(), 400, &body).unwrap_err();
    assert_eq!(error.server.unwrap().description(), Some("Invalid Token!"));
}

/// Q-81, Q-82.
#[test]
fn k_07_slacks_tokens_are_bearers_and_the_users_is_found() {
    let (_, bot) = fixture!("slack/success");
    let bot = read(Provider::slack(), 200, bot).unwrap();
    assert_eq!(bot.access_token(), "xoxe.xoxb-1-..");
    assert_eq!(
        (bot.scope(), bot.token_type()),
        (Some("commands incoming-webhook"), Some("Bearer"))
    );
    let user = json!({"ok": true, "authed_user": {"id": "U1", "access_token": "xoxe.xoxp-1",
        "expires_in": 43200, "refresh_token": "xoxe-1", "token_type": "user"}});
    let user = read(Provider::slack(), 200, &user.to_string()).unwrap();
    assert_eq!((user.access_token(), user.refresh_token()), ("xoxe.xoxp-1", Some("xoxe-1")));
}

/// K-07, Q-20, Q-21, Q-82: a login's answer is read as a refresh's is, errors included.
#[test]
fn k_07_a_login_is_read_by_the_servers_own_reader() {
    let login = json!({"ok": true, "authed_user": {"id": "U1", "access_token": "xoxe.xoxp-1",
        "scope": "chat:write,users:read", "refresh_token": "xoxe-1", "token_type": "user"}});
    let login = login.to_string();
    let tokens = Provider::slack().read_tokens(login.as_bytes()).unwrap();
    assert_eq!((tokens.access_token(), tokens.refresh_token()), ("xoxe.xoxp-1", Some("xoxe-1")));
    assert_eq!(tokens.scope(), Some("chat:write users:read"));
    assert!(TokenSet::from_json(login.as_bytes()).is_err(), "not by the RFC");
    let (_, dead) = fixture!("slack/dead");
    let error = Provider::slack().read_tokens(dead.as_bytes()).unwrap_err();
    assert_eq!(error.failure(), Terminal);
    let odd = br#"{"access_token": "a", "token_type": "mac"}"#;
    assert_eq!(Provider::rfc6749().read_tokens(odd).unwrap().token_type(), Some("mac"));
}

/// K-42, Q-90, Q-92, Q-93, Q-94: what the API's own answer says about the token.
#[test]
fn k_42_a_403_is_about_the_token_only_where_amazon_says_so() {
    let (_, over) = fixture!("amazon_sp_api/api");
    let role = r#"{"errors":[{"message":"Access to requested resource is denied.","code":"Unauthorized","details":""}]}"#;
    let claims = r#"Bearer realm="", error="insufficient_claims", claims="e30=""#;
    for (case, provider, status, challenge, body, expected) in [
        ("SP-API (Q-90)", Provider::amazon_sp_api(), 403, None, over, true),
        ("SP-API, a role (Q-90)", Provider::amazon_sp_api(), 403, None, role, false),
        ("SP-API, 401", Provider::amazon_sp_api(), 401, None, "", true),
        ("GitHub, a limit (Q-92)", Provider::github(), 403, None, "{}", false),
        ("Entra, claims (Q-93)", Provider::entra_id(), 401, Some(claims), "", false),
        ("Salesforce, no challenge (Q-94)", Provider::salesforce(), 401, None, "[]", true),
    ] {
        let mut headers = HeaderMap::new();
        if let Some(challenge) = challenge {
            headers.insert(http::header::WWW_AUTHENTICATE, challenge.parse().unwrap());
        }
        let is_rejected = match provider.judge(StatusCode::from_u16(status).unwrap(), &headers) {
            Judgement::Accepted => false,
            Judgement::Rejected => true,
            Judgement::RejectedIf(is) => is(&serde_json::from_str(body).unwrap()),
        };
        assert_eq!(is_rejected, expected, "{case}");
    }
}

/// K-11, K-40, Q-57.
#[test]
fn k_11_where_a_refresh_kills_the_old_token_it_comes_late() {
    for provider in [Provider::github(), Provider::gitlab(), Provider::spring_security_oauth()] {
        assert!(provider.refresh_revokes_access_token());
        assert_eq!(provider.refresh_window(), Duration::from_secs(10));
    }
    let unsaid = Provider::github().with_revoking_refresh(false);
    assert_eq!(unsaid.refresh_window(), Duration::from_secs(60));
    let said = Provider::github().with_refresh_window(Duration::from_secs(7));
    assert_eq!(said.refresh_window(), Duration::from_secs(7), "what is said counts");
    assert_eq!(Provider::github().minimum_age(), SETTLED);
    assert_eq!(Provider::okta().minimum_age(), Duration::ZERO);
}

/// K-10, Q-27: OpenAI's own client takes eight days where nothing says how long a token lives.
#[test]
fn k_10_openais_tokens_live_for_eight_days_where_nothing_says_so() {
    let days = |provider: Provider| provider.default_lifetime().map(|life| life.as_secs() / 86_400);
    assert_eq!((days(Provider::openai()), days(Provider::rfc6749())), (Some(8), None));
}

/// K-33: what looks like another server's error is none beside tokens, nor beside a real one.
#[test]
fn k_33_renaming_an_error_never_costs_a_success() {
    let fine = json!({"access_token": "a", "status": "ok", "code": "x", "error_code": "y"});
    for provider in [Provider::hubspot(), Provider::openai(), Provider::supabase()] {
        assert_eq!(verdict(provider, 200, &fine.to_string()), Tokens(None, false));
    }
    let real = json!({"error": "invalid_client", "code": "session_expired"});
    assert_eq!(failure(Provider::supabase(), 400, &real), Configuration);
}
