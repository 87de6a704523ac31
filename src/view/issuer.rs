//! Views of an issuer.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ThrottleView;
use super::certificate::Condition;
use crate::domain::failure::Failure;
use crate::domain::issuer::{Acme, Issuer, Kind, State};
use crate::domain::limits::Limit;
use crate::domain::skew::Skew;

/// An issuer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Issuer)]
pub(crate) struct IssuerView {
    /// Its identifier.
    id: Uuid,
    /// The namespaces that it serves.
    kind: Kind,
    /// Its namespace; absent for a `ClusterIssuer`.
    namespace: Option<String>,
    /// The name by which certificates refer to it.
    name: String,
    /// Its specification.
    acme: Acme,
    /// Time of creation.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Counts changes of the specification.
    generation: i64,
    /// Its status.
    status: IssuerStatus,
}

/// The status of an issuer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct IssuerStatus {
    /// `Ready`, in cert-manager's words; where an issuer is read also `ClockSkewed`, while our clock and its CA's
    /// differ by more than a minute.
    conditions: Vec<Condition>,
    /// The account at the CA.
    acme: AccountView,
    /// What its CA has asked to wait for, of everybody or of its account: the longest first, at most twenty. Only when a
    /// single issuer is shown that has to wait; what is about names, and the CA's words, only to who sees `/throttles`.
    #[serde(skip_serializing_if = "Option::is_none")]
    throttles: Option<Vec<ThrottleView>>,
    /// Time of the next try.
    #[serde(with = "time::serde::rfc3339::option")]
    next_attempt_at: Option<OffsetDateTime>,
    /// The last error.
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
    /// The usage of the CA's limits, by name. Only when a single issuer is shown that has limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, LimitView>>)]
    limits: Option<LimitsView>,
}

/// The usage of a CA's limits.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct LimitsView(BTreeMap<&'static str, LimitView>);

/// The usage of one limit; of several per domain, set or name, the one with the highest usage.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LimitView {
    /// Number of requests that the CA takes at once.
    count: u32,
    /// Time after which all of them are available again.
    #[schema(example = "3h")]
    per: String,
    /// Number of requests that are used up.
    used: u32,
    /// Time at which one is available again; absent while some are. New orders that renew nothing have to
    /// leave a fifth.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    next_free_at: Option<OffsetDateTime>,
}

impl LimitsView {
    /// The usage of each limit by its name: the limit, and the time at which all of it is available
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
    /// The same with the usage of its CA's limits.
    pub(crate) fn with(mut self, limits: Option<LimitsView>) -> Self {
        self.status.acme.limits = limits;
        self
    }

    /// The same with what its orders may have to wait for.
    pub(crate) fn with_throttles(mut self, throttles: Vec<ThrottleView>) -> Self {
        self.status.throttles = Some(throttles).filter(|held| !held.is_empty());
        self
    }

    /// The same with the condition that our clock or the CA's is wrong, if one of them is.
    pub(crate) fn with_clock(mut self, skew: Option<Skew>) -> Self {
        let Some(skew) = skew else { return self };
        self.status.conditions.extend(skew.condition().map(|(reason, message)| Condition {
            kind: "ClockSkewed",
            status: "True",
            reason: reason.to_owned(),
            message,
            last_transition_time: skew.since,
        }));
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
                throttles: None,
                next_attempt_at: issuer.next_action_at.filter(|_| issuer.state == State::Failed),
                last_error: issuer.last_error.clone(),
            },
        }
    }
}
