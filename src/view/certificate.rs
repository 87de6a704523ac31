//! Views of a certificate. None has a private key.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::ari::{Ari, Window};
use crate::domain::backoff::Retry;
use crate::domain::certificate::{
    Certificate, IssuerRef, Phase, PrivateKey, Revoked, Standing, State,
};
use crate::domain::failure::Failure;
use crate::domain::policy::AdmittedBy;

/// A certificate that is wanted, and perhaps there.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Certificate)]
pub(crate) struct CertificateView {
    /// Its identifier.
    id: Uuid,
    /// Its namespace.
    namespace: String,
    /// The client's name for it.
    name: String,
    /// Labels for selectors and filters.
    labels: BTreeMap<String, String>,
    /// The issuer.
    issuer_ref: IssuerRef,
    /// Names, in canonical form.
    #[schema(example = json!(["app.example.com", "*.app.example.com"]))]
    dns_names: Vec<String>,
    /// IP addresses, in canonical form.
    ip_addresses: Vec<String>,
    /// The subject's name, one of the names.
    common_name: Option<String>,
    /// Which kind of key is made, and when a new one; `null` where the client holds the key.
    private_key: Option<PrivateKey>,
    /// The client's certificate signing request, in PEM; `null` where the key is made here.
    csr: Option<String>,
    /// Certificate profile, instead of the issuer's.
    profile: Option<String>,
    /// How long it is to live; `null` leaves that to the CA.
    duration: Option<String>,
    /// Renew this long before the end.
    renew_before: Option<String>,
    /// Percentage of the lifetime that is left when it is renewed.
    renew_before_percentage: Option<u8>,
    /// Pauses after failed attempts, instead of the issuer's.
    retry: Option<Retry>,
    /// Number of revisions that are kept.
    revision_history_limit: u32,
    /// Webhooks that are sent its events, whatever labels they select.
    webhooks: Vec<Uuid>,
    /// Time of creation.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Time since which it waits for its revocation, to be deleted; `null` otherwise.
    #[serde(with = "time::serde::rfc3339::option")]
    deletion_timestamp: Option<OffsetDateTime>,
    /// By what right it is there.
    admitted_by: AdmittedBy,
    /// Counts changes of the specification.
    generation: i64,
    /// Its status.
    status: CertificateStatus,
}

/// The status of a certificate.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CertificateStatus {
    /// A summary in one word.
    phase: Phase,
    /// `Ready` and `Issuing`, in cert-manager's words; `Approved` or `Denied`, where somebody has to approve its
    /// request.
    conditions: Vec<Condition>,
    /// The number of the served revision, from 1; 0 while there is none.
    revision: i64,
    /// The current or last request.
    #[schema(example = "/requests/019ab000-0000-7000-8000-000000000000")]
    request: Option<String>,
    /// The current or last order.
    #[schema(example = "/orders/019ab000-0000-7000-8000-000000000000")]
    order: Option<String>,
    /// Start of the served certificate's validity.
    #[serde(with = "time::serde::rfc3339::option")]
    not_before: Option<OffsetDateTime>,
    /// End of the served certificate's validity.
    #[serde(with = "time::serde::rfc3339::option")]
    not_after: Option<OffsetDateTime>,
    /// Time of its renewal.
    #[serde(with = "time::serde::rfc3339::option")]
    renewal_time: Option<OffsetDateTime>,
    /// The CA's suggestion for its renewal; `null` if the CA makes none.
    ari: Option<AriView>,
    /// The last revocation; `null` if there was none.
    revocation: Option<Revoked>,
    /// The served certificate's serial number, hexadecimal.
    serial_number: Option<String>,
    /// Failed attempts in a row.
    failed_issuance_attempts: u32,
    /// Time of the next attempt.
    #[serde(with = "time::serde::rfc3339::option")]
    next_attempt_at: Option<OffsetDateTime>,
    /// The last error; `null` after success.
    last_error: Option<Failure>,
}

/// The CA's suggestion for a renewal (RFC 9773).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AriView {
    /// The window that the CA suggests; `null` while it has suggested none.
    suggested_window: Option<Window>,
    /// The time in the window that was chosen at random.
    #[serde(with = "time::serde::rfc3339::option")]
    chosen_time: Option<OffsetDateTime>,
    /// The CA's page on why the window is what it is.
    #[serde(rename = "explanationURL")]
    explanation_url: Option<String>,
    /// Time of the CA's last answer.
    #[serde(with = "time::serde::rfc3339::option")]
    last_checked: Option<OffsetDateTime>,
    /// Time of the next question.
    #[serde(with = "time::serde::rfc3339")]
    next_check: OffsetDateTime,
    /// The error of the last question.
    last_error: Option<Failure>,
}

impl From<&Ari> for AriView {
    fn from(ari: &Ari) -> Self {
        Self {
            suggested_window: ari.window,
            chosen_time: ari.chosen,
            explanation_url: ari.explanation_url.clone(),
            last_checked: ari.last_checked,
            next_check: ari.next_check,
            last_error: ari.last_error.clone(),
        }
    }
}

/// One aspect of a resource's state, as in Kubernetes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    /// The aspect.
    #[serde(rename = "type")]
    #[schema(example = "Ready")]
    pub(crate) kind: &'static str,
    /// `True`, `False` or `Unknown`.
    #[schema(example = "False")]
    pub(crate) status: &'static str,
    /// cert-manager's word for the reason.
    #[schema(example = "DoesNotExist")]
    pub(crate) reason: String,
    /// One sentence for people.
    pub(crate) message: String,
    /// Start of this state.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) last_transition_time: OffsetDateTime,
}

impl CertificateView {
    /// The certificate as it is at `now`.
    pub(crate) fn of(certificate: &Certificate, now: OffsetDateTime) -> Self {
        let spec = &certificate.spec;
        Self {
            id: certificate.id.0,
            namespace: certificate.namespace.clone(),
            name: certificate.name.clone(),
            labels: certificate.labels.clone(),
            issuer_ref: spec.issuer_ref.clone(),
            dns_names: spec.dns_names.clone(),
            ip_addresses: spec.ip_addresses.clone(),
            common_name: spec.common_name.clone(),
            private_key: spec.csr.is_none().then(|| spec.private_key.clone()),
            csr: spec.csr.clone(),
            profile: spec.profile.clone(),
            duration: spec.duration.clone(),
            renew_before: spec.renew_before.clone(),
            renew_before_percentage: spec.renew_before_percentage,
            retry: spec.retry.clone(),
            revision_history_limit: spec.revision_history_limit,
            webhooks: spec.webhooks.clone(),
            created_at: certificate.created_at,
            deletion_timestamp: certificate.deleting_since,
            admitted_by: certificate.admitted_by.clone(),
            generation: certificate.generation,
            status: status(certificate, now),
        }
    }
}

fn status(certificate: &Certificate, now: OffsetDateTime) -> CertificateStatus {
    let current = certificate.current.as_ref();
    CertificateStatus {
        phase: certificate.phase(now),
        conditions: [ready(certificate, now), issuing(certificate)]
            .into_iter()
            .chain(approval(certificate))
            .collect(),
        revision: current.map_or(0, |issued| issued.revision),
        request: certificate.request.map(|request| format!("/requests/{request}")),
        order: certificate.order.map(|order| format!("/orders/{order}")),
        not_before: current.map(|issued| issued.not_before),
        not_after: current.map(|issued| issued.not_after),
        renewal_time: current.map(|issued| issued.renewal_time),
        ari: certificate.ari.as_ref().map(AriView::from),
        revocation: certificate.revocation.clone(),
        serial_number: current.map(|issued| issued.serial.clone()),
        failed_issuance_attempts: certificate.failed_attempts,
        next_attempt_at: certificate.next_attempt_at(),
        last_error: certificate.last_error.clone(),
    }
}

fn ready(certificate: &Certificate, now: OffsetDateTime) -> Condition {
    let (status, reason, message, since) = match &certificate.current {
        None => {
            let message = "There is no certificate yet".to_owned();
            ("False", "DoesNotExist", message, certificate.created_at)
        }
        Some(issued) if issued.not_after <= now => {
            let message = format!("Certificate expired on {}", issued.not_after);
            ("False", "Expired", message, issued.not_after)
        }
        Some(_) if certificate.is_revoked() => {
            let message = "The certificate that is served was revoked".to_owned();
            let known = certificate.revocation.as_ref().and_then(|known| known.revoked_at);
            ("False", "Revoked", message, known.unwrap_or(certificate.state_since))
        }
        Some(issued) => {
            let message = match certificate.state {
                State::Idle => "Certificate is up to date and has not expired",
                // The specification may have changed since the served certificate was issued.
                _ => "A certificate is served and has not expired; Issuing tells of its successor",
            };
            ("True", "Ready", message.to_owned(), issued.not_before)
        }
    };
    let reason = reason.to_owned();
    Condition { kind: "Ready", status, reason, message, last_transition_time: since }
}

/// How the approval of its request stands, where that is waited for, was given or was denied.
fn approval(certificate: &Certificate) -> Option<Condition> {
    let trouble = || certificate.last_error.as_ref().map(Failure::to_string).unwrap_or_default();
    let (kind, status, reason, message) = match certificate.approval()? {
        Standing::Pending => ("Approved", "False", "Pending", trouble()),
        Standing::Denied => ("Denied", "True", "Denied", trouble()),
        Standing::Approved => {
            let message = "The request for the next revision was approved".to_owned();
            ("Approved", "True", "Approved", message)
        }
    };
    let (reason, last_transition_time) = (reason.to_owned(), certificate.state_since);
    Some(Condition { kind, status, reason, message, last_transition_time })
}

fn issuing(certificate: &Certificate) -> Condition {
    let trouble = || certificate.last_error.as_ref().map(Failure::to_string);
    let (status, reason, message) = match certificate.state {
        State::Triggered(trigger) | State::Ordering(trigger) => {
            let message = trouble().unwrap_or_else(|| "The certificate is being issued".to_owned());
            ("True", trigger.as_str(), message)
        }
        State::AwaitingIssuer(trigger) => {
            let message = trouble().unwrap_or_else(|| "Waiting for the issuer".to_owned());
            ("True", trigger.as_str(), message)
        }
        State::Idle => {
            ("False", "Issued", "The certificate has been successfully issued".to_owned())
        }
        State::AwaitingApproval(trigger) => {
            ("True", trigger.as_str(), trouble().unwrap_or_default())
        }
        State::Backoff | State::Blocked => ("False", "Failed", trouble().unwrap_or_default()),
    };
    Condition {
        kind: "Issuing",
        status,
        reason: reason.to_owned(),
        message,
        last_transition_time: certificate.state_since,
    }
}
