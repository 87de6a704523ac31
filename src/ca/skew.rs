//! The difference between our clock and the CAs', by the `Date` of their answers.

use std::collections::HashMap;

use http::{HeaderMap, header};
use parking_lot::Mutex;
use time::{Duration, OffsetDateTime};

use crate::telemetry::metrics::calls as metrics;

/// More than the way of an answer and the seconds of a `Date` can make.
const TOLERANCE: Duration = Duration::seconds(60);

/// What was seen so long ago says nothing any more.
const COUNTS_FOR: Duration = Duration::days(1);

/// CAs that are kept in mind.
const MOST: usize = 64;

/// How far our clock is ahead of a CA's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skew {
    /// Negative where it is behind.
    pub ahead: Duration,
    /// The CA's host.
    pub authority: String,
}

impl Skew {
    /// Whether one of the clocks is wrong.
    pub fn is_off(&self) -> bool {
        self.ahead.abs() > TOLERANCE
    }

    /// `2 d ahead of`, `90 s behind`.
    pub fn in_words(&self) -> String {
        let time = self.ahead.abs();
        let (count, unit) = match time {
            _ if time >= Duration::DAY => (time.whole_days(), "d"),
            _ if time >= Duration::hours(2) => (time.whole_hours(), "h"),
            _ if time >= Duration::minutes(5) => (time.whole_minutes(), "min"),
            _ => (time.whole_seconds(), "s"),
        };
        format!("{count} {unit} {}", if self.ahead.is_negative() { "behind" } else { "ahead of" })
    }
}

/// What each CA's answers have said last.
#[derive(Default)]
pub(super) struct Skews(Mutex<HashMap<String, Seen>>);

struct Seen {
    ahead: Duration,
    at: OffsetDateTime,
}

impl Skews {
    /// Takes note of an answer that has come at `now`. One that a cache has kept says when it was made, not
    /// what time it is.
    pub(super) fn observe(&self, authority: &str, headers: &HeaderMap, now: OffsetDateTime) {
        let date = headers.get(header::DATE).filter(|_| !headers.contains_key(header::AGE));
        let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let Some(date) = date else { return };
        let seen = Seen { ahead: now - OffsetDateTime::from(date), at: now };
        let before = self.largest(now);
        {
            let mut all = self.0.lock();
            if all.len() >= MOST && !all.contains_key(authority) {
                return;
            }
            all.insert(authority.to_owned(), seen);
        }
        let after = self.largest(now);
        metrics::clock_ahead(after.as_ref().map_or(Duration::ZERO, |skew| skew.ahead));
        let is_off = |skew: &Option<Skew>| skew.as_ref().is_some_and(Skew::is_off);
        match (is_off(&before), &after) {
            (false, Some(skew)) if skew.is_off() => {
                let (authority, seconds) = (&skew.authority, skew.ahead.whole_seconds());
                tracing::warn!(
                    authority,
                    seconds,
                    "our clock is so far ahead of the CA's (behind, where negative); see that the time is synchronized"
                );
            }
            (true, Some(skew)) if !skew.is_off() => {
                tracing::info!("our clock and the CAs' agree again");
            }
            _ => {}
        }
    }

    /// The largest difference.
    pub(super) fn largest(&self, now: OffsetDateTime) -> Option<Skew> {
        let all = self.0.lock();
        let counting = all.iter().filter(|(_, seen)| (now - seen.at).abs() < COUNTS_FOR);
        let largest = counting.max_by_key(|(_, seen)| seen.ahead.abs());
        largest.map(|(authority, seen)| Skew { ahead: seen.ahead, authority: authority.clone() })
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn dated(date: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::DATE, date.parse().unwrap())])
    }

    #[test]
    fn an_answers_date_tells_how_far_our_clock_is_ahead() {
        let skews = Skews::default();
        assert_eq!(skews.largest(NOON), None);

        skews.observe("right.example", &dated("Thu, 01 Jan 2026 11:59:58 GMT"), NOON);
        assert!(!skews.largest(NOON).unwrap().is_off(), "two seconds on the way");
        skews.observe("other.example", &dated("Thu, 01 Jan 2026 12:05:00 GMT"), NOON);

        let skew = skews.largest(NOON).unwrap();
        assert_eq!(
            (skew.authority.as_str(), skew.in_words().as_str()),
            ("other.example", "5 min behind")
        );
        assert!(skew.is_off());
        skews.observe("other.example", &dated("Thu, 01 Jan 2026 12:00:01 GMT"), NOON);
        assert!(!skews.largest(NOON).unwrap().is_off(), "the newest answer counts");
    }

    #[test]
    fn what_says_nothing_of_the_time_is_passed_over() {
        let skews = Skews::default();
        let mut kept = dated("Wed, 31 Dec 2025 12:00:00 GMT");
        kept.insert(header::AGE, "86400".parse().unwrap());

        for headers in [kept, dated("yesterday"), HeaderMap::new()] {
            skews.observe("ca.example", &headers, NOON);
        }
        assert_eq!(skews.largest(NOON), None);
    }

    #[test]
    fn what_was_seen_long_ago_is_forgotten() {
        let skews = Skews::default();
        skews.observe("ca.example", &dated("Thu, 01 Jan 2026 10:00:00 GMT"), NOON);

        assert!(skews.largest(NOON + Duration::hours(23)).is_some());
        assert_eq!(skews.largest(NOON + Duration::hours(25)), None);
        assert_eq!(skews.largest(NOON - Duration::days(2)), None, "the clock was set");
    }
}
