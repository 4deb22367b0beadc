//! Private keys as JSON (RFC 7517, RFC 7518 §6, RFC 8037 §2).

use std::collections::BTreeMap;

use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::zeroize::Zeroizing;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::proto::jws::{KeyPair, unfit};

/// The members of a JWK. Its secrets stay where they are until they are asked for.
pub(super) struct Jwk<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Jwk<'a> {
    pub(super) fn read(json: &'a [u8]) -> Result<Self, Error> {
        // The parser's errors quote what they meet.
        let members = serde_json::from_slice(json)
            .map_err(|_| Error::configuration("the JWK is not a JSON object"))?;
        Ok(Self(members))
    }

    /// A member that is a text, if it is there.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(raw) = self.0.get(name) else {
            return Ok(None);
        };
        let text = serde_json::from_str(raw.get());
        text.map_err(|_| Error::configuration(format!("the JWK's `{name}` is not a text")))
    }

    pub(super) fn key_pair(&self) -> Result<KeyPair, Error> {
        self.check_purpose()?;
        let (kty, crv, alg) = (self.text("kty")?, self.text("crv")?, self.text("alg")?);
        match (kty.as_deref(), crv.as_deref(), alg.as_deref()) {
            (Some("EC"), Some("P-256"), None | Some("ES256")) => self.ec().map(KeyPair::Es256),
            (Some("OKP"), Some("Ed25519"), None | Some("EdDSA")) => self.okp().map(KeyPair::EdDsa),
            (Some("RSA"), _, Some("PS256")) => self.rsa().map(KeyPair::Ps256),
            (Some("RSA"), _, None | Some("RS256")) => self.rsa().map(KeyPair::Rs256),
            _ => Err(Error::configuration(
                "the JWK is none of these: EC with P-256 for ES256, OKP with Ed25519 for EdDSA, \
                 RSA for RS256 or PS256",
            )),
        }
    }

    /// RFC 7517 §4.2, §4.3.
    fn check_purpose(&self) -> Result<(), Error> {
        let is_for_signing = self.text("use")?.is_none_or(|purpose| purpose == "sig");
        let may_sign = self.0.get("key_ops").is_none_or(|raw| {
            let operations: Vec<String> = serde_json::from_str(raw.get()).unwrap_or_default();
            operations.iter().any(|operation| operation == "sign")
        });
        if is_for_signing && may_sign {
            return Ok(());
        }
        Err(Error::configuration("the JWK's `use` or `key_ops` says that it is not for signing"))
    }

    /// RFC 7518 §6.2; the point as SEC 1 §2.3.3 writes it.
    fn ec(&self) -> Result<EcdsaKeyPair, Error> {
        let point = [&[4], &self.octets("x")?[..], &self.octets("y")?[..]].concat();
        let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let private_key = self.octets("d")?;
        EcdsaKeyPair::from_private_key_and_public_key(curve, &private_key, &point).map_err(unfit)
    }

    /// RFC 8037 §2.
    fn okp(&self) -> Result<Ed25519KeyPair, Error> {
        let (seed, public_key) = (self.octets("d")?, self.octets("x")?);
        Ed25519KeyPair::from_seed_and_public_key(&seed, &public_key).map_err(unfit)
    }

    /// RFC 7518 §6.3.
    fn rsa(&self) -> Result<RsaKeyPair, Error> {
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n: self.octets("n")?, e: self.octets("e")? },
            d: self.octets("d")?,
            p: self.octets("p")?,
            q: self.octets("q")?,
            dP: self.octets("dp")?,
            dQ: self.octets("dq")?,
            qInv: self.octets("qi")?,
        };
        RsaKeyPair::from_components(&components).map_err(unfit)
    }

    /// A member that is Base64url (RFC 7515 §2).
    fn octets(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let raw = self.0.get(name).map_or("", |raw| raw.get());
        let text = raw.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let octets = URL_SAFE_NO_PAD.decode(text.unwrap_or_default()).unwrap_or_default();
        if octets.is_empty() {
            let message = format!("the private JWK's `{name}` is missing or malformed");
            return Err(Error::configuration(message));
        }
        Ok(Zeroizing::new(octets))
    }
}
