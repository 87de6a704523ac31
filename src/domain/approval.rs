//! The approval of a request: until when somebody may decide, and what was decided. A decision is final.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::domain::principal::PrincipalRef;

/// The approval of a request that needs one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// The request is denied if nobody has decided by then.
    #[serde(with = "time::serde::rfc3339")]
    pub deadline: OffsetDateTime,
    pub decision: Option<Decision>,
}

/// A decision about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    pub verdict: Verdict,
    /// `None` where nobody decided in time.
    pub by: Option<PrincipalRef>,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// In the words of whoever decided.
    pub reason: String,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    Approved,
    Denied,
}

impl Approval {
    /// Waits for a decision.
    pub fn until(deadline: OffsetDateTime) -> Self {
        Self { deadline, decision: None }
    }

    /// With this decision, which is final.
    #[must_use]
    pub fn decided(self, decision: Decision) -> Self {
        Self { decision: Some(self.decision.unwrap_or(decision)), ..self }
    }

    pub fn is_approved(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.verdict == Verdict::Approved)
    }

    pub fn is_denied(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.verdict == Verdict::Denied)
    }
}

impl Decision {
    /// Nobody has decided in time.
    pub fn timed_out(deadline: OffsetDateTime, now: OffsetDateTime) -> Self {
        let reason = format!("Nobody decided by {deadline}");
        Self { verdict: Verdict::Denied, by: None, at: now, reason }
    }

    /// The decision in one sentence, as a condition's message.
    pub fn message(&self) -> String {
        let Some(by) = &self.by else { return self.reason.clone() };
        let decided = match self.verdict {
            Verdict::Approved => "Approved",
            Verdict::Denied => "Denied",
        };
        format!("{decided} by {} `{}`: {}", by.kind.noun(), by.name, self.reason)
    }

    /// A word for the reason, as a condition has one.
    pub fn word(&self) -> &'static str {
        match (self.verdict, &self.by) {
            (_, None) => "ApprovalTimeout",
            (Verdict::Approved, Some(_)) => "ManuallyApproved",
            (Verdict::Denied, Some(_)) => "ManuallyDenied",
        }
    }
}
