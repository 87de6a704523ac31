//! `POST /policies/evaluate`: would a certificate be allowed, and by which policy?

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::AppState;
use crate::api::auth::{Authorized, CertificatesWrite};
use crate::api::certificates::validate::{Checked, validate};
use crate::api::extract::{Body, Json};
use crate::api::idempotency::IdempotencyKey;
use crate::api::problem::{ApiError, Errors};
use crate::domain::certificate::{IssuerRef, PrivateKey};
use crate::domain::policy::{Approval, NameVerdict, Verdict};
use crate::storage::policies;
use crate::view::spec::CertificateSpec;

/// A certificate that somebody might want.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "namespace": "payments", "issuerRef": {"name": "letsencrypt", "kind": "ClusterIssuer"},
    "dnsNames": ["api.payments.example.com"]
}))]
pub(crate) struct Question {
    /// Its namespace; `default` when absent.
    #[serde(default)]
    namespace: Option<String>,
    /// The issuer. It need not exist.
    issuer_ref: IssuerRef,
    /// DNS names, as people write them.
    #[serde(default)]
    #[schema(max_items = 100)]
    dns_names: Vec<String>,
    /// IP addresses.
    #[serde(default)]
    ip_addresses: Vec<String>,
    /// The kind of key.
    #[serde(default)]
    private_key: Option<PrivateKey>,
    /// A certificate signing request in PEM, instead of names and key.
    #[serde(default)]
    csr: Option<String>,
}

/// What the policies say.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Evaluation {
    /// Whether one policy allows the certificate as a whole.
    allowed: bool,
    /// That policy's name.
    #[schema(example = "payments")]
    policy: Option<String>,
    /// Whether a person would have to approve.
    approval: Option<Approval>,
    /// Each name.
    names: Vec<NameEvaluation>,
}

/// What the policies say of one name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NameEvaluation {
    /// The name, in canonical form.
    #[schema(example = "api.payments.example.com")]
    name: String,
    /// Whether it would be allowed if it were the only name.
    allowed: bool,
    /// The policy that allows it.
    policy: Option<String>,
    /// Why it is refused, or cannot be had together with the others.
    reason: Option<String>,
}

impl From<Question> for CertificateSpec {
    fn from(asked: Question) -> Self {
        Self {
            namespace: asked.namespace,
            name: None,
            labels: std::collections::BTreeMap::new(),
            issuer_ref: asked.issuer_ref,
            dns_names: asked.dns_names,
            ip_addresses: asked.ip_addresses,
            common_name: None,
            private_key: asked.private_key,
            csr: asked.csr,
            profile: None,
            duration: None,
            renew_before: None,
            renew_before_percentage: None,
            retry: None,
            revision_history_limit: None,
            webhooks: Vec::new(),
        }
    }
}

/// Evaluate policies
///
/// Says whether the policies of a namespace allow a certificate, and by which rule, without creating anything. A
/// principal that is bound to no namespace may create it all the same. Needs `certificates:write` in the namespace.
#[utoipa::path(post, path = "/policies/evaluate", operation_id = "evaluatePolicies", tag = "policies",
    params(("Idempotency-Key" = Option<String>, Header, description = "Has no effect: a question may be put as often as one likes")),
    request_body = Question,
    responses((status = 200, body = Evaluation, description = "What the policies say"), Errors))]
pub(crate) async fn evaluate(
    State(app): State<AppState>,
    who: Authorized<CertificatesWrite>,
    _: IdempotencyKey,
    body: Body<Question>,
) -> Result<Json<Evaluation>, ApiError> {
    let checked = validate(&body.value.into())?;
    who.must_own(&checked.namespace)?;
    let policies = policies::cached(&app.db, &checked.namespace).await?;
    Ok(Json(evaluation(&checked, checked.judged(&policies))))
}

fn evaluation(checked: &Checked, verdict: Verdict) -> Evaluation {
    match verdict {
        Verdict::Allowed { policy, approval } => {
            let names = checked.spec.names().into_iter().map(|name| NameEvaluation {
                name,
                allowed: true,
                policy: Some(policy.clone()),
                reason: None,
            });
            let names = names.collect();
            Evaluation { allowed: true, policy: Some(policy), approval: Some(approval), names }
        }
        Verdict::Refused(names) => {
            let names = names.into_iter().map(|NameVerdict { name, policy, reason }| {
                NameEvaluation { name, allowed: policy.is_some(), policy, reason: Some(reason) }
            });
            Evaluation { allowed: false, policy: None, approval: None, names: names.collect() }
        }
    }
}
