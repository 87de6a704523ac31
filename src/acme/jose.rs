//! JSON Web Signatures (RFC 7515) and keys (RFC 7517), as ACME uses them.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::secret::Secret;

/// A key that signs requests.
pub(crate) enum Signer {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
}

/// A key or a signature that cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JoseError {
    #[error("invalid key bytes")]
    Key,
    #[error("the request could not be signed")]
    Signature,
}

impl Signer {
    /// A key in PKCS #8 DER, of a kind that ACME servers know.
    pub(crate) fn from_pkcs8(key: &Secret<Vec<u8>>) -> Result<Self, JoseError> {
        let der = key.expose().as_slice();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map(Self::P256)
            .or_else(|_| {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der).map(Self::P384)
            })
            .or_else(|_| rsa::KeyPair::from_pkcs8(der).map(Self::Rsa))
            .map_err(|_| JoseError::Key)
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Rsa(_) => "RS256",
        }
    }

    /// The thumbprint of the public key (RFC 7638, section 3), as challenges need it.
    pub(crate) fn thumbprint(&self) -> Result<String, JoseError> {
        Ok(thumbprint(&self.jwk()?))
    }

    /// The public key (RFC 7517), with the members that are required and no others, in the order of
    /// their names: its thumbprint is taken of this text.
    fn jwk(&self) -> Result<Value, JoseError> {
        let encode = |bytes: &[u8]| BASE64URL.encode(bytes);
        let point = |curve: &str, pair: &EcdsaKeyPair| {
            let uncompressed = pair.public_key().as_ref();
            let (x, y) = uncompressed.get(1..).unwrap_or_default().split_at(uncompressed.len() / 2);
            json!({"crv": curve, "kty": "EC", "x": encode(x), "y": encode(y)})
        };
        Ok(match self {
            Self::P256(pair) => point("P-256", pair),
            Self::P384(pair) => point("P-384", pair),
            Self::Rsa(pair) => {
                let der: PublicKeyX509Der<'_> =
                    pair.public_key().as_der().map_err(|_| JoseError::Key)?;
                let (_, info) =
                    SubjectPublicKeyInfo::from_der(der.as_ref()).map_err(|_| JoseError::Key)?;
                let Ok(PublicKey::RSA(key)) = info.parsed() else { return Err(JoseError::Key) };
                let trimmed = |bytes: &[u8]| {
                    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
                    encode(bytes.get(start..).unwrap_or_default())
                };
                json!({"e": trimmed(key.exponent), "kty": "RSA", "n": trimmed(key.modulus)})
            }
        })
    }

    fn sign(&self, text: &str) -> Result<Vec<u8>, JoseError> {
        let random = SystemRandom::new();
        match self {
            Self::P256(pair) | Self::P384(pair) => pair
                .sign(&random, text.as_bytes())
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| JoseError::Signature),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
                    .map_err(|_| JoseError::Signature)?;
                Ok(signature)
            }
        }
    }

    /// A flattened JWS (RFC 7515, section 7.2.2).
    fn jws(&self, header: &Value, payload: &str) -> Result<Value, JoseError> {
        let (protected, payload) = parts(header, payload);
        let signature = self.sign(&format!("{protected}.{payload}"))?;
        Ok(jws(&protected, &payload, &signature))
    }

    /// The body of a signed request (RFC 8555, section 6.2). With `account` the CA looks the key up,
    /// else the key comes along. Without a payload it is a POST-as-GET.
    pub(crate) fn request(
        &self,
        account: Option<&str>,
        url: &str,
        nonce: &str,
        payload: Option<&Value>,
    ) -> Result<String, JoseError> {
        let mut header = json!({"alg": self.algorithm(), "nonce": nonce, "url": url});
        match account {
            Some(account) => header["kid"] = json!(account),
            None => header["jwk"] = self.jwk()?,
        }
        let payload = payload.map(Value::to_string).unwrap_or_default();
        Ok(self.jws(&header, &payload)?.to_string())
    }

    /// `newAccount`'s `externalAccountBinding` (RFC 8555, section 7.3.4).
    pub(crate) fn binding(
        &self,
        url: &str,
        key_id: &str,
        mac_key: &Secret<Vec<u8>>,
    ) -> Result<Value, JoseError> {
        let header = json!({"alg": "HS256", "kid": key_id, "url": url});
        let (protected, payload) = parts(&header, &self.jwk()?.to_string());
        let key = hmac::Key::new(hmac::HMAC_SHA256, mac_key.expose());
        let tag = hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
        Ok(jws(&protected, &payload, tag.as_ref()))
    }

    /// `keyChange`'s payload: this key is to follow `former` (RFC 8555, section 7.3.5).
    pub(crate) fn follows(
        &self,
        former: &Self,
        account: &str,
        url: &str,
    ) -> Result<Value, JoseError> {
        let header = json!({"alg": self.algorithm(), "jwk": self.jwk()?, "url": url});
        let payload = json!({"account": account, "oldKey": former.jwk()?});
        self.jws(&header, &payload.to_string())
    }
}

/// `revokeCert`'s payload (RFC 8555, section 7.6).
pub(crate) fn revocation(leaf: &[u8], reason: u8) -> Value {
    json!({"certificate": BASE64URL.encode(leaf), "reason": reason})
}

fn thumbprint(jwk: &Value) -> String {
    BASE64URL.encode(digest::digest(&digest::SHA256, jwk.to_string().as_bytes()))
}

fn parts(header: &Value, payload: &str) -> (String, String) {
    (BASE64URL.encode(header.to_string()), BASE64URL.encode(payload))
}

fn jws(protected: &str, payload: &str, signature: &[u8]) -> Value {
    json!({"protected": protected, "payload": payload, "signature": BASE64URL.encode(signature)})
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{self, UnparsedPublicKey};

    use super::*;

    /// RFC 7638, section 3.1.
    #[test]
    fn a_thumbprint_is_as_the_rfc_says() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let jwk = json!({"e": "AQAB", "kty": "RSA", "n": n});

        assert_eq!(thumbprint(&jwk), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn every_kind_of_key_signs_what_its_own_jwk_verifies() {
        let kinds = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, "ES256"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, "ES384"),
            (&rcgen::PKCS_RSA_SHA256, "RS256"),
        ];
        for (kind, algorithm) in kinds {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let signer = Signer::from_pkcs8(&Secret::new(pair.serialize_der())).unwrap();
            assert_eq!(signer.algorithm(), algorithm);
            let jws = signer.jws(&json!({"alg": algorithm}), "payload").unwrap();
            let part = |name: &str| jws[name].as_str().unwrap().to_owned();
            let message = format!("{}.{}", part("protected"), part("payload"));
            let given = BASE64URL.decode(part("signature")).unwrap();
            let jwk = signer.jwk().unwrap();
            let number = |name: &str| BASE64URL.decode(jwk[name].as_str().unwrap()).unwrap();
            if algorithm == "RS256" {
                let key = signature::RsaPublicKeyComponents { n: number("n"), e: number("e") };
                let wanted = &signature::RSA_PKCS1_2048_8192_SHA256;
                key.verify(wanted, message.as_bytes(), &given).unwrap();
                continue;
            }
            let point = [vec![4], number("x"), number("y")].concat();
            let wanted: &dyn signature::VerificationAlgorithm = match algorithm {
                "ES256" => &signature::ECDSA_P256_SHA256_FIXED,
                _ => &signature::ECDSA_P384_SHA384_FIXED,
            };
            UnparsedPublicKey::new(wanted, point).verify(message.as_bytes(), &given).unwrap();
        }
    }
}
