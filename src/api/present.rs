//! What a location shows now, for a request that is answered a second time.

use uuid::Uuid;

use super::auth::Principal;
use super::problem::ApiError;
use super::wait::Held;
use super::webhooks::{self, deliveries};
use super::{AppState, api_keys, certificates, issuers, policies, requests, secrets};

/// The resource at a location in JSON, as the caller sees it; a certificate and a delivery once they have settled, or
/// the client has waited long enough.
pub(super) async fn at(
    app: &AppState,
    who: &Principal,
    location: &str,
    wait: &Held,
) -> Result<Vec<u8>, ApiError> {
    let mut parts = location.split('/').skip(1);
    let collection = parts.next().unwrap_or_default();
    let mut ids = parts.filter_map(|part| part.parse::<Uuid>().ok());
    let strange = || ApiError::Inside("a stored answer has a strange location".into());
    let id = ids.next().ok_or_else(strange)?;
    match (collection, ids.next()) {
        ("certificates", None) => certificates::present(app, who, id, wait).await,
        ("issuers", None) => issuers::present(app, who, id).await,
        ("secrets", None) => secrets::present(app, who, id).await,
        ("policies", None) => policies::present(app, id).await,
        ("webhooks", None) => webhooks::present(app, who, id).await,
        ("webhooks", Some(delivery)) => deliveries::present(app, who, id, delivery, wait).await,
        ("api-keys", None) => api_keys::present(app, who, id).await,
        ("requests", None) => requests::present(app, who, id).await,
        _ => Err(strange()),
    }
}
