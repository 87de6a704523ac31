//! Certificates, webhooks and throttles: what waits for somebody.

use time::format_description::well_known::Rfc3339;

use super::report::Report;
use crate::cli::output::now;
use crate::domain::certificate::{Certificate, Phase, State};
use crate::domain::failure::Failure;
use crate::storage::{Db, Page, Scope, certificates, figures, throttles};

/// Of each kind of trouble so many are named.
const NAMED: u32 = 5;

pub(super) async fn examine(db: &Db, report: &mut Report) -> anyhow::Result<()> {
    let mut is_well = true;
    for phase in [Phase::Expired, Phase::Failed, Phase::Blocked] {
        let wanted = certificates::Wanted { phase: Some((phase, now())), ..Default::default() };
        let mut read = db.read().await?;
        let page = Page { counted: true, ..Page::first(NAMED) };
        let found = certificates::list(&mut read, &Scope::Everything, &wanted, page).await?;
        let count = found.count.unwrap_or_default();
        drop(read);
        is_well &= count == 0;
        for certificate in found.rows.iter().take(NAMED as usize) {
            trouble(certificate, report)?;
        }
        if count > u64::from(NAMED) {
            let more = count - u64::from(NAMED);
            report.fail(
                "certificates",
                &format!("{more} more are {phase:?}: `certwright get certificates -A --failed`"),
            )?;
        }
    }
    if is_well {
        report.ok("certificates", "none has expired, failed or waits for somebody")?;
    }
    webhooks(db, report).await?;
    throttled(db, report).await
}

fn trouble(certificate: &Certificate, report: &mut Report) -> anyhow::Result<()> {
    let Certificate { namespace, name, .. } = certificate;
    let what = format!("certificate {namespace}/{name}");
    if let State::AwaitingApproval(_) = certificate.state {
        let request = certificate.request_name();
        return report.warn(
            &what,
            &format!("waits for approval: `certwright approve {request} -n {namespace}`"),
        );
    }
    let why = certificate.last_error.as_ref().map(Failure::to_string);
    let why = why.unwrap_or_else(|| "it has expired".to_owned());
    let phase = certificate.phase(now());
    report.fail(&what, &format!("{phase:?}: {why} `certwright describe certificate {name} -n {namespace}` says what helps, `certwright renew {name} -n {namespace}` tries again"))
}

async fn webhooks(db: &Db, report: &mut Report) -> anyhow::Result<()> {
    let counts = figures::webhooks(&mut db.read().await?).await?;
    let of =
        |word: &str| counts.iter().filter(|(state, _)| state == word).map(|(_, n)| n).sum::<u64>();
    let disabled = of("gone") + of("failing");
    if disabled > 0 {
        report.fail("webhooks", &format!("{disabled} were disabled because their endpoints failed: `certwright webhooks list -A` shows them; enable them, and `certwright webhooks redeliver` what they missed"))?;
    }
    match of("not_answering") {
        0 if disabled == 0 => report.ok("webhooks", "none is in trouble"),
        0 => Ok(()),
        silent => report.warn(
            "webhooks",
            &format!("{silent} do not answer: `certwright webhooks list -A` shows why"),
        ),
    }
}

async fn throttled(db: &Db, report: &mut Report) -> anyhow::Result<()> {
    let found = throttles::list(&mut db.read().await?, Page::first(NAMED), now()).await?.rows;
    if found.is_empty() {
        return report.ok("throttles", "nobody is asked to wait");
    }
    for one in found.iter().take(NAMED as usize) {
        let until = one.until.format(&Rfc3339).unwrap_or_default();
        report.warn("throttle", &format!("until {until}: {} `certwright throttles list` shows whom it holds, `certwright throttles lift {}` ends it", one.why, one.id))?;
    }
    Ok(())
}
