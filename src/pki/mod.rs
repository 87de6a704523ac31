//! Keys, certificate signing requests, and a look into what a CA issued.
//!
//! The only module that names `rcgen`; it does no I/O.

mod adopt;
mod csr;
mod jks;
mod keystore;
mod look;

pub use adopt::{Adopted, adopt, import_account_key, import_key, is_account_key};
pub use csr::{ClientCsr, read_csr};
pub use jks::jks;
pub use keystore::{KeystoreError, Pkcs12Profile, pkcs12};
pub use look::{Look, look};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::prelude::{
    FromDer as _, GeneralName, ParsedExtension, X509Certificate, X509CertificationRequest,
};

use crate::domain::certificate::KeyKind;
use crate::secret::Secret;

/// Why a key or CSR could not be made, or a chain is not what was asked for.
#[derive(Debug, Error)]
pub enum PkiError {
    /// The cryptographic library refused.
    #[error("the key or CSR could not be made: {0}")]
    Making(#[from] rcgen::Error),
    /// What the CA sent cannot be read.
    #[error("what the CA sent is not a certificate chain: {0}")]
    Unreadable(String),
    /// What the CA sent is for another key, for other names, or over already.
    #[error("the CA issued something else than was asked for: {0}")]
    Unasked(String),
}

/// A new private key (PKCS #8 DER). RSA takes up to seconds: call it off the async threads.
pub fn generate_key(kind: KeyKind) -> Result<Secret<Vec<u8>>, PkiError> {
    let pair = match kind {
        KeyKind::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        KeyKind::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?,
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        KeyKind::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072)?,
        KeyKind::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096)?,
    };
    Ok(Secret::new(pair.serialize_der()))
}

/// A CSR (DER) for these names, signed by this key.
pub fn make_csr(
    key: &Secret<Vec<u8>>,
    names: &[String],
    common_name: Option<&str>,
) -> Result<Vec<u8>, PkiError> {
    let pair = key_pair(key)?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    Ok(params.serialize_request(&pair)?.der().to_vec())
}

/// Whether a stored key is of this kind, so that it can be used again.
pub fn fits(key: &Secret<Vec<u8>>, kind: KeyKind) -> bool {
    let Ok(pair) = key_pair(key) else { return false };
    let bits = pair.public_key_raw().len() * 8;
    match kind {
        KeyKind::P256 => pair.is_compatible(&PKCS_ECDSA_P256_SHA256),
        KeyKind::P384 => pair.is_compatible(&PKCS_ECDSA_P384_SHA384),
        // An RSA public key is its modulus with a few bytes around it.
        KeyKind::Rsa2048 => pair.is_compatible(&PKCS_RSA_SHA256) && (2048..2560).contains(&bits),
        KeyKind::Rsa3072 => pair.is_compatible(&PKCS_RSA_SHA256) && (3072..3584).contains(&bits),
        KeyKind::Rsa4096 => pair.is_compatible(&PKCS_RSA_SHA256) && (4096..4608).contains(&bits),
    }
}

fn key_pair(key: &Secret<Vec<u8>>) -> Result<KeyPair, PkiError> {
    Ok(KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.expose().as_slice()))?)
}

/// What a leaf certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Hexadecimal, lower case, as many digits as the CA gave.
    pub serial: String,
    /// SHA-256 of the DER, hexadecimal.
    pub fingerprint: String,
    /// Start of its validity.
    pub not_before: OffsetDateTime,
    /// End of its validity.
    pub not_after: OffsetDateTime,
    /// Its name in renewal information (RFC 9773, section 4.1), where it has one.
    pub ari: Option<String>,
}

/// Reads the leaf of a chain, after checking that it is what the CSR asked for: this key, these
/// names, and not over already. A CA's answer is input like any other.
pub fn check_chain(chain: &str, csr: &[u8], now: OffsetDateTime) -> Result<Leaf, PkiError> {
    let unreadable = |problem: &dyn std::fmt::Display| PkiError::Unreadable(problem.to_string());
    let ders = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(&error))?;
    let der = ders.first().ok_or_else(|| unreadable(&"it holds no certificate"))?;
    let (_, leaf) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
    let (_, csr) = X509CertificationRequest::from_der(csr).map_err(|error| unreadable(&error))?;
    if leaf.public_key().raw != csr.certification_request_info.subject_pki.raw {
        return Err(PkiError::Unasked("it is for another key".to_owned()));
    }
    let mut wanted: Vec<String> = csr
        .requested_extensions()
        .into_iter()
        .flatten()
        .flat_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => all_names(&names.general_names),
            _ => Vec::new(),
        })
        .collect();
    let names = leaf.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let mut issued = names.map(|names| all_names(&names.value.general_names)).unwrap_or_default();
    wanted.sort_unstable();
    issued.sort_unstable();
    if wanted != issued {
        return Err(PkiError::Unasked(format!("it is for {}", issued.join(", "))));
    }
    let not_after = leaf.validity().not_after.to_datetime();
    if not_after <= now {
        return Err(PkiError::Unasked(format!("it ended at {not_after}")));
    }
    Ok(Leaf {
        serial: leaf.raw_serial_as_string().replace(':', ""),
        fingerprint: hexadecimal(
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref(),
        ),
        not_before: leaf.validity().not_before.to_datetime(),
        not_after,
        ari: ari_name(&leaf),
    })
}

fn ari_name(leaf: &X509Certificate<'_>) -> Option<String> {
    let key = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(known) => known.key_identifier.as_ref(),
        _ => None,
    })?;
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    Some(format!("{}.{}", encode(key.0), encode(leaf.tbs_certificate.raw_serial())))
}

/// The certificates of a chain, leaf first, DER.
pub fn certificates(chain: &str) -> Result<Vec<Vec<u8>>, PkiError> {
    let ders = CertificateDer::pem_slice_iter(chain.as_bytes())
        .map(|der| der.map(|der| der.to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| PkiError::Unreadable(error.to_string()))?;
    if ders.is_empty() {
        return Err(PkiError::Unreadable("it holds no certificate".to_owned()));
    }
    Ok(ders)
}

/// A chain's first certificate, DER.
pub fn leaf(chain: &str) -> Result<Vec<u8>, PkiError> {
    CertificateDer::from_pem_slice(chain.as_bytes())
        .map(|der| der.to_vec())
        .map_err(|error| PkiError::Unreadable(error.to_string()))
}

/// Who signed a chain's topmost certificate: the common name that `preferredChain` means.
pub fn topmost_issuer(chain: &str) -> Option<String> {
    let ders = certificates(chain).ok()?;
    let (_, top) = X509Certificate::from_der(ders.last()?).ok()?;
    let name = top.issuer().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// The public key of a certificate (DER), to be compared.
pub fn public_key_of_certificate(der: &[u8]) -> Result<Vec<u8>, PkiError> {
    let (_, leaf) =
        X509Certificate::from_der(der).map_err(|error| PkiError::Unreadable(error.to_string()))?;
    Ok(leaf.public_key().raw.to_vec())
}

/// The public key of a private one, to be compared.
pub fn public_key(key: &Secret<Vec<u8>>) -> Result<Vec<u8>, PkiError> {
    Ok(key_pair(key)?.subject_public_key_info())
}

fn all_names(names: &[GeneralName<'_>]) -> Vec<String> {
    names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    #[test]
    fn every_kind_of_key_makes_a_csr_and_is_recognised_again() {
        let kinds = [KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048, KeyKind::Rsa3072];
        for kind in kinds {
            let key = generate_key(kind).unwrap();
            let csr = make_csr(&key, &names(), Some("a.example.com")).unwrap();

            let (_, parsed) = X509CertificationRequest::from_der(&csr).unwrap();
            parsed.verify_signature().unwrap();
            assert_eq!(kinds.map(|other| fits(&key, other)), kinds.map(|other| other == kind));
        }
    }

    #[test]
    fn a_chain_for_this_key_and_these_names_is_accepted() {
        let (csr, chain) = issued(&names(), NOW + time::Duration::days(90));

        let leaf = check_chain(&chain, &csr, NOW).unwrap();

        assert_eq!(leaf.not_after, NOW + time::Duration::days(90));
        assert_eq!(leaf.fingerprint.len(), 64);
    }

    #[test]
    fn what_was_not_asked_for_is_refused_with_the_reason() {
        let (csr, chain) = issued(&names(), NOW + time::Duration::days(90));
        let (other_csr, over) = issued(&names(), NOW - time::Duration::days(1));
        let key = generate_key(KeyKind::P256).unwrap();
        let for_other_names =
            self_signed(&key, &["b.example.com".into()], NOW + time::Duration::days(1));
        let csr_of_key = make_csr(&key, &names(), None).unwrap();

        let refused =
            |chain: &str, csr: &[u8]| check_chain(chain, csr, NOW).unwrap_err().to_string();
        assert!(refused(&chain, &other_csr).contains("another key"));
        assert!(refused(&over, &other_csr).contains("ended at"));
        assert!(refused(&for_other_names, &csr_of_key).contains("b.example.com"));
        assert!(refused("", &csr).contains("no certificate"));
        assert!(
            refused("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &csr)
                .contains("not a certificate chain")
        );
    }

    #[test]
    fn addresses_are_names_like_any_other() {
        let names = vec!["a.example.com".to_owned(), "192.0.2.1".into(), "2001:db8::1".into()];
        let (csr, chain) = issued(&names, NOW + time::Duration::days(90));

        check_chain(&chain, &csr, NOW).unwrap();
    }

    #[test]
    fn an_account_key_comes_in_either_form_and_no_other_kind() {
        let key = generate_key(KeyKind::P256).unwrap();
        let pem = key_pair(&key).unwrap().serialize_pem();
        assert_eq!(import_account_key(&pem).unwrap().expose(), key.expose());
        // openssl ecparam -name prime256v1 -genkey -noout
        let sec1 = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIFz/EFiltzgTBCrBFVAbPDKupRyf+NIDghmZp7hVt2O5oAoGCCqGSM49
AwEHoUQDQgAExpEvJPXJDjt2E17MI2dpzt9EbzPIlh2jm6hCysesnn4wnj+58XER
LLC0GT7kSnbEVHAOuT8zorHoawifeHSjaQ==
-----END EC PRIVATE KEY-----
";
        import_account_key(sec1).unwrap();

        for (kind, why) in [(KeyKind::P384, "P-256"), (KeyKind::Rsa2048, "RSA")] {
            let pem = key_pair(&generate_key(kind).unwrap()).unwrap().serialize_pem();
            assert!(import_account_key(&pem).unwrap_err().contains(why));
        }
        assert!(import_account_key("secret").is_err());
    }

    fn names() -> Vec<String> {
        vec!["a.example.com".into(), "*.a.example.com".into()]
    }

    fn issued(names: &[String], until: OffsetDateTime) -> (Vec<u8>, String) {
        let key = generate_key(KeyKind::P256).unwrap();
        (make_csr(&key, names, None).unwrap(), self_signed(&key, names, until))
    }

    fn self_signed(key: &Secret<Vec<u8>>, names: &[String], until: OffsetDateTime) -> String {
        let mut params = CertificateParams::new(names.to_vec()).unwrap();
        params.not_after = until;
        params.self_signed(&key_pair(key).unwrap()).unwrap().pem()
    }
}
