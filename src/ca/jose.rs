//! Signed requests that instant-acme does not make, or whose answers it reads more strictly than CAs
//! write them: accounts with their contact or bound to others, keys that follow others, revocation by a
//! certificate's own key, orders, challenges that are ready, CSRs.
//!
//! They go the same way as all others: [`super::http`] sends them, [`mod@super::ask`] judges the answer.

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
use http::{Method, Request, header};
use instant_acme::{BodyWrapper, Error, HttpClient as _};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::http::CaClient;
use super::recorder;
use crate::secret::Secret;

/// A key that signs requests.
pub(super) enum Signer {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
}

/// Nonces that are tried in one call.
const NONCES: usize = 3;
const UNSIGNED: Error = Error::Str("the request could not be signed");

impl Signer {
    /// A key in PKCS #8 DER, of a kind that ACME servers know.
    pub(super) fn from_pkcs8(key: &Secret<Vec<u8>>) -> Result<Self, Error> {
        let der = key.expose().as_slice();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map(Self::P256)
            .or_else(|_| {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der).map(Self::P384)
            })
            .or_else(|_| rsa::KeyPair::from_pkcs8(der).map(Self::Rsa))
            .map_err(|_| Error::KeyRejected)
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Rsa(_) => "RS256",
        }
    }

    /// The public key (RFC 7517).
    fn jwk(&self) -> Result<Value, Error> {
        let encode = |bytes: &[u8]| BASE64URL.encode(bytes);
        let point = |curve: &str, pair: &EcdsaKeyPair| {
            let uncompressed = pair.public_key().as_ref();
            let (x, y) = uncompressed.get(1..).unwrap_or_default().split_at(uncompressed.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
        };
        Ok(match self {
            Self::P256(pair) => point("P-256", pair),
            Self::P384(pair) => point("P-384", pair),
            Self::Rsa(pair) => {
                let der: PublicKeyX509Der<'_> =
                    pair.public_key().as_der().map_err(|_| Error::KeyRejected)?;
                let (_, info) =
                    SubjectPublicKeyInfo::from_der(der.as_ref()).map_err(|_| Error::KeyRejected)?;
                let Ok(PublicKey::RSA(key)) = info.parsed() else { return Err(Error::KeyRejected) };
                let trimmed = |bytes: &[u8]| {
                    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
                    encode(bytes.get(start..).unwrap_or_default())
                };
                json!({"kty": "RSA", "n": trimmed(key.modulus), "e": trimmed(key.exponent)})
            }
        })
    }

    fn sign(&self, text: &str) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        match self {
            Self::P256(pair) | Self::P384(pair) => pair
                .sign(&random, text.as_bytes())
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| UNSIGNED),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
                    .map_err(|_| UNSIGNED)?;
                Ok(signature)
            }
        }
    }

    /// A flattened JWS (RFC 7515, section 7.2.2).
    fn jws(&self, header: &Value, payload: &str) -> Result<Value, Error> {
        let (protected, payload) = parts(header, payload);
        let signature = self.sign(&format!("{protected}.{payload}"))?;
        Ok(jws(&protected, &payload, &signature))
    }

    /// Signs and sends. With `account` the CA looks the key up, else it comes along. A nonce that the
    /// CA does not take is followed by another.
    pub(super) async fn post(
        &self,
        client: &CaClient,
        new_nonce: &str,
        account: Option<&str>,
        url: &str,
        payload: &Value,
    ) -> Result<(), Error> {
        let mut header = json!({"alg": self.algorithm(), "url": url});
        match account {
            Some(account) => header["kid"] = json!(account),
            None => header["jwk"] = self.jwk()?,
        }
        let payload = payload.to_string();
        for _ in 1..NONCES {
            header["nonce"] = json!(nonce(client, new_nonce).await?);
            let sent = self.send(client, &header, url, &payload).await;
            // A refusal is an answer like any other: only the tape knows what it was for.
            if !recorder::wants_other_nonce() {
                return sent;
            }
        }
        header["nonce"] = json!(nonce(client, new_nonce).await?);
        self.send(client, &header, url, &payload).await
    }

    async fn send(
        &self,
        client: &CaClient,
        header: &Value,
        url: &str,
        payload: &str,
    ) -> Result<(), Error> {
        let body = self.jws(header, payload)?.to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::CONTENT_TYPE, "application/jose+json")
            .body(BodyWrapper::from(body.into_bytes()))?;
        client.request(request).await.map(drop)
    }

    /// What binds an account to one that the CA has given out by other means, as part of
    /// `newAccount`'s payload.
    pub(super) fn binding(
        &self,
        url: &str,
        key_id: &str,
        mac_key: &Secret<Vec<u8>>,
    ) -> Result<Value, Error> {
        let header = json!({"alg": "HS256", "kid": key_id, "url": url});
        let (protected, payload) = parts(&header, &self.jwk()?.to_string());
        let key = hmac::Key::new(hmac::HMAC_SHA256, mac_key.expose());
        let tag = hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
        Ok(jws(&protected, &payload, tag.as_ref()))
    }

    /// `keyChange`'s payload: this key is to follow `former` (RFC 8555, section 7.3.5).
    pub(super) fn follows(&self, former: &Self, account: &str, url: &str) -> Result<Value, Error> {
        let header = json!({"alg": self.algorithm(), "jwk": self.jwk()?, "url": url});
        let payload = json!({"account": account, "oldKey": former.jwk()?});
        self.jws(&header, &payload.to_string())
    }
}

/// `revokeCert`'s payload (RFC 8555, section 7.6).
pub(super) fn revocation(leaf: &[u8], reason: u8) -> Value {
    json!({"certificate": BASE64URL.encode(leaf), "reason": reason})
}

fn parts(header: &Value, payload: &str) -> (String, String) {
    (BASE64URL.encode(header.to_string()), BASE64URL.encode(payload))
}

fn jws(protected: &str, payload: &str, signature: &[u8]) -> Value {
    json!({"protected": protected, "payload": payload, "signature": BASE64URL.encode(signature)})
}

/// From the pool, or from the CA.
async fn nonce(client: &CaClient, new_nonce: &str) -> Result<String, Error> {
    let request = Request::builder()
        .method(Method::HEAD)
        .uri(new_nonce)
        .body(BodyWrapper::from(Vec::new()))?;
    let response = client.request(request).await?;
    let nonce = response.parts.headers.get("replay-nonce").and_then(|nonce| nonce.to_str().ok());
    nonce.map(str::to_owned).ok_or(Error::Str("the CA gave no nonce"))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{self, UnparsedPublicKey};

    use super::*;

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
