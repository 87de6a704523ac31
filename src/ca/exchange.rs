//! One answer of a CA, with what is worth keeping of its headers.

use bytes::Bytes;
use http::{HeaderMap, header};
use time::{Duration, OffsetDateTime};

use crate::acme::problem::Problem;
use crate::domain::text::{Lines, refuse};
use crate::domain::throttle::LONGEST_WAIT;

/// Longest URL, as far as every server is asked to take one (RFC 9110, section 4.1).
pub(super) const LONGEST_URL: usize = 8_000;

/// One answer of the CA.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    pub url: String,
    pub status: u16,
    /// `Retry-After`, as a moment.
    pub retry_at: Option<OffsetDateTime>,
    pub links: Vec<Link>,
    pub location: Option<String>,
    /// The media type, in lower case and without parameters.
    pub content_type: Option<String>,
    /// `Replay-Nonce`, for the next request.
    pub nonce: Option<String>,
    pub body: Bytes,
}

impl Exchange {
    /// Takes from the headers what is worth keeping.
    pub(super) fn new(
        url: String,
        status: u16,
        headers: &HeaderMap,
        body: Bytes,
        now: OffsetDateTime,
    ) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            status,
            retry_at: retry_at(headers, now),
            links: links(headers, &url),
            location: text(header::LOCATION.as_str()).and_then(|named| absolute(&url, named)),
            nonce: text("replay-nonce").map(str::to_owned),
            content_type: media_type(headers),
            url,
            body,
        }
    }

    /// Whether the status says that it worked. Redirects do not count: none is followed.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the answer leads elsewhere.
    pub(super) fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    /// The problem document of an error answer.
    pub(super) fn problem(&self) -> Option<Problem> {
        Problem::read(self.content_type.as_deref(), &self.body)
    }

    /// Whether the CA wants the same request again with another nonce.
    pub(super) fn is_bad_nonce(&self) -> bool {
        self.status >= 400 && self.problem().is_some_and(|it| it.name() == Some("badNonce"))
    }

    /// Describes the answer without quoting it: "HTTP 502 (text/html, 162 bytes)".
    pub(super) fn outline(&self) -> String {
        let kind = self.content_type.as_deref().unwrap_or("no media type");
        format!("HTTP {} ({kind}, {} bytes)", self.status, self.body.len())
    }

    /// The target of the first link of the given relation.
    pub(super) fn link(&self, relation: &str) -> Option<&str> {
        self.links.iter().find(|link| link.relation == relation).map(|link| link.url.as_str())
    }
}

/// A `Link` header's entry, its target made absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub relation: String,
    pub url: String,
}

fn retry_at(headers: &HeaderMap, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let value = value.trim().trim_matches('"').trim();
    let latest = now + LONGEST_WAIT;
    let seconds = whole_seconds(value);
    let wished = match seconds.parse::<u32>() {
        Ok(seconds) => now + Duration::seconds(i64::from(seconds)),
        // More digits than fit are still a number of seconds: a very large one.
        Err(_) if !seconds.is_empty() && seconds.bytes().all(|c| c.is_ascii_digit()) => latest,
        Err(_) => httpdate::parse_http_date(value).ok()?.into(),
    };
    Some(wished.clamp(now, latest))
}

/// Some front ends write `30.0` or `30s`.
fn whole_seconds(value: &str) -> &str {
    let (whole, rest) = value.split_at(value.bytes().take_while(u8::is_ascii_digit).count());
    let fraction = rest.strip_prefix('.').unwrap_or_default();
    let is_fraction = !fraction.is_empty() && fraction.bytes().all(|c| c.is_ascii_digit());
    if is_fraction || rest == "s" { whole } else { value }
}

/// A URL that the CA names, which may be relative to the one that was asked (RFC 9110, section 10.2.2).
///
/// Every URL that a CA returns comes through here; one that is absolute stays as it is written, for
/// it is signed in this form. One with control characters is none: parsers pass them over, databases do not keep them.
pub(super) fn absolute(base: &str, named: &str) -> Option<String> {
    let url = match url::Url::parse(named) {
        Ok(_) => named.to_owned(),
        Err(_) => url::Url::parse(base).ok()?.join(named).ok()?.into(),
    };
    (url.len() <= LONGEST_URL && refuse(&url, Lines::One).is_ok()).then_some(url)
}

/// The media type, if it looks like one and is fit to be shown.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = value.split(';').next()?.trim().to_ascii_lowercase();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/+.-".contains(c);
    (kind.len() <= 64 && !kind.is_empty() && kind.chars().all(plain)).then_some(kind)
}

fn links(headers: &HeaderMap, base: &str) -> Vec<Link> {
    let values = headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|entry| {
            let (target, parameters) = entry.trim().strip_prefix('<')?.split_once('>')?;
            let relation = parameters.split(';').find_map(|p| p.trim().strip_prefix("rel="))?;
            let url = absolute(base, target)?;
            Some(Link { relation: relation.trim_matches('"').to_owned(), url })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);

    fn exchange(name: header::HeaderName, value: &'static str) -> Exchange {
        let headers = HeaderMap::from_iter([(name, http::HeaderValue::from_static(value))]);
        Exchange::new("https://ca.example/acme/x".into(), 200, &headers, Bytes::new(), NOON)
    }

    #[test]
    fn retry_after_is_understood_as_seconds_and_as_a_date() {
        let cases = [
            ("90", Some(Duration::seconds(90))),
            ("Thu, 01 Jan 2026 12:00:30 GMT", Some(Duration::seconds(30))),
            ("Thu, 01 Jan 2026 11:00:00 GMT", Some(Duration::ZERO)),
            ("93600", Some(Duration::hours(26))),
            ("604800", Some(Duration::days(7))),
            ("Sun, 04 Jan 2026 12:00:00 GMT", Some(Duration::days(3))),
            ("Fri, 01 Jan 2027 12:00:00 GMT", Some(LONGEST_WAIT)),
            ("99999999999999", Some(LONGEST_WAIT)),
            ("\"90\"", Some(Duration::seconds(90))),
            ("90.0", Some(Duration::seconds(90))),
            ("90s", Some(Duration::seconds(90))),
            (" 90 ", Some(Duration::seconds(90))),
            ("90 minutes", None),
            ("1.2.3", None),
            ("soon", None),
            ("-5", None),
            ("", None),
        ];
        for (value, expected) in cases {
            let found = exchange(header::RETRY_AFTER, value).retry_at;

            assert_eq!(found, expected.map(|wait| NOON + wait), "Retry-After: {value}");
        }
    }

    #[test]
    fn links_are_made_absolute() {
        let seen = exchange(
            header::LINK,
            r#"<https://ca.example/dir>;rel="index", </chain/1>; rel="alternate""#,
        );

        assert_eq!(seen.link("index"), Some("https://ca.example/dir"));
        assert_eq!(seen.link("alternate"), Some("https://ca.example/chain/1"));
    }

    #[test]
    fn what_could_not_be_kept_or_asked_for_is_no_url() {
        let longest = format!("https://ca.example/{}", "a".repeat(LONGEST_URL - 19));
        let too_long = format!("{longest}a");
        for (named, is_url) in [
            ("https://ca.example/é", true),
            ("https://ca.example/a b", true),
            (&longest, true),
            (&too_long, false),
            ("https://ca.example/\0", false),
            ("https://ca.example/\n", false),
            ("https://ca.example/\u{1b}[31m", false),
            ("https://ca.example/\u{202e}", false),
        ] {
            assert_eq!(absolute("https://ca.example/x", named).is_some(), is_url, "{named:?}");
        }
    }

    #[test]
    fn a_relative_location_is_below_the_url_that_was_asked() {
        for (said, meant) in [
            ("/acme/order/7", "https://ca.example/acme/order/7"),
            ("order/7", "https://ca.example/acme/order/7"),
            ("//other.example/o/7", "https://other.example/o/7"),
            ("https://ca.example/o/7", "https://ca.example/o/7"),
            // It is signed as it is written: nothing is added to it.
            ("https://ca.example", "https://ca.example"),
        ] {
            let seen = exchange(header::LOCATION, said);

            assert_eq!(seen.location.as_deref(), Some(meant), "{said}");
        }
    }
}
