//! Explanations of a certificate's state in plain words.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use uuid::Uuid;

use super::find;
use crate::api::AppState;
use crate::api::accept::preferred;
use crate::api::auth::{Authorized, CertificatesRead};
use crate::api::extract::Path;
use crate::api::precondition::Precondition;
use crate::api::problem::{ApiError, Errors};
use crate::domain::explain::{Explanation, explain};
use crate::storage::{Scope, issuers, orders};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";

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
    if preferred(&headers, &[JSON, TEXT])? == TEXT {
        let text = explanation.to_text(&certificate.name, now);
        let headers =
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::VARY, "accept")];
        return Ok((headers, text).into_response());
    }
    let mut response = known.show(&explanation)?;
    response.headers_mut().append(header::VARY, HeaderValue::from_name(header::ACCEPT));
    Ok(response)
}
