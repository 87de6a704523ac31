//! Certificates described for people.

use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use super::{PkiError, address, hexadecimal};

/// A certificate described for people.
#[derive(Debug, Clone)]
pub struct Look {
    pub subject: String,
    pub issuer: String,
    pub issuer_common_name: String,
    pub issuer_organisation: String,
    pub issuer_country: String,
    pub names: Vec<String>,
    /// Hexadecimal, as many digits as the CA gave.
    pub serial: String,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    /// Such as `ECDSA P-256`.
    pub key: String,
    /// Such as `ECDSA-SHA256`.
    pub signature: String,
    pub key_usage: String,
    pub extended_key_usage: String,
    /// Hexadecimal; empty if there is none.
    pub subject_key_id: String,
    /// Hexadecimal; empty if there is none.
    pub authority_key_id: String,
    pub is_ca: bool,
    /// SHA-256 of the DER, hexadecimal.
    pub sha256: String,
    /// SHA-1 of the DER, hexadecimal; for comparing only.
    pub sha1: String,
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
        GeneralName::IPAddress(bytes) => {
            address(bytes).map_or_else(|| hexadecimal(bytes), |address| address.to_string())
        }
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
