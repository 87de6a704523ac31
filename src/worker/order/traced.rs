//! The spans of an order's steps, below that of the whole order ([`crate::telemetry::trace::order`]).

use crate::domain::order::{Answer, Order, Step};
use crate::domain::trace::Trace;
use crate::telemetry::trace::{self, Kind, Span};

/// A step that is being taken; what is asked meanwhile is below its span.
pub(super) struct TracedStep {
    span: Option<Span>,
    before: Option<Trace>,
}

impl TracedStep {
    pub(super) fn ended(mut self, answer: &Answer) {
        let (Some(span), Answer::Failed(failure) | Answer::Ended(failure)) =
            (&mut self.span, answer)
        else {
            return;
        };
        span.set("certwright.outcome", || failure.code.clone());
        span.fail(|| failure.title.clone());
    }
}

impl Drop for TracedStep {
    fn drop(&mut self) {
        trace::enter(self.before);
    }
}

/// Begins the span of a step.
pub(super) fn step(step: &Step, order: &Order) -> TracedStep {
    let before = trace::current();
    let mut span = before.map(|order| Span::below(order, Kind::Internal, step.as_str()));
    if let Some(span) = &mut span {
        trace::order::describe(span, order);
        span.set("certwright.attempt", || order.tries + 1);
        trace::enter(Some(span.trace()));
    }
    TracedStep { span, before }
}
