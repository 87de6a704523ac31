//! The credentials that issuers refer to.

use std::collections::BTreeMap;

use super::Worker;
use super::order::session::Tried;
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::{FORMER_NAMESPACE, Issuer, Kind, SecretKeySelector};
use crate::secret::Secret;
use crate::storage::{StorageError, secrets};

impl Worker {
    /// A DNS provider's credential.
    pub(super) async fn credential(
        &self,
        issuer: &Issuer,
        reference: &SecretKeySelector,
    ) -> Tried<Secret<String>> {
        self.secret(issuer, reference, "api-token").await
    }

    /// One value of a stored Secret, under `usual` where the issuer names no key.
    pub(super) async fn secret(
        &self,
        issuer: &Issuer,
        reference: &SecretKeySelector,
        usual: &str,
    ) -> Tried<Secret<String>> {
        let namespace = issuer.secret_namespace(&self.settings.cluster_namespace);
        let key = reference.key.as_deref().unwrap_or(usual);
        let missing = |what: String| Failure::of(code::SECRET_NOT_FOUND, what);
        let found = secrets::recall(&self.db, namespace, &reference.name).await?;
        let Some((id, sealed)) = found else {
            let what =
                format!("There is no Secret \"{}\" in namespace \"{namespace}\".", reference.name);
            if self.is_where_it_was(issuer, namespace, reference).await? {
                return Err(moved(&reference.name, key, namespace).into());
            }
            return Err(missing(what).into());
        };
        let opened = self.sealer.open(&secrets::data_place(id), &sealed)?;
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
        &self,
        issuer: &Issuer,
        namespace: &str,
        reference: &SecretKeySelector,
    ) -> Result<bool, StorageError> {
        if issuer.kind == Kind::Issuer || namespace == FORMER_NAMESPACE {
            return Ok(false);
        }
        Ok(secrets::recall(&self.db, FORMER_NAMESPACE, &reference.name).await?.is_some())
    }
}

fn moved(name: &str, key: &str, namespace: &str) -> Failure {
    let create = format!("certwright secrets create {name} -n {namespace} --from-file {key}=FILE");
    Failure::of(code::SECRET_NOT_FOUND.with_advice(""), format!(
            "The Secret \"{name}\" is in namespace \"{FORMER_NAMESPACE}\"; those of ClusterIssuers are now in \"{namespace}\" (the setting `cluster_resource_namespace`), which no API key can be bound to. Store it there with `{create}`, and this goes on by itself; then `certwright secrets delete {name} -n {FORMER_NAMESPACE}`."
        )).titled("A credential that the issuer refers to is in another namespace")
}
