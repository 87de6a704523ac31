//! Problem documents (RFC 9457), from the client's side.

use std::fmt;

use serde::Deserialize;

/// What the server says went wrong.
#[derive(Debug, Clone, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The same for every problem of its type.
    #[serde(default)]
    pub title: String,
    /// What happened this time.
    #[serde(default)]
    pub detail: String,
    /// Stable and machine-readable.
    #[serde(default)]
    pub code: String,
    /// The request's identifier, which the server's log has too.
    #[serde(default)]
    pub instance: String,
    /// The faults of the request's fields.
    #[serde(default)]
    pub errors: Vec<FieldFault>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, Deserialize)]
pub struct FieldFault {
    /// JSON pointer into the request's body, or into one manifest.
    #[serde(default)]
    pub pointer: String,
    /// What is wrong, and what would be right.
    #[serde(default)]
    pub detail: String,
    /// In manifests: which document, from 1.
    pub document: Option<u32>,
    /// In manifests: which line of all that was sent, from 1.
    pub line: Option<u32>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors.is_empty() {
            f.write_str(if self.detail.is_empty() { &self.title } else { &self.detail })?;
        } else {
            f.write_str(&self.title)?;
            for fault in &self.errors {
                write!(f, "\n  {fault}")?;
            }
        }
        if self.status >= 500 {
            write!(f, " (request {})", self.instance)?;
        }
        Ok(())
    }
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.document, self.line) {
            (Some(document), Some(line)) => write!(f, "document {document}, line {line}, ")?,
            (None, Some(line)) => write!(f, "line {line}, ")?,
            _ => {}
        }
        let pointer = if self.pointer.is_empty() { "/" } else { &self.pointer };
        write!(f, "{pointer}: {}", self.detail)
    }
}
