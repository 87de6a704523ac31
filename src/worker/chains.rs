//! Which of the chains that a CA offers for a certificate is served.

use crate::ca;
use crate::pki;

/// Chains that are looked at beside the usual one.
const MOST_ALTERNATES: usize = 10;

/// The chain whose topmost certificate was issued by `preferred`, as cert-manager chooses it; else
/// the one that the CA offers first, with a remark. A chain that is not the preferred one is better
/// than none: nothing here fails.
pub(super) async fn preferred_chain(
    handle: &ca::Order,
    download: ca::Download,
    preferred: &str,
    csr: &[u8],
    now: time::OffsetDateTime,
) -> (String, Option<String>) {
    let fits = |chain: &str| pki::topmost_issuer(chain).is_some_and(|name| name == preferred);
    if preferred.is_empty() || fits(&download.chain_pem) {
        return (download.chain_pem, None);
    }
    let mut trouble = None;
    for url in download.alternates.iter().take(MOST_ALTERNATES) {
        match handle.alternate(url).await {
            Ok(chain) if fits(&chain) && pki::check_chain(&chain, csr, now).is_ok() => {
                return (chain, None);
            }
            Ok(_) => {}
            Err(failure) => trouble = Some(failure.to_string()),
        }
    }
    let why = trouble.unwrap_or_else(|| "the CA offers no such chain".to_owned());
    let remark =
        format!("The chain of \"{preferred}\" is not used: {why}. The usual one is served");
    (download.chain_pem, Some(remark))
}
