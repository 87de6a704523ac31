//! The credentials that issuers refer to.

use std::collections::BTreeMap;

use super::context::Context;
use super::error::Tried;
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::{DnsProvider, FORMER_NAMESPACE, Issuer, Kind, SecretKeySelector};
use crate::secret::Secret;
use crate::storage::{StorageError, secrets};

/// A DNS provider's credential.
pub(crate) async fn dns_credential(
    ctx: &Context,
    issuer: &Issuer,
    provider: DnsProvider<'_>,
) -> Tried<Secret<String>> {
    let (reference, usual) = provider.secret_ref();
    secret(ctx, issuer, reference, usual).await
}

/// One value of a stored Secret, under `usual` where the issuer names no key.
pub(super) async fn secret(
    ctx: &Context,
    issuer: &Issuer,
    reference: &SecretKeySelector,
    usual: &str,
) -> Tried<Secret<String>> {
    let namespace = issuer.secret_namespace(&ctx.settings.cluster_namespace);
    let key = reference.key.as_deref().unwrap_or(usual);
    let missing = |what: String| Failure::of(code::SECRET_NOT_FOUND, what);
    let found = secrets::cached_data(&ctx.db, namespace, &reference.name).await?;
    let Some((id, sealed)) = found else {
        let what =
            format!("There is no Secret \"{}\" in namespace \"{namespace}\".", reference.name);
        if is_where_it_was(ctx, issuer, namespace, reference).await? {
            return Err(moved(&reference.name, key, namespace).into());
        }
        return Err(missing(what).into());
    };
    let opened = ctx.sealer.open(&secrets::data_place(namespace, id), &sealed)?;
    let mut values: BTreeMap<String, String> =
        serde_json::from_slice(opened.expose()).unwrap_or_default();
    let value = values.remove(key);
    for left in values.values_mut() {
        zeroize::Zeroize::zeroize(left);
    }
    value.map(Secret::new).ok_or_else(|| {
        missing(format!(
            "Secret \"{}\" in namespace \"{namespace}\" has no key \"{key}\".",
            reference.name
        ))
        .into()
    })
}

/// Whether a `ClusterIssuer`'s Secret lies where those were kept before they had a namespace that
/// no API key reaches.
async fn is_where_it_was(
    ctx: &Context,
    issuer: &Issuer,
    namespace: &str,
    reference: &SecretKeySelector,
) -> Result<bool, StorageError> {
    if issuer.kind == Kind::Issuer || namespace == FORMER_NAMESPACE {
        return Ok(false);
    }
    Ok(secrets::cached_data(&ctx.db, FORMER_NAMESPACE, &reference.name).await?.is_some())
}

fn moved(name: &str, key: &str, namespace: &str) -> Failure {
    let create = format!("certwright secrets create {name} -n {namespace} --from-file {key}=FILE");
    let code = code::SECRET_NOT_FOUND.with_advice("");
    let detail = format!(
        "The Secret \"{name}\" is in namespace \"{FORMER_NAMESPACE}\"; those of ClusterIssuers are now in \"{namespace}\" (the setting `cluster_resource_namespace`), which no API key can be bound to. Store it there with `{create}`, and this goes on by itself; then `certwright secrets delete {name} -n {FORMER_NAMESPACE}`."
    );
    Failure::of(code, detail)
        .titled("A credential that the issuer refers to is in another namespace")
}
