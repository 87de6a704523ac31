//! Problem documents (RFC 9457): the one place where something that went wrong becomes an answer.
//!
//! What is not the client's doing is logged here, once, and answered with a fixed text. The
//! request's identifier (`instance`) is filled in by [`super::layers`].

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::secret::SealError;
use crate::storage::StorageError;

/// What went wrong, as an RFC 9457 problem document.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// A page about this kind of problem; relative to the service.
    #[serde(rename = "type")]
    #[schema(example = "/problems/validation-failed")]
    pub(crate) kind: String,
    /// The same for every problem of this type.
    pub(crate) title: &'static str,
    /// The HTTP status.
    #[schema(example = 422)]
    pub(crate) status: u16,
    /// What happened this time, and what to do about it.
    pub(crate) detail: String,
    /// The request's identifier; the service's log has it too.
    pub(crate) instance: String,
    /// Stable and machine-readable.
    pub(crate) code: Code,
    /// What is wrong where in the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<FieldError>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// JSON pointer (RFC 6901) into the request's body.
    #[schema(example = "/dnsNames/0")]
    pub(crate) pointer: String,
    /// Stable and machine-readable.
    pub(crate) code: FieldCode,
    /// What is wrong, and what would be right.
    pub(crate) detail: String,
    /// In manifests: which document of the stream, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) document: Option<u32>,
    /// In manifests: which line of the whole text, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u32>,
}

impl FieldError {
    fn new(pointer: impl Into<String>, code: FieldCode, detail: impl Into<String>) -> Self {
        let (pointer, detail) = (pointer.into(), detail.into());
        Self { pointer, code, detail, document: None, line: None }
    }

    /// `document 2, line 14, /spec/dnsNames/0: …`, as far as that is known.
    fn sentence(&self) -> String {
        let document = self.document.map(|number| format!("document {number}"));
        let line = self.line.map(|number| format!("line {number}"));
        let pointer = Some(self.pointer.clone()).filter(|pointer| !pointer.is_empty());
        let places: Vec<String> = [document, line, pointer].into_iter().flatten().collect();
        format!("{}: {}", places.join(", "), self.detail)
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FieldCode {
    /// There is no such field.
    UnknownField,
    /// It has to be given.
    Required,
    /// Another JSON type is expected.
    WrongType,
    /// Its value cannot be used.
    Invalid,
    /// It cannot be changed.
    Immutable,
    /// It cannot be given together with another field.
    Conflicting,
    /// It means something that the service does not do.
    Unsupported,
    /// There is no such issuer.
    IssuerNotFound,
    /// None of the issuer's solvers can prove this name.
    NoSolver,
    /// There is no such webhook, or it does not hear of this namespace.
    WebhookNotFound,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $status:ident $title:literal;)*) => {
        /// What went wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            pub(crate) fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            pub(crate) fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The request cannot be read.
    MalformedRequest BAD_REQUEST "The request cannot be read";
    /// No API key, or not one of ours.
    Unauthenticated UNAUTHORIZED "An API key is needed";
    /// The API key may not do this.
    PermissionDenied FORBIDDEN "The API key may not do this";
    /// There is nothing here, or nothing that the API key may see.
    NotFound NOT_FOUND "There is no such resource";
    /// The certificate has no such revision (yet).
    NotIssued NOT_FOUND "Nothing was issued yet";
    /// The client made the key, and has it.
    KeyNotHeld NOT_FOUND "The private key is not held here";
    /// The resource does not understand this method.
    MethodNotAllowed METHOD_NOT_ALLOWED "The resource does not understand this method";
    /// The request did not arrive in time.
    RequestTimeout REQUEST_TIMEOUT "The request did not arrive in time";
    /// Something of this name is there already.
    AlreadyExists CONFLICT "It exists already";
    /// Certificates or orders still need the issuer.
    IssuerInUse CONFLICT "The issuer is in use";
    /// The certificate is being revoked, to be deleted.
    BeingDeleted CONFLICT "The certificate is being deleted";
    /// The issuer's account is not there, or something is being done to it already.
    AccountNotReady CONFLICT "The issuer's account is not ready for this";
    /// The webhook is sent nothing while it is disabled.
    WebhookDisabled CONFLICT "The webhook is disabled";
    /// The same request is being worked on.
    IdempotencyInFlight CONFLICT "The same request is being worked on";
    /// The resource is not what `If-Match` says.
    PreconditionFailed PRECONDITION_FAILED "The resource has changed";
    /// The body is too large.
    PayloadTooLarge PAYLOAD_TOO_LARGE "The body is too large";
    /// The body is not JSON by its content type.
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "The body has to be JSON";
    /// The request can be read, but not done.
    ValidationFailed UNPROCESSABLE_ENTITY "The request is not valid";
    /// The `Idempotency-Key` was used for another request.
    IdempotencyKeyReused UNPROCESSABLE_ENTITY "The Idempotency-Key was used for another request";
    /// Something inside went wrong.
    Internal INTERNAL_SERVER_ERROR "Something inside went wrong";
    /// The service or its database is busy; the same may work in a moment.
    Unavailable SERVICE_UNAVAILABLE "The service is busy";
}

impl Code {
    /// The word that clients see.
    pub(crate) fn word(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

/// Why a request was not done.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// A problem of this kind, and what happened this time.
    Because(Code, String),
    /// The request's body has these faults.
    Invalid(Vec<FieldError>),
    /// The database could not do it.
    Storage(StorageError),
    /// A secret could not be sealed or opened.
    Seal(SealError),
    /// Something else that a client can neither understand nor mend.
    Inside(Box<dyn std::error::Error + Send + Sync>),
}

impl ApiError {
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::Because(Code::MalformedRequest, detail.into())
    }

    /// There is no such thing, or the caller may not know of it: the same answer for both.
    pub(crate) fn not_found(what: &str, id: uuid::Uuid) -> Self {
        Self::Because(Code::NotFound, format!("There is no {what} {id}."))
    }

    pub(crate) fn field(
        pointer: impl Into<String>,
        code: FieldCode,
        detail: impl Into<String>,
    ) -> Self {
        Self::Invalid(vec![FieldError::new(pointer, code, detail)])
    }

    /// Whether the caller may not be answered at all.
    pub(crate) fn is_about_the_caller(&self) -> bool {
        matches!(self.code(), Code::Unauthenticated | Code::PermissionDenied)
    }

    fn code(&self) -> Code {
        match self {
            Self::Because(code, _) => *code,
            Self::Invalid(_) => Code::ValidationFailed,
            // Lost again and again: workers are faster than this request.
            Self::Storage(StorageError::Unavailable(_) | StorageError::LeaseLost(_)) => {
                Code::Unavailable
            }
            Self::Storage(_) | Self::Seal(_) | Self::Inside(_) => Code::Internal,
        }
    }

    fn log(&self) {
        let cause: &dyn std::error::Error = match self {
            Self::Because(..) | Self::Invalid(_) => return,
            Self::Storage(error) => error,
            Self::Seal(error) => error,
            Self::Inside(error) => error.as_ref(),
        };
        if self.code() == Code::Unavailable {
            tracing::warn!(error = cause, "the request could not be done now");
        } else {
            tracing::error!(error = cause, "the request failed");
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<SealError> for ApiError {
    fn from(error: SealError) -> Self {
        Self::Seal(error)
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let code = error.code();
        let (detail, errors) = match error {
            ApiError::Because(_, detail) => (detail, Vec::new()),
            ApiError::Invalid(errors) => (summary(&errors), errors),
            ApiError::Storage(_) | ApiError::Seal(_) | ApiError::Inside(_) => {
                (fixed_text(code).to_owned(), Vec::new())
            }
        };
        Self {
            kind: format!("/problems/{}", code.word().replace('_', "-")),
            title: code.title(),
            status: code.status().as_u16(),
            detail,
            instance: String::new(),
            code,
            errors,
        }
    }
}

/// Says what is known of a failure inside: nothing.
fn fixed_text(code: Code) -> &'static str {
    match code {
        Code::Unavailable => "The service or its database is busy. Send the request again.",
        _ => {
            "The service could not do this and has logged why; its operator finds the cause by `instance`."
        }
    }
}

fn summary(errors: &[FieldError]) -> String {
    match errors {
        [one] => one.sentence(),
        [one, rest @ ..] => format!("{} (and {} more, see `errors`)", one.sentence(), rest.len()),
        [] => "The request is not valid.".to_owned(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        Problem::from(self).into_response()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response =
            (self.code.status(), [(header::CONTENT_TYPE, "application/problem+json")], body)
                .into_response();
        let headers = response.headers_mut();
        match self.code {
            Code::Unauthenticated => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Code::Unavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The faults of a request, gathered so that a client sees all of them at once.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<FieldError>);

impl Faults {
    pub(crate) fn add(
        &mut self,
        pointer: impl Into<String>,
        code: FieldCode,
        detail: impl Into<String>,
    ) {
        self.0.push(FieldError::new(pointer, code, detail));
    }

    /// Adds faults that were found elsewhere.
    pub(crate) fn extend(&mut self, faults: Vec<FieldError>) {
        self.0.extend(faults);
    }

    pub(crate) fn invalid(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.add(pointer, FieldCode::Invalid, detail);
    }

    /// Refuses the request if there is any.
    pub(crate) fn refuse(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.0)) }
    }
}

/// What every operation may answer beside success.
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
    /// What is there stands against it.
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

/// What an open operation may answer beside success.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) enum OpenErrors {
    /// The service or its database is busy.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
    /// Anything else.
    #[response(status = "default", content_type = "application/problem+json")]
    Other(Problem),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_page_and_stands_in_the_document() {
        let pages = include_str!("../../docs/problems.md");
        let document = serde_json::to_value(crate::api::document()).unwrap();
        let listed = &document["components"]["schemas"]["Code"];

        for code in Code::ALL {
            let word = code.word();
            let page = format!("\n## {}\n", word.replace('_', "-"));
            assert!(pages.contains(&page), "docs/problems.md has no section `{}`", page.trim());
            assert!(listed.to_string().contains(&format!("\"{word}\"")), "{word} in {listed}");
        }
    }

    #[test]
    fn what_went_wrong_inside_stays_inside() {
        let error = ApiError::Storage(StorageError::Corrupt {
            table: "certificates",
            id: "7".into(),
            problem: "internal words".into(),
        });
        let problem = serde_json::to_string(&Problem::from(error)).unwrap();

        assert!(!problem.contains("certificates") && !problem.contains("internal words"));
        assert!(problem.contains("/problems/internal"), "{problem}");
    }
}
