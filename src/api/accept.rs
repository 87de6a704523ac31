//! The form of an answer that a client prefers (`Accept`: RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};

use super::problem::{ApiError, Code};

/// A media range with its weight.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    weight: f32,
}

impl<'a> Range<'a> {
    /// Passes over what is no media range.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let weights = parts.filter_map(|parameter| parameter.split_once('='));
        let mut weights = weights.filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
        let weight = match weights.next() {
            None => 1.0,
            Some((_, text)) => text.trim().parse().ok().filter(|q| (0.0..=1.0).contains(q))?,
        };
        Some(Self { kind, subtype, weight })
    }

    /// How exactly the range names this form; none where it does not.
    fn exactness(&self, form: &str) -> Option<u8> {
        let (kind, subtype) = form.split_once('/')?;
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (its, "*") if its.eq_ignore_ascii_case(kind) => Some(1),
            (its, exactly) if its.eq_ignore_ascii_case(kind) => {
                exactly.eq_ignore_ascii_case(subtype).then_some(2)
            }
            _ => None,
        }
    }
}

/// The form that the client likes best: of several that it likes equally the one that it names first, else the
/// one that stands first here.
pub(crate) fn preferred(
    headers: &HeaderMap,
    forms: &[&'static str],
) -> Result<&'static str, ApiError> {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let ranges: Vec<_> = lines.flat_map(|line| line.split(',')).filter_map(Range::parse).collect();
    let mut best: Option<(&'static str, f32, usize)> = None;
    for form in forms {
        let matching = ranges.iter().enumerate().filter_map(|(place, range)| {
            range.exactness(form).map(|exactness| (exactness, place, range.weight))
        });
        // The most exact range alone decides, wherever it stands.
        let (weight, place) = match matching.max_by_key(|(exactness, ..)| *exactness) {
            Some((_, place, weight)) => (weight, place),
            None if ranges.is_empty() => (1.0, 0),
            None => continue,
        };
        let is_better =
            best.is_none_or(|(_, most, first)| weight > most || (weight >= most && place < first));
        if weight > 0.0 && is_better {
            best = Some((form, weight, place));
        }
    }
    best.map(|(form, ..)| form).ok_or_else(|| {
        let detail =
            format!("Name one of the forms that there are in `Accept`: {}.", forms.join(", "));
        ApiError::Because(Code::NotAcceptable, detail)
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_form_is_the_one_that_the_client_likes_best() {
        const FORMS: [&str; 2] = ["application/json", "text/plain"];
        let (json, text) = (Some(FORMS[0]), Some(FORMS[1]));
        for (accept, form) in [
            ("", json),
            ("*/*", json),
            ("text/plain", text),
            ("Text/Plain; charset=utf-8", text),
            ("text/*", text),
            ("image/png, text/*", text),
            ("application/json, text/plain", json),
            ("text/plain, application/json", text),
            ("application/json;q=0.5, text/plain;q=0.7", text),
            ("application/json;q=0.5, text/plain; Q=0.3", json),
            ("text/plain;q=0, */*", json),
            ("*/*, application/json;q=0", text),
            ("*/*;q=0.1, text/*;q=0.5, text/plain;q=0.05", json),
            ("text/plain;q=0.5, application/json;q=nonsense", text),
            ("nonsense", json),
            ("image/png", None),
            ("application/json;q=0, text/plain;q=0.000", None),
            ("*/*;q=0", None),
        ] {
            let headers =
                HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(preferred(&headers, &FORMS).ok(), form, "{accept:?}");
        }
        assert_eq!(preferred(&HeaderMap::new(), &FORMS).ok(), json);
    }

    #[test]
    fn a_refusal_names_the_forms_that_there_are() {
        let headers =
            HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("image/png"))]);

        let Err(ApiError::Because(Code::NotAcceptable, detail)) =
            preferred(&headers, &["application/json", "text/plain"])
        else {
            panic!("there is no such form");
        };
        assert!(detail.ends_with("`Accept`: application/json, text/plain."), "{detail}");
    }
}
