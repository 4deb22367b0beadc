//! Trading a token set for the next one.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Url;

use crate::error::RefreshError;
use crate::proto::provider::Provider;
use crate::token::TokenSet;

/// A way to get the next token set.
///
/// [`TokenEndpoint`](crate::TokenEndpoint) is OAuth's. Implement this for an API of another kind. The session calls it
/// from one task at a time, bounds its time, repeats it where [`RefreshFailure`](crate::RefreshFailure) allows, and keeps
/// the old refresh token if the answer has none.
///
/// The future may be dropped when its time is over, but not because a caller went away.
#[async_trait]
pub trait Refresh: Send + Sync + 'static {
    /// Trades `tokens` for the next set: one attempt.
    async fn refresh(&self, tokens: &TokenSet) -> Result<TokenSet, RefreshError>;

    /// Tells the server that `tokens` are not needed any more, once. What fails is said by
    /// [`Session::log_out`](crate::Session::log_out). Does nothing by default.
    async fn revoke(&self, tokens: &TokenSet) -> Result<(), RefreshError> {
        let _ = tokens;
        Ok(())
    }

    /// The URLs that this sends credentials to.
    ///
    /// Requests to them pass a session untouched, so a client can be used for both. The origin of
    /// the first is where the token may go unless
    /// [other origins](crate::SessionBuilder::allow_origin) are named.
    fn endpoints(&self) -> Vec<Url> {
        Vec::new()
    }

    /// What is particular about the server. Defaults to [`Provider::rfc6749`].
    fn provider(&self) -> Provider {
        Provider::rfc6749()
    }

    /// Whether there is nothing to be had without a refresh token. Defaults to `true`.
    ///
    /// Say `false` where an access token can be had otherwise, as by client credentials. Then the
    /// session asks for the first one too, and again after it was cleared:
    /// [`refresh`](Self::refresh) gets a set with an empty access token where there is none.
    fn needs_refresh_token(&self) -> bool {
        true
    }
}

#[async_trait]
impl<R: Refresh + ?Sized> Refresh for Arc<R> {
    async fn refresh(&self, tokens: &TokenSet) -> Result<TokenSet, RefreshError> {
        (**self).refresh(tokens).await
    }

    async fn revoke(&self, tokens: &TokenSet) -> Result<(), RefreshError> {
        (**self).revoke(tokens).await
    }

    fn endpoints(&self) -> Vec<Url> {
        (**self).endpoints()
    }

    fn provider(&self) -> Provider {
        (**self).provider()
    }

    fn needs_refresh_token(&self) -> bool {
        (**self).needs_refresh_token()
    }
}
