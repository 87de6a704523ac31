//! A client's own certificate signing request: input like any other, and checked as such.

use std::net::IpAddr;

use x509_parser::certification_request::X509CertificationRequestInfo;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::prelude::{
    FromDer as _, GeneralName, ParsedExtension, X509CertificationRequest, X509Extension,
};
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::pem::{self, PemError};
use super::signature::{self, Kind, Verdict};
use super::{address, all_names, shown, to_pem};
use crate::domain::certificate::{KeyAlgorithm, Spec};
use crate::domain::policy::WantedKey;

/// The content of a client's CSR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCsr {
    pub der: Vec<u8>,
    /// PEM, written anew.
    pub pem: String,
    /// The DNS names of its `subjectAltName`, as they stand there.
    pub dns_names: Vec<String>,
    /// The addresses of its `subjectAltName`.
    pub ip_addresses: Vec<IpAddr>,
    /// The subject's common name; one of the names.
    pub common_name: Option<String>,
    /// `SubjectPublicKeyInfo`, to be compared.
    pub public_key: Vec<u8>,
}

const LABEL: &str = "CERTIFICATE REQUEST";
/// The second is written by keytool, certreq and others (RFC 7468, section 7).
const LABELS: [&str; 2] = [LABEL, "NEW CERTIFICATE REQUEST"];

/// Longest CSR; one for a hundred names is shorter.
const LONGEST: usize = 32 * 1024;

/// RFC 5280's bound.
const LONGEST_COMMON_NAME: usize = 64;

/// Reads and checks a CSR in PEM. The error is the rest of a sentence that begins with "it".
pub fn read_csr(text: &str) -> Result<ClientCsr, String> {
    let der = der(text)?;
    let (rest, csr) = X509CertificationRequest::from_der(&der)
        .map_err(|_| "holds something else than a certificate signing request (PKCS #10)")?;
    if !rest.is_empty() {
        return Err("has something after its end".into());
    }
    let info = &csr.certification_request_info;
    check_key(&info.subject_pki)?;
    check_signature(&csr)?;
    let (dns_names, ip_addresses) = asked_for(info)?;
    let common_name = common_name(info)?;
    if let Some(name) = &common_name {
        let is_named = dns_names.iter().any(|known| known.eq_ignore_ascii_case(name))
            || name.parse().is_ok_and(|address| ip_addresses.contains(&address));
        if !is_named {
            return Err(format!(
                "has the common name `{}`, which is not in its `subjectAltName`",
                shown(name)
            ));
        }
    }
    Ok(ClientCsr {
        dns_names,
        ip_addresses,
        common_name,
        public_key: info.subject_pki.raw.to_vec(),
        pem: to_pem(LABEL, &der),
        der: der.clone(),
    })
}

/// The key (`SubjectPublicKeyInfo`) and the names of a CSR (DER) that was checked before.
pub(super) fn key_and_names(der: &[u8]) -> Option<(Vec<u8>, Vec<String>)> {
    let (_, csr) = X509CertificationRequest::from_der(der).ok()?;
    let names = csr.requested_extensions().into_iter().flatten();
    let names = names.flat_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => all_names(&names.general_names),
        _ => Vec::new(),
    });
    Some((csr.certification_request_info.subject_pki.raw.to_vec(), names.collect()))
}

/// The one block, and nothing else: what came beside it would be stored and shown with it.
fn der(text: &str) -> Result<Vec<u8>, String> {
    if text.len() > LONGEST {
        return Err(format!("is longer than {} KiB", LONGEST / 1024));
    }
    let no_csr = format!("is not a certificate signing request in PEM (`-----BEGIN {LABEL}-----`)");
    let found = pem::read(text, &LABELS, 1).map_err(|problem| match problem {
        PemError::PrivateKey => {
            "holds a private key beside it. Nothing was stored; give the CSR alone, and make a new key if others may have seen this one".into()
        }
        PemError::TooMany(_) => "holds more than one certificate signing request".into(),
        PemError::Outside if LABELS.iter().any(|label| text.contains(label)) => {
            "holds something beside its PEM block; give the lines from `-----BEGIN` to `-----END` alone".into()
        }
        PemError::Outside => no_csr.clone(),
        PemError::Foreign(_) | PemError::Unended | PemError::NotBase64 => {
            format!("{problem}; a CSR is one block (`-----BEGIN {LABEL}-----`)")
        }
    })?;
    found.into_iter().next().ok_or(no_csr)
}

fn check_signature(csr: &X509CertificationRequest<'_>) -> Result<(), String> {
    let info = &csr.certification_request_info;
    if signature::is_broken(&csr.signature_algorithm) {
        return Err("is signed with SHA-1 or MD5, which CAs do not take any more; make it with SHA-256 (`openssl req -sha256`)".into());
    }
    let by = &csr.signature_value;
    match signature::verify(&info.subject_pki, &csr.signature_algorithm, by, info.raw) {
        Verdict::NotSigned => Err("is not signed by its own key".into()),
        // That the client has the key is for the CA to see; here it proves nothing.
        Verdict::Signed | Verdict::Unknown => Ok(()),
    }
}

fn asked_for(
    info: &X509CertificationRequestInfo<'_>,
) -> Result<(Vec<String>, Vec<IpAddr>), String> {
    let mut names: Option<(Vec<String>, Vec<IpAddr>)> = None;
    for extension in requested(info)? {
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
    names.filter(|(dns, ip)| !dns.is_empty() || !ip.is_empty()).ok_or_else(|| {
        "names nothing in `subjectAltName`; a common name alone does not count".to_owned()
    })
}

fn requested<'a>(
    info: &'a X509CertificationRequestInfo<'a>,
) -> Result<Vec<&'a ParsedExtension<'a>>, String> {
    let mut requests = info.iter_attributes().filter_map(|given| match given.parsed_attribute() {
        ParsedCriAttribute::ExtensionRequest(request) => Some(request),
        _ => None,
    });
    let first = requests.next();
    // Some CAs read the first, some read all.
    if requests.next().is_some() {
        return Err("asks for extensions twice".into());
    }
    let extensions = first.map(|request| request.extensions.as_slice()).unwrap_or_default();
    let extensions: Vec<_> = extensions.iter().map(X509Extension::parsed_extension).collect();
    let broken = extensions.iter().any(|extension| {
        matches!(extension, ParsedExtension::ParseError { .. } | ParsedExtension::Unparsed)
    });
    if broken { Err("has an extension that cannot be read".into()) } else { Ok(extensions) }
}

fn split(names: &[GeneralName<'_>]) -> Result<(Vec<String>, Vec<IpAddr>), String> {
    let (mut dns, mut ip) = (Vec::new(), Vec::new());
    for name in names {
        let other = match name {
            GeneralName::DNSName(name) => {
                dns.push((*name).to_owned());
                continue;
            }
            GeneralName::IPAddress(bytes) => {
                ip.push(address(bytes).ok_or("has an IP address of an impossible length")?);
                continue;
            }
            GeneralName::RFC822Name(_) => "an e-mail address",
            GeneralName::URI(_) => "a URI",
            GeneralName::OtherName(..) => "an otherName",
            GeneralName::DirectoryName(_) => "a directory name",
            GeneralName::RegisteredID(_) => "a registered identifier",
            GeneralName::Invalid(..) => "something that cannot be read",
            GeneralName::X400Address(_) | GeneralName::EDIPartyName(_) => "an X.400 or EDI name",
        };
        return Err(format!("names something else than DNS names and IP addresses: {other}"));
    }
    Ok((dns, ip))
}

fn common_name(info: &X509CertificationRequestInfo<'_>) -> Result<Option<String>, String> {
    let mut names = info.subject.iter_common_name();
    let name = names.next().map(|name| name.as_str().map(str::to_owned)).transpose();
    let name = name.map_err(|_| "has a common name that cannot be read")?;
    if names.next().is_some() {
        return Err("has more than one common name".into());
    }
    if name.as_ref().is_some_and(|name| name.chars().count() > LONGEST_COMMON_NAME) {
        return Err(format!("has a common name of more than {LONGEST_COMMON_NAME} characters"));
    }
    // An empty one is none.
    Ok(name.filter(|name| !name.is_empty()))
}

/// Accepts the keys that public CAs (Baseline Requirements, section 6.1.5) or private ones take; the CA
/// itself decides.
fn check_key(info: &SubjectPublicKeyInfo<'_>) -> Result<(), String> {
    const WANTED: &str =
        "ECDSA on P-256 or P-384 (some also P-521 or Ed25519), or RSA of 2048 to 8192 bits";
    match (signature::kind(info), info.parsed()) {
        (Kind::Rsa, Ok(PublicKey::RSA(key))) => {
            let bits = rsa_bits(&key);
            if !(2048..=8192).contains(&bits) || !bits.is_multiple_of(8) {
                return Err(format!("has an RSA key of {bits} bits; CAs take {WANTED}"));
            }
            let exponent = key.try_exponent().unwrap_or(0);
            if exponent < 65_537 || exponent % 2 == 0 {
                return Err(
                    "has an RSA key with an exponent that CAs do not take; 65537 is usual".into()
                );
            }
            Ok(())
        }
        (Kind::P256 | Kind::P384 | Kind::P521 | Kind::Ed25519, _) => Ok(()),
        (Kind::OtherCurve, _) => {
            Err(format!("has an ECDSA key on another curve; CAs take {WANTED}"))
        }
        (Kind::Rsa | Kind::Other, _) => {
            Err(format!("has a key of a kind that CAs do not take; they take {WANTED}"))
        }
    }
}

/// The length of an RSA key's modulus.
fn rsa_bits(key: &RSAPublicKey<'_>) -> usize {
    let modulus = key.modulus.iter().position(|byte| *byte != 0);
    let modulus = modulus.map_or(&[][..], |at| &key.modulus[at..]);
    modulus.len() * 8 - modulus.first().map_or(0, |top| top.leading_zeros() as usize)
}

/// The key that a certificate is wanted for, as policies see it. One that cannot be read is of no kind that a
/// policy names.
pub fn wanted_key(spec: &Spec) -> WantedKey {
    let Some(pem) = &spec.csr else { return WantedKey::from(&spec.private_key) };
    let (algorithm, bits) = der(pem).ok().and_then(|der| algorithm(&der)).unzip();
    WantedKey { algorithm, bits: bits.unwrap_or_default(), held_by_client: true }
}

/// The key of a CSR (DER) that was made for one of ours, as policies see it.
pub fn own_key(csr: &[u8]) -> WantedKey {
    let (algorithm, bits) = algorithm(csr).unzip();
    WantedKey { algorithm, bits: bits.unwrap_or_default(), held_by_client: false }
}

fn algorithm(der: &[u8]) -> Option<(KeyAlgorithm, u32)> {
    let (_, csr) = X509CertificationRequest::from_der(der).ok()?;
    let info = &csr.certification_request_info.subject_pki;
    match (signature::kind(info), info.parsed()) {
        (Kind::Rsa, Ok(PublicKey::RSA(key))) => {
            Some((KeyAlgorithm::Rsa, u32::try_from(rsa_bits(&key)).ok()?))
        }
        (Kind::P256, _) => Some((KeyAlgorithm::Ecdsa, 256)),
        (Kind::P384, _) => Some((KeyAlgorithm::Ecdsa, 384)),
        (Kind::P521, _) => Some((KeyAlgorithm::Ecdsa, 521)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SanType,
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
        let (key, names) = key_and_names(&read.der).unwrap();
        assert_eq!((key, names.len()), (read.public_key, 4));
    }

    #[test]
    fn the_wanted_key_is_that_of_the_csr_where_there_is_one() {
        let spec = |csr| {
            let spec = r#"{"issuerRef": {"name": "le"}, "privateKey": {"algorithm": "RSA"}}"#;
            Spec { csr, ..serde_json::from_str(spec).unwrap() }
        };
        let read = |csr| {
            let key = wanted_key(&spec(csr));
            (key.algorithm, key.bits, key.held_by_client)
        };
        let of = |algorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            Some(params(&["a.example.com"]).serialize_request(&key).unwrap().pem().unwrap())
        };

        assert_eq!(read(None), (Some(KeyAlgorithm::Rsa), 2048, false));
        assert_eq!(read(of(&PKCS_ECDSA_P384_SHA384)), (Some(KeyAlgorithm::Ecdsa), 384, true));
        assert_eq!(read(of(&rcgen::PKCS_RSA_SHA256)), (Some(KeyAlgorithm::Rsa), 2048, true));
        assert_eq!(read(of(&rcgen::PKCS_ED25519)), (None, 0, true));
        assert_eq!(read(Some("nonsense".into())), (None, 0, true));
    }

    #[test]
    fn a_csr_has_one_form_however_it_was_wrapped() {
        let plain = good().replace("\r\n", "\n");
        let new = plain.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST");

        for text in [
            plain.clone(),
            plain.replace('\n', "\r\n"),
            format!("\n\n{}", plain.trim_end()),
            format!("\u{feff}{plain}"),
            new.clone(),
            new.replace('\n', "\r\n"),
        ] {
            assert_eq!(read_csr(&text).unwrap().pem, plain, "{text:?}");
        }
    }

    #[test]
    fn an_address_as_a_common_name_may_be_written_in_any_form() {
        let mut params = params(&["2001:db8::1"]);
        params.distinguished_name.push(DnType::CommonName, "2001:DB8:0::1");
        read_csr(&request(&params)).unwrap();
    }

    #[test]
    fn what_must_not_reach_a_ca_is_refused_with_the_reason() {
        let good = good();
        let key = KeyPair::generate().unwrap().serialize_pem();
        let changed = |change: &dyn Fn(&mut CertificateParams)| {
            let mut params = params(&["a.example.com"]);
            change(&mut params);
            request(&params)
        };
        let named = |name: &str| {
            changed(&|params| params.distinguished_name.push(DnType::CommonName, name))
        };
        let also = |name: SanType| changed(&|params| params.subject_alt_names.push(name.clone()));
        let with = |oid: &[u64], content: &[u8]| {
            let extension = CustomExtension::from_oid_content(oid, content.to_vec());
            changed(&|params| params.custom_extensions.push(extension.clone()))
        };
        let mut nameless = params(&[]);
        nameless.distinguished_name.push(DnType::CommonName, "a.example.com");
        let mut empty = params(&[]);
        let no_names = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0]);
        empty.custom_extensions.push(no_names);

        for (pem, why) in [
            ("text".to_owned(), "PEM"),
            (good.replace("REQUEST", "BOGUS"), "another kind"),
            ([&*good, &*good].concat(), "more than one"),
            ([&*key, &*good].concat(), "private key beside it"),
            ([&*good, &*key].concat(), "private key beside it"),
            (format!("Certificate Request:\n    Data:\n{good}"), "beside its PEM block"),
            (format!("{good}thanks"), "beside its PEM block"),
            (good.replace("-----END", "----END"), "PEM block"),
            ("x".repeat(LONGEST + 1), "longer"),
            (to_pem("CERTIFICATE REQUEST", b"nonsense"), "something else"),
            (
                to_pem("CERTIFICATE REQUEST", &[&*read_csr(&good).unwrap().der, &[0]].concat()),
                "after its end",
            ),
            (named("b.example.com"), "`b.example.com`"),
            (named("a.example.com."), "`a.example.com.`"),
            (named(&"a".repeat(65)), "64 characters"),
            (also(SanType::Rfc822Name("a@example.com".try_into().unwrap())), "an e-mail address"),
            (also(SanType::URI("https://example.com".try_into().unwrap())), "a URI"),
            (also(SanType::OtherName((vec![1, 2, 3], "x".into()))), "an otherName"),
            (request(&nameless), "names nothing in `subjectAltName`"),
            (request(&empty), "`subjectAltName`|cannot be read"),
            (with(&[1, 3, 6, 1, 5, 5, 7, 1, 24], &[0x30, 3, 2, 1, 5]), "extension"),
            (
                with(&[2, 5, 29, 17], &[0x30, 3, 0x82, 1, b'b']),
                "two `subjectAltName`|cannot be read",
            ),
            (
                changed(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
                "of a CA",
            ),
            (damaged(&good), "own key"),
        ] {
            let refused = read_csr(&pem).unwrap_err();
            assert!(why.split('|').any(|why| refused.contains(why)), "{why}: {refused}");
            assert!(!refused.contains(key.lines().nth(1).unwrap()), "{refused}");
        }
    }

    /// The same with another signature.
    fn damaged(pem: &str) -> String {
        let mut der = read_csr(pem).unwrap().der;
        // The lowest bit of the signature's last number, which stays a number.
        let last = der.len() - 1;
        der[last] ^= 1;
        to_pem(LABEL, &der)
    }

    fn good() -> String {
        request(&params(&["a.example.com"]))
    }

    fn request(params: &CertificateParams) -> String {
        let key = KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    fn params(names: &[&str]) -> CertificateParams {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params
    }
}
