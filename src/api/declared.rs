//! Conditions and keys that an operation does not take are refused, not ignored: a client that sends one counts on it.
//!
//! What an operation takes is what its description names, so that the two cannot differ.

use axum::extract::Request;
use axum::http::{HeaderName, Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;
use axum::routing::MethodRouter;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::{Paths, RefOr};

use super::AppState;
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

/// The methods of a path, each of which refuses the conditions that its description does not name.
pub(super) fn refusing_others(
    described: &Paths,
    methods: MethodRouter<AppState>,
) -> MethodRouter<AppState> {
    let mut refused: Vec<(Method, Condition)> = Vec::new();
    for item in described.paths.values() {
        for (method, operation) in writes(item) {
            let strange = conditions().into_iter().filter(|(name, _)| !takes(operation, name));
            refused.extend(strange.map(|condition| (method.clone(), condition)));
        }
    }
    methods.route_layer(from_fn(move |request: Request, next: Next| {
        let error = refuse(&refused, &request);
        async move {
            match error {
                Some(error) => error.into_response(),
                None => next.run(request).await,
            }
        }
    }))
}

fn refuse(refused: &[(Method, Condition)], request: &Request) -> Option<ApiError> {
    let is_sent = |(method, (name, _)): &&(Method, Condition)| {
        method == request.method() && request.headers().contains_key(name)
    };
    let (method, (name, instead)) = refused.iter().find(is_sent)?;
    let detail = format!("This {method} takes no `{}`: {instead}.", spelled(name));
    Some(ApiError::malformed(detail))
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
