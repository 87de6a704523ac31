//! Rules for fields that several resources share.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use super::problem::{ApiError, Faults};
use crate::domain::scope::is_namespace as is_label;
use crate::validation::escaped;

pub(crate) use crate::view::spec::DEFAULT_NAMESPACE;

const MOST_LABELS: usize = 64;

/// A namespace: a DNS label, as in Kubernetes.
pub(crate) fn namespace(text: &str, faults: &mut Faults) {
    namespace_at(text, "/namespace", faults);
}

/// The same for a namespace at another pointer.
pub(crate) fn namespace_at(text: &str, pointer: &str, faults: &mut Faults) {
    if !is_label(text) {
        let detail = "has 1 to 63 lower-case letters, digits and hyphens, no hyphen at either end";
        faults.invalid(pointer, detail);
    }
}

/// A resource's name: a DNS subdomain, as Kubernetes understands RFC 1123. Only the whole has a bound.
pub(crate) fn name(text: &str, pointer: &str, faults: &mut Faults) {
    let is_part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let has_hyphen_at_end = part.starts_with('-') || part.ends_with('-');
        !part.is_empty() && part.bytes().all(allowed) && !has_hyphen_at_end
    };
    if text.len() > 253 || !text.split('.').all(is_part) {
        let detail = "has at most 253 lower-case letters, digits, hyphens and dots; it begins and ends with a letter or digit, and so does each part between dots";
        faults.invalid(pointer, detail);
    }
}

/// Labels, with keys and values as in Kubernetes.
pub(crate) fn labels(labels: &BTreeMap<String, String>, faults: &mut Faults) {
    if labels.len() > MOST_LABELS {
        faults.invalid("/labels", format!("there are at most {MOST_LABELS} labels"));
    }
    let allowed = |text: &str, extra: &[u8]| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
    };
    for (key, value) in labels {
        let pointer = format!("/labels/{}", escaped(key));
        if key.is_empty() || key.len() > 317 || !allowed(key, b"-_./") {
            faults.invalid(&pointer, "a label's key has letters, digits, `-`, `_`, `.` and `/`");
        }
        if value.len() > 63 || !allowed(value, b"-_.") {
            let detail = "a label's value has at most 63 letters, digits, `-`, `_` and `.`";
            faults.invalid(&pointer, detail);
        }
    }
}

/// A URL with one of these schemes, and no credentials in it.
pub(crate) fn url(text: &str, schemes: &[&str], pointer: &str, faults: &mut Faults) {
    match Url::parse(text) {
        Err(error) => faults.invalid(pointer, format!("is not a URL: {error}")),
        Ok(url) if !schemes.contains(&url.scheme()) => {
            faults.invalid(pointer, format!("begins with `{}://`", schemes.join("://` or `")));
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            faults.invalid(pointer, "must not hold a user name or password");
        }
        Ok(_) => {}
    }
}

/// A duration such as `720h`.
pub(crate) fn duration(
    text: Option<&str>,
    pointer: &str,
    faults: &mut Faults,
) -> Option<time::Duration> {
    match crate::domain::duration::parse(text?) {
        Ok(duration) => Some(duration),
        Err(problem) => {
            faults.invalid(pointer, problem);
            None
        }
    }
}

/// A time in a body.
pub(crate) fn moment_at(
    text: Option<&str>,
    pointer: &str,
    faults: &mut Faults,
) -> Option<OffsetDateTime> {
    let moment = OffsetDateTime::parse(text?, &Rfc3339).ok();
    if moment.is_none() {
        faults.invalid(pointer, "is a time such as `2026-11-24T12:00:00Z` (RFC 3339)");
    }
    moment
}

/// A time in the query.
pub(crate) fn moment(text: &str, parameter: &str) -> Result<OffsetDateTime, ApiError> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        let example = "2026-11-24T12:00:00Z";
        ApiError::malformed(format!("`{parameter}` is a time such as `{example}` (RFC 3339)."))
    })
}
