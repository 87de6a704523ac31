//! Faults of a document that a client wrote: a request's body, or a manifest.
//!
//! Pure: the API turns faults into problem documents, and manifests add document and line to them.

mod fit;
mod json;
mod text;
mod whole;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::text::foreign_words;

pub(crate) use fit::boolean;
pub(crate) use json::{from_manifest, from_parameters, from_slice, from_value};
pub(crate) use text::check_text;

/// Faults that are reported one by one; the rest is counted.
const MOST_TOLD: usize = 100;
/// Bytes of an answer that they may take, so that an answer is no larger than its request.
const MOST_BYTES_TOLD: usize = 48 * 1024;
/// Characters of a pointer; the key that it names may be as long as the request.
const LONGEST_POINTER: usize = 300;
/// Characters of a sentence about one fault.
const LONGEST_DETAIL: usize = 1_000;

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
    /// A fault; both texts may quote the request, and are cleaned and cut.
    pub(crate) fn new(pointer: &str, code: FieldCode, detail: &str) -> Self {
        let pointer = match pointer.char_indices().nth(LONGEST_POINTER) {
            Some((end, _)) => format!("{}…", &pointer[..end]),
            None => pointer.to_owned(),
        };
        let detail = foreign_words(detail, LONGEST_DETAIL).unwrap_or_default();
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
    /// No policy allows it to the namespace.
    NameNotAllowed,
    /// None of the issuer's solvers can prove this name.
    NoSolver,
    /// There is no such webhook, or it does not hear of this namespace.
    WebhookNotFound,
}

/// Why a document is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It cannot be read at all, for this reason.
    Malformed(String),
    Invalid(Faults),
}

impl From<Faults> for Refusal {
    fn from(faults: Faults) -> Self {
        Self::Invalid(faults)
    }
}

/// The faults of a request, gathered so that a client sees all of them at once; or the first of them
/// and how many there are, where they are too many to be read.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    told: Vec<FieldError>,
    untold: usize,
    denied: bool,
}

impl Faults {
    pub(crate) fn add(
        &mut self,
        pointer: impl AsRef<str>,
        code: FieldCode,
        detail: impl AsRef<str>,
    ) {
        if self.told.len() < MOST_TOLD {
            self.told.push(FieldError::new(pointer.as_ref(), code, detail.as_ref()));
        } else {
            self.untold += 1;
        }
    }

    pub(crate) fn invalid(&mut self, pointer: impl AsRef<str>, detail: impl AsRef<str>) {
        self.add(pointer, FieldCode::Invalid, detail);
    }

    /// Adds a fault that is one only for want of a right: somebody else may have this.
    pub(crate) fn deny(
        &mut self,
        pointer: impl AsRef<str>,
        code: FieldCode,
        detail: impl AsRef<str>,
    ) {
        self.denied = true;
        self.add(pointer, code, detail);
    }

    /// Whether there is a fault for want of a right, told or untold.
    pub(crate) fn is_denied(&self) -> bool {
        self.denied
    }

    /// A single fault.
    pub(crate) fn one(pointer: impl AsRef<str>, code: FieldCode, detail: impl AsRef<str>) -> Self {
        let mut faults = Self::default();
        faults.add(pointer, code, detail);
        faults
    }

    /// Adds other faults, each transformed by `told`.
    pub(crate) fn take(&mut self, found: Self, told: impl FnMut(FieldError) -> FieldError) {
        let room = MOST_TOLD - self.told.len();
        self.untold += found.untold + found.told.len().saturating_sub(room);
        self.denied |= found.denied;
        self.told.extend(found.told.into_iter().take(room).map(told));
    }

    /// Forgets single faults.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&FieldError) -> bool) {
        self.told.retain(keep);
    }

    /// The faults in the order of a stream of manifests.
    pub(crate) fn in_order(mut self) -> Self {
        self.told.sort_by_key(|fault| (fault.document, fault.line));
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// The faults that are reported one by one.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.told.iter()
    }

    /// Refuses the request if there is any.
    pub(crate) fn refuse(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }

    /// A sentence about all faults, and single ones as far as an answer has room.
    pub(crate) fn told(self) -> (String, Vec<FieldError>) {
        let all = self.told.len();
        let mut room = MOST_BYTES_TOLD;
        let mut fits = |fault: &FieldError| {
            let size = serde_json::to_vec(fault).map_or(0, |text| text.len());
            room.checked_sub(size).map(|left| room = left).is_some()
        };
        let errors: Vec<_> = self.told.into_iter().take_while(&mut fits).collect();
        let untold = self.untold + all - errors.len();
        (summary(&errors, untold), errors)
    }
}

fn summary(errors: &[FieldError], untold: usize) -> String {
    match errors {
        [] => "The request is not valid.".to_owned(),
        [one] if untold == 0 => one.sentence(),
        [one, rest @ ..] if untold == 0 => {
            format!("{} (and {} more, see `errors`)", one.sentence(), rest.len())
        }
        [one, rest @ ..] => format!(
            "{} (and {} more; `errors` has the first {})",
            one.sentence(),
            rest.len() + untold,
            errors.len()
        ),
    }
}

/// A reference token of a JSON pointer (RFC 6901).
pub(crate) fn escaped(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_that_were_found_elsewhere_are_counted_with_the_others() {
        let found = |count: usize| {
            let mut faults = Faults::default();
            (0..count).for_each(|number| faults.invalid(format!("/{number}"), "is wrong"));
            faults
        };
        let mut all = found(70);
        all.take(found(70), |fault| fault);
        all.take(found(170), |fault| fault);

        assert_eq!((all.told.len(), all.untold), (100, 210));
        assert_eq!(all.told[70].pointer, "/0");
        let mut lacking = Faults::default();
        lacking.deny("/role", FieldCode::Invalid, "is more than you have");
        assert!(!all.is_denied());
        all.take(lacking, |fault| fault);
        assert!(all.is_denied(), "also where nobody is told of it any more");
    }
}
