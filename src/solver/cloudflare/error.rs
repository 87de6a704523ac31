//! What can go wrong with a call to Cloudflare, and what that means for a challenge.

use serde::Deserialize;
use time::OffsetDateTime;

use crate::domain::failure::{Class, Failure};
use crate::outbound::AddressError;

/// One entry of `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Problem {
    #[serde(default)]
    pub(super) code: u64,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) error_chain: Vec<Problem>,
}

/// A call that did not do what it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ApiError {
    /// Cloudflare said no, in its own form.
    Refused { status: u16, problems: Vec<Problem> },
    /// Not now; perhaps said by ourselves, to stay below the limit.
    Limited { status: Option<u16>, retry_at: OffsetDateTime, reason: String },
    /// No usable answer; the call may have had its effect.
    Unusable { status: Option<u16>, reason: String },
    /// It is where the service may not go: nothing was sent.
    Guarded(AddressError),
}

/// What a call was about: whoever lacks a permission wants to know which.
#[derive(Debug, Clone, Copy)]
pub(super) enum Concerning<'a> {
    /// Finding the zone of a name.
    ZonesFor(&'a str),
    /// The records of a zone, for a name.
    Records { zone: &'a str, name: &'a str },
}

const BAD_TOKEN: [u64; 4] = [6003, 6111, 9109, 9106];
const NO_SUCH_ZONE: [u64; 2] = [7000, 7003];
const RECORD_EXISTS: [u64; 2] = [81057, 81058];
const NO_SUCH_RECORD: u64 = 81044;
const RATE_LIMITED: [u64; 2] = [971, 10429];

impl Problem {
    fn codes(&self) -> impl Iterator<Item = u64> + '_ {
        std::iter::once(self.code).chain(self.error_chain.iter().map(|cause| cause.code))
    }

    fn words(&self) -> String {
        let chain: Vec<String> = std::iter::once(self)
            .chain(&self.error_chain)
            .take(4)
            .map(|problem| format!("{}: {}", problem.code, problem.message))
            .collect();
        chain.join(" <- ")
    }
}

/// Whether an answer's errors say "too many requests", whatever its status.
pub(super) fn say_rate_limited(problems: &[Problem]) -> bool {
    problems.iter().flat_map(Problem::codes).any(|code| RATE_LIMITED.contains(&code))
}

/// Cloudflare's codes and messages in one line.
pub(super) fn in_words(problems: &[Problem]) -> String {
    match problems {
        [] => "no reason given".to_owned(),
        some => some.iter().take(4).map(Problem::words).collect::<Vec<_>>().join("; "),
    }
}

impl ApiError {
    fn has(&self, codes: &[u64]) -> bool {
        match self {
            Self::Refused { problems, .. } => {
                problems.iter().flat_map(Problem::codes).any(|code| codes.contains(&code))
            }
            Self::Limited { .. } | Self::Unusable { .. } | Self::Guarded(_) => false,
        }
    }

    /// The record that was to be written is there already.
    pub(super) fn says_record_exists(&self) -> bool {
        self.has(&RECORD_EXISTS)
    }

    /// The record that was to be deleted is gone; with its whole zone, perhaps.
    pub(super) fn says_record_is_gone(&self) -> bool {
        self.has(&[NO_SUCH_RECORD]) || matches!(self, Self::Refused { status: 404, .. })
    }

    /// The zone's id means nothing (any more).
    pub(super) fn says_zone_is_gone(&self) -> bool {
        self.has(&NO_SUCH_ZONE)
            || (matches!(self, Self::Refused { status: 404, .. }) && !self.has(&[NO_SUCH_RECORD]))
    }

    /// A batch was refused for something that may be wrong with one of its records only.
    pub(super) fn may_concern_one_record(&self) -> bool {
        self.has(&RECORD_EXISTS)
            || self.has(&[NO_SUCH_RECORD])
            || (matches!(self, Self::Refused { status: 400 | 409 | 413 | 422, .. })
                && !self.says_token_is_bad()
                && !self.says_zone_is_gone())
    }

    fn says_token_is_bad(&self) -> bool {
        self.has(&BAD_TOKEN) || matches!(self, Self::Refused { status: 401, .. })
    }

    /// The failure that the challenge meets.
    pub(super) fn into_failure(self, about: Concerning<'_>) -> Failure {
        if self.says_token_is_bad() {
            return self.blocked(
                "cloudflare_invalid_token",
                "Cloudflare does not accept the API token",
                "Store a valid API token (not the global API key) in the Secret.",
            );
        }
        if self.says_zone_is_gone() {
            return self.no_zone(about);
        }
        match self {
            Self::Refused { status: 403, .. } => self.blocked(
                "cloudflare_permission_denied",
                &format!("The Cloudflare API token may not {}", about.deed()),
                &about.missing_permission(),
            ),
            Self::Refused { .. } => self.blocked(
                "cloudflare_refused",
                &format!("Cloudflare refused to {}", about.deed()),
                "",
            ),
            Self::Limited { status, retry_at, reason } => Failure {
                http_status: status,
                ..Failure::new(
                    Class::Throttle,
                    "cloudflare_rate_limited",
                    "Cloudflare wants to be asked later",
                    reason,
                )
                .not_before(Some(retry_at))
            },
            Self::Unusable { status, reason } => Failure {
                http_status: status,
                ..Failure::new(
                    Class::Transient,
                    "cloudflare_unavailable",
                    format!("Cloudflare did not say whether it could {}", about.deed()),
                    reason,
                )
            },
            Self::Guarded(refused) => {
                let class = match refused {
                    AddressError::Forbidden { .. } => Class::Blocked,
                    AddressError::Unresolved { .. } => Class::Transient,
                };
                let title = "Cloudflare's API is not where this service may connect";
                Failure::new(class, "cloudflare_address_forbidden", title, refused.to_string())
            }
        }
    }

    fn no_zone(self, about: Concerning<'_>) -> Failure {
        let (name, advice) = match about {
            Concerning::ZonesFor(name) => (name, NO_ZONE_ADVICE.to_owned()),
            Concerning::Records { zone, name } => (
                name,
                format!("Cloudflare knows no zone with the id {zone}. Correct or remove `zoneID`."),
            ),
        };
        self.blocked(
            "cloudflare_zone_not_found",
            &format!("No Cloudflare zone for {name}"),
            &advice,
        )
    }

    fn blocked(self, code: &str, title: &str, advice: &str) -> Failure {
        let Self::Refused { status, problems } = self else {
            return Failure::new(Class::Blocked, code, title, advice);
        };
        let detail = format!("Cloudflare said {status}, {}. {advice}", in_words(&problems));
        Failure::new(Class::Blocked, code, title, detail.trim_end()).with_status(status)
    }
}

const NO_ZONE_ADVICE: &str = "Among the active zones that the API token can see, none holds this \
    name. Add the zone to the Cloudflare account, give the token Zone:Read and DNS:Edit on it, or \
    set `zoneID`.";

/// The failure when the token's zones are known and none fits.
pub(super) fn no_zone_for(name: &str) -> Failure {
    Failure::new(
        Class::Blocked,
        "cloudflare_zone_not_found",
        format!("No Cloudflare zone for {name}"),
        NO_ZONE_ADVICE,
    )
}

impl Concerning<'_> {
    fn deed(self) -> String {
        match self {
            Self::ZonesFor(name) => format!("look for the zone of {name}"),
            Self::Records { name, .. } => format!("edit the TXT records of {name}"),
        }
    }

    fn missing_permission(self) -> String {
        match self {
            Self::ZonesFor(_) => {
                "The token lacks Zone:Read. Add it, or set `zoneID` to spare the look-up."
                    .to_owned()
            }
            Self::Records { zone, .. } => format!("The token lacks DNS:Edit on the zone {zone}."),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const ZONES: Concerning<'_> = Concerning::ZonesFor("a.example.com");
    const RECORDS: Concerning<'_> = Concerning::Records { zone: "z1", name: "a.example.com" };

    fn refused(status: u16, code: u64) -> ApiError {
        let problem = Problem { code, message: "words".to_owned(), error_chain: Vec::new() };
        ApiError::Refused { status, problems: vec![problem] }
    }

    #[test]
    fn every_refusal_has_its_code_and_class() {
        for (error, about, code) in [
            (refused(400, 6003), ZONES, "cloudflare_invalid_token"),
            (refused(403, 9109), ZONES, "cloudflare_invalid_token"),
            (refused(401, 10001), ZONES, "cloudflare_invalid_token"),
            (refused(403, 10000), ZONES, "cloudflare_permission_denied"),
            (refused(403, 10000), RECORDS, "cloudflare_permission_denied"),
            (refused(404, 7003), RECORDS, "cloudflare_zone_not_found"),
            (refused(400, 9021), RECORDS, "cloudflare_refused"),
        ] {
            let failure = error.into_failure(about);
            assert_eq!((failure.class, failure.code.as_str()), (Class::Blocked, code));
            assert!(failure.detail.contains("words"), "{}", failure.detail);
        }
    }

    #[test]
    fn a_missing_permission_is_named() {
        assert!(refused(403, 10000).into_failure(ZONES).detail.contains("Zone:Read"));
        assert!(refused(403, 10000).into_failure(RECORDS).detail.contains("DNS:Edit"));
    }

    #[test]
    fn what_passes_by_itself_is_not_blocked() {
        let retry_at = datetime!(2026-01-01 0:00 UTC);
        let limited = ApiError::Limited { status: Some(429), retry_at, reason: String::new() };
        let unusable = ApiError::Unusable { status: Some(502), reason: "HTML".to_owned() };

        let limited = limited.into_failure(RECORDS);
        assert_eq!((limited.class, limited.retry_at), (Class::Throttle, Some(retry_at)));
        assert_eq!(unusable.into_failure(RECORDS).class, Class::Transient);
    }

    #[test]
    fn only_what_one_record_can_cause_splits_a_batch() {
        assert!(refused(400, 81058).may_concern_one_record());
        assert!(refused(404, 81044).may_concern_one_record());
        assert!(!refused(403, 10000).may_concern_one_record());
        assert!(!refused(400, 6003).may_concern_one_record());
        assert!(!refused(404, 7003).may_concern_one_record());
    }
}
