//! Values that an answer shows once (keys, signing secrets), and for how long a former one counts.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use time::Duration;
use utoipa::ToSchema;

use super::extract::Body;
use super::field;
use super::precondition::{answer, json, tag};
use super::problem::{ApiError, Faults};

/// Unless the client says otherwise.
const OVERLAP: Duration = Duration::hours(24);

const LONGEST_OVERLAP: Duration = Duration::days(30);

/// Options of a rotation.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rotation {
    /// Time for which the former value counts as well: `24h` when absent, `0s` if it is known to others, at most `720h`.
    #[serde(default)]
    #[schema(example = "24h")]
    former_valid_for: Option<String>,
}

/// How long the former value counts as well.
pub(crate) fn overlap(options: Option<Body<Rotation>>) -> Result<Duration, ApiError> {
    let mut faults = Faults::default();
    let given = options.and_then(|body| body.value.former_valid_for);
    let overlap = field::duration(given.as_deref(), "/formerValidFor", &mut faults);
    if overlap.is_some_and(|overlap| overlap > LONGEST_OVERLAP) {
        faults.invalid("/formerValidFor", "is at most 720h");
    }
    faults.refuse()?;
    Ok(overlap.unwrap_or(OVERLAP))
}

/// The answer that shows the value, with the tag of those that do not.
pub(crate) fn shown_once<T: Serialize>(
    status: StatusCode,
    with_value: &T,
    without: &T,
) -> Result<Response, ApiError> {
    let mut response = answer(status, json(with_value)?);
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag(&json(without)?)) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
