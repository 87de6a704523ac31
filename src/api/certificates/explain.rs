//! Explanations of a certificate's state in plain words.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use uuid::Uuid;

use super::find;
use crate::api::AppState;
use crate::api::auth::{Authorized, CertificatesRead};
use crate::api::extract::Path;
use crate::api::precondition::Precondition;
use crate::api::problem::{ApiError, Errors};
use crate::domain::explain::{Explanation, explain};
use crate::storage::{Scope, issuers, orders};

/// Explain a certificate's state
#[utoipa::path(get, path = "/certificates/{id}/explain", operation_id = "explainCertificate", tag = "certificates",
    params(
        ("id" = Uuid, Path, description = "The certificate"),
        ("Accept" = Option<String>, Header, description = "`text/plain` gives a few lines for a terminal"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds"),
    ),
    responses((status = 200, description = "What it is doing, why, what comes next, and what a person could do", headers(("ETag" = String)),
        content((Explanation = "application/json"), (String = "text/plain"))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<CertificatesRead>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    known: Precondition,
) -> Result<Response, ApiError> {
    let mut tx = app.db.read().await?;
    let (certificate, _) = find(&mut tx, id, &who.scope).await?;
    let reference = &certificate.spec.issuer_ref;
    let issuer =
        issuers::find_by_name(&mut tx, reference.kind, &certificate.namespace, &reference.name)
            .await?
            .map(|(issuer, _)| issuer);
    let order = match certificate.order {
        Some(order) => orders::find(&mut tx, order, &Scope::Everything).await?,
        None => None,
    };
    drop(tx);
    let order = order.map(|(order, _)| order);
    let now = app.now();
    let explanation = explain(&certificate, issuer.as_ref(), order.as_ref(), now);
    if wants_text(&headers) {
        let text = explanation.to_text(&certificate.name, now);
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response());
    }
    known.show(&explanation)
}

/// True if `Accept` names text before JSON. Weights (`q`) are ignored: there are two forms only.
fn wants_text(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let kinds = accepted
        .flat_map(|line| line.split(','))
        .map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    kinds
        .into_iter()
        .find(|kind| matches!(kind.as_str(), "text/plain" | "text/*" | "application/json" | "*/*"))
        .is_some_and(|kind| kind.starts_with("text/"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn text_is_given_only_where_it_is_asked_for_first() {
        let wants = |accept| {
            wants_text(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };

        assert!(wants("text/plain"));
        assert!(wants("text/plain;charset=utf-8, application/json"));
        assert!(wants("image/png, text/*"));
        assert!(!wants("application/json, text/plain"));
        assert!(!wants("*/*"));
        assert!(!wants_text(&HeaderMap::new()));
    }
}
