//! An answer of Cloudflare's API, or of whoever stands at another base URL.

use std::sync::{Arc, LazyLock};

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::answer::{Listed, is_id, written};
use super::api::{Api, http_client};
use super::budget::Budgets;
use super::error::{ApiError, Concerning, Problem};
use super::ours::ours;
use super::records::Txt;
use super::zones::named;
use crate::clock::Clock;
use crate::domain::failure::Failure;
use crate::domain::name::comparable;
use crate::domain::text::{Lines, refuse};
use crate::outbound::Client;
use crate::secret::Secret;

const NOW: OffsetDateTime = datetime!(2026-12-01 0:00 UTC);
const MARK: &str = "certwright abc ";
const TOKEN: &str = "s3cret-token";

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> OffsetDateTime {
        NOW
    }
}

/// The true one, and one at another base URL, which is not quoted.
static APIS: LazyLock<[Api; 2]> = LazyLock::new(|| [None, Some("https://dns.example")].map(api));

fn api(base: Option<&str>) -> Api {
    let token = Secret::new(TOKEN.to_owned());
    let api = Client::open(http_client())
        .map(|http| Api::new(http, base, &token, Arc::new(Stopped), &Budgets::new()));
    let Ok(Ok(api)) = api else { panic!("the client of the API cannot be made") };
    api
}

pub(crate) fn check(status: u16, headers: &HeaderMap, body: &[u8]) {
    let Ok(status) = StatusCode::from_u16(status) else { return };
    let [cloudflares, others] = &*APIS;
    match cloudflares.judge(status, headers, body) {
        Ok(answer) => is_read(&answer.result),
        Err(error) => is_error(&error),
    }
    if let Err(ApiError::Refused { problems, .. }) = others.judge(status, headers, body) {
        are_unquoted(&problems);
    }
}

fn is_read(result: &Value) {
    if let Some(zones) = Listed::read(result, named) {
        assert!(zones.read.len() <= zones.count);
        for (name, id) in &zones.read {
            assert!(is_id(id) && comparable(name) == *name, "{name} {id}");
        }
    }
    for txt in Listed::read(result, Txt::read).into_iter().flat_map(|list| list.read) {
        assert!(is_id(&txt.id) && comparable(&txt.name) == txt.name, "{} {}", txt.name, txt.id);
        let (comment, is_marked) = (txt.comment.clone(), txt.is_marked(MARK));
        let ours = ours(txt, "z", MARK).map(|ours| ours.challenge.0.to_string());
        let said = comment.as_deref().and_then(|comment| comment.strip_prefix(MARK));
        assert!(ours.is_none() || is_marked && said.is_some(), "{comment:?} is another's");
    }
    assert!(written(result).iter().flatten().all(|id| is_id(id)));
}

fn is_error(error: &ApiError) {
    match error {
        ApiError::Refused { problems, .. } => are_bounded(problems, 4),
        ApiError::Limited { retry_at, .. } => {
            assert!((NOW..=NOW + Duration::DAY).contains(retry_at), "{retry_at}");
        }
        _ => {}
    }
    let records = Concerning::Records { zone: "z", name: "a.example.com" };
    for about in [Concerning::ZonesFor("a.example.com"), records] {
        is_fit(&error.clone().into_failure(about));
    }
}

fn are_bounded(problems: &[Problem], depth: usize) {
    assert!(problems.len() <= 20 && (depth > 0 || problems.is_empty()), "{problems:?}");
    for problem in problems {
        assert!(problem.message.chars().count() <= 300, "{problem:?}");
        are_bounded(&problem.error_chain, depth - 1);
    }
}

fn are_unquoted(problems: &[Problem]) {
    for problem in problems {
        assert_eq!(problem.message, "");
        are_unquoted(&problem.error_chain);
    }
}

/// Bounded, fit to be shown, and without the token.
fn is_fit(failure: &Failure) {
    assert!(failure.known_code().is_some(), "{failure:?}");
    for text in [&failure.title, &failure.detail] {
        assert!(refuse(text, Lines::One).is_ok() && text.chars().count() <= 2_000, "{text:?}");
        assert!(!text.contains(TOKEN), "{text:?}");
    }
}
