//! Certificate requests: attempts at a certificate with a key and CSR each. Clients read them, and decide about those
//! that wait for approval.

pub(crate) mod decide;

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::AppState;
use crate::api::auth::{Authorized, Principal, RequestsRead};
use crate::api::extract::{Path, Query};
use crate::api::page::{self, Asked, Listing, Sort};
use crate::api::precondition::{Precondition, json};
use crate::api::problem::{ApiError, Errors};
use crate::domain::approval::{Approval, Verdict};
use crate::domain::id::{CertificateId, OrderId, RequestId};
use crate::domain::principal::PrincipalRef;
use crate::pki;
use crate::storage::requests::{self, Request, RequestState, Wanted};
use crate::view::certificate::Condition;

/// Filters for certificate requests.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListRequests {
    /// Of this namespace.
    namespace: Option<String>,
    /// Of this name.
    name: Option<String>,
    /// For this certificate.
    certificate: Option<Uuid>,
    /// Items per page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// The sort order.
    sort: Option<Sort>,
    /// Only these fields of each item, joined by commas, such as `id,createdAt`; `status.phase` is one within another.
    fields: Option<String>,
    /// Whether `count` tells how many there are on all pages.
    #[serde(default)]
    #[param(default = false)]
    count: bool,
}

/// One attempt at a certificate; cert-manager's `CertificateRequest`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Request)]
pub(crate) struct RequestView {
    /// Its identifier.
    id: Uuid,
    /// The certificate's namespace.
    namespace: String,
    /// The certificate's name, and the revision.
    #[schema(example = "web-1")]
    name: String,
    /// The certificate that it is for.
    certificate: String,
    /// The revision that it makes, if it succeeds.
    revision: i64,
    /// The CSR in PEM.
    csr: String,
    /// `Approved` or `Denied`, once that is decided, and `Ready`, in cert-manager's words.
    conditions: Vec<Condition>,
    /// The principal whose change brought it, and which cannot decide about it, nor can whoever had it issued anew; `null` where that was not kept.
    requested_by: Option<PrincipalRef>,
    /// Time by which somebody has to approve it; `null` where nobody has to.
    #[serde(with = "time::serde::rfc3339::option")]
    approval_deadline: Option<OffsetDateTime>,
    /// The present order; `null` where a certificate was imported.
    order: Option<String>,
    /// Time of creation.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Time of its end.
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
}

/// List certificate requests
#[utoipa::path(get, path = "/requests", operation_id = "listRequests", tag = "requests",
    params(ListRequests),
    responses((status = 200, body = Listing<RequestView>, description = "A page of attempts", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<RequestsRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListRequests>,
) -> Result<Response, ApiError> {
    let asked = Asked::first::<RequestView>(query.limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    let wanted = Wanted {
        namespace: query.namespace,
        name: query.name,
        certificate: query.certificate.map(CertificateId),
    };
    let mut tx = app.db.read().await?;
    let rows = requests::list(&mut tx, &who.scope, &wanted, asked.page).await?;
    let key = |row: &Request| row.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, &asked, rows, key, RequestView::from))
}

/// Get a certificate request
#[utoipa::path(get, path = "/requests/{id}", operation_id = "getRequest", tag = "requests",
    params(("id" = Uuid, Path, description = "The attempt"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = RequestView, description = "The attempt", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<RequestsRead>,
    Path(id): Path<Uuid>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let found = requests::find(&mut app.db.read().await?, RequestId(id), &who.scope).await?;
    known.show(&RequestView::from(found.ok_or_else(|| ApiError::not_found("request", id))?))
}

/// What `GET` shows of it.
pub(crate) async fn present(
    app: &AppState,
    who: &Principal,
    id: Uuid,
) -> Result<Vec<u8>, ApiError> {
    let found = requests::find(&mut app.db.read().await?, RequestId(id), &who.scope).await?;
    json(&RequestView::from(found.ok_or_else(|| ApiError::not_found("request", id))?))
}

impl From<Request> for RequestView {
    fn from(request: Request) -> Self {
        let is_denied = request.approval.as_ref().is_some_and(Approval::is_denied);
        let (status, reason) = match request.state {
            RequestState::Pending => ("False", "Pending"),
            RequestState::Issued => ("True", "Issued"),
            RequestState::Failed if is_denied => ("False", "Denied"),
            RequestState::Failed => ("False", "Failed"),
        };
        let decided = decided(&request);
        let ready = Condition {
            kind: "Ready",
            status,
            reason: reason.to_owned(),
            message: request.message,
            last_transition_time: request.finished_at.unwrap_or(request.created_at),
        };
        Self {
            id: request.id.0,
            namespace: request.namespace,
            name: request.name,
            certificate: format!("/certificates/{}", request.certificate),
            revision: request.revision,
            csr: pki::to_pem("CERTIFICATE REQUEST", &request.csr),
            conditions: decided.into_iter().chain([ready]).collect(),
            requested_by: request.requested_by,
            approval_deadline: request.approval.map(|approval| approval.deadline),
            order: order_path(request.order),
            created_at: request.created_at,
            finished_at: request.finished_at,
        }
    }
}

/// `Approved` or `Denied`; as with cert-manager, neither while nobody has decided. Where nobody has to, it is approved
/// from the start.
fn decided(request: &Request) -> Option<Condition> {
    let decision = request.approval.as_ref().and_then(|approval| approval.decision.as_ref());
    let condition = |kind, reason: &str, message, at| Condition {
        kind,
        status: "True",
        reason: reason.to_owned(),
        message,
        last_transition_time: at,
    };
    match decision {
        Some(decision) => {
            let kind = match decision.verdict {
                Verdict::Approved => "Approved",
                Verdict::Denied => "Denied",
            };
            Some(condition(kind, decision.word(), decision.message(), decision.at))
        }
        // A policy that asks nobody any more has let it go on.
        None if request.approval.is_none() || !request.order.0.is_nil() => {
            let message = "Certificate request has been approved by certwright.dev".to_owned();
            Some(condition("Approved", "certwright.dev", message, request.created_at))
        }
        None => None,
    }
}

/// The path of an order; an imported revision has none.
pub(crate) fn order_path(order: OrderId) -> Option<String> {
    (!order.0.is_nil()).then(|| format!("/orders/{order}"))
}
