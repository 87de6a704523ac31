//! By what right a certificate is there.

use serde::Serialize;
use utoipa::ToSchema;

use super::Approval;
use super::judge::{NameVerdict, Verdict};
use crate::domain::failure::{Failure, code};

/// By what right a certificate is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum AdmittedBy {
    /// The policy of this name allows it; it is judged again and again.
    Policy(String),
    /// This principal, which is bound to no namespace, wanted it although no policy allows it. That holds until a bound
    /// principal changes names, issuer or key.
    Administrator(String),
    /// It was there before policies were. That holds as long, or until a policy allows it when it is written.
    Upgrade(String),
}

/// What is said of certificates from before there were policies.
pub const BEFORE_POLICIES: &str = "before name policies";

/// By what right a certificate may be issued now, and whether somebody has to approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub by: AdmittedBy,
    pub approval: Approval,
}

/// Who wants a certificate, as far as that counts.
#[derive(Debug, Clone, Copy)]
pub enum Principal<'a> {
    /// It is bound to namespaces, and needs a policy.
    Bound,
    /// It is bound to none, and may go without; its name.
    Unbound(&'a str),
}

impl AdmittedBy {
    /// The way and the name, as the database has them.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Policy(name) => ("policy", name),
            Self::Administrator(name) => ("administrator", name),
            Self::Upgrade(name) => ("upgrade", name),
        }
    }

    /// Reads what [`Self::parts`] wrote.
    pub fn of_parts(way: &str, name: String) -> Option<Self> {
        match way {
            "policy" => Some(Self::Policy(name)),
            "administrator" => Some(Self::Administrator(name)),
            "upgrade" => Some(Self::Upgrade(name)),
            _ => None,
        }
    }
}

/// Decides by what right a certificate is there from now on, or why not. `kept` is the present right, where names,
/// issuer and key stay as they are.
pub fn admit(
    who: Principal<'_>,
    kept: Option<&AdmittedBy>,
    verdict: Verdict,
) -> Result<AdmittedBy, Vec<NameVerdict>> {
    match (who, verdict, kept) {
        (_, Verdict::Allowed { policy, .. }, None | Some(AdmittedBy::Upgrade(_))) => {
            Ok(AdmittedBy::Policy(policy))
        }
        // Whether what was admitted before still holds is for its next judgement, whoever writes the same again.
        (_, _, Some(kept)) => Ok(kept.clone()),
        (Principal::Unbound(name), Verdict::Refused(_), None) => {
            Ok(AdmittedBy::Administrator(name.to_owned()))
        }
        (Principal::Bound, Verdict::Refused(names), None) => Err(names),
    }
}

/// Names that a failure gives reasons for; the others are counted.
const MOST_TOLD: usize = 5;

/// The failure of a certificate that was admitted by the policy `admitted` and is not allowed any more.
pub fn withheld(admitted: &str, refused: &[NameVerdict]) -> Failure {
    let told = refused.iter().take(MOST_TOLD).map(|one| format!("`{}` {}", one.name, one.reason));
    let told = told.collect::<Vec<_>>().join(". ");
    let more = match refused.len().saturating_sub(MOST_TOLD) {
        0 => String::new(),
        more => format!(". {more} more names are refused"),
    };
    let detail = format!("It was admitted by the policy `{admitted}`. Now {told}{more}");
    Failure::of(code::NAME_NOT_ALLOWED, detail)
}
