//! Issuers: whether their CAs answer, with the right time, and whether they have accounts.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;

use super::report::Report;
use crate::cli::output::now;
use crate::client::date_of;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::issuer::Issuer;
use crate::domain::skew::Skew;
use crate::service;
use crate::solver::Solvers;
use crate::storage::Db;

/// The solvers, as the service has them.
pub(super) async fn solvers(config: &Config, db: &Db) -> anyhow::Result<Solvers> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let guard = service::sender(config)?.guard().clone();
    service::solvers(config, db, &clock, guard).await
}

/// Checks that the CA answers, and its clock.
pub(super) async fn authority(issuer: &Issuer, report: &mut Report) -> anyhow::Result<()> {
    let (word, name) = (issuer.kind.as_str(), &issuer.name);
    let what = format!("{word} {name}");
    let bundle = issuer
        .acme
        .ca_bundle
        .as_ref()
        .and_then(|text| STANDARD.decode(text.split_whitespace().collect::<String>()).ok());
    let server = &issuer.acme.server;
    match date_of(server, bundle.as_deref()).await {
        Err(problem) if issuer.acme.skip_tls_verify => {
            report.warn(&what, &format!("{server}: {problem} (its certificate is not verified by this issuer, but is here)"))?;
        }
        Err(problem) => report.fail(&what, &format!("{server} cannot be reached: {problem}. `curl -v {server}` from here shows more: DNS, firewall, TLS roots, clock"))?,
        Ok(date) => {
            let there = date.and_then(|date| httpdate::parse_http_date(&date).ok());
            let here = now();
            let skew = there.map(|there| Skew {
                ahead: here - OffsetDateTime::from(there),
                authority: server.clone(),
                seen_at: here,
                since: here,
            });
            match skew.filter(Skew::is_off) {
                Some(skew) => report.fail(&what, &format!("{server} answers, and this machine's clock is {} its: have the time synchronized (`timedatectl set-ntp true`)", skew.in_words()))?,
                None => report.ok(&what, &format!("{server} answers, and the clocks agree"))?,
            }
        }
    }
    Ok(())
}

/// Checks that the issuer has an account.
pub(super) fn account(issuer: &Issuer, report: &mut Report) -> anyhow::Result<()> {
    let what = format!("{} {}", issuer.kind.as_str(), issuer.name);
    let (status, reason, message) = issuer.ready();
    let within = match &*issuer.namespace {
        "" => String::new(),
        namespace => format!(" -n {namespace}"),
    };
    let kind = issuer.kind.as_str().to_lowercase();
    let text = format!(
        "{reason}: {message} `certwright describe {kind} {}{within}` says what helps",
        issuer.name
    );
    match status {
        "True" => report.ok(&what, "its account is registered"),
        "False" => report.fail(&what, &text),
        _ => report.warn(&what, &text),
    }
}
