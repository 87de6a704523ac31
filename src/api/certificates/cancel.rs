//! Cancelling what is under way for a certificate: orders, and a request that has none yet.

use time::OffsetDateTime;

use crate::api::problem::ApiError;
use crate::domain::certificate::Certificate;
use crate::storage::requests::{self, RequestState};
use crate::storage::{Scope, Tx, events, orders};

/// Cancels every open order of a certificate, and its request, which may still wait for one.
pub(crate) async fn cancel_orders(
    tx: &mut Tx,
    certificate: &Certificate,
    why: &str,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    for (order, lease) in orders::open_of_certificate(tx, certificate.id).await? {
        let before = order.challenges.clone();
        let next = order.cancel(why, now);
        orders::save(tx, &next.order, &before, &lease, None).await?;
        orders::tell_end(tx, &next);
        let namespace = &certificate.namespace;
        events::record(tx, namespace, Some(certificate.id), &next.events, now);
        let (request, id) = (next.order.request, next.order.id);
        requests::progress(tx, request, RequestState::Failed, why, id, now).await?;
    }
    if let Some(request) = certificate.request
        && let Some(found) = requests::find(tx, request, &Scope::Everything).await?
        && found.waits()
    {
        requests::progress(tx, request, RequestState::Failed, why, found.order, now).await?;
    }
    Ok(())
}
