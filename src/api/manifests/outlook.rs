//! What a dry run would make of each manifest, as the transaction that is not committed sees it.

use serde_json::Value;

use super::AppliedObject;
use crate::api::AppState;
use crate::api::auth::{
    CertificatesRead, IssuersRead, Permission as _, PoliciesRead, Principal, SecretsRead,
};
use crate::api::problem::ApiError;
use crate::api::secrets::SecretView;
use crate::domain::id::{CertificateId, IssuerId, PolicyId, SecretId};
use crate::manifest::kind::Kind;
use crate::storage::{Read, certificates, issuers, policies, secrets};
use crate::view::{CertificateView, IssuerView, PolicyView};

/// Shows each resource to whoever may read it.
pub(super) async fn show(
    app: &AppState,
    who: &Principal,
    tx: &mut Read,
    results: &mut [AppliedObject],
) -> Result<(), ApiError> {
    for one in results {
        one.resource = resource(app, who, tx, one).await?;
    }
    Ok(())
}

async fn resource(
    app: &AppState,
    who: &Principal,
    tx: &mut Read,
    one: &AppliedObject,
) -> Result<Option<Value>, ApiError> {
    let (id, scope) = (one.id, &who.scope);
    let shown = match Kind::parse(one.kind) {
        Ok(Kind::Certificate) if who.may(CertificatesRead::NAME) => {
            let found = certificates::find(tx, CertificateId(id), scope).await?;
            found.map(|(found, _)| serde_json::to_value(CertificateView::of(&found, app.now())))
        }
        Ok(Kind::Issuer | Kind::ClusterIssuer) if who.may(IssuersRead::NAME) => {
            let found = issuers::find(tx, IssuerId(id), scope).await?;
            found.map(|(found, _)| serde_json::to_value(IssuerView::from(&found)))
        }
        Ok(Kind::Policy) if who.may(PoliciesRead::NAME) => {
            let found = policies::find(tx, PolicyId(id)).await?;
            found.map(|found| serde_json::to_value(PolicyView::from(&found)))
        }
        Ok(Kind::Secret) if who.may(SecretsRead::NAME) => {
            let found = secrets::find(tx, SecretId(id), scope).await?;
            found.map(|found| serde_json::to_value(SecretView::from(&found)))
        }
        _ => None,
    };
    shown.transpose().map_err(|error| ApiError::Inside(error.into()))
}
