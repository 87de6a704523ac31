//! Applying manifests: one transaction for all of them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::StatusCode;
use time::OffsetDateTime;

use super::adopt::{self, Pair};
use super::plan::{Item, Plan, Wanted, references};
use super::{Applied, AppliedObject, Done, LeftOut, outlook, preflight, unsolved};
use crate::api::auth::{
    CertificatesWrite, IssuersWrite, Permission as _, PoliciesWrite, Principal, SecretsWrite,
};
use crate::api::certificates::admit::Against;
use crate::api::certificates::cancel::cancel_orders;
use crate::api::certificates::quota::Growth;
use crate::api::certificates::validate::Checked;
use crate::api::certificates::{change, create, must_stay};
use crate::api::dry_run::DryRun;
use crate::api::idempotency::Attempt;
use crate::api::issuers::accounts;
use crate::api::precondition::json;
use crate::api::problem::{ApiError, Faults, FieldCode};
use crate::api::{
    AppState, issuers as issuers_api, policies as policies_api, retrying, secrets as secrets_api,
};
use crate::domain::certificate::Certificate;
use crate::domain::id::CertificateId;
use crate::domain::issuer::Issuer;
use crate::domain::policy::{Policies, Policy};
use crate::manifest::kind::Kind;
use crate::manifest::read;
use crate::pki;
use crate::secret::Secret;
use crate::storage::issuers::account_key_place;
use crate::storage::lease::Lease;
use crate::storage::secrets::{SecretEntry, data_place};
use crate::storage::{Page, Read, Tx, certificates, issuers, policies, revisions, secrets};

/// Applies all manifests or none, or all that can be. In a dry run none in any case.
pub(super) async fn apply(
    app: &AppState,
    attempt: &Attempt,
    plan: Plan,
    dry: DryRun,
) -> Result<Applied, ApiError> {
    let who = attempt.who();
    for item in &plan.items {
        who.must(permission(&item.wanted))?;
        match &item.wanted {
            Wanted::Policy(_) => who.must_be_unbound()?,
            wanted => who.must_own(&namespace(wanted))?,
        }
    }
    let mut applied = retrying(|| at_once(Run::new(app, who), &plan, (attempt, dry))).await?;
    preflight::warn(app, &plan.items, &mut applied.results).await?;
    Ok(applied)
}

fn told(
    items: &[Item],
    outcomes: Vec<Option<Outcome>>,
    left_out: Vec<LeftOut>,
    dry: DryRun,
) -> Applied {
    let results = items.iter().zip(outcomes).filter_map(|(item, outcome)| {
        let (done, id, more) = outcome?;
        let namespace = Some(namespace(&item.wanted)).filter(|namespace| !namespace.is_empty());
        let warnings = item.object.warnings.iter().cloned().chain(more).collect();
        let (kind, name) = (item.object.kind.title(), item.object.name.clone());
        let result = if dry.is_wanted() { item.told_without_trace(done) } else { done };
        Some(AppliedObject { kind, namespace, name, result, id, warnings, resource: None })
    });
    Applied { dry_run: dry.is_wanted(), results: results.collect(), left_out }
}

fn permission(wanted: &Wanted) -> &'static str {
    match wanted {
        Wanted::Secret(..) | Wanted::Pair(..) => SecretsWrite::NAME,
        Wanted::Issuer(..) => IssuersWrite::NAME,
        Wanted::Policy(..) => PoliciesWrite::NAME,
        Wanted::Certificate(..) => CertificatesWrite::NAME,
    }
}

/// The namespace of an object; empty for a `ClusterIssuer` and a `Policy`.
fn namespace(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Secret(entry, _) | Wanted::Pair(entry, _) => entry.namespace.clone(),
        Wanted::Issuer(issuer, _) => issuer.namespace.clone(),
        Wanted::Policy(_) => String::new(),
        Wanted::Certificate(_, _, checked, _) => checked.namespace.clone(),
    }
}

impl Item {
    fn turn(&self) -> (Kind, String, &str) {
        (self.object.kind, namespace(&self.wanted), &self.object.name)
    }

    /// Whether this is the result for the item.
    pub(super) fn is_told_by(&self, told: &AppliedObject) -> bool {
        let (kind, namespace, name) = self.turn();
        kind.title() == told.kind
            && namespace == told.namespace.as_deref().unwrap_or_default()
            && name == told.name
    }

    /// The item as one that cannot be taken, for these faults of its specification.
    fn left_out(&self, found: &Faults) -> LeftOut {
        let place = place_of(&self.wanted);
        let errors = found.iter().map(|fault| self.object.locate(fault.clone(), place)).collect();
        let namespace = Some(namespace(&self.wanted)).filter(|namespace| !namespace.is_empty());
        let (kind, name) = (self.object.kind.title().to_owned(), self.object.name.clone());
        LeftOut { kind, namespace, name, errors, is_denied: found.is_denied() }
    }

    /// The result as a dry run may show it. That a Secret is unchanged would confirm a guess of its values, without a
    /// trace, to a principal that may write it but never read it.
    fn told_without_trace(&self, done: Done) -> Done {
        match (&self.wanted, done) {
            (Wanted::Secret(..), Done::Unchanged) => Done::Configured,
            (_, done) => done,
        }
    }
}

/// One attempt at applying all of them.
struct Run<'a> {
    app: &'a AppState,
    who: &'a Principal,
    now: OffsetDateTime,
    /// Policies that certificates are judged by, as the transaction sees them: by namespace, read once.
    policies: HashMap<String, Arc<Policies>>,
    growth: Growth,
}

impl<'a> Run<'a> {
    fn new(app: &'a AppState, who: &'a Principal) -> Self {
        Self { app, who, now: app.now(), policies: HashMap::new(), growth: Growth::default() }
    }

    /// The policies of a namespace. Those of the stream were applied before any certificate.
    async fn policies(&mut self, tx: &mut Tx, namespace: &str) -> Result<Arc<Policies>, ApiError> {
        if let Some(known) = self.policies.get(namespace) {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(policies::of_namespace(tx, namespace).await?);
        self.policies.insert(namespace.to_owned(), Arc::clone(&found));
        Ok(found)
    }
}

type Outcome = (Done, uuid::Uuid, Vec<String>);

async fn at_once(
    mut run: Run<'_>,
    Plan { items, left_out, takes_what_it_can }: &Plan,
    (attempt, dry): (&Attempt, DryRun),
) -> Result<Applied, ApiError> {
    let app = run.app;
    let mut left_out = left_out.clone();
    let mut tx = attempt.begin(app);
    let (mut faults, mut refused) = (Faults::default(), Faults::default());
    let mut outcomes: Vec<Option<Outcome>> = items.iter().map(|_| None).collect();
    // Issuers need Secrets, certificates need issuers and policies. Within a kind they go by name, so that two streams which
    // hold the same in another order do not wait for each other.
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|place| items.get(*place).map(Item::turn));
    for place in order {
        let (Some(item), Some(outcome)) = (items.get(place), outcomes.get_mut(place)) else {
            continue;
        };
        match one(&mut run, &mut tx, &item.wanted).await {
            Ok(done) => *outcome = Some(done),
            // It is judged before anything of it is written.
            Err(ApiError::Invalid(found)) if *takes_what_it_can => {
                left_out.push(item.left_out(&found));
            }
            Err(ApiError::Invalid(found)) => {
                let object = &item.object;
                faults.take(found, |fault| object.locate(fault, place_of(&item.wanted)));
            }
            Err(ApiError::NotAllowed(found)) => {
                let object = &item.object;
                refused.take(found, |fault| object.locate(fault, place_of(&item.wanted)));
            }
            Err(error) => return Err(error),
        }
    }
    faults.in_order().refuse()?;
    refused.in_order().refuse().map_err(ApiError::NotAllowed)?;
    for (item, outcome) in items.iter().zip(&mut outcomes) {
        if let (Wanted::Issuer(issuer, _), Some((done, _, warnings))) = (&item.wanted, outcome) {
            warnings.extend(missing_secrets(app, &mut tx, issuer).await?);
            if *done == Done::Configured {
                warnings.extend(unsolved::warning(&mut tx, issuer).await?);
            }
        }
    }
    run.growth.must_fit(app, &mut tx).await?;
    let mut applied = told(items, outcomes, left_out, dry);
    if dry.is_wanted() {
        outlook::show(app, run.who, &mut tx, &mut applied.results).await?;
    }
    attempt.remember(app, &mut tx, (StatusCode::OK, ""), &json(&applied)?).await?;
    dry.end(tx).await?;
    Ok(applied)
}

/// Turns a pointer into a specification into one into its manifest.
fn place_of(wanted: &Wanted) -> fn(&str) -> String {
    match wanted {
        Wanted::Certificate(..) => read::certificate::place,
        Wanted::Issuer(..) => read::issuer::place,
        Wanted::Policy(..) => read::policy::place,
        Wanted::Secret(..) | Wanted::Pair(..) => read::secret::place,
    }
}

async fn one(run: &mut Run<'_>, tx: &mut Tx, wanted: &Wanted) -> Result<Outcome, ApiError> {
    let (app, now) = (run.app, run.now);
    match wanted {
        Wanted::Secret(entry, values) => secret(app, tx, entry, values).await,
        Wanted::Issuer(new, account_key) => issuer(app, tx, new, account_key.as_ref(), now).await,
        Wanted::Policy(new) => policy(app, tx, new).await,
        // On the heap: it is the largest by far.
        Wanted::Certificate(id, wish, checked, pair) => {
            let (named, pair) = (wish.names_webhooks, pair.as_deref());
            Box::pin(certificate(run, tx, (*id, checked), named, pair)).await
        }
        // The plan has resolved all pairs.
        Wanted::Pair(..) => {
            Err(ApiError::Inside("a pair of key and certificate is left over".into()))
        }
    }
}

async fn secret(
    app: &AppState,
    tx: &mut Tx,
    entry: &SecretEntry,
    values: &[u8],
) -> Result<Outcome, ApiError> {
    let Some((present, sealed)) = secrets::find_by_name(tx, &entry.namespace, &entry.name).await?
    else {
        let sealed = app.sealer.seal(&data_place(&entry.namespace, entry.id), values)?;
        secrets_api::store(app, tx, entry, &sealed).await?;
        return Ok((Done::Created, entry.id.0, Vec::new()));
    };
    let known = app.sealer.open(&data_place(&present.namespace, present.id), &sealed)?;
    let id = present.id.0;
    // Keys are sorted, so that the same values are the same bytes.
    if known.expose() == values {
        return Ok((Done::Unchanged, id, Vec::new()));
    }
    secrets_api::revalue(app, tx, present, entry.keys.clone(), values).await?;
    Ok((Done::Configured, id, Vec::new()))
}

async fn issuer(
    app: &AppState,
    tx: &mut Tx,
    new: &Issuer,
    imported: Option<&Secret<Vec<u8>>>,
    now: OffsetDateTime,
) -> Result<Outcome, ApiError> {
    let Some((present, lease)) =
        issuers::find_by_name(tx, new.kind, &new.namespace, &new.name).await?
    else {
        // The key is imported with the issuer, or in its Secret already; else a new one is generated.
        let key = match imported {
            Some(key) => Some(key.clone()),
            None => accounts::imported(app, tx, new).await?,
        };
        let key = key.map_or_else(|| (app.account_key)().map_err(ApiError::Inside), Ok)?;
        let sealed = app.sealer.seal(&account_key_place(new), key.expose())?;
        issuers::insert(tx, new, &sealed).await?;
        return Ok((Done::Created, new.id.0, Vec::new()));
    };
    let next = issuers_api::respecify(tx, &present, &lease, new.acme.clone(), now).await?;
    let done = if next == present { Done::Unchanged } else { Done::Configured };
    let kept = "the issuer was there already and keeps its own account key";
    let warning = imported.map(|_| format!("spec.acme.privateKeySecretRef: {kept}"));
    Ok((done, present.id.0, warning.into_iter().collect()))
}

async fn policy(app: &AppState, tx: &mut Tx, new: &Policy) -> Result<Outcome, ApiError> {
    let Some(present) = policies::find_by_name(tx, &new.name).await? else {
        policies::insert(tx, new).await?;
        return Ok((Done::Created, new.id.0, Vec::new()));
    };
    let next = policies_api::respecify(app, tx, &present, new.spec.clone()).await?;
    let done = if next == present { Done::Unchanged } else { Done::Configured };
    Ok((done, present.id.0, Vec::new()))
}

/// Warnings about Secrets that do not exist (yet), for which the issuer would wait.
async fn missing_secrets(
    app: &AppState,
    tx: &mut Read,
    issuer: &Issuer,
) -> Result<Vec<String>, ApiError> {
    let acme = &issuer.acme;
    let own = acme.private_key_secret_ref.as_ref().map(|reference| reference.name.as_str());
    let namespace = issuer.secret_namespace(&app.cluster_namespace);
    let mut warnings = Vec::new();
    for name in references(acme).into_iter().filter(|name| Some(name.as_str()) != own) {
        if secrets::find_by_name(tx, namespace, &name).await?.is_none() {
            warnings.push(format!(
                "the Secret `{name}` that it refers to is not in the namespace `{namespace}` (yet)"
            ));
        }
    }
    Ok(warnings)
}

async fn certificate(
    run: &mut Run<'_>,
    tx: &mut Tx,
    (new_id, wanted): (CertificateId, &Checked),
    names_webhooks: bool,
    pair: Option<&Pair>,
) -> Result<Outcome, ApiError> {
    let (app, who, now) = (run.app, run.who, run.now);
    let mut wanted = wanted.clone();
    let issuer = wanted.find_issuer(tx).await?;
    let warnings = drop_duration_without_effect(&mut wanted, issuer.as_ref());
    let policies = run.policies(tx, &wanted.namespace).await?;
    let (issuer, policies) = (issuer.as_ref(), &*policies);
    let found = certificates::find_by_name(tx, &wanted.namespace, &wanted.name).await?;
    let Some((present, lease)) = found else {
        let imported = pair.map(|pair| pki::own_key(&pair.csr));
        let against = Against { issuer, policies, present: None, imported };
        let right = wanted.admit(app, tx, who, against).await?;
        let certificate = wanted.certificate(new_id, right, now).requested_by(who.reference());
        let id = certificate.id.0;
        let begun = match pair {
            None => certificate.begin(issuer, now),
            Some(pair) => adopt::adopted(certificate, pair, now),
        };
        create::store(tx, &begun).await?;
        run.growth.add(None, &begun.certificate);
        if let Some(pair) = pair {
            adopt::store(app, tx, &begun.certificate, pair, now).await?;
        }
        return Ok((Done::Created, id, warnings));
    };
    must_stay(&present)?;
    let id = present.id.0;
    // cert-manager's manifests have no webhooks: where a manifest is silent about them, the present ones stay.
    if !names_webhooks {
        wanted.spec.webhooks.clone_from(&present.spec.webhooks);
    }
    // What is as it was is not judged anew: that it may stay was decided before, and is watched.
    let is_unchanged = present.labels == wanted.labels && present.spec.means(&wanted.spec);
    let is_there = match pair {
        Some(pair) => is_superseded(tx, &present, pair).await?,
        None => false,
    };
    let pair = pair.filter(|_| !is_there);
    if is_unchanged && pair.is_none() {
        return Ok((Done::Unchanged, id, warnings));
    }
    let imported = pair.map(|pair| pki::own_key(&pair.csr));
    let against = Against { issuer, policies, present: Some(&present), imported };
    let right = wanted.admit(app, tx, who, against).await?;
    let was_imported = pair.is_some();
    let (present, lease) = match pair {
        Some(pair) => adopt_later(app, tx, &present, &lease, pair, now).await?,
        None => (present, lease),
    };
    let next = change::respecify(tx, (&present, &lease), wanted, (who, right), now).await?;
    run.growth.add(Some(&present), &next);
    let done = if next == present && !was_imported { Done::Unchanged } else { Done::Configured };
    Ok((done, id, warnings))
}

/// Drops a `duration` that the issuer does not ask of its CA, with a warning: cert-manager ignores it there, too,
/// and silently.
fn drop_duration_without_effect(wanted: &mut Checked, issuer: Option<&Issuer>) -> Vec<String> {
    let has_no_effect = issuer.is_some_and(|issuer| !issuer.acme.enable_duration_feature);
    if wanted.spec.duration.is_none() || !has_no_effect {
        return Vec::new();
    }
    wanted.spec.duration = None;
    let instead = "the CA decides how long it lives, as the issuer has no `enableDurationFeature`; `profile` may choose";
    vec![format!("spec.duration: {instead}")]
}

/// Revisions that a pair is looked for in.
const MOST_REVISIONS: u32 = 100;

/// Whether a pair was imported before, or has been renewed here since. Refuses one that is neither: nothing is imported
/// over what was issued.
async fn is_superseded(
    tx: &mut Read,
    present: &Certificate,
    pair: &Pair,
) -> Result<bool, ApiError> {
    let Some(current) = &present.current else { return Ok(false) };
    let kept = revisions::list(tx, present.id, None, Page::first(MOST_REVISIONS)).await?.rows;
    if current.not_before > pair.leaf.not_before
        || kept.iter().any(|kept| kept.fingerprint == pair.leaf.fingerprint)
    {
        return Ok(true);
    }
    let detail = format!(
        "the Certificate has been issued already (revision {}), so that nothing is imported over it; leave its Secret out",
        current.revision
    );
    Err(ApiError::field("/secretName", FieldCode::Conflicting, detail))
}

/// Imports a pair into a certificate that exists, and for which nothing was issued.
async fn adopt_later(
    app: &AppState,
    tx: &mut Tx,
    present: &Certificate,
    lease: &Lease,
    pair: &Pair,
    now: OffsetDateTime,
) -> Result<(Certificate, Lease), ApiError> {
    cancel_orders(tx, present, "its certificate was imported", now).await?;
    let next = adopt::adopted(present.clone(), pair, now);
    let lease = certificates::save(tx, &next, lease, None).await?;
    adopt::store(app, tx, &next.certificate, pair, now).await?;
    Ok((next.certificate, lease))
}
