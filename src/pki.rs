//! Keys, certificate signing requests, and a look into what a CA issued.
//!
//! The only module that names `rcgen` and `x509_parser`.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
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
            ParsedExtension::SubjectAlternativeName(names) => dns_names(&names.general_names),
            _ => Vec::new(),
        })
        .collect();
    let names = leaf.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let mut issued = names.map(|names| dns_names(&names.value.general_names)).unwrap_or_default();
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
    })
}

/// A certificate that exists, with its key.
#[derive(Debug)]
pub struct Adopted {
    /// PEM, leaf first, nothing but certificates.
    pub chain: String,
    /// PKCS #8 DER.
    pub key: Secret<Vec<u8>>,
    /// DNS names, in the leaf's own order.
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
    let names = dns_names(&general);
    if names.is_empty() || names.len() != general.len() {
        return Err(PkiError::Unasked("it is for other things than DNS names".to_owned()));
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

/// Whether an ACME account may have this key here: ECDSA on P-256.
pub fn is_account_key(key: &Secret<Vec<u8>>) -> bool {
    fits(key, KeyKind::P256)
}

/// What a certificate says about itself, for people.
#[derive(Debug, Clone)]
pub struct Look {
    /// Whom it is for.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The issuer's common name.
    pub issuer_common_name: String,
    /// The issuer's organisation.
    pub issuer_organisation: String,
    /// The issuer's country.
    pub issuer_country: String,
    /// Alternative names: DNS names and addresses.
    pub names: Vec<String>,
    /// Hexadecimal, as many digits as the CA gave.
    pub serial: String,
    /// Start of its validity.
    pub not_before: OffsetDateTime,
    /// End of its validity.
    pub not_after: OffsetDateTime,
    /// Such as `ECDSA P-256`.
    pub key: String,
    /// Such as `ECDSA-SHA256`.
    pub signature: String,
    /// What the key may be used for.
    pub key_usage: String,
    /// The same, extended.
    pub extended_key_usage: String,
    /// Hexadecimal; empty if there is none.
    pub subject_key_id: String,
    /// Hexadecimal; empty if there is none.
    pub authority_key_id: String,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// SHA-256 of the DER, hexadecimal.
    pub sha256: String,
    /// SHA-1 of the DER, hexadecimal; for comparing only.
    pub sha1: String,
}

/// The certificates of a PEM text, in DER.
pub fn certificates(text: &str) -> Result<Vec<Vec<u8>>, PkiError> {
    let unreadable = |problem: String| PkiError::Unreadable(problem);
    let ders = CertificateDer::pem_slice_iter(text.as_bytes())
        .map(|der| der.map(|der| der.to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(error.to_string()))?;
    if ders.is_empty() {
        return Err(unreadable("it holds no certificate".to_owned()));
    }
    Ok(ders)
}

/// Looks at a certificate (DER).
pub fn look(der: &[u8]) -> Result<Look, PkiError> {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
    let unreadable = |error: String| PkiError::Unreadable(error);
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    let issuer = certificate.issuer();
    let first = |mut values: Box<
        dyn Iterator<Item = &x509_parser::x509::AttributeTypeAndValue<'_>> + '_,
    >| {
        values.next().and_then(|value| value.as_str().ok()).unwrap_or_default().to_owned()
    };
    let mut look = Look {
        subject: certificate.subject().to_string(),
        issuer: issuer.to_string(),
        issuer_common_name: first(Box::new(issuer.iter_common_name())),
        issuer_organisation: first(Box::new(issuer.iter_organization())),
        issuer_country: first(Box::new(issuer.iter_country())),
        names: Vec::new(),
        serial: certificate.raw_serial_as_string().replace(':', ""),
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
        key: key_name(certificate.public_key()),
        signature: signature_name(&certificate.signature_algorithm.algorithm.to_id_string()),
        key_usage: String::new(),
        extended_key_usage: String::new(),
        subject_key_id: String::new(),
        authority_key_id: String::new(),
        is_ca: certificate.is_ca(),
        sha256: hexadecimal(digest(&SHA256, der).as_ref()),
        sha1: hexadecimal(digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()),
    };
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                look.names = names.general_names.iter().map(shown_name).collect();
            }
            ParsedExtension::KeyUsage(usage) => look.key_usage = usage.to_string(),
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let known = [
                    (usage.any, "Any"),
                    (usage.server_auth, "Server Authentication"),
                    (usage.client_auth, "Client Authentication"),
                    (usage.code_signing, "Code Signing"),
                    (usage.email_protection, "E-mail Protection"),
                    (usage.time_stamping, "Time Stamping"),
                    (usage.ocsp_signing, "OCSP Signing"),
                ];
                let words: Vec<_> =
                    known.into_iter().filter(|(given, _)| *given).map(|(_, word)| word).collect();
                look.extended_key_usage = words.join(", ");
            }
            ParsedExtension::SubjectKeyIdentifier(id) => look.subject_key_id = hexadecimal(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                look.authority_key_id =
                    id.key_identifier.as_ref().map(|id| hexadecimal(id.0)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Ok(look)
}

fn shown_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(four) => std::net::Ipv4Addr::from(four).to_string(),
            Err(_) => <[u8; 16]>::try_from(*bytes).map_or_else(
                |_| hexadecimal(bytes),
                |all| std::net::Ipv6Addr::from(all).to_string(),
            ),
        },
        GeneralName::URI(uri) => (*uri).to_owned(),
        GeneralName::RFC822Name(address) => (*address).to_owned(),
        other => format!("{other:?}"),
    }
}

fn key_name(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> String {
    use x509_parser::public_key::PublicKey;
    match key.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", point.key_size()),
        _ if key.algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".to_owned(),
        _ => key.algorithm.algorithm.to_id_string(),
    }
}

fn signature_name(oid: &str) -> String {
    let known = match oid {
        "1.2.840.10045.4.3.2" => "ECDSA-SHA256",
        "1.2.840.10045.4.3.3" => "ECDSA-SHA384",
        "1.2.840.10045.4.3.4" => "ECDSA-SHA512",
        "1.2.840.113549.1.1.11" => "SHA256-RSA",
        "1.2.840.113549.1.1.12" => "SHA384-RSA",
        "1.2.840.113549.1.1.13" => "SHA512-RSA",
        "1.3.101.112" => "Ed25519",
        other => other,
    };
    known.to_owned()
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
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

fn dns_names(names: &[GeneralName<'_>]) -> Vec<String> {
    names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
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
