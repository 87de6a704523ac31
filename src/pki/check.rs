//! Checks an issued chain against its CSR.

use time::{Duration, OffsetDateTime};
use x509_parser::prelude::X509Certificate;

use super::chain::{Chain, Unusable, parse};
use super::{Leaf, all_names, ari_name, csr, hexadecimal};

/// Ten years, with its leap days: longer than any CA's certificates live, and as long as a `duration`
/// may be.
const LONGEST_LIFE: Duration = Duration::days(3_660);
/// CAs count from a little before, and clocks differ.
const STILL_TO_COME: Duration = Duration::days(1);

/// A chain that can be used.
#[derive(Debug)]
pub struct Issued {
    /// PEM in its one form: leaf first, nothing but certificates.
    pub chain: String,
    pub leaf: Leaf,
    /// Names that the leaf has beside those that were asked for.
    pub extra: Vec<String>,
    /// It came in another order, or with a certificate twice.
    pub sorted: bool,
}

/// Reads what a CA sent, after checking that it is what the CSR asked for: this key, all of these
/// names, valid now and within reason. A CA's answer is input like any other.
pub fn check_chain(text: &str, csr: &[u8], now: OffsetDateTime) -> Result<Issued, Unusable> {
    // It is our own: one that cannot be read fits no certificate.
    let (key, wanted) = csr::key_and_names(csr).ok_or(Unusable::WrongKey)?;
    let chain = Chain::read(text, &key)?;
    let (leaf, mut names) = read_leaf(&chain, now)?;
    let missing: Vec<_> = wanted.iter().filter(|name| !names.contains(name)).cloned().collect();
    if !missing.is_empty() {
        return Err(Unusable::MissingNames { missing, issued: names });
    }
    names.retain(|name| !wanted.contains(name));
    Ok(Issued { chain: chain.pem(), leaf, extra: names, sorted: chain.sorted })
}

/// The facts and names of a chain's leaf, with all checks that need no CSR.
pub(super) fn read_leaf(
    chain: &Chain,
    now: OffsetDateTime,
) -> Result<(Leaf, Vec<String>), Unusable> {
    let der = chain.ders.first().ok_or(Unusable::Empty)?;
    let leaf = parse(der).ok_or(Unusable::NoCertificate(1))?;
    if leaf.is_ca() {
        return Err(Unusable::IsCa);
    }
    let (not_before, not_after) = validity(&leaf, now)?;
    let names = leaf.subject_alternative_name().map_err(|_| Unusable::NoCertificate(1))?;
    let names = names.map(|names| all_names(&names.value.general_names)).unwrap_or_default();
    let fingerprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let read = Leaf {
        serial: leaf.raw_serial_as_string().replace(':', ""),
        fingerprint: hexadecimal(fingerprint.as_ref()),
        not_before,
        not_after,
        ari: ari_name(&leaf),
    };
    Ok((read, names))
}

/// That it has begun, is not over, and has an end that somebody may live to see.
fn validity(
    leaf: &X509Certificate<'_>,
    now: OffsetDateTime,
) -> Result<(OffsetDateTime, OffsetDateTime), Unusable> {
    let from = leaf.validity().not_before.to_datetime();
    let until = leaf.validity().not_after.to_datetime();
    if until <= now || until <= from {
        return Err(Unusable::Over(until));
    }
    if from - now > STILL_TO_COME {
        return Err(Unusable::NotBegun(from));
    }
    if until - now > LONGEST_LIFE || until - from > LONGEST_LIFE {
        return Err(Unusable::TooLongLived(until));
    }
    Ok((from, until))
}
