//! OAuth's way to trade a token set for the next one.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use reqwest::{ClientBuilder, Request, Url};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use url::Position;

use crate::clock::Clock;
use crate::error::{Error, RefreshError, RefreshFailure};
use crate::http_client::{HttpAnswer, HttpClient};
use crate::proto::client_auth::{Attempt, ClientAuth};
use crate::proto::grant::{RESERVED, revocation_form, token_form};
use crate::proto::origin::server_url;
use crate::proto::provider::Provider;
use crate::refresh::Refresh;
use crate::secret::secret;
use crate::token::TokenSet;

/// An OAuth 2.0 token endpoint (RFC 6749 §3.2), asked by the refresh grant (§6) unless it is told
/// [otherwise](Self::with_client_credentials).
///
/// It has a `reqwest` client of its own: cookie-less, following no redirect, asking for no
/// compression, keeping no idle connection, and reading no more than 1 MiB of an answer. Cheap to
/// clone, and one may serve many sessions.
///
/// ```
/// use reqwest_refresh::{ClientAuth, TokenEndpoint};
///
/// # fn main() -> Result<(), reqwest_refresh::Error> {
/// let gateway = TokenEndpoint::digirunner("https://gateway.example.com", "tspclient", Some("tsp123abcd"))?;
/// let other = TokenEndpoint::new("https://login.example.com/token", ClientAuth::none("my-app"))?
///     .with_revocation_url("https://login.example.com/revoke")?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TokenEndpoint {
    url: Url,
    revocation_url: Option<Url>,
    /// The server's name, where its metadata says it.
    issuer: Option<String>,
    auth: ClientAuth,
    provider: Provider,
    grant: Grant,
    scope: Option<String>,
    parameters: Vec<(String, SecretString)>,
    any_type: bool,
    timeout: Duration,
    client: HttpClient,
}

impl TokenEndpoint {
    /// The token endpoint at `url`, for the client that `auth` proves to be.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) for a URL that is none, has a fragment
    /// (RFC 6749 §3.2), credentials or another scheme than `https` or `http`, and for a client id
    /// that the method cannot carry. Plain `http` is refused when the session is built.
    pub fn new(url: &str, auth: ClientAuth) -> Result<Self, Error> {
        auth.check()?;
        Ok(Self {
            url: server_url("an endpoint's URL", url)?,
            revocation_url: None,
            issuer: None,
            auth,
            provider: Provider::rfc6749(),
            grant: Grant::RefreshToken,
            scope: None,
            parameters: Vec::new(),
            any_type: false,
            timeout: Duration::from_secs(15),
            client: HttpClient::default(),
        })
    }

    /// The token endpoint of the digiRunner gateway at `base` (scheme and host, such as
    /// `https://gateway.example.com`), by its manual page "Applying Refresh Token".
    ///
    /// `password` is the client password as it was registered, for Scenario I; `None` for
    /// Scenario II, a public client with PKCE. Base64 is our business.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn digirunner(base: &str, client_id: &str, password: Option<&str>) -> Result<Self, Error> {
        // Checked before anything is joined to it: `https:` and a path make another host.
        let base = server_url("the gateway's URL", base)?;
        if base.query().is_some() {
            let message = "the gateway's URL must not have a query";
            return Err(Error::configuration(message));
        }
        let base = base.as_str().trim_end_matches('/');
        let auth = ClientAuth::digirunner(client_id, password);
        Self::new(&format!("{base}/oauth/token"), auth)?
            .with_provider(Provider::digirunner())
            .with_revocation_url(&format!("{base}/oauth/revocation"))
    }

    /// Sets what is particular about the server. Defaults to [`Provider::rfc6749`].
    #[must_use]
    pub fn with_provider(mut self, provider: Provider) -> Self {
        self.provider = provider;
        self
    }

    /// Gets tokens by the client credentials grant (RFC 6749 §4.4): for a program that speaks for
    /// itself, and not for a person.
    ///
    /// There is no login, no login hook and no refresh token: the session asks for its first token
    /// at the first request, and for the next one when that is over. By default an endpoint gets
    /// them by the refresh grant.
    ///
    /// ```
    /// use reqwest_refresh::{ClientAuth, Session, TokenEndpoint};
    ///
    /// # fn main() -> Result<(), reqwest_refresh::Error> {
    /// let auth = ClientAuth::basic("nightly-report", "secret");
    /// let endpoint = TokenEndpoint::new("https://login.example.com/token", auth)?
    ///     .with_client_credentials()
    ///     .with_scope("orders:read");
    /// let session = Session::builder(endpoint).allow_origin("https://api.example.com").build()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_client_credentials(mut self) -> Self {
        self.grant = Grant::ClientCredentials;
        self
    }

    /// Sets the revocation endpoint (RFC 7009), which
    /// [`Session::log_out`](crate::Session::log_out) calls. Defaults to none.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_revocation_url(mut self, url: &str) -> Result<Self, Error> {
        self.revocation_url = Some(server_url("an endpoint's URL", url)?);
        Ok(self)
    }

    /// Sets the scope to ask for; in a refresh at most what was granted (RFC 6749 §6). Defaults to
    /// none: the same as before, or what the server gives without being asked.
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Adds a form parameter to the token request. `resource` (RFC 8707 §2) and `audience`
    /// (RFC 8693 §2.1) may be added several times.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) for another parameter that the request
    /// has already: RFC 6749 §3.2 forbids to repeat one.
    pub fn with_parameter(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, Error> {
        let name = name.into();
        let is_there = self.parameters.iter().any(|(known, _)| *known == name)
            && !matches!(&*name, "audience" | "resource");
        if is_there || RESERVED.contains(&name.as_str()) {
            let message = format!("the token request already has the parameter `{name}`");
            return Err(Error::configuration(message));
        }
        self.parameters.push((name, secret(value)));
        Ok(self)
    }

    /// Takes every `token_type` for `Bearer`. For servers that write something else and mean it
    /// (eBay's "User Access Token"). By default another type is an error, as RFC 6749 §7.1 demands.
    #[must_use]
    pub fn with_any_token_type(mut self) -> Self {
        self.any_type = true;
        self
    }

    /// Sets the time that one attempt may take. Defaults to 15 seconds.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how to connect: private CA, proxy, client certificate, DNS.
    ///
    /// Redirects, compression and idle connections are switched off last, whatever the builder says;
    /// cookies too, with this crate's feature `cookies`, which applications need that use reqwest's.
    ///
    /// A client certificate may be the proof of who the client is (RFC 8705 §2). The `client_id`
    /// that goes with it is [`ClientAuth::none`]'s:
    ///
    /// ```no_run
    /// use reqwest::{Certificate, Client, Identity};
    /// use reqwest_refresh::{ClientAuth, TokenEndpoint};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let certificate_and_key = Identity::from_pem(&std::fs::read("orders.pem")?)?;
    /// let private_ca = Certificate::from_pem(&std::fs::read("ca.pem")?)?;
    /// let builder = Client::builder().identity(certificate_and_key).tls_certs_only([private_ca]);
    /// let url = "https://mtls.example.com/token";
    /// let endpoint = TokenEndpoint::new(url, ClientAuth::none("orders"))?.with_http(builder)?;
    /// # Ok(()) }
    /// ```
    ///
    /// The URL is that of `mtls_endpoint_aliases` (§5), where the server has one. Where tokens are
    /// bound to the certificate (§3), the client for the API needs it too. A certificate that the
    /// server refuses ends in [`Unavailable`](crate::ErrorKind::Unavailable), with TLS's reason
    /// among the error's sources where it arrived: TLS 1.3 refuses it after the request was sent,
    /// as if an answer had been lost.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) if the builder cannot build.
    pub fn with_http(self, builder: ClientBuilder) -> Result<Self, Error> {
        Ok(self.with_client(HttpClient::new(builder)?))
    }

    pub(crate) fn with_issuer(mut self, issuer: &str) -> Self {
        self.issuer = Some(issuer.to_owned());
        self
    }

    pub(crate) fn with_client(mut self, client: HttpClient) -> Self {
        self.client = client;
        self
    }

    /// Asks for tokens by any other grant: one token request (RFC 6749 §3.2) of this `grant_type`,
    /// with the grant's own `parameters`, which come instead of this endpoint's.
    ///
    /// For a [`Refresh`] of your own, such as the JWT bearer grant (RFC 7523) or token exchange
    /// (RFC 8693), and for logging in (`authorization_code`). Client authentication, limits, the
    /// [provider](Self::with_provider) and the clean error texts are those of a refresh.
    ///
    /// ```
    /// use reqwest_refresh::{RefreshError, TokenEndpoint, TokenSet};
    ///
    /// async fn log_in(endpoint: &TokenEndpoint, code: &str) -> Result<TokenSet, RefreshError> {
    ///     let redirect_uri = "https://app.example.com/callback";
    ///     let parameters = [("code", code), ("redirect_uri", redirect_uri)];
    ///     endpoint.request("authorization_code", &parameters).await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Why there are no tokens, and [what may be done](RefreshFailure) about it. Nothing is tried
    /// again here.
    pub async fn request(
        &self,
        grant_type: &str,
        parameters: &[(&str, &str)],
    ) -> Result<TokenSet, RefreshError> {
        self.ask(grant_type, parameters, None).await
    }

    /// One token request. No error shows a parameter's value, nor `secret`.
    async fn ask(
        &self,
        grant_type: &str,
        parameters: &[(&str, &str)],
        secret: Option<&str>,
    ) -> Result<TokenSet, RefreshError> {
        let grant_type = [("grant_type", grant_type)];
        let scope = self.scope.iter().map(|scope| ("scope", &**scope)).collect::<Vec<_>>();
        let proof = self.auth.prove(&self.attempt())?;
        let ours = self.parameters.iter().map(|(name, value)| (&**name, value.expose_secret()));
        let theirs = self.provider.parameters().iter().copied();
        let theirs = theirs.filter(|(name, _)| !RESERVED.contains(name));
        let form = token_form(&[
            &grant_type,
            parameters,
            &scope,
            &proof.parameters().collect::<Vec<_>>(),
            &ours.collect::<Vec<_>>(),
            &theirs.collect::<Vec<_>>(),
        ]);
        let answer = self.post("the token endpoint", &self.url, proof.header, form).await?;
        let values = parameters.iter().map(|(_, value)| *value);
        let ours = self.parameters.iter().map(|(_, value)| value.expose_secret());
        let secrets: Vec<_> =
            values.chain(ours).chain(secret).chain([self.auth.secret()]).collect();
        answer.as_answer().read(&self.provider, self.any_type, &secrets)
    }

    /// Another one each time: a server may refuse a proof that it has seen.
    fn attempt(&self) -> Attempt<'_> {
        Attempt {
            now: Clock::System.now().wall,
            nonce: fastrand::u128(..),
            audience: self.issuer.as_deref().unwrap_or(self.url.as_str()),
        }
    }

    /// Sends one form to `peer`, as errors call it.
    async fn post(
        &self,
        peer: &str,
        url: &Url,
        authorization: Option<HeaderValue>,
        form: Zeroizing<String>,
    ) -> Result<HttpAnswer, RefreshError> {
        let mut request = Request::new(Method::POST, url.clone());
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form_type);
        headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        *request.body_mut() = Some(Bytes::from_owner(form).into());
        *request.timeout_mut() = Some(self.timeout);

        self.client.send(request, peer).await
    }

    async fn revoke_one(
        &self,
        url: &Url,
        token: &str,
        hint: &str,
        secrets: &[&str],
    ) -> Result<(), RefreshError> {
        let proof = self.auth.prove_for_revocation(&self.attempt());
        let proof = proof.map_err(|error| error.about_revoking(hint))?;
        let form = revocation_form(token, hint, &proof.parameters().collect::<Vec<_>>());
        let answer = self.post("the revocation endpoint", url, proof.header, form).await;
        answer
            .and_then(|answer| answer.as_answer().revoked(&self.provider, secrets))
            .map_err(|error| error.about_revoking(hint))
    }
}

#[async_trait]
impl Refresh for TokenEndpoint {
    async fn refresh(&self, tokens: &TokenSet) -> Result<TokenSet, RefreshError> {
        match (self.grant, tokens.refresh_token()) {
            (Grant::ClientCredentials, _) => {
                let fresh = self.request("client_credentials", &[]).await;
                // RFC 6749 §4.4.3: "A refresh token SHOULD NOT be included."
                fresh.map(TokenSet::without_refresh_token).map_err(RefreshError::about_the_client)
            }
            (Grant::RefreshToken, Some(refresh_token)) => {
                let parameters = [("refresh_token", refresh_token)];
                self.ask("refresh_token", &parameters, Some(tokens.access_token())).await
            }
            (Grant::RefreshToken, None) => {
                let message = "there is no refresh token";
                Err(RefreshError::new(RefreshFailure::Configuration, message))
            }
        }
    }

    /// Revokes the refresh token, then the access token, also if the first fails: RFC 7009 §2.1
    /// lets a server keep the one when the other goes, and digiRunner does.
    ///
    /// An access token of a kind that the server does not revoke is left to its end.
    async fn revoke(&self, tokens: &TokenSet) -> Result<(), RefreshError> {
        let Some(url) = &self.revocation_url else {
            return Ok(());
        };
        let token = tokens.access_token();
        let secrets = [tokens.refresh_token().unwrap_or_default(), token, self.auth.secret()];
        let refresh_token = match tokens.refresh_token() {
            Some(token) => self.revoke_one(url, token, "refresh_token", &secrets).await,
            None => Ok(()),
        };
        let access_token = self.revoke_one(url, token, "access_token", &secrets).await;
        match (refresh_token, access_token) {
            (result, Err(error)) if error.is_unsupported_token_type() => {
                tracing::info!("the server does not revoke access tokens: this one lives on");
                result
            }
            (Err(one), Err(other)) => Err(one.and(other)),
            (one, other) => one.and(other),
        }
    }

    fn endpoints(&self) -> Vec<Url> {
        Some(self.url.clone()).into_iter().chain(self.revocation_url.clone()).collect()
    }

    fn provider(&self) -> Provider {
        self.provider
    }

    fn needs_refresh_token(&self) -> bool {
        self.grant == Grant::RefreshToken
    }
}

/// What an endpoint is asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    ClientCredentials,
    RefreshToken,
}

impl fmt::Debug for TokenEndpoint {
    /// Without the values of parameters, the query, and the HTTP client's default headers: any of
    /// them may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        f.debug_struct("TokenEndpoint")
            .field("url", &&self.url[..Position::AfterPath])
            .field("auth", &self.auth)
            .field("grant", &self.grant)
            .field("scope", &self.scope)
            .field("parameters", &names)
            .finish_non_exhaustive()
    }
}
