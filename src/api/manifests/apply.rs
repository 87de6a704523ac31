//! Making manifests so: one transaction for all of them.

use time::OffsetDateTime;

use super::adopt::{self, Pair};
use super::certificate::{self, Wish};
use super::object::Kind;
use super::plan::{Item, Wanted, references};
use super::{AppliedObject, Done};
use crate::api::auth::{CertificatesWrite, IssuersWrite, Permission as _, Principal, SecretsWrite};
use crate::api::certificates::check::check;
use crate::api::certificates::spec::CertificateSpec;
use crate::api::certificates::{change, create};
use crate::api::issuers::accounts;
use crate::api::issuers::check::IssuerSpec;
use crate::api::problem::{ApiError, Faults, FieldCode};
use crate::api::{AppState, issuers as issuers_api, retrying, secrets as secrets_api};
use crate::domain::certificate::{Certificate, IssuerRef, Transition};
use crate::secret::Secret;
use crate::storage::issuers::account_key_place;
use crate::storage::lease::Lease;
use crate::storage::secrets::{SecretEntry, data_place};
use crate::storage::{Read, Tx, certificates, events, issuers, revisions, secrets};

/// Makes all of it so, or nothing. With `dry_run` nothing in any case.
pub(super) async fn apply(
    app: &AppState,
    who: &Principal,
    items: Vec<Item>,
    dry_run: bool,
) -> Result<Vec<AppliedObject>, ApiError> {
    for item in &items {
        who.must(permission(item.object.kind))?;
        who.must_own(&namespace(&item.wanted))?;
    }
    let results = retrying(|| at_once(app, &items, dry_run)).await?;
    let named = items.into_iter().zip(results).map(|(item, (done, id, more))| {
        let namespace = Some(namespace(&item.wanted)).filter(|namespace| !namespace.is_empty());
        let mut warnings = item.object.warnings;
        warnings.extend(more);
        let kind = item.object.kind.as_str();
        AppliedObject { kind, namespace, name: item.object.name, result: done, id, warnings }
    });
    Ok(named.collect())
}

fn permission(kind: Kind) -> &'static str {
    match kind {
        Kind::Secret => SecretsWrite::NAME,
        Kind::Issuer | Kind::ClusterIssuer => IssuersWrite::NAME,
        Kind::Certificate => CertificatesWrite::NAME,
    }
}

/// Where an object goes; nowhere for a `ClusterIssuer`.
fn namespace(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Secret(entry, _) | Wanted::Pair(entry, _) => entry.namespace.clone(),
        Wanted::Issuer(spec, _) => spec.namespace(),
        Wanted::Certificate(_, checked, _) => checked.namespace.clone(),
    }
}

impl Item {
    /// What may be told of it where nothing is done. That a Secret is just so would confirm a guess, without a
    /// trace, to who may write it and never read it.
    fn told_without_trace(&self, done: Done) -> Done {
        match (&self.wanted, done) {
            (Wanted::Secret(..), Done::Unchanged) => Done::Configured,
            (_, done) => done,
        }
    }
}

type Outcome = (Done, uuid::Uuid, Vec<String>);

async fn at_once(app: &AppState, items: &[Item], dry_run: bool) -> Result<Vec<Outcome>, ApiError> {
    let now = app.now();
    let mut tx = app.db.begin();
    let mut faults = Faults::default();
    let mut outcomes: Vec<Option<Outcome>> = items.iter().map(|_| None).collect();
    // Issuers need Secrets, certificates need issuers.
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|place| items.get(*place).map(|item| item.object.kind));
    for place in order {
        let (Some(item), Some(outcome)) = (items.get(place), outcomes.get_mut(place)) else {
            continue;
        };
        match one(app, &mut tx, &item.wanted, now).await {
            Ok(done) => *outcome = Some(done),
            Err(ApiError::Invalid(found)) => {
                let object = &item.object;
                faults.take(found, |fault| object.locate(fault, place_of(object.kind)));
            }
            Err(error) => return Err(error),
        }
    }
    faults.in_order().refuse()?;
    for (item, outcome) in items.iter().zip(outcomes.iter_mut().flatten()) {
        if let Wanted::Issuer(spec, _) = &item.wanted {
            outcome.2.extend(missing_secrets(app, &mut tx, spec).await?);
        }
    }
    if dry_run {
        for (item, (done, ..)) in items.iter().zip(outcomes.iter_mut().flatten()) {
            *done = item.told_without_trace(*done);
        }
    } else {
        tx.commit().await?;
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// Leads a pointer into what was made of a manifest back into the manifest.
fn place_of(kind: Kind) -> fn(&str) -> String {
    match kind {
        Kind::Certificate => certificate::place,
        Kind::Issuer | Kind::ClusterIssuer => super::issuer::place,
        Kind::Secret => super::secret::place,
    }
}

async fn one(
    app: &AppState,
    tx: &mut Tx,
    wanted: &Wanted,
    now: OffsetDateTime,
) -> Result<Outcome, ApiError> {
    match wanted {
        Wanted::Secret(entry, values) => secret(app, tx, entry, values).await,
        Wanted::Issuer(spec, account_key) => issuer(app, tx, spec, account_key.as_ref(), now).await,
        // On the heap: it is the largest by far.
        Wanted::Certificate(wish, _, pair) => {
            Box::pin(certificate(app, tx, wish, pair.as_deref(), now)).await
        }
        // The plan has none left by now.
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
        let sealed = app.sealer.seal(&data_place(entry.id), values)?;
        secrets_api::store(app, tx, entry, &sealed).await?;
        return Ok((Done::Created, entry.id.0, Vec::new()));
    };
    let known = app.sealer.open(&data_place(present.id), &sealed)?;
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
    spec: &IssuerSpec,
    imported: Option<&Secret<Vec<u8>>>,
    now: OffsetDateTime,
) -> Result<Outcome, ApiError> {
    let namespace = spec.namespace();
    let Some((present, lease)) =
        issuers::find_by_name(tx, spec.kind, &namespace, &spec.name).await?
    else {
        let issuer = issuers_api::new(app, spec.clone(), namespace);
        // Imported with it, or lying there already; else one of its own.
        let key = match imported {
            Some(key) => Some(key.clone()),
            None => accounts::imported(app, tx, &issuer).await?,
        };
        let key = key.map_or_else(|| (app.account_key)().map_err(ApiError::Inside), Ok)?;
        let sealed = app.sealer.seal(&account_key_place(issuer.id), key.expose())?;
        issuers_api::store(tx, &issuer, &sealed).await?;
        return Ok((Done::Created, issuer.id.0, Vec::new()));
    };
    let next = issuers_api::respecify(tx, &present, &lease, spec.acme.clone(), now).await?;
    let done = if next == present { Done::Unchanged } else { Done::Configured };
    let kept = "the issuer was there already and keeps its own account key";
    let warning = imported.map(|_| format!("spec.acme.privateKeySecretRef: {kept}"));
    Ok((done, present.id.0, warning.into_iter().collect()))
}

/// Secrets that are not there (yet), which the issuer would wait for.
async fn missing_secrets(
    app: &AppState,
    tx: &mut Read,
    spec: &IssuerSpec,
) -> Result<Vec<String>, ApiError> {
    let own = spec.acme.private_key_secret_ref.as_ref().map(|reference| reference.name.as_str());
    let namespace = Some(spec.namespace()).filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or_else(|| app.cluster_namespace.to_string());
    let mut warnings = Vec::new();
    for name in references(spec).into_iter().filter(|name| Some(name.as_str()) != own) {
        if secrets::find_by_name(tx, &namespace, &name).await?.is_none() {
            warnings.push(format!(
                "the Secret `{name}` that it refers to is not in the namespace `{namespace}` (yet)"
            ));
        }
    }
    Ok(warnings)
}

async fn certificate(
    app: &AppState,
    tx: &mut Tx,
    wish: &Wish,
    pair: Option<&Pair>,
    now: OffsetDateTime,
) -> Result<Outcome, ApiError> {
    let (spec, warnings) = with_duration_that_counts(tx, &wish.spec).await?;
    let mut checked = check(&spec)?;
    let found = certificates::find_by_name(tx, &checked.namespace, &checked.name).await?;
    let Some((present, lease)) = found else {
        let certificate = create::new(app, &spec, &checked);
        let id = certificate.id.0;
        let Some(pair) = pair else {
            create::store(app, tx, &spec, &checked, &certificate).await?;
            return Ok((Done::Created, id, warnings));
        };
        let Transition { certificate, events, .. } = adopt::adopted(certificate, pair, now);
        create::store(app, tx, &spec, &checked, &certificate).await?;
        let namespace = &certificate.namespace;
        events::record(tx, namespace, Some(certificate.id), &events, now);
        adopt::store(app, tx, &certificate, pair, now).await?;
        return Ok((Done::Created, id, warnings));
    };
    change::must_stay(&present)?;
    let id = present.id.0;
    // cert-manager's manifests know of none: where they are silent, what is there stays.
    if !wish.names_webhooks {
        checked.spec.webhooks.clone_from(&present.spec.webhooks);
    }
    let imported = match pair {
        Some(pair) => adopt_later(app, tx, &present, &lease, pair, now).await?,
        None => None,
    };
    let was_imported = imported.is_some();
    let (present, lease) = imported.unwrap_or((present, lease));
    let next = change::respecify(app, tx, &present, &lease, spec, checked, now).await?;
    let done = if next == present && !was_imported { Done::Unchanged } else { Done::Configured };
    Ok((done, id, warnings))
}

/// What is wanted, without a `duration` that the issuer does not ask of its CA: cert-manager passes it
/// over there, too, and without a word.
async fn with_duration_that_counts(
    tx: &mut Read,
    wanted: &CertificateSpec,
) -> Result<(CertificateSpec, Vec<String>), ApiError> {
    let mut spec = wanted.clone();
    if spec.duration.is_some() {
        let namespace = spec.namespace.as_deref().unwrap_or_default();
        let IssuerRef { kind, name } = &spec.issuer_ref;
        let found = issuers::find_by_name(tx, *kind, namespace, name).await?;
        if found.is_some_and(|(issuer, _)| !issuer.acme.enable_duration_feature) {
            spec.duration = None;
            let instead = "the CA decides how long it lives, as the issuer has no `enableDurationFeature`; `profile` may choose";
            return Ok((spec, vec![format!("spec.duration: {instead}")]));
        }
    }
    Ok((spec, Vec::new()))
}

/// Takes a certificate over that was applied before, as long as nothing was issued for it yet.
async fn adopt_later(
    app: &AppState,
    tx: &mut Tx,
    present: &Certificate,
    lease: &Lease,
    pair: &Pair,
    now: OffsetDateTime,
) -> Result<Option<(Certificate, Lease)>, ApiError> {
    if let Some(current) = &present.current {
        let served = revisions::find(tx, present.id, current.revision).await?;
        if served.is_some_and(|served| served.fingerprint == pair.leaf.fingerprint) {
            return Ok(None);
        }
        let detail = format!(
            "the Certificate has been issued already (revision {}), so that nothing is imported over it; leave its Secret out",
            current.revision
        );
        return Err(ApiError::field("/secretName", FieldCode::Conflicting, detail));
    }
    change::cancel_orders(tx, present, "its certificate was imported", now).await?;
    let next = adopt::adopted(present.clone(), pair, now);
    let lease = certificates::save(tx, &next, lease, None).await?;
    adopt::store(app, tx, &next.certificate, pair, now).await?;
    Ok(Some((next.certificate, lease)))
}
