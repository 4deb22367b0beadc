//! Signatures: a key, and the JWTs that it signs (RFC 7515, RFC 7518).

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::zeroize::Zeroizing;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind};
use crate::proto::jws::jwk::Jwk;

mod jwk;

/// How a [`SigningKey`] signs. The client was registered with one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SigningAlgorithm {
    /// Ed25519 (RFC 8037 §3.1).
    EdDsa,
    /// ECDSA with P-256 and SHA-256 (RFC 7518 §3.4).
    Es256,
    /// RSASSA-PSS with SHA-256 (RFC 7518 §3.5).
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 §3.3).
    Rs256,
}

/// A private key for [`ClientAuth::private_key_jwt`](crate::ClientAuth::private_key_jwt).
///
/// A key that is here can sign: whatever is wrong with it was found when it was made. Cheap to
/// clone. RSA keys have 2048 to 8192 bits. Needs the feature `jwt-auth`.
///
/// ```no_run
/// use reqwest_refresh::{ClientAuth, SigningAlgorithm, SigningKey};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pem = std::fs::read("client.pem")?;
/// let key = SigningKey::from_pem(SigningAlgorithm::Es256, &pem)?.with_key_id("2026-01");
/// let auth = ClientAuth::private_key_jwt("my-app", key);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<KeyPair>,
    id: Option<String>,
}

enum KeyPair {
    EdDsa(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
    Hs256(Box<hmac::Key>),
    Ps256(RsaKeyPair),
    Rs256(RsaKeyPair),
}

impl SigningKey {
    /// The first private key in a PEM file: PKCS#8 (`PRIVATE KEY`), PKCS#1 (`RSA PRIVATE KEY`) or
    /// SEC 1 (`EC PRIVATE KEY`).
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) if there is no private key, if it is encrypted
    /// or malformed, or does not fit the algorithm.
    pub fn from_pem(algorithm: SigningAlgorithm, pem: impl AsRef<[u8]>) -> Result<Self, Error> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_ref()).map(Zeroizing::new);
        // The reader's error quotes the file.
        let der = der.map_err(|_| {
            Error::configuration("the PEM has no private key in it that is whole and not encrypted")
        })?;
        let pair = match algorithm {
            SigningAlgorithm::EdDsa => {
                Ed25519KeyPair::from_pkcs8(der.secret_der()).map(KeyPair::EdDsa)
            }
            SigningAlgorithm::Es256 => {
                let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
                EcdsaKeyPair::from_private_key_der(curve, der.secret_der()).map(KeyPair::Es256)
            }
            SigningAlgorithm::Ps256 => rsa_key_pair(&der).map(KeyPair::Ps256),
            SigningAlgorithm::Rs256 => rsa_key_pair(&der).map(KeyPair::Rs256),
        };
        Self::tried(pair.map_err(unfit)?)
    }

    /// A private key as a JWK (RFC 7517): JSON with `"kty": "EC"` and P-256, `"OKP"` and Ed25519
    /// (RFC 8037), or `"RSA"` with all its factors (RFC 7518 §6.3.2).
    ///
    /// Its `kid` is the key's id. Its `alg` is how the key signs; an RSA key without one signs with
    /// RS256.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) if the key is public, malformed, of another
    /// kind, or meant for something else than signing.
    pub fn from_jwk(json: impl AsRef<[u8]>) -> Result<Self, Error> {
        let jwk = Jwk::read(json.as_ref())?;
        let id = jwk.text("kid")?;
        Ok(Self { id, ..Self::tried(jwk.key_pair()?)? })
    }

    /// Sets the id under which the server knows the key: `kid` in the header (RFC 7515 §4.1.4).
    /// Defaults to the `kid` of the JWK, and to none for a key from a PEM file.
    #[must_use]
    pub fn with_key_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// HS256 (RFC 7518 §3.2) with the client's secret as the key.
    pub(crate) fn from_secret(secret: &str) -> Self {
        let key = Box::new(hmac::Key::new(HMAC_SHA256, secret.as_bytes()));
        Self { pair: Arc::new(KeyPair::Hs256(key)), id: None }
    }

    /// Signs once: a key that cannot is none.
    fn tried(pair: KeyPair) -> Result<Self, Error> {
        pair.sign(b"").map_err(unfit)?;
        Ok(Self { pair: Arc::new(pair), id: None })
    }

    /// The id of the key, if it has one.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// A JWT (RFC 7519 §7.1) in the compact serialization. `alg` comes to the header by itself.
    pub(crate) fn sign(
        &self,
        mut header: Map<String, Value>,
        claims: &Value,
    ) -> Result<String, Unspecified> {
        header.insert("alg".into(), self.pair.algorithm().into());
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header.into()), part(claims));
        let signature = self.pair.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.pair.algorithm())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl KeyPair {
    /// RFC 7518 §3.1, RFC 8037 §3.1.
    fn algorithm(&self) -> &'static str {
        match self {
            Self::EdDsa(_) => "EdDSA",
            Self::Es256(_) => "ES256",
            Self::Hs256(_) => "HS256",
            Self::Ps256(_) => "PS256",
            Self::Rs256(_) => "RS256",
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let rsa = |pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign_digest(encoding, &digest(&SHA256, message), &mut signature)?;
            Ok(signature)
        };
        match self {
            Self::EdDsa(pair) => Ok(pair.try_sign(message)?.as_ref().to_vec()),
            Self::Es256(pair) => Ok(pair.sign_digest(&digest(&SHA256, message))?.as_ref().to_vec()),
            Self::Hs256(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Ps256(pair) => rsa(pair, &RSA_PSS_SHA256),
            Self::Rs256(pair) => rsa(pair, &RSA_PKCS1_SHA256),
        }
    }
}

fn unfit(source: impl StdError + Send + Sync + 'static) -> Error {
    let message = "the key does not fit its algorithm, or its parts do not fit each other";
    Error::with_source(ErrorKind::Configuration, message, Some(Arc::new(source)))
}

fn rsa_key_pair(der: &PrivateKeyDer<'_>) -> Result<RsaKeyPair, KeyRejected> {
    match der {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        der => RsaKeyPair::from_pkcs8(der.secret_der()),
    }
}

#[cfg(test)]
mod tests;
