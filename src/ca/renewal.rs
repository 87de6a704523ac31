//! ACME Renewal Information (RFC 9773): the time at which the CA wants a certificate replaced.

use bytes::Bytes;
use serde::Deserialize;
use time::OffsetDateTime;

use super::Ca;
use super::ask::get;
use super::call::{Asked, Call};
use super::classify::unreadable;
use crate::acme::json::{self, lenient, outline};
use crate::acme::problem::clean;
use crate::domain::ari::{Answer, Window};
use crate::domain::failure::Failure;
use crate::domain::issuer::{Acme, RenewalInformationSource};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    suggested_window: Window,
    #[serde(rename = "explanationURL", default, deserialize_with = "lenient")]
    explanation_url: Option<String>,
}

impl Ca {
    /// Asks for the CA's suggestion for the certificate of this name (`pki::Leaf::ari`).
    pub async fn renewal_information(&self, acme: &Acme, certificate: &str) -> Answer {
        match self.ask_for_renewal(acme, certificate).await {
            Ok(answer) => answer,
            Err(failure) => Answer::Failed(failure),
        }
    }

    /// Whether an order may say what it replaces.
    pub async fn offers_renewal_information(&self, acme: &Acme) -> Result<bool, Failure> {
        Ok(acme.renewal_information_source == RenewalInformationSource::Ari
            && self.endpoint(acme)?.directory().await?.renewal_info.is_some())
    }

    async fn ask_for_renewal(&self, acme: &Acme, certificate: &str) -> Result<Answer, Failure> {
        if !self.offers_renewal_information(acme).await? {
            return Ok(Answer::NotOffered);
        }
        let endpoint = self.endpoint(acme)?;
        let directory = endpoint.directory().await?;
        let base = directory.renewal_info.as_deref().unwrap_or_default().trim_end_matches('/');
        let url = format!("{base}/{certificate}");
        let asked = Asked::of(Call::RenewalInformation);
        let exchange = get(endpoint.client(), asked, &url).await?;
        read(&exchange.body, exchange.retry_at).map_err(|why| unreadable(asked, why))
    }
}

pub(super) fn read(body: &Bytes, retry_at: Option<OffsetDateTime>) -> Result<Answer, String> {
    let body: Body = json::read(body).map_err(|error| outline(&error))?;
    let page = body.explanation_url.map(|url| clean(&url, 1_000));
    // Others are not fit to be shown as links.
    let page = page.filter(|url| url.starts_with("https://") || url.starts_with("http://"));
    Ok(Answer::Suggested { window: body.suggested_window, explanation_url: page, retry_at })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_suggestion_is_read_with_its_explanation() {
        let body = br#"{"suggestedWindow": {"start": "2026-01-02T04:00:00Z", "end": "2026-01-03T04:00:00+01:00"},
            "explanationURL": "https://ca.example/incident", "more": 1}"#;

        let answer = read(&Bytes::from_static(body), None).unwrap();

        let window =
            Window { start: datetime!(2026-01-02 4:00 UTC), end: datetime!(2026-01-03 3:00 UTC) };
        let explanation_url = Some("https://ca.example/incident".to_owned());
        assert_eq!(answer, Answer::Suggested { window, explanation_url, retry_at: None });
    }

    #[test]
    fn an_explanation_that_is_none_does_not_cost_the_suggestion() {
        for odd in ["null", "5", "[]", "{}", r#""""#] {
            let body = format!(
                r#"{{"suggestedWindow": {{"start": "2026-01-02T04:00:00Z", "end": "2026-01-03T04:00:00Z"}},
                "explanationURL": {odd}}}"#
            );
            let answer = read(&Bytes::from(body), None).unwrap();
            assert!(matches!(answer, Answer::Suggested { explanation_url: None, .. }), "{odd}");
        }
    }

    #[test]
    fn what_is_no_suggestion_is_no_answer() {
        for body in [
            "",
            "null",
            "[]",
            "<html>",
            "{}",
            r#"{"suggestedWindow": null}"#,
            r#"{"suggestedWindow": {"start": "2026-01-02T04:00:00Z"}}"#,
            r#"{"suggestedWindow": {"start": "soon", "end": "later"}}"#,
            r#"{"suggestedWindow": {"start": 1, "end": 2}}"#,
        ] {
            assert!(read(&Bytes::from_static(body.as_bytes()), None).is_err(), "{body}");
        }
    }

    #[test]
    fn a_link_that_is_no_page_is_not_shown() {
        let body = br#"{"suggestedWindow": {"start": "2026-01-02T04:00:00Z", "end": "2026-01-03T04:00:00Z"},
            "explanationURL": "javascript:alert(1)"}"#;
        let answer = read(&Bytes::from_static(body), None).unwrap();
        assert!(matches!(answer, Answer::Suggested { explanation_url: None, .. }), "{answer:?}");
    }
}
