//! What those who were asked for a proof saw.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What somebody who was asked for a proof saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// Who was asked: a name server and its address, a resolver, a URL; empty where nobody could be.
    #[schema(example = "ns1.example.com 192.0.2.53")]
    pub by: String,
    /// Whether the proof was there.
    pub seen: bool,
    /// What was there.
    #[schema(example = "has no TXT record at _acme-challenge.app.example.com")]
    pub what: String,
}

impl Observation {
    /// The proof was not there.
    pub fn missing(by: impl Into<String>, what: impl Into<String>) -> Self {
        Self { by: by.into(), seen: false, what: what.into() }
    }

    /// The proof was there.
    pub fn seen(by: impl Into<String>, what: impl Into<String>) -> Self {
        Self { by: by.into(), seen: true, what: what.into() }
    }
}

impl std::fmt::Display for Observation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.by.as_str() {
            "" => f.write_str(&self.what),
            by => write!(f, "{by} {}", self.what),
        }
    }
}

/// Those who do not see the proof, in one line.
pub fn in_words(observations: &[Observation]) -> String {
    let missing = observations.iter().filter(|one| !one.seen).map(ToString::to_string);
    missing.collect::<Vec<_>>().join("; ")
}
