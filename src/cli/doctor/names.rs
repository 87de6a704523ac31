//! The names of certificates: whether their CAA records let the CA issue.

use std::sync::Arc;

use super::report::Report;
use crate::ca::Authorities;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::caa::dnssec_fails;
use crate::domain::issuer::Issuer;
use crate::service;
use crate::solver::Solvers;
use crate::storage::{Db, Page, Scope, certificates};
use crate::worker::{Preflight, Subject};

/// Of each issuer so many certificates are looked at.
const MOST: u32 = 100;

/// After so many whose records nobody could tell, each after some seconds, no others are asked for.
const MOST_UNKNOWN: u32 = 3;

/// The look that the service takes before each order.
pub(super) fn preflight(config: &Config, solvers: &Arc<Solvers>) -> anyhow::Result<Preflight> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let guard = service::sender(config)?.guard().clone();
    let ca = Arc::new(Authorities::new(&clock, guard).with_timeout(config.acme_timeout));
    Ok(Preflight { ca, solvers: Arc::clone(solvers), clock })
}

/// Looks at the names of an issuer's certificates, the newest first.
pub(super) async fn examine(
    preflight: &Preflight,
    db: &Db,
    issuer: &Issuer,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (word, name) = (issuer.kind.as_str(), &issuer.name);
    let wanted = certificates::Wanted {
        issuer: Some((Some(issuer.kind), name.clone())),
        namespace: Some(issuer.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        ..Default::default()
    };
    let mut read = db.read().await?;
    let found =
        certificates::list(&mut read, &Scope::Everything, &wanted, Page::first(MOST)).await?.rows;
    drop(read);
    let (mut looked_at, mut unknown, mut is_well) = (0, 0, true);
    for certificate in found.iter().take(MOST as usize) {
        let names = certificate.spec.names();
        let (namespace, labels) = (&*certificate.namespace, &certificate.labels);
        let subject = Subject { issuer, namespace, labels, names: &names };
        // That the CA cannot be asked is said elsewhere.
        let Ok(findings) = preflight.examine(&subject).await else { return Ok(()) };
        let what = format!("CAA of certificate {namespace}/{}", certificate.name);
        if let Some(failure) = &findings.forbidden {
            is_well = false;
            let again = format!("`certwright renew {} -n {namespace}`", certificate.name);
            report.fail(&what, &format!("{} {again} tries at once then", failure.detail))?;
        }
        if let Some(name) = &findings.bogus {
            is_well = false;
            report.fail(
                &format!("DNSSEC of certificate {namespace}/{}", certificate.name),
                &dnssec_fails(name),
            )?;
        }
        if let Some(why) = &findings.unknown {
            is_well = false;
            report.warn(&what, &format!("{why}; `dig CAA NAME` shows more"))?;
            unknown += 1;
        }
        looked_at += 1;
        if unknown == MOST_UNKNOWN {
            report.warn(&format!("CAA, {word} {name}"), "the names of other certificates are not looked at, as nobody answers: see the lines about resolvers")?;
            break;
        }
    }
    if is_well && looked_at > 0 {
        let text = format!("nothing forbids the CA to issue for {looked_at} certificates");
        report.ok(&format!("CAA, {word} {name}"), &text)?;
    }
    Ok(())
}
