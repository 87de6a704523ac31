//! The difference between our clock and the CAs', by the `Date` of their answers.

use std::collections::HashMap;

use http::{HeaderMap, header};
use parking_lot::Mutex;
use time::{Duration, OffsetDateTime};

use crate::domain::skew::Skew;
use crate::telemetry::metrics::calls as metrics;

/// What was seen so long ago says nothing any more.
const COUNTS_FOR: Duration = Duration::days(1);

/// CAs that are kept in mind.
const MOST: usize = 64;

/// What each CA's answers have said last.
#[derive(Default)]
pub(super) struct Skews(Mutex<HashMap<String, Seen>>);

struct Seen {
    ahead: Duration,
    at: OffsetDateTime,
    since: OffsetDateTime,
}

impl Seen {
    fn by(&self, authority: &str) -> Skew {
        let Self { ahead, at, since } = *self;
        Skew { ahead, authority: authority.to_owned(), seen_at: at, since }
    }

    /// Whether it still says something.
    fn counts(&self, now: OffsetDateTime) -> bool {
        (now - self.at).abs() < COUNTS_FOR
    }
}

impl Skews {
    /// Takes note of an answer that has come at `now`. One that a cache has kept says when it was made, not
    /// what time it is.
    pub(super) fn observe(&self, authority: &str, headers: &HeaderMap, now: OffsetDateTime) {
        let date = headers.get(header::DATE).filter(|_| !headers.contains_key(header::AGE));
        let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let Some(date) = date else { return };
        let mut seen = Seen { ahead: now - OffsetDateTime::from(date), at: now, since: now };
        let before = self.largest(now);
        if let Some(known) = self.with(authority, now)
            && known.is_off() == seen.by(authority).is_off()
        {
            seen.since = known.since;
        }
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
        let counting = all.iter().filter(|(_, seen)| seen.counts(now));
        let largest = counting.max_by_key(|(_, seen)| seen.ahead.abs());
        largest.map(|(authority, seen)| seen.by(authority))
    }

    /// The difference to one CA.
    pub(super) fn with(&self, authority: &str, now: OffsetDateTime) -> Option<Skew> {
        let all = self.0.lock();
        all.get(authority).filter(|seen| seen.counts(now)).map(|seen| seen.by(authority))
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

    #[test]
    fn a_ca_is_known_with_the_time_since_which_its_clock_differs() {
        let skews = Skews::default();
        let minute = Duration::MINUTE;
        let at = |turn: i32, date: &str| {
            skews.observe("ca.example", &dated(date), NOON + turn * minute);
            skews.with("ca.example", NOON + turn * minute).unwrap()
        };

        assert_eq!(at(0, "Thu, 01 Jan 2026 12:00:00 GMT").since, NOON);
        let off = at(1, "Thu, 01 Jan 2026 14:01:00 GMT");
        assert_eq!((off.is_off(), off.since), (true, NOON + minute));
        let still = at(2, "Thu, 01 Jan 2026 14:02:00 GMT");
        assert_eq!((still.since, still.seen_at), (NOON + minute, NOON + 2 * minute));
        let right = at(3, "Thu, 01 Jan 2026 12:03:00 GMT");
        assert_eq!((right.is_off(), right.since), (false, NOON + 3 * minute));
        assert_eq!(skews.with("other.example", NOON), None, "it was never asked");
    }
}
