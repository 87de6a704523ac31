//! `?dryRun=true`: everything is judged, and answered as if it were done; nothing is stored.

use axum::http::HeaderValue;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::headers::DRY_RUN;
use crate::storage::{StorageError, Tx};

/// Whether a write is only tried. A handler extracts it as a query, so that a misspelled one is refused, not done.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DryRun {
    /// Only say what would happen: the answer is the same, with the header `Dry-Run: true`, and nothing is stored. An
    /// identifier that would be new does not last.
    #[serde(default)]
    #[param(default = false)]
    dry_run: bool,
}

impl DryRun {
    pub(crate) fn new(dry_run: bool) -> Self {
        Self { dry_run }
    }

    /// True if nothing is stored.
    pub(crate) fn is_wanted(self) -> bool {
        self.dry_run
    }

    /// Commits what was written, or undoes it. What stands in the way of it is told in either case.
    pub(crate) async fn end(self, tx: Tx) -> Result<(), StorageError> {
        if self.dry_run { tx.undo().await } else { tx.commit().await }
    }

    /// Says in the answer that nothing was stored.
    pub(crate) fn told(self, mut response: Response) -> Response {
        if self.dry_run {
            response.headers_mut().insert(DRY_RUN, HeaderValue::from_static("true"));
        }
        response
    }
}
