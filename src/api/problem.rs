//! Problem documents (RFC 9457): the one place where an error becomes an answer.
//!
//! An error that is not the client's is logged here, once, and answered with a fixed text. The
//! request's identifier (`instance`) is filled in by [`super::layers`].

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::health::CheckView;
pub(crate) use super::rate_limit::RateLimit;
pub(crate) use super::responses::{Errors, OpenErrors};
use crate::domain::text::foreign_words;
use crate::health::Report;
use crate::secret::SealError;
use crate::storage::StorageError;
use crate::telemetry::LogLimit;
use crate::validation::Refusal;
pub(crate) use crate::validation::{Faults, FieldCode, FieldError};

/// Characters of a problem's detail at most.
const LONGEST_DETAIL: usize = 1_000;

/// A problem document (RFC 9457).
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
    /// The trace of the request (W3C Trace Context), which log, events and a collector of traces have too.
    #[serde(rename = "traceId")]
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    pub(crate) trace_id: String,
    /// Stable and machine-readable.
    pub(crate) code: Code,
    /// The faults of the request's fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<FieldError>,
    /// What was looked at; only of `/readyz`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) checks: Vec<CheckView>,
    /// Whether the caller lacks a right, whatever the status says: for the audit log.
    #[serde(skip)]
    pub(crate) is_denied: bool,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $status:ident $title:literal;)*) => {
        /// The kind of a problem.
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
    /// No API key or token, or one that does not count.
    Unauthenticated UNAUTHORIZED "An API key or a token is needed";
    /// The API key may not do this.
    PermissionDenied FORBIDDEN "The API key may not do this";
    /// No policy allows a name of the certificate to the namespace.
    NameNotAllowed FORBIDDEN "No policy allows it";
    /// The namespace has all that it may have.
    QuotaExceeded FORBIDDEN "The namespace has all that it may have";
    /// There is nothing here, or nothing that the API key may see.
    NotFound NOT_FOUND "There is no such resource";
    /// The certificate has no such revision (yet).
    NotIssued NOT_FOUND "Nothing was issued yet";
    /// The client made the key, and has it.
    KeyNotHeld NOT_FOUND "The private key is not held here";
    /// The resource does not understand this method.
    MethodNotAllowed METHOD_NOT_ALLOWED "The resource does not understand this method";
    /// The resource has none of the forms that `Accept` names.
    NotAcceptable NOT_ACCEPTABLE "There is no such form";
    /// The request did not arrive in time.
    RequestTimeout REQUEST_TIMEOUT "The request did not arrive in time";
    /// Something of this name is there already.
    AlreadyExists CONFLICT "It exists already";
    /// Several resources have this name.
    AmbiguousName CONFLICT "Several have this name";
    /// Its value stands in the configuration, and is changed there.
    ConfiguredElsewhere CONFLICT "It is changed in the configuration";
    /// Certificates or orders still need the issuer.
    IssuerInUse CONFLICT "The issuer is in use";
    /// Somebody else than the service has changed its row in the database.
    NotAuthentic CONFLICT "It was changed in the database";
    /// The request waits for no approval (any more).
    NotPending CONFLICT "The request waits for no approval";
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
    /// The body has another type than the operation takes, or is encoded.
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "The body has another type or encoding";
    /// The request can be read, but not done.
    ValidationFailed UNPROCESSABLE_ENTITY "The request is not valid";
    /// The `Idempotency-Key` was used for another request.
    IdempotencyKeyReused UNPROCESSABLE_ENTITY "The Idempotency-Key was used for another request";
    /// More requests, or failed authentications, than there may be.
    TooManyRequests TOO_MANY_REQUESTS "There are too many requests";
    /// An internal error.
    Internal INTERNAL_SERVER_ERROR "Internal error";
    /// The disk of the service is full.
    InsufficientStorage INSUFFICIENT_STORAGE "The disk is full";
    /// The service or its database is busy; the same may work in a moment.
    Unavailable SERVICE_UNAVAILABLE "The service is busy";
    /// The keys of the token's OIDC issuer cannot be fetched.
    IssuerUnavailable SERVICE_UNAVAILABLE "The OIDC issuer cannot be asked";
}

impl Code {
    /// The code as clients see it.
    pub(crate) fn word(self) -> String {
        json!(self).as_str().unwrap_or_default().to_owned()
    }
}

/// Why a request was not done.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// A problem of this kind, and what happened this time.
    Because(Code, String),
    /// The request's body has these faults.
    Invalid(Faults),
    /// A limit was exceeded, in words for the client.
    TooMany(RateLimit, String),
    /// No policy allows the certificate: these names are why.
    NotAllowed(Faults),
    /// The instance has trouble of its own.
    NotReady(Arc<Report>),
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

    /// The resource does not exist, or the caller may not see it: the same answer for both.
    pub(crate) fn not_found(what: &str, id: uuid::Uuid) -> Self {
        Self::Because(Code::NotFound, format!("There is no {what} {id}."))
    }

    pub(crate) fn field(
        pointer: impl AsRef<str>,
        code: FieldCode,
        detail: impl AsRef<str>,
    ) -> Self {
        let mut faults = Faults::default();
        faults.add(pointer, code, detail);
        Self::Invalid(faults)
    }

    /// True for a unique violation, which an insert may report or only the commit.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Storage(StorageError::Conflict))
    }

    /// The refusal `taken` in place of a unique violation.
    pub(crate) fn or_if_taken(self, taken: impl FnOnce() -> Self) -> Self {
        if self.is_taken() { taken() } else { self }
    }

    /// True if another transaction came in between: a row that was read is outdated, or a name that was free is taken.
    pub(crate) fn is_lost_race(&self) -> bool {
        self.is_taken() || matches!(self, Self::Storage(StorageError::LeaseLost(_)))
    }

    /// True if the caller may not be answered at all.
    pub(crate) fn is_about_the_caller(&self) -> bool {
        matches!(self.code(), Code::Unauthenticated | Code::PermissionDenied)
    }

    fn code(&self) -> Code {
        match self {
            Self::Because(code, _) => *code,
            Self::Invalid(_) => Code::ValidationFailed,
            Self::TooMany(..) => Code::TooManyRequests,
            Self::NotAllowed(_) => Code::NameNotAllowed,
            Self::Storage(StorageError::Full(_)) => Code::InsufficientStorage,
            Self::Storage(error) if error.is_passing() => Code::Unavailable,
            Self::NotReady(_) => Code::Unavailable,
            // Every attempt lost the race.
            error if error.is_lost_race() => Code::Unavailable,
            Self::Storage(_) | Self::Seal(_) | Self::Inside(_) => Code::Internal,
        }
    }

    fn log(&self) {
        let cause: &dyn std::error::Error = match self {
            Self::Because(..)
            | Self::Invalid(_)
            | Self::NotAllowed(_)
            | Self::TooMany(..)
            // `health` has logged it once.
            | Self::NotReady(_) => return,
            Self::Storage(error) => error,
            Self::Seal(error) => error,
            Self::Inside(error) => error.as_ref(),
        };
        if matches!(self.code(), Code::Unavailable | Code::InsufficientStorage) {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.pass() {
                tracing::warn!(error = cause, left_out, "the request could not be done now");
            }
        } else {
            tracing::error!(error = cause, "the request failed");
        }
    }
}

impl From<Faults> for ApiError {
    fn from(faults: Faults) -> Self {
        Self::Invalid(faults)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(detail) => Self::Because(Code::MalformedRequest, detail),
            Refusal::Invalid(faults) => Self::Invalid(faults),
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NotAuthentic { .. } => {
                let detail = "Its row was changed in the database by somebody else than the service, so that it grants nothing. Delete it, and create it again.";
                Self::Because(Code::NotAuthentic, detail.to_owned())
            }
            error => Self::Storage(error),
        }
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
        let checks = match &error {
            ApiError::NotReady(report) => CheckView::all(report),
            _ => Vec::new(),
        };
        let is_denied = match &error {
            ApiError::Invalid(faults) => faults.is_denied(),
            _ => matches!(code.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
        };
        let (detail, errors) = match error {
            // It may quote the request.
            ApiError::Because(_, detail) | ApiError::TooMany(_, detail) => {
                (foreign_words(&detail, LONGEST_DETAIL).unwrap_or_default(), Vec::new())
            }
            ApiError::Invalid(faults) | ApiError::NotAllowed(faults) => faults.told(),
            ApiError::NotReady(report) => {
                let why = report.checks.iter().find(|check| check.blocks);
                (why.and_then(|check| check.why.clone()).unwrap_or_default(), Vec::new())
            }
            ApiError::Storage(StorageError::Replaced(_)) => (NO_DATABASE.to_owned(), Vec::new()),
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
            trace_id: String::new(),
            code,
            errors,
            checks,
            is_denied,
        }
    }
}

/// The text where somebody has taken the database away.
const NO_DATABASE: &str = "The service's database is not where it was, so that nothing is written: its operator has to put it back. The log says how.";

/// The text for an internal error, which says nothing of its cause.
fn fixed_text(code: Code) -> &'static str {
    match code {
        Code::InsufficientStorage => {
            "The disk of the service is full, so that nothing can be stored: its operator has to make room. Send the request again then."
        }
        Code::Unavailable => "The service or its database is busy. Send the request again.",
        _ => {
            "The service could not do this and has logged why; its operator finds the cause by `instance`."
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let exceeded = match &self {
            Self::TooMany(exceeded, _) => Some(*exceeded),
            _ => None,
        };
        let mut response = Problem::from(self).into_response();
        if let Some(exceeded) = exceeded {
            exceeded.refuse(response.headers_mut());
        }
        response
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
            Code::InsufficientStorage => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            Code::Unavailable | Code::IssuerUnavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // RFC 7694: what would be taken.
            Code::UnsupportedMediaType => {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
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
    fn more_faults_than_anybody_reads_are_counted() {
        for (fault, least) in [("short".to_owned(), 100), ("\"".repeat(1_000_000), 10)] {
            let mut faults = Faults::default();
            for _ in 0..40_000 {
                faults.invalid(format!("/{fault}"), &fault);
            }
            let problem = Problem::from(ApiError::Invalid(faults));

            let told = problem.errors.len();
            assert!((least..=100).contains(&told), "{told}");
            let sentence = format!("(and 39999 more; `errors` has the first {told})");
            assert!(problem.detail.ends_with(&sentence), "{}", problem.detail);
            assert!(serde_json::to_vec(&problem).unwrap().len() < 64 * 1024);
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
