//! The trace of an issuance from the certificate's side: the request that asked for it goes on in it, and one that
//! comes by itself begins its own.

use crate::domain::certificate::{State, Transition, Trigger};
use crate::telemetry::trace::{self, Kind, Span};

/// From here on the step belongs to the trace of the certificate's issuance. Where an attempt is to begin the span of
/// this step is returned, in which an issuance that has no trace yet gets one.
pub(super) fn begun(mut woken: Transition) -> (Transition, Option<Span>) {
    let certificate = &mut woken.certificate;
    if certificate.is_settled() && !matches!(certificate.state, State::AwaitingApproval(_)) {
        return (woken, None);
    }
    let name = match certificate.wanted_because() {
        Trigger::Renewing => "begin renewal",
        Trigger::DoesNotExist
        | Trigger::ManuallyTriggered
        | Trigger::RequestChanged
        | Trigger::Revoked => "begin issuance",
    };
    let is_attempt = matches!(certificate.state, State::Triggered(_) | State::AwaitingIssuer(_));
    let span = match certificate.trace {
        Some(known) => is_attempt.then(|| Span::below(known, Kind::Internal, name)),
        None => Some(Span::at(trace::begin(), None, Kind::Internal, name)),
    };
    let span = span.map(|mut span| {
        certificate.trace.get_or_insert(span.trace());
        let (namespace, name) = (&certificate.namespace, &certificate.name);
        span.set("certwright.certificate", || format!("{namespace}/{name}"));
        span.names_replica();
        span
    });
    trace::enter(certificate.trace);
    (woken, span)
}
