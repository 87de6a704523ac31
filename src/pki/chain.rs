//! The one way in for certificate chains, whether a CA sent them or somebody imports them.
//!
//! An accepted chain is certificates alone, leaf first, each signed by the next. It is encoded anew, so
//! that the text that came is never stored or served.

use std::fmt;

use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate, X509Version};

use super::pem::{self, PemError};
use super::signature::{Verdict, verify};
use super::{PkiError, shown, to_pem};

const LABEL: &str = "CERTIFICATE";
/// OpenSSL's older word for the same.
const LABELS: [&str; 2] = [LABEL, "X509 CERTIFICATE"];

/// Two or three are usual, six were seen.
const MOST_CERTIFICATES: usize = 10;
/// Ten certificates with the largest keys that are in use.
const LONGEST: usize = 128 * 1024;
/// Names in a message.
const MOST_SHOWN: usize = 10;

/// Why a chain is not used; each reads on from "it".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unusable {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("is longer than {} KiB", LONGEST / 1024)]
    TooLong,
    #[error("holds no certificate")]
    Empty,
    #[error("holds a block that is no X.509 certificate, at place {0}")]
    NoCertificate(usize),
    #[error("is not one chain: `{above}` did not sign `{below}`")]
    Unsigned { above: String, below: String },
    #[error("is not one chain: `{0}` stands above another certificate and is no CA")]
    NotCa(String),
    #[error("is for another key")]
    WrongKey,
    #[error("lacks {}; it is for {}", Listed(missing), Listed(issued))]
    MissingNames { missing: Vec<String>, issued: Vec<String> },
    #[error("is for other things than DNS names and IP addresses")]
    ForeignNames,
    #[error("is the certificate of a CA (`CA:TRUE`), not of a server")]
    IsCa,
    #[error("ended at {0}; if that is still to come, set this machine's clock")]
    Over(OffsetDateTime),
    #[error("begins only at {0}; if that is now, set this machine's clock")]
    NotBegun(OffsetDateTime),
    #[error("is valid until {0}, for longer than ten years")]
    TooLongLived(OffsetDateTime),
}

/// Names, as many of them as a person reads.
struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&list(self.0))
    }
}

/// Names, cleaned, and as many of them as a person reads.
pub fn list(names: &[String]) -> String {
    let some: Vec<_> = names.iter().take(MOST_SHOWN).map(|name| shown(name)).collect();
    match names.len() - some.len() {
        _ if names.is_empty() => "no name".to_owned(),
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}

/// Certificates that belong together.
#[derive(Debug)]
pub(super) struct Chain {
    /// DER, leaf first.
    pub(super) ders: Vec<Vec<u8>>,
    /// They came in another order, or one of them twice.
    pub(super) sorted: bool,
}

impl Chain {
    /// Reads a chain whose leaf is for `key` (`SubjectPublicKeyInfo`).
    ///
    /// One that comes in another order is put in order: everybody who is served it needs the leaf
    /// first, and the signatures leave no doubt.
    pub(super) fn read(text: &str, key: &[u8]) -> Result<Self, Unusable> {
        if text.len() > LONGEST {
            return Err(Unusable::TooLong);
        }
        let mut ders = pem::read(text, &LABELS, MOST_CERTIFICATES)?;
        let came = ders.len();
        let mut distinct = Vec::with_capacity(came);
        ders.retain(|der| {
            let is_new = !distinct.contains(der);
            distinct.push(der.clone());
            is_new
        });
        let parsed = ders
            .iter()
            .enumerate()
            .map(|(place, der)| parse(der).ok_or(Unusable::NoCertificate(place + 1)))
            .collect::<Result<Vec<_>, _>>()?;
        let first = parsed.first().ok_or(Unusable::Empty)?;
        let mut order: Vec<usize> = (0..parsed.len()).collect();
        let broken = parsed.windows(2).find_map(|pair| match pair {
            [below, above] => signed(below, above).err(),
            _ => None,
        });
        let is_for_key = |known: &X509Certificate<'_>| known.public_key().raw == key;
        if broken.is_some() || !is_for_key(first) {
            let leaf = parsed.iter().position(is_for_key).ok_or(Unusable::WrongKey)?;
            order = sort(&parsed, leaf).map_err(|problem| broken.unwrap_or(problem))?;
        }
        // Nothing stands above a root, which signed itself.
        let top = order.last().map_or(first, |place| &parsed[*place]);
        if is_root(top) && !is_signature(top, top) {
            return Err(unsigned(top, top));
        }
        let is_sorted = order.is_sorted();
        let ders: Vec<_> = order.into_iter().map(|place| ders[place].clone()).collect();
        Ok(Self { sorted: !is_sorted || ders.len() != came, ders })
    }

    /// PEM in the form in which chains are stored and served.
    pub(super) fn pem(&self) -> String {
        chain_pem(&self.ders)
    }
}

/// Certificates (DER) as PEM.
pub fn chain_pem(ders: &[Vec<u8>]) -> String {
    ders.iter().map(|der| to_pem(LABEL, der)).collect()
}

/// The certificates among the blocks of a text, DER, in their order: of what is stored, and for
/// looking at what somebody has. What is to be stored goes the other way.
pub fn certificates(text: &str) -> Result<Vec<Vec<u8>>, PkiError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let ders = CertificateDer::pem_slice_iter(text.as_bytes())
        .map(|der| der.map(|der| der.to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| PkiError::Unreadable(error.to_string()))?;
    if ders.is_empty() {
        return Err(PkiError::Unreadable("it holds no certificate".to_owned()));
    }
    Ok(ders)
}

/// The issuer's common name of a chain's topmost certificate, as `preferredChain` means it.
pub fn topmost_issuer(chain: &str) -> Option<String> {
    let ders = certificates(chain).ok()?;
    let top = parse(ders.last()?)?;
    let name = top.issuer().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

pub(super) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, known) = X509Certificate::from_der(der).ok()?;
    (rest.is_empty() && names_one_algorithm(der, &known)).then_some(known)
}

/// Whether the algorithm beside the signature is the signed one, byte for byte (RFC 5280, section 4.1.1.2): nobody has
/// signed the former, and the parser takes other tags in it for an identifier's.
fn names_one_algorithm(der: &[u8], known: &X509Certificate<'_>) -> bool {
    const SEQUENCE: u8 = 0x30;
    let signed = known.tbs_certificate.as_ref();
    let header = match der.get(1) {
        Some(length @ 0x81..=0x84) => 2 + usize::from(length - 0x80),
        _ => 2,
    };
    let Some(rest @ [SEQUENCE, length @ ..0x80, ..]) = der.get(header + signed.len()..) else {
        return false;
    };
    let beside = rest.get(..2 + usize::from(*length));
    beside.is_some_and(|beside| signed.windows(beside.len()).any(|window| window == beside))
}

/// From the leaf upwards, through all of them; only where each step is the only one possible.
fn sort(parsed: &[X509Certificate<'_>], leaf: usize) -> Result<Vec<usize>, Unusable> {
    let mut order = vec![leaf];
    let mut left: Vec<usize> = (0..parsed.len()).filter(|place| *place != leaf).collect();
    let mut present = leaf;
    while let Some(next) = left.first() {
        let problem = signed(&parsed[present], &parsed[*next]);
        let mut above =
            left.iter().filter(|above| signed(&parsed[present], &parsed[**above]).is_ok());
        match (above.next().copied(), above.next()) {
            (Some(only), None) => present = only,
            _ => {
                return Err(problem
                    .err()
                    .unwrap_or_else(|| unsigned(&parsed[present], &parsed[*next])));
            }
        }
        order.push(present);
        left.retain(|place| *place != present);
    }
    Ok(order)
}

/// Whether it claims to be self-signed, rather than signed by an earlier key of the same CA.
fn is_root(known: &X509Certificate<'_>) -> bool {
    let (mut own, mut signer) = (None, None);
    for extension in known.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                signer = id.key_identifier.as_ref().map(|id| id.0);
            }
            _ => {}
        }
    }
    known.issuer().as_raw() == known.subject().as_raw()
        && (own.is_none() || signer.is_none() || own == signer)
}

/// That `above` is a CA and signed `below`.
fn signed(below: &X509Certificate<'_>, above: &X509Certificate<'_>) -> Result<(), Unusable> {
    if !is_signature(below, above) {
        return Err(unsigned(below, above));
    }
    // Version 1, as some old roots are, has no room to say so.
    if above.is_ca() || above.version() == X509Version::V1 {
        Ok(())
    } else {
        Err(Unusable::NotCa(shown(&above.subject().to_string())))
    }
}

fn is_signature(below: &X509Certificate<'_>, above: &X509Certificate<'_>) -> bool {
    // Clients look for the issuer by its name, byte for byte; and the algorithm stands there twice, of
    // which only one is signed (RFC 5280, section 4.1.1.2).
    if below.issuer().as_raw() != above.subject().as_raw()
        || below.signature_algorithm != below.tbs_certificate.signature
    {
        return false;
    }
    let (signature, signed) = (&below.signature_value, below.tbs_certificate.as_ref());
    let verdict = verify(above.public_key(), &below.signature_algorithm, signature, signed);
    // A signature by an unknown algorithm is accepted: the client may know it.
    matches!(verdict, Verdict::Signed | Verdict::Unknown)
}

fn unsigned(below: &X509Certificate<'_>, above: &X509Certificate<'_>) -> Unusable {
    let name = |known: &X509Certificate<'_>| shown(&known.subject().to_string());
    Unusable::Unsigned { above: name(above), below: name(below) }
}
