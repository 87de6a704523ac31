//! What a certificate is doing or waiting for, in plain words.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::find;
use crate::api::AppState;
use crate::api::auth::{Authorized, CertificatesRead};
use crate::api::extract::Path;
use crate::api::precondition::Precondition;
use crate::api::problem::{ApiError, Errors};
use crate::domain::certificate::Phase;
use crate::domain::challenge::Observation;
use crate::domain::explain::{Doing, Explanation, explain};
use crate::domain::failure::Failure;
use crate::storage::{Scope, issuers, orders};

/// What a certificate is doing or waiting for, why, what comes next and what a person could do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Explanation)]
pub(crate) struct ExplanationView {
    /// One or two sentences for a person.
    #[schema(
        example = "The proofs are shown; it waits until everybody who is asked sees those for app.example.com."
    )]
    summary: String,
    /// The one word that sums the certificate up.
    phase: Phase,
    /// What it is doing, in one word.
    doing: Doing,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
    /// What went wrong last, in the other side's words; `null` when nothing did.
    why: Option<Failure>,
    /// Who was asked for the proofs, and what they saw.
    observations: Vec<SightingView>,
    /// What comes next by itself.
    next: Option<NextView>,
    /// What a person could do; empty when there is nothing to do but wait.
    actions: Vec<String>,
    /// The order that is or was last under way.
    #[schema(example = "/orders/019ab000-0000-7000-8000-000000000000")]
    order: Option<String>,
    /// When the order that is under way is given up.
    #[serde(with = "time::serde::rfc3339::option")]
    deadline: Option<OffsetDateTime>,
}

/// What one name's proof looked like to somebody who was asked for it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SightingView {
    /// The name under proof.
    #[schema(example = "app.example.com")]
    dns_name: String,
    #[serde(flatten)]
    observation: Observation,
}

/// What comes next by itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NextView {
    /// In plain words.
    what: String,
    /// When; in the past while it is under way.
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

/// Explain what a certificate is doing or waiting for
#[utoipa::path(get, path = "/certificates/{id}/explain", operation_id = "explainCertificate", tag = "certificates",
    params(
        ("id" = Uuid, Path, description = "The certificate"),
        ("Accept" = Option<String>, Header, description = "`text/plain` gives a few lines for a terminal"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag`; 304 if it still holds"),
    ),
    responses((status = 200, description = "What it is doing, why, what comes next, and what a person could do", headers(("ETag" = String)),
        content((ExplanationView = "application/json"), (String = "text/plain"))), (status = 304, description = "Not changed"), Errors))]
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
    known.show(&ExplanationView::of(explanation))
}

/// Whether `Accept` names text before JSON. Preferences by `q` are not weighed: there are two forms.
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

impl ExplanationView {
    fn of(it: Explanation) -> Self {
        let seen = it.observations.into_iter().map(|sighting| SightingView {
            dns_name: sighting.name,
            observation: sighting.observation,
        });
        Self {
            summary: it.summary,
            phase: it.phase,
            doing: it.doing,
            since: it.since,
            why: it.why,
            observations: seen.collect(),
            next: it.next.map(|next| NextView { what: next.what, at: next.at }),
            actions: it.actions,
            order: it.order.map(|order| format!("/orders/{order}")),
            deadline: it.deadline,
        }
    }
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
