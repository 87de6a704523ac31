//! Errors of calls to Cloudflare, and the failures that they mean for a challenge.
//!
//! A person must act only where it is known that nothing else helps: a bad token, a missing permission,
//! a zone that is not there. Whatever else Cloudflare refuses is tried again, soon and then ever more
//! seldom: most of it passes by itself.

use time::OffsetDateTime;

use crate::domain::failure::{Class, Code, Failure, code};
use crate::outbound::AddressError;
use crate::solver::dns01::gather::Refusal;

/// One entry of `errors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::solver::dns01) struct Problem {
    /// 0 where there is none that could be read.
    pub(super) code: u64,
    /// Empty where there is none, or none to be shown.
    pub(super) message: String,
    pub(super) error_chain: Vec<Problem>,
}

/// A call that did not do what it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::solver::dns01) enum ApiError {
    /// Cloudflare said no, in its own form.
    Refused { status: u16, problems: Vec<Problem> },
    /// Not now; perhaps said by ourselves, to stay below the limit.
    Limited { status: Option<u16>, retry_at: OffsetDateTime, reason: String },
    /// No usable answer; the call may have had its effect.
    Unusable { status: Option<u16>, reason: String },
    /// Somebody else heard this just now, and nobody asks again before `until`.
    Held { until: OffsetDateTime, because: Box<ApiError> },
    /// It is where the service may not go: nothing was sent.
    Guarded(AddressError),
}

/// The subject of a call: the failure names the permission that is missing for it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Concerning<'a> {
    /// Finding the zone of a name.
    ZonesFor(&'a str),
    /// The records of a zone, for a name.
    Records { zone: &'a str, name: &'a str },
}

const BAD_TOKEN: [u64; 4] = [6003, 6111, 9109, 9106];
const NO_PERMISSION: [u64; 1] = [10000];
const NO_SUCH_ZONE: [u64; 2] = [7000, 7003];
const RECORD_EXISTS: [u64; 2] = [81057, 81058];
/// Another kind of record stands at the name, which allows no TXT record beside it.
const NAME_TAKEN: [u64; 2] = [81053, 81054];
const NO_SUCH_RECORD: u64 = 81044;
/// The zone holds as many records as its plan allows.
const ZONE_FULL: u64 = 81045;
const RATE_LIMITED: [u64; 2] = [971, 10429];

/// Whether it is known what the code means.
fn is_known(code: u64) -> bool {
    let some = [NO_SUCH_RECORD, ZONE_FULL];
    let known: [&[u64]; 7] = [
        &BAD_TOKEN,
        &NO_PERMISSION,
        &NO_SUCH_ZONE,
        &RECORD_EXISTS,
        &NAME_TAKEN,
        &RATE_LIMITED,
        &some,
    ];
    known.iter().any(|codes| codes.contains(&code))
}

impl Problem {
    fn codes(&self) -> impl Iterator<Item = u64> + '_ {
        std::iter::once(self.code).chain(self.error_chain.iter().map(|cause| cause.code))
    }

    fn words(&self) -> String {
        let chain: Vec<String> = std::iter::once(self)
            .chain(&self.error_chain)
            .take(4)
            .map(|problem| match (problem.code, problem.message.as_str()) {
                (code, "") if is_known(code) => format!("code {code}"),
                (_, "") => "a reason that is not known here".to_owned(),
                (0, message) => message.to_owned(),
                (code, message) => format!("{code}: {message}"),
            })
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

impl Refusal for ApiError {
    fn says_record_exists(&self) -> bool {
        self.has(&RECORD_EXISTS)
    }

    fn says_one_record_is_gone(&self) -> bool {
        self.has(&[NO_SUCH_RECORD])
    }

    fn says_zone_is_full(&self) -> bool {
        self.has(&[ZONE_FULL])
    }

    fn may_concern_one_record(&self) -> bool {
        self.has(&RECORD_EXISTS)
            || self.says_one_record_is_gone()
            || self.says_zone_is_full()
            || (matches!(self, Self::Refused { status: 400 | 409 | 413 | 422, .. })
                && !self.says_token_is_bad()
                && !self.says_zone_is_gone())
    }

    fn held_until(self, until: OffsetDateTime) -> Self {
        let because = match self {
            Self::Held { because, .. } => because,
            other => Box::new(other),
        };
        Self::Held { until, because }
    }

    fn later(retry_at: OffsetDateTime, reason: String) -> Self {
        Self::Limited { status: None, retry_at, reason }
    }

    fn unanswered(reason: String) -> Self {
        Self::Unusable { status: None, reason }
    }
}

impl ApiError {
    /// An answer that lacks what is needed.
    pub(super) fn garbled() -> Self {
        let reason =
            "not an answer of Cloudflare's API, or one that lacks what is needed".to_owned();
        Self::Unusable { status: None, reason }
    }

    /// The answer itself, whichever caller heard it.
    fn said(&self) -> &Self {
        match self {
            Self::Held { because, .. } => because,
            other => other,
        }
    }

    fn has(&self, codes: &[u64]) -> bool {
        match self.said() {
            Self::Refused { problems, .. } => {
                problems.iter().flat_map(Problem::codes).any(|code| codes.contains(&code))
            }
            Self::Limited { .. } | Self::Unusable { .. } | Self::Held { .. } | Self::Guarded(_) => {
                false
            }
        }
    }

    /// The record that was to be deleted is gone; with its whole zone, perhaps.
    pub(super) fn says_record_is_gone(&self) -> bool {
        self.says_one_record_is_gone() || self.says_zone_is_gone()
    }

    /// The zone's id means nothing (any more).
    pub(super) fn says_zone_is_gone(&self) -> bool {
        self.has(&NO_SUCH_ZONE)
    }

    /// Something that we remember may not be so any more.
    pub(super) fn may_be_stale(&self) -> bool {
        self.says_zone_is_gone()
            || (matches!(self, Self::Refused { status: 404, .. }) && !self.has(&[NO_SUCH_RECORD]))
    }

    fn says_token_is_bad(&self) -> bool {
        self.has(&BAD_TOKEN) || matches!(self.said(), Self::Refused { status: 401, .. })
    }

    fn says_permission_is_missing(&self) -> bool {
        let says_no_more = |problems: &[Problem]| problems.iter().all(|problem| problem.code == 0);
        self.has(&NO_PERMISSION)
            || matches!(self.said(), Self::Refused { status: 403, problems } if says_no_more(problems))
    }

    /// The failure that the challenge meets.
    pub(super) fn into_failure(self, about: Concerning<'_>) -> Failure {
        if self.says_token_is_bad() {
            return self.refused(code::CLOUDFLARE_INVALID_TOKEN, None, None);
        }
        if self.says_zone_is_gone() {
            return self.no_zone(about);
        }
        if self.says_permission_is_missing() {
            let title = format!("The Cloudflare API token may not {}", about.deed());
            let advice = about.missing_permission();
            return self.refused(code::CLOUDFLARE_PERMISSION_DENIED, Some(&title), Some(&advice));
        }
        if self.has(&NAME_TAKEN) {
            let title = format!("Cloudflare cannot {}", about.deed());
            return self.refused(code::CLOUDFLARE_NAME_TAKEN, Some(&title), None);
        }
        if self.says_zone_is_full() {
            return self.refused(code::CLOUDFLARE_ZONE_FULL, None, None);
        }
        match self {
            Self::Held { until, because } => {
                let failure = because.into_failure(about);
                let at = failure.retry_at.map_or(until, |asked| asked.max(until));
                failure.not_before(Some(at))
            }
            Self::Refused { .. } => {
                let title = format!("Cloudflare refused to {}", about.deed());
                self.refused(code::CLOUDFLARE_REFUSED, Some(&title), None)
            }
            Self::Limited { status, retry_at, reason } => Failure {
                http_status: status,
                ..Failure::of(code::CLOUDFLARE_RATE_LIMITED, reason).not_before(Some(retry_at))
            },
            Self::Unusable { status, reason } => Failure {
                http_status: status,
                ..Failure::of(code::CLOUDFLARE_UNAVAILABLE, reason)
                    .titled(format!("Cloudflare did not say whether it could {}", about.deed()))
            },
            Self::Guarded(refused) => {
                let class = match refused {
                    AddressError::Forbidden { .. } => Class::Blocked,
                    AddressError::Unresolved { .. } => Class::Transient,
                };
                let code = code::CLOUDFLARE_ADDRESS_FORBIDDEN.with_class(class);
                Failure::of(code, refused.to_string())
            }
        }
    }

    fn no_zone(self, about: Concerning<'_>) -> Failure {
        let (name, advice) = match about {
            Concerning::ZonesFor(name) => (name, None),
            Concerning::Records { zone, name } => (
                name,
                Some(format!(
                    "Cloudflare knows no zone with the id {zone}. Correct or remove `zoneID`."
                )),
            ),
        };
        let title = format!("No Cloudflare zone for {name}");
        self.refused(code::CLOUDFLARE_ZONE_NOT_FOUND, Some(&title), advice.as_deref())
    }

    fn refused(self, code: Code, title: Option<&str>, advice: Option<&str>) -> Failure {
        let until = match &self {
            Self::Held { until, .. } => Some(*until),
            Self::Refused { .. }
            | Self::Limited { .. }
            | Self::Unusable { .. }
            | Self::Guarded(_) => None,
        };
        let (status, said) = match self.said() {
            Self::Refused { status, problems } => {
                (Some(*status), format!("Cloudflare said {status}, {}.", in_words(problems)))
            }
            _ => (None, String::new()),
        };
        // Advice that names a zone takes the place of the table's.
        let (code, detail) = match advice {
            Some(advice) => (code.with_advice(""), format!("{said} {advice}")),
            None => (code, said),
        };
        let title = title.unwrap_or(code.title);
        let failure = Failure { http_status: status, ..Failure::of(code, detail).titled(title) };
        failure.not_before(until)
    }
}

/// The failure when the token's zones are known and none fits.
pub(super) fn no_zone_for(name: &str) -> Failure {
    Failure::of(code::CLOUDFLARE_ZONE_NOT_FOUND, "")
        .titled(format!("No Cloudflare zone for {name}"))
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
    const AT: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);

    fn refused(status: u16, code: u64) -> ApiError {
        let problem = Problem { code, message: "words".to_owned(), error_chain: Vec::new() };
        ApiError::Refused { status, problems: vec![problem] }
    }

    #[test]
    fn a_person_must_act_only_where_that_is_known() {
        for (error, about, code) in [
            (refused(400, 6003), ZONES, "cloudflare_invalid_token"),
            (refused(403, 9109), ZONES, "cloudflare_invalid_token"),
            (refused(401, 10001), ZONES, "cloudflare_invalid_token"),
            (refused(403, 10000), ZONES, "cloudflare_permission_denied"),
            (refused(403, 10000), RECORDS, "cloudflare_permission_denied"),
            (refused(404, 7003), RECORDS, "cloudflare_zone_not_found"),
            (refused(400, 81054), RECORDS, "cloudflare_name_taken"),
        ] {
            for error in [error.clone(), error.held_until(AT)] {
                let failure = error.into_failure(about);
                assert_eq!((failure.class, failure.code.as_str()), (Class::Blocked, code));
                assert!(failure.detail.contains("words"), "{}", failure.detail);
            }
        }
        let silent = ApiError::Refused { status: 403, problems: Vec::new() };
        assert_eq!(silent.into_failure(RECORDS).code, "cloudflare_permission_denied");
    }

    #[test]
    fn a_refusal_that_nobody_knows_is_tried_again() {
        for status in [200, 400, 403, 404, 405, 409, 413, 418, 422, 451] {
            for code in [1, 1004, 9005, 9021, 9207, 12_345, 99_999_999] {
                let failure = refused(status, code).into_failure(RECORDS);
                let told = (failure.class, failure.code.as_str(), failure.http_status);
                assert_eq!(told, (Class::Transient, "cloudflare_refused", Some(status)));
                assert!(failure.detail.contains("words"), "{}", failure.detail);
            }
        }
    }

    #[test]
    fn a_zone_without_room_is_waited_for() {
        let failure = refused(400, 81045).held_until(AT).into_failure(RECORDS);

        let told = (failure.class, failure.code.as_str(), failure.retry_at);
        assert_eq!(told, (Class::Throttle, "cloudflare_zone_full", Some(AT)));
    }

    #[test]
    fn a_missing_permission_is_named() {
        assert!(refused(403, 10000).into_failure(ZONES).detail.contains("Zone:Read"));
        assert!(refused(403, 10000).into_failure(RECORDS).detail.contains("DNS:Edit"));
    }

    #[test]
    fn what_passes_by_itself_is_not_blocked() {
        let limited = ApiError::Limited { status: Some(429), retry_at: AT, reason: String::new() };
        let unusable = ApiError::Unusable { status: Some(502), reason: "HTML".to_owned() };

        let limited = limited.into_failure(RECORDS);
        assert_eq!((limited.class, limited.retry_at), (Class::Throttle, Some(AT)));
        assert_eq!(unusable.clone().into_failure(RECORDS).class, Class::Transient);
        let held = unusable.held_until(AT).into_failure(RECORDS);
        assert_eq!((held.class, held.retry_at), (Class::Transient, Some(AT)));
    }

    #[test]
    fn only_what_one_record_can_cause_splits_a_batch() {
        assert!(refused(400, 81058).may_concern_one_record());
        assert!(refused(404, 81044).may_concern_one_record());
        assert!(refused(400, 81045).may_concern_one_record());
        assert!(refused(403, 81045).may_concern_one_record());
        assert!(!refused(403, 10000).may_concern_one_record());
        assert!(!refused(400, 6003).may_concern_one_record());
        assert!(!refused(404, 7003).may_concern_one_record());
    }
}
