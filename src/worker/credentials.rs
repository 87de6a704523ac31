//! The credentials that issuers refer to.

use std::collections::BTreeMap;

use super::Worker;
use super::session::Tried;
use crate::domain::failure::{Class, Failure};
use crate::domain::issuer::{Issuer, SecretKeySelector};
use crate::secret::Secret;
use crate::storage::secrets;

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
        let missing = |what: String| {
            Failure::new(
                Class::Blocked,
                "secret_not_found",
                "A credential that the issuer refers to is not there",
                format!("{what} Create it, and this goes on by itself."),
            )
        };
        let found = secrets::recall(&self.db, namespace, &reference.name).await?;
        let Some((id, sealed)) = found else {
            let what =
                format!("There is no Secret \"{}\" in namespace \"{namespace}\".", reference.name);
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
}
