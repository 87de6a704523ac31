//! What a client sees of an issuer.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::certificate::Condition;
use crate::domain::failure::Failure;
use crate::domain::issuer::{Acme, Issuer, Kind, State};
use crate::domain::limits::Limit;

/// An issuer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Issuer)]
pub(crate) struct IssuerView {
    /// Its identifier.
    id: Uuid,
    /// Whom it serves.
    kind: Kind,
    /// Whose it is; absent for a `ClusterIssuer`.
    namespace: Option<String>,
    /// What certificates refer to.
    name: String,
    /// What is wanted.
    acme: Acme,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Counts changes of the specification.
    generation: i64,
    /// How far it is.
    status: IssuerStatus,
}

/// How far an issuer is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct IssuerStatus {
    /// `Ready`, in cert-manager's words.
    conditions: Vec<Condition>,
    /// The account at the CA.
    acme: AccountView,
    /// When the account is tried again.
    #[serde(with = "time::serde::rfc3339::option")]
    next_attempt_at: Option<OffsetDateTime>,
    /// What last went wrong.
    last_error: Option<Failure>,
}

/// An account at a CA.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AccountView {
    /// The CA's name for it.
    uri: Option<String>,
    /// The contact that the CA knows.
    last_registered_email: Option<String>,
    /// What is used of the CA's limits, by name. Only where a single issuer is shown, and has some.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, LimitView>>)]
    limits: Option<LimitsView>,
}

/// What is used of a CA's limits.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct LimitsView(BTreeMap<&'static str, LimitView>);

/// What is used of one limit; of those per domain, set or name, the one that most is used of.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LimitView {
    /// How many the CA takes at once.
    count: u32,
    /// After this long all of them are there again.
    #[schema(example = "3h")]
    per: String,
    /// How many are used up.
    used: u32,
    /// When there is one again; absent while there are some. New orders that renew nothing have to
    /// leave a fifth.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    next_free_at: Option<OffsetDateTime>,
}

impl LimitsView {
    /// What is used of each limit, by its name: the limit, and when all that was spent of it is there
    /// again. `None` where nothing is limited.
    pub(crate) fn of(
        spent: &[(&'static str, Limit, OffsetDateTime)],
        now: OffsetDateTime,
    ) -> Option<Self> {
        let shown = spent.iter().map(|(name, limit, spent)| {
            let rate = limit.rate();
            let view = LimitView {
                count: limit.count,
                per: limit.per.clone(),
                used: rate.map_or(0, |rate| rate.used(*spent, now)),
                next_free_at: rate.map(|rate| rate.free_at(*spent)).filter(|at| *at > now),
            };
            (*name, view)
        });
        Some(shown.collect::<BTreeMap<_, _>>()).filter(|shown| !shown.is_empty()).map(Self)
    }
}

impl IssuerView {
    /// The same with what is used of its CA's limits.
    pub(crate) fn with(mut self, limits: Option<LimitsView>) -> Self {
        self.status.acme.limits = limits;
        self
    }
}

impl From<&Issuer> for IssuerView {
    fn from(issuer: &Issuer) -> Self {
        let (status, reason, message) = issuer.ready();
        let account = issuer.account.as_ref();
        Self {
            id: issuer.id.0,
            kind: issuer.kind,
            namespace: Some(issuer.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: issuer.name.clone(),
            acme: issuer.acme.clone(),
            created_at: issuer.created_at,
            generation: issuer.generation,
            status: IssuerStatus {
                conditions: vec![Condition {
                    kind: "Ready",
                    status,
                    reason: reason.to_owned(),
                    message,
                    last_transition_time: issuer.state_since,
                }],
                acme: AccountView {
                    uri: account.map(|account| account.url.clone()),
                    last_registered_email: account.and_then(|account| account.email.clone()),
                    limits: None,
                },
                next_attempt_at: issuer.next_action_at.filter(|_| issuer.state == State::Failed),
                last_error: issuer.last_error.clone(),
            },
        }
    }
}
