//! What a client sees of an issuer.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::certificate::Condition;
use crate::domain::failure::Failure;
use crate::domain::issuer::{Acme, Issuer, Kind, State};

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
                },
                next_attempt_at: issuer.next_action_at.filter(|_| issuer.state == State::Failed),
                last_error: issuer.last_error.clone(),
            },
        }
    }
}
