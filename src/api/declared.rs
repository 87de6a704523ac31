//! Conditions and keys that an operation does not take are refused, not ignored: a client that sends one counts on it.
//!
//! What an operation takes is what its description names, so that the two cannot differ.

use std::collections::HashMap;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, Method, header};
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::{Paths, RefOr};

use super::headers::IDEMPOTENCY_KEY;
use super::problem::ApiError;

/// A header that changes what a request does, and what to do without it.
type Condition = (HeaderName, &'static str);

fn conditions() -> [Condition; 2] {
    [
        (header::IF_MATCH, "read the resource first, and send the request without it"),
        (
            IDEMPOTENCY_KEY,
            "PUT, PATCH and DELETE can be repeated as they are, with `If-Match` for a condition; send the request without it",
        ),
    ]
}

/// The conditions that each route does not take, by method.
#[derive(Debug, Default)]
pub(super) struct Undeclared(HashMap<String, Vec<(Method, Condition)>>);

impl Undeclared {
    /// Takes note of the routes that are described here.
    pub(super) fn add(&mut self, described: &Paths) {
        for (route, item) in &described.paths {
            for (method, operation) in writes(item) {
                let strange = conditions().into_iter().filter(|(name, _)| !takes(operation, name));
                let refused = self.0.entry(route.clone()).or_default();
                refused.extend(strange.map(|condition| (method.clone(), condition)));
            }
        }
    }

    /// Refuses a request with a condition that its operation does not take.
    pub(super) fn check(&self, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        if !conditions().iter().any(|(name, _)| headers.contains_key(name)) {
            return Ok(());
        }
        let route = request.extensions().get::<MatchedPath>();
        let refused = route.and_then(|route| self.0.get(route.as_str())).into_iter().flatten();
        let is_sent = |(method, (name, _)): &&(Method, Condition)| {
            method == request.method() && headers.contains_key(name)
        };
        let Some((method, (name, instead))) = refused.into_iter().find(is_sent) else {
            return Ok(());
        };
        let detail = format!("This {method} takes no `{}`: {instead}.", spelled(name));
        Err(ApiError::malformed(detail))
    }
}

fn writes(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    let all = [
        (Method::POST, &item.post),
        (Method::PUT, &item.put),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn takes(operation: &Operation, name: &HeaderName) -> bool {
    operation.parameters.iter().flatten().any(|parameter| {
        matches!(parameter, RefOr::T(one) if one.parameter_in == ParameterIn::Header
            && one.name.eq_ignore_ascii_case(name.as_str()))
    })
}

/// A header's name as people write it.
fn spelled(name: &HeaderName) -> &'static str {
    if *name == header::IF_MATCH { "If-Match" } else { "Idempotency-Key" }
}
