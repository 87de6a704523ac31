//! The failures of operations, for the description of the API.

use utoipa::IntoResponses;

use super::problem::Problem;

/// The failures that every operation may answer with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) enum Errors {
    /// The request cannot be read.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(Problem),
    /// No API key, or not one of ours.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// The API key may not do this.
    #[response(status = 403, content_type = "application/problem+json")]
    Denied(Problem),
    /// There is nothing here that the API key may see.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// The present state conflicts with the request.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// `If-Match` names another state of the resource.
    #[response(status = 412, content_type = "application/problem+json")]
    Precondition(Problem),
    /// The request can be read, but not done.
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(Problem),
    /// Anything else.
    #[response(status = "default", content_type = "application/problem+json")]
    Other(Problem),
}

/// The failures that an operation without authentication may answer with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) enum OpenErrors {
    /// The request cannot be read.
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(Problem),
    /// The service or its database is busy.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
    /// Anything else.
    #[response(status = "default", content_type = "application/problem+json")]
    Other(Problem),
}
