//! Orders and authorizations as we see them: ours, because instant-acme drops half of what they say.

use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::classify::{Asked, Call, Trouble, classify};
use super::nonce::is_base64url;
use super::problem::{Problem, clean, outline};
use super::tape::Exchange;
use crate::domain::failure::{Class, Failure};

/// Where an order stands (RFC 8555, section 7.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderStatus {
    /// Some authorization is not valid yet.
    Pending,
    /// Waits for the CSR.
    Ready,
    /// The certificate is being issued.
    Processing,
    /// The certificate can be downloaded.
    Valid,
    /// Over, without a certificate.
    Invalid,
}

/// What the CA last said about an order.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderState {
    /// Where it stands.
    pub status: OrderStatus,
    /// When the CA will forget it.
    pub expires: Option<OffsetDateTime>,
    /// URL of the certificate.
    pub certificate: Option<String>,
    /// Why it is invalid, where the CA says so here rather than in a challenge.
    pub error: Option<Failure>,
    /// Nothing new is to be expected before this moment.
    pub retry_at: Option<OffsetDateTime>,
    /// URLs of what has to be proved.
    pub(super) authorizations: Vec<String>,
    /// Where the CSR goes.
    pub(super) finalize: String,
}

/// Where an authorization stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorizationStatus {
    /// One challenge has to be met.
    Pending,
    /// Control over the name is proved.
    Valid,
    /// A challenge has failed.
    Invalid,
    /// Given up by the account.
    Deactivated,
    /// Too old.
    Expired,
    /// Taken back by the CA.
    Revoked,
}

/// What the CA wants to know about one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorization {
    /// Its URL.
    pub url: String,
    /// The name, without a wildcard's `*.`.
    pub domain: String,
    /// Whether it is about `*.domain`.
    pub wildcard: bool,
    /// Where it stands.
    pub status: AuthorizationStatus,
    /// When it will be over.
    pub expires: Option<OffsetDateTime>,
    /// The ways to prove control: one is enough.
    pub challenges: Vec<Offered>,
}

/// Where a challenge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChallengeStatus {
    /// Waits for us to say that the proof is there.
    Pending,
    /// The CA is looking.
    Processing,
    /// The CA has found the proof.
    Valid,
    /// The CA has not found it.
    Invalid,
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
    /// Which way.
    pub kind: ChallengeKind,
    /// Its URL: its name towards the CA.
    pub url: String,
    /// What the proof is made of; base64url characters only, empty for some other kinds.
    pub token: String,
    /// Where it stands.
    pub status: ChallengeStatus,
    /// What the CA found instead of the proof.
    pub error: Option<Failure>,
}

#[derive(Deserialize)]
struct OrderBody {
    status: OrderStatus,
    #[serde(default, deserialize_with = "moment")]
    expires: Option<OffsetDateTime>,
    certificate: Option<String>,
    error: Option<Problem>,
    #[serde(default)]
    authorizations: Vec<String>,
    #[serde(default)]
    finalize: String,
}

#[derive(Deserialize)]
struct AuthorizationBody {
    identifier: IdentifierBody,
    status: AuthorizationStatus,
    #[serde(default, deserialize_with = "moment")]
    expires: Option<OffsetDateTime>,
    #[serde(default)]
    wildcard: bool,
    challenges: Vec<ChallengeBody>,
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
    #[serde(default)]
    token: String,
    status: ChallengeStatus,
    error: Option<Problem>,
}

impl OrderState {
    pub(super) fn read(asked: Asked, exchange: &Exchange) -> Result<Self, Failure> {
        let body: OrderBody = parse(asked, exchange)?;
        Ok(Self {
            status: body.status,
            expires: body.expires,
            certificate: body.certificate,
            error: body.error.map(|problem| carried(asked, problem)),
            retry_at: exchange.retry_at,
            authorizations: body.authorizations,
            finalize: body.finalize,
        })
    }
}

impl Authorization {
    pub(super) fn read(url: String, asked: Asked, exchange: &Exchange) -> Result<Self, Failure> {
        let body: AuthorizationBody = parse(asked, exchange)?;
        let name = body.identifier.value;
        let challenges = body.challenges.into_iter().map(|body| Offered::read(asked, body));
        Ok(Self {
            url,
            wildcard: body.wildcard || name.starts_with("*."),
            domain: name.strip_prefix("*.").unwrap_or(&name).to_owned(),
            status: body.status,
            expires: body.expires,
            challenges: challenges.collect::<Result<_, _>>()?,
        })
    }
}

impl Offered {
    fn read(asked: Asked, body: ChallengeBody) -> Result<Self, Failure> {
        let kind = match body.kind.as_str() {
            "http-01" => ChallengeKind::Http01,
            "dns-01" => ChallengeKind::Dns01,
            _ => ChallengeKind::Other(body.kind),
        };
        let may_be_absent = matches!(kind, ChallengeKind::Other(_)) && body.token.is_empty();
        if !may_be_absent && !is_base64url(&body.token) {
            return Err(bad_token(&body.token));
        }
        Ok(Self {
            kind,
            url: body.url,
            token: body.token,
            status: body.status,
            error: body
                .error
                .map(|problem| carried(Asked { call: Call::Challenge, ..asked }, problem)),
        })
    }
}

/// Tokens end in file names and URLs: a CA that sends others is broken or hostile.
fn bad_token(token: &str) -> Failure {
    Failure::new(
        Class::Blocked,
        "acme_bad_token",
        "The CA sent a token that must not be used.",
        format!("Tokens consist of base64url characters; this one is {:?}.", clean(token, 100)),
    )
}

fn carried(asked: Asked, problem: Problem) -> Failure {
    classify(asked, &Trouble::Object(problem))
}

fn parse<T: for<'de> Deserialize<'de>>(asked: Asked, exchange: &Exchange) -> Result<T, Failure> {
    serde_json::from_slice(&exchange.body).map_err(|error| {
        super::ask::unreadable(asked, format!("{}: {}", exchange.url, outline(&error)))
    })
}

/// A moment that cannot be read is as good as none.
fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<OffsetDateTime>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    Ok(text.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use serde_json::{Value, json};

    use super::*;

    const NOON: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);

    #[test]
    fn an_order_says_when_it_ends_and_when_to_look_again() {
        let mut seen = exchange(&json!({
            "status": "processing", "expires": "2026-01-02T12:00:00Z",
            "authorizations": [], "finalize": "https://ca.example/f",
        }));
        seen.retry_at = Some(NOON);

        let state = OrderState::read(Asked::of(Call::GetOrder), &seen).unwrap();

        assert_eq!(state.status, OrderStatus::Processing);
        assert_eq!(state.expires, Some(NOON + time::Duration::days(1)));
        assert_eq!(state.retry_at, Some(NOON));
    }

    #[test]
    fn a_failed_challenge_says_why() {
        let error = json!({"type": "urn:ietf:params:acme:error:dns", "detail": "NXDOMAIN"});
        let read = authorization(&json!([
            {"type": "dns-01", "url": "https://ca.example/c", "token": "abc_-1", "status": "invalid",
             "error": error},
        ]));

        let challenges = read.unwrap().challenges;

        assert_eq!(challenges[0].kind, ChallengeKind::Dns01);
        assert_eq!(challenges[0].error.as_ref().unwrap().class, Class::Validation);
    }

    #[test]
    fn a_token_that_could_do_harm_is_refused() {
        for token in ["../../etc/passwd", "a b", "", "a.b", "a/b", "ä"] {
            let read = authorization(&json!([
                {"type": "http-01", "url": "https://ca.example/c", "token": token, "status": "pending"},
            ]));

            assert_eq!(read.unwrap_err().code, "acme_bad_token", "{token:?}");
        }
    }

    #[test]
    fn a_challenge_of_another_kind_needs_no_token() {
        let read = authorization(&json!([
            {"type": "dns-persist-01", "url": "https://ca.example/c", "status": "pending"},
        ]));

        let kind = ChallengeKind::Other("dns-persist-01".into());
        assert_eq!(read.unwrap().challenges[0].kind, kind);
    }

    fn authorization(challenges: &Value) -> Result<Authorization, Failure> {
        let body = json!({
            "status": "pending", "identifier": {"type": "dns", "value": "a.example"},
            "challenges": challenges,
        });
        let asked = Asked::of(Call::GetAuthorization);
        Authorization::read("https://ca.example/a".into(), asked, &exchange(&body))
    }

    fn exchange(body: &Value) -> Exchange {
        let body = Bytes::from(body.to_string());
        Exchange::new("https://ca.example/x".into(), 200, &HeaderMap::new(), body, NOON)
    }
}
