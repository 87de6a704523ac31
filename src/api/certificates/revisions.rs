//! A certificate's revisions, past and present.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::find;
use crate::api::AppState;
use crate::api::auth::{Authorized, CertificatesRead};
use crate::api::extract::{Path, Query};
use crate::api::page::{self, Asked, Listing};
use crate::api::problem::{ApiError, Errors};
use crate::api::requests::order_path;
use crate::storage::revisions::{self, Revision};

/// Filters for revisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListRevisions {
    /// Items per page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// Only these fields of each item, joined by commas, such as `revision,notAfter`.
    fields: Option<String>,
    /// Whether `count` tells how many there are on all pages.
    #[serde(default)]
    #[param(default = false)]
    count: bool,
}

/// One issued certificate.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Revision)]
pub(crate) struct RevisionView {
    /// Counts from 1.
    revision: i64,
    /// True for the revision that is served.
    current: bool,
    /// Hexadecimal.
    serial_number: String,
    /// SHA-256 of the leaf, hexadecimal.
    fingerprint: String,
    /// Start of its validity.
    #[serde(with = "time::serde::rfc3339")]
    not_before: OffsetDateTime,
    /// End of its validity.
    #[serde(with = "time::serde::rfc3339")]
    not_after: OffsetDateTime,
    /// The time at which it was downloaded from the CA.
    #[serde(with = "time::serde::rfc3339")]
    issued_at: OffsetDateTime,
    /// The time at which the CA revoked it; `null` if it did not.
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
    /// The attempt that brought it.
    request: String,
    /// The order that brought it; `null` where it was imported.
    order: Option<String>,
}

/// List a certificate's revisions
#[utoipa::path(get, path = "/certificates/{id}/revisions", operation_id = "listRevisions", tag = "certificates",
    params(("id" = Uuid, Path, description = "The certificate"), ListRevisions),
    responses((status = 200, body = Listing<RevisionView>, description = "A page of revisions", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<CertificatesRead>,
    OriginalUri(uri): OriginalUri,
    Path(id): Path<Uuid>,
    Query(query): Query<ListRevisions>,
) -> Result<Response, ApiError> {
    let asked = Asked::first::<RevisionView>(query.limit, query.fields.as_deref(), query.count)?;
    let before = query
        .cursor
        .as_deref()
        .map(|text| page::decode(text).map(i64::from_be_bytes))
        .transpose()?;
    let mut tx = app.db.read().await?;
    let (certificate, _) = find(&mut tx, id, &who.scope).await?;
    let current = certificate.current.map(|issued| issued.revision);
    let rows = revisions::list(&mut tx, certificate.id, before, asked.page).await?;
    let key = |row: &Revision| row.revision.to_be_bytes().to_vec();
    Ok(page::answer(&uri, &asked, rows, key, |row| view(row, current)))
}

fn view(revision: Revision, current: Option<i64>) -> RevisionView {
    RevisionView {
        revision: revision.revision,
        current: current == Some(revision.revision),
        serial_number: revision.serial,
        fingerprint: revision.fingerprint,
        not_before: revision.not_before,
        not_after: revision.not_after,
        issued_at: revision.issued_at,
        revoked_at: revision.revoked_at,
        request: format!("/requests/{}", revision.request),
        order: order_path(revision.order),
    }
}
