//! The audit log: reading it, and what of requests is written to it.
//!
//! What a request changes leaves its entries in its own transaction ([`crate::api::App::begin`]). What was
//! refused has changed nothing, and is counted here, by a layer that sees every answer.

use std::sync::{Arc, OnceLock};

use axum::extract::{self, OriginalUri, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::auth::{AuditRead, Authorized, Principal, network};
use super::extract::Query;
use super::page::{self, Asked, Listing, Sort};
use super::problem::{ApiError, Code, Errors, Problem};
use super::rate_limit::RateLimit;
use super::{AppState, field};
use crate::domain::audit::{Call, Entry, Outcome, Seal, hexadecimal};
use crate::domain::id::AuditId;
use crate::domain::principal::PrincipalRef;
use crate::server::RefusedCertificate;
use crate::storage::audit::{self, Wanted};

pub(crate) mod call;
mod refusals;

use call::Head;
use refusals::Kind;
pub use refusals::Refusals;

/// Filters for entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListAudit {
    /// Of this moment or later (RFC 3339).
    since: Option<String>,
    /// Of this principal, by identifier or name.
    principal: Option<String>,
    /// Of this action.
    #[param(example = "certificates.create")]
    action: Option<String>,
    /// About this resource, by path.
    #[param(example = "certificates/019ab000-0000-7000-8000-000000000000")]
    resource: Option<String>,
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

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub(crate) struct EntryView {
    /// Sorts by `at`.
    id: Uuid,
    /// Its place in the chain, without a gap; `null` for about a second, until it is sealed.
    #[schema(example = 1)]
    seq: Option<i64>,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// Whoever did it; `null` if nobody was authenticated.
    principal: Option<PrincipalRef>,
    /// The client's address.
    #[schema(example = "192.0.2.1")]
    from: Option<String>,
    /// The collection, and what was done there.
    #[schema(example = "certificates.create")]
    action: String,
    /// The resource; absent where it is none in particular.
    #[schema(example = "certificates/019ab000-0000-7000-8000-000000000000")]
    resource: Option<String>,
    /// The resource's namespace; absent where it has none.
    namespace: Option<String>,
    outcome: Outcome,
    /// The reason of a refusal, or what was handed out.
    reason: Option<String>,
    /// The request's identifier; the service's log has it too.
    request_id: String,
    /// Times that it happened: what is refused again within a minute is counted.
    #[schema(example = 1)]
    count: i64,
    /// HMAC-SHA-256 over `previous`, `seq` and the entry, in hexadecimal digits.
    hash: Option<String>,
    /// The `hash` of the entry before.
    previous: Option<String>,
}

/// List entries of the audit log
///
/// They are about all namespaces, so that only principals that are bound to none see them.
#[utoipa::path(get, path = "/audit", operation_id = "listAudit", tag = "service",
    params(ListAudit),
    responses((status = 200, body = Listing<EntryView>, description = "A page of entries", headers(("Link" = String))), Errors))]
pub(crate) async fn list(
    State(app): State<AppState>,
    who: Authorized<AuditRead>,
    OriginalUri(uri): OriginalUri,
    Query(query): Query<ListAudit>,
) -> Result<Response, ApiError> {
    if who.is_bound() {
        let detail = "The audit log is about all namespaces: use an API key or a token that is bound to none.";
        return Err(ApiError::Because(Code::PermissionDenied, detail.to_owned()));
    }
    let asked = Asked::first::<EntryView>(query.limit, query.fields.as_deref(), query.count)?;
    let asked = asked.from(query.cursor.as_deref(), query.sort)?;
    let wanted = Wanted {
        since: query.since.as_deref().map(|text| field::moment(text, "since")).transpose()?,
        principal: query.principal,
        action: query.action,
        resource: query.resource.map(|path| path.trim_start_matches('/').to_owned()),
    };
    let mut read = app.db.read().await?;
    let rows = audit::list(&mut read, &wanted, asked.page).await?;
    let key = |(entry, _): &(Entry, Option<Seal>)| entry.id.as_bytes().to_vec();
    Ok(page::answer(&uri, &asked, rows, key, EntryView::from))
}

impl From<(Entry, Option<Seal>)> for EntryView {
    fn from((entry, seal): (Entry, Option<Seal>)) -> Self {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            id: entry.id,
            seq: seal.as_ref().map(|seal| seal.seq),
            at: entry.at,
            principal: entry.principal,
            from: entry.from,
            action: entry.action,
            resource: given(entry.resource),
            namespace: given(entry.namespace),
            outcome: entry.outcome,
            reason: entry.reason,
            request_id: entry.request_id,
            count: entry.count,
            hash: seal.as_ref().map(|seal| hexadecimal(&seal.hash)),
            previous: seal.as_ref().map(|seal| hexadecimal(&seal.previous)),
        }
    }
}

/// The request of a handler, and whom it was authenticated as, for the layers around the handler. A cheap handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller(Option<Arc<Request>>);

#[derive(Debug)]
struct Request {
    head: Head,
    /// Made when an entry tells of it.
    call: OnceLock<Arc<Call>>,
    principal: OnceLock<PrincipalRef>,
    rate_limit: OnceLock<RateLimit>,
    namespace: Mutex<String>,
}

impl Caller {
    /// Nobody, so far.
    pub(crate) fn of(request: &extract::Request) -> Self {
        let head = Head::of(request);
        Self(Some(Arc::new(Request {
            head,
            call: OnceLock::new(),
            principal: OnceLock::new(),
            rate_limit: OnceLock::new(),
            namespace: Mutex::default(),
        })))
    }

    /// The request was authenticated as this principal; returns the request.
    pub(crate) fn is(parts: &Parts, principal: &Principal) -> Self {
        let caller = parts.extensions.get::<Self>().cloned().unwrap_or_default();
        if let Some(request) = &caller.0 {
            request.principal.get_or_init(|| principal.reference());
        }
        caller
    }

    /// The principal, if there is one that was recognised.
    pub(crate) fn principal(&self) -> Option<&PrincipalRef> {
        self.0.as_ref()?.principal.get()
    }

    /// This is left of the principal's limit, and the answer says so.
    pub(crate) fn has_left(&self, left: RateLimit) {
        if let Some(request) = &self.0 {
            request.rate_limit.get_or_init(|| left);
        }
    }

    /// What is left of the principal's limit, where there is one.
    pub(crate) fn rate_limit(&self) -> Option<&RateLimit> {
        self.0.as_ref()?.rate_limit.get()
    }

    /// The request, as entries tell of it.
    pub(crate) fn call(&self) -> Arc<Call> {
        let Some(request) = &self.0 else { return Arc::default() };
        Arc::clone(request.call.get_or_init(|| Arc::new(request.head.call())))
    }

    /// What is looked at from now on belongs to this namespace; empty: to none.
    pub(crate) fn asks_in(&self, namespace: &str) {
        if let Some(request) = &self.0 {
            namespace.clone_into(&mut request.namespace.lock());
        }
    }

    fn namespace(&self) -> String {
        self.0.as_ref().map(|request| request.namespace.lock().clone()).unwrap_or_default()
    }

    fn is_safe(&self) -> bool {
        self.0.as_ref().is_some_and(|request| request.head.is_safe())
    }
}

/// Counts what was refused, and what has failed.
pub(crate) async fn note(
    app: &AppState,
    caller: &Caller,
    status: StatusCode,
    problem: Option<&Problem>,
) {
    let is_denied = problem.is_some_and(|problem| problem.is_denied);
    let is_known = caller.principal().is_some();
    if let Some(outcome) = outcome(status, is_denied, caller.is_safe(), is_known) {
        count(app, caller, outcome, problem.map(|problem| problem.detail.clone())).await;
    }
}

/// Counts what was refused in an answer that refuses nothing else.
pub(crate) async fn note_refused(app: &AppState, caller: &Caller, reason: String) {
    count(app, caller, Outcome::Refused, Some(reason)).await;
}

async fn count(app: &AppState, caller: &Caller, outcome: Outcome, reason: Option<String>) {
    let (call, principal) = (caller.call(), caller.principal());
    let entry =
        Entry { namespace: caller.namespace(), ..entry(app, &call, principal, outcome, reason) };
    let kind = Kind {
        network: call.from.map(network),
        principal: principal.and_then(|it| Some((it.id?, entry.action.clone()))),
        outcome,
    };
    app.refusals.count(&app.db, kind, entry).await;
}

/// Counts a client certificate that the TLS handshake has refused, which no request tells of.
pub async fn refuse_certificate(app: &AppState, refused: RefusedCertificate) {
    let RefusedCertificate { from, error } = refused;
    tracing::info!(%from, error = &error as &dyn std::error::Error, "a client certificate was refused");
    let call = Call { from: Some(from.ip()), verb: "connect".into(), ..Call::default() };
    let reason = format!("The client certificate was refused in the TLS handshake: {error}.");
    let entry = entry(app, &call, None, Outcome::Refused, Some(reason));
    let network = Some(network(from.ip()));
    let kind = Kind { network, principal: None, outcome: Outcome::Refused };
    app.refusals.count(&app.db, kind, entry).await;
}

/// Whether an answer says that a request was refused for want of a right, or that a write has failed.
fn outcome(
    status: StatusCode,
    is_denied: bool,
    is_safe: bool,
    is_authenticated: bool,
) -> Option<Outcome> {
    match status {
        _ if is_denied => Some(Outcome::Refused),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(Outcome::Refused),
        // Too many wrong keys came from this address.
        StatusCode::TOO_MANY_REQUESTS if !is_authenticated => Some(Outcome::Refused),
        status if status.is_server_error() && !is_safe => Some(Outcome::Failed),
        _ => None,
    }
}

fn entry(
    app: &AppState,
    call: &Call,
    principal: Option<&PrincipalRef>,
    outcome: Outcome,
    reason: Option<String>,
) -> Entry {
    let at = app.now();
    Entry {
        id: AuditId::generate(at).0,
        at,
        principal: principal.cloned(),
        from: call.from.map(|from| from.to_string()),
        action: format!("{}.{}", call.collection, call.verb).trim_start_matches('.').to_owned(),
        resource: call.resource.clone(),
        namespace: String::new(),
        outcome,
        reason,
        request_id: call.request_id.clone(),
        count: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_mistakes_and_failed_writes_from_failed_reads() {
        use Outcome::{Failed, Refused};
        for (status, is_denied, is_safe, is_authenticated, expected) in [
            (401, false, true, false, Some(Refused)),
            (403, false, true, true, Some(Refused)),
            (403, false, false, true, Some(Refused)),
            (429, false, true, false, Some(Refused)),
            (429, false, true, true, None),
            (422, false, false, true, None),
            (422, true, false, true, Some(Refused)),
            (404, false, false, true, None),
            (500, false, false, true, Some(Failed)),
            (503, false, false, true, Some(Failed)),
            (500, false, true, true, None),
            (202, false, false, true, None),
        ] {
            let code = StatusCode::from_u16(status).unwrap();
            let found = outcome(code, is_denied, is_safe, is_authenticated);
            assert_eq!(found, expected, "{status} {is_denied}");
        }
    }
}
