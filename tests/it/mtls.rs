//! Client authentication by a certificate (RFC 8705 §2), in real TLS handshakes on loopback.

use reqwest_refresh::{
    ClientAuth, ErrorKind, ManualClock, Refresh, RefreshFailure, Session, TokenEndpoint,
};
use tokio_rustls::rustls::SupportedProtocolVersion;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::support::{Authority, Hook, SECOND, Tls, Wire, http, identity, until};
use crate::token_request::{FINE, ask, backoff, tokens};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A client that trusts nobody but `authority`.
fn trusting(authority: &Authority) -> reqwest::ClientBuilder {
    reqwest::Client::builder().tls_certs_only([authority.root()])
}

fn endpoint(tls: &Tls, http: reqwest::ClientBuilder) -> TokenEndpoint {
    let auth = ClientAuth::none("orders");
    TokenEndpoint::new(&tls.url("/token"), auth).unwrap().with_http(http).unwrap()
}

/// K-31, K-30, R-103: the certificate is the proof; `client_id` says whose it must be.
#[tokio::test]
async fn k_31_a_client_certificate_is_the_only_proof() {
    for version in VERSIONS {
        let authority = Authority::new("ours");
        let client = authority.issue("orders");
        let wire = Wire::saying(http(200, "", FINE)).await;
        let tls = Tls::before(&wire, version, &authority).await;
        let endpoint = endpoint(&tls, trusting(&authority).identity(identity(&client)));

        let fresh = endpoint.refresh(&tokens()).await.unwrap();
        assert_eq!(fresh.access_token(), "a1", "{version:?}");
        assert_eq!(tls.handshakes(), [Some(client.cert.der().to_vec())], "{version:?}");
        let request = wire.requests().remove(0).to_ascii_lowercase();
        let form = "grant_type=refresh_token&refresh_token=r0%26%2b+%c3%a4&client_id=orders";
        assert!(request.ends_with(&format!("\r\n\r\n{form}")), "{version:?}: {request}");
        assert!(!request.contains("\r\nauthorization:"), "{version:?}: {request}");
    }
}

/// K-54, K-35: the verdict is about the refresh token alone, and a login would give no certificate.
///
/// In TLS 1.3 the client has done its part, and sent the request, before the server has looked at
/// the certificate (RFC 8446 §4.4.2.4): seen from the client, an answer was lost.
#[tokio::test]
async fn k_54_a_client_certificate_that_is_refused_calls_no_hook() {
    let authority = Authority::new("ours");
    let foreign = Authority::new("another").issue("orders");
    for (version, message, attempts) in [
        (&TLS12, "no connection to the token endpoint", 3),
        (&TLS13, "the answer of the token endpoint was lost", 2),
    ] {
        for (case, http) in [
            ("no certificate", trusting(&authority)),
            ("another authority's", trusting(&authority).identity(identity(&foreign))),
        ] {
            let wire = Wire::saying(FINE).await;
            let tls = Tls::before(&wire, version, &authority).await;
            let hook = Hook::declining();
            let clock = ManualClock::new();
            let builder = Session::builder(endpoint(&tls, http)).clock(clock.clone());
            let builder = builder.tokens(tokens().with_expires_in(SECOND));
            let session = hook.on(builder).build().unwrap();
            clock.advance(SECOND);
            let waiting = ask(&session);
            for round in 1..attempts {
                until(|| tls.handshakes().len() == round).await;
                clock.advance(backoff(&clock).await);
            }
            let error = waiting.await.unwrap().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Unavailable), "{version:?}, {case}: {error}");
            assert!(error.to_string().contains(message), "{version:?}, {case}: {error}");
            assert_eq!(tls.handshakes(), vec![None; attempts], "{version:?}, {case}");
            assert!(wire.requests().is_empty(), "{version:?}, {case}");
            assert_eq!(hook.calls(), 0, "{version:?}, {case}");
            let kept = session.current_tokens().unwrap();
            assert_eq!(kept.refresh_token(), tokens().refresh_token(), "{version:?}, {case}");
        }
    }
}

/// K-35, R-041: nothing was said to a server that nobody vouches for.
#[tokio::test]
async fn k_35_a_server_of_an_unknown_authority_is_told_nothing() {
    let (authority, another) = (Authority::new("ours"), Authority::new("another"));
    for version in VERSIONS {
        let wire = Wire::saying(http(200, "", FINE)).await;
        let tls = Tls::before(&wire, version, &authority).await;
        let client = trusting(&another).identity(identity(&authority.issue("orders")));
        let error = endpoint(&tls, client).refresh(&tokens()).await.unwrap_err();
        assert_eq!(error.failure(), RefreshFailure::NotSent, "{version:?}: {error}");
        until(|| tls.handshakes() == [None]).await;
        assert!(wire.requests().is_empty(), "{version:?}");
    }
}

/// K-30, R-044: our bounds come last, on a builder for TLS as on any other.
#[tokio::test]
async fn k_30_no_redirect_is_followed_and_no_cookie_sent_over_tls() {
    let authority = Authority::new("ours");
    let wire = Wire::saying(http(307, "location: /elsewhere\r\nset-cookie: a=b\r\n", "")).await;
    let tls = Tls::before(&wire, &TLS13, &authority).await;
    let eager = trusting(&authority)
        .identity(identity(&authority.issue("orders")))
        .redirect(reqwest::redirect::Policy::limited(10));
    #[cfg(feature = "cookies")]
    let eager = eager.cookie_store(true);
    let endpoint = endpoint(&tls, eager);
    for round in 1..=2 {
        let error = endpoint.refresh(&tokens()).await.unwrap_err();
        assert_eq!(error.failure(), RefreshFailure::Unusable, "{error}");
        assert_eq!(wire.requests().len(), round);
    }
    assert!(!wire.requests()[1].to_ascii_lowercase().contains("\r\ncookie:"));
}
