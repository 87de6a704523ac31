//! The span of an order, which every step of it is below.
//!
//! It is known by the order's identifier, so that steps of any replica, and after any restart, are below the same one.
//! It is sent once the order's end is committed, whoever ended it.

use super::{Kind, Span, is_collecting};
use crate::domain::order::{Order, Outcome, Transition};

/// Says in a span which order it is about.
pub fn describe(span: &mut Span, order: &Order) {
    let (namespace, name) = (&order.namespace, order.certificate_name());
    span.set("certwright.certificate", || format!("{namespace}/{name}"));
    span.set("certwright.order", || order.id.to_string());
    span.names_replica();
}

/// What sends the span of an order that this ends, from its beginning on; nothing where the order goes on, or nobody
/// collects spans.
pub fn ended(transition: &Transition) -> Option<impl FnOnce() + Send + 'static> {
    let outcome = transition.outcome.clone().filter(|_| is_collecting())?;
    let order = transition.order.clone();
    let own = order.own_trace()?;
    Some(move || {
        let parent = order.trace.map(|parent| parent.span);
        let mut span = Span::at(own, parent, Kind::Internal, "order");
        span.begun_at(order.created_at);
        describe(&mut span, &order);
        match outcome {
            Outcome::Issued => span.set("certwright.outcome", || "issued"),
            Outcome::Lost(failure) | Outcome::Failed(failure) | Outcome::Blocked(failure) => {
                span.set("certwright.outcome", || failure.code.clone());
                span.fail(|| failure.title.clone());
            }
        }
    })
}
