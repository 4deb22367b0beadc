//! How we speak to authorization servers: bounded in every way.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Request};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, RefreshError, RefreshFailure};
use crate::proto::grant::{Answer, retry_after};
use crate::proto::policy::LONGEST_PAUSE;
use crate::secret::SecretBytes;

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
        Answer {
            status: self.status,
            retry_after: self.retry_after(),
            is_form: self.is_form(),
            body: &self.body,
        }
    }

    /// How long the server asks to be left alone, an hour at most. A date is compared with the server's own clock
    /// where it tells it.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let text = |name| self.headers.get(name)?.to_str().ok();
        let server_time = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        let now = server_time.unwrap_or_else(|| Clock::System.now().wall);
        Some(retry_after(text(RETRY_AFTER)?, now)?.min(LONGEST_PAUSE))
    }

    /// RFC 9110 §8.3.1: type and subtype are compared without case; parameters may follow.
    fn is_form(&self) -> bool {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = value.and_then(|value| value.split(';').next()).unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
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
