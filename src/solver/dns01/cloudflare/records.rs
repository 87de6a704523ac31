//! The TXT records that a zone has.

use serde_json::{Map, Value};

use super::answer::{Listed, id, text};
use super::api::Api;
use super::error::ApiError;
use crate::domain::challenge::Record;
use crate::domain::name::{comparable, with_u_labels};

const PER_PAGE: usize = 100;

/// Twice what a zone of the free plan may hold.
const MAX_PAGES: usize = 20;

/// A TXT record, as far as it matters here.
pub(super) struct Txt {
    pub(super) id: String,
    /// In the form in which names are compared.
    pub(super) name: String,
    pub(super) content: String,
    pub(super) comment: Option<String>,
}

impl Txt {
    /// Reads a record; `None` if it is another one than a TXT record, or lacks what is needed.
    pub(super) fn read(members: &Map<String, Value>) -> Option<Self> {
        if members
            .get("type")
            .is_some_and(|kind| !kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("TXT")))
        {
            return None;
        }
        Some(Self {
            id: id(members)?,
            name: comparable(text(members, "name")?),
            content: text(members, "content")?.to_owned(),
            comment: text(members, "comment").map(str::to_owned),
        })
    }

    /// Whether it stands at `name` with this value.
    ///
    /// Values are compared here and without quotes, not by a filter: whether that wants them is
    /// not documented.
    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.name == comparable(name) && self.content.trim_matches('"') == value
    }

    pub(super) fn into_record(self, zone: &str) -> Record {
        let value = self.content.trim_matches('"').to_owned();
        Record { name: self.name, value, zone: zone.to_owned(), id: self.id }
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
        let answer = api.get(&["zones", zone, "dns_records"], &query).await?;
        let found = Listed::read(&answer.result, Txt::read).ok_or_else(ApiError::garbled)?;
        let last = found.count < PER_PAGE;
        all.extend(found.read);
        if last {
            break;
        }
    }
    Ok(all)
}

/// Every TXT record at a name. International ones are shown with U-labels by Cloudflare, and whether its
/// filter knows them by their A-labels is not documented.
pub(super) async fn list_at(api: &Api, zone: &str, name: &str) -> Result<Vec<Txt>, ApiError> {
    let found = list(api, zone, ("name.exact", name)).await?;
    match with_u_labels(name) {
        Some(shown) if found.is_empty() => list(api, zone, ("name.exact", &shown)).await,
        _ => Ok(found),
    }
}
