//! RS256: what makes a token ours.

use std::fmt;

use anyhow::{Context as _, Result};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::Value;

/// A key pair of the gateway's own.
pub(super) struct Signer {
    private: EncodingKey,
    public: DecodingKey,
    validation: Validation,
}

/// What a token says, once its signature was found good.
#[derive(Clone, Debug)]
pub(super) struct Claims(pub(super) Value);

impl Signer {
    /// Makes a new key: 2048 bits, so that the start takes a moment only.
    pub(super) fn generate() -> Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).context("no RSA key")?;
        let der: Pkcs8V1Der<'_> = pair.as_der().context("no PKCS#8")?;
        let mut validation = Validation::new(Algorithm::RS256);
        // The end is judged later, in digiRunner's order and to the second.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Ok(Self {
            private: EncodingKey::from_rsa_pem(pem(der.as_ref()).as_bytes())?,
            public: DecodingKey::from_rsa_der(pair.public_key().as_ref()),
            validation,
        })
    }

    /// A signed token that says `claims`.
    pub(super) fn sign(&self, claims: &Claims) -> Result<String> {
        let header = Header::new(Algorithm::RS256);
        Ok(jsonwebtoken::encode(&header, &claims.0, &self.private)?)
    }

    /// What `token` says, if we have signed it.
    pub(super) fn verify(&self, token: &str) -> Option<Claims> {
        let token = jsonwebtoken::decode(token, &self.public, &self.validation).ok()?;
        Some(Claims(token.claims))
    }
}

impl Claims {
    pub(super) fn client_id(&self) -> &str {
        self.text("client_id")
    }

    pub(super) fn jti(&self) -> &str {
        self.text("jti")
    }

    /// In a refresh token: the `jti` of the access token that was issued with it.
    pub(super) fn ati(&self) -> &str {
        self.text("ati")
    }

    pub(super) fn exp(&self) -> u64 {
        self.0["exp"].as_u64().unwrap_or_default()
    }

    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

/// jsonwebtoken takes PKCS#8 as PEM only.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for (place, letter) in text.chars().enumerate() {
        if place > 0 && place % 64 == 0 {
            pem.push('\n');
        }
        pem.push(letter);
    }
    pem + "\n-----END PRIVATE KEY-----\n"
}
