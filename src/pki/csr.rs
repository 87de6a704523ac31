//! A client's own certificate signing request: input like any other, and checked as such.

use std::net::IpAddr;

use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509CertificationRequest};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::address;

/// What a client's CSR asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCsr {
    /// As it is sent to the CA.
    pub der: Vec<u8>,
    /// The DNS names of its `subjectAltName`, as they stand there.
    pub dns_names: Vec<String>,
    /// The addresses of its `subjectAltName`.
    pub ip_addresses: Vec<IpAddr>,
    /// The subject's common name; one of the names.
    pub common_name: Option<String>,
    /// `SubjectPublicKeyInfo`, to be compared.
    pub public_key: Vec<u8>,
}

/// More than a CSR for a hundred names needs.
const LONGEST: usize = 32 * 1024;

/// Reads and checks a CSR in PEM. The error is the rest of a sentence that begins with "it".
pub fn read_csr(pem: &str) -> Result<ClientCsr, String> {
    if pem.len() > LONGEST {
        return Err(format!("is longer than {} KiB", LONGEST / 1024));
    }
    let mut blocks = CertificateSigningRequestDer::pem_slice_iter(pem.as_bytes());
    let unreadable =
        "is not a certificate signing request in PEM (`-----BEGIN CERTIFICATE REQUEST-----`)";
    let der = blocks.next().and_then(Result::ok).ok_or(unreadable)?;
    if blocks.next().is_some() {
        return Err("holds more than one certificate signing request".into());
    }
    let (rest, csr) = X509CertificationRequest::from_der(&der)
        .map_err(|_| "holds something else than a certificate signing request (PKCS #10)")?;
    if !rest.is_empty() {
        return Err("has something after its end".into());
    }
    check_key(&csr.certification_request_info.subject_pki)?;
    csr.verify_signature().map_err(|_| "is not signed by its own key")?;

    let mut names: Option<(Vec<String>, Vec<IpAddr>)> = None;
    for extension in requested(&csr)? {
        match extension {
            ParsedExtension::SubjectAlternativeName(given) if names.is_none() => {
                names = Some(split(&given.general_names)?);
            }
            ParsedExtension::SubjectAlternativeName(_) => {
                return Err("has two `subjectAltName` extensions".into());
            }
            ParsedExtension::BasicConstraints(given) if given.ca => {
                return Err("asks for the certificate of a CA".into());
            }
            ParsedExtension::BasicConstraints(_)
            | ParsedExtension::KeyUsage(_)
            | ParsedExtension::ExtendedKeyUsage(_)
            | ParsedExtension::SubjectKeyIdentifier(_) => {}
            _ => {
                return Err("asks for an extension that is not passed on to CAs; only subjectAltName, keyUsage, extendedKeyUsage, basicConstraints and subjectKeyIdentifier are".into());
            }
        }
    }
    let (dns_names, ip_addresses) = names
        .filter(|(dns, ip)| !dns.is_empty() || !ip.is_empty())
        .ok_or("names nothing in `subjectAltName`; a common name alone does not count")?;

    let subject = &csr.certification_request_info.subject;
    let mut common_names = subject.iter_common_name();
    let common_name = common_names.next().map(|name| name.as_str().map(str::to_owned));
    let common_name =
        common_name.transpose().map_err(|_| "has a common name that cannot be read")?;
    if common_names.next().is_some() {
        return Err("has more than one common name".into());
    }
    // An empty one is none.
    let common_name = common_name.filter(|name| !name.is_empty());
    if let Some(name) = &common_name {
        let is_named = dns_names.iter().any(|known| known.eq_ignore_ascii_case(name))
            || ip_addresses.iter().any(|known| known.to_string() == *name);
        if !is_named {
            return Err(format!(
                "has the common name `{name}`, which is not in its `subjectAltName`"
            ));
        }
    }
    Ok(ClientCsr {
        dns_names,
        ip_addresses,
        common_name,
        public_key: csr.certification_request_info.subject_pki.raw.to_vec(),
        der: der.to_vec(),
    })
}

fn requested<'a>(
    csr: &'a X509CertificationRequest<'a>,
) -> Result<Vec<&'a ParsedExtension<'a>>, String> {
    let extensions: Vec<_> = csr.requested_extensions().into_iter().flatten().collect();
    let broken = extensions.iter().any(|extension| {
        matches!(extension, ParsedExtension::ParseError { .. } | ParsedExtension::Unparsed)
    });
    if broken { Err("has an extension that cannot be read".into()) } else { Ok(extensions) }
}

fn split(names: &[GeneralName<'_>]) -> Result<(Vec<String>, Vec<IpAddr>), String> {
    let (mut dns, mut ip) = (Vec::new(), Vec::new());
    for name in names {
        match name {
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                ip.push(address(bytes).ok_or("has an IP address of an impossible length")?);
            }
            other => {
                return Err(format!(
                    "names something else than DNS names and IP addresses: {other}"
                ));
            }
        }
    }
    Ok((dns, ip))
}

/// What public CAs take (Baseline Requirements, section 6.1.5).
fn check_key(info: &SubjectPublicKeyInfo<'_>) -> Result<(), String> {
    let wanted = "ECDSA on P-256 or P-384, or RSA of 2048, 3072 or 4096 bits";
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => {
            let modulus = key.modulus.iter().position(|byte| *byte != 0);
            let modulus = modulus.map_or(&[][..], |at| &key.modulus[at..]);
            let bits =
                modulus.len() * 8 - modulus.first().map_or(0, |top| top.leading_zeros() as usize);
            if ![2048, 3072, 4096].contains(&bits) {
                return Err(format!("has an RSA key of {bits} bits; CAs take {wanted}"));
            }
            let exponent = key.try_exponent().unwrap_or(0);
            if exponent < 65_537 || exponent % 2 == 0 {
                return Err("has an RSA key with a weak exponent; 65537 is usual".into());
            }
            Ok(())
        }
        Ok(PublicKey::EC(_)) => {
            const P256: &str = "1.2.840.10045.3.1.7";
            const P384: &str = "1.3.132.0.34";
            let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
            if [P256, P384].contains(&curve.as_str()) {
                Ok(())
            } else {
                Err(format!("has an ECDSA key on another curve; CAs take {wanted}"))
            }
        }
        _ => Err(format!("has a key that CAs do not take; they take {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384,
        PKCS_ED25519, SanType,
    };

    use super::*;

    #[test]
    fn names_addresses_and_key_are_read() {
        let mut params = params(&["a.example.com", "*.a.example.com", "192.0.2.1", "2001:db8::1"]);
        params.distinguished_name.push(DnType::CommonName, "a.example.com");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();

        let read = read_csr(&params.serialize_request(&key).unwrap().pem().unwrap()).unwrap();

        assert_eq!(read.dns_names, ["a.example.com", "*.a.example.com"]);
        assert_eq!(
            read.ip_addresses,
            ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        assert_eq!(read.common_name.as_deref(), Some("a.example.com"));
        assert_eq!(read.public_key, rcgen::PublicKeyData::subject_public_key_info(&key));
    }

    #[test]
    fn what_must_not_reach_a_ca_is_refused_with_the_reason() {
        let key = KeyPair::generate().unwrap();
        let pem =
            |params: CertificateParams| params.serialize_request(&key).unwrap().pem().unwrap();
        let good = pem(params(&["a.example.com"]));

        let mut other_name = params(&["a.example.com"]);
        other_name.distinguished_name.push(DnType::CommonName, "b.example.com");
        let mut mail = params(&["a.example.com"]);
        mail.subject_alt_names.push(SanType::Rfc822Name("a@example.com".try_into().unwrap()));
        let mut nameless = params(&[]);
        nameless.distinguished_name.push(DnType::CommonName, "a.example.com");
        let mut staple = params(&["a.example.com"]);
        staple.custom_extensions.push(CustomExtension::from_oid_content(
            &[1, 3, 6, 1, 5, 5, 7, 1, 24],
            vec![0x30, 3, 2, 1, 5],
        ));
        let mut authority = params(&["a.example.com"]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let edwards = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let edwards =
            params(&["a.example.com"]).serialize_request(&edwards).unwrap().pem().unwrap();

        for (pem, why) in [
            ("text".to_owned(), "PEM"),
            (good.replace("REQUEST", "BOGUS"), "PEM"),
            ([good.clone(), good.clone()].concat(), "more than one"),
            ("x".repeat(LONGEST + 1), "longer"),
            (pem(other_name), "`b.example.com`"),
            (pem(mail), "something else"),
            (pem(nameless), "`subjectAltName`"),
            (pem(staple), "extension"),
            (pem(authority), "of a CA"),
            (edwards, "key"),
            (damaged(&good), "own key"),
        ] {
            let refused = read_csr(&pem).unwrap_err();
            assert!(refused.contains(why), "{why}: {refused}");
        }
        read_csr(&good).unwrap();
    }

    /// The same with another signature.
    fn damaged(pem: &str) -> String {
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut der = der.to_vec();
        // The lowest bit of the signature's last number, which stays a number.
        let last = der.len() - 1;
        der[last] ^= 1;
        let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    }

    fn params(names: &[&str]) -> CertificateParams {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params
    }
}
