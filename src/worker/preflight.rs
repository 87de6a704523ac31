//! Looks into the DNS of an order's names before the CA is asked: an order that it must refuse is not placed.
//!
//! Only a definite no counts. What cannot be looked up is left to the CA, which asks from elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use time::OffsetDateTime;

use crate::ca::Authorities;
use crate::clock::Clock;
use crate::domain::caa::{self, Applicant, Unknown, dnssec_fails};
use crate::domain::failure::Failure;
use crate::domain::issuer::Issuer;
use crate::domain::selection::pick_for_name;
use crate::solver::{Age, Solvers};

/// Names that are looked up at the same time, and the time for all of them.
const AT_ONCE: usize = 8;
const WITHIN: Duration = Duration::from_secs(10);

/// A certificate that is wanted.
pub struct Subject<'a> {
    pub issuer: &'a Issuer,
    pub namespace: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    /// DNS names and IP addresses.
    pub names: &'a [String],
}

/// What the DNS says about the names.
#[derive(Debug, Default)]
pub struct Findings {
    /// Why the CA must not issue.
    pub forbidden: Option<Failure>,
    /// For which name DNSSEC validation fails: a CA does not issue then, but it may ask at a better moment.
    pub bogus: Option<String>,
    /// Why something else is not known.
    pub unknown: Option<String>,
}

/// Takes the look for those who do not order: it asks the CA for its directory, if it is not known.
pub struct Preflight {
    pub ca: Arc<Authorities>,
    pub solvers: Arc<Solvers>,
    pub clock: Arc<dyn Clock>,
}

impl Preflight {
    /// The findings. While the issuer has no account, or its CA says nothing of CAA, there is nothing to compare.
    pub async fn examine(&self, subject: &Subject<'_>) -> Result<Findings, Failure> {
        if subject.issuer.account.is_none() {
            return Ok(Findings::default());
        }
        let ca = self.ca.of(subject.issuer.kind);
        let identities = ca.caa_identities(&subject.issuer.acme).await?;
        Ok(examine(&self.solvers, &identities, subject, self.clock.now()).await)
    }

    /// The findings that somebody has to do something about; none while the CA cannot be asked.
    pub async fn warnings(&self, subject: &Subject<'_>) -> Vec<String> {
        match self.examine(subject).await {
            Ok(Findings { forbidden, bogus, .. }) => {
                let forbidden = forbidden.map(|failure| failure.to_string());
                forbidden.into_iter().chain(bogus.map(|name| dnssec_fails(&name))).collect()
            }
            Err(_) => Vec::new(),
        }
    }
}

/// The findings about a certificate that a CA of these CAA identities is to issue. A no is never older than `now`.
pub(crate) async fn examine(
    solvers: &Solvers,
    identities: &[String],
    subject: &Subject<'_>,
    now: OffsetDateTime,
) -> Findings {
    let account = subject.issuer.account.as_ref();
    let account = account.filter(|account| account.server == subject.issuer.acme.server);
    let Some(account) = account.filter(|_| !identities.is_empty()) else {
        return Findings::default();
    };
    let applicant = Applicant { identities, account: &account.url, method: None };
    let looks = async {
        let lately = look(solvers, &applicant, subject, Age::Lately(now)).await;
        match lately.forbidden {
            None => lately,
            Some(_) => look(solvers, &applicant, subject, Age::Since(now)).await,
        }
    };
    tokio::time::timeout(WITHIN, looks).await.unwrap_or_else(|_| {
        let seconds = WITHIN.as_secs();
        let why = format!("the CAA records could not be looked up within {seconds} seconds");
        Findings { unknown: Some(why), ..Findings::default() }
    })
}

async fn look(
    solvers: &Solvers,
    applicant: &Applicant<'_>,
    subject: &Subject<'_>,
    age: Age,
) -> Findings {
    let mut looks = Vec::new();
    for name in subject.names.iter().filter(|name| name.parse::<IpAddr>().is_err()) {
        let look = refusal(solvers, applicant, subject, name, age);
        looks.push(async move { (name, look.await) });
    }
    let mut looks = stream::iter(looks).buffered(AT_ONCE);
    let (mut refused, mut findings) = (Vec::new(), Findings::default());
    while let Some((name, answer)) = looks.next().await {
        match answer {
            Ok(None) => {}
            Ok(Some(why)) => refused.push((name.clone(), why)),
            Err(Unknown::Bogus(name)) => findings.bogus = findings.bogus.or(Some(name)),
            Err(Unknown::Silent(why)) => findings.unknown = findings.unknown.or(Some(why)),
        }
    }
    findings.forbidden = (!refused.is_empty()).then(|| caa::forbidden(&refused, applicant));
    findings
}

/// Why the CA must not issue for one name, or why that is not known.
async fn refusal(
    solvers: &Solvers,
    applicant: &Applicant<'_>,
    subject: &Subject<'_>,
    name: &str,
    age: Age,
) -> Result<Option<String>, Unknown> {
    let (domain, is_wildcard) = match name.strip_prefix("*.") {
        Some(domain) => (domain, true),
        None => (name, false),
    };
    let Subject { issuer, namespace, labels, .. } = subject;
    let picked = pick_for_name(&issuer.acme.solvers, name, namespace, labels);
    let (solver, method) = picked.map(|(_, solver, kind)| (solver, kind)).unzip();
    let relevant = solvers.caa(issuer.kind, solver, domain, age).await?;
    let applicant = Applicant { method, ..*applicant };
    Ok(relevant.and_then(|set| set.refusal(&applicant, is_wildcard)))
}
