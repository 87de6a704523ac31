//! View of a throttle.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::failure::Failure;
use crate::domain::throttle::{Scope as Limit, Throttle};

/// Somebody who counts and has enough for now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Throttle)]
pub(crate) struct ThrottleView {
    id: Uuid,
    /// The CA (`host:port`) that counts, or the URL of the account that it counts for.
    #[schema(example = "acme-v02.api.letsencrypt.org:443")]
    counted_by: String,
    /// The limit: whoever shares it waits.
    limit: Option<Limit>,
    /// Until then no order that shares the limit is sent, but for renewals that the CA does not count.
    #[serde(with = "time::serde::rfc3339")]
    until: OffsetDateTime,
    /// What the CA said, to the order that asked first.
    last_error: Failure,
}

impl From<Throttle> for ThrottleView {
    fn from(throttle: Throttle) -> Self {
        Self {
            id: throttle.id.0,
            counted_by: throttle.counted_by().to_owned(),
            limit: throttle.why.scope.clone(),
            until: throttle.until,
            last_error: throttle.why,
        }
    }
}
