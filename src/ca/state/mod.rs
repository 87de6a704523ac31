//! Orders and authorizations as CAs send them.
//!
//! The statuses are instant-acme's. The objects are read here, because instant-acme drops members that
//! are needed and rejects objects for odd members that nobody needs.

pub use instant_acme::{AuthorizationStatus, ChallengeStatus, OrderStatus};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::call::{Asked, Call, Trouble};
use super::classify::{classify, unreadable};
use super::exchange::{Exchange, absolute};
use crate::acme::json::{self, each, lenient, or_default, outline};
use crate::acme::problem::{Problem, clean};
use crate::domain::challenge::is_token;
use crate::domain::failure::{Failure, code};
use crate::domain::name;

/// Challenges of an authorization that are looked at; CAs offer three or four.
pub(super) const MOST_CHALLENGES: usize = 100;

/// An order in the CA's last answer.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderState {
    pub status: OrderStatus,
    pub expires: Option<OffsetDateTime>,
    pub certificate: Option<String>,
    /// Why it is invalid, where the CA says so here rather than in a challenge.
    pub error: Option<Failure>,
    /// `Retry-After`.
    pub retry_at: Option<OffsetDateTime>,
    pub(super) authorizations: Vec<String>,
    /// URL for the CSR, where the CA names it.
    pub(super) finalize: Option<String>,
}

/// An authorization (RFC 8555, section 7.1.4).
#[derive(Debug, Clone, PartialEq)]
pub struct Authorization {
    pub url: String,
    /// The name in the form that names are compared in, without a wildcard's `*.`.
    pub domain: String,
    /// Whether it is about `*.domain`.
    pub wildcard: bool,
    pub status: AuthorizationStatus,
    pub expires: Option<OffsetDateTime>,
    pub challenges: Vec<Offered>,
    /// Reasons why the other challenges cannot be used.
    pub unusable: Vec<String>,
}

/// The kinds of challenge that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChallengeKind {
    /// A file on port 80.
    Http01,
    /// A TXT record.
    Dns01,
    /// Any other, in the CA's words.
    Other(String),
}

/// One way to prove control.
#[derive(Debug, Clone, PartialEq)]
pub struct Offered {
    pub kind: ChallengeKind,
    pub url: String,
    /// Consists of base64url characters; empty for some other kinds.
    pub token: String,
    pub status: ChallengeStatus,
    pub error: Option<Failure>,
}

#[derive(Deserialize)]
struct OrderBody {
    status: String,
    #[serde(default, deserialize_with = "moment")]
    expires: Option<OffsetDateTime>,
    #[serde(default, deserialize_with = "lenient")]
    certificate: Option<String>,
    #[serde(default, deserialize_with = "error")]
    error: Option<Problem>,
    #[serde(default, deserialize_with = "or_default")]
    authorizations: Vec<String>,
    #[serde(default, deserialize_with = "lenient")]
    finalize: Option<String>,
}

#[derive(Deserialize)]
struct AuthorizationBody {
    identifier: IdentifierBody,
    status: String,
    #[serde(default, deserialize_with = "moment")]
    expires: Option<OffsetDateTime>,
    #[serde(default, deserialize_with = "or_default")]
    wildcard: bool,
    #[serde(default, deserialize_with = "each")]
    challenges: Vec<Value>,
}

#[derive(Deserialize)]
struct IdentifierBody {
    value: String,
}

#[derive(Deserialize)]
struct ChallengeBody {
    #[serde(rename = "type")]
    kind: String,
    url: String,
    #[serde(default, deserialize_with = "or_default")]
    token: String,
    status: ChallengeStatus,
    #[serde(default, deserialize_with = "error")]
    error: Option<Problem>,
}

impl OrderState {
    pub(super) fn read(asked: Asked, exchange: &Exchange) -> Result<Self, Failure> {
        let body: OrderBody = parse(asked, exchange)?;
        let url = |named: String| named_url(asked, exchange, &named);
        let error = body.error.map(|problem| carried(asked, problem));
        let (status, ended) = order_status(&body.status)?;
        Ok(Self {
            status,
            expires: body.expires,
            certificate: body.certificate.and_then(|named| absolute(&exchange.url, &named)),
            error: error.or(ended),
            retry_at: exchange.retry_at,
            authorizations: body.authorizations.into_iter().map(url).collect::<Result<_, _>>()?,
            finalize: body.finalize.filter(|named| !named.is_empty()).map(url).transpose()?,
        })
    }

    /// An order of which nothing else is known.
    pub(super) fn unread(status: OrderStatus) -> Self {
        Self {
            status,
            expires: None,
            certificate: None,
            error: None,
            retry_at: None,
            authorizations: Vec::new(),
            finalize: None,
        }
    }
}

impl Authorization {
    pub(super) fn read(url: String, asked: Asked, exchange: &Exchange) -> Result<Self, Failure> {
        let body: AuthorizationBody = parse(asked, exchange)?;
        let named = name::comparable(&body.identifier.value);
        let mut it = Self {
            url,
            wildcard: body.wildcard || named.starts_with("*."),
            domain: named.strip_prefix("*.").unwrap_or(&named).to_owned(),
            status: status_of(&body.status)?,
            expires: body.expires,
            challenges: Vec::new(),
            unusable: Vec::new(),
        };
        for offered in body.challenges.into_iter().take(MOST_CHALLENGES) {
            match Offered::read(asked, exchange, offered) {
                Ok(offered) => it.challenges.push(offered),
                Err(why) => it.unusable.push(why),
            }
        }
        Ok(it)
    }

    /// The challenge of this URL.
    pub fn offered(&self, url: &str) -> Option<&Offered> {
        self.challenges.iter().find(|offered| offered.url == url)
    }

    /// Why it is of no use any more, where it is neither pending nor valid.
    pub fn unusable(&self) -> Failure {
        let said = self.challenges.iter().find_map(|offered| offered.error.clone());
        said.unwrap_or_else(|| {
            Failure::of(
                code::ACME_AUTHORIZATION_UNUSABLE,
                format!("{} is {:?} at the CA.", self.domain, self.status),
            )
        })
    }
}

impl Offered {
    /// The error says why it cannot be used.
    fn read(asked: Asked, exchange: &Exchange, body: Value) -> Result<Self, String> {
        let of = body["type"].as_str().map(|kind| clean(kind, 100)).unwrap_or_default();
        let body: ChallengeBody =
            serde_json::from_value(body).map_err(|error| format!("{of}: {}", outline(&error)))?;
        let kind = match body.kind.as_str() {
            "http-01" => ChallengeKind::Http01,
            "dns-01" => ChallengeKind::Dns01,
            _ => ChallengeKind::Other(body.kind),
        };
        let may_be_absent = matches!(kind, ChallengeKind::Other(_)) && body.token.is_empty();
        if !may_be_absent && !is_token(&body.token) {
            let token = clean(&body.token, 100);
            return Err(format!(
                "{of}: its token {token:?} must not be used, as tokens consist of base64url characters"
            ));
        }
        let asked = Asked { call: Call::Challenge, ..asked };
        let url = absolute(&exchange.url, &body.url);
        Ok(Self {
            kind,
            url: url.ok_or_else(|| format!("{of}: its URL is none"))?,
            token: body.token,
            status: body.status,
            error: body.error.map(|problem| carried(asked, problem)),
        })
    }
}

/// Reads an order's status; some words that RFC 8555 does not have for orders end it with an error.
fn order_status(word: &str) -> Result<(OrderStatus, Option<Failure>), Failure> {
    Ok((
        match word {
            "pending" => OrderStatus::Pending,
            "ready" => OrderStatus::Ready,
            "processing" => OrderStatus::Processing,
            "valid" => OrderStatus::Valid,
            "invalid" => OrderStatus::Invalid,
            // RFC 8555 has these for authorizations and accounts only, and CAs for orders, too.
            "deactivated" | "revoked" | "expired" | "cancelled" | "canceled" => {
                return Ok((OrderStatus::Invalid, Some(ended(word))));
            }
            _ => return Err(unknown_status("order", word)),
        },
        None,
    ))
}

fn status_of(word: &str) -> Result<AuthorizationStatus, Failure> {
    Ok(match word {
        "pending" => AuthorizationStatus::Pending,
        "valid" => AuthorizationStatus::Valid,
        "invalid" => AuthorizationStatus::Invalid,
        "deactivated" => AuthorizationStatus::Deactivated,
        "expired" => AuthorizationStatus::Expired,
        "revoked" => AuthorizationStatus::Revoked,
        _ => return Err(unknown_status("authorization", word)),
    })
}

fn ended(word: &str) -> Failure {
    Failure::of(code::ACME_ORDER_ENDED, format!("Its status at the CA is `{word}`."))
}

/// It may be one that the order passes through.
fn unknown_status(of: &str, word: &str) -> Failure {
    Failure::of(code::ACME_UNKNOWN_STATUS, format!("It is {:?}.", clean(word, 100)))
        .titled(format!("The CA says a status of the {of} that ACME does not know"))
}

fn carried(asked: Asked, problem: Problem) -> Failure {
    classify(asked, &Trouble::Object(problem))
}

fn parse<T: for<'de> Deserialize<'de>>(asked: Asked, exchange: &Exchange) -> Result<T, Failure> {
    json::read(&exchange.body)
        .map_err(|error| unreadable(asked, format!("{}: {}", exchange.url, outline(&error))))
}

fn named_url(asked: Asked, exchange: &Exchange, named: &str) -> Result<String, Failure> {
    absolute(&exchange.url, named).ok_or_else(|| {
        let named = clean(named, 300);
        unreadable(asked, format!("{} names {named:?} as a URL", exchange.url))
    })
}

/// A moment that cannot be read is as good as none.
fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<OffsetDateTime>, D::Error> {
    let text: Option<String> = lenient(from)?;
    Ok(text.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok()))
}

fn error<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Problem>, D::Error> {
    Ok(Problem::within(Value::deserialize(from)?))
}

#[cfg(test)]
mod tests;
