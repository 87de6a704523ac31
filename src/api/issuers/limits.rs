//! The usage of a CA's limits.

use time::OffsetDateTime;

use crate::domain::issuer::Issuer;
use crate::storage::{Read, StorageError, rate_limits};
use crate::view::issuer::LimitsView;

/// The usage by this issuer's account and at its CA; `None` where nothing is limited.
pub(super) async fn used(
    tx: &mut Read,
    issuer: &Issuer,
    now: OffsetDateTime,
) -> Result<Option<LimitsView>, StorageError> {
    Ok(LimitsView::of(&rate_limits::spent(tx, issuer, now).await?, now))
}
