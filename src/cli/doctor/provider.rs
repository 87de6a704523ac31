//! DNS providers: whether their credentials are taken, which zones they see, and whether they may edit records there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use super::report::Report;
use crate::cli::output::now;
use crate::client::{CloudflareError, cloudflare};
use crate::config::Config;
use crate::domain::failure::Failure;
use crate::domain::id::ChallengeId;
use crate::domain::issuer::{Cloudflare, DnsProvider, Issuer, Kind};
use crate::secret::{Sealer, Secret};
use crate::solver::Solvers;
use crate::storage::{Db, secrets};

const CLOUDFLARE: &str = "https://api.cloudflare.com/client/v4";

/// Time for writing a record and removing it.
const WITHIN: Duration = Duration::from_secs(30);

/// Where credentials are, and by what they are tried.
pub(super) struct Place<'a> {
    pub(super) config: &'a Config,
    pub(super) db: &'a Db,
    pub(super) sealer: &'a Sealer,
    pub(super) solvers: &'a Solvers,
}

/// Checks the credential of each of the issuer's DNS-01 solvers.
pub(super) async fn examine(
    place: &Place<'_>,
    issuer: &Issuer,
    report: &mut Report,
) -> anyhow::Result<()> {
    let solvers =
        issuer.acme.solvers.iter().filter_map(|one| one.dns01.as_ref()?.cloudflare.as_ref());
    for solver in solvers {
        let name = &solver.api_token_secret_ref.name;
        let what = format!("{} {}, Secret {name}", issuer.kind.as_str(), issuer.name);
        if issuer.kind == Kind::Issuer && solver.base_url.is_some() {
            report.warn(&what, "not tried: only the service sends it to the issuer's `baseURL`")?;
            continue;
        }
        let token = match token(place, issuer, solver).await? {
            Ok(token) => token,
            Err(problem) => {
                report.fail(&what, &problem)?;
                continue;
            }
        };
        let Some(zones) = zones(&what, solver, &token, report).await? else { continue };
        if let Some(zone) = zones.first() {
            edit(place, issuer, solver, (&what, &token, zone), report).await?;
        }
    }
    Ok(())
}

async fn token(
    place: &Place<'_>,
    issuer: &Issuer,
    solver: &Cloudflare,
) -> anyhow::Result<Result<Secret<String>, String>> {
    let reference = &solver.api_token_secret_ref;
    let namespace = issuer.secret_namespace(&place.config.cluster_namespace);
    let mut tx = place.db.read().await?;
    let Some((id, envelope)) = secrets::data(&mut tx, namespace, &reference.name).await? else {
        return Ok(Err(format!(
            "it is not in the namespace `{namespace}`: `certwright secrets create {} -n {namespace} --from-file api-token=FILE`",
            reference.name
        )));
    };
    let values = match place.sealer.open(&secrets::data_place(namespace, id), &envelope) {
        Ok(values) => values,
        Err(error) => return Ok(Err(format!("it cannot be opened: {error}"))),
    };
    let mut values: BTreeMap<String, Zeroizing<String>> = serde_json::from_slice(values.expose())?;
    let key = reference.key.as_deref().unwrap_or("api-token");
    Ok(match values.remove(key) {
        Some(token) => Ok(Secret::new(String::clone(&token))),
        None => Err(format!("it has no key `{key}`")),
    })
}

/// The names of the zones that the token sees; `None` if it cannot be used.
async fn zones(
    what: &str,
    solver: &Cloudflare,
    token: &Secret<String>,
    report: &mut Report,
) -> anyhow::Result<Option<Vec<String>>> {
    let base = solver.base_url.as_deref().unwrap_or(CLOUDFLARE);
    match cloudflare(base, "/user/tokens/verify", token).await {
        Ok(_) => {}
        Err(CloudflareError::Silent(cause)) => {
            report.fail(what, &format!("Cloudflare cannot be reached, so that nothing is known about the token: {cause}. `curl -v {base}` from here shows more: DNS, firewall, proxy"))?;
            return Ok(None);
        }
        Err(error @ CloudflareError::Refused { .. }) => {
            let name = &solver.api_token_secret_ref.name;
            report.fail(what, &format!("{error}: make a token with Zone:Read and DNS:Edit, and store it by `certwright secrets create {name} -n NAMESPACE --from-file api-token=FILE`"))?;
            return Ok(None);
        }
    }
    let path = match &solver.zone_id {
        Some(zone) => format!("/zones/{zone}"),
        None => "/zones?per_page=50".to_owned(),
    };
    let zones = match cloudflare(base, &path, token).await {
        Ok(Value::Array(zones)) => zones,
        Ok(zone) => vec![zone],
        Err(problem) => {
            report.fail(what, &format!("the token is valid, and may read no zone: {problem}. Give it Zone:Read for the zones in question"))?;
            return Ok(None);
        }
    };
    let names: Vec<_> =
        zones.iter().filter_map(|zone| zone["name"].as_str().map(str::to_owned)).collect();
    if names.is_empty() {
        report.fail(
            what,
            "the token is valid, and sees no zone: give it Zone:Read for the zones in question",
        )?;
        return Ok(None);
    }
    let more = if names.len() > 5 { ", …" } else { "" };
    let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    report.ok(what, &format!("the token is valid and sees {shown}{more}"))?;
    Ok(Some(names))
}

/// Writes a record of its own to a zone, and removes it.
async fn edit(
    place: &Place<'_>,
    issuer: &Issuer,
    solver: &Cloudflare,
    (what, token, zone): (&str, &Secret<String>, &str),
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = format!("_certwright-doctor.{zone}");
    let edited = async {
        let provider = DnsProvider::Cloudflare(solver);
        let records = place.solvers.dns_provider(issuer.kind, provider, token)?;
        let challenge = ChallengeId::generate(now());
        // No other look has the same value, so that two of them do not remove each other's.
        let record = records.create(&name, &challenge.to_string(), challenge).await?;
        records.delete(&record).await
    };
    let edited = tokio::time::timeout(WITHIN, edited).await;
    let edited = edited.unwrap_or_else(|_| Err(Failure::timed_out("Writing a record", WITHIN)));
    match edited {
        Ok(()) => report.ok(
            what,
            &format!("it may edit records: {name} (TXT) was written, and removed again"),
        ),
        Err(failure) => report.fail(what, &format!("it cannot write and remove {name} (TXT): {failure} Once it can, `certwright renew --failed` tries what waits for it")),
    }
}
