//! The keys of an issuer: a JWK set (RFC 7517), as far as tokens may be signed with its keys.

use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

/// Keys that are kept of one issuer.
const MOST_KEYS: usize = 100;

/// An algorithm that tokens may be signed with: asymmetric ones only (RFC 8725, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Algorithm(&'static Row);

#[derive(Debug, PartialEq, Eq)]
struct Row {
    word: &'static str,
    library: jsonwebtoken::Algorithm,
    /// `kty` and `crv` of its keys.
    key: (&'static str, Option<&'static str>),
}

const fn row(
    word: &'static str,
    library: jsonwebtoken::Algorithm,
    kty: &'static str,
    crv: Option<&'static str>,
) -> Row {
    Row { word, library, key: (kty, crv) }
}

static ALGORITHMS: [Row; 9] = [
    row("RS256", jsonwebtoken::Algorithm::RS256, "RSA", None),
    row("RS384", jsonwebtoken::Algorithm::RS384, "RSA", None),
    row("RS512", jsonwebtoken::Algorithm::RS512, "RSA", None),
    row("PS256", jsonwebtoken::Algorithm::PS256, "RSA", None),
    row("PS384", jsonwebtoken::Algorithm::PS384, "RSA", None),
    row("PS512", jsonwebtoken::Algorithm::PS512, "RSA", None),
    row("ES256", jsonwebtoken::Algorithm::ES256, "EC", Some("P-256")),
    row("ES384", jsonwebtoken::Algorithm::ES384, "EC", Some("P-384")),
    row("EdDSA", jsonwebtoken::Algorithm::EdDSA, "OKP", Some("Ed25519")),
];

impl Algorithm {
    /// The algorithm that a token's header names.
    pub(super) fn of_token(word: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|row| row.word == word).map(Self)
    }

    pub(super) fn of_library(self) -> jsonwebtoken::Algorithm {
        self.0.library
    }

    pub(super) fn words() -> String {
        ALGORITHMS.each_ref().map(|row| row.word).join(", ")
    }
}

/// The keys that an issuer published.
pub(super) struct KeySet(pub(super) Vec<Key>);

pub(super) struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, where the issuer says so.
    algorithm: Option<String>,
    kty: String,
    crv: Option<String>,
    decoding: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// A public key of any kind.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a document. Keys that are for something else, or of a kind that nobody knows, are left out.
    pub(super) fn parse(document: &[u8]) -> Result<Self, serde_json::Error> {
        let Document { keys } = serde_json::from_slice(document)?;
        let keys = keys.into_iter().filter_map(|key| Key::read(serde_json::from_value(key).ok()?));
        Ok(Self(keys.take(MOST_KEYS).collect()))
    }

    /// The key that a token with this `kid` and algorithm was signed with. A token without a `kid` has to leave no
    /// choice.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut fitting = self
            .0
            .iter()
            .filter(|key| (id.is_none() || key.id.as_deref() == id) && key.is_for(algorithm));
        let found = fitting.next()?;
        let is_sure = id.is_some() || fitting.next().is_none();
        is_sure.then(|| found.decoding.clone())
    }
}

impl Key {
    fn read(jwk: Jwk) -> Option<Self> {
        if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let decoding = match jwk.kty.as_str() {
            "RSA" => DecodingKey::from_rsa_components(&jwk.n?, &jwk.e?),
            "EC" => DecodingKey::from_ec_components(&jwk.x?, &jwk.y?),
            "OKP" => DecodingKey::from_ed_components(&jwk.x?),
            // A symmetric key that is published is no secret.
            _ => return None,
        };
        let Jwk { kty, kid, alg, crv, .. } = jwk;
        Some(Self { id: kid, algorithm: alg, kty, crv, decoding: decoding.ok()? })
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        let Row { word, key: (kty, crv), .. } = algorithm.0;
        self.algorithm.as_deref().is_none_or(|only| only == *word)
            && self.kty == *kty
            && crv.is_none_or(|crv| self.crv.as_deref() == Some(crv))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_verifies_only_what_it_is_for() {
        let set = json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB", "use": "sig", "alg": "RS256"},
            {"kty": "RSA", "kid": "any", "n": "AQAB", "e": "AQAB"},
            {"kty": "RSA", "kid": "enc", "n": "AQAB", "e": "AQAB", "use": "enc"},
            {"kty": "EC", "kid": "ec", "crv": "P-256", "x": "AQAB", "y": "AQAB"},
            {"kty": "oct", "kid": "oct", "k": "AQAB"},
            {"kty": "RSA", "kid": "no-exponent", "n": "AQAB"},
            {"kty": "other", "kid": "other"},
            "no key at all"
        ]});
        let set = KeySet::parse(set.to_string().as_bytes()).unwrap();
        let found = |id: Option<&str>, word: &str| {
            set.find(id, Algorithm::of_token(word).unwrap()).is_some()
        };

        assert_eq!(set.0.len(), 3);
        for (id, word, expected) in [
            (Some("rsa"), "RS256", true),
            (Some("rsa"), "PS256", false),
            (Some("rsa"), "ES256", false),
            (Some("any"), "PS512", true),
            (Some("enc"), "RS256", false),
            (Some("ec"), "ES256", true),
            (Some("ec"), "ES384", false),
            (Some("oct"), "RS256", false),
            (Some("unknown"), "RS256", false),
            (None, "ES256", true),
            (None, "RS256", false),
            (None, "RS384", true),
        ] {
            assert_eq!(found(id, word), expected, "{id:?} {word}");
        }
    }
}
