//! Keys, certificate signing requests, and a look into what a CA issued.
//!
//! The only module that names `rcgen`; it does no I/O.

mod adopt;
mod chain;
mod check;
mod client_certificate;
mod csr;
#[cfg(feature = "failpoints")]
pub(crate) mod fuzzing;
mod jks;
mod keystore;
mod look;
mod pem;
mod signature;
#[cfg(test)]
mod tests;

pub use adopt::{Adopted, adopt, import_account_key, import_key, is_account_key};
pub use chain::{Unusable, certificates, chain_pem, list, topmost_issuer};
pub use check::{Issued, check_chain};
pub use client_certificate::client_certificate;
pub use csr::{ClientCsr, own_key, read_csr, wanted_key};
pub use jks::jks;
pub use keystore::{KeystoreError, Pkcs12Profile, pkcs12};
pub use look::{Look, look};
pub use pem::{PemError, to_pem};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use crate::domain::certificate::KeyKind;
use crate::secret::Secret;

/// Why a key or CSR could not be made, or a chain is not what was asked for.
#[derive(Debug, Error)]
pub enum PkiError {
    #[error("the key or CSR could not be made: {0}")]
    Making(#[from] rcgen::Error),
    #[error("not a certificate chain: {0}")]
    Unreadable(String),
    #[error("the chain cannot be used: it {0}")]
    Unusable(#[from] Unusable),
    #[error("the private key is no PEM of an unencrypted ECDSA or RSA key")]
    NoKey,
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

/// A certificate (PEM) for these names that its own key has signed, and that key (PKCS #8 PEM): for a server that has no
/// better one yet.
pub fn self_signed(names: &[String]) -> Result<(String, Secret<String>), PkiError> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = CertificateParams::new(names.to_vec())?.self_signed(&pair)?;
    Ok((certificate.pem(), Secret::new(pair.serialize_pem())))
}

/// Whether a stored key has this kind and can be reused.
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

/// The facts of a leaf certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Hexadecimal, lower case, as many digits as the CA gave.
    pub serial: String,
    /// SHA-256 of the DER, hexadecimal.
    pub fingerprint: String,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    /// Its name in renewal information (RFC 9773, section 4.1), where it has one.
    pub ari: Option<String>,
}

fn ari_name(leaf: &X509Certificate<'_>) -> Option<String> {
    let key = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(known) => known.key_identifier.as_ref(),
        _ => None,
    })?;
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    Some(format!("{}.{}", encode(key.0), encode(leaf.tbs_certificate.raw_serial())))
}

/// A stored chain's first certificate, DER.
pub fn leaf(chain: &str) -> Result<Vec<u8>, PkiError> {
    // There is one at least.
    Ok(certificates(chain)?.swap_remove(0))
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
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A foreign text, fit for a message.
fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    // Marks that turn the direction of writing change how the rest of a message is read.
    let is_mark = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut clean = text.chars().filter(|c| !c.is_control() && !is_mark(*c));
    let mut shown: String = clean.by_ref().take(LONGEST).collect();
    if clean.next().is_some() {
        shown.push('…');
    }
    shown
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}
