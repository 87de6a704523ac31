//! ACME orders, read-only.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::AppState;
use super::auth::{Authorized, OrdersRead};
use super::challenges::ChallengeView;
use super::extract::{Path, Query};
use super::page::{self, Asked, Listing, Sort};
use super::precondition::Precondition;
use super::problem::{ApiError, Errors};
use super::wait::Wait;
use crate::domain::failure::Failure;
use crate::domain::id::{CertificateId, OrderId};
use crate::domain::order::{End, Order, Stage, State as DomainState};
use crate::storage::challenges::Parent;
use crate::storage::orders::{self, Wanted};

/// Filters for orders.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListOrders {
    /// Of this namespace.
    namespace: Option<String>,
    /// Of this name.
    name: Option<String>,
    /// For this certificate.
    certificate: Option<Uuid>,
    /// In this state.
    state: Option<OrderState>,
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

/// The state of an order: RFC 8555's states, `expired` and `errored`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderState {
    /// Something is not proved yet.
    Pending,
    /// Everything is proved.
    Ready,
    /// The CA is signing.
    Processing,
    /// The certificate is there.
    Valid,
    /// The CA refused it.
    Invalid,
    /// It took too long.
    Expired,
    /// It could not be carried through.
    Errored,
}

/// An ACME order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Order)]
pub(crate) struct OrderView {
    /// Its identifier.
    id: Uuid,
    /// The certificate's namespace.
    namespace: String,
    /// The request's name, and a hash.
    #[schema(example = "web-1-1b4f0e98")]
    name: String,
    /// The certificate that wants it.
    certificate: String,
    /// The attempt that it serves.
    request: String,
    /// The issuer whose account it is under.
    issuer: String,
    /// Its state.
    state: OrderState,
    /// The CA's name for it.
    url: Option<String>,
    /// Time at which the CA drops it.
    #[serde(with = "time::serde::rfc3339::option")]
    expires: Option<OffsetDateTime>,
    /// Its identifiers.
    identifiers: Vec<Identifier>,
    /// Certificate profile asked for.
    profile: Option<String>,
    /// The certificate that it says it replaces, in the words of renewal information (RFC 9773).
    replaces: Option<String>,
    /// The `notAfter` that the CA is asked for; `null` leaves it to the CA.
    #[serde(with = "time::serde::rfc3339::option")]
    not_after: Option<OffsetDateTime>,
    /// Time of the next poll.
    #[serde(with = "time::serde::rfc3339::option")]
    next_action_at: Option<OffsetDateTime>,
    /// After this moment it has failed.
    #[serde(with = "time::serde::rfc3339")]
    deadline: OffsetDateTime,
    /// The last error.
    last_error: Option<Failure>,
    /// Calls made for it.
    attempts: u32,
    /// Time of the request.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// The challenges, one for each name.
    challenges: Vec<ChallengeView>,
}

/// An identifier (RFC 8555, section 7.1.3).
#[derive(Debug, Serialize, ToSchema)]
struct Identifier {
    /// `dns`, or `ip` (RFC 8738).
    #[serde(rename = "type")]
    #[schema(example = "dns")]
    kind: &'static str,
    /// The name, wildcards with `*.`.
    value: String,
}

/// List orders
#[utoipa::path(get, path = "/orders", operation_id = "listOrders", tag = "orders",
    params(ListOrders),
    responses((status = 200, body = Listing<OrderView>, description = "A page of orders", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<OrdersRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListOrders>,
) -> Result<Response, ApiError> {
    let asked = Asked::first::<OrderView>(query.limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    let wanted = Wanted {
        namespace: query.namespace,
        name: query.name,
        certificate: query.certificate.map(CertificateId),
        state: query.state.and_then(|state| json!(state).as_str().map(str::to_owned)),
    };
    let mut tx = app.db.read().await?;
    let rows = orders::list(&mut tx, &who.scope, &wanted, asked.page).await?;
    let key = |row: &Order| row.id.0.as_bytes().to_vec();
    Ok(page::answer(&uri, &asked, rows, key, OrderView::from))
}

/// Get an order
#[utoipa::path(get, path = "/orders/{id}", operation_id = "getOrder", tag = "orders",
    params(
        ("id" = Uuid, Path, description = "The order"),
        ("Prefer" = Option<String>, Header, description = "`wait=30`: hold the answer until the order is over, at most that many seconds, at most 300"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds"),
    ),
    responses((status = 200, body = OrderView, description = "The order", headers(("ETag" = String), ("Preference-Applied" = String))), (status = 304, description = "Not changed"), Errors))]
pub(crate) async fn show(
    State(app): State<AppState>,
    who: Authorized<OrdersRead>,
    Path(id): Path<Uuid>,
    wait: Wait,
    known: Precondition,
) -> Result<Response, ApiError> {
    let wait = wait.held_by(&app, &who)?;
    let read = || async {
        let found = orders::find(&mut app.db.read().await?, OrderId(id), &who.scope).await?;
        found.map(|(order, _)| order).ok_or_else(|| ApiError::not_found("order", id))
    };
    let order = wait.until(&app, &who, id, read, Order::is_over).await?;
    Ok(wait.applied(known.show(&OrderView::from(order))?))
}

impl From<&DomainState> for OrderState {
    fn from(state: &DomainState) -> Self {
        match state {
            DomainState::New => Self::Pending,
            DomainState::Open { stage, .. } => match stage {
                Stage::Authorizing | Stage::Presenting | Stage::Accepting | Stage::Validating => {
                    Self::Pending
                }
                Stage::Finalizing => Self::Ready,
                Stage::Processing => Self::Processing,
                Stage::Downloading => Self::Valid,
            },
            DomainState::Done { end, .. } => match end {
                End::Valid => Self::Valid,
                End::Invalid => Self::Invalid,
                End::Errored => Self::Errored,
                End::Expired => Self::Expired,
            },
        }
    }
}

impl From<Order> for OrderView {
    fn from(order: Order) -> Self {
        let (id, name, namespace) = (order.id, order.name.clone(), order.namespace.clone());
        let parent = Parent { id, name, namespace };
        let challenges =
            order.challenges.iter().map(|one| ChallengeView::of(one, &parent)).collect();
        // RFC 8738 has addresses as `ip`.
        let identifier = |value: String| {
            let kind = if value.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "dns" };
            Identifier { kind, value }
        };
        Self {
            id: order.id.0,
            namespace: order.namespace,
            name: order.name,
            certificate: format!("/certificates/{}", order.certificate),
            request: format!("/requests/{}", order.request),
            issuer: format!("/issuers/{}", order.issuer),
            state: OrderState::from(&order.state),
            url: match order.state {
                DomainState::New => None,
                DomainState::Open { url, .. } => Some(url),
                DomainState::Done { url, .. } => url,
            },
            expires: order.expires,
            identifiers: order.names.into_iter().map(identifier).collect(),
            profile: order.profile,
            replaces: order.replaces,
            not_after: order.not_after,
            next_action_at: order.next_action_at,
            deadline: order.deadline,
            last_error: order.last_error,
            attempts: order.attempts,
            created_at: order.created_at,
            challenges,
        }
    }
}
