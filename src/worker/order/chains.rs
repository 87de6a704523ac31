//! Chooses among the chains that a CA offers for a certificate, and explains why none can be served.

use time::OffsetDateTime;

use crate::ca;
use crate::domain::event::Event;
use crate::domain::failure::{Failure, code};
use crate::domain::id::CertificateId;
use crate::pki;
use crate::pki::{Issued, Unusable};

/// Upper bound of the chains that are fetched beside the usual one.
const MOST_ALTERNATES: usize = 10;

/// The chain whose topmost certificate was issued by `preferred`, as cert-manager chooses it; else
/// the one that the CA offers first, with a remark. A chain that is not the preferred one is better
/// than none: nothing here fails.
pub(super) async fn preferred_chain(
    handle: &ca::Order,
    alternates: &[String],
    usual: Issued,
    preferred: &str,
    csr: &[u8],
    now: OffsetDateTime,
) -> (Issued, Option<String>) {
    let fits =
        |known: &Issued| pki::topmost_issuer(&known.chain).is_some_and(|name| name == preferred);
    if preferred.is_empty() || fits(&usual) {
        return (usual, None);
    }
    let mut trouble = None;
    for url in alternates.iter().take(MOST_ALTERNATES) {
        let checked = match handle.alternate(url).await {
            Ok(text) => {
                pki::check_chain(&text, csr, now).map_err(|problem| format!("it {problem}"))
            }
            Err(failure) => Err(failure.to_string()),
        };
        match checked {
            // Another chain is one for the same certificate.
            Ok(other) if fits(&other) && other.leaf == usual.leaf => return (other, None),
            Ok(_) => {}
            Err(problem) => {
                trouble = Some(format!("a chain that the CA offers cannot be used, {problem}"));
            }
        }
    }
    let why = trouble.unwrap_or_else(|| "the CA offers no such chain".to_owned());
    let remark =
        format!("The chain of \"{preferred}\" is not used: {why}. The usual one is served");
    (usual, Some(remark))
}

/// Remarks for people about a chain that can be used all the same.
pub(super) fn remarks(issued: &Issued, certificate: CertificateId) -> Vec<Event> {
    let mut events = Vec::new();
    if !issued.extra.is_empty() {
        let message =
            format!("The CA added names that were not asked for: {}", pki::list(&issued.extra));
        events.push(Event::warning(certificate, "NamesAdded", message));
    }
    if issued.sorted {
        let message =
            "The CA sent its chain out of order or with repetitions; it is served in order";
        events.push(Event::warning(certificate, "ChainSorted", message));
    }
    events
}

/// The remark that a certificate's chain leads elsewhere than that of the revision before: who trusts only the former
/// root, or pins an intermediate certificate, has to know.
pub(super) fn changed(before: &str, now: &str, certificate: CertificateId) -> Option<Event> {
    let (before, now) = (pki::topmost_issuer(before)?, pki::topmost_issuer(now)?);
    let message = format!(
        "The chain leads to \"{now}\", where the one before led to \"{before}\"; the issuer's preferredChain chooses among those that the CA offers"
    );
    (before != now).then(|| Event::warning(certificate, "ChainChanged", message))
}

/// The failure where the CA issued a certificate that cannot be used. It ends the attempt: the CA would
/// answer a fresh order in the same way, and each costs another certificate.
pub(super) fn unusable(problem: &Unusable) -> Failure {
    let code = match problem {
        Unusable::WrongKey => code::ACME_WRONG_KEY,
        Unusable::MissingNames { .. } | Unusable::ForeignNames => code::ACME_MISSING_NAMES,
        Unusable::Unsigned { .. } | Unusable::NotCa(_) => code::ACME_BROKEN_CHAIN,
        Unusable::Pem(_) | Unusable::TooLong | Unusable::Empty | Unusable::NoCertificate(_) => {
            code::ACME_BAD_CHAIN
        }
        Unusable::IsCa => code::ACME_CA_CERTIFICATE,
        Unusable::Over(_) | Unusable::NotBegun(_) | Unusable::TooLongLived(_) => {
            code::ACME_BAD_VALIDITY
        }
    };
    Failure::of(code, format!("What it sent {problem}."))
}
