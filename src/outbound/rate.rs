//! Rate limits for calls to third parties; callers cannot bypass them.
//!
//! Generic cell rates, kept in memory for each process: so many calls at once, and then one more each
//! time that its interval has passed. Forgotten are only those who may be called as if they never had
//! been; when there are too many of the others, nobody new is called.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
use time::{Duration, OffsetDateTime};

/// A rate limit: a burst, and then one call per interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls that may be saved up.
    pub burst: u32,
    /// A call is earned every so often.
    pub interval: Duration,
}

impl Rate {
    /// The time in which everything is saved up.
    fn savings(self) -> Duration {
        self.interval * self.burst
    }

    /// The most calls within any stretch of time of this length.
    #[cfg(test)]
    pub(crate) fn most_within(self, time: Duration) -> usize {
        let earned = time.whole_nanoseconds() / self.interval.whole_nanoseconds();
        self.burst as usize + usize::try_from(earned).unwrap()
    }
}

/// The spending on one [`Rate`] for each key `K`.
pub struct Rates<K> {
    rate: Rate,
    most: usize,
    called: Mutex<HashMap<K, Called>>,
}

#[derive(Clone, Copy)]
struct Called {
    /// The time at which all that was spent is earned back (GCRA).
    earned_back: OffsetDateTime,
    /// Asked not to be called before.
    parked_until: OffsetDateTime,
}

impl Called {
    fn is_rested(self, now: OffsetDateTime) -> bool {
        self.earned_back <= now && self.parked_until <= now
    }
}

/// Pause of a new key while the table of keys is full.
const CROWDED: Duration = Duration::seconds(10);

impl<K: Eq + Hash + Clone> Rates<K> {
    /// Starts with no calls and keeps at most `most` keys.
    pub fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most, called: Mutex::default() }
    }

    /// Spends one call, or says when to come back.
    pub fn spend(&self, who: &K, now: OffsetDateTime) -> Result<(), OffsetDateTime> {
        let mut called = self.called.lock();
        let Some(known) = self.known(&mut called, who, now) else { return Err(now + CROWDED) };
        if known.parked_until > now {
            return Err(known.parked_until);
        }
        let savings = self.rate.savings();
        // Capped, so that a clock that was put back does not shut anybody out for long.
        known.earned_back = known.earned_back.clamp(now, now + savings);
        let spent = known.earned_back + self.rate.interval;
        if spent > now + savings {
            return Err(spent - savings);
        }
        known.earned_back = spent;
        Ok(())
    }

    /// What may be called at once, and when everything is saved up again.
    pub fn left(&self, who: &K, now: OffsetDateTime) -> (u32, Duration) {
        let owed = self.called.lock().get(who).map(|known| known.earned_back - now);
        let owed = owed.unwrap_or_default().max(Duration::ZERO);
        let left = (self.rate.savings() - owed).whole_nanoseconds().max(0)
            / self.rate.interval.whole_nanoseconds().max(1);
        (u32::try_from(left).unwrap_or(u32::MAX), owed)
    }

    /// Whether the remaining budget is smaller than the recent spending.
    pub fn is_short(&self, who: &K, now: OffsetDateTime) -> bool {
        let called = self.called.lock();
        called.get(who).is_some_and(|known| known.earned_back - now > self.rate.savings() / 2)
    }

    /// Remembers that nothing more will be answered before `until`. Nothing shortens that again.
    pub fn park(&self, who: &K, until: OffsetDateTime, now: OffsetDateTime) {
        let mut called = self.called.lock();
        if let Some(known) = self.known(&mut called, who, now) {
            known.parked_until = known.parked_until.max(until);
        }
    }

    fn known<'a>(
        &self,
        called: &'a mut HashMap<K, Called>,
        who: &K,
        now: OffsetDateTime,
    ) -> Option<&'a mut Called> {
        if called.len() >= self.most && !called.contains_key(who) {
            called.retain(|_, known| !known.is_rested(now));
            if called.len() >= self.most {
                return None;
            }
        }
        let new = Called { earned_back: now, parked_until: OffsetDateTime::UNIX_EPOCH };
        Some(called.entry(who.clone()).or_insert(new))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);
    const RATE: Rate = Rate { burst: 20, interval: Duration::milliseconds(500) };

    fn full(rates: &Rates<&'static str>, who: &'static str, now: OffsetDateTime) -> usize {
        (0..1_000).take_while(|_| rates.spend(&who, now).is_ok()).count()
    }

    #[test]
    fn each_has_a_burst_of_their_own_and_then_one_call_per_interval() {
        let rates = Rates::new(RATE, 10);

        assert_eq!((full(&rates, "a", START), full(&rates, "b", START)), (20, 20));
        let at = rates.spend(&"a", START).unwrap_err();
        assert_eq!(at, START + RATE.interval);
        assert_eq!(full(&rates, "a", at), 1);
    }

    #[test]
    fn what_is_left_is_what_the_next_calls_find() {
        let rates = Rates::new(RATE, 10);
        assert_eq!(rates.left(&"a", START), (RATE.burst, Duration::ZERO));
        for spent in 1..=RATE.burst {
            assert!(rates.spend(&"a", START).is_ok());
            assert_eq!(rates.left(&"a", START), (RATE.burst - spent, RATE.interval * spent));
        }
        assert!(rates.spend(&"a", START).is_err());
        let later = START + RATE.interval * 3 / 2;
        assert_eq!(rates.left(&"a", later).0, 1, "half of one is none");
    }

    #[test]
    fn half_of_it_spent_is_short() {
        let rates = Rates::new(RATE, 10);
        let calls = (0..1_000)
            .take_while(|_| !rates.is_short(&"a", START))
            .map(|_| rates.spend(&"a", START));

        assert_eq!(calls.flatten().count(), 11);
        assert!(!rates.is_short(&"a", START + Duration::seconds(1)));
    }

    #[test]
    fn who_asked_for_quiet_is_left_alone_however_short_the_next_one_asks() {
        let rates = Rates::new(RATE, 10);
        let until = START + Duration::minutes(5);
        rates.park(&"a", until, START);
        rates.park(&"a", START, START);

        assert_eq!(rates.spend(&"a", START), Err(until));
        assert_eq!(rates.spend(&"a", until), Ok(()));
    }

    #[test]
    fn a_crowd_of_others_makes_nobodys_debt_forgotten() {
        let rates = Rates::new(RATE, 2);
        assert_eq!((full(&rates, "a", START), full(&rates, "b", START)), (20, 20));

        assert_eq!(full(&rates, "c", START), 0, "there is no room for a third");
        assert_eq!(full(&rates, "a", START), 0);
        let rested = START + RATE.interval * 20;
        assert_eq!(full(&rates, "c", rested), 20);
        rates.park(&"c", rested + Duration::hours(1), rested);
        assert_eq!(rates.spend(&"b", rested + Duration::minutes(1)), Ok(()));
        assert!(rates.spend(&"c", rested + Duration::minutes(1)).is_err());
    }

    #[test]
    fn a_clock_that_was_put_back_shuts_nobody_out_and_gives_nothing_away() {
        let rates = Rates::new(RATE, 10);
        full(&rates, "a", START);

        let earlier = START - Duration::hours(1);
        assert_eq!(full(&rates, "a", earlier), 0);
        assert_eq!(full(&rates, "a", earlier + RATE.interval), 1);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_holds_more_than_the_burst_and_what_was_earned(
            steps in prop::collection::vec((0_i64..2_000, 1_usize..30, 0_i64..3_000), 1..200),
        ) {
            let rates = Rates::new(RATE, 3);
            let (mut now, mut calls) = (START, Vec::new());
            for (pause, wishes, parked) in steps {
                now += Duration::milliseconds(pause);
                for _ in 0..wishes {
                    if rates.spend(&"a", now).is_ok() {
                        calls.push(now);
                    }
                }
                if parked > 2_500 {
                    rates.park(&"a", now + Duration::milliseconds(parked), now);
                }
            }
            for (first, from) in calls.iter().enumerate() {
                for (last, to) in calls.iter().enumerate().skip(first) {
                    prop_assert!(last - first < RATE.most_within(*to - *from));
                }
            }
        }
    }
}
