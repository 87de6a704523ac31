//! What the metrics learn from the steps of an order.

use time::OffsetDateTime;

use super::session::Session;
use crate::domain::challenge;
use crate::domain::failure::Failure;
use crate::domain::order::{Answer, Order, Outcome, Stage, Transition};
use crate::telemetry::metrics::issuance as metrics;

/// The stage that an order is in, and since when.
#[derive(Clone, Copy)]
pub(super) struct Entered {
    stage: Option<Stage>,
    at: OffsetDateTime,
}

impl Entered {
    pub(super) fn of(order: &Order) -> Self {
        Self { stage: order.stage(), at: order.handed_out_at }
    }

    /// Counts the time in the stage, if a step has ended it. The time before the CA has the order is a stage as well.
    pub(super) fn until(self, order: &Order, now: OffsetDateTime) {
        if order.stage() != self.stage {
            let stage = self.stage.map_or("new", Stage::as_str);
            metrics::stage_left(stage, (now - self.at).unsigned_abs());
        }
    }
}

/// Counts what did not work.
pub(super) fn failures(answer: &Answer) {
    match answer {
        Answer::Failed(failure) | Answer::Ended(failure) | Answer::NotReplacing(failure) => {
            failed(failure);
        }
        Answer::Solved(answers) => {
            for (_, _, answer) in answers {
                if let challenge::Answer::Failed(failure) = answer {
                    failed(failure);
                }
            }
        }
        Answer::Created(..)
        | Answer::Authorizations(_)
        | Answer::Accepted
        | Answer::Polled(_)
        | Answer::Inspected(..)
        | Answer::Downloaded => {}
    }
}

fn failed(failure: &Failure) {
    metrics::step_failed(
        failure.class.as_str(),
        failure.known_code().map_or("other", |it| it.text),
    );
}

/// Counts an order that has ended and was settled.
pub(super) fn ended(session: &Session<'_>, transition: &Transition, now: OffsetDateTime) {
    let Some(outcome) = &transition.outcome else { return };
    let issuer = session.issuer.as_deref().map_or(UNKNOWN, |issuer| metrics::Issuer {
        kind: issuer.kind.as_str(),
        namespace: &issuer.namespace,
        name: &issuer.name,
    });
    match outcome {
        Outcome::Issued => {
            metrics::issued(issuer, (now - transition.order.created_at).unsigned_abs());
            if session.download.as_ref().is_some_and(|download| download.leads_elsewhere) {
                metrics::chain_changed(issuer);
            }
        }
        Outcome::Lost(failure) => metrics::ended(issuer, "lost", failure.class.as_str()),
        Outcome::Failed(failure) => metrics::ended(issuer, "failed", failure.class.as_str()),
        Outcome::Blocked(failure) => metrics::ended(issuer, "blocked", failure.class.as_str()),
    }
}

/// The issuer of an order that has ended before it was asked for.
const UNKNOWN: metrics::Issuer<'static> = metrics::Issuer { kind: "", namespace: "", name: "" };
