//! Backoff schedules as data. Randomness is an argument.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use super::duration;

/// How long a certificate waits after a failed attempt; what is absent is as cert-manager has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// After the first; doubles each time. A duration, `1h` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "duration::read")]
    #[schema(example = "10m")]
    pub initial: Option<String>,
    /// At most so long. A duration, `32h` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "duration::read")]
    #[schema(example = "24h")]
    pub max: Option<String>,
}

impl Retry {
    /// Lower bound for `min`: shorter pauses run into the CAs' limits of failures.
    pub const SHORTEST: Duration = Duration::minutes(1);
    /// Upper bound for `max`.
    pub const LONGEST: Duration = Duration::days(30);

    /// The same in one spelling; `None` if it says nothing.
    #[must_use]
    pub fn canonical(self) -> Option<Self> {
        let spelled = Self {
            initial: self.initial.map(duration::respelled),
            max: self.max.map(duration::respelled),
        };
        (spelled != Self::default()).then_some(spelled)
    }

    /// The first pause and the longest.
    pub fn schedule(&self) -> (Duration, Duration) {
        let read = |text: &Option<String>| {
            let read = text.as_deref().and_then(|text| duration::parse(text).ok());
            read.map(|pause| pause.clamp(Self::SHORTEST, Self::LONGEST))
        };
        match (read(&self.initial), read(&self.max)) {
            (None, None) => (Duration::hours(1), Duration::hours(32)),
            (Some(initial), None) => (initial, initial.max(Duration::hours(32))),
            (None, Some(max)) => (max.min(Duration::hours(1)), max),
            (Some(initial), Some(max)) => (initial, max),
        }
    }
}

/// Those who were told the same moment come within so long after it.
pub const SPREAD: Duration = Duration::seconds(5);

/// A number in `[0, 1)` that spreads what would otherwise happen at the same moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// Takes the fractional part of any number.
    pub fn new(chance: f64) -> Self {
        Self(chance.rem_euclid(1.0))
    }

    /// A random jitter.
    pub fn random() -> Self {
        let mut bytes = [0_u8; 4];
        // Without randomness there is no spreading, which is no reason to stop.
        aws_lc_rs::rand::fill(&mut bytes).ok();
        Self::new(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
    }

    /// Jitter of zero, for tests that look at exact times.
    pub const NONE: Self = Self(0.0);

    /// A part of `duration`, at random.
    pub fn share(self, duration: Duration) -> Duration {
        duration * self.0
    }

    /// A pause until a moment that somebody else has named, made longer by up to a tenth of it and [`SPREAD`] at most:
    /// whoever reads it takes it for the same moment.
    pub fn spread(self, pause: Duration) -> Duration {
        let tenth: Duration = pause / 10;
        pause + self.share(tenth.clamp(Duration::ZERO, SPREAD))
    }

    /// `duration`, made longer by up to `share` of itself.
    pub fn stretch(self, duration: Duration, share: f64) -> Duration {
        duration + duration * (share * self.0)
    }
}

/// After the `n`th answer in a row that denied what the CA had just handed out (from 0).
///
/// Replicas catch up within seconds, on bad days within half a minute: until then the steps stay
/// short, because each certificate meets a lag twice, at its authorizations and at its download.
pub fn consistency(n: u32, jitter: Jitter) -> Duration {
    const LADDER: [i64; 10] =
        [500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000, 10_000, 15_000, 30_000];
    let step = LADDER.get(n as usize).copied().unwrap_or(30_000);
    jitter.stretch(Duration::milliseconds(step), 0.2)
}

/// After the `n`th unusable answer in a row (from 0): 5 s doubling to 5 min.
pub fn transient(n: u32, jitter: Jitter) -> Duration {
    jitter.stretch(doubling(Duration::seconds(5), Duration::minutes(5), n), 0.2)
}

/// After the `n`th refusal in a row that came although its predecessor's `Retry-After` was kept to (from 0):
/// 5 s doubling to 15 s. The CA does answer, and may take the next request.
pub fn distrust(n: u32, jitter: Jitter) -> Duration {
    jitter.stretch(doubling(Duration::seconds(5), Duration::seconds(15), n), 0.2)
}

/// After the `n`th try in a row at taking a proof away that did not work (from 0): 5 s doubling to 1 h.
/// Nobody waits for it, and a provider that refuses it refuses it for all proofs alike.
pub fn clean_up(n: u32, jitter: Jitter) -> Duration {
    jitter.stretch(doubling(Duration::seconds(5), Duration::hours(1), n), 0.2)
}

/// After the `n`th look for forgotten records in a row that a provider put off (from 0): 1 min doubling
/// to 1 h.
pub fn sweep(n: u32, jitter: Jitter) -> Duration {
    jitter.stretch(doubling(Duration::minutes(1), Duration::hours(1), n), 0.1)
}

/// After the `n`th failed issuance in a row (from 0).
pub fn issuance(n: u32, retry: &Retry, jitter: Jitter) -> Duration {
    let (initial, max) = retry.schedule();
    jitter.stretch(doubling(initial, max, n), 0.1)
}

/// Between looks whether a provider takes a record, at least, after the `n`th failed attempt in a row (from 0): 5 min
/// doubling to a day.
pub fn rehearsal(n: u32) -> Duration {
    doubling(Duration::minutes(5), Duration::DAY, n)
}

/// After the `n`th question for renewal information that brought none (from 0): 1 min doubling to 6 h.
pub fn renewal_information(n: u32, jitter: Jitter) -> Duration {
    jitter.stretch(doubling(Duration::minutes(1), Duration::hours(6), n), 0.1)
}

/// Between looks at something that is expected any moment (from 0): 25 ms, four times as long each
/// time, up to 5 s; then about a fifth of the wait so far, up to a minute. A quick CA is met quickly, and
/// one that takes minutes is asked ever more seldom.
pub fn poll(n: u32, jitter: Jitter) -> Duration {
    /// Looks until the pauses are five seconds long, and then until they are twice as long.
    const QUICK: u32 = 4;
    let pause = match n.checked_sub(QUICK) {
        None => doubling(Duration::milliseconds(25), Duration::seconds(5), n * 2),
        Some(more) => doubling(Duration::seconds(5), Duration::minutes(1), more / 6),
    };
    jitter.stretch(pause, 0.1)
}

/// The pause before a look at what should be done `likely` so long after its beginning, when it was not after
/// `waited`, and `n` looks (from 0) have found nothing. Whatever was learned, it is a share of the wait so far
/// that grows from look to look, and at least 3 ms, doubling; at most a minute. The work begins at its own time
/// each time, so that nothing has to be spread.
pub fn likely(n: u32, waited: Duration, likely: Duration) -> Duration {
    /// Of the wait so far: 1.5 %, 2 %, 2.7 %, 3.7 %, 5 % … all of it.
    const SHARE: f64 = 0.015;
    const GROWTH: f64 = 1.35;
    let share = (SHARE * GROWTH.powf(f64::from(n))).min(1.0);
    let least = doubling(Duration::milliseconds(3), Duration::minutes(1), n).max(waited * share);
    (likely - waited).max(least).min(Duration::minutes(1))
}

/// The longest pause between looks for a DNS record.
pub const LONGEST_PROPAGATION: Duration = Duration::seconds(10);

/// Between looks for a DNS record (from 0), where nothing was learned: 500 ms doubling to 10 s.
pub fn propagation(n: u32, jitter: Jitter) -> Duration {
    jitter.stretch(doubling(Duration::milliseconds(500), LONGEST_PROPAGATION, n), 0.1)
}

/// The next common moment for clean-ups, every three seconds, so that proofs of many orders are removed
/// by one call and no worker waits for others.
pub fn next_clean_up(now: OffsetDateTime) -> OffsetDateTime {
    const PERIOD: Duration = Duration::seconds(3);
    let since_last = now.unix_timestamp_nanos().rem_euclid(PERIOD.whole_nanoseconds());
    let since_last = Duration::nanoseconds(i64::try_from(since_last).unwrap_or_default());
    if since_last.is_zero() { now } else { now + PERIOD - since_last }
}

fn doubling(first: Duration, most: Duration, n: u32) -> Duration {
    let factor = 2_i32.checked_pow(n).unwrap_or(i32::MAX);
    first.checked_mul(factor).map_or(most, |duration| duration.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_was_named_is_kept_to_within_seconds() {
        let (s, latest) = (Duration::seconds, Jitter::new(0.999));
        for (pause, most) in [
            (s(-5), s(-5)),
            (s(10), s(11)),
            (s(60), s(65)),
            (Duration::hours(26), Duration::hours(26) + SPREAD),
        ] {
            assert_eq!(Jitter::NONE.spread(pause), pause);
            let spread = latest.spread(pause);
            assert!(pause <= spread && spread <= most, "{pause}: {spread}");
        }
    }

    #[test]
    fn a_404_on_a_fresh_url_is_asked_again_within_a_second() {
        assert_eq!(consistency(0, Jitter::NONE), Duration::milliseconds(500));
        assert!(consistency(0, Jitter::new(0.999)) < Duration::seconds(1));
    }

    #[test]
    fn replicas_that_lag_by_twenty_seconds_cost_less_than_half_a_minute() {
        let slowest = Jitter::new(0.999);
        let tries = (0..).scan(Duration::ZERO, |at, n| {
            *at += consistency(n, slowest);
            Some(*at)
        });

        let found = tries.into_iter().find(|at| *at >= Duration::seconds(20)).unwrap();
        assert!(found < Duration::seconds(30), "{found}");
    }

    #[test]
    fn proofs_of_orders_that_end_together_are_taken_away_together() {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::seconds(3 * 100);
        assert_eq!(next_clean_up(start), start);
        for milliseconds in [1, 1_500, 2_999, 3_000] {
            let now = start + Duration::milliseconds(milliseconds);
            assert_eq!(next_clean_up(now), start + Duration::seconds(3));
        }
    }

    #[test]
    fn schedules_grow_and_stay_below_their_limit() {
        for n in 0..200 {
            assert!(transient(n, Jitter::NONE) <= Duration::minutes(5));
            assert!(clean_up(n, Jitter::NONE) <= Duration::hours(1));
            assert!(issuance(n, &Retry::default(), Jitter::NONE) <= Duration::hours(32));
            assert!(consistency(n, Jitter::NONE) <= Duration::seconds(30));
        }
        assert_eq!(issuance(0, &Retry::default(), Jitter::NONE), Duration::hours(1));
        assert_eq!(issuance(5, &Retry::default(), Jitter::NONE), Duration::hours(32));
    }

    #[test]
    fn pauses_between_attempts_follow_what_is_set() {
        let minutes =
            |retry: Retry| [0, 1, 9].map(|n| issuance(n, &retry, Jitter::NONE).whole_minutes());
        let retry = |initial: Option<&str>, max: Option<&str>| Retry {
            initial: initial.map(str::to_owned),
            max: max.map(str::to_owned),
        };

        assert_eq!(minutes(retry(None, None)), [60, 120, 32 * 60]);
        assert_eq!(minutes(retry(Some("30m"), Some("4h"))), [30, 60, 240]);
        let short = minutes(retry(None, Some("30m")));
        assert_eq!(short, [30; 3], "the first is no longer than the last");
        assert_eq!(minutes(retry(Some("48h"), None)), [48 * 60; 3]);
    }
}
