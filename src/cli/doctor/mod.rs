//! `certwright doctor`: looks at everything that alarms, and at what would keep certificates from being issued.

mod counted;
mod database;
mod issuers;
mod names;
mod outside;
mod overdue;
mod provider;
mod report;
mod resources;

use std::sync::Arc;

use super::Source;
use super::output::note;
use super::remote::{Remote, run};
use crate::config::Config;
use crate::domain::issuer::Kind;
use crate::storage::{Page, Scope, issuers as stored};
use report::Report;

pub(super) const EXAMPLES: &str = "Examples:
  certwright doctor
  certwright --config /etc/certwright/certwright.toml doctor

Run it where the service runs, as the same user and with the same settings. It writes a row to the
database, and a TXT record of its own to a zone of each DNS credential, which it removes again; apart
from that it changes nothing. A line for each thing: ok, warn or fail, with what to do. The exit status
is 1 if anything failed.";

pub(super) fn doctor(source: &Source, remote: &Remote) -> anyhow::Result<()> {
    let mut report = Report::default();
    run(async {
        Box::pin(examine(source, remote, &mut report)).await?;
        if report.failed > 0 {
            anyhow::bail!("{}", report.summary());
        }
        note(&format!("certwright: {}", report.summary()));
        Ok(())
    })
}

/// From what everything else needs to what needs it.
async fn examine(source: &Source, remote: &Remote, report: &mut Report) -> anyhow::Result<()> {
    let config = match source.values(&[]).and_then(|values| Ok(Config::parse(&values)?)) {
        Ok(config) => config,
        Err(error) => return report.fail("settings", &format!("{error:#}")),
    };
    report.ok("settings", "can be used; `certwright config` shows them")?;
    outside::service(remote, report).await?;
    outside::responder(&config, report).await?;
    counted::examine(&config, remote, report).await?;
    let Some(db) = database::open(&config, report).await? else { return Ok(()) };
    database::examine(&db, report).await?;
    database::paused(&db, report).await?;
    let sealer = database::master_key(&config, &db, report).await?;
    if let Some(sealer) = &sealer {
        database::tampering(&db, sealer, report).await?;
    }
    let wanted = stored::Wanted::default();
    let found = stored::list(&mut db.read().await?, &Scope::Everything, &wanted, Page::first(500))
        .await?
        .rows;
    outside::resolvers(&config, &found, report).await?;
    if found.is_empty() {
        report.warn("issuers", "there is none yet; `certwright apply -f issuer.yaml` makes one")?;
    }
    let solvers = Arc::new(issuers::solvers(&config, &db).await?);
    let preflight = names::preflight(&config, &solvers)?;
    for issuer in &found {
        // An Issuer's CA may have been chosen by anybody: only the service, which is guarded, asks it.
        if issuer.kind == Kind::ClusterIssuer {
            issuers::authority(issuer, report).await?;
        }
        issuers::account(issuer, report)?;
        overdue::budgets(&db, issuer, report).await?;
        if let Some(sealer) = &sealer {
            let place = provider::Place { config: &config, db: &db, sealer, solvers: &solvers };
            provider::examine(&place, issuer, report).await?;
        }
        names::examine(&preflight, &db, issuer, report).await?;
    }
    if found.iter().any(|issuer| issuer.acme.solvers.iter().any(|one| one.http01.is_some())) {
        outside::port_80(&config, report).await?;
    }
    resources::examine(&db, report).await?;
    overdue::examine(&db, report).await?;
    db.close().await;
    Ok(())
}
