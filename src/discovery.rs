//! Asking an authorization server where its endpoints are.

use std::fmt;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderValue, Method};
use reqwest::{ClientBuilder, Request, Url};
use serde_json::Value;

use crate::error::{Error, RefreshError, RefreshFailure};
use crate::http_client::HttpClient;
use crate::proto::client_auth::ClientAuth;
use crate::proto::metadata::{AfterAnswer, Document, Issuer};
use crate::token_endpoint::TokenEndpoint;

/// What an authorization server says of itself: RFC 8414, or OpenID Connect Discovery 1.0.
///
/// For the servers that publish it: only the issuer's URL is configured then, and a wrong client
/// authentication method is an error before the first request. Ask once, when the program starts,
/// and keep what is made of it.
///
/// ```no_run
/// use reqwest_refresh::{ClientAuth, ServerMetadata, Session};
///
/// # async fn session() -> Result<Session, reqwest_refresh::Error> {
/// let server = ServerMetadata::discover("https://login.example.com").await?;
/// let endpoint = server.token_endpoint(ClientAuth::basic("my-app", "secret"))?;
/// Session::builder(endpoint).allow_origin("https://api.example.com").build()
/// # }
/// ```
///
/// The document is believed if its `issuer` is the one that was asked for (RFC 8414 §3.3); a `/` at
/// the end may be there or not. Its endpoints may be of other origins, but must be reached over
/// `https`, or on loopback.
#[derive(Clone)]
pub struct ServerMetadata {
    document: Document,
    client: HttpClient,
}

impl ServerMetadata {
    /// Asks the server whose issuer identifier is `issuer`, such as
    /// `https://login.example.com/realms/staff`, for its metadata.
    ///
    /// First at RFC 8414's `/.well-known/oauth-authorization-server`; if there is none, at OpenID's
    /// `/.well-known/openid-configuration`. Each of the two may take 15 seconds and 1 MiB. Neither
    /// is tried again, and no redirect is followed.
    ///
    /// # Errors
    ///
    /// - [`Unavailable`](crate::ErrorKind::Unavailable): the server cannot be reached, does not
    ///   answer in time, or asks to come back later (5xx, 429).
    /// - [`Configuration`](crate::ErrorKind::Configuration): `issuer` is not a URL, or has a query
    ///   or a fragment (RFC 8414 §2); there is no metadata at either place; it is that of another
    ///   issuer; an endpoint in it is not a URL that could be one; the server redirects.
    /// - [`Insecure`](crate::ErrorKind::Insecure): the issuer or one of its endpoints is plain
    ///   `http`, loopback excepted.
    pub async fn discover(issuer: &str) -> Result<Self, Error> {
        Self::discover_with_http(issuer, ClientBuilder::new()).await
    }

    /// The same, connecting as `builder` says: private CA, proxy, DNS. The bounds are those of
    /// [`TokenEndpoint::with_http`], and a [token endpoint](Self::token_endpoint) made of this
    /// connects in the same way.
    ///
    /// # Errors
    ///
    /// As [`discover`](Self::discover), and [`Configuration`](crate::ErrorKind::Configuration) if
    /// the builder cannot build.
    pub async fn discover_with_http(issuer: &str, builder: ClientBuilder) -> Result<Self, Error> {
        let issuer = Issuer::parse(issuer)?;
        let client = HttpClient::new(builder)?;
        let mut reasons = Vec::new();
        for url in issuer.well_known() {
            let answer = client.send(request(&url), url.as_str()).await.map_err(not_answered)?;
            match issuer.after_answer(answer.status, &answer.body) {
                AfterAnswer::AskElsewhere(reason) => reasons.push(format!("{reason} at {url}")),
                AfterAnswer::Fail(error) => return Err(error.retry_in(answer.retry_after())),
                AfterAnswer::Take(document) => return Ok(Self { document, client }),
            }
        }
        Err(issuer.unknown(&reasons))
    }

    /// Reads metadata that was had in another way: from a file, or by a client of your own.
    ///
    /// # Errors
    ///
    /// As [`discover`](Self::discover): it is checked in the same way.
    pub fn from_json(issuer: &str, document: &[u8]) -> Result<Self, Error> {
        let issuer = Issuer::parse(issuer)?;
        match issuer.read(document) {
            AfterAnswer::AskElsewhere(reason) => Err(issuer.unknown(&[reason])),
            AfterAnswer::Fail(error) => Err(error),
            AfterAnswer::Take(document) => Ok(Self { document, client: HttpClient::default() }),
        }
    }

    /// The token endpoint, and the revocation endpoint if there is one, for the client that `auth`
    /// proves to be.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) if the metadata names no token endpoint,
    /// or authentication methods of which `auth` is none; and as [`TokenEndpoint::new`]. A public
    /// client is always tried: many servers that have some do not list `none`.
    pub fn token_endpoint(&self, auth: ClientAuth) -> Result<TokenEndpoint, Error> {
        let url = self.document.token_endpoint_for(&auth)?;
        let endpoint = TokenEndpoint::new(url.as_str(), auth)?
            .with_issuer(self.issuer())
            .with_client(self.client.clone());
        match &self.document.revocation_endpoint {
            Some(url) => endpoint.with_revocation_url(url.as_str()),
            None => Ok(endpoint),
        }
    }

    /// The issuer identifier, as the server writes it.
    pub fn issuer(&self) -> &str {
        &self.document.issuer
    }

    /// The client authentication methods of the token endpoint, by their registered names, such as
    /// `client_secret_post`. A server that names none means `client_secret_basic` (RFC 8414 §2).
    pub fn auth_methods(&self) -> Vec<&str> {
        self.document.auth_methods()
    }

    /// A member of the document as it came, not checked: `jwks_uri`, `authorization_endpoint`, ….
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.document.members.get(name)
    }
}

impl fmt::Debug for ServerMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerMetadata").field("issuer", &self.issuer()).finish_non_exhaustive()
    }
}

const TIMEOUT: Duration = Duration::from_secs(15);

fn request(url: &Url) -> Request {
    let mut request = Request::new(Method::GET, url.clone());
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    *request.timeout_mut() = Some(TIMEOUT);
    request
}

/// What is too large is no metadata; what did not arrive may do so later.
fn not_answered(error: RefreshError) -> Error {
    match error.failure() {
        RefreshFailure::Unusable => Error::configuration(error.to_string()),
        _ => error.into_shared(),
    }
}
