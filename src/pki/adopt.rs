//! Certificates and keys that were made elsewhere, taken over.

use rcgen::PKCS_RSA_SHA256;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Leaf, PkiError, all_names, check_chain, fits, key_pair, make_csr};
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
    /// What the leaf says about itself.
    pub leaf: Leaf,
    /// A CSR (DER) that would have led to it.
    pub csr: Vec<u8>,
}

/// Takes over a certificate (PEM chain, leaf first) with its key (PEM), after checking that they
/// belong together, that each certificate of the chain signed the one before it, and that it is not
/// over.
pub fn adopt(chain: &str, key: &str, now: OffsetDateTime) -> Result<Adopted, PkiError> {
    let unreadable = |problem: &dyn std::fmt::Display| PkiError::Unreadable(problem.to_string());
    let key = import_key(key)?;
    let ders = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(&error))?;
    let certificates = ders
        .iter()
        .map(|der| X509Certificate::from_der(der).map(|(_, certificate)| certificate))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(&error))?;
    for pair in certificates.windows(2) {
        if let [below, above] = pair
            && below.verify_signature(Some(above.public_key())).is_err()
        {
            return Err(PkiError::Unreadable(format!(
                "`{}` did not sign `{}`, which stands before it",
                above.subject(),
                below.subject()
            )));
        }
    }
    let leaf = certificates.first().ok_or_else(|| unreadable(&"it holds no certificate"))?;
    let names = leaf.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let general = names.map(|names| names.value.general_names.clone()).unwrap_or_default();
    let names = all_names(&general);
    if names.is_empty() || names.len() != general.len() {
        let problem = "it is for other things than DNS names and IP addresses";
        return Err(PkiError::Unasked(problem.to_owned()));
    }
    let csr = make_csr(&key, &names, None)?;
    let leaf = check_chain(chain, &csr, now)?;
    let chain = ders.iter().map(|der| pem("CERTIFICATE", der)).collect();
    Ok(Adopted { chain, key, names, leaf, csr })
}

/// A private key in PEM (PKCS #8, PKCS #1 or SEC 1) as PKCS #8 DER.
pub fn import_key(text: &str) -> Result<Secret<Vec<u8>>, PkiError> {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    let wrong = || {
        PkiError::Unreadable(
            "the private key is no PEM of an unencrypted ECDSA or RSA key".to_owned(),
        )
    };
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

/// DER as PEM (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for (place, c) in body.chars().enumerate() {
        if place > 0 && place % 64 == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text.extend([format!("\n-----END {label}-----\n")]);
    text
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};

    use super::*;
    use crate::pki::generate_key;

    #[test]
    fn keys_are_read_however_they_are_wrapped() {
        let (ecdsa, rsa) =
            (generate_key(KeyKind::P256).unwrap(), generate_key(KeyKind::Rsa2048).unwrap());
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, ecdsa.expose()).unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        // What PKCS #8 wraps around an RSA key of this size is 26 bytes.
        let pkcs1 = &rsa.expose()[26..];

        for (label, der, kind) in [
            ("PRIVATE KEY", ecdsa.expose().as_slice(), KeyKind::P256),
            ("EC PRIVATE KEY", sec1.as_ref(), KeyKind::P256),
            ("PRIVATE KEY", rsa.expose().as_slice(), KeyKind::Rsa2048),
            ("RSA PRIVATE KEY", pkcs1, KeyKind::Rsa2048),
        ] {
            let key = import_key(&pem(label, der)).unwrap();
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
