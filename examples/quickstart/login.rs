//! The login of the example: the application's own business, not the session's.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest_refresh::TokenSet;
use url::form_urlencoded::Serializer;

use crate::gateway::Config;

/// A user who logs in by the `password` grant, over a client of their own: the session's would wait
/// for this very login.
#[derive(Clone)]
pub(crate) struct Login {
    client: reqwest::Client,
    url: String,
    authorization: String,
    form: String,
}

impl Login {
    pub(crate) fn new(base: String, config: &Config) -> Result<Self> {
        // digiRunner encodes passwords, and then the whole of `Basic` once more.
        let secret = STANDARD.encode(config.client_password.as_deref().unwrap_or_default());
        let basic = STANDARD.encode(format!("{}:{secret}", config.client_id));
        let form = Serializer::new(String::new())
            .append_pair("grant_type", "password")
            .append_pair("username", &config.user_name)
            .append_pair("password", &STANDARD.encode(&config.user_password))
            .finish();
        Ok(Self {
            client: crate::direct().build()?,
            url: base + "/oauth/token",
            authorization: format!("Basic {basic}"),
            form,
        })
    }

    /// What a login hook answers: tokens, or `None` if there is no way.
    pub(crate) async fn log_in_again(self) -> Option<TokenSet> {
        self.log_in().await.ok()
    }

    pub(crate) async fn log_in(&self) -> Result<TokenSet> {
        let request = self
            .client
            .post(&self.url)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(self.form.clone());
        let response = request.send().await.context("the login was not answered")?;
        let status = response.status();
        ensure!(status.is_success(), "the login was refused with {status}");
        Ok(TokenSet::from_json(&response.bytes().await?)?)
    }
}
