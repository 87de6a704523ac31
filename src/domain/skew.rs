//! The difference between our clock and a CA's.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// More than the way of an answer and the seconds of a `Date` can make.
const TOLERANCE: Duration = Duration::seconds(60);

/// How far our clock is ahead of a CA's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skew {
    /// Negative where it is behind.
    pub ahead: Duration,
    /// The CA's host.
    pub authority: String,
    /// What our clock showed when the CA's was seen.
    pub seen_at: OffsetDateTime,
    /// Since when they agree, or do not, by our clock.
    pub since: OffsetDateTime,
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

    /// Reason and message of the issuer's condition `ClockSkewed`, which it has while one of the clocks is wrong.
    pub fn condition(&self) -> Option<(&'static str, String)> {
        if !self.is_off() {
            return None;
        }
        let shown =
            |at: OffsetDateTime| at.truncate_to_second().format(&Rfc3339).unwrap_or_default();
        let reason = if self.ahead.is_negative() { "ClockBehind" } else { "ClockAhead" };
        let message = format!(
            "The clock of this installation showed {} when that of {} showed {}: it is {} it. Have the time synchronized (`timedatectl`); if it is right, the CA's is wrong",
            shown(self.seen_at),
            self.authority,
            shown(self.seen_at - self.ahead),
            self.in_words()
        );
        Some((reason, message))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_condition_names_both_times_for_as_long_as_they_differ() {
        let noon = datetime!(2026-01-03 12:00:00.250 UTC);
        let skew =
            |ahead| Skew { ahead, authority: "ca.example".to_owned(), seen_at: noon, since: noon };
        for (ahead, reason, theirs, words) in [
            (Duration::days(2), "ClockAhead", "2026-01-01T12:00:00Z", "2 d ahead of it"),
            (Duration::days(-2), "ClockBehind", "2026-01-05T12:00:00Z", "2 d behind it"),
            (Duration::seconds(61), "ClockAhead", "2026-01-03T11:58:59Z", "61 s ahead of it"),
        ] {
            let (found, message) = skew(ahead).condition().unwrap();
            assert_eq!(found, reason);
            let both =
                format!("showed 2026-01-03T12:00:00Z when that of ca.example showed {theirs}");
            assert!(message.contains(&both) && message.contains(words), "{message}");
        }
        for seconds in [-60, 0, 60] {
            assert_eq!(skew(Duration::seconds(seconds)).condition(), None, "{seconds}");
        }
    }
}
