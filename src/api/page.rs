//! Pages of lists, by key instead of offset.

use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::Ref;
use utoipa::openapi::schema::ArrayBuilder;
use uuid::Uuid;

use super::extract::Json;
use super::fields::Fields;
use super::problem::ApiError;
use crate::storage::{Page, Rows};

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listing<T> {
    /// The items of this page.
    #[schema(schema_with = items_of::<T>)]
    pub(crate) items: Vec<T>,
    /// The `cursor` of the next page; absent on the last one.
    pub(crate) next_cursor: Option<String>,
    /// With `count=true`: how many there are on all pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u64>,
}

/// The items by their name: utoipa would write them out in each list, and generated clients have two types of them.
fn items_of<T: ToSchema>() -> ArrayBuilder {
    ArrayBuilder::new()
        .items(Ref::from_schema_name(T::name()))
        .description(Some("The items of this page."))
}

/// A sort order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
pub(crate) enum Sort {
    /// Oldest first.
    #[default]
    #[serde(rename = "createdAt")]
    Oldest,
    /// Newest first.
    #[serde(rename = "-createdAt")]
    Newest,
}

const DEFAULT_LIMIT: u32 = 50;
const MOST: u32 = 500;

/// The page size, within the bounds of an answer.
pub(crate) fn limit(given: Option<u32>) -> Result<u32, ApiError> {
    match given.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MOST => Ok(limit),
        _ => Err(ApiError::malformed(format!("`limit` is a number from 1 to {MOST}."))),
    }
}

/// What the query of a list asks of the answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) page: Page,
    fields: Option<Fields>,
}

impl Asked {
    /// The first page of a list, whose cursor and order are the caller's to read. `T` is an item of the list.
    pub(crate) fn first<T: ToSchema>(
        asked: Option<u32>,
        fields: Option<&str>,
        counted: bool,
    ) -> Result<Self, ApiError> {
        let page = Page { counted, ..Page::first(limit(asked)?) };
        Ok(Self { page, fields: fields.map(Fields::parse::<T>).transpose()? })
    }

    /// The page that begins at the cursor, in this order.
    pub(crate) fn from(
        mut self,
        cursor: Option<&str>,
        sort: Option<Sort>,
    ) -> Result<Self, ApiError> {
        self.page.after = cursor.map(|text| decode(text).map(Uuid::from_bytes)).transpose()?;
        self.page.descending = sort.unwrap_or_default() == Sort::Newest;
        Ok(self)
    }
}

/// Reads a cursor.
pub(crate) fn decode<const N: usize>(text: &str) -> Result<[u8; N], ApiError> {
    bytes_of(text).and_then(|bytes| bytes.try_into().map_err(|_| strange_cursor()))
}

/// The bytes of a cursor.
pub(crate) fn bytes_of(text: &str) -> Result<Vec<u8>, ApiError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| strange_cursor())
}

/// The refusal of a cursor of another list, or of the same one in another order.
pub(crate) fn strange_cursor() -> ApiError {
    ApiError::malformed(
        "`cursor` is not one that a `nextCursor` of this list, in this order, gave.",
    )
}

/// Answers with a page, given one row more than fits on it if there is a next one.
pub(crate) fn answer<R, T: Serialize>(
    uri: &Uri,
    asked: &Asked,
    rows: Rows<R>,
    key: impl Fn(&R) -> Vec<u8>,
    mut view: impl FnMut(R) -> T,
) -> Response {
    match &asked.fields {
        None => listing(uri, asked, rows, key, view),
        Some(fields) => listing(uri, asked, rows, key, |row| fields.of(&view(row))),
    }
}

fn listing<R, T: Serialize>(
    uri: &Uri,
    asked: &Asked,
    Rows { mut rows, count }: Rows<R>,
    key: impl Fn(&R) -> Vec<u8>,
    view: impl FnMut(R) -> T,
) -> Response {
    let limit = asked.page.limit as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| URL_SAFE_NO_PAD.encode(key(row)));
    let link = next_cursor.as_deref().and_then(|cursor| next_link(uri, cursor));
    let listing = Listing { items: rows.into_iter().map(view).collect(), next_cursor, count };
    let mut response = Json(listing).into_response();
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// The same list, from the cursor on.
fn next_link(uri: &Uri, cursor: &str) -> Option<HeaderValue> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if name != "cursor" {
            query.append_pair(&name, &value);
        }
    }
    let query = query.append_pair("cursor", cursor).finish();
    HeaderValue::from_str(&format!("<{}?{query}>; rel=\"next\"", uri.path())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_keeps_the_filters() {
        let uri = "/certificates?namespace=a%20b&cursor=old&limit=2".parse().unwrap();

        assert_eq!(
            next_link(&uri, "new").unwrap(),
            r#"</certificates?namespace=a+b&limit=2&cursor=new>; rel="next""#
        );
    }

    #[test]
    fn a_limit_that_no_answer_can_hold_is_refused() {
        assert!(limit(Some(0)).is_err() && limit(Some(501)).is_err());
        assert_eq!((limit(None).unwrap(), limit(Some(500)).unwrap()), (50, 500));
    }
}
