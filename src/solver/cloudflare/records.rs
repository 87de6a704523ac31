//! The TXT records that a zone has.

use serde::Deserialize;

use super::api::Api;
use super::error::ApiError;

const PER_PAGE: usize = 100;

/// Twice what a zone of the free plan may hold.
const MAX_PAGES: usize = 20;

/// A TXT record, as far as it matters here.
#[derive(Deserialize)]
pub(super) struct Txt {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) content: String,
    #[serde(default)]
    pub(super) comment: Option<String>,
}

impl Txt {
    /// Whether it stands at `name` with this value.
    ///
    /// Values are compared here and without quotes, not by a filter: whether that wants them is
    /// not documented.
    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        plain(&self.name) == plain(name) && self.content.trim_matches('"') == value
    }

    /// Whether its comment begins so.
    pub(super) fn is_marked(&self, mark: &str) -> bool {
        self.comment.as_deref().is_some_and(|comment| comment.starts_with(mark))
    }
}

/// Every TXT record of the zone that fits a filter, such as `name.exact`.
pub(super) async fn list(
    api: &Api,
    zone: &str,
    (filter, wanted): (&str, &str),
) -> Result<Vec<Txt>, ApiError> {
    let mut all = Vec::new();
    for page in 1..=MAX_PAGES {
        let (page, per_page) = (page.to_string(), PER_PAGE.to_string());
        let query = [("type", "TXT"), (filter, wanted), ("per_page", &per_page), ("page", &page)];
        let found = api.get::<Vec<Txt>>(&["zones", zone, "dns_records"], &query).await?.result;
        let last = found.len() < PER_PAGE;
        all.extend(found);
        if last {
            break;
        }
    }
    Ok(all)
}

/// A name as Cloudflare keeps it.
pub(super) fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
