//! Compression of answers (RFC 9110, section 8.4).
//!
//! The length of a compressed answer says what in it occurs twice, so that whoever can choose a part of it guesses
//! another part letter by letter, through TLS too (BREACH). What holds a secret is never compressed, then: API keys and
//! signing secrets, which only answers to other methods than GET show, and private keys and keystores, which the
//! handler lets nobody store. A stream of events, whose events are not to wait for each other, says so as well.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header,
};
use axum::response::{IntoResponse as _, Response};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, Predicate as _, SizeAbove};

use super::problem::ApiError;

/// What fits into a few packets arrives no sooner for being shorter, and takes longer to be compressed than to be made:
/// so for a single certificate.
const WORTH_IT: u16 = 4_096;

const MEDIA_TYPES: [&str; 8] = [
    "application/json",
    "application/yaml",
    "application/javascript",
    "text/css",
    "text/html",
    "text/javascript",
    "text/markdown",
    "text/plain",
];

/// The content codings, as they stand in `Content-Encoding` and at the end of a tag.
const CODINGS: [&str; 2] = ["br", "gzip"];

type MayCompress = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// Compresses what is long enough and holds no secret. It belongs between [`prepare`] and
/// [`tagged`].
pub(crate) fn compressing() -> CompressionLayer<And<SizeAbove, MayCompress>> {
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(WORTH_IT).and(may_compress as MayCompress))
}

fn may_compress(status: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let media_type = text(header::CONTENT_TYPE).and_then(|text| text.split(';').next());
    status == StatusCode::OK
        && media_type.is_some_and(|given| MEDIA_TYPES.contains(&given.trim()))
        && !text(header::CACHE_CONTROL).is_some_and(|text| text.contains("no-store"))
}

/// The tags in `If-None-Match`, as the client sent them.
pub(crate) struct Known(String);

/// Has only answers to GET compressed, whole, and under tags of their own.
///
/// A compressed representation is another one, whose strong tag differs (RFC 9110, section 8.8.3.3): it is that of the
/// plain one with the coding at its end, and a condition that names it means the same state of the resource.
pub(crate) fn prepare(request: &mut Request) -> Known {
    let headers = request.headers_mut();
    let known = header_text(headers, &header::IF_NONE_MATCH);
    for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
        without_codings(headers, &name);
    }
    if request.method() != Method::GET {
        request.headers_mut().remove(header::ACCEPT_ENCODING);
    }
    Known(known)
}

/// The answer to a request that was prepared, after it was compressed, or not.
pub(crate) async fn tagged(Known(known): Known, mut response: Response) -> Response {
    let coding = CODINGS.into_iter().find(|coding| {
        response.headers().get(header::CONTENT_ENCODING).is_some_and(|given| given == coding)
    });
    if response.status() == StatusCode::NOT_MODIFIED {
        tell_known(response.headers_mut(), &known);
    }
    let Some(coding) = coding else { return response };
    if let Some(tag) = tag_with(response.headers(), coding) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    whole(response).await
}

/// The answer with all of its body compressed: an encoder takes megabytes, which a client that is slow to read must not
/// hold.
async fn whole(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    // It was in memory before, and longer.
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => Response::from_parts(parts, Body::from(bytes)),
        Err(error) => ApiError::Inside(Box::new(error)).into_response(),
    }
}

/// A 304 is about the representation that the client has, and may depend on what it accepts (RFC 9110, section 15.4.5).
fn tell_known(headers: &mut HeaderMap, known: &str) {
    let has = |coding: &&str| {
        // Most clients know the plain one, for which no tag need be made.
        known.contains(coding)
            && tag_with(headers, coding)
                .is_some_and(|tag| tag.to_str().is_ok_and(|tag| known.contains(tag)))
    };
    if let Some(tag) = CODINGS.into_iter().find(has).and_then(|coding| tag_with(headers, coding)) {
        headers.insert(header::ETAG, tag);
    }
    headers.append(header::VARY, HeaderValue::from_name(header::ACCEPT_ENCODING));
}

/// The answer's tag for a representation in this coding.
fn tag_with(headers: &HeaderMap, coding: &str) -> Option<HeaderValue> {
    let tag = headers.get(header::ETAG)?.to_str().ok()?.strip_suffix('"')?;
    HeaderValue::from_str(&format!("{tag}-{coding}\"")).ok()
}

/// Takes the codings from the tags of a condition.
fn without_codings(headers: &mut HeaderMap, name: &HeaderName) {
    if !headers.contains_key(name) {
        return;
    }
    let text = header_text(headers, name);
    let plain = CODINGS
        .into_iter()
        .fold(text.clone(), |text, coding| text.replace(&format!("-{coding}\""), "\""));
    if plain != text
        && let Ok(value) = HeaderValue::from_str(&plain)
    {
        headers.insert(name, value);
    }
}

/// All lines of a header as one list.
fn header_text(headers: &HeaderMap, name: &HeaderName) -> String {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_by_nobody_or_is_no_text_is_not_compressed() {
        for (media_type, caching, expected) in [
            ("application/json", "private, no-cache", true),
            ("text/plain; charset=utf-8", "no-cache", true),
            ("text/html", "", true),
            ("application/json", "no-store", false),
            ("application/problem+json", "", false),
            ("application/x-pem-file", "", false),
            ("application/x-pkcs12", "", false),
            ("text/event-stream", "", false),
            ("", "", false),
        ] {
            let headers = HeaderMap::from_iter([
                (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
                (header::CACHE_CONTROL, HeaderValue::from_static(caching)),
            ]);
            let may = may_compress(StatusCode::OK, Version::HTTP_11, &headers, &Extensions::new());
            assert_eq!(may, expected, "{media_type} {caching}");
        }
    }

    #[test]
    fn a_condition_means_the_state_whatever_its_coding() {
        for (given, plain) in [
            ("\"a-br\"", "\"a\""),
            ("W/\"a-gzip\", \"b\"", "W/\"a\", \"b\""),
            ("\"a\"", "\"a\""),
            ("*", "*"),
        ] {
            let mut headers =
                HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(given))]);
            without_codings(&mut headers, &header::IF_MATCH);
            assert_eq!(headers[header::IF_MATCH], plain);
        }
    }
}
