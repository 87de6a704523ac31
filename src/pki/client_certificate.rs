//! The names in a client certificate.

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

use super::PkiError;
use crate::domain::client_certificate::ClientCertificate;

/// Reads a client certificate (DER), which was verified before.
pub fn client_certificate(der: &[u8]) -> Result<ClientCertificate, PkiError> {
    let unreadable = |error: String| PkiError::Unreadable(error);
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    let names =
        certificate.subject_alternative_name().map_err(|error| unreadable(error.to_string()))?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let list =
        |text: fn(&GeneralName<'_>) -> Option<String>| names.iter().filter_map(text).collect();
    let subject = certificate.subject();
    Ok(ClientCertificate {
        subject: subject.as_raw().to_vec(),
        common_names: texts(subject.iter_common_name()),
        organizations: texts(subject.iter_organization()),
        organizational_units: texts(subject.iter_organizational_unit()),
        dns_names: list(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        }),
        uris: list(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        }),
        emails: list(|name| match name {
            GeneralName::RFC822Name(address) => Some((*address).to_owned()),
            _ => None,
        }),
        not_after: certificate.validity().not_after.to_datetime(),
    })
}

fn texts<'a>(attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Vec<String> {
    attributes.filter_map(|attribute| attribute.as_str().ok().map(str::to_owned)).collect()
}
