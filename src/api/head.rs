//! Strange characters in a request's path, query and headers, refused before any route. Bodies are
//! checked by the extractors.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use url::form_urlencoded;

use super::headers::{IDEMPOTENCY_KEY, KEYSTORE_PASSWORD, LAST_EVENT_ID, PREFER};
use super::problem::ApiError;
use crate::domain::text::{Lines, refuse};

/// Headers whose values are used or kept.
const HEADERS: [HeaderName; 7] = [
    header::ACCEPT,
    IDEMPOTENCY_KEY,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    LAST_EVENT_ID,
    PREFER,
    KEYSTORE_PASSWORD,
];

/// Refuses requests with strange characters before their body.
pub(crate) fn check(request: &Request) -> Result<(), ApiError> {
    uri(request.uri())?;
    headers(request.headers())
}

fn uri(uri: &Uri) -> Result<(), ApiError> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"%+".contains(&byte);
    // Nearly all are.
    if uri.query().is_none() && uri.path().bytes().all(is_plain) {
        return Ok(());
    }
    // A path is encoded like the parts of a query, and has none of their separators that could hide anything.
    for (text, _) in form_urlencoded::parse(uri.path().replace(['&', '='], "/").as_bytes()) {
        refuse(&text, Lines::One)
            .map_err(|strange| ApiError::malformed(format!("The path {strange}.")))?;
    }
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        refuse(&name, Lines::One).map_err(|strange| {
            ApiError::malformed(format!("The name of a parameter of the query {strange}."))
        })?;
        refuse(&value, Lines::One)
            .map_err(|strange| ApiError::malformed(format!("`{name}` in the query {strange}.")))?;
    }
    Ok(())
}

fn headers(given: &HeaderMap) -> Result<(), ApiError> {
    let is_plain = |byte: &u8| (b' '..=b'~').contains(byte);
    for name in &HEADERS {
        if !given.get_all(name).iter().all(|value| value.as_bytes().iter().all(is_plain)) {
            let detail = format!("The header `{name}` has printable ASCII characters only.");
            return Err(ApiError::malformed(detail));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_looked_at_as_they_are_decoded() {
        for bad in ["/a%00", "/a&b=%1b", "/?a=%0A", "/?a%7F=b", "/?a=%E2%80%AE", "/a?b=c&d=%C2%85"]
        {
            let refused = uri(&bad.parse().unwrap());
            assert!(matches!(refused, Err(ApiError::Because(..))), "{bad}");
        }
        for good in ["/", "/a%20b?c=d+e%2Ff", "/?namespace=b%C3%BCcher", "/?a=%FF"] {
            uri(&good.parse().unwrap()).unwrap();
        }
    }
}
