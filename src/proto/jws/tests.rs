use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, KeyPair as _,
};
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::json;

use super::*;

/// The RSA key of RFC 7515 §A.2.
const RFC_RSA: &str = r#"{"kty":"RSA",
    "n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "e":"AQAB",
    "d":"Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ",
    "p":"4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
    "q":"uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
    "dp":"BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
    "dq":"h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
    "qi":"IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U"}"#;
/// The EC key of RFC 7515 §A.3.
const RFC_EC: &str = r#"{"kty":"EC", "crv":"P-256",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;
/// The Ed25519 key of RFC 8037 §A.1.
const RFC_ED: &str = r#"{"kty":"OKP","crv":"Ed25519",
    "d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// `jwk` with other members; `null` takes one away.
fn with(jwk: &str, others: Value) -> String {
    let mut members: Map<String, Value> = serde_json::from_str(jwk).unwrap();
    for (name, value) in others.as_object().unwrap().clone() {
        match value {
            Value::Null => members.remove(&name),
            value => members.insert(name, value),
        };
    }
    Value::from(members).to_string()
}

fn public(jwk: &str) -> DecodingKey {
    DecodingKey::from_jwk(&serde_json::from_str(jwk).unwrap()).unwrap()
}

fn signature(key: &SigningKey, message: &str) -> String {
    URL_SAFE_NO_PAD.encode(key.pair.sign(message.as_bytes()).unwrap())
}

/// Whether somebody else's code takes what `key` signs.
fn is_verified(key: &SigningKey, algorithm: Algorithm, public: &DecodingKey) -> bool {
    let claims = json!({"sub": "app"});
    let token = key.sign(Map::new(), &claims).unwrap();
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    let read = jsonwebtoken::decode::<Value>(&token, public, &validation);
    read.is_ok_and(|read| read.claims == claims)
}

/// The examples of the RFCs: where a signature has no chance in it, these bytes and no others.
#[test]
fn k_31_the_rfcs_examples_are_signed_as_the_rfcs_do() {
    let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let secret = [
        3, 35, 53, 75, 43, 15, 165, 188, 131, 126, 6, 101, 119, 123, 166, 143, 90, 179, 40, 230,
        240, 84, 201, 40, 169, 15, 132, 178, 210, 80, 46, 191, 211, 251, 90, 146, 210, 6, 71, 239,
        150, 138, 180, 195, 119, 98, 61, 34, 61, 46, 33, 114, 5, 46, 79, 8, 192, 205, 154, 245,
        103, 208, 128, 163,
    ];
    let hmac = KeyPair::Hs256(Box::new(hmac::Key::new(HMAC_SHA256, &secret)));
    let hmac = SigningKey { pair: Arc::new(hmac), id: None };
    for (case, key, message, expected) in [
        (
            "RFC 7515 §A.1, HS256",
            hmac,
            format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{claims}"),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            "RFC 7515 §A.2, RS256",
            SigningKey::from_jwk(RFC_RSA).unwrap(),
            format!("eyJhbGciOiJSUzI1NiJ9.{claims}"),
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            "RFC 8037 §A.4, EdDSA",
            SigningKey::from_jwk(RFC_ED).unwrap(),
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".into(),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        assert_eq!(signature(&key, &message), expected, "{case}");
    }
}

#[test]
fn k_31_every_key_signs_by_its_algorithm_from_a_pem_and_from_a_jwk() {
    let rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa_der: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    let rsa_public = DecodingKey::from_rsa_der(rsa.public_key().as_ref());
    let rsa_pem = pem("PRIVATE KEY", rsa_der.as_ref());
    // PKCS#8 has 26 octets before the PKCS#1 of a key of this size.
    let pkcs1 = pem("RSA PRIVATE KEY", &rsa_der.as_ref()[26..]);
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let sec1: EcPrivateKeyRfc5915Der<'_> = ec.private_key().as_der().unwrap();
    // Before the key: what `openssl ecparam -genkey` writes there.
    let sec1 = pem("EC PARAMETERS", &[6, 0]) + &pem("EC PRIVATE KEY", sec1.as_ref());
    let ec_public = DecodingKey::from_ec_der(ec.public_key().as_ref());
    let ed = Ed25519KeyPair::generate().unwrap();
    let ed_public = DecodingKey::from_ed_der(ed.public_key().as_ref());

    use SigningAlgorithm::{EdDsa, Es256, Ps256, Rs256};
    let from_pem = |algorithm, pem: &str| SigningKey::from_pem(algorithm, pem).unwrap();
    let from_jwk = |jwk: &str| SigningKey::from_jwk(jwk).unwrap();
    for (case, key, algorithm, public) in [
        ("RS256, PKCS#8", from_pem(Rs256, &rsa_pem), Algorithm::RS256, &rsa_public),
        ("RS256, PKCS#1", from_pem(Rs256, &pkcs1), Algorithm::RS256, &rsa_public),
        ("PS256, PKCS#8", from_pem(Ps256, &rsa_pem), Algorithm::PS256, &rsa_public),
        ("PS256, PKCS#1", from_pem(Ps256, &pkcs1), Algorithm::PS256, &rsa_public),
        (
            "ES256, PKCS#8",
            from_pem(Es256, &pem("PRIVATE KEY", ec.to_pkcs8v1().unwrap().as_ref())),
            Algorithm::ES256,
            &ec_public,
        ),
        ("ES256, SEC 1", from_pem(Es256, &sec1), Algorithm::ES256, &ec_public),
        (
            "EdDSA, PKCS#8 of version 1",
            from_pem(EdDsa, &pem("PRIVATE KEY", ed.to_pkcs8v1().unwrap().as_ref())),
            Algorithm::EdDSA,
            &ed_public,
        ),
        (
            "EdDSA, PKCS#8 of version 2",
            from_pem(EdDsa, &pem("PRIVATE KEY", ed.to_pkcs8().unwrap().as_ref())),
            Algorithm::EdDSA,
            &ed_public,
        ),
        ("RS256, JWK", from_jwk(RFC_RSA), Algorithm::RS256, &public(RFC_RSA)),
        (
            "PS256, JWK",
            from_jwk(&with(RFC_RSA, json!({"alg": "PS256"}))),
            Algorithm::PS256,
            &public(RFC_RSA),
        ),
        ("ES256, JWK", from_jwk(RFC_EC), Algorithm::ES256, &public(RFC_EC)),
        ("EdDSA, JWK", from_jwk(RFC_ED), Algorithm::EdDSA, &public(RFC_ED)),
        ("HS256", SigningKey::from_secret("s"), Algorithm::HS256, &DecodingKey::from_secret(b"s")),
    ] {
        assert!(is_verified(&key, algorithm, public), "{case}");
        let other = DecodingKey::from_secret(b"another");
        assert!(!is_verified(&key, algorithm, &other), "{case}: with another key");
    }
}

#[test]
fn a_jwk_brings_its_id_and_its_algorithm() {
    let header = |key: SigningKey| {
        let token = key.sign(Map::new(), &json!({})).unwrap();
        let header = jsonwebtoken::decode_header(token).unwrap();
        (format!("{:?}", header.alg), key.id().map(str::to_owned))
    };
    for (case, jwk, algorithm, id) in [
        ("neither", RFC_RSA.to_owned(), "RS256", None),
        (
            "both",
            with(RFC_RSA, json!({"alg": "PS256", "kid": "a\u{e9}\"", "use": "sig"})),
            "PS256",
            Some("a\u{e9}\""),
        ),
        (
            "operations",
            with(RFC_EC, json!({"alg": "ES256", "key_ops": ["verify", "sign"]})),
            "ES256",
            None,
        ),
        ("EdDSA by name", with(RFC_ED, json!({"alg": "EdDSA"})), "EdDSA", None),
    ] {
        let key = SigningKey::from_jwk(jwk).unwrap();
        assert_eq!(header(key), (algorithm.into(), id.map(Into::into)), "{case}");
    }
    let key = SigningKey::from_jwk(with(RFC_EC, json!({"kid": "a"}))).unwrap().with_key_id("b");
    assert_eq!(key.id(), Some("b"));
}

/// Each is told when the key is made; never at a refresh, and never by a panic.
#[test]
fn k_34_a_key_that_cannot_sign_is_a_configuration_error() {
    use SigningAlgorithm::{EdDsa, Es256, Ps256, Rs256};
    let rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa_der: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    let rsa_public: PublicKeyX509Der<'_> = rsa.public_key().as_der().unwrap();
    let rsa_pem = pem("PRIVATE KEY", rsa_der.as_ref());
    let half = pem("PRIVATE KEY", &rsa_der.as_ref()[..600]);
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let ec_pem = pem("PRIVATE KEY", ec.to_pkcs8v1().unwrap().as_ref());
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let p384 = pem("PRIVATE KEY", p384.to_pkcs8v1().unwrap().as_ref());
    let ed_pem =
        pem("PRIVATE KEY", Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap().as_ref());
    let locked = pem("ENCRYPTED PRIVATE KEY", rsa_der.as_ref());
    let open_ended = rsa_pem.replace("-----END", "");
    let from_pem = |algorithm, pem: &str| SigningKey::from_pem(algorithm, pem);
    let from_jwk = |jwk: &str, others| SigningKey::from_jwk(with(jwk, others));
    for (case, key, word) in [
        ("PEM: nothing", from_pem(Rs256, ""), "no private key"),
        ("PEM: a text", from_pem(Rs256, "client.pem"), "no private key"),
        (
            "PEM: a public key",
            from_pem(Rs256, &pem("PUBLIC KEY", rsa_public.as_ref())),
            "no private key",
        ),
        ("PEM: encrypted", from_pem(Rs256, &locked), "no private key"),
        ("PEM: no end", from_pem(Rs256, &open_ended), "no private key"),
        ("PEM: cut", from_pem(Rs256, &half), "does not fit"),
        ("PEM: EC for RS256", from_pem(Rs256, &ec_pem), "does not fit"),
        ("PEM: EC for PS256", from_pem(Ps256, &ec_pem), "does not fit"),
        ("PEM: EC for EdDSA", from_pem(EdDsa, &ec_pem), "does not fit"),
        ("PEM: RSA for ES256", from_pem(Es256, &rsa_pem), "does not fit"),
        ("PEM: Ed25519 for ES256", from_pem(Es256, &ed_pem), "does not fit"),
        ("PEM: P-384 for ES256", from_pem(Es256, &p384), "does not fit"),
        ("JWK: nothing", SigningKey::from_jwk(""), "not a JSON object"),
        ("JWK: a text", SigningKey::from_jwk("\"key\""), "not a JSON object"),
        ("JWK: bytes", SigningKey::from_jwk([0xff]), "not a JSON object"),
        ("JWK: half", SigningKey::from_jwk(&RFC_EC[..80]), "not a JSON object"),
        ("JWK: a set", SigningKey::from_jwk(format!("{{\"keys\":[{RFC_EC}]}}")), "none of these"),
        ("JWK: a secret", SigningKey::from_jwk(r#"{"kty":"oct","k":"AAAA"}"#), "none of these"),
        ("JWK: another curve", from_jwk(RFC_EC, json!({"crv": "P-384"})), "none of these"),
        ("JWK: X25519", from_jwk(RFC_ED, json!({"crv": "X25519"})), "none of these"),
        ("JWK: another algorithm", from_jwk(RFC_RSA, json!({"alg": "RS512"})), "none of these"),
        ("JWK: EC for RS256", from_jwk(RFC_EC, json!({"alg": "RS256"})), "none of these"),
        ("JWK: RSA for ES256", from_jwk(RFC_RSA, json!({"alg": "ES256"})), "none of these"),
        ("JWK: a number as alg", from_jwk(RFC_EC, json!({"alg": 1})), "`alg` is not a text"),
        ("JWK: a number as kid", from_jwk(RFC_EC, json!({"kid": 1})), "`kid` is not a text"),
        ("JWK: for encryption", from_jwk(RFC_RSA, json!({"use": "enc"})), "not for signing"),
        (
            "JWK: for other operations",
            from_jwk(RFC_RSA, json!({"key_ops": ["decrypt"]})),
            "not for signing",
        ),
        ("JWK: public RSA", from_jwk(RFC_RSA, json!({"d": null})), "`d` is missing"),
        ("JWK: public EC", from_jwk(RFC_EC, json!({"d": null})), "`d` is missing"),
        ("JWK: public Ed25519", from_jwk(RFC_ED, json!({"d": null})), "`d` is missing"),
        ("JWK: a number as d", from_jwk(RFC_EC, json!({"d": 1234})), "`d` is missing"),
        ("JWK: no Base64url", from_jwk(RFC_EC, json!({"y": "x+/="})), "`y` is missing"),
        ("JWK: RSA without factors", from_jwk(RFC_RSA, json!({"p": null})), "`p` is missing"),
        ("JWK: RSA without qi", from_jwk(RFC_RSA, json!({"qi": null})), "`qi` is missing"),
        ("JWK: an even exponent", from_jwk(RFC_RSA, json!({"e": "AQAA"})), "does not fit"),
        ("JWK: a small RSA key", from_jwk(RFC_RSA, json!({"n": "AQAB"})), "does not fit"),
        ("JWK: another d", from_jwk(RFC_RSA, json!({"d": "AQAB"})), "does not fit"),
        ("JWK: a short d", from_jwk(RFC_EC, json!({"d": "AQAB"})), "does not fit"),
        ("JWK: d is 0", from_jwk(RFC_EC, json!({"d": "A".repeat(43)})), "does not fit"),
        ("JWK: a point elsewhere", from_jwk(RFC_EC, json!({"x": "AQAB"})), "does not fit"),
        ("JWK: a short seed", from_jwk(RFC_ED, json!({"d": "AQAB"})), "does not fit"),
        ("JWK: a long seed", from_jwk(RFC_ED, json!({"d": "A".repeat(64)})), "does not fit"),
        (
            "JWK: another's public key",
            from_jwk(RFC_ED, json!({"x": "A".repeat(43)})),
            "does not fit",
        ),
    ] {
        let error = key.expect_err(case);
        assert!(matches!(error.kind(), ErrorKind::Configuration), "{case}: {error}");
        assert!(error.to_string().contains(word), "{case}: {error}");
    }
}

/// K-63: what a key prints, and what an error prints about one that is none.
#[test]
fn k_63_no_key_is_printed() {
    let key = SigningKey::from_jwk(with(RFC_EC, json!({"kid": "a"}))).unwrap();
    assert_eq!(format!("{key:?}"), "SigningKey { algorithm: \"ES256\", id: Some(\"a\"), .. }");
    for (case, error) in [
        ("JWK: a text", SigningKey::from_jwk("\"CANARY\"")),
        ("JWK: d", SigningKey::from_jwk(with(RFC_EC, json!({"d": "CANARY!"})))),
        ("JWK: kty", SigningKey::from_jwk(with(RFC_EC, json!({"kty": "CANARY"})))),
        ("JWK: kid", SigningKey::from_jwk(with(RFC_EC, json!({"kid": ["CANARY"]})))),
        ("PEM: a broken line", SigningKey::from_pem(SigningAlgorithm::Rs256, "-----BEGIN CANARY")),
        (
            "PEM: no end",
            SigningKey::from_pem(SigningAlgorithm::Rs256, "-----BEGIN CANARY-----\nCANARY"),
        ),
    ] {
        let error = error.expect_err(case);
        assert!(!format!("{error} {error:?} {error:#?}").contains("CANARY"), "{case}: {error:?}");
        assert!(!format!("{error:?}").contains("67, 65, 78, 65"), "{case}: {error:?}");
    }
}
