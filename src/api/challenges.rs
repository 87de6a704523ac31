//! ACME challenges, read-only. The key authorization is shown to the CA alone.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::AppState;
use super::auth::{Authorized, ChallengesRead};
use super::extract::{Path, Query};
use super::page::{self, Asked, Listing, Sort};
use super::precondition::Precondition;
use super::problem::{ApiError, Errors};
use crate::domain::challenge::{Challenge, Kind, Observation, State as ChallengeState};
use crate::domain::id::{ChallengeId, OrderId};
use crate::domain::order::challenge_name;
use crate::storage::challenges::{self, Parent, Wanted};

/// Filters for challenges.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListChallenges {
    /// Of this namespace.
    namespace: Option<String>,
    /// Of this name.
    name: Option<String>,
    /// Of this order.
    order: Option<Uuid>,
    /// In this state.
    state: Option<ChallengeState>,
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

/// The proof of one name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Challenge)]
pub(crate) struct ChallengeView {
    /// Its identifier.
    id: Uuid,
    /// The certificate's namespace.
    namespace: String,
    /// The order's name, and a hash.
    #[schema(example = "web-1-1b4f0e98-5c6f9a41")]
    name: String,
    /// The order that it belongs to.
    order: String,
    /// `dns-01` or `http-01`.
    #[serde(rename = "type")]
    #[schema(example = "dns-01")]
    kind: &'static str,
    /// The name under proof, without `*.`.
    dns_name: String,
    /// True if the proof is for every name below it.
    wildcard: bool,
    /// Its state.
    state: ChallengeState,
    /// True while its record or response is published.
    presented: bool,
    /// True once the servers that were asked have seen it.
    propagated: bool,
    /// The TXT record, for dns-01.
    record: Option<RecordView>,
    /// The issuer's solver that was chosen, by its place in the list.
    solver: u32,
    /// The last error, or the servers that do not see the proof yet.
    reason: Option<String>,
    /// The servers that were last asked for the proof, and their answers.
    observations: Vec<Observation>,
}

/// A DNS record that a proof stands in.
#[derive(Debug, Serialize, ToSchema)]
struct RecordView {
    /// The record's name after following CNAMEs.
    #[schema(example = "_acme-challenge.app.example.com")]
    name: String,
    /// `TXT`
    #[serde(rename = "type")]
    #[schema(example = "TXT")]
    kind: &'static str,
}

/// List challenges
#[utoipa::path(get, path = "/challenges", operation_id = "listChallenges", tag = "challenges",
    params(ListChallenges),
    responses((status = 200, body = Listing<ChallengeView>, description = "A page of challenges", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<ChallengesRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListChallenges>,
) -> Result<Response, ApiError> {
    let limit = if query.name.is_some() { Some(500) } else { query.limit };
    let asked = Asked::first::<ChallengeView>(limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    // A challenge's name begins with its order's; an order has few challenges, all on one page.
    let of_name = query.name.as_deref();
    let order_name = of_name.map(|name| name.rsplit_once('-').map_or("", |(order, _)| order));
    let wanted = Wanted {
        namespace: query.namespace,
        order_name: order_name.map(str::to_owned),
        order: query.order.map(OrderId),
        state: query.state,
    };
    let mut tx = app.db.read().await?;
    let mut rows = challenges::list(&mut tx, &who.scope, &wanted, asked.page).await?;
    if let Some(name) = of_name {
        rows.rows.retain(|(one, order)| challenge_name(&order.name, one.id) == name);
        rows.count = rows.count.map(|_| rows.rows.len() as u64);
    }
    let key = |row: &(Challenge, Parent)| row.0.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, &asked, rows, key, |(one, order)| ChallengeView::of(&one, &order)))
}

/// Get a challenge
#[utoipa::path(get, path = "/challenges/{id}", operation_id = "getChallenge", tag = "challenges",
    params(("id" = Uuid, Path, description = "The challenge"), ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds")),
    responses((status = 200, body = ChallengeView, description = "The challenge", headers(("ETag" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<ChallengesRead>,
    Path(id): Path<Uuid>,
    known: Precondition,
) -> Result<Response, ApiError> {
    let found = challenges::find(&mut app.db.read().await?, ChallengeId(id), &who.scope).await?;
    let (challenge, order) = found.ok_or_else(|| ApiError::not_found("challenge", id))?;
    known.show(&ChallengeView::of(&challenge, &order))
}

impl ChallengeView {
    /// A challenge of an order.
    pub(crate) fn of(challenge: &Challenge, order: &Parent) -> Self {
        let propagated = matches!(
            challenge.state,
            ChallengeState::Visible
                | ChallengeState::Processing
                | ChallengeState::Valid
                | ChallengeState::Invalid
        );
        let shown = propagated
            || challenge.state == ChallengeState::Presented
            || challenge.record.is_some();
        let record = (challenge.kind == Kind::Dns01).then(|| RecordView {
            name: match &challenge.record {
                Some(record) => record.name.clone(),
                None => format!("_acme-challenge.{}", challenge.domain),
            },
            kind: "TXT",
        });
        Self {
            id: challenge.id.0,
            namespace: order.namespace.clone(),
            name: challenge_name(&order.name, challenge.id),
            order: format!("/orders/{}", order.id),
            kind: challenge.kind.as_str(),
            dns_name: challenge.domain.clone(),
            wildcard: challenge.wildcard,
            state: challenge.state,
            presented: shown && !challenge.clean,
            propagated,
            record,
            solver: challenge.solver,
            reason: challenge.reason.clone(),
            observations: challenge.observations.clone(),
        }
    }
}
