//! How we speak to authorization servers: bounded in every way.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use reqwest::{Client, ClientBuilder, Request};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, RefreshError, RefreshFailure};
use crate::proto::grant::{Answer, retry_after};
use crate::proto::provider::Provider;
use crate::secret::SecretBytes;
use crate::token::TokenSet;

/// A client that is cookie-less, follows no redirect, unpacks nothing, keeps no idle connection, and
/// reads no more than 1 MiB of an answer. Its clones are the same client.
#[derive(Clone, Default)]
pub(crate) struct HttpClient {
    /// Made at the first use: a program whose token is fresh does not load certificates for it.
    client: Arc<OnceLock<Client>>,
}

/// An answer, read whole.
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: SecretBytes,
}

impl HttpClient {
    /// A client that connects as `builder` says.
    pub(crate) fn new(builder: ClientBuilder) -> Result<Self, Error> {
        Ok(Self { client: Arc::new(bounded_client(builder)?.into()) })
    }

    /// Sends one request to `peer`, as errors call it.
    pub(crate) async fn send(
        &self,
        request: Request,
        peer: &str,
    ) -> Result<HttpAnswer, RefreshError> {
        let lost = |error| not_answered(error, peer);
        let mut response = self.client(peer)?.execute(request).await.map_err(lost)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = SecretBytes::default();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                let message = format!("the answer of {peer} is larger than 1 MiB");
                return Err(RefreshError::new(RefreshFailure::Unusable, message));
            }
            body.push(&chunk);
        }
        Ok(HttpAnswer { status, headers, body })
    }

    fn client(&self, peer: &str) -> Result<&Client, RefreshError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = bounded_client(Client::builder()).map_err(|error| {
            let message = format!("{peer} cannot be reached");
            RefreshError::new(RefreshFailure::Configuration, message).with_source(error)
        })?;
        Ok(self.client.get_or_init(|| client))
    }
}

impl HttpAnswer {
    /// What the protocol has to know of it.
    pub(crate) fn as_answer(&self) -> Answer<'_> {
        Answer::new(self.status, &self.headers, &self.body, Clock::System.now().wall)
    }

    /// How long the server asks to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers, Clock::System.now().wall)
    }
}

impl Provider {
    /// Reads any answer of this server's token endpoint: the new tokens, or what may be done now
    /// ([`RefreshFailure`]), and when (`Retry-After`).
    ///
    /// For a [`Refresh`](crate::Refresh) that sends by an HTTP client of its own. Where there is no
    /// answer, say so yourself: [`NotSent`](RefreshFailure::NotSent) or
    /// [`Lost`](RefreshFailure::Lost). What is kept of the server's words has none of `secrets` in
    /// it: name what was sent, since servers repeat it.
    ///
    /// ```
    /// use http::{HeaderMap, StatusCode};
    /// use reqwest_refresh::{Provider, RefreshFailure};
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.insert("retry-after", "7".parse().unwrap());
    /// let answer = Provider::rfc6749().read_answer(
    ///     StatusCode::SERVICE_UNAVAILABLE,
    ///     &headers,
    ///     b"<h1>Back soon</h1>",
    ///     &["the refresh token"],
    /// );
    /// assert_eq!(answer.unwrap_err().failure(), RefreshFailure::Busy);
    /// ```
    ///
    /// # Errors
    ///
    /// What the server says, if it says an error, or that there is no access token of the type
    /// `Bearer` (RFC 6749 §7.1).
    pub fn read_answer(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        secrets: &[&str],
    ) -> Result<TokenSet, RefreshError> {
        let now = Clock::System.now().wall;
        Answer::new(status.as_u16(), headers, body, now).read(self, false, secrets)
    }
}

const LARGEST_ANSWER: usize = 1024 * 1024;

/// RFC 9700 §4.12: a 307 would send the refresh token on. digiRunner takes a cookie of its own for
/// another grant. An idle connection would be a task. reqwest asks for packed answers wherever
/// anything in the program has switched on that it can; a small one gains nothing by it.
fn bounded_client(builder: ClientBuilder) -> Result<Client, Error> {
    #[cfg(feature = "cookies")]
    let builder = builder.cookie_store(false);
    let builder = builder.redirect(reqwest::redirect::Policy::none()).pool_max_idle_per_host(0);
    let builder = builder.no_brotli().no_deflate().no_gzip().no_zstd();
    builder.build().map_err(|error| {
        let message = "the HTTP client for the authorization server cannot be built";
        Error::with_source(ErrorKind::Configuration, message, Some(Arc::new(error)))
    })
}

/// reqwest's errors quote the URL, which may have a secret in its query.
fn not_answered(error: reqwest::Error, peer: &str) -> RefreshError {
    let (failure, message) = if error.is_connect() {
        (RefreshFailure::NotSent, format!("no connection to {peer}"))
    } else if error.is_builder() {
        (RefreshFailure::Configuration, format!("the request to {peer} cannot be built"))
    } else {
        (RefreshFailure::Lost, format!("the answer of {peer} was lost"))
    };
    RefreshError::new(failure, message).with_source(error.without_url())
}
