//! Certificates and keys that were made elsewhere, taken over.

use rcgen::PKCS_RSA_SHA256;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;

use super::chain::{Chain, parse};
use super::check::read_leaf;
use super::{Leaf, PkiError, Unusable, fits, key_pair, make_csr, public_key};
use crate::domain::certificate::KeyKind;
use crate::secret::Secret;

/// A certificate that exists, with its key.
#[derive(Debug)]
pub struct Adopted {
    /// PEM, leaf first, nothing but certificates.
    pub chain: String,
    /// PKCS #8 DER.
    pub key: Secret<Vec<u8>>,
    /// DNS names and IP addresses in canonical form, in the leaf's own order.
    pub names: Vec<String>,
    pub leaf: Leaf,
    /// A CSR (DER) that would have led to it.
    pub csr: Vec<u8>,
}

/// Takes over a certificate (PEM chain) with its key (PEM): by the same checks as a CA's.
pub fn adopt(chain: &str, key: &str, now: OffsetDateTime) -> Result<Adopted, PkiError> {
    let key = import_key(key)?;
    let chain = Chain::read(chain, &public_key(&key)?)?;
    let (leaf, names) = read_leaf(&chain, now)?;
    // Refuse names that no CSR can ask for: the next renewal would lose them.
    if names.is_empty() || names.len() != count_names(&chain) {
        return Err(Unusable::ForeignNames.into());
    }
    let csr = make_csr(&key, &names, None)?;
    Ok(Adopted { chain: chain.pem(), key, names, leaf, csr })
}

/// The number of alternative names of any kind.
fn count_names(chain: &Chain) -> usize {
    let leaf = chain.ders.first().and_then(|der| parse(der));
    let names = leaf.as_ref().and_then(|leaf| leaf.subject_alternative_name().ok().flatten());
    names.map_or(0, |names| names.value.general_names.len())
}

/// A private key in PEM (PKCS #8, PKCS #1 or SEC 1) as PKCS #8 DER.
pub fn import_key(text: &str) -> Result<Secret<Vec<u8>>, PkiError> {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    let wrong = || PkiError::NoKey;
    let parsed = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| wrong())?;
    let der: Secret<Vec<u8>> = match &parsed {
        PrivateKeyDer::Pkcs8(der) => Secret::new(der.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Pkcs1(der) => {
            let pair = aws_lc_rs::rsa::KeyPair::from_der(der.secret_pkcs1_der());
            let pair = pair.map_err(|_| wrong())?;
            let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| wrong())?;
            Secret::new(der.as_ref().to_vec())
        }
        PrivateKeyDer::Sec1(der) => {
            use aws_lc_rs::signature::{
                ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
                ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
            };
            let curves = [
                &ECDSA_P256_SHA256_ASN1_SIGNING,
                &ECDSA_P384_SHA384_ASN1_SIGNING,
                &ECDSA_P521_SHA512_ASN1_SIGNING,
            ];
            let pair = curves.into_iter().find_map(|curve| {
                EcdsaKeyPair::from_private_key_der(curve, der.secret_sec1_der()).ok()
            });
            let der = pair.ok_or_else(wrong)?.to_pkcs8v1().map_err(|_| wrong())?;
            Secret::new(der.as_ref().to_vec())
        }
        _ => return Err(wrong()),
    };
    // It has to be one that can sign.
    key_pair(&der).map_err(|_| wrong())?;
    Ok(der)
}

/// Reads an account key that was made elsewhere; as PKCS #8 DER, or why it cannot be used.
pub fn import_account_key(pem: &str) -> Result<Secret<Vec<u8>>, &'static str> {
    let unreadable = "is not a private key in PEM: PKCS #8 or SEC 1, without a password";
    let key = import_key(pem).map_err(|_| unreadable)?;
    if is_account_key(&key) {
        return Ok(key);
    }
    let is_rsa = key_pair(&key).is_ok_and(|pair| pair.is_compatible(&PKCS_RSA_SHA256));
    Err(if is_rsa {
        "is an RSA key; account keys have to be ECDSA on P-256. Leave `privateKeySecretRef` out to have a new account made"
    } else {
        "is not an ECDSA key on P-256, the one kind of account key that is supported"
    })
}

/// Whether an ACME account may have this key here: ECDSA on P-256.
pub fn is_account_key(key: &Secret<Vec<u8>>) -> bool {
    fits(key, KeyKind::P256)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};

    use super::*;
    use crate::pki::{generate_key, to_pem};

    #[test]
    fn keys_are_read_however_they_are_wrapped() {
        let (ecdsa, rsa) =
            (generate_key(KeyKind::P256).unwrap(), generate_key(KeyKind::Rsa2048).unwrap());
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, ecdsa.expose()).unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        // PKCS #8 adds 26 bytes to an RSA key of this size.
        let pkcs1 = &rsa.expose()[26..];

        for (label, der, kind) in [
            ("PRIVATE KEY", ecdsa.expose().as_slice(), KeyKind::P256),
            ("EC PRIVATE KEY", sec1.as_ref(), KeyKind::P256),
            ("PRIVATE KEY", rsa.expose().as_slice(), KeyKind::Rsa2048),
            ("RSA PRIVATE KEY", pkcs1, KeyKind::Rsa2048),
        ] {
            let key = import_key(&to_pem(label, der)).unwrap();
            assert!(fits(&key, kind), "{label}");
            assert_eq!(is_account_key(&key), kind == KeyKind::P256);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        for text in
            ["hunter2", "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n"]
        {
            let refused = import_key(text).unwrap_err().to_string();
            assert!(refused.contains("private key") && !refused.contains("hunter2"), "{refused}");
        }
    }
}
