//! What the log says of certificates, issuers and webhooks to whoever is on call: one line when something comes,
//! changes or ends, and none for what only repeats itself.
//!
//! A line is written once the transaction that it is about is committed; so is the span of an order sent that has ended.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::domain::certificate::{self, Certificate, State};
use crate::domain::event::{Event, Severity};
use crate::domain::event_type::EventType;
use crate::domain::expiry;
use crate::domain::failure::Failure;
use crate::domain::issuer::{self, Issuer};
use crate::domain::order::{self, Order};
use crate::domain::webhook;
use crate::storage::engine::tx::Hook;
use crate::storage::engine::{StorageError, Tx};
use crate::telemetry::trace;

/// What is told of a transaction.
#[derive(Default)]
struct Log(Vec<Box<dyn FnOnce() + Send>>);

impl Hook for Log {
    fn before_commit<'t>(&'t mut self, _: &'t mut Tx) -> BoxFuture<'t, Result<(), StorageError>> {
        async { Ok(()) }.boxed()
    }

    fn committed(self: Box<Self>) {
        for line in self.0 {
            line();
        }
    }
}

/// Sends the span of an order that this ends.
pub(in crate::storage) fn of_end(tx: &mut Tx, transition: &order::Transition) {
    if let Some(send) = trace::order::ended(transition) {
        add(tx, send);
    }
}

fn add(tx: &mut Tx, line: impl FnOnce() + Send + 'static) {
    // The commit may end in another task.
    let trace = trace::current();
    tx.hook::<Log>().0.push(Box::new(move || trace::as_of(trace, line)));
}

/// Issued, renewed, recovered, or in trouble that was not known.
pub(in crate::storage) fn of_certificate(tx: &mut Tx, transition: &certificate::Transition) {
    let certificate::Transition { certificate, event_types, trouble, .. } = transition;
    for event_type in event_types {
        let word = match event_type {
            EventType::CertificateIssued => "the certificate was issued",
            EventType::CertificateRenewed => "the certificate was renewed",
            EventType::CertificateRecovered => "the certificate has recovered",
            EventType::CertificateRevoked => "the certificate was revoked",
            EventType::RequestPending => {
                "the certificate waits until somebody approves its request"
            }
            EventType::RequestApproved => "the certificate's request was approved",
            EventType::RequestDenied => "the certificate's request was denied",
            _ => continue,
        };
        let (name, issuer) = (name(certificate), issuer_of(certificate));
        let not_after = certificate.current.as_ref().map(|issued| moment(issued.not_after));
        add(tx, move || tracing::info!(certificate = name, issuer, not_after, "{word}"));
    }
    if let Some(failure) = trouble.clone() {
        let (name, issuer) = (name(certificate), issuer_of(certificate));
        let next_attempt = moment(certificate.next_action_at);
        let Failure { code, .. } = failure.clone();
        let word = match certificate.state {
            State::Blocked => "the certificate waits for a changed certificate, issuer or secret",
            _ => "the certificate could not be issued, and is tried again",
        };
        add(tx, move || {
            tracing::warn!(certificate = name, issuer, code, %failure, next_attempt, "{word}");
        });
    }
    for event in &transition.events {
        if matches!(event.reason, "RevocationDelayed" | "RevocationFailed" | "InternalError") {
            let (name, message) = (name(certificate), event.message.clone());
            add(tx, move || tracing::warn!(certificate = name, "{message}"));
        }
    }
}

/// An order that goes on, in trouble that was not known.
pub(in crate::storage) fn of_order(tx: &mut Tx, order: &Order, trouble: &Failure) {
    let certificate = format!("{}/{}", order.namespace, order.certificate_name());
    let (id, next_attempt) = (order.id, order.next_action_at.map(moment));
    let (code, failure) = (trouble.code.clone(), trouble.clone());
    add(tx, move || {
        tracing::warn!(certificate, order = %id, code, %failure, next_attempt, "the certificate's order does not get on");
    });
}

/// What is served ends soon, or has ended.
pub(in crate::storage) fn of_expiry(
    tx: &mut Tx,
    transition: &expiry::Transition,
    certificate: &Certificate,
) {
    for (event_type, event) in transition.event_types.iter().zip(&transition.events) {
        let (name, issuer, message) =
            (name(certificate), issuer_of(certificate), event.message.clone());
        match event_type {
            EventType::CertificateExpired => {
                add(tx, move || {
                    tracing::error!(
                        certificate = name,
                        issuer,
                        "the certificate has expired: {message}"
                    );
                });
            }
            _ => add(tx, move || {
                tracing::warn!(
                    certificate = name,
                    issuer,
                    "the certificate is about to expire: {message}"
                );
            }),
        }
    }
}

/// The account is registered, or cannot be for a reason that was not known.
pub(in crate::storage) fn of_issuer(tx: &mut Tx, transition: &issuer::Transition) {
    let issuer::Transition { issuer, events, event_types, .. } = transition;
    let name = issuer_name(issuer);
    if event_types.contains(&EventType::IssuerReady) {
        add(tx, move || tracing::info!(issuer = name, "the issuer is ready"));
        return;
    }
    let is_news = event_types.contains(&EventType::IssuerFailed) || events.iter().any(is_bad);
    if let Some(failure) =
        issuer.last_error.clone().filter(|_| is_news && issuer.state == issuer::State::Failed)
    {
        let (code, next_attempt) = (failure.code.clone(), issuer.next_action_at.map(moment));
        add(tx, move || {
            tracing::warn!(issuer = name, code, %failure, next_attempt, "the issuer is not ready");
        });
    }
}

/// The endpoint fails, is left alone, or takes messages again.
pub(in crate::storage) fn of_webhook(tx: &mut Tx, transition: &webhook::Transition) {
    let webhook = &transition.webhook;
    for event in &transition.events {
        let (id, namespace) = (webhook.id, webhook.namespace.clone());
        let message = event.message.clone();
        let next_attempt = webhook.health.paused_until.map(moment);
        if is_bad(event) {
            add(tx, move || tracing::warn!(webhook = %id, namespace, next_attempt, "{message}"));
        } else if event.reason == "Recovered" {
            add(tx, move || tracing::info!(webhook = %id, namespace, "{message}"));
        }
    }
}

fn is_bad(event: &Event) -> bool {
    event.severity == Severity::Warning
}

fn name(certificate: &Certificate) -> String {
    format!("{}/{}", certificate.namespace, certificate.name)
}

fn issuer_of(certificate: &Certificate) -> String {
    let issuer = &certificate.spec.issuer_ref;
    format!("{}/{}", issuer.kind.as_str(), issuer.name)
}

fn issuer_name(issuer: &Issuer) -> String {
    match issuer.kind {
        issuer::Kind::ClusterIssuer => format!("ClusterIssuer/{}", issuer.name),
        issuer::Kind::Issuer => format!("{}/Issuer/{}", issuer.namespace, issuer.name),
    }
}

fn moment(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}
