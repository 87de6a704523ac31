//! Creating several certificates with one request. Each is created, or refused, as `POST /certificates` would.

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::create::create_one;
use crate::api::auth::{Authorized, CertificatesWrite};
use crate::api::dry_run::DryRun;
use crate::api::extract::{MOST_OF_SEVERAL, Query, read};
use crate::api::headers::REQUEST_ID;
use crate::api::idempotency::IdempotencyKey;
use crate::api::precondition::{json, untagged};
use crate::api::problem::{ApiError, Errors, FieldCode, Problem};
use crate::api::wait::{Held, Wait};
use crate::api::{AppState, audit};
use crate::validation::{from_slice, from_value};
use crate::view::CertificateView;
use crate::view::spec::CertificateSpec;

const MOST: usize = 200;

/// Certificates to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    /// Up to 200 of them.
    #[schema(value_type = Vec<CertificateSpec>, min_items = 1, max_items = 200)]
    items: Vec<Value>,
}

/// What has become of each, in the order in which they stand there.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchResult {
    items: Vec<BatchItem>,
}

/// What `POST /certificates` would have answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchItem {
    /// The HTTP status: 202 for a certificate, another for a problem.
    #[schema(example = 202)]
    status: u16,
    /// The certificate, if it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<CertificateView>)]
    certificate: Option<Value>,
    /// Why it was not; pointers begin at the item.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

/// A batch, and its body as it came.
pub(crate) struct Several {
    items: Vec<Value>,
    content: axum::body::Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Several {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let content = read(request, state, &["application/json"], MOST_OF_SEVERAL).await?;
        let Batch { items } = from_slice(&content)?;
        if (1..=MOST).contains(&items.len()) {
            return Ok(Self { items, content });
        }
        let detail = format!("has 1 to {MOST} certificates; send several requests");
        Err(ApiError::field("/items", FieldCode::Invalid, detail))
    }
}

/// Create several certificates
///
/// Each as with `POST /certificates`, with a status or problem of its own: what can be created is, whatever becomes of
/// the others. One `Idempotency-Key` is for all: sent again, the request creates what is missing. With `Prefer: wait=30`
/// the answer is held until all have settled, or the time is up.
#[utoipa::path(post, path = "/certificates/batch", operation_id = "createCertificates", tag = "certificates",
    params(
        DryRun,
        ("Idempotency-Key" = Option<String>, Header, description = "The client's name for this request, 1 to 255 characters; kept 24 hours"),
        ("Prefer" = Option<String>, Header, description = "`wait=30`: hold the answer until all have settled (ready or failed), at most that many seconds, at most 300"),
    ),
    request_body = Batch,
    responses((status = 207, body = BatchResult, description = "What has become of each", headers(("Preference-Applied" = String), ("Dry-Run" = String))), Errors))]
pub(crate) async fn create(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    Query(dry): Query<DryRun>,
    key: IdempotencyKey,
    wait: Wait,
    headers: HeaderMap,
    several: Several,
) -> Result<Response, ApiError> {
    let wait = wait.held_by(&app, &who)?;
    let attempt = key.attempt(&who, &several.content, dry);
    attempt.begin_several(&app).await?;
    let instance = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let mut items = Vec::with_capacity(several.items.len());
    for (place, wanted) in several.items.iter().enumerate() {
        let part = attempt.part(place);
        let created = async {
            let spec: CertificateSpec = from_value(wanted)?;
            create_one(&app, &part, &spec, &Held::default(), dry).await
        };
        let response = Box::pin(created).await.unwrap_or_else(ApiError::into_response);
        let problem = response.extensions().get::<Problem>();
        audit::note(&app, &who.caller, response.status(), problem).await;
        items.push(item(response, instance).await?);
    }
    if wait.is_wanted() && !dry.is_wanted() {
        let ids: Vec<Uuid> = items.iter().filter_map(BatchItem::id).collect();
        let settled = super::settled(&app, &who, &ids, &wait).await?;
        for (one, found) in items.iter_mut().filter(|one| one.id().is_some()).zip(settled) {
            if let Some(found) = found {
                let view = CertificateView::of(&found, app.now());
                one.certificate = Some(serde_json::to_value(&view).unwrap_or_default());
            }
        }
    }
    let body = json(&BatchResult { items })?;
    Ok(dry.told(wait.applied(untagged(StatusCode::MULTI_STATUS, body))))
}

impl BatchItem {
    fn id(&self) -> Option<Uuid> {
        self.certificate.as_ref()?.get("id")?.as_str()?.parse().ok()
    }
}

/// An answer as an item of another.
async fn item(mut response: Response, instance: &str) -> Result<BatchItem, ApiError> {
    let status = response.status().as_u16();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let problem = Problem { instance: instance.to_owned(), ..problem };
        return Ok(BatchItem { status, certificate: None, problem: Some(problem) });
    }
    // It was written in this process, and has the size of one certificate.
    let body = to_bytes(response.into_body(), usize::MAX).await;
    let body = body.map_err(|error| ApiError::Inside(Box::new(error)))?;
    let certificate = serde_json::from_slice(&body);
    let certificate = certificate.map_err(|error| ApiError::Inside(Box::new(error)))?;
    Ok(BatchItem { status, certificate: Some(certificate), problem: None })
}
