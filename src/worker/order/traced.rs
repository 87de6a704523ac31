//! The spans of an order: one for each step, and one for all of it, which every step is below.
//!
//! The order's own span is known by its identifier, so that steps of any replica, and after any restart, are below the
//! same one. Who ends the order sends it.

use crate::domain::order::{Answer, Order, Outcome, Step, Transition};
use crate::domain::trace::Trace;
use crate::telemetry::trace::{self, Kind, Span};
use crate::worker::context::Context;

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
pub(super) fn step(ctx: &Context, step: &Step, order: &Order) -> TracedStep {
    let before = trace::current();
    let mut span = before.map(|order| Span::below(order, Kind::Internal, step.as_str()));
    if let Some(span) = &mut span {
        describe(span, ctx, order);
        span.set("certwright.attempt", || order.tries + 1);
        trace::enter(Some(span.trace()));
    }
    TracedStep { span, before }
}

/// Sends the span of an order that is over now, from its beginning on.
pub(super) fn ended(ctx: &Context, transition: &Transition) {
    let order = &transition.order;
    let (Some(outcome), Some(own)) = (&transition.outcome, order.own_trace()) else { return };
    let parent = order.trace.map(|parent| parent.span);
    let mut span = Span::at(own, parent, Kind::Internal, "order");
    span.begun_at(order.created_at);
    describe(&mut span, ctx, order);
    match outcome {
        Outcome::Issued => span.set("certwright.outcome", || "issued"),
        Outcome::Lost(failure) | Outcome::Failed(failure) | Outcome::Blocked(failure) => {
            span.set("certwright.outcome", || failure.code.clone());
            span.fail(|| failure.title.clone());
        }
    }
}

fn describe(span: &mut Span, ctx: &Context, order: &Order) {
    let (namespace, name) = (&order.namespace, order.certificate_name());
    span.set("certwright.certificate", || format!("{namespace}/{name}"));
    span.set("certwright.order", || order.id.to_string());
    span.set("certwright.replica", || ctx.settings.name.clone());
}
