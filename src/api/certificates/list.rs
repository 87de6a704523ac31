//! Listing certificates.

use std::collections::HashMap;

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::auth::{Authorized, CertificatesRead, Principal};
use crate::api::extract::Query;
use crate::api::page::{self, Asked, Listing};
use crate::api::problem::{ApiError, Errors};
use crate::api::wait::{Held, Wait};
use crate::api::{AppState, field};
use crate::domain::certificate::{Certificate, Phase};
use crate::domain::id::CertificateId;
use crate::domain::issuer::Kind;
use crate::domain::name::DnsName;
use crate::domain::selector::Selector;
use crate::storage::Page;
use crate::storage::certificates::{self, Position, Wanted};
use crate::view::CertificateView;

/// Filters for certificates.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListCertificates {
    /// Of this namespace.
    namespace: Option<String>,
    /// Of this name.
    name: Option<String>,
    /// Served and valid now, or not.
    ready: Option<bool>,
    /// In this phase now.
    phase: Option<Phase>,
    /// Of the issuer of this name; `ClusterIssuer/letsencrypt` takes one kind only.
    issuer: Option<String>,
    /// For this DNS name or IP address.
    dns_name: Option<String>,
    /// Ending before this moment (RFC 3339).
    expires_before: Option<String>,
    /// Ending after this moment (RFC 3339).
    expires_after: Option<String>,
    /// With labels that this selector takes, in kubectl's grammar: `team=web,tier!=test,env in (a, b),!legacy`.
    label_selector: Option<String>,
    /// The same under a shorter name; where both are given, both count.
    label: Option<String>,
    /// There by this right.
    #[param(inline)]
    admitted_by: Option<Right>,
    /// Items per page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
    /// The sort order.
    sort: Option<Sort>,
    /// Only these fields of each certificate, joined by commas, such as `name,status.notAfter`.
    fields: Option<String>,
    /// Whether `count` tells how many there are on all pages.
    #[serde(default)]
    #[param(default = false)]
    count: bool,
}

/// By what right a certificate is there.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Right {
    /// A policy allows it.
    Policy,
    /// A principal that is bound to no namespace wanted it.
    Administrator,
    /// It was there before policies were.
    Upgrade,
}

impl Right {
    fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Administrator => "administrator",
            Self::Upgrade => "upgrade",
        }
    }
}

/// A sort order of certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = CertificateSort)]
pub(crate) enum Sort {
    /// Oldest first.
    #[default]
    #[serde(rename = "createdAt")]
    Oldest,
    /// Newest first.
    #[serde(rename = "-createdAt")]
    Newest,
    /// By name.
    #[serde(rename = "name")]
    Name,
    /// By name, backwards.
    #[serde(rename = "-name")]
    NameBackwards,
    /// First what ends first; last what was never issued.
    #[serde(rename = "notAfter")]
    NotAfter,
    /// First what was never issued, then what ends last.
    #[serde(rename = "-notAfter")]
    NotAfterBackwards,
}

impl Sort {
    fn is_descending(self) -> bool {
        matches!(self, Self::Newest | Self::NameBackwards | Self::NotAfterBackwards)
    }

    /// The column; `None` is the identifier, and so the age.
    fn by(self) -> Option<certificates::Sort> {
        match self {
            Self::Oldest | Self::Newest => None,
            Self::Name | Self::NameBackwards => Some(certificates::Sort::Name),
            Self::NotAfter | Self::NotAfterBackwards => Some(certificates::Sort::NotAfter),
        }
    }
}

/// List certificates
///
/// Everything that is given must hold. With `fields` each item has those fields alone. With `Prefer: wait=30` the answer
/// is held until all that are on the page have settled, or the time is up, and shows them as they are then.
#[utoipa::path(get, path = "/certificates", operation_id = "listCertificates", tag = "certificates",
    params(ListCertificates, ("Prefer" = Option<String>, Header, description = "`wait=30`: hold the answer until all of the page have settled (ready or failed), at most that many seconds, at most 300")),
    responses((status = 200, body = Listing<CertificateView>, description = "A page of certificates", headers(("Link" = String), ("Preference-Applied" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<CertificatesRead>,
    OriginalUri(uri): OriginalUri,
    wait: Wait,
    Query(query): Query<ListCertificates>,
) -> Result<Response, ApiError> {
    let wait = wait.held_by(&app, &who)?;
    let now = app.now();
    let sort = query.sort.unwrap_or_default();
    let fields = query.fields.as_deref();
    let mut asked = Asked::first::<CertificateView>(query.limit, fields, query.count)?;
    asked.page.descending = sort.is_descending();
    let cursor = query.cursor.as_deref();
    let wanted = wanted(&query, now)?;
    let mut tx = app.db.read().await?;
    let rows = match sort.by() {
        None => {
            let after = cursor.map(|text| page::decode(text).map(Uuid::from_bytes)).transpose()?;
            let page = Page { after, ..asked.page };
            certificates::list(&mut tx, &who.scope, &wanted, page).await?
        }
        Some(by) => {
            let after = cursor.map(|text| position(text, by)).transpose()?;
            certificates::list_by(&mut tx, &who.scope, &wanted, (by, after), asked.page).await?
        }
    };
    drop(tx);
    let mut settled = settled_of(&app, &who, &rows.rows, asked.page.limit, &wait).await?;
    let now = app.now();
    let key = |row: &Certificate| key(row, sort.by());
    let view = |row: Certificate| {
        let newest = settled.remove(&row.id);
        CertificateView::of(newest.as_ref().unwrap_or(&row), now)
    };
    Ok(wait.applied(page::answer(&uri, &asked, rows, key, view)))
}

/// The certificates of the page as they are once all have settled, if the client waits for that. The page itself, and
/// its cursors, stay those of the moment when they were listed.
async fn settled_of(
    app: &AppState,
    who: &Principal,
    rows: &[Certificate],
    limit: u32,
    wait: &Held,
) -> Result<HashMap<CertificateId, Certificate>, ApiError> {
    if !wait.is_wanted() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = rows.iter().take(limit as usize).map(|row| row.id.0).collect();
    let found = super::settled(app, who, &ids, wait).await?;
    Ok(found.into_iter().flatten().map(|one| (one.id, one)).collect())
}

fn wanted(query: &ListCertificates, now: time::OffsetDateTime) -> Result<Wanted, ApiError> {
    let moment = |text: &Option<String>, parameter| {
        text.as_deref().map(|text| field::moment(text, parameter)).transpose()
    };
    let selector = selector(query.label_selector.as_deref(), "labelSelector")?;
    Ok(Wanted {
        namespace: query.namespace.clone(),
        name: query.name.clone(),
        ready: query.ready.map(|ready| (ready, now)),
        phase: query.phase.map(|phase| (phase, now)),
        issuer: query.issuer.as_deref().map(issuer).transpose()?,
        dns_name: query.dns_name.as_deref().map(|name| match DnsName::parse(name) {
            Ok(name) => name.as_str().to_owned(),
            Err(_) => name.to_owned(),
        }),
        expires_before: moment(&query.expires_before, "expiresBefore")?,
        expires_after: moment(&query.expires_after, "expiresAfter")?,
        admitted_way: query.admitted_by.map(Right::as_str),
        selector: selector.and(self::selector(query.label.as_deref(), "label")?),
    })
}

fn selector(text: Option<&str>, parameter: &str) -> Result<Selector, ApiError> {
    Selector::parse(text.unwrap_or_default())
        .map_err(|problem| ApiError::malformed(format!("`{parameter}` cannot be read: {problem}.")))
}

/// `letsencrypt`, or `ClusterIssuer/letsencrypt`.
fn issuer(text: &str) -> Result<(Option<Kind>, String), ApiError> {
    let Some((kind, name)) = text.split_once('/') else { return Ok((None, text.to_owned())) };
    match Kind::parse(kind) {
        Some(kind) => Ok((Some(kind), name.to_owned())),
        None => Err(ApiError::malformed(
            "`issuer` is written `NAME`, `Issuer/NAME` or `ClusterIssuer/NAME`.",
        )),
    }
}

/// The cursor of a row: the identifier alone, or behind it what the list is sorted by.
fn key(row: &Certificate, by: Option<certificates::Sort>) -> Vec<u8> {
    let mut key = row.id.0.as_bytes().to_vec();
    match by.map(|by| Position::of(row, by)) {
        None => {}
        Some(Position::Name(name, _)) => {
            key.push(BY_NAME);
            key.extend_from_slice(name.as_bytes());
        }
        Some(Position::NotAfter(end, _)) => {
            key.push(BY_END);
            key.extend_from_slice(&end.to_be_bytes());
        }
    }
    key
}

const BY_NAME: u8 = b'n';
const BY_END: u8 = b'e';

/// Reads a cursor of a list in this order.
fn position(cursor: &str, by: certificates::Sort) -> Result<Position, ApiError> {
    let bytes = page::bytes_of(cursor)?;
    let read = || {
        let (id, rest) = bytes.split_first_chunk::<16>()?;
        let (order, value) = rest.split_first()?;
        let id = Uuid::from_bytes(*id);
        match (by, *order) {
            (certificates::Sort::Name, BY_NAME) => {
                Some(Position::Name(String::from_utf8(value.to_vec()).ok()?, id))
            }
            (certificates::Sort::NotAfter, BY_END) => {
                Some(Position::NotAfter(i64::from_be_bytes(value.try_into().ok()?), id))
            }
            _ => None,
        }
    };
    read().ok_or_else(page::strange_cursor)
}
